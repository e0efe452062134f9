package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// busyScene is a scene with more than a screen has room for.
func busyScene() scene {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := scene{at: now, address: "https://garo.example.org", more: true}
	for n := range 10 {
		id := strings.Repeat(string(rune('a'+n)), 26)
		s.requests = append(s.requests, apitype.Status{ID: id, State: apitype.Accepted, Repository: "acme/shop", Wait: "quota_full", CreatedAt: now.Add(-time.Duration(n) * time.Minute)})
		s.runners = append(s.runners, apitype.Runner{
			ID: id, State: apitype.RunnerBusy, Repository: "acme/shop", InstanceID: "i-0123456789abcdef0", Market: "spot", InstanceType: "m7i.large",
			Subnet: "subnet-0123456789abcdef0", CreatedAt: now.Add(-time.Hour), HardAt: now.Add(5 * time.Hour), RunID: "4711", Jobs: 1,
		})
	}
	return s
}

func TestSceneFitsTheTerminal(t *testing.T) {
	for _, width := range []int{20, 60, 80, 200} {
		for _, height := range []int{5, 12, 24, 60} {
			lines := strings.Split(strings.TrimSuffix(busyScene().text(width, height, false), "\n"), "\n")
			if len(lines) > max(3, height-1) {
				t.Errorf("in %d lines, the scene has %d", height, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > width {
					t.Errorf("in %d columns, a line has %d: %q", width, n, l)
				}
			}
		}
	}
	got := busyScene().text(80, 24, false)
	for _, want := range []string{
		"garo watch https://garo.example.org  ", "\n10 queued, 10 busy, and more\n", "\nID                          STATE     REPOSITORY  INSTANCE  AGE  WHY\n",
		"\naaaaaaaaaaaaaaaaaaaaaaaaaa  accepted  acme/shop   -         0s   quota_full\n", "\n… 2 more wait\n", "\naaaaaaaaaaaaaaaaaaaaaaaaaa  busy   acme/shop", "\n… 3 more lines\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the scene does not have %q:\n%s", want, got)
		}
	}
	wide := busyScene().text(200, 60, false)
	for _, want := range []string{"spot/m7i.large/subnet-0123456789abcdef0", "i-0123456789abcdef0", "4711", "5h"} {
		if !strings.Contains(wide, want) {
			t.Errorf("a wide scene does not have %q:\n%s", want, wide)
		}
	}
	if empty := (scene{address: "x"}).text(80, 24, false); !strings.Contains(empty, "nothing waits, and nothing runs") {
		t.Errorf("an empty scene says %q", empty)
	}
	down := busyScene()
	down.trouble = errors.New("connection refused")
	if got := down.text(80, 24, true); !strings.Contains(got, "no answer, and this is as it was: connection refused") || !strings.Contains(got, "\x1b[36maccepted") {
		t.Errorf("a scene without an answer is\n%s", got)
	}
}

func TestChangesAreOneLineEach(t *testing.T) {
	var b strings.Builder
	v := viewOf(&b)
	now := time.Now()
	at := now.Local().Format(time.TimeOnly) + "  "
	show := func(s scene, want string) {
		t.Helper()
		b.Reset()
		s.at = now
		if err := v.show(s); err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(b.String(), at, ""); got != want {
			t.Errorf("shown:\n%swant\n%s", got, want)
		}
	}
	request := apitype.Status{ID: "q1", State: apitype.Accepted, Repository: "acme/shop", Wait: "quota_full"}
	show(scene{requests: []apitype.Status{request}}, "request  q1  accepted   acme/shop  quota_full\n")
	show(scene{requests: []apitype.Status{request}}, "")
	runner := apitype.Runner{ID: "r1", State: apitype.RunnerBooting}
	show(scene{runners: []apitype.Runner{runner}}, "runner   r1  booting    -  -\nrequest  q1  settled    -  -\n")
	show(scene{runners: []apitype.Runner{runner}, trouble: client.ErrNoAnswer}, "api      no answer: "+client.ErrNoAnswer.Error()+"\n")
	show(scene{runners: []apitype.Runner{runner}}, "api      answers again\n")
	show(scene{more: true}, "")
	show(scene{}, "runner   r1  over       -  -\n")
}

func TestWatchInAPipeGoesOnWhileTheAPIIsAway(t *testing.T) {
	server := serve(t, "--boot-time", "0s", "--jobs", "0")
	w := begin(t, server.Dir, "watch", "--repo", "acme/shop")
	start := begin(t, server.Dir, "start", "--repo", "acme/shop", "--wait")
	until(t, "the runner to be watched", func() bool { return strings.Contains(w.out.String(), "  online     acme/shop") })
	if err := start.Wait(); err != nil {
		t.Errorf("garo start: %v", err)
	}
	if strings.Contains(w.out.String(), "\x1b") {
		t.Errorf("a pipe gets control characters: %q", w.out.String())
	}
	address, err := os.ReadFile(filepath.Join(server.Dir, ".garo", "url"))
	if err != nil {
		t.Fatal(err)
	}
	interrupt(t, server)
	until(t, "watch to say that nobody answers", func() bool { return strings.Contains(w.out.String(), "  api      no answer: ") })
	begin(t, server.Dir, "local", "--addr", strings.TrimPrefix(strings.TrimSpace(string(address)), "http://"), "--quiet")
	until(t, "watch to continue", func() bool { return strings.Contains(w.out.String(), "  api      answers again\n") })
	if code := interrupt(t, w); code != exitInterrupted {
		t.Errorf("watch ended with %d, want %d", code, exitInterrupted)
	}
}

// interrupt interrupts a program, and returns how it ended.
func interrupt(t *testing.T, p *program) int {
	t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if e, ok := errors.AsType[*exec.ExitError](p.Wait()); ok {
		return e.ExitCode()
	}
	return 0
}
