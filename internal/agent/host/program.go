//go:build linux

package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// followPeriod is how often a program is looked at: a job's start and end are
// reported that much later.
const followPeriod = 250 * time.Millisecond

// The files of a program, below Config.Dir.
const (
	programDir = "program"
	lockFile   = "lock" // held for as long as the keeper lives
	logFile    = "log"  // what the program prints
	exitFile   = "exit" // its exit code, once it has exited
)

// The files below Config.Hooks.
const (
	startedHook   = "job-started.sh"
	completedHook = "job-completed.sh"
	startedFile   = "started"   // what the first writes
	completedFile = "completed" // what the second writes
)

// hook is run by the runner program before the first and after the last of a
// job's steps. A hook that fails would fail the job, and one that waits would hold
// it up: a file takes the line whether the agent is there or not. The image's own
// hook comes behind it.
const hook = `#!/bin/sh
echo "$GITHUB_RUN_ID" >>%s || :
`

// program is one run of the runner program.
type program struct {
	events chan agent.ProgramEvent
	code   int
	output string
	stop   context.CancelFunc // ends the following, not the program
	done   chan struct{}      // closed when nothing follows it any more
	keeper int                // the process id of a keeper that is to be reaped; 0: none of ours
}

var _ agent.Program = (*program)(nil)

// Events implements agent.Program.
func (p *program) Events() <-chan agent.ProgramEvent { return p.events }

// ExitCode implements agent.Program. It is -1 when nobody saw the program exit.
func (p *program) ExitCode() int { return p.code }

var _ agent.Printer = (*program)(nil)

// Output implements agent.Printer.
func (p *program) Output() string { return p.output }

// account is the user that the runner program runs as.
type account struct {
	Name   string
	Home   string
	UID    uint32
	GID    uint32
	Groups []uint32
}

func lookup(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("groups of %s: %w", name, err)
	}
	a := account{Name: u.Username, Home: u.HomeDir}
	var numbers []uint32
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("ids of %s: %w", name, err)
		}
		numbers = append(numbers, uint32(n))
	}
	a.UID, a.GID, a.Groups = numbers[0], numbers[1], numbers[2:]
	if a.UID == 0 {
		return account{}, fmt.Errorf("user %s is root", name)
	}
	return a, nil
}

