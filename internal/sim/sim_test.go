package sim_test

import (
	"slices"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// course returns the effects of a chaotic world.
func course(t *testing.T, seed uint64) (all []string) {
	sim.Run(t, chaosConfig(seed, 15), func(w *sim.World) {
		chaotic(w, seed)
		for _, e := range w.Trace() {
			all = append(all, e.String())
		}
	})
	return all
}

func TestOneSeedHasOneCourse(t *testing.T) {
	t.Parallel()
	want, other := course(t, 1), course(t, 2)
	got := course(t, 1)
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("one seed differs from effect %d on:\n%s\n%s", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("one seed has %d effects, and had %d", len(got), len(want))
	}
	if slices.Equal(want, other) {
		t.Error("two seeds have one course")
	}
}
