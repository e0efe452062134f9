//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const canary = "canary-config"

// What the real runner program prints.
const (
	printListening = "echo '2026-11-23 12:00:00Z: Listening for Jobs'\n"
	printRunning   = "echo '2026-11-23 12:00:00Z: Running job: build'\n"
	// Its hook runs with a shell, "-e" and the script's path.
	runHook = "GITHUB_RUN_ID=77 /bin/sh -e \"$ACTIONS_RUNNER_HOOK_JOB_STARTED\"\n"
)

// runner sets what the runner program does.
func (b *box) runner(body string) {
	b.write("runner/run.sh", "#!/bin/sh\nPATH=/usr/bin:/bin\n"+body, 0o755)
}

// patience is for a loaded machine: nothing here takes a second.
const patience = 2 * time.Minute

// story returns what a program does until it has exited, joined.
func story(t *testing.T, p agent.Program) string {
	t.Helper()
	var words []string
	for timeout := time.After(patience); ; {
		select {
		case e, ok := <-p.Events():
			if !ok {
				return strings.Join(words, ", ")
			}
			words = append(words, strings.TrimSpace(string(e.Kind)+" "+e.RunID))
		case <-timeout:
			t.Fatalf("the program has not exited; it did: %q", words)
		}
	}
}

// eventually waits for something that a process does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func start(t *testing.T, m *Machine) agent.Program {
	t.Helper()
	p, err := m.Start(t.Context(), secret.New(canary), nil, false)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return p
}

func TestProgramIsFollowedThroughItsJob(t *testing.T) {
	b := newBox(t)
	b.runner(printListening + runHook + printRunning)
	p := start(t, b.open())
	if got, want := story(t, p), "connected, job_started 77, job_done"; got != want || p.ExitCode() != 0 {
		t.Errorf("the program did %q and exited with %d, want %q and 0", got, p.ExitCode(), want)
	}
}

func TestJobWhoseHookComesLateIsToldTwice(t *testing.T) {
	b := newBox(t)
	b.runner(printListening + printRunning + "sleep 1\n" + runHook)
	if got, want := story(t, start(t, b.open())), "connected, job_started, job_started 77, job_done"; got != want {
		t.Errorf("the program did %q, want %q", got, want)
	}
}

func TestExitCodeOfTheProgramIsKept(t *testing.T) {
	for body, want := range map[string]int{
		"exit 7\n":                agent.ExitTooOld,
		"kill -KILL $$\n":         137,
		printListening + "exit\n": 0,
	} {
		b := newBox(t)
		b.runner(body)
		p := start(t, b.open())
		if got := story(t, p); strings.Contains(got, "job") || p.ExitCode() != want {
			t.Errorf("%q: did %q and exited with %d, want %d and no job", body, got, p.ExitCode(), want)
		}
	}
}

func TestProgramThatCannotRunSaysWhy(t *testing.T) {
	b := newBox(t)
	b.write("runner/run.sh", "#!/does/not/exist\n", 0o755)
	p := start(t, b.open())
	if story(t, p); p.ExitCode() != 127 {
		t.Errorf("exit code = %d, want 127", p.ExitCode())
	}
	if log := b.read("run/program/log"); !strings.Contains(log, "no such file") {
		t.Errorf("log = %q, want the reason", log)
	}
}

func TestProgramIsNotStarted(t *testing.T) {
	for name, spoil := range map[string]func(b *box){
		"AsRoot":         func(b *box) { b.cfg.User = "root" },
		"AsNobodyKnown":  func(b *box) { b.cfg.User = "no-such-user" },
		"IfItIsMissing":  func(b *box) { b.cfg.Runner += "-x" },
		"IfItIsNoScript": func(b *box) { b.write("runner/run.sh", "", 0o600); _ = os.Chmod(b.cfg.Runner+"/run.sh", 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.runner("exit 0\n")
			spoil(b)
			if _, err := b.open().Start(t.Context(), secret.New(canary), nil, false); err == nil || strings.Contains(err.Error(), canary) {
				t.Errorf("Start = %v, want an error without the config", err)
			}
		})
	}
}

