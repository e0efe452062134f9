// Package kernel is the virtual time of a simulated world and what happens in it.
//
// Every call that a part makes of what is around it is an Effect, made by Do. It
// takes a time of its own, so that no two things happen at once, and has a Fate: it
// fails with or without having happened, or its Invocation dies there. All
// randomness comes from the seed: one seed has one course of effects. A Gate holds
// effects until somebody lets them go, one after another.
package kernel

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what decides the course of a world's effects.
type Config struct {
	Seed uint64
	// Span says how long a FailLate, a Pause or a Hold takes; nil: a minute.
	Span func(Effect) time.Duration
	// Most is the number of effects at which the Watcher hears of a restless
	// world; 0: there is none.
	Most int
	// Skew is by how much the clock of a part is ahead.
	Skew map[string]time.Duration
	// KillLate is how long after its deadline an invocation is killed.
	KillLate time.Duration
	// Gate, unless it is nil, holds effects.
	Gate *Gate
}

// Watcher hears what befalls those who make effects. It is called without any
// lock of the kernel.
type Watcher interface {
	// Calls hears of each effect of an invocation, which has returned or not.
	Calls(e *Effect, returned bool)
	// Stands hears that the caller of an effect stands still for a while.
	Stands(e *Effect, d time.Duration)
	// Killed hears that the caller of an effect was killed there.
	Killed(e *Effect)
	// Restless hears that a world has more effects than it may.
	Restless(effects int)
}

// Kernel is the course of one world. Make it with New.
type Kernel struct {
	// Watcher has to be set before anything happens.
	Watcher Watcher

	cfg    Config
	decide atomic.Pointer[func(Effect) Fate]
	wg     sync.WaitGroup
	onWay  atomic.Int64 // calls that no gate holds

	mu      sync.Mutex // guards what follows
	effects int
	ofPart  map[string]int
	ofName  map[uint64]int
	calls   map[uint64]int // for latency
	counts  map[string]int
	trace   []*Effect
}

// New returns a kernel in which nothing has happened.
func New(cfg Config) *Kernel {
	return &Kernel{cfg: cfg, ofPart: map[string]int{}, ofName: map[uint64]int{}, calls: map[uint64]int{}, counts: map[string]int{}}
}

// SetFate changes what decides the fate of effects from now on; nil: all pass. It is
// called without any lock, on the goroutine of the caller, whom it may keep waiting.
func (k *Kernel) SetFate(decide func(Effect) Fate) {
	if decide == nil {
		k.decide.Store(nil)
		return
	}
	k.decide.Store(&decide)
}

// Go runs f beside everything else. Wait waits for all of them.
func (k *Kernel) Go(f func()) { k.wg.Go(f) }

// Wait waits until everything that Go began is done.
func (k *Kernel) Wait() { k.wg.Wait() }

// UnderWay returns how many calls are being made that no gate holds.
func (k *Kernel) UnderWay() int { return int(k.onWay.Load()) }

// Clock returns the clock of a part.
func (k *Kernel) Clock(part string) func() time.Time {
	return func() time.Time { return time.Now().Add(k.cfg.Skew[part]) }
}

// KillLate is how long after its deadline an invocation is killed.
func (k *Kernel) KillLate() time.Duration { return k.cfg.KillLate }

// Count returns 1 for the first call with a name, 2 for the second, and so on.
func (k *Kernel) Count(name string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts[name]++
	return k.counts[name]
}

// Trace returns the effects so far.
func (k *Kernel) Trace() []Effect {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]Effect, len(k.trace))
	for i, e := range k.trace {
		out[i] = *e
	}
	return out
}

// Remark puts into the trace what no part did.
func (k *Kernel) Remark(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trace = append(k.trace, &Effect{N: k.effects, Part: "world", Op: fmt.Sprintf(format, args...), At: time.Now()})
}

// Changed notes what an effect changed in the records.
func (k *Kernel) Changed(e *Effect, what []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.Change = append(e.Change, what...)
}

