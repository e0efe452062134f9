// Package plan draws random worlds: one seed decides what is asked for, what goes
// wrong, and when. Every decision is a hash of the seed and of words that say what is
// decided, so that one that is left out changes no other. Play plays the world of a
// seed, Shrink leaves out what a breach does not need, and Figures sums up many.
package plan

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// Kind is a kind of fault.
type Kind string

// dice are the decisions of a seed.
type dice struct{ seed uint64 }

// draw returns a number that the seed and the words decide.
func (d dice) draw(words ...string) uint64 { return kernel.Hash(d.seed, words...) }

// chance is true in so many of a thousand seeds.
func (d dice) chance(perMille uint64, words ...string) bool {
	return d.draw(words...)%1000 < perMille
}

// between returns a time from lo to hi, to the microsecond and odd, so that it is
// no time of anything else.
func (d dice) between(lo, hi time.Duration, words ...string) time.Duration {
	x := d.draw(words...)
	return lo + time.Duration(x%uint64(max(1, (hi-lo)/time.Microsecond)))*time.Microsecond + time.Duration(x>>40%499)*2 + 1
}

// oneOf returns one of the values.
func oneOf[T any](d dice, values []T, words ...string) T {
	return values[d.draw(words...)%uint64(len(values))]
}

// plan is all that one seed decides.
type plan struct {
	dice
	only map[string]bool // the faults and requests that alone there are; nil: all

	mu       sync.Mutex
	met      []string        // those that there were, in order
	known    map[string]bool // the same
	counts   map[Kind]int
	launches []fleet.Launch // that were asked of EC2
	sleeper  atomic.Bool    // whether the next machine never boots
}

func newPlan(seed uint64, only []string) *plan {
	p := &plan{dice: dice{seed}, counts: map[Kind]int{}, known: map[string]bool{}}
	if only != nil {
		p.only = map[string]bool{}
		for _, f := range only {
			p.only[f] = true
		}
	}
	return p
}

// happens says whether a fault that the seed decided on is to be, and notes it. The
// address names it in every play of the seed.
func (p *plan) happens(kind Kind, address string) bool {
	if !p.has(kind, address) {
		return false
	}
	p.again(kind)
	return true
}

// has is happens of what is no fault, and is not counted.
func (p *plan) has(kind Kind, address string) bool {
	name := string(kind) + ": " + address
	if p.only != nil && !p.only[name] {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known[name] {
		p.known[name] = true
		p.met = append(p.met, name)
	}
	return true
}

// again counts one more occurrence of a fault that happens.
func (p *plan) again(kind Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[kind]++
}

// heals is when things stop going wrong.
func (p *plan) heals() time.Time { return setting.Epoch.Add(p.healsAfter()) }

// healsAfter is how long things go wrong.
func (p *plan) healsAfter() time.Duration {
	switch p.theme() {
	case oneKey:
		return p.between(12*time.Minute, 16*time.Minute, "heals")
	case starved:
		return p.between(7*time.Minute, 11*time.Minute, "heals")
	}
	return p.between(3*time.Minute, 10*time.Minute, "heals")
}

// A theme is what a world is mostly about.
const (
	mixed   = iota // whatever comes
	oneKey         // one runner that is shared again and again, up to its hard limit
	burst          // many requests for one runner within half a minute
	starved        // many requests for many runners, of which EC2 gives few, and slowly
)

func (p *plan) theme() int {
	return oneOf(p.dice, []int{mixed, mixed, mixed, oneKey, burst, starved}, "theme")
}
