package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"
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
	Part string // who makes it
	By   string // the invocation, such as worker-3; empty: Machine, Client and Source have none
	For  string // of API: the call that it answers, in the words of that call's What
	Op   string
	What string // what it is about, in words that are the same whenever the same happens
	On   string // the ids
	At   time.Time
	Fate Fate // in a trace
}

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
	FailLate        // an error that tells nothing, and the effect a minute later; a read or a commit has none
	KillBefore      // no effect, and the invocation is dead
	KillAfter       // the effect, and the invocation is dead
)

// Fates lists those that bring harm.
var Fates = []Fate{FailBefore, FailAfter, KillBefore, KillAfter}

func (f Fate) String() string {
	return [...]string{"Pass", "FailBefore", "FailAfter", "FailLate", "KillBefore", "KillAfter"}[f]
}

// late is how long after its failure an effect of FailLate comes: longer than any
// claim or visibility timeout, so that somebody else goes on meanwhile.
const late = time.Minute

// ErrFault is the failure that a fate brings.
var ErrFault = errors.New("injected fault")

var errDead = errors.New("the invocation is dead")

// do makes one call. It takes its time there and back, unlike that of any other
// call, so that calls overlap as they do in reality and have one order; between
// the two its fate is decided. A caller whose context ends on the way back does
// not learn that the call took effect.
func do[T any](ctx context.Context, w *World, e Effect, call func(context.Context) (T, error)) (T, error) {
	var none T
	inv := invocationOf(ctx)
	if inv != nil {
		e.Part, e.By, e.For = inv.part, inv.name, inv.call
		if inv.returned.Load() {
			w.broken("%s calls %s %s after it returned", e.By, e.Op, e.What)
		}
	}
	there, back := w.latency(e)
	if err := inv.travel(ctx, there); err != nil {
		return none, fmt.Errorf("%s: %w", e.Op, err)
	}
	e = w.number(e)
	fate := w.fate(e)
	if inv.isDead() { // while its fate was thought over
		return none, fmt.Errorf("%s: %w", e.Op, errDead)
	}
	apply := func() (T, error) { return call(context.WithoutCancel(ctx)) }
	fault := fmt.Errorf("%s: %w", e.Op, ErrFault)
	if inv == nil {
		switch fate {
		case KillBefore:
			fate = FailBefore
		case KillAfter:
			fate = FailAfter
		}
	}
	switch fate {
	case KillBefore:
		inv.kill()
		return none, fault
	case KillAfter:
		_, _ = apply() // nobody is left to be told
		inv.kill()
		return none, fault
	case FailBefore:
		return none, errors.Join(fault, inv.travel(ctx, back))
	case FailAfter:
		_, _ = apply()
		return none, errors.Join(fault, inv.travel(ctx, back))
	case FailLate:
		if e.Op != Commit {
			w.wg.Go(func() {
				time.Sleep(late)
				_, _ = apply()
			})
		}
		return none, errors.Join(fault, inv.travel(ctx, back))
	}
	v, err := apply()
	if lost := inv.travel(ctx, back); lost != nil {
		return none, fmt.Errorf("%s: %w", e.Op, lost)
	}
	return v, err
}

// number gives an effect its place in the world, and asks what becomes of it.
func (w *World) number(e Effect) Effect {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects++
	w.ofPart[e.Part]++
	e.N, e.Of, e.At = w.effects, w.ofPart[e.Part], time.Now()
	return e
}

// fate asks what becomes of e, and keeps the trace.
func (w *World) fate(e Effect) Fate {
	if decide := w.decide.Load(); decide != nil {
		e.Fate = (*decide)(e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, e)
	return e.Fate
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
func (w *World) latency(e Effect) (there, back time.Duration) {
	key := e.Part + "|" + e.By + "|" + e.Op + "|" + e.What + "|" + e.On
	w.mu.Lock()
	w.calls[key]++
	n := w.calls[key]
	w.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprintf(h, "%d|%s|%d", w.cfg.Seed, key, n)
	x := h.Sum64()
	x ^= x >> 31 // FNV mixes its upper bits well, and the lower ones less
	x *= 0x9e3779b97f4a7c15
	d := typical[e.Op]
	there = d/4 + time.Duration(x>>32)%(d/2)
	back = d/4 + time.Duration(x&0xffffffff)%(d/2)
	return there, back
}
