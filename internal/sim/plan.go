package sim

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Kind is a kind of fault.
type Kind string

// plan is all that one seed decides: what is asked for, what goes wrong, and when.
// Every decision is a hash of the seed and of words that say what is decided, so
// that one that is left out changes no other.
type plan struct {
	seed uint64
	only map[string]bool // the faults and requests that alone there are; nil: all

	mu       sync.Mutex
	met      []string        // those that there were, in order
	known    map[string]bool // the same
	counts   map[Kind]int
	launches []fleet.Launch // that were asked of EC2
	sleeper  atomic.Bool    // whether the next machine never boots
	asked    atomic.Int64   // how many requests were asked for
}

func newPlan(seed uint64, only []string) *plan {
	p := &plan{seed: seed, counts: map[Kind]int{}, known: map[string]bool{}}
	if only != nil {
		p.only = map[string]bool{}
		for _, f := range only {
			p.only[f] = true
		}
	}
	return p
}

// draw returns a number that the seed and the words decide.
func (p *plan) draw(words ...string) uint64 { return hash64(p.seed, words...) }

// chance is true in so many of a thousand seeds.
func (p *plan) chance(perMille uint64, words ...string) bool {
	return p.draw(words...)%1000 < perMille
}

// between returns a time from lo to hi, to the microsecond and odd, so that it is
// no time of anything else.
func (p *plan) between(lo, hi time.Duration, words ...string) time.Duration {
	x := p.draw(words...)
	d := lo + time.Duration(x%uint64(max(1, (hi-lo)/time.Microsecond)))*time.Microsecond
	return d + time.Duration(x>>40%499)*2 + 1
}

// oneOf returns one of the values.
func oneOf[T any](p *plan, values []T, words ...string) T {
	return values[p.draw(words...)%uint64(len(values))]
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

// The kinds that are fates of an effect.
var kindOf = map[Fate]Kind{
	FailBefore: "call fails without effect",
	FailAfter:  "answer lost",
	FailLate:   "effect late",
	KillBefore: "killed before a call",
	KillAfter:  "killed after a call",
	Pause:      "pause",
	Twice:      "call repeated",
	Throttle:   "throttled",
	Refuse:     "refused",
	Hold:       "message delayed",
}

// reads says whether an operation changes nothing.
func reads(op string) bool {
	switch op {
	case Get, Due, List, Image, ByToken, Find:
		return true
	}
	return false
}

// suits says whether a fate can come to an effect.
func suits(f Fate, e *Effect) bool {
	invoked := e.Part == API || e.Part == Worker || e.Part == Reaper
	switch f {
	case KillBefore, KillAfter:
		return invoked
	case FailLate:
		return !reads(e.Op)
	case Twice:
		return !reads(e.Op)
	case Throttle:
		return e.To == ToEC2 || e.To == ToGitHub || e.To == ToStore
	case Refuse:
		return e.To == ToEC2 || e.To == ToGitHub
	case Hold:
		return e.Op == Send
	}
	return true
}

// fates returns what decides the fate of effects until the world heals.
func (p *plan) fates(heals time.Time) func(Effect) Fate {
	rate := oneOf(p, []uint64{0, 10, 30, 60, 150}, "rate of fates")
	on := map[Fate]bool{}
	for f := FailBefore; f <= Hold; f++ {
		if p.chance(500, "fate", f.String()) {
			on[f] = true
		}
	}
	outage, network := p.outages(), p.networks()
	return func(e Effect) Fate {
		if !e.At.Before(heals) {
			return Pass
		}
		if f := network(&e); f != Pass {
			return f
		}
		if f := outage(&e); f != Pass {
			return f
		}
		if f := p.atTheWrongTime(&e); f != Pass {
			return f
		}
		if rate == 0 || len(on) == 0 {
			return Pass
		}
		x := hash64(p.seed, "fate", e.Part, e.For, e.Op, e.What, strconv.Itoa(e.Nth))
		often := rate
		if e.What == "event heartbeat" || e.For == "event heartbeat" || e.What == "GET status" || e.For == "GET status" {
			often = rate/8 + 1 // there are very many, and each means little
		}
		if x%1000 >= often {
			return Pass
		}
		var fit []Fate
		for f := FailBefore; f <= Hold; f++ {
			if on[f] && suits(f, &e) {
				fit = append(fit, f)
			}
		}
		if len(fit) == 0 {
			return Pass
		}
		f := fit[(x>>20)%uint64(len(fit))]
		if f == Refuse && (x>>40)%4 != 0 {
			return Pass // most of what is refused is over at once
		}
		if !p.happens(kindOf[f], e.Name()+" #"+strconv.Itoa(e.Nth)) {
			return Pass
		}
		return f
	}
}

// atTheWrongTime brings to an effect what a theme is about: in a burst, whoever
// has decided to share a runner stands still before he says so; in a world that is
// starved, launches have all kinds of answers, and none.
func (p *plan) atTheWrongTime(e *Effect) Fate {
	x := hash64(p.seed, "wrong time", e.Name(), strconv.Itoa(e.Nth))
	f := Pass
	switch {
	case p.theme() == burst && e.Part == Worker && e.Op == Commit && e.What == "request ready" && x%1000 < 300:
		f = Pause
	case p.theme() == starved && e.Op == Launch && p.chance(250, "no launches") && e.At.Before(epoch.Add(9*time.Minute)):
		f = FailBefore // until after the machine's time to boot
	case p.theme() == starved && e.Op == Launch && x%1000 < 250:
		f = []Fate{FailBefore, FailAfter, FailLate, Throttle, Throttle, Refuse, KillAfter, Pause}[(x>>20)%8]
	}
	if f == Pass || !p.happens(kindOf[f], e.Name()+" #"+strconv.Itoa(e.Nth)) {
		return Pass
	}
	return f
}

// span says how long the fate of an effect takes.
func (p *plan) span(e Effect) time.Duration {
	at := []string{"span", e.Name(), strconv.Itoa(e.Nth)}
	switch {
	case e.Fate == Hold && p.draw(append(at, "long")...)%4 == 0:
		return p.between(10*time.Minute, time.Hour, at...)
	case e.Fate == Hold:
		return p.between(time.Second, 5*time.Minute, at...)
	case e.Fate == FailLate && e.Op == Commit:
		return p.between(10*time.Millisecond, 10*time.Second, at...)
	case e.Fate == FailLate:
		return p.between(time.Second, 90*time.Second, at...)
	case p.draw(append(at, "long")...)%8 == 0:
		return p.between(30*time.Second, 100*time.Second, at...)
	}
	return p.between(100*time.Millisecond, 30*time.Second, at...)
}
