package reaper_test

import (
	"context"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRunnerDrains(t *testing.T) {
	beat := func(w *world, id string, every time.Duration, n int) {
		for range n {
			time.Sleep(every)
			w.hear(id, store.Event{Kind: store.EventHeartbeat})
		}
	}
	for name, c := range map[string]struct {
		play func(w *world) store.Runner
		want string // the reason, or "" for none
	}{
		"AtItsHardLimit": {func(w *world) store.Runner {
			run := w.online("r")
			l := w.lock(run.Lock)
			l.Exp = run.Hard.Add(time.Hour)
			w.put(&l)
			beat(w, run.ID, time.Minute, 6*60)
			return run
		}, store.EndHard},
		"WhenNobodyCountsOnIt": {func(w *world) store.Runner {
			run := w.online("r")
			beat(w, run.ID, time.Minute, 65) // its timeout, from the time by which it had to boot
			return run
		}, store.EndExpired},
		"WhenItDoesNotBoot": {func(w *world) store.Runner {
			run := w.launch(w.begin(w.accept("r")))
			time.Sleep(5 * time.Minute)
			return run
		}, store.EndNoBoot},
		"WhenItsLaunchIsNeverAnswered": {func(w *world) store.Runner {
			run := w.begin(w.accept("r"))
			time.Sleep(5 * time.Minute)
			return run
		}, store.EndNoLaunch},
		"WhenItBootsButIsNotOnline": {func(w *world) store.Runner {
			run := w.boot(w.configure(w.launch(w.begin(w.accept("r")))))
			beat(w, run.ID, time.Minute, 7)
			return run
		}, store.EndNotOnline},
		"WhenItsHeartbeatIsLost": {func(w *world) store.Runner {
			run := w.online("r")
			time.Sleep(121 * time.Second)
			return run
		}, store.EndLost},
		"NotWhenItsHeartbeatIsLate": {func(w *world) store.Runner {
			run := w.online("r")
			time.Sleep(120 * time.Second)
			return run
		}, ""},
		"WhenAnotherTookItsPlace": {func(w *world) store.Runner {
			run := w.online("r", shared)
			l := w.lock(run.Lock)
			l.Runner = id("other")
			w.put(&l)
			return run
		}, store.EndHandover},
		"NotInItsJobWhenAnotherTookItsPlace": {func(w *world) store.Runner {
			run := w.online("r", shared)
			w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "1"})
			l := w.lock(run.Lock)
			l.Runner = id("other")
			w.put(&l)
			return run
		}, ""},
		"WhenItsRequestIsCancelled": {func(w *world) store.Runner {
			q := w.accept("r")
			run := w.launch(w.begin(q))
			w.cancel(q.ID)
			return run
		}, store.EndUnwanted},
		"NotWhenItsRequestIsCancelledAndAnotherJoined": {func(w *world) store.Runner {
			q := w.accept("r", shared)
			run := w.launch(w.begin(q))
			w.cancel(q.ID)
			l := w.lock(run.Lock)
			l.Joined = id("another")
			w.put(&l)
			return run
		}, ""},
		"NotInItsUsualLife": {func(w *world) store.Runner { return w.online("r") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				before := c.play(w)
				r := w.run()
				run, lock := w.runner(before.ID), w.lock(before.Lock)
				drained := lines(r, reaper.Drain)
				if c.want == "" {
					if len(drained) != 0 || !run.State.Usable() {
						t.Errorf("runner is %s (drained %v), want it as it was", run.State, drained)
					}
					return
				}
				if len(drained) != 1 || run.End == nil || run.End.Code != c.want {
					w.t.Fatalf("drained %v with end %v, want it for %s\n%s", drained, run.End, c.want, r)
				}
				if mine := lock.Runner == run.ID; mine != (c.want != store.EndHandover) || mine && lock.State != store.LockDraining {
					t.Errorf("lock is %s and names %s, want it draining if it names the runner", lock.State, lock.Runner)
				}
				if lock.Runner != run.ID && lock.State != store.LockLive {
					t.Errorf("the other runner's lock is %s, want it live", lock.State)
				}
			})
		})
	}
}

