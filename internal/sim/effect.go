package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// The parts of a world, as effects name those who make calls.
const (
	API     = "api"
	Worker  = "worker"
	Reaper  = "reaper"
	Machine = "machine" // an agent
	Client  = "client"  // a caller
	Source  = "source"  // what hands the queue's messages to workers, as Lambda's event source does
)

// The operations of an effect.
const (
	Get    = "get" // of items; of instances; of a registration
	Commit = "commit"
	Due    = "due"
	List   = "list"

	Send   = "send"
	Delete = "delete" // of a message; of a registration

	Image     = "image"
	Launch    = "launch"
	ByToken   = "by token"
	Terminate = "terminate"

	Mint = "mint"
	Find = "find"

	Call = "call" // of the API
)

// Effect is one call that a part of GARO makes of what is around it: the store,
// the queue, EC2, GitHub or, over the network, the API.
type Effect struct {
	N    int    // counts the effects of the world, from 1
	Of   int    // counts those of its Part, from 1
	Nth  int    // counts those of its Name, from 1
	Part string // who makes it
	By   string // the invocation, such as worker-3; empty: Machine, Client and Source have none
	For  string // of API: the call that it answers, in the words of that call's What
	Op   string
	What string // what it is about, in words that are the same whenever the same happens
	On   string // the ids
	To   string // who is called: one of the To constants
	At   time.Time
	Fate Fate // in a trace
	// Change is what it changed in the records, in a trace, such as
	// "request 1f waiting to ready".
	Change string

	fated func() // called once its fate is known, before anything else; nil: nothing
}

// Whom an effect calls.
const (
	ToStore  = "store"
	ToQueue  = "queue"
	ToEC2    = "ec2"
	ToGitHub = "github"
	ToSSM    = "ssm"
	ToAPI    = "api"
)

// Name tells which step it is, in every world in which the same happens.
func (e Effect) Name() string {
	s := e.Part + " "
	if e.For != "" {
		s += e.For + ": "
	}
	return s + e.Op + " " + e.What
}

func (e Effect) String() string {
	s := fmt.Sprintf("%4d %s %-10s %s %s", e.N, e.At.Format("15:04:05.000000"), e.By, e.Name(), e.On)
	if e.Fate != Pass {
		s += " -> " + e.Fate.String()
	}
	if e.Change != "" {
		s += "  [" + e.Change + "]"
	}
	return s
}

// Fate is what becomes of an effect.
type Fate int

// The fates. A kill is the end of the invocation: whatever it still calls is
// refused without effect, and what it logs is lost. Who is no invocation cannot be
// killed: its call fails.
const (
	Pass       Fate = iota
	FailBefore      // no effect, and an error that tells nothing
	FailAfter       // the effect, and an error that tells nothing
	FailLate        // an error that tells nothing, and the effect later; a read has none
	KillBefore      // no effect, and the invocation is dead
	KillAfter       // the effect, and the invocation is dead
	Pause           // the caller stands still for a while, and then goes on
	Twice           // the effect twice: what came between repeated the call
	Throttle        // no effect, and an answer that says to come again later
	Refuse          // of EC2 and GitHub: no effect, and an answer that says that it may not be
	Hold            // of a message: it comes much later
)

// Fates lists those that bring harm to a step.
var Fates = []Fate{FailBefore, FailAfter, KillBefore, KillAfter}

func (f Fate) String() string {
	return [...]string{"Pass", "FailBefore", "FailAfter", "FailLate", "KillBefore", "KillAfter",
		"Pause", "Twice", "Throttle", "Refuse", "Hold"}[f]
}

// late is how long after its failure an effect of FailLate comes, if nothing else
// is said: longer than any claim or visibility timeout, so that somebody else goes
// on meanwhile.
const late = time.Minute

// span returns how long the fate of e takes.
func (w *World) span(e *Effect) time.Duration {
	if w.cfg.Span == nil {
		return late
	}
	return w.cfg.Span(*e)
}

// ErrFault is the failure that a fate brings.
var ErrFault = errors.New("injected fault")

var errDead = errors.New("the invocation is dead")

