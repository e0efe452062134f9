package sim_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// crowd makes n requests of one key at once.
func crowd(w *sim.World, n int) []apitype.Started {
	w.Helper()
	all := make([]apitype.Started, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = w.Start(sim.Shared(fmt.Sprint("crowd-", i))) })
	}
	wg.Wait()
	return all
}

// allReady waits until the reaper, or anyone else, has recorded that all are.
func allReady(w *sim.World, limit time.Duration) {
	w.Helper()
	w.Until("all requests to be ready", limit, func() bool { return len(w.States()) == 1 && w.States()[store.Ready] > 0 })
}

func TestHundredStartsOfOneKeyAreOneLaunch(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		all := crowd(w, 100)
		allReady(w, 10*time.Minute)
		good(w, all[0], w.Job(all[0].RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestHundredThatWaitForALostLaunchGetTheNext(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{NeverBoots: func(n int) bool { return n == 1 }}, func(w *sim.World) {
		all := crowd(w, 100)
		allReady(w, 15*time.Minute)
		good(w, all[0], w.Job(all[0].RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestShareAndDrainAtTheEndOfALife(t *testing.T) {
	t.Parallel()
	// The second request comes so long after the time until which the first one
	// counts on the runner, by clocks that differ.
	for _, at := range []time.Duration{-46, -45, -44, -2, 0, 2} {
		for _, skew := range []time.Duration{-2, 2} {
			t.Run(fmt.Sprintf("%ds, worker's clock %+ds", at, skew), func(t *testing.T) {
				t.Parallel()
				config := sim.Config{Skew: map[string]time.Duration{kernel.Worker: skew * time.Second, kernel.Reaper: -skew * time.Second}}
				sim.Run(t, config, func(w *sim.World) {
					body := sim.Shared("a")
					body.Timeout = 60
					s := w.Start(body)
					w.Ready(s, 10*time.Minute)
					exp := w.Lock(w.Request(s.ID).LockKey()).Exp
					time.Sleep(time.Until(exp.Add(at * time.Second)))
					next := w.Start(sim.Shared("b"))
					job := w.Job(next.RunsOn, 2*time.Minute)
					w.Ready(next, 15*time.Minute)
					if r := w.RunnerOf(next.ID); !r.State.Usable() && r.End.Code == store.EndExpired {
						w.Errorf("the request is ready with a runner that expired")
					}
					good(w, next, job)
				})
			})
		}
	}
}

func TestRunnerThatIsSharedAgainAndAgainEndsAtItsHardLimit(t *testing.T) {
	t.Parallel()
	hour := func(a *store.Account) { a.HardS = 3600 }
	sim.Run(t, sim.Config{Account: hour}, func(w *sim.World) {
		var last apitype.Started
		for i := range 20 { // that nothing is promised beyond the limit is looked at in every commit
			body := sim.Shared(fmt.Sprint(i))
			body.Timeout = 1200
			last = w.Start(body)
			w.Ready(last, 15*time.Minute)
			time.Sleep(5 * time.Minute)
		}
		good(w, last)
		for _, m := range w.Fleet.Instances() {
			if life := m.EndsAt.Sub(m.LaunchedAt); life > time.Hour+2*time.Minute {
				w.Errorf("a machine lived %s", life)
			}
		}
	})
}

// sharers has n requests share one runner that is live, and tells what that cost.
func sharers(t *testing.T, n int) (commits, conflicts int, took time.Duration) {
	sim.Run(t, sim.Config{Seed: uint64(n)}, func(w *sim.World) {
		first := w.Start(sim.Shared("first"))
		w.Ready(first, 10*time.Minute)
		wasDone, wasLost := w.Commits()
		began := time.Now()
		crowd(w, n)
		allReady(w, 5*time.Minute)
		took = time.Since(began)
		commits, conflicts = w.Commits()
		commits, conflicts = commits-wasDone, conflicts-wasLost
		stop(w, first)
		w.Quiet(2 * time.Hour)
		w.Check()
		machines(w, 1)
	})
	return commits, conflicts, took
}

func TestSharersOfOneLock(t *testing.T) {
	t.Parallel()
	for _, n := range []int{50, 200} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			commits, conflicts, took := sharers(t, n)
			t.Logf("%d sharers at once: %.2f commits and %.2f conflicts each, all ready in %s",
				n, float64(commits)/float64(n), float64(conflicts)/float64(n), took.Round(time.Millisecond))
			// One commit of the API each, one of the worker for up to ten of them, and
			// some heartbeats.
			if commits > 2*n || conflicts > n {
				t.Errorf("%d sharers took %d commits and lost %d, want at most %d and %d", n, commits, conflicts, 2*n, n)
			}
		})
	}
}
