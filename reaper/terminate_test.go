package reaper_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestTerminatedInstanceEndsADrainingRunnerAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.hub.busy("42", run.Config.RunnerID, true)
		w.fleet.set(here, run.InstanceID, fleet.Terminated)
		w.run()
		got := w.wantRunner(run.ID, store.RunnerEnded)
		if w.live() != 0 || !got.DeregisteredAt.IsZero() {
			t.Errorf("quota %d, deregistered at %s; want 0 and never", w.live(), got.DeregisteredAt)
		}
		w.hub.busy("42", run.Config.RunnerID, false)
		w.minutes(1)
		if got := w.hub.names("42"); len(got) != 0 {
			t.Errorf("GitHub has %v after the end, want nothing", got)
		}
	})
}

func TestUnrecordedInstanceIsFoundByItsToken(t *testing.T) {
	for name, state := range map[string]fleet.State{"AndTerminated": fleet.Running, "AndEnded": fleet.Terminated} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.begin(w.accept("r"))
				instance := w.machine(run, run.ClientToken()) // the worker died before it learned that
				w.fleet.set(here, instance, state)
				w.run0()
				time.Sleep(w.lim.BootLimit - time.Second)
				w.run()
				time.Sleep(time.Second)
				r := w.run()
				got := w.runner(run.ID)
				if got.InstanceID != instance {
					w.t.Fatalf("instance = %q, want %q\n%s", got.InstanceID, instance, r)
				}
				w.minutes(1)
				w.wantRunner(run.ID, store.RunnerEnded)
				if w.live() != 0 || w.fleet.running() != 0 {
					t.Errorf("quota %d, %d machines; want none", w.live(), w.fleet.running())
				}
			})
		})
	}
}

func TestInstanceThatNeverWasIsGivenUpAfterTwoLooks(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("r"))
		time.Sleep(w.lim.BootLimit)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		time.Sleep(w.lim.GoneGap - time.Second)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		time.Sleep(time.Second)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnded)
		if w.live() != 0 || w.lock(run.Lock).State != store.LockEmpty {
			t.Errorf("quota %d, lock %s; want 0, empty", w.live(), w.lock(run.Lock).State)
		}
	})
}

func TestStaleViewDeclaresNobodyDead(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("r")
		run := w.launch(w.begin(q))
		w.fleet.hidden[run.InstanceID] = true
		w.cancel(q.ID)
		denied := &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "not yet"}
		w.fleet.fail = func(op string, _ fleet.Place, _ string) error {
			if op == "terminate" {
				return denied
			}
			return nil
		}
		for range 4 {
			w.minutes(1)
			w.wantRunner(run.ID, store.RunnerEnding)
		}
		w.fleet.fail = func(string, fleet.Place, string) error { return nil }
		w.fleet.hidden[run.InstanceID] = false
		w.minutes(1)
		if got := w.wantRunner(run.ID, store.RunnerEnding); !got.MissingAt.IsZero() || got.TerminatedAt.IsZero() {
			t.Errorf("missing since %s, terminated at %s; want it found and terminated", got.MissingAt, got.TerminatedAt)
		}
		w.minutes(1)
		w.wantRunner(run.ID, store.RunnerEnded)
	})
}

func TestInstanceThatIsShownButNotKnownIsGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.run() // deregistered, within the grace period
		w.hear(run.ID, store.Event{Kind: store.EventIdle})
		time.Sleep(w.lim.GoneAge)
		w.fleet.fail = func(op string, _ fleet.Place, _ string) error {
			if op == "terminate" {
				return &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "no such instance"}
			}
			return nil
		}
		w.run()
		if got := w.wantRunner(run.ID, store.RunnerEnding); got.MissingAt.IsZero() {
			t.Error("not missing, want what TerminateInstances says to count")
		}
		w.minutes(1)
		w.wantRunner(run.ID, store.RunnerEnded)
	})
}

// meanwhile calls do once, right before the first read that names ref: what
// somebody else does while a run is on.
type meanwhile struct {
	store.Store
	ref store.Ref
	do  func()
}