func TestConfigIsInTheEnvironmentOfTheProgramAlone(t *testing.T) {
	b := newBox(t)
	b.runner(`set >"$0.env"; id -u >"$0.uid"; umask >"$0.umask"; tr '\0' ' ' </proc/$PPID/environ >"$0.keeper" 2>/dev/null
echo $$ >"$0.pid"
while [ ! -e "$0.go" ]; do sleep 0.1; done
`)
	m := b.open()
	p := start(t, m)
	eventually(t, "the start of the program", func() bool { return b.read("runner/run.sh.pid") != "" })
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if line, _ := os.ReadFile(name); strings.Contains(string(line), canary) {
			t.Errorf("%s has the config: %q", name, line)
		}
	}
	for _, name := range []string{"run/program/log", "run/program/lock", "ho'ok s/job-started.sh", "runner/run.sh.keeper"} {
		if strings.Contains(b.read(name), canary) {
			t.Errorf("%s has the config", name)
		}
	}
	entries, err := os.ReadDir(b.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || entries[0].Name() != "image" || entries[1].Name() != programDir {
		t.Errorf("files = %v, want the image, the program and no order among them", entries)
	}
	env := b.read("runner/run.sh.env")
	for _, want := range []string{"ACTIONS_RUNNER_INPUT_JITCONFIG='" + canary + "'", "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE='1'",
		"USER='" + b.cfg.User + "'", "LANG='C.UTF-8'", "PWD='" + b.cfg.Runner + "'"} {
		if !strings.Contains(env, want+"\n") {
			t.Errorf("environment:\n%s\nwant %s", env, want)
		}
	}
	who, err := lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(b.read("runner/run.sh.uid")); got != fmt.Sprint(who.UID) {
		t.Errorf("it runs as %s, want %d", got, who.UID)
	}
	if got := strings.TrimSpace(b.read("runner/run.sh.umask")); got != "0022" {
		t.Errorf("umask = %s, want 0022", got)
	}
	b.write("runner/run.sh.go", "", 0o644)
	story(t, p)
	if strings.Contains(b.logs.String(), canary) {
		t.Errorf("the log has the config:\n%s", b.logs.String())
	}
}

func TestProgramOutlivesTheAgent(t *testing.T) {
	b := newBox(t)
	b.runner(printListening + "while [ ! -e \"$0.go\" ]; do sleep 0.1; done\n" + runHook + printRunning + "exit 5\n")
	m := b.open()
	if m.Running() != nil {
		t.Error("Running = a program, want none before Start")
	}
	p := start(t, m)
	if e := <-p.Events(); e.Kind != agent.Connected {
		t.Fatalf("event = %+v, want connected", e)
	}
	m.Close()
	m = b.open()
	p = m.Running()
	if p == nil {
		t.Fatal("Running = none, want the program")
	}
	b.write("runner/run.sh.go", "", 0o644)
	if got, want := story(t, p), "connected, job_started 77, job_done"; got != want || p.ExitCode() != 5 {
		t.Errorf("the program did %q and exited with %d, want %q and 5", got, p.ExitCode(), want)
	}
	p = b.open().Running() // it has exited, and tells it again
	if got, want := story(t, p), "connected, job_started 77, job_done"; got != want || p.ExitCode() != 5 {
		t.Errorf("the program did %q and exited with %d, want %q and 5", got, p.ExitCode(), want)
	}
}

func TestProgramWhoseKeeperDiedHasNoExitCode(t *testing.T) {
	b := newBox(t)
	b.runner(printListening)
	m := b.open()
	story(t, start(t, m))
	for _, spoil := range []func(name string) error{
		func(name string) error { return os.WriteFile(name, []byte("x"), 0o600) },
		os.Remove,
	} {
		if err := spoil(filepath.Join(b.cfg.Dir, programDir, exitFile)); err != nil {
			t.Fatal(err)
		}
		p := b.open().Running()
		if got := story(t, p); got != "connected" || p.ExitCode() != -1 {
			t.Errorf("the program did %q and exited with %d, want connected and -1", got, p.ExitCode())
		}
	}
}

