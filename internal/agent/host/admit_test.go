//go:build linux

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// asks starts a program whose job waits, and returns it with what it asks.
func asks(t *testing.T, m *Machine) (agent.Program, apitype.Admission) {
	t.Helper()
	p, err := m.Start(t.Context(), secret.New(canary), nil, true)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	for timeout := time.After(patience); ; {
		select {
		case e, ok := <-p.Events():
			if !ok {
				t.Fatal("the program exited, and its job asked nothing")
			}
			if e.Kind == agent.Asks {
				return p, e.Job
			}
		case <-timeout:
			t.Fatal("the job asked nothing")
		}
	}
}

const listensAndWorks = "connected; listening\njob build 77 '>step'\n"

func TestAJobThatAsksRunsNoStepUntilItMay(t *testing.T) {
	for name, c := range map[string]struct {
		allowed bool
		image   string // what the image's own hook did
	}{
		"Allowed": {true, "ran 77"},
		"Refused": {false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.install(listensAndWorks)
			b.write("own.sh", "echo ran $GITHUB_RUN_ID $n >"+filepath.Join(b.cfg.Runner, "own")+"\n", 0o755)
			b.write("runner/.env", "ACTIONS_RUNNER_HOOK_JOB_STARTED="+filepath.Join(b.dir, "own.sh")+"\n", 0o644)
			step := filepath.Join(b.cfg.Runner, "_work", "shop", "step")
			p, job := asks(t, b.open())
			if want := (apitype.Admission{RepositoryID: "1001", Repository: "acme/shop", OwnerID: "55", RunID: "77", Attempt: 1}); job != want {
				t.Errorf("the job asks about %+v, want %+v", job, want)
			}
			if _, err := os.Stat(step); err == nil {
				t.Error("a step ran before the job heard that it may")
			}
			if err := p.(agent.Admitter).Admit(c.allowed, "Because it's \"so\"."); err != nil {
				t.Fatal(err)
			}
			listen(t, p)
			if _, err := os.Stat(step); (err == nil) != c.allowed {
				t.Errorf("the step ran = %t, want %t", err == nil, c.allowed)
			}
			if own, _ := os.ReadFile(filepath.Join(b.cfg.Runner, "own")); strings.TrimSpace(string(own)) != c.image {
				t.Errorf("the image's own hook said %q, want %q", own, c.image)
			}
			result, said := "Succeeded", ""
			if !c.allowed {
				result, said = "Failed", "This machine may not run this job.\nBecause it's \"so\".\n"
			}
			if log := b.read("run/program/log"); !strings.Contains(log, "completed with result: "+result) {
				t.Errorf("the program printed:\n%s\nwant that the job %s", log, result)
			}
			if out := b.read("runner/_work/_temp/out"); !strings.Contains(out, said) {
				t.Errorf("the job's log is:\n%s\nwant %q", out, said)
			}
		})
	}
}

// Who runs the job can write what it asks, and not the answer.
func TestTheAnswerIsTheAgentsAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("as one user: the directory's rights say nothing")
	}
	b := newBox(t)
	b.install("connected; listening\njob build 77 'true'\n")
	p, _ := asks(t, b.open())
	info, err := os.Stat(b.cfg.Hooks)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o750 {
		t.Errorf("the hooks' directory has the mode %v, want one that the user cannot write to", info.Mode().Perm())
	}
	if err := p.(agent.Admitter).Admit(true, ""); err != nil {
		t.Fatal(err)
	}
	listen(t, p)
	if info, err = os.Stat(filepath.Join(b.cfg.Hooks, answerFile)); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the answer is %v, %v; want a file that all may read and its owner write", info, err)
	}
}

// An agent that starts again is asked again, until there is an answer.
func TestAnAnswerIsGivenOnce(t *testing.T) {
	b := newBox(t)
	b.install(listensAndWorks)
	asks(t, b.open())
	m := b.open()
	p := m.Running()
	for e := range p.Events() {
		if e.Kind == agent.Asks {
			break
		}
	}
	if err := p.(agent.Admitter).Admit(true, ""); err != nil {
		t.Fatal(err)
	}
	again := b.open().Running()
	if got := listen(t, again); strings.Contains(got.words, string(agent.Asks)) {
		t.Errorf("the program did %q; want that an answered job asks no more", got.words)
	}
}

func TestWhatAsksOddlyIsNobody(t *testing.T) {
	for line, known := range map[string]bool{
		"1001 55 77 1 acme/shop":                true,
		"1001 55 77 1 acme/shop x":              false,
		" 55 77 1 acme/shop":                    false, // an old runner program has no number of the repository
		"1001 55 77 1 acme/../x":                false,
		"1001 55 77 1234567 acme/shop":          false,
		"1001 55 $(id) 1 acme/shop":             false,
		strings.Repeat("1", 600) + " acme/shop": false,
	} {
		b := newBox(t)
		if err := os.MkdirAll(b.cfg.Hooks, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.cfg.Hooks, askedFile), []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		job, ok := askedJob(b.cfg.Hooks)
		if (job != apitype.Admission{}) != known || known && !ok {
			t.Errorf("%q asks about %+v, %t; want that it is known = %t", line, job, ok, known)
		}
	}
}
