package promise

import (
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about metrics.
const (
	CountedOnce Promise = "what a commit makes happen is counted once at most"
	CountedAll  Promise = "where no answer was lost, all that happened is counted"
)

// countPromises are about what is counted.
type countPromises struct{ *History }

// counts is what was committed and not counted yet, by metric. It outlives the table.
type counts struct {
	owed map[metrics.Name]int
	lost bool // the answer of a commit was lost, so that nobody counts it
}

// sawCounts restates what a commit makes happen.
func (p countPromises) sawCounts(c commit) {
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Request:
			was := p.requests[i.ID].State
			switch fresh := i.Version == 1; {
			case fresh && i.State == store.Accepted:
				p.counts.owed[metrics.Accepted]++
			case fresh && i.State == store.Ready: // its job began before it had a record
				p.counts.owed[metrics.Accepted]++
				p.counts.owed[metrics.Ready]++
			case fresh || was != store.Accepted && was != store.Waiting:
			case i.State == store.Ready:
				p.counts.owed[metrics.Ready]++
				p.counts.owed[metrics.TimeToReady]++
			case i.State == store.Failed || i.State == store.Expired:
				p.counts.owed[metrics.Failed]++
			}
		case *store.Runner:
			for _, a := range i.Attempts[len(p.runners[i.ID].Attempts):] {
				if a.Code != "launched" {
					p.counts.owed[metrics.LaunchErrors]++
				}
			}
		}
	}
}

// Counted looks at what a part counts.
func (p countPromises) Counted(f metrics.Figures) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range []metrics.Name{metrics.Accepted, metrics.Ready, metrics.Failed, metrics.LaunchErrors, metrics.TimeToReady} {
		n := len(f[name])
		if name != metrics.TimeToReady && n > 0 {
			n = int(f[name][0])
		}
		p.counts.owed[name] -= n
		p.hold(CountedOnce, p.counts.owed[name] >= 0, "%s is counted %d times more than it happened", name, -p.counts.owed[name])
	}
}

// Unanswered notes that the answer of a commit was lost.
func (p countPromises) Unanswered() { p.note(func() { p.counts.lost = true }) }

// sawAllCounted looks at the counts of a world that has come to rest.
func (p countPromises) sawAllCounted() {
	for name, n := range p.counts.owed {
		p.hold(CountedAll, n == 0 || p.counts.lost, "%s happened %d times more than it is counted, and no answer was lost", name, n)
	}
}
