package reaper_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestEndKeepsItsOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.run()
		w.wantRunner(run.ID, store.RunnerDraining)
		if got := w.hub.names("42"); len(got) != 0 {
			t.Errorf("after the first run GitHub has %v, want nothing", got)
		}
		time.Sleep(w.lim.Grace - time.Second)
		w.run()
		w.wantRunner(run.ID, store.RunnerDraining)
		if n := w.fleet.count("terminate"); n != 0 {
			t.Errorf("within the grace period EC2 was asked %d times to terminate, want 0", n)
		}
		time.Sleep(time.Second)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		if n := w.fleet.count("terminate"); n != 1 {
			t.Errorf("after the grace period EC2 was asked %d times to terminate, want 1", n)
		}
		time.Sleep(time.Minute)
		w.run()
		if n := w.fleet.count("terminate"); n != 1 || w.live() != 1 {
			t.Errorf("while it shuts down: %d terminations, quota %d; want 1 and 1", n, w.live())
		}
		w.minutes(1)
		got := w.wantRunner(run.ID, store.RunnerEnded)
		if l := w.lock(run.Lock); w.live() != 0 || l.State != store.LockEmpty {
			t.Errorf("after the end: quota %d, lock %s; want 0, empty", w.live(), l.State)
		}
		var states []string
		for _, e := range got.History {
			states = append(states, e.State)
		}
		want := []string{"new", "launched", "booting", "online", "draining", "ending", "ended"}
		if got := slices.Compact(states); !slices.Equal(got, want) {
			t.Errorf("history tells %v, want %v", got, want)
		}
	})
}

func TestIdleMachineEndsWithoutTheGracePeriod(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.hear(run.ID, store.Event{Kind: store.EventIdle})
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		w.minutes(1)
		w.wantRunner(run.ID, store.RunnerEnded)
	})
}

func TestJobThatWasHandedOutJustBeforeTheDeleteFinishes(t *testing.T) {
	t.Run("WhenGitHubKnowsThatItRuns", func(t *testing.T) {
		inWorld(t, func(w *world) {
			run := w.draining("r")
			w.hub.busy("42", run.Config.RunnerID, true)
			w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
			w.minutes(60)
			w.wantRunner(run.ID, store.RunnerDraining)
			if n := w.fleet.count("terminate"); n != 0 {
				t.Errorf("in the job EC2 was asked %d times to terminate, want 0", n)
			}
			w.hub.busy("42", run.Config.RunnerID, false)
			w.hear(run.ID, store.Event{Kind: store.EventJobDone})
			w.minutes(4)
			w.wantRunner(run.ID, store.RunnerEnded)
		})
	})
	t.Run("WhenGitHubDoesNotYetKnow", func(t *testing.T) {
		inWorld(t, func(w *world) {
			run := w.draining("r")
			w.run() // 204
			w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
			time.Sleep(w.lim.Grace - time.Second)
			w.run()
			w.wantRunner(run.ID, store.RunnerDraining)
			if n := w.fleet.running(); n != 1 {
				t.Errorf("%d machines run within the grace period, want 1", n)
			}
		})
	})
}

func TestBusyRunnerIsKeptUntilItsHardLimitAndNoLonger(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.hub.busy("42", run.Config.RunnerID, true)
		w.minutes(6*60 - 1)
		w.wantRunner(run.ID, store.RunnerDraining)
		w.minutes(1)
		w.wantRunner(run.ID, store.RunnerEnding)
		if n := w.fleet.running(); n != 0 {
			t.Errorf("%d machines run at the hard limit, want 0", n)
		}
	})
}

func TestTerminationOfAMomentAgoIsNotRepeated(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.hear(run.ID, store.Event{Kind: store.EventIdle})
		for _, c := range []struct {
			after time.Duration
			want  int
		}{{0, 1}, {10 * time.Second, 1}, {time.Minute, 2}} {
			time.Sleep(c.after)
			w.fleet.set(here, run.InstanceID, fleet.Running) // what EC2 shows lags
			w.run()
			if n := w.fleet.count("terminate"); n != c.want {
				t.Errorf("%s after the last run: %d terminations, want %d", c.after, n, c.want)
			}
		}
	})
}

func TestMachineWithoutAConfigEndsAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("r")
		run := w.configure(w.launch(w.begin(q))) // registered, and never booted
		w.cancel(q.ID)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		if w.hub.count("delete") != 0 || w.fleet.count("terminate") != 1 {
			t.Errorf("%d DELETEs and %d terminations, want none and one", w.hub.count("delete"), w.fleet.count("terminate"))
		}
		w.minutes(2)
		w.wantRunner(run.ID, store.RunnerEnded)
		if got := w.hub.names("42"); len(got) != 0 {
			t.Errorf("GitHub has %v after the end, want nothing", got)
		}
	})
}