// do makes one call. It takes its time there and back, unlike that of any other
// call, so that calls overlap as they do in reality and have one order; between
// the two its fate is decided. A caller whose context ends on the way back does
// not learn that the call took effect.
func do[T any](ctx context.Context, w *World, e *Effect, call func(context.Context) (T, error)) (T, error) {
	var none T
	inv := invocationOf(ctx)
	if inv != nil {
		e.Part, e.By, e.For = inv.part, inv.name, inv.call
		w.mu.Lock()
		w.hold(Goroutines, !inv.returned.Load(), "%s calls %s %s after it returned", e.By, e.Op, e.What)
		w.mu.Unlock()
	}
	if w.cfg.gate.holds() {
		return gated(ctx, w, inv, e, call)
	}
	there, back := w.latency(e)
	if err := inv.travel(ctx, there); err != nil {
		return none, fmt.Errorf("%s: %w", e.Op, err)
	}
	w.number(e)
	fate := w.fate(e)
	if e.fated != nil {
		e.fated()
	}
	if inv == nil {
		switch fate {
		case KillBefore:
			fate = FailBefore
		case KillAfter:
			fate = FailAfter
		}
	}
	if fate == Pause {
		w.slowed(e, w.span(e))
		inv.stand(w.span(e))
	}
	if inv.isDead() { // while its fate was thought over
		return none, fmt.Errorf("%s: %w", e.Op, errDead)
	}
	apply := func() (T, error) { return call(context.WithoutCancel(ctx)) }
	fault := fmt.Errorf("%s: %w", e.Op, ErrFault)
	switch fate {
	case KillBefore:
		w.killed(inv, e)
		return none, fault
	case KillAfter:
		_, _ = apply() // nobody is left to be told
		w.killed(inv, e)
		return none, fault
	case FailBefore:
		return none, errors.Join(fault, inv.travel(ctx, back))
	case Throttle, Refuse:
		if err := inv.travel(ctx, back); err != nil {
			return none, errors.Join(fault, err)
		}
		return none, refusal(e, fate, fault)
	case FailAfter:
		_, _ = apply()
		return none, errors.Join(fault, inv.travel(ctx, back))
	case FailLate:
		wait := w.span(e)
		w.wg.Go(func() {
			time.Sleep(wait)
			_, _ = apply()
		})
		return none, errors.Join(fault, inv.travel(ctx, back))
	case Twice:
		_, _ = apply()
		time.Sleep(time.Nanosecond) // who waits for it gets to run now, or not: always
	}
	v, err := apply()
	if lost := inv.travel(ctx, back); lost != nil {
		return none, fmt.Errorf("%s: %w", e.Op, lost)
	}
	return v, err
}

// refusal is the answer that Throttle and Refuse bring.
func refusal(e *Effect, fate Fate, fault error) error {
	switch {
	case e.To == ToEC2 && fate == Throttle:
		return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}
	case e.To == ToEC2:
		return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized to perform this operation."}
	case e.To == ToGitHub && fate == Throttle:
		return &github.Error{Kind: github.ErrLimited, Op: e.Op, RetryAt: time.Now().Add(limited)}
	case e.To == ToGitHub:
		return &github.Error{Kind: github.ErrDenied, Op: e.Op}
	}
	return fault
}

// limited is for how long GitHub asks to wait: what it says itself when it names
// no time (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
const limited = time.Minute

// number gives an effect its place in the world.
func (w *World) number(e *Effect) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects++
	w.ofPart[e.Part]++
	name := hash64(0, e.Part, e.For, e.Op, e.What)
	w.ofName[name]++
	e.N, e.Of, e.Nth, e.At = w.effects, w.ofPart[e.Part], w.ofName[name], time.Now()
	w.trace = append(w.trace, e)
	if w.effects == w.cfg.Most {
		w.hold(Rest, false, "the world has %d effects, and does not come to rest", w.effects)
	}
}

// fate asks what becomes of e.
func (w *World) fate(e *Effect) Fate {
	decide := w.decide.Load()
	if decide == nil {
		return Pass
	}
	f := (*decide)(*e)
	w.mu.Lock()
	defer w.mu.Unlock()
	e.Fate = f
	return f
}

// typical is how long a call usually takes, both ways.
var typical = map[string]time.Duration{
	Get: 6 * time.Millisecond, Commit: 10 * time.Millisecond, Due: 15 * time.Millisecond, List: 100 * time.Millisecond,
	Send: 10 * time.Millisecond, Delete: 100 * time.Millisecond, Image: 50 * time.Millisecond, Launch: 1500 * time.Millisecond,
	ByToken: 150 * time.Millisecond, Terminate: 300 * time.Millisecond, Mint: 400 * time.Millisecond, Find: 150 * time.Millisecond,
	Call: 20 * time.Millisecond,
}

// latency returns how long a call takes there and back: from half to one and a
// half of what is typical, to the nanosecond, by the seed, who makes the call and
// what it is about.
func (w *World) latency(e *Effect) (there, back time.Duration) {
	key := hash64(w.cfg.Seed, e.Part, e.By, e.Op, e.What, e.On)
	w.mu.Lock()
	w.calls[key]++
	n := w.calls[key]
	w.mu.Unlock()
	x := mix(key + uint64(n)*0x9e3779b97f4a7c15)
	d := typical[e.Op]
	there = d/4 + time.Duration(x>>32)%(d/2)
	back = d/4 + time.Duration(x&0xffffffff)%(d/2)
	return there, back
}

// hash64 is FNV-1a over the words, from a seed on, with its bits mixed.
func hash64(seed uint64, words ...string) uint64 {
	h := uint64(14695981039346656037) ^ mix(seed)
	for _, s := range words {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211 // the end of a word
	}
	return mix(h)
}

// mix is the last step of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
