package reaper_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// DynamoDB, EC2, GitHub and SQS all answer within this time, in the table of what bounds
// the fleet: more than their medians, which are 5 to 300 ms.
const typicalCall = 50 * time.Millisecond

// docs/performance.md has what the same test says of 10,000 and 50,000.
func TestRunReadsFourItemsOfEachRunnerAHundredAtATime(t *testing.T) {
	for _, n := range []int{1000, 4000} {
		inWorld(t, func(w *world) {
			w.fleet.page = 1000
			w.crowd(n, func(r *store.Runner) { r.OnlineAt = time.Now() })
			w.run0()
			c, was := &clock{takes: typicalCall}, w.config
			w.config.Store, w.config.Fleet = timedStore{w.store, c}, timedFleet{w.fleet, c}
			began := time.Now()
			r := w.run()
			w.config = was
			took := time.Since(began)
			t.Logf("%d runners: %d rounds, %s, %v", n, c.rounds(), took, c.count())
			if r.Late || took > time.Duration(n)*time.Millisecond/2 {
				t.Errorf("a run over %d runners took %s, late %v; want at most half a millisecond for each", n, took, r.Late)
			}
			if got, want := c.count()["get"], 4*n/100+3; got > want {
				t.Errorf("a run over %d runners made %d reads, want at most %d", n, got, want)
			}
		})
	}
}