func (m *meanwhile) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if do := m.do; do != nil && slices.Contains(refs, m.ref) {
		m.do = nil
		do()
	}
	return m.Store.Get(ctx, refs...)
}

func TestInstanceRecordedInTheLastMomentIsNotGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("r"))
		time.Sleep(w.lim.BootLimit)
		w.run()
		time.Sleep(w.lim.GoneGap)
		w.config.Store = &meanwhile{w.store, store.Ref{Kind: store.KindQuota, ID: account}, func() { w.launch(w.runner(run.ID)) }}
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		w.config.Store = w.store
		w.minutes(2)
		w.wantRunner(run.ID, store.RunnerEnded)
		if w.fleet.running() != 0 {
			t.Errorf("%d machines, want 0", w.fleet.running())
		}
	})
}

func TestLaunchesOfTheAccountDoNotKeepARunnerFromItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.fleet.set(here, run.InstanceID, fleet.Terminated)
		w.run0()
		w.config.Store = &before{w.store, func() {
			q := get[store.Quota](w, account)
			q.Live++ // somebody launches
			w.put(&q)
		}}
		w.run()
		w.wantRunner(run.ID, store.RunnerEnded)
		if w.live() != 1 {
			t.Errorf("quota %d, want the other's 1", w.live())
		}
	})
}

func TestEndLeavesTheLockOfItsSuccessorAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", shared)
		l := w.lock(run.Lock)
		l.Runner = id("successor")
		w.put(&l)
		w.fleet.set(here, run.InstanceID, fleet.Terminated)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnded)
		if got := w.lock(run.Lock); got.Version != l.Version {
			t.Errorf("the lock was written: %s of %s, want it left alone", got.State, got.Runner)
		}
	})
}

func TestInstanceThatEC2ForgotIsOver(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.run() // deregistered, within the grace period
		w.hear(run.ID, store.Event{Kind: store.EventIdle})
		time.Sleep(w.lim.GoneAge)
		delete(w.fleet.instances[here], run.InstanceID)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		w.minutes(1)
		w.wantRunner(run.ID, store.RunnerEnded)
		w.wantAlarms()
	})
}

func TestMachineThatCannotBeTerminatedStaysEndingAndAlarms(t *testing.T) {
	for name, refusal := range map[string]*fleet.Error{
		"Denied":    {Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "denied"},
		"Throttled": {Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "slow down"},
		"Down":      {Kind: fleet.ErrUnknown, Code: "InternalError", Text: "try again"},
	} {
		// What passes fails the run alone, and three failed runs of five are an alarm.
		var alarms []store.Alarm
		if refusal.Kind == fleet.ErrRefused {
			alarms = []store.Alarm{store.AlarmTerminate}
		}
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				good, bad := w.draining("a"), w.draining("b")
				w.hear(good.ID, store.Event{Kind: store.EventIdle})
				w.hear(bad.ID, store.Event{Kind: store.EventIdle})
				w.run0()
				w.fleet.fail = func(op string, _ fleet.Place, id string) error {
					if op == "terminate" && id == bad.InstanceID {
						return refusal
					}
					return nil
				}
				if _, err := w.try(); !errors.Is(err, refusal.Kind) {
					t.Errorf("Run = %v, want %v", err, refusal)
				}
				w.wantRunner(bad.ID, store.RunnerEnding)
				w.wantAlarms(alarms...)
				w.fleet.settle()
				time.Sleep(time.Minute)
				_, _ = w.try()
				if refusal.Kind != fleet.ErrThrottled { // which is of the place, whatever is asked for
					w.wantRunner(good.ID, store.RunnerEnded)
				}
				w.wantRunner(bad.ID, store.RunnerEnding)
				w.wantAlarms(slices.Concat(alarms, alarms)...)
				w.fleet.fail = func(string, fleet.Place, string) error { return nil }
				w.minutes(2)
				w.wantRunner(bad.ID, store.RunnerEnded)
			})
		})
	}
}