// before calls do once, right before the first commit: what somebody else does
// between the reaper's read and its write.
type before struct {
	store.Store
	do func()
}

func (b *before) Commit(ctx context.Context, changes ...store.Change) error {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Store.Commit(ctx, changes...)
}

func TestHeartbeatInTheLastMomentSavesTheRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("late")
		w.run() // creates the sweep
		time.Sleep(121 * time.Second)
		w.config.Store = &before{w.store, func() { w.hear(run.ID, store.Event{Kind: store.EventHeartbeat}) }}
		r := w.run()
		w.wantRunner(run.ID, store.RunnerOnline)
		if got := lines(r, reaper.Drain); len(got) != 0 {
			t.Errorf("drained %v, want nothing: it was asked again\n%s", got, r)
		}
	})
}

func TestShareInTheLastMomentSavesTheRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("shared", shared)
		for range 65 {
			time.Sleep(time.Minute)
			w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
		}
		w.config.Store = &before{w.store, func() {
			l := w.lock(run.Lock)
			l.Exp = l.Exp.Add(time.Hour)
			w.put(&l)
		}}
		w.run()
		w.wantRunner(run.ID, store.RunnerOnline)
	})
}

func TestStolenBootTokenRaisesTheAlarm(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("stolen"))
		run.Boot = store.Boot{NonceHash: "x", InstanceID: "i-thief"}
		w.put(&run)
		w.launch(run)
		w.run()
		if got := w.runner(run.ID); got.End == nil || got.End.Code != store.EndCompromised {
			t.Errorf("end = %v, want compromised", got.End)
		}
		w.wantAlarms(store.AlarmCompromised)
	})
}

func TestForgottenStepIsAskedForAgain(t *testing.T) {
	for name, c := range map[string]struct {
		play func(w *world) store.Runner
		wait time.Duration // until nothing is sent yet
		want queue.Message
	}{
		"LaunchAfterItsClaimLapsed": {
			func(w *world) store.Runner { return w.begin(w.accept("r")) }, 59 * time.Second, // the claim is for 30 s
			queue.Message{Kind: queue.Resume, ID: id("r"), Trace: "trace-r"},
		},
		"MintAfterItsClaimWasGivenBack": {
			func(w *world) store.Runner { return w.launch(w.begin(w.accept("r"))) }, 59 * time.Second,
			queue.Message{Kind: queue.Resume, ID: id("r"), Trace: "trace-r"},
		},
		"StepAfterItsWait": {func(w *world) store.Runner {
			run := w.launch(w.begin(w.accept("r")))
			return w.apply(store.Case{Runner: run}.Pause(time.Now(), store.Pause{Wait: store.Wait{For: store.WaitGitHub, Until: time.Now().Add(2 * time.Minute)}})).Runner
		}, 3*time.Minute - time.Second, queue.Message{Kind: queue.Resume, ID: id("r"), Trace: "trace-r"}},
		"StepWhoseClaimIsLong": {func(w *world) store.Runner {
			run := w.launch(w.begin(w.accept("r")))
			run.Claim = store.Claim{By: "worker", Until: time.Now().Add(90 * time.Second)}
			w.put(&run)
			return run
		}, 90*time.Second - 1, queue.Message{Kind: queue.Resume, ID: id("r"), Trace: "trace-r"}},
		"NextConfigOfASharedRunner": {func(w *world) store.Runner {
			return w.next(w.online("r", shared).ID).Runner
		}, 59 * time.Second, queue.Message{Kind: queue.Next, ID: id("r"), N: 2, Trace: "trace-r"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				c.play(w)
				time.Sleep(c.wait)
				w.run()
				if got := w.queue.take(); len(got) != 0 {
					t.Errorf("after %s, sent %v, want nothing yet", c.wait, got)
				}
				time.Sleep(time.Second)
				r := w.run()
				if got := w.queue.take(); len(got) != 1 || got[0].Message != c.want || got[0].delay != 0 {
					t.Errorf("sent %v, want %v\n%s", got, c.want, r)
				}
			})
		})
	}
}

func TestRunnerWithNothingOutstandingIsNotAskedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r")
		for range 5 {
			w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
			w.minutes(1)
		}
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("sent %v, want nothing", got)
		}
	})
}
