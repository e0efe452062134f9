//go:build linux

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// The files of a program, below Config.Dir.
const (
	programDir = "program"
	lockFile   = "lock" // held for as long as the keeper lives
	logFile    = "log"  // what the program prints
	exitFile   = "exit" // its exit code, once it has exited
)

// program is one run of the runner program.
type program struct {
	events chan agent.ProgramEvent
	code   int
	output string
	stop   context.CancelFunc // ends the following, not the program
	done   chan struct{}      // closed when nothing follows it any more
	answer string             // the file that a job waits for which asks
	keeper int                // the process id of a keeper that is to be reaped; 0: none of ours
}

var _ agent.Program = (*program)(nil)

// Events implements agent.Program.
func (p *program) Events() <-chan agent.ProgramEvent { return p.events }

// ExitCode implements agent.Program. It is -1 when nobody saw the program exit.
func (p *program) ExitCode() int { return p.code }

var _ agent.Admitter = (*program)(nil)

// Admit implements agent.Admitter: it makes the file that the hook waits for, whole.
func (p *program) Admit(allowed bool, why string) error {
	word := "refused"
	if allowed {
		word = "allowed"
	}
	if err := os.WriteFile(p.answer+".new", []byte(word+"\n"+why+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Chmod(p.answer+".new", 0o644); err != nil { // whatever our umask is: the user reads it
		return err
	}
	return os.Rename(p.answer+".new", p.answer)
}

var _ agent.Printer = (*program)(nil)

// Output implements agent.Printer.
func (p *program) Output() string { return p.output }

// Start implements agent.Machine.
func (m *Machine) Start(ctx context.Context, config secret.Text, environment map[string]string, asks bool) (agent.Program, error) {
	who, err := m.account()
	if err != nil {
		return nil, err
	}
	command := filepath.Join(m.cfg.Runner, "run.sh")
	if _, err := exec.LookPath(command); err != nil {
		return nil, err
	}
	m.unfollow()
	image := m.image(who)
	if err := m.keep(image); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if err := m.prepare(who, image, asks); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if err := errors.Join(linkWork(m, who), guardMetadata(ctx, m, who.UID)); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	ours := map[string]string{
		startedVariable:   filepath.Join(m.cfg.Hooks, startedHook),
		completedVariable: filepath.Join(m.cfg.Hooks, completedHook),
		tooOldVariable:    "1",
		configVariable:    config.Reveal(),
	}
	if hosts := noProxy(image.proxies(environment), direct(image, m.cfg.API)...); hosts != "" {
		ours["no_proxy"], ours["NO_PROXY"] = hosts, hosts
	}
	if err := m.setDotEnv(who, image, ours, environment); err != nil {
		m.log.Warn("a .env that overrides what we set stays: jobs run, but maybe their run ids are not known",
			slog.String("file", filepath.Join(m.cfg.Runner, dotEnv)), slog.Any("error", err))
	}
	o := order{Command: command, Dir: m.cfg.Runner, Program: m.path(programDir), Group: m.group(), Who: who, Env: list(image.environment(who, ours, environment))}
	if o.Group == "" {
		m.log.Info("no control groups: what a job leaves is found by its user alone")
	}
	pid, err := m.spawn(o)
	if err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	return m.follow(pid), nil
}

// spawn starts the keeper, and returns its process id. The order goes to it in a
// file without a name, the lock as a descriptor that it alone keeps open.
func (m *Machine) spawn(o order) (int, error) {
	lock, err := os.OpenFile(filepath.Join(o.Program, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return 0, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	stdin, err := os.CreateTemp(m.cfg.Dir, "order-")
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	if err := os.Remove(stdin.Name()); err != nil {
		return 0, err
	}
	if err := json.NewEncoder(stdin).Encode(o); err != nil {
		return 0, err
	}
	if _, err := stdin.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", KeeperArgument)
	cmd.Stdin = stdin
	cmd.ExtraFiles = []*os.File{lock} // keeperLock
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}