func TestCompromisedMachineGetsOneDeleteAndNoGrace(t *testing.T) {
	for name, fail := range map[string]error{
		"WhenGitHubDeletes":         nil,
		"WhenTheJobIsBusy":          refusal(github.ErrBusy, 422),
		"WhenGitHubDoesNotAnswer":   refusal(github.ErrUnknown, 502),
		"WhenGitHubRefusesToAnswer": refusal(github.ErrDenied, 401),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.online("r")
				w.run()
				w.apply(w.caseOf(run.ID).Drain(time.Now(), store.NewEnd(store.EndCompromised)))
				w.hub.fail = func(op string, _ github.Scope, _ int64) error { return fail }
				_, _ = w.try()
				w.wantRunner(run.ID, store.RunnerEnding)
				if n := w.fleet.running(); n != 0 {
					t.Errorf("%d machines run, want 0", n)
				}
				if n := w.hub.count("delete"); n != 1 {
					t.Errorf("%d DELETEs, want 1", n)
				}
			})
		})
	}
}

func TestAbsentRegistrationCountsOnlyIfTheCredentialSeesTheRest(t *testing.T) {
	t.Run("Seen", func(t *testing.T) {
		inWorld(t, func(w *world) {
			run := w.draining("r")
			w.hub.repos["42"] = nil
			w.run()
			if w.runner(run.ID).DeregisteredAt.IsZero() {
				t.Errorf("not deregistered, want it so")
			}
			w.wantAlarms()
		})
	})
	for name, kind := range map[string]error{"Unseen": github.ErrNotFound, "Denied": github.ErrDenied} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.draining("r")
				w.run0()
				w.hub.fail = func(op string, _ github.Scope, _ int64) error {
					if op == "list" {
						return refusal(kind, 404)
					}
					return refusal(github.ErrNotFound, 404)
				}
				r, err := w.try()
				if !errors.Is(err, kind) {
					t.Errorf("Run = %v, want %v\n%s", err, kind, r)
				}
				got := w.wantRunner(run.ID, store.RunnerDraining)
				if !got.DeregisteredAt.IsZero() {
					t.Errorf("deregistered at %s, want not", got.DeregisteredAt)
				}
				w.wantAlarms(store.AlarmGitHub)
			})
		})
	}
	t.Run("Unanswered", func(t *testing.T) {
		inWorld(t, func(w *world) {
			run := w.draining("r")
			w.run0()
			w.hub.fail = func(op string, _ github.Scope, _ int64) error {
				if op == "list" {
					return refusal(github.ErrUnknown, 502)
				}
				return refusal(github.ErrNotFound, 404)
			}
			_, _ = w.try()
			if got := w.runner(run.ID); !got.DeregisteredAt.IsZero() {
				t.Errorf("deregistered at %s, want not", got.DeregisteredAt)
			}
			w.wantAlarms()
		})
	})
}

// run0 moves the sweep out of the way of the next run.
func (w *world) run0() {
	w.t.Helper()
	w.put(&store.Sweep{Key: here.String(), Meta: store.Meta{DueAt: time.Now().Add(w.lim.SweepPeriod)}})
}

func TestRefusedCredentialIsAlarmedOnceARepository(t *testing.T) {
	inWorld(t, func(w *world) {
		w.draining("a")
		w.draining("b")
		w.run0()
		w.hub.fail = func(string, github.Scope, int64) error { return refusal(github.ErrDenied, 401) }
		_, err := w.try()
		if !errors.Is(err, github.ErrDenied) {
			t.Errorf("Run = %v, want denied", err)
		}
		w.wantAlarms(store.AlarmGitHub)
	})
}

func TestRefusedCallsAreNotRepeatedForTheRestOfTheAccount(t *testing.T) {
	for name, kind := range map[string]error{"Denied": github.ErrDenied, "LimitedWithoutATime": github.ErrLimited} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				for i := range 60 {
					w.draining(numbered(i))
				}
				w.run0()
				w.hub.latency = 300 * time.Millisecond
				w.hub.fail = func(string, github.Scope, int64) error { return refusal(kind, 403) }
				_, _ = w.try()
				if n := w.hub.count("delete"); n != 25 {
					t.Errorf("%d DELETEs, want the 25 that were under way", n)
				}
			})
		})
	}
}

