//go:build linux

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// KeeperArgument is the one argument with which the agent's binary is the keeper:
// its main function then has to call Keep and nothing else.
const KeeperArgument = "keep"

// keeperLock is the descriptor of the lock in the keeper.
const keeperLock = 3

// order is what the keeper is to do. It comes on its standard input, since the
// environment has a secret in it, and arguments can be read by anyone.
type order struct {
	Command string
	Dir     string
	Program string // the directory of the program's files
	Group   string // the directory of the control group to run it in; empty: none
	Who     account
	Env     []string
}

// Keep runs the runner program that the order on standard input names, and leaves
// its exit code where the agent looks for it. It returns its own exit code.
func Keep() int {
	syscall.CloseOnExec(keeperLock) // the lock is the keeper's, and not its children's
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return 2
	}
	_ = os.Stdin.Close()
	log, err := os.OpenFile(filepath.Join(o.Program, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 2
	}
	code, err := o.run(log)
	if err != nil {
		fmt.Fprintf(log, "the runner program: %v\n", err)
	}
	if writeFile(filepath.Join(o.Program, exitFile), []byte(strconv.Itoa(code))) != nil {
		return 2
	}
	return 0
}

// run runs the program to its end. It returns 127 if it does not start, as a
// shell does, and 128 and the signal if one ended it.
func (o order) run(log *os.File) (int, error) {
	cmd := exec.Command(o.Command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = o.Dir, o.Env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Getuid() != int(o.Who.UID) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: o.Who.UID, Gid: o.Who.GID, Groups: o.Who.Groups}
	}
	if o.Group != "" {
		group, err := os.Open(o.Group)
		if err != nil {
			return 127, err
		}
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	syscall.Umask(0o022) // jobs expect the usual one, not the agent's
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	// The agent is spared when memory runs out; what it starts is not. Before the
	// kernel has this line, the program has started nothing yet that needs memory.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0); err != nil {
		fmt.Fprintf(log, "the runner program is spared when memory runs out: %v\n", err)
	}
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}
