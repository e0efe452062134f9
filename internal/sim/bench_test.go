package sim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// inTest runs f as a test of its own, once: a bubble of fake time needs one.
func inTest(b *testing.B, f func(t *testing.T)) {
	b.Helper()
	done := false
	all := func(string, string) (bool, error) { return true, nil }
	ok := testing.RunTests(all, []testing.InternalTest{{Name: b.Name(), F: func(t *testing.T) {
		if !done { // -count is for the benchmark
			done = true
			f(t)
		}
	}}})
	if !ok {
		b.FailNow()
	}
}

// BenchmarkWorld tells the shortest story: one request, one machine, one job, and
// the end of all.
func BenchmarkWorld(b *testing.B) {
	effects, virtual, n := 0, time.Duration(0), uint64(0)
	for b.Loop() {
		n++
		inTest(b, func(t *testing.T) {
			sim.Run(t, sim.Config{Seed: n}, func(w *sim.World) {
				began := time.Now()
				ephemeral(w)
				effects += len(w.Trace())
				virtual += time.Since(began)
			})
		})
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "worlds/s")
	b.ReportMetric(float64(effects)/float64(n), "effects/world")
	b.ReportMetric(virtual.Seconds()/b.Elapsed().Seconds(), "virtual-s/s")
}

// BenchmarkChaos tells ten minutes in which much goes wrong, and their end.
func BenchmarkChaos(b *testing.B) {
	effects, n := 0, uint64(0)
	for b.Loop() {
		n++
		inTest(b, func(t *testing.T) {
			sim.Run(t, chaosConfig(n, 15), func(w *sim.World) {
				chaotic(w, n)
				w.Quiet(26 * time.Hour)
				effects += len(w.Trace())
			})
		})
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "worlds/s")
	b.ReportMetric(float64(effects)/float64(n), "effects/world")
}

// BenchmarkSharers has many requests share one live runner at once.
func BenchmarkSharers(b *testing.B) {
	for _, sharing := range []int{50, 200} {
		b.Run(fmt.Sprint(sharing), func(b *testing.B) {
			commits, conflicts, n := 0, 0, 0
			var took time.Duration
			for b.Loop() {
				n++
				inTest(b, func(t *testing.T) {
					done, lost, d := sharers(t, sharing)
					commits, conflicts, took = commits+done, conflicts+lost, took+d
				})
			}
			shares := float64(n * sharing)
			b.ReportMetric(float64(commits)/shares, "commits/share")
			b.ReportMetric(float64(conflicts)/shares, "conflicts/share")
			b.ReportMetric(took.Seconds()/float64(n), "virtual-s-until-ready")
		})
	}
}
