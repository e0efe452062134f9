package sim_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// wanting has the account want something of its machines.
func wanting(a *store.Account) {
	a.Outfit = store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\n"}, JobUser: store.JobUser{Sudo: true}}
}

func TestMachineIsSetUpBeforeItsJob(t *testing.T) {
	t.Parallel()
	setUp := func(int) (time.Duration, error) { return 90 * time.Second, nil }
	sim.Run(t, sim.Config{Account: wanting, SetUp: setUp}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		job := w.Job(s.RunsOn, 30*time.Second)
		r := w.Ready(s, 10*time.Minute)
		if took := r.ReadyAt.Sub(r.CreatedAt); took < 90*time.Second {
			w.Errorf("ready after %v, want that it waits for the set-up", took)
		}
		told := false
		for _, e := range w.RunnerOf(s.ID).History {
			told = told || strings.Contains(e.Reason, "set up: setup, job_user")
		}
		if !told {
			w.Errorf("the story does not tell of the set-up: %+v", w.RunnerOf(s.ID).History)
		}
		good(w, s, job)
		machines(w, 1)
	})
}

// A set-up that fails or hangs ends the request, with the machine's words and at once;
// the next request gets a machine of its own.
func TestMachineThatCannotBeSetUpFailsItsRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode  string
		setUp func(n int) (time.Duration, error)
		says  string
	}{
		"ItFails":       {store.Ephemeral, func(int) (time.Duration, error) { return time.Minute, errors.New("script: exit status 3") }, "script: exit status 3"},
		"ItHangs":       {store.Ephemeral, func(int) (time.Duration, error) { return time.Hour, nil }, "it did not end"},
		"ASharedOneToo": {store.Shared, func(int) (time.Duration, error) { return 0, errors.New("packages: git: exit status 100") }, "exit status 100"},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{Account: wanting, SetUp: func(n int) (time.Duration, error) {
				if n > 1 {
					return 0, nil
				}
				return c.setUp(n)
			}}, func(w *sim.World) {
				first, second := sim.Ephemeral("a"), sim.Ephemeral("b")
				if c.mode == store.Shared {
					first, second = sim.Shared("a"), sim.Shared("b")
				}
				s := w.Start(first)
				w.Until("the request's end", 10*time.Minute, func() bool { return w.Request(s.ID).State.Final() })
				r := w.Request(s.ID)
				if r.State != store.Failed || r.Error == nil || r.Error.Code != store.EndSetup || r.Error.Retryable || !strings.Contains(r.Error.Text, c.says) || r.Tries != 0 {
					w.Errorf("request is %s with %+v after %d more tries, want %s with %q and none", r.State, r.Error, r.Tries, store.EndSetup, c.says)
				}
				next := w.Start(second)
				w.Ready(next, 10*time.Minute)
				good(w, next, w.Job(next.RunsOn, 30*time.Second))
				machines(w, 2)
			})
		})
	}
}

// A machine that was launched with the agent of the version before is not booted, and
// the request gets one that can do what the account wants.
func TestAgentOfAVersionBeforeIsReplaced(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Account: wanting, PlainAgent: func(n int) bool { return n == 1 }}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		job := w.Job(s.RunsOn, 30*time.Second)
		r := w.Ready(s, 10*time.Minute)
		if r.Tries != 1 {
			w.Errorf("ready after %d more tries, want one", r.Tries)
		}
		good(w, s, job)
		machines(w, 2)
	})
}