// Start implements agent.Machine.
func (m *Machine) Start(_ context.Context, config secret.Text, environment map[string]string) (agent.Program, error) {
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
	if err := m.prepare(who, image); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	m.closeMetadata(who.UID)
	ours := map[string]string{
		startedVariable:   filepath.Join(m.cfg.Hooks, startedHook),
		completedVariable: filepath.Join(m.cfg.Hooks, completedHook),
		tooOldVariable:    "1",
		configVariable:    config.Reveal(),
	}
	if hosts := noProxy(image.proxies(environment)); hosts != "" {
		ours["no_proxy"], ours["NO_PROXY"] = hosts, hosts
	}
	if err := m.setDotEnv(who, image, ours, environment); err != nil {
		m.log.Warn("a .env that overrides what we set stays: jobs run, but maybe their run ids are not known",
			slog.String("file", filepath.Join(m.cfg.Runner, dotEnv)), slog.Any("err", err))
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

// prepare makes the directories of a program, which are empty then.
func (m *Machine) prepare(who account, i image) error {
	if err := os.RemoveAll(m.path(programDir)); err != nil {
		return err
	}
	if err := os.Mkdir(m.path(programDir), 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(m.cfg.Hooks); err != nil {
		return err
	}
	if err := os.Mkdir(m.cfg.Hooks, 0o700); err != nil {
		return err
	}
	// The user may run the hooks and write their two files, and change nothing else.
	for _, h := range []struct{ script, file, variable string }{
		{startedHook, startedFile, startedVariable},
		{completedHook, completedFile, completedVariable},
	} {
		script, file := filepath.Join(m.cfg.Hooks, h.script), filepath.Join(m.cfg.Hooks, h.file)
		text := fmt.Sprintf(hook, quote(file)) + m.after(i.hook(h.variable))
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			return err
		}
		if err := os.Chmod(script, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
		if err := os.Chown(file, int(who.UID), int(who.GID)); err != nil {
			return err
		}
	}
	if err := os.Chown(m.cfg.Hooks, -1, int(who.GID)); err != nil {
		return err
	}
	return os.Chmod(m.cfg.Hooks, 0o750)
}

// quote makes a text one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

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

// Running implements agent.Machine.
func (m *Machine) Running() agent.Program {
	if _, err := os.Stat(filepath.Join(m.path(programDir), lockFile)); err != nil {
		return nil
	}
	m.unfollow()
	return m.follow(0)
}

// follow begins to follow the program whose files are there. keeper is the process
// id of its keeper if that is a child of this process, and 0 otherwise.
func (m *Machine) follow(keeper int) *program {
	ctx, cancel := context.WithCancel(m.ctx)
	p := &program{events: make(chan agent.ProgramEvent), stop: cancel, done: make(chan struct{}), keeper: keeper}
	m.program = p
	m.wg.Go(func() {
		defer close(p.done)
		defer cancel()
		if m.watchProgram(ctx, p) {
			close(p.events)
		}
	})
	return p
}

// unfollow returns the program that was followed, when nothing follows it any
// more. It is nil if there was none.
func (m *Machine) unfollow() *program {
	p := m.program
	if p != nil {
		p.stop()
		<-p.done
		m.program = nil
	}
	return p
}

// What the runner program prints
// (https://github.com/actions/runner, src/Runner.Listener/Runner.cs and JobDispatcher.cs).
var (
	listening = regexp.MustCompile(`^[0-9: -]+Z: Listening for Jobs\s*$`)
	running   = regexp.MustCompile(`^[0-9: -]+Z: Running job: `)
	ended     = regexp.MustCompile(`^[0-9: -]+Z: Job .* completed with result: `)
	runID     = regexp.MustCompile(`^[0-9]{1,20}$`)
	// Before 2.333.0 a refused version shows by this line alone: run.sh ends with 0, or
	// starts the listener again for ever
	// (https://github.com/actions/runner/issues/3651, issues/2246 and issues/4613).
	refused    = regexp.MustCompile(`^An error occurr?ed: .*\bRunner version \S+ is deprecated and cannot receive messages`)
	restarting = regexp.MustCompile(`^Restarting runner\.\.\.\s*$`)
)

// watchProgram tells what a program does until it has exited, and reports whether
// it has. A job is over when its program has exited: until then it still uploads.
func (m *Machine) watchProgram(ctx context.Context, p *program) bool {
	tell := func(e agent.ProgramEvent) bool {
		select {
		case p.events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	log := tail{name: filepath.Join(m.path(programDir), logFile)}
	defer log.close()
	// begun, finished: the program says so of a job; started, known: that and its run
	// were told; tooOld: it says that GitHub refuses its version
	var connected, begun, finished, started, known, tooOld bool
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		over := m.over(p) // looked at first, so that what was printed before is read
		for _, line := range log.lines() {
			switch {
			case listening.MatchString(line) && !connected:
				connected = true
				if !tell(agent.ProgramEvent{Kind: agent.Connected}) {
					return false
				}
			case running.MatchString(line):
				begun = true
			case ended.MatchString(line):
				finished = true
			case refused.MatchString(line):
				tooOld = true
			case tooOld && restarting.MatchString(line):
				over = true // it would be refused again, and again
			}
		}
		run := m.startedRun()
		if begun && !started || run != "" && !known {
			started, known = true, run != ""
			if !tell(agent.ProgramEvent{Kind: agent.JobStarted, RunID: run}) {
				return false
			}
		}
		if over {
			if p.code, p.output = m.exitCode(), m.output(); tooOld {
				p.code = agent.ExitTooOld
			}
			return !started || tell(agent.ProgramEvent{Kind: agent.JobDone, Cut: !finished && !m.completed()})
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// startedRun returns the run id that the hook wrote, or "". The first line counts:
// it was written before any step of the job.
func (m *Machine) startedRun() string {
	f, err := os.Open(filepath.Join(m.cfg.Hooks, startedFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 32)
	n, _ := io.ReadFull(f, b) // a short file is a short line
	line, _, whole := strings.Cut(string(b[:n]), "\n")
	if !whole || !runID.MatchString(line) {
		return ""
	}
	return line
}

// completed reports whether the second hook has run.
func (m *Machine) completed() bool {
	info, err := os.Stat(filepath.Join(m.cfg.Hooks, completedFile))
	return err == nil && info.Size() > 0
}

// maxOutput is how much of what a program printed is told: more than is shown in
// the end, so that secrets are whole when they are masked.
const maxOutput = 64 << 10

// output returns the last whole lines that the program printed.
func (m *Machine) output() string {
	f, err := os.Open(filepath.Join(m.path(programDir), logFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	cut := false
	if info, err := f.Stat(); err == nil && info.Size() > maxOutput {
		_, err = f.Seek(-maxOutput, io.SeekEnd)
		cut = err == nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxOutput))
	if err != nil {
		return ""
	}
	if cut {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return string(b)
}

// hasICU reports whether the library is installed that .NET needs for languages.
func hasICU() bool {
	for _, dir := range []string{"/usr/lib64", "/usr/lib", "/usr/lib/*-linux-gnu"} {
		if found, _ := filepath.Glob(dir + "/libicuuc.so*"); len(found) > 0 {
			return true
		}
	}
	return false
}

// over reports whether p's keeper has ended, and reaps it if it is a child. Only
// one goroutine may do so at a time. p may be nil.
func (m *Machine) over(p *program) bool {
	lock, err := os.Open(filepath.Join(m.path(programDir), lockFile))
	if err != nil {
		return true
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil {
		return false
	}
	for p != nil && p.keeper != 0 {
		if _, err := syscall.Wait4(p.keeper, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			p.keeper = 0
		}
	}
	return true
}

// exitCode returns what the keeper left.
func (m *Machine) exitCode() int {
	b, err := os.ReadFile(filepath.Join(m.path(programDir), exitFile))
	if err != nil {
		return -1
	}
	code, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return code
}

// tail reads the lines of a growing file.
type tail struct {
	name string
	file *os.File
	rest []byte // an unfinished line
}

// maxLine is where a line is cut: no line that matters is longer.
const maxLine = 4 << 10

// lines returns the whole lines that came since the last call.
func (t *tail) lines() []string {
	if t.file == nil {
		f, err := os.Open(t.name)
		if err != nil {
			return nil
		}
		t.file = f
	}
	var out []string
	b := make([]byte, 32<<10)
	for {
		n, err := t.file.Read(b)
		t.rest = append(t.rest, b[:n]...)
		for {
			line, rest, whole := bytes.Cut(t.rest, []byte("\n"))
			if !whole {
				break
			}
			out = append(out, string(line[:min(len(line), maxLine)]))
			t.rest = rest
		}
		t.rest = slices.Clone(t.rest[:min(len(t.rest), maxLine)])
		if err != nil || n == 0 {
			return out
		}
	}
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}
