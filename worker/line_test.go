package worker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestLaunchesKeepEC2sPace(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []store.Request
		for range 122 {
			all = append(all, w.request())
		}
		done := make(chan int, 10)
		for i := range 10 { // ten concurrent workers
			go func() {
				failed := 0
				for j := i; j < len(all); j += 10 {
					failed += w.start(all[j])
				}
				done <- failed
			}()
		}
		for range 10 {
			if failed := <-done; failed != 0 {
				t.Errorf("%d messages failed, want none", failed)
			}
		}
		w.follow(1000)
		if len(w.fleet.byToken) != 122 || float64(len(w.fleet.calls)) > 1.2*122 {
			t.Errorf("%d machines by %d calls, want 122 by at most 1.2 each", len(w.fleet.byToken), len(w.fleet.calls))
		}
		slices.SortFunc(w.fleet.times, time.Time.Compare)
		for i := range w.fleet.times {
			if i >= 5 && w.fleet.times[i].Sub(w.fleet.times[i-5]) < 500*time.Millisecond {
				t.Fatalf("six calls within %v: the pace is 5 at once, then one each 500 ms", w.fleet.times[i].Sub(w.fleet.times[i-5]))
			}
		}
	})
}

func TestNothingIsLaunchedWhenBootByPassesBeforeTheSlot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded"}
		}
		r := w.request()
		w.start(r)
		lock, quota, calls := w.lockOf(r), get[store.Quota](w, account), len(w.fleet.calls)
		time.Sleep(time.Until(lock.BootBy.Add(-3 * time.Second)))
		quota.Next[region] = lock.BootBy.Add(time.Second) // others are in front
		w.commit(&quota)
		w.handle(queue.Message{Kind: queue.Resume, ID: w.requestNow(r.ID).Runner})
		w.follow(10)
		if n := len(w.fleet.calls); n != calls || time.Now().Before(lock.BootBy) {
			t.Errorf("%d calls more, the last at %v, with boot_by at %v", n-calls, w.fleet.times[n-1], lock.BootBy)
		}
		if run := w.runnerOf(r.ID); run.Held(time.Now(), "") {
			t.Errorf("the claim is held by %s, though nothing is open", run.Claim.By)
		}
	})
}

// lineOf is a line in which the repository of the tests has a turn to come.
func lineOf(end time.Time) store.Line {
	return store.Line{End: end, Last: map[string]time.Time{store.Repository{ID: "7"}.Key(): end}}
}

func TestNoWorkerWaitsForASlot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.commit(&store.Quota{Account: account, Lines: map[string]store.Line{region: lineOf(time.Now().Add(10 * time.Second))}})
		w.fleet.answer = func(n int, _ fleet.Launch, _ func()) error {
			if n == 1 {
				return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded"}
			}
			return nil
		}
		r, began := w.request(), time.Now()
		w.start(r)
		if took := time.Since(began); took > time.Second || len(w.fleet.calls) != 0 {
			t.Errorf("a worker had the message for %v and made %d calls, want it let go at once", took, len(w.fleet.calls))
		}
		w.state(r, store.Accepted)
		at := w.requestNow(r.ID)
		if len(w.sent) != 1 || w.sent[0].ID != r.ID || w.sent[0].delay != 10*time.Second || at.Wait != store.WaitPaced || !at.DueAt.Equal(began.Add(10*time.Second)) {
			t.Errorf("it sent %v, and the request waits for %q until %v; want it to come in 10 s", w.sent, at.Wait, at.DueAt)
		}
		w.follow(1)
		if took := time.Since(began); took > 11*time.Second || len(w.fleet.calls) != 1 {
			t.Errorf("after %v there were %d calls, want one that is throttled, and no pause", took, len(w.fleet.calls))
		}
		w.follow(10)
		if run := w.runnerOf(r.ID); run.InstanceID == "" {
			t.Errorf("runner is %s, want it launched", run.State)
		}
	})
}

func TestRequestThatIsStoppedBeforeItsTurnIsNotLaunched(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.commit(&store.Quota{Account: account, Lines: map[string]store.Line{region: lineOf(time.Now().Add(10 * time.Second))}})
		w.start(r)
		w.apply(store.Case{Request: w.requestNow(r.ID)}.Stop(time.Now(), w.limits, "test", false))
		w.follow(10)
		if len(w.fleet.calls) != 0 || len(w.github.calls) != 0 || w.live() != 0 {
			t.Errorf("%d launches and %d registrations for a request that is cancelled, want none", len(w.fleet.calls), len(w.github.calls))
		}
	})
}
