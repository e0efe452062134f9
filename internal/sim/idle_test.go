package sim_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestIdleRunnerDrainsAtTheIdleLimit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) { // which of two calls takes longer differs
		sim.Run(t, sim.Config{Seed: seed}, func(w *sim.World) {
			s := w.Start(sim.Shared("a"))
			w.Ready(s, 10*time.Minute)
			job := w.Job(s.RunsOn, time.Minute)
			w.Until("the runner to drain", 20*time.Minute, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
			r := w.RunnerOf(s.ID)
			if idle := r.DrainingAt.Sub(r.Job.EndedAt); r.End.Code != store.EndIdle || idle > w.Limits.Idle+10*time.Second {
				w.Errorf("the runner drained for %s, %s after its job; want %s after %s", r.End.Code, idle, store.EndIdle, w.Limits.Idle)
			}
			good(w, s, job)
		})
	}
}
