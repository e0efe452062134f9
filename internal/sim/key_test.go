package sim_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A launch whose key is lost is given up: its machine can never prove itself. The
// request gets another runner, under the current key, and whatever was launched ends.
func TestLaunchWhoseKeyIsLostIsReplaced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fate     kernel.Fate
		at       string
		machines int
		fresh    bool // the workers know of it before the launch continues
	}{
		"BeforeTheCall":             {kernel.KillBefore, kernel.Launch, 2, false}, // a worker that does not know yet continues
		"AfterTheCall":              {kernel.KillAfter, kernel.Launch, 2, false},
		"LateCall":                  {kernel.FailLate, kernel.Launch, 2, false},
		"BeforeTheRegister":         {kernel.KillBefore, kernel.Mint, 2, false},
		"BeforeTheCallAndKnown":     {kernel.KillBefore, kernel.Launch, 1, true},
		"AfterTheCallAndKnown":      {kernel.KillAfter, kernel.Launch, 2, true},
		"BeforeTheRegisterAndKnown": {kernel.KillBefore, kernel.Mint, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var hit atomic.Bool
			fate := once(c.fate, func(e kernel.Effect) bool {
				if e.Op != c.at {
					return false
				}
				hit.Store(true)
				return true
			})
			sim.Run(t, sim.Config{Fate: fate}, func(w *sim.World) {
				over := w.Start(sim.Ephemeral("over"))
				stop(w, over)
				s := w.Start(sim.Ephemeral("a"))
				w.Until("the call", time.Minute, hit.Load)
				if !w.LoseKey() {
					w.Errorf("the key was lost before")
				}
				if c.fresh {
					for range 40 { // which have nothing to do, and take the warm workers, who know the old key alone
						w.Send(queue.StartOf(w.Request(over.ID)), 0)
						time.Sleep(time.Second / 4)
					}
				}
				job := w.Job(s.RunsOn, 30*time.Second)
				w.Until("the request to be ready", 10*time.Minute, func() bool { return w.Request(s.ID).State.Final() }) // its status token opens nothing now
				ready := w.Request(s.ID)
				if ready.State != store.Ready {
					w.Fatalf("the request is %s: %v, want it ready", ready.State, ready.Error)
				}
				if r := w.Runner(ready.Runner); r.Launch.KeyID != "k2" {
					w.Errorf("runner %s was launched under %s, want the current key", r.ID, r.Launch.KeyID)
				}
				if took := ready.ReadyAt.Sub(ready.CreatedAt); took > 5*time.Minute {
					w.Errorf("the request was ready after %s, want it tried again at once", took)
				}
				good(w, s, job)
				if n := len(w.Fleet.Instances()); n > c.machines {
					w.Errorf("%d machines were launched, want %d at most", n, c.machines)
				}
				nobody(w)
				if got := w.Alarms(); len(got) != 0 {
					w.Errorf("alarms %v, want none: nobody has to do anything", got)
				}
			})
		})
	}
}

// Machines that booted under a key that is lost are refused from then on. Their jobs
// run to their end, and nothing new comes to them.
func TestRunnerWhoseKeyIsLostKeepsItsJobAndEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body   apitype.Start
		job    time.Duration
		within time.Duration
	}{
		"Idle":       {sim.Shared("a"), 0, 10 * time.Minute},
		"SharedBusy": {sim.Shared("a"), 40 * time.Minute, 65 * time.Minute},
		"Busy":       {sim.Ephemeral("a"), 40 * time.Minute, 65 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				s := w.Start(c.body)
				job := ""
				if c.job > 0 {
					job = w.Job(s.RunsOn, c.job)
				}
				w.Ready(s, 10*time.Minute)
				if job != "" {
					w.Until("the job to be reported", 5*time.Minute, func() bool { return !w.RunnerOf(s.ID).Job.StartedAt.IsZero() })
				}
				if !w.LoseKey() {
					w.Errorf("the key was lost before")
				}
				w.Until("the drain", 5*time.Minute, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
				if r := w.RunnerOf(s.ID); r.End.Code != store.EndLost {
					w.Errorf("the runner drains for %s, want its silence", r.End.Code)
				}
				next := w.Start(sim.Shared("b"))
				w.Ready(next, 10*time.Minute)
				if w.RunnerOf(next.ID).ID == w.RunnerOf(s.ID).ID {
					w.Errorf("the runner is shared though its machine is refused")
				}
				took := w.Until("the end", c.within, func() bool { return w.RunnerOf(s.ID).State == store.RunnerEnded })
				w.Logf("ended after %s", took)
				if job != "" && !w.Done(job) {
					w.Errorf("the job is %+v, want it done", w.JobOf(job))
				}
				stop(w, next)
				w.Quiet(2 * time.Hour)
				nobody(w)
			})
		})
	}
}
