//go:build linux

package host

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The keeper is the binary that starts it.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == KeeperArgument {
		os.Exit(Keep())
	}
	os.Exit(m.Run())
}

// box is a directory with a machine in it, whose commands only note their calls.
type box struct {
	*testing.T
	dir  string
	cfg  Config
	logs bytes.Buffer
	env  map[string]string // of the agent's process
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{T: t, dir: t.TempDir()}
	// The runner's user has to reach what is below: t.TempDir makes two levels.
	for _, dir := range []string{b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name := "nobody"
	if os.Getuid() != 0 {
		u, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		name = u.Username
	}
	b.cfg = Config{
		Dir: filepath.Join(b.dir, "run"), Hooks: filepath.Join(b.dir, "ho'ok s"), Runner: filepath.Join(b.dir, "runner"),
		User: name, Metadata: "http://127.0.0.1:1", Log: slog.New(slog.NewTextHandler(&b.logs, nil)),
	}
	for _, dir := range []string{"bin", "runner", "etc"} {
		if err := os.Mkdir(filepath.Join(b.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	who, err := lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(b.cfg.Runner, int(who.UID), int(who.GID)); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"systemd-run", "shutdown", "systemctl", "poweroff"} {
		b.command(tool, "exit 0")
	}
	b.login("")
	t.Setenv("PATH", filepath.Join(b.dir, "bin"))
	return b
}

func (b *box) open() *Machine {
	b.Helper()
	m, err := Open(b.cfg)
	if err != nil {
		b.Fatalf("Open: %v", err)
	}
	// Not this computer's.
	m.groups, m.etc, m.shell = filepath.Join(b.dir, "cgroup"), filepath.Join(b.dir, "etc"), filepath.Join(b.dir, "login")
	m.getenv = func(name string) string { return b.env[name] }
	b.Cleanup(m.Close)
	return m
}

func (b *box) write(name, text string, mode os.FileMode) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), mode); err != nil {
		b.Fatal(err)
	}
}

func (b *box) read(name string) string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.Fatal(err)
	}
	return string(text)
}

// login makes a shell whose profile does as body says.
func (b *box) login(body string) {
	b.write("login", "#!/bin/sh\n"+body+"\nexec /bin/sh -c \"$3\"\n", 0o755)
}

// command makes a command that notes its call and then does as body says.
func (b *box) command(name, body string) {
	b.write("bin/"+name, fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>'%s/calls'\n%s\n", name, b.dir, body), 0o755)
}

func TestStateIsKeptForRootAlone(t *testing.T) {
	b := newBox(t)
	m := b.open()
	if got, err := m.Load(); got != nil || err != nil {
		t.Errorf("Load = %q, %v before anything was saved; want nothing", got, err)
	}
	for _, text := range []string{"first", "second"} {
		if err := m.Save([]byte(text)); err != nil {
			t.Fatalf("Save: %v", err)
		}
		if got, err := b.open().Load(); string(got) != text || err != nil {
			t.Errorf("Load = %q, %v; want %q", got, err, text)
		}
	}
	for name, want := range map[string]os.FileMode{"run": 0o700 | os.ModeDir, "run/state": 0o600} {
		info, err := os.Stat(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("mode of %s = %v, want %v", name, info.Mode(), want)
		}
	}
	if err := os.RemoveAll(b.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := m.Save([]byte("third")); err == nil {
		t.Error("Save without a directory succeeded, want an error")
	}
}

func TestDirectoryThatCannotBeMade(t *testing.T) {
	b := newBox(t)
	b.write("run", "a file", 0o600)
	if m, err := Open(b.cfg); err == nil {
		m.Close()
		t.Error("Open succeeded, want an error")
	}
}

func TestTimerIsSetToEarlierTimesOnly(t *testing.T) {
	b := newBox(t)
	m := b.open()
	now := time.Now()
	for _, in := range []time.Duration{time.Hour, 2 * time.Hour, time.Hour, 30 * time.Minute} {
		if err := m.SetTimer(now.Add(in)); err != nil {
			t.Fatalf("SetTimer: %v", err)
		}
	}
	m = b.open() // another process
	for _, in := range []time.Duration{time.Hour, -time.Minute} {
		if err := m.SetTimer(now.Add(in)); err != nil {
			t.Fatalf("SetTimer: %v", err)
		}
	}
	var got []int
	for line := range strings.Lines(b.read("calls")) {
		var seconds int
		if _, err := fmt.Sscanf(line, "systemd-run --quiet --on-active=%d --timer-property=AccuracySec=1s systemctl poweroff\n", &seconds); err != nil {
			t.Errorf("called %q: %v", line, err)
		}
		got = append(got, seconds)
	}
	near := func(s, want int) bool { return s <= want && s >= want-60 }
	if len(got) != 3 || !near(got[0], 3600) || !near(got[1], 1800) || got[2] != 1 {
		t.Errorf("timers of %v seconds, want about 3600, about 1800 and 1", got)
	}
}

func TestTimerFallsBackToShutdown(t *testing.T) {
	b := newBox(t)
	m := b.open()
	b.command("systemd-run", "echo no systemd; exit 1")
	b.command("shutdown", "echo no such luck; exit 1")
	at := time.Now().Add(90 * time.Second)
	if err := m.SetTimer(at); err == nil || !strings.Contains(err.Error(), "no systemd") || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("SetTimer = %v, want what both commands said", err)
	}
	b.command("shutdown", "exit 0")
	if err := m.SetTimer(at); err != nil { // it was not set before
		t.Errorf("SetTimer: %v", err)
	}
	if calls := b.read("calls"); !strings.HasSuffix(calls, "shutdown -P +2\n") {
		t.Errorf("called:\n%s\nwant shutdown at the end, in 2 minutes", calls)
	}
}

func TestPowerOffTriesEveryWay(t *testing.T) {
	ways := []string{"shutdown -P now\n", "systemctl poweroff\n", "poweroff -f\n"}
	for failing := range len(ways) + 1 {
		t.Run(fmt.Sprintf("%dFail", failing), func(t *testing.T) {
			b := newBox(t)
			m := b.open()
			for _, way := range ways[:failing] {
				name, _, _ := strings.Cut(way, " ")
				b.command(name, "exit 1")
			}
			m.PowerOff("the job is done")
			if got, want := b.read("calls"), strings.Join(ways[:min(failing+1, len(ways))], ""); got != want {
				t.Errorf("called:\n%s\nwant:\n%s", got, want)
			}
			if said := strings.Contains(b.logs.String(), "does not power off"); said != (failing == len(ways)) {
				t.Errorf("log: %s", b.logs.String())
			}
		})
	}
}

func TestCommandThatIsMissingIsAnError(t *testing.T) {
	b := newBox(t)
	m := b.open()
	t.Setenv("PATH", t.TempDir())
	if err := m.run("shutdown", "-P", "now"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("run = %v, want %v", err, exec.ErrNotFound)
	}
}