// A process that a job leaves behind does not pass for the job.
func TestProgramEndsBeforeWhatItLeavesBehind(t *testing.T) {
	b := newBox(t)
	b.runner("sleep 300 &\necho $! >\"$0.left\"\n")
	story(t, start(t, b.open()))
	pid, err := strconv.Atoi(strings.TrimSpace(b.read("runner/run.sh.left")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process that was left is gone: %v", err)
	}
}

func TestHookThatIsForgedSaysNothing(t *testing.T) {
	b := newBox(t)
	m := b.open()
	who, err := lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.prepare(who, image{}, false); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                               "",
		"77\n":                           "77",
		"77\n78\n":                       "77",
		"77":                             "", // not whole yet
		"\n77\n":                         "",
		"seven\n":                        "",
		"-1\n":                           "",
		"77; reboot\n":                   "",
		strings.Repeat("7", 21) + "\n":   "",
		strings.Repeat("7", 100) + "\n":  "",
		"77" + strings.Repeat(" ", 1000): "",
	} {
		if err := os.WriteFile(filepath.Join(b.cfg.Hooks, startedFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := m.startedRun(); got != want {
			t.Errorf("run of %q = %q, want %q", text, got, want)
		}
	}
}

// A hook that fails would fail the job.
func TestHookNeverFails(t *testing.T) {
	out, err := exec.Command("/bin/sh", "-e", "-c", fmt.Sprintf(hook, "/does/not/exist/started")).CombinedOutput()
	if err != nil {
		t.Errorf("the hook without its file: %v\n%s", err, out)
	}
}

func TestCleanEndsProcessesAndWipesTheWork(t *testing.T) {
	b := newBox(t)
	b.runner(`trap '' TERM HUP INT
mkdir -p _work/repo _work/_temp; echo secret >_work/repo/file; echo x >.credentials; echo x >.runner; echo x >kept
sleep 300 &
echo $! $$ >"$0.left"
wait
`)
	m := b.open()
	if err := os.Mkdir(filepath.Join(b.cfg.Runner, trashPrefix+"old"), 0o700); err != nil { // of an agent that was restarted
		t.Fatal(err)
	}
	start(t, m)
	eventually(t, "the job", func() bool { return strings.HasSuffix(b.read("runner/run.sh.left"), "\n") })
	// The rest of the computer is none of the test's business.
	m.proc = filepath.Join(b.dir, "proc")
	if err := os.Mkdir(m.proc, 0o755); err != nil {
		t.Fatal(err)
	}
	left := strings.Fields(b.read("runner/run.sh.left"))
	for _, pid := range left {
		if err := os.Symlink("/proc/"+pid, filepath.Join(m.proc, pid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Clean(); err != nil {
		t.Fatalf("Clean: %v", err)
	}
	for _, pid := range left {
		if status, err := os.ReadFile("/proc/" + pid + "/status"); err == nil && !strings.Contains(string(status), "State:\tZ") {
			t.Errorf("process %s runs still", pid)
		}
	}
	if m.Running() != nil {
		t.Error("Running = a program, want none after Clean")
	}
	m.Close() // waits for what is being deleted
	entries, err := os.ReadDir(b.cfg.Runner)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "kept run.sh run.sh.left"; got != want {
		t.Errorf("left in the runner's directory: %s, want %s", got, want)
	}
}

func TestCleanWithoutAnythingToClean(t *testing.T) {
	b := newBox(t)
	m := b.open()
	m.proc = t.TempDir()
	if err := m.Clean(); err != nil {
		t.Errorf("Clean: %v", err)
	}
}

func TestProcessThatDoesNotEndIsAnError(t *testing.T) {
	b := newBox(t)
	who, err := lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "2147483647"), 0o755); err != nil { // above every real id
		t.Fatal(err)
	}
	status := fmt.Sprintf("State:\tD (disk sleep)\nUid:\t%d\t0\t0\t0\n", who.UID)
	if err := os.WriteFile(filepath.Join(proc, "2147483647", "status"), []byte(status), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := &Machine{cfg: b.cfg, log: b.cfg.Log, proc: proc}
		if err := m.Clean(); err == nil || !strings.Contains(err.Error(), "still there") {
			t.Errorf("Clean = %v, want that a process is still there", err)
		}
	})
	if err := (&Machine{cfg: b.cfg, proc: filepath.Join(proc, "none")}).Clean(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Clean = %v, want %v", err, os.ErrNotExist)
	}
}

func TestProcessesOfAUser(t *testing.T) {
	for status, want := range map[string]bool{
		"State:\tS (sleeping)\nUid:\t1000\t1000\t1000\t1000\n": true,
		"State:\tR (running)\nUid:\t1000\t0\t0\t0\n":           true, // as root, for it
		"State:\tR (running)\nUid:\t0\t1000\t0\t0\n":           true, // for root, as it
		"State:\tZ (zombie)\nUid:\t1000\t1000\t1000\t1000\n":   false,
		"State:\tS (sleeping)\nUid:\t100\t100\t100\t100\n":     false,
		"State:\tS (sleeping)\nUid:\t0\t0\t0\t1000\n":          false,
		"": false,
	} {
		if got := runs([]byte(status), "1000"); got != want {
			t.Errorf("runs(%q) = %v, want %v", status, got, want)
		}
	}
}

func TestTailReadsWholeLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	tail := tail{name: name}
	defer tail.close()
	if got := tail.lines(); got != nil {
		t.Errorf("lines of no file = %q", got)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ add, want string }{
		{"one\ntw", "one"},
		{"o", ""},
		{"\n\nthree\n", "two||three"},
		{strings.Repeat("x", 3*maxLine), ""},
		{"\nfour\n", strings.Repeat("x", maxLine) + "|four"},
		{"", ""},
	} {
		if _, err := f.WriteString(c.add); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(tail.lines(), "|"); got != c.want {
			t.Errorf("lines after %.20q = %.20q (%d bytes), want %.20q (%d)", c.add, got, len(got), c.want, len(c.want))
		}
	}
}
