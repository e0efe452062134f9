package reaper_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRunMeasuresWhatStands(t *testing.T) {
	inWorld(t, func(w *world) {
		if got := w.run().Figures(); !cmp.Equal(got, metrics.Figures{metrics.Live: {0}, metrics.OldestWait: {0}, metrics.Orphans: {0}, metrics.Brake: {0}}) {
			t.Errorf("figures of an empty world = %v, want zeros", got)
		}
		w.ghosts(store.BrakeAbove + 2)
		w.minutes(30)
		w.online("one")
		w.online("two")
		over := w.online("over")
		over.State, over.DueAt = store.RunnerEnded, time.Now() // with a name left to forget
		w.put(&over)
		w.accept("held", func(q *store.Request) { q.Wait = store.WaitHeld })
		w.accept("old")
		time.Sleep(20 * time.Second)
		w.accept("young")
		want := metrics.Figures{metrics.Live: {2}, metrics.OldestWait: {20}, metrics.Orphans: {store.BrakeAbove + 2}, metrics.Brake: {1}}
		first, err1 := reaper.New(w.config).RunShard(w.t.Context(), reaper.Shard{Index: 0, Of: 2})
		second, err2 := reaper.New(w.config).RunShard(w.t.Context(), reaper.Shard{Index: 1, Of: 2})
		got := metrics.Figures{}
		for name := range want {
			sum := first.Figures()[name]
			for i, v := range second.Figures()[name] {
				if len(sum) == 0 {
					sum = []float64{0}
				}
				sum[i] += v
			}
			got[name] = sum
		}
		got[metrics.OldestWait] = []float64{max(first.Figures()[metrics.OldestWait][0], second.Figures()[metrics.OldestWait][0])}
		if diff := cmp.Diff(want, got); diff != "" || err1 != nil || err2 != nil {
			t.Errorf("two shards %v, %v measure (-want +got):\n%s", err1, err2, diff)
		}
	})
}

// A run that had no time for something says nothing of it, rather than zero.
func TestRunWithoutTimeMeasuresNoSweeps(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	late := reaper.Report{StartedAt: began, Live: 3, Left: map[string]int{"ends": 4, "sweeps": 1}}
	if diff := cmp.Diff(metrics.Figures{metrics.Live: {7}, metrics.OldestWait: {0}}, late.Figures()); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	if got := (reaper.Report{}).Figures(); len(got) != 0 {
		t.Errorf("figures of a run that did not begin = %v, want none", got)
	}
}