func TestLimitedAccountRestsAndOthersGoOn(t *testing.T) {
	inWorld(t, func(w *world) {
		const other = "222222222222"
		w.accounts[other] = store.Account{ID: other, Regions: map[string]store.Region{region: {}}}
		for i := range 60 {
			w.draining(numbered(i))
		}
		w.online("other", func(q *store.Request) { q.Account = other })
		w.hear(id("other"), store.Event{Kind: store.EventDraining})
		reset := time.Now().Add(20 * time.Minute)
		w.hub.fail = func(op string, repo github.Scope, _ int64) error {
			if repo.Account == account && time.Now().Before(reset) {
				return &github.Error{Kind: github.ErrLimited, Op: op, Status: 429, RetryAt: reset}
			}
			return nil
		}
		w.hub.latency = 300 * time.Millisecond
		p := reaper.New(w.config)
		w.run0()
		for range 20 {
			if _, err := p.Run(w.t.Context()); err != nil {
				t.Errorf("Run = %v, want no error: a limit is a wait", err)
			}
			time.Sleep(time.Until(reset) / 5)
		}
		limited := 0
		for _, c := range w.hub.calls {
			if strings.HasPrefix(c, "delete ") {
				limited++
			}
		}
		if limited != 25+1 { // what was under way at the first 429, and the other account's
			t.Errorf("%d DELETEs before the limit's end, want 26", limited)
		}
		if w.runner(id("other")).DeregisteredAt.IsZero() {
			t.Errorf("the other account's runner is not deregistered, want it so")
		}
		w.wantRunner(id(numbered(0)), store.RunnerDraining)
		time.Sleep(time.Until(reset))
		if _, err := p.Run(w.t.Context()); err != nil || w.runner(id(numbered(0))).DeregisteredAt.IsZero() || w.runner(id(numbered(59))).DeregisteredAt.IsZero() {
			t.Errorf("after the limit's end: Run = %v, deregistered at %s and %s; want all deregistered",
				err, w.runner(id("aa")).DeregisteredAt, w.runner(id("at")).DeregisteredAt)
		}
		w.wantAlarms()
	})
}

func TestSilentGitHubCostsARunLittle(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 20 {
			w.draining(fmt.Sprintf("a%c", 'a'+i))
		}
		q := w.accept("other")
		dead := w.launch(w.begin(q))
		w.cancel(q.ID)
		w.run0()
		w.hub.latency = time.Hour
		began := time.Now()
		_, err := w.try()
		if err == nil {
			t.Error("Run = nil, want GitHub's silence")
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the run took %s, want one timeout", took)
		}
		w.wantRunner(dead.ID, store.RunnerEnding)
		if n := w.fleet.count("terminate"); n != 1 {
			t.Errorf("%d terminations, want 1: GitHub's silence stops nobody else", n)
		}
	})
}

func TestDeletedRoleIsNeverSilent(t *testing.T) {
	for name, err := range map[string]error{
		"STSRefuses":      &fleet.Error{Kind: fleet.ErrRefused, Code: "AccessDenied", Text: "not authorized to perform sts:AssumeRole"},
		"NotRegistered":   fmt.Errorf("assume the role: %w", store.ErrNoAccount),
		"Faulty":          fmt.Errorf("assume the role: %w: role_arn", store.ErrUnusable),
		"WhileLaunching":  &fleet.Error{Kind: fleet.ErrRefused, Code: "AccessDenied", Text: "no role"},
		"WithoutMachines": &fleet.Error{Kind: fleet.ErrRefused, Code: "AccessDenied", Text: "no role"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				switch name {
				case "WithoutMachines": // the sweep sees it
				case "WhileLaunching":
					w.begin(w.accept("r"))
					time.Sleep(w.lim.BootLimit)
					w.run0()
				default:
					w.draining("r")
					w.run0()
				}
				w.fleet.fail = func(string, fleet.Place, string) error { return err }
				r := w.run() // which does not fail: what is wrong is the account's
				if skipped := lines(r, reaper.Skip); !slices.Contains(skipped, "account "+here.String()) {
					t.Errorf("skipped: %v, want the account", skipped)
				}
				w.wantAlarms(store.AlarmAccess)
				for range 60 {
					time.Sleep(time.Minute)
					w.run()
				}
				w.wantAlarms(store.AlarmAccess)
				time.Sleep(23 * time.Hour)
				w.run()
				if name == "NotRegistered" { // and nothing lives any more: its runner was ended by time
					w.wantAlarms(store.AlarmAccess)
				} else {
					w.wantAlarms(store.AlarmAccess, store.AlarmAccess)
				}
				if run := w.runner(id("r")); run.Version != 0 {
					w.wantRunner(run.ID, store.RunnerEnded)
				}
				if n := w.live(); n != 0 {
					t.Errorf("quota %d, want it given back", n)
				}
			})
		})
	}
}

func TestTwoHundredRunnersThatDrainAtOnceAreDoneInOneRun(t *testing.T) {
	inWorld(t, func(w *world) {
		name := func(i int) string { return fmt.Sprintf("m%c%c", 'a'+i/20, 'a'+i%20) }
		for i := range 200 {
			w.online(name(i))
		}
		time.Sleep(121 * time.Second) // all are lost
		w.hub.latency = 300 * time.Millisecond
		began := time.Now()
		r := w.run()
		if r.Late {
			t.Errorf("the run ran out of time")
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("the run took %s, want well below 50 s", took)
		}
		if n := len(lines(r, reaper.Deregister)); n != 200 {
			t.Errorf("%d runners were deregistered, want 200", n)
		}
		if n := w.hub.mostAtOnce; n > 25 {
			t.Errorf("%d calls of one account at once, want at most 25", n)
		}
		w.minutes(3)
		if n := w.live(); n != 0 || w.fleet.running() != 0 {
			t.Errorf("after the grace period: quota %d, %d machines; want none", n, w.fleet.running())
		}
	})
}
