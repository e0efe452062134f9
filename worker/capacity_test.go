package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func TestNoCapacityMovesToTheNextPlacement(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			if l.InstanceType == "t3a.micro" {
				return capacity("InsufficientInstanceCapacity")
			}
			return nil
		}
		w.start(r)
		run := w.runnerOf(r.ID)
		if run.Index != 1 || run.InstanceID == "" || len(run.Attempts) != 2 || run.Attempts[0].Code != "InsufficientInstanceCapacity" || run.Attempts[1].Code != "launched" {
			t.Errorf("runner at index %d with %v, want the second placement launched", run.Index, run.Attempts)
		}
		if a, b := w.fleet.calls[0].ClientToken, w.fleet.calls[1].ClientToken; a == b {
			t.Error("two placements had one client token")
		}
		other := w.request()
		w.handleBy(worker.New(w.config), queue.StartOf(other))
		if n := len(w.fleet.calls); n != 4 {
			t.Errorf("a process without the hint made %d calls in all, want 4", n)
		}
	})
}

func TestEmptyPlacementIsSkippedForThreeMinutes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			if l.InstanceType == "t3a.micro" {
				return capacity("InsufficientInstanceCapacity")
			}
			return nil
		}
		wk := worker.New(w.config)
		w.handleBy(wk, queue.StartOf(w.request()))
		w.handleBy(wk, queue.StartOf(w.request()))
		if n := len(w.fleet.calls); n != 3 {
			t.Errorf("%d calls for two launches, want 3: the hint spares one", n)
		}
		time.Sleep(3 * time.Minute)
		w.handleBy(wk, queue.StartOf(w.request()))
		if n := len(w.fleet.calls); n != 5 {
			t.Errorf("%d calls after the hint has lapsed, want 5", n)
		}
	})
}

func TestNoCapacityAnywhereIsTriedAgainThenFailsWithTheList(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(int, fleet.Launch, func()) error { return capacity("InsufficientInstanceCapacity") }
		began := time.Now()
		w.start(r)
		w.state(r, store.Accepted)
		if w.live() != 0 || w.lockOf(r).State != store.LockEmpty {
			t.Errorf("quota %d, lock %s; want both given back", w.live(), w.lockOf(r).State)
		}
		if got := w.requestNow(r.ID); got.Tries != 1 || got.Wait != store.WaitBackoff || got.DueAt.Sub(began) < 30*time.Second {
			t.Errorf("request %+v, want a second try after 30 s", got)
		}
		w.follow(10)
		w.state(r, store.Failed)
		got := w.requestNow(r.ID)
		if len(got.Attempts) != 8 || got.Error.Code != store.EndNoCapacity || !got.Error.Retryable {
			t.Errorf("failed with %d attempts and %v, want 8 (four tries of two placements) and no_capacity", len(got.Attempts), got.Error)
		}
		if took := got.EndedAt.Sub(began); took < 210*time.Second || took > 5*time.Minute {
			t.Errorf("gave up after %v, want the three waits of 3.5 minutes", took)
		}
	})
}

func TestNoCapacityThenTimeoutStaysOnThatIndex(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			switch n {
			case 1:
				return capacity("InsufficientInstanceCapacity")
			case 2:
				launch()
				return errLost
			}
			return nil
		}
		w.start(r)
		w.follow(3)
		run := w.runnerOf(r.ID)
		if run.Index != 1 || run.InstanceID != "i-1" || len(w.fleet.byToken) != 1 || w.fleet.calls[1].ClientToken != w.fleet.calls[2].ClientToken {
			t.Errorf("index %d, instance %s, %d machines; want the same token again and its machine", run.Index, run.InstanceID, len(w.fleet.byToken))
		}
	})
}

func TestSpotCountLimit(t *testing.T) {
	for _, fallback := range []bool{true, false} {
		t.Run(fmt.Sprintf("fallback=%v", fallback), func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.accounts[account]
				a.SpotFallback = fallback
				w.accounts[account] = a
				w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
					if l.Market == store.Spot {
						return capacity("MaxSpotInstanceCountExceeded")
					}
					return nil
				}
				r := w.request()
				w.start(r)
				if fallback {
					if run := w.runnerOf(r.ID); run.Placement().Market != store.OnDemand || len(w.fleet.calls) != 2 {
						t.Errorf("launched %v in %d calls, want on-demand in 2", run.Placement(), len(w.fleet.calls))
					}
					return
				}
				w.follow(10)
				w.state(r, store.Failed)
			})
		})
	}
}

func TestVCPULimitTriesAnotherFamilyThenWaitsUntilGiveUp(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(int, fleet.Launch, func()) error { return capacity("VcpuLimitExceeded") }
		w.start(r)
		if n := len(w.fleet.calls); n != 2 {
			t.Errorf("%d calls, want one a family", n)
		}
		began := time.Now()
		w.follow(30)
		got := w.requestNow(r.ID)
		if got.State != store.Failed || got.Error.Code != store.EndVCPULimit || !strings.Contains(got.Error.Text, "quota") {
			t.Errorf("request %s %v, want failed with a text on the vCPU limit", got.State, got.Error)
		}
		if took := time.Since(began); took < 10*time.Minute {
			t.Errorf("gave up after %v, want nearly give_up (15 min)", took)
		}
	})
}
