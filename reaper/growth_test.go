package reaper_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
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
			if got, want := c.count()["get"], 4*n/100+4; got > want {
				t.Errorf("a run over %d runners made %d reads, want at most %d", n, got, want)
			}
		})
	}
}

func TestFiveThousandRunnersAtTheirHardLimitEndInTwoPeriods(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 5000
		w.fleet.page = 1000
		hard := time.Now().Add(30 * time.Minute)
		w.crowd(n, func(r *store.Runner) { r.Hard = hard })
		w.run0()
		time.Sleep(time.Until(hard))
		c, was := &clock{takes: typicalCall}, w.config
		w.config.Store, w.config.Fleet, w.config.GitHub, w.config.Queue = timedStore{w.store, c}, timedFleet{w.fleet, c}, timedHub{w.hub, c}, timedQueue{w.queue, c}
		// What GitHub grants a credential at once, and never more.
		deletes := map[int64]int{}
		w.hub.fail = func(op string, _ github.Scope, _ int64) error {
			minute := int64(time.Since(hard) / time.Minute)
			if op == "delete" || op == "get" {
				w.hub.mu.Lock()
				defer w.hub.mu.Unlock()
				if deletes[minute]++; deletes[minute] > 60 {
					return &github.Error{Kind: github.ErrLimited, Op: op}
				}
			}
			return nil
		}
		live := n + 1
		for range 3 { // at the limit, and in the two periods after it
			time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
			r, err := w.try()
			if err != nil {
				t.Errorf("Run = %v, want no error", err)
			}
			t.Logf("%s after the limit: %s late %v, left %v, %v", time.Since(hard), r.EndedAt.Sub(r.StartedAt), r.Late, r.Left, r.Counts)
			w.fleet.settle()
		}
		w.config = was
		if live = w.live(); live > 1 || w.fleet.running() > 1 {
			t.Errorf("%d runners live and %d machines run two periods after the hard limit, want all ended", live, w.fleet.running())
		}
	})
}