// number gives an effect its place in the world.
func (k *Kernel) number(e *Effect) {
	k.mu.Lock()
	k.effects++
	n := k.effects
	k.ofPart[e.Part]++
	name := Hash(0, e.Part, e.For, e.Op, e.What)
	k.ofName[name]++
	e.N, e.Of, e.Nth, e.At = n, k.ofPart[e.Part], k.ofName[name], time.Now()
	k.trace = append(k.trace, e)
	k.mu.Unlock()
	if n == k.cfg.Most {
		k.Watcher.Restless(n)
	}
}

// fate asks what becomes of e.
func (k *Kernel) fate(e *Effect) Fate {
	decide := k.decide.Load()
	if decide == nil {
		return Pass
	}
	f := (*decide)(*e)
	k.fated(e, f)
	return f
}

// fated notes the fate of e.
func (k *Kernel) fated(e *Effect, f Fate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.Fate = f
}

// Span returns how long the fate of e takes: without another word for longer than
// any claim or visibility timeout, so that another invocation continues meanwhile.
func (k *Kernel) Span(e *Effect) time.Duration {
	if k.cfg.Span == nil {
		return time.Minute
	}
	return k.cfg.Span(*e)
}

// typical is how long a call usually takes, both ways.
var typical = map[string]time.Duration{
	Get: 6 * time.Millisecond, Commit: 10 * time.Millisecond, Due: 15 * time.Millisecond, List: 100 * time.Millisecond, Count: 15 * time.Millisecond,
	Send: 10 * time.Millisecond, Delete: 100 * time.Millisecond, Image: 50 * time.Millisecond, Root: 200 * time.Millisecond, Types: time.Second, Launch: 1500 * time.Millisecond,
	ByToken: 150 * time.Millisecond, Console: 150 * time.Millisecond, Terminate: 300 * time.Millisecond, Mint: 400 * time.Millisecond, Find: 150 * time.Millisecond,
	TakeOn: 100 * time.Millisecond, Strangers: 150 * time.Millisecond, Vet: 400 * time.Millisecond, AMI: 200 * time.Millisecond, Subnets: 300 * time.Millisecond,
	Call: 20 * time.Millisecond,
}

// latency returns how long a call takes there and back: from half to one and a
// half of what is typical, to the nanosecond, by the seed, who makes the call and
// what it is about.
func (k *Kernel) latency(e *Effect) (there, back time.Duration) {
	key := Hash(k.cfg.Seed, e.Part, e.By, e.Op, e.What, e.On)
	k.mu.Lock()
	k.calls[key]++
	n := k.calls[key]
	k.mu.Unlock()
	x := mix(key + uint64(n)*0x9e3779b97f4a7c15)
	d := typical[e.Op]
	there = d/4 + time.Duration(x>>32)%(d/2)
	back = d/4 + time.Duration(x&0xffffffff)%(d/2)
	return there, back
}

// Random returns a source of randomness that depends on the seed and the name.
func (k *Kernel) Random(name string) io.Reader {
	return &source{seed: k.cfg.Seed, name: name, r: rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %s", k.cfg.Seed, name)))}
}

// source is a random source that is safe for concurrent use.
type source struct {
	seed uint64
	name string
	mu   sync.Mutex
	r    *rand.ChaCha8
}

// Read implements io.Reader; it never fails. What is as short as a number is a pause: two
// that begin it at one moment get the same, so that nothing depends on who comes first.
func (s *source) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) > pauseSize {
		return s.r.Read(b)
	}
	var h [pauseSize]byte
	binary.BigEndian.PutUint64(h[:], Hash(s.seed, s.name, strconv.FormatInt(time.Now().UnixNano(), 10)))
	return copy(b, h[:]), nil
}

// pauseSize is how many random bytes a pause is made of, in all parts.
const pauseSize = 8

// Hash is FNV-1a over the words, from a seed on, with its bits mixed.
func Hash(seed uint64, words ...string) uint64 {
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
