package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/vt"
)

var pictures = flag.String("pictures", "", "write a recording of garo watch into this directory, as a picture")

// The terminal of the tests. The picture of it fits the width that GitHub gives a README.
const columns, rows = 104, 14

// terminal is a garo on a terminal, which util-linux's script makes, and what it shows.
type terminal struct {
	*exec.Cmd
	keys io.WriteCloser

	mu     sync.Mutex
	screen *vt.Screen
	err    error // of the screen; nil: it knew everything
}

// onTerminal returns a command that runs garo on a terminal of so many columns.
func onTerminal(t *testing.T, dir string, width int, args ...string) *exec.Cmd {
	t.Helper()
	awstest.Need(t, "script", "stty")
	line := fmt.Sprintf("stty cols %d rows %d && exec garo %s", width, rows, strings.Join(args, " "))
	c := exec.CommandContext(t.Context(), "script", "--quiet", "--flush", "--return", "--command", line, os.DevNull)
	c.Dir, c.WaitDelay = dir, patience
	c.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=", "COLUMNS=", "SHELL=/bin/sh")
	return c
}

// watched starts garo on a terminal that can be looked at.
func watched(t *testing.T, dir string, args ...string) *terminal {
	t.Helper()
	p := &terminal{Cmd: onTerminal(t, dir, columns, args...), screen: vt.New(columns, rows)}
	p.Stdout, p.Stderr = p, p
	var err error
	if p.keys, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the terminal shows\n%s", p.text())
		}
	})
	return p
}

// Write shows what the program writes.
func (p *terminal) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.screen.Write(b)
	p.err = cmp.Or(p.err, err)
	return n, err
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.screen.Text()
}

// interrupt types Ctrl-C, and returns how the program ended.
func (p *terminal) interrupt(t *testing.T) int {
	t.Helper()
	if _, err := p.keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // its status says it
	return p.ProcessState.ExitCode()
}

// TestWatchDrawsInPlace watches runners appear and end on a real terminal. With -pictures,
// they take longer, and it records what people see.
func TestWatchDrawsInPlace(t *testing.T) {
	boot, job, speed := "0s", "1s", "10"
	if *pictures != "" {
		boot, job, speed = "5s", "9s", "6"
	}
	server := serve(t, "--boot-time", boot, "--jobs", job, "--speed", speed)
	w := watched(t, server.Dir, "watch")
	sees := func(what string) {
		t.Helper()
		until(t, "the terminal to show "+what, func() bool { return strings.Contains(w.text(), what) })
	}
	sees("nothing waits, and nothing runs")
	start := func(labels string) {
		t.Helper()
		p := begin(t, server.Dir, "start", "--repo", "acme/shop", "--mode", "ephemeral", "--label", labels)
		if code := p.status(t); code != 0 {
			t.Fatalf("garo start ended with %d", code)
		}
	}
	start("build")
	if *pictures != "" {
		sees(" launched ")
		start("test")
		start("lint")
		sees(" busy ")
		start("deploy")
	}
	sees("acme/shop")
	sees("nothing waits, and nothing runs")
	if code := w.interrupt(t); code != exitInterrupted {
		t.Errorf("watch ended with %d, want %d", code, exitInterrupted)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.screen.Hidden {
		t.Errorf("error = %v, cursor hidden = %v; want none, and a cursor", w.err, w.screen.Hidden)
	}
	if *pictures != "" {
		record(t, w.screen.Frames)
	}
}

// record writes a picture of what was shown. Two seconds of life take one second.
func record(t *testing.T, frames []vt.Frame) {
	t.Helper()
	// What stands still is one who wants no motion sees: where most is going on.
	still, most := 0, 0
	for n, f := range frames {
		if lines := len(slices.Compact(strings.Split(f.Text(), "\n"))); lines > most {
			still, most = n, lines
		}
	}
	picture, err := vt.SVG("garo watch: requests get machines, which boot, run a job each and end", frames, time.Second, 3*time.Second, still)
	if err != nil {
		t.Fatal(err)
	}
	if most := 200 << 10; len(picture) > most { // a page should load it beside its text
		t.Errorf("the picture has %d bytes, want at most %d", len(picture), most)
	}
	if err := os.WriteFile(filepath.Join(*pictures, "watch.svg"), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A table has the width of its terminal, and leaves out first what is needed least. In a
// pipe it is whole, and without colours.
func TestTablesFitTheirTerminal(t *testing.T) {
	server := serve(t, "--boot-time", "0s", "--jobs", "0")
	start := begin(t, server.Dir, "start", "--repo", "acme/shop", "--label", "build", "--wait")
	if code := start.status(t); code != 0 {
		t.Fatalf("garo start ended with %d", code)
	}
	colour := regexp.MustCompile("\x1b\\[[0-9]+m")
	for command, heads := range map[string]map[int]string{
		"list": {
			60:  "ID STATE REPOSITORY AGE WHY",
			80:  "ID STATE REPOSITORY INSTANCE AGE WHY",
			200: "ID STATE TYPE MODE REPOSITORY LABELS RUNNER INSTANCE PLACEMENT AGE WHY",
		},
		"runners": {
			60:  "ID STATE REPOSITORY AGE WHY",
			80:  "ID STATE REPOSITORY INSTANCE AGE WHY",
			200: "ID STATE REPOSITORY INSTANCE PLACEMENT RUN JOBS AGE LEFT COST WHY",
		},
	} {
		for width, want := range heads {
			for _, plain := range []bool{false, true} {
				c := onTerminal(t, server.Dir, width, command)
				if plain {
					c.Env = append(c.Env, "NO_COLOR=1")
				}
				out, err := c.CombinedOutput()
				if err != nil {
					t.Fatalf("garo %s: %v\n%s", command, err, out)
				}
				text := colour.ReplaceAllString(strings.ReplaceAll(string(out), "\r", ""), "")
				lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
				if got := strings.Join(strings.Fields(lines[0]), " "); got != want || len(lines) != 2 {
					t.Errorf("garo %s in %d columns has %d lines and the columns %s, want 2 and %s", command, width, len(lines), got, want)
				}
				for _, l := range lines {
					if n := utf8.RuneCountInString(l); n > width {
						t.Errorf("garo %s in %d columns has a line of %d: %q", command, width, n, l)
					}
				}
				if got := colour.Match(out); got == plain {
					t.Errorf("garo %s, NO_COLOR set %v: coloured %v", command, plain, got)
				}
			}
		}
		piped := exec.CommandContext(t.Context(), "garo", command)
		piped.Dir, piped.Env = server.Dir, append(os.Environ(), "TERM=xterm", "COLUMNS=60")
		out, err := piped.Output()
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(out), "\n")
		if got := strings.Join(strings.Fields(head), " "); got != heads[200] || colour.Match(out) {
			t.Errorf("garo %s in a pipe has the columns %s, coloured %v; want %s without colours", command, got, colour.Match(out), heads[200])
		}
	}
}
