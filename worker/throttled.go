package worker

import (
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

const (
	// throttledFor is for how long launches are counted together: a burst at EC2's default
	// pace, of which a worker has a tenth, is 120 launches in that time.
	throttledFor = 10 * time.Minute
	// throttledLeast and throttledPart are how many launches, and one of how many, EC2
	// refuses when people have to look. A pacing that is right has one in fifty refused,
	// since calls meet on their way.
	throttledLeast = 5
	throttledPart  = 5
	// throttledAgain is how long after an alarm the next one may follow: nobody changes a
	// limit of AWS sooner.
	throttledAgain = 6 * time.Hour
)

// throttles counts, for this process alone, the launches that EC2 refused for their pace.
// It is safe for concurrent use.
type throttles struct {
	mu sync.Mutex
	of map[fleet.Place]*throttle
}

// throttle is what was counted in one account and region.
type throttle struct {
	since          time.Time
	calls, refused int
	told           time.Time
}

// count counts a call, and reports how many there were lately and how many of these EC2
// refused, if people have to look at it.
func (t *throttles) count(now time.Time, at fleet.Place, refused bool) (calls, of int, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[fleet.Place]*throttle{}
	}
	c := t.of[at]
	if c == nil {
		c = &throttle{}
		t.of[at] = c
	}
	if now.Sub(c.since) >= throttledFor {
		c.since, c.calls, c.refused = now, 0, 0
	}
	c.calls++
	if !refused {
		return c.calls, c.refused, false
	}
	c.refused++
	tell = c.refused >= throttledLeast && c.refused*throttledPart >= c.calls && (c.told.IsZero() || now.Sub(c.told) >= throttledAgain)
	if tell {
		c.told = now
	}
	return c.calls, c.refused, tell
}
