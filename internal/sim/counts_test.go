package sim_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A world in which requests become ready and fail, launches are refused, and a runner is
// shared: its metrics are what its records say.
func TestMetricsAreWhatTheRecordsSay(t *testing.T) {
	t.Parallel()
	calls := 0
	cfg := sim.Config{EC2: func(op string, l fleet.Launch) error {
		if op != kernel.Launch {
			return nil
		}
		switch calls++; {
		case calls == 1: // and the next placement has capacity
			return &fleet.Error{Kind: fleet.ErrCapacity, Code: "InsufficientInstanceCapacity", Text: "None left."}
		case calls == 3: // the second machine is refused
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized."}
		}
		return nil
	}}
	sim.Run(t, cfg, func(w *sim.World) {
		first := w.Ready(w.Start(sim.Ephemeral("a")), 10*time.Minute)
		w.Final(w.Start(sim.Ephemeral("b")), 10*time.Minute)
		w.Ready(w.Start(sim.Shared("c")), 10*time.Minute)
		w.Ready(w.Start(sim.Shared("d")), 10*time.Minute)
		w.Ready(w.Start(sim.Shared("d")), 10*time.Minute) // the same call again
		states := w.States()
		if states[store.Ready] != 3 || states[store.Failed] != 1 {
			w.Fatalf("requests are %v, want three ready and one failed", states)
		}
		w.Quiet(3 * time.Hour)
		f := w.Figures.Take()
		for name, want := range map[metrics.Name]float64{metrics.Accepted: 4, metrics.Ready: 3, metrics.Failed: 1, metrics.LaunchErrors: 2} {
			if got := f[name]; len(got) != 1 || got[0] != want {
				w.Errorf("%s = %v, want %v", name, got, want)
			}
		}
		if times := f[metrics.TimeToReady]; len(times) != 3 || times[0] != first.ReadyAt.Sub(first.CreatedAt).Seconds() {
			w.Errorf("times to ready = %v, want three, the first %s", times, first.ReadyAt.Sub(first.CreatedAt))
		}
		w.Healed(time.Now(), 4, nil, w.Alarms())
		w.Check()
	})
}
