package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Gate holds effects until they are let go, and remembers what each part was
// answered: all that a part is about to do follows from that. Make it with NewGate.
type Gate struct {
	holding atomic.Bool
	came    chan struct{} // has a token when something came that was not looked at

	mu    sync.Mutex
	shut  bool // the world ends: nothing continues
	all   []*Parked
	knows map[string]*knowledge // by part
	sends uint64                // what was put into the queue and taken out of it
	sent  []queue.Message       // different ones
}

// NewGate returns a gate that holds nothing until Close.
func NewGate() *Gate { return &Gate{knows: map[string]*knowledge{}} }

// knowledge is what a part was answered. What it does side by side has no order.
type knowledge struct {
	inv *Invocation
	sum uint64
	nth map[uint64]int
}

// Parked is an effect that waits to be let go.
type Parked struct {
	Name   string
	Effect *Effect

	inv  *Invocation
	fate chan Fate
}

// Mortal reports whether an invocation makes the effect, which can be killed.
func (p *Parked) Mortal() bool { return p.inv != nil }

// nameOf names an effect by who makes it: those of the API by what is called, since the
// numbers of its calls depend on what else happens.
func nameOf(inv *Invocation, e *Effect) string {
	name := e.Name() + " " + e.On
	if inv != nil && inv.Part != API {
		name = inv.Name + " " + name
	}
	return name
}

// holds reports whether effects are held; a nil gate holds none.
func (g *Gate) holds() bool { return g != nil && g.holding.Load() }

// Close begins the holding. It makes the channel of Came, in the bubble of the caller,
// or time could not pass while that is waited for.
func (g *Gate) Close() {
	g.came = make(chan struct{}, 1)
	g.holding.Store(true)
}

// Came has a token when something came to the gate since the last was taken.
func (g *Gate) Came() <-chan struct{} { return g.came }

// Open ends the holding: what waits fails, and its invocations are dead.
func (g *Gate) Open() {
	g.holding.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for _, p := range g.all {
		p.fate <- KillBefore
	}
	g.all = nil
}

// Waiting returns what may be let go.
func (g *Gate) Waiting() []*Parked {
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.SortStableFunc(g.all, func(a, b *Parked) int { return strings.Compare(a.Name, b.Name) })
	return slices.Clone(g.all)
}

// Messages returns those that were sent, each once.
func (g *Gate) Messages() []queue.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.sent)
}

// Release lets an effect go to its fate.
func (g *Gate) Release(p *Parked, f Fate) {
	g.mu.Lock()
	g.all = slices.DeleteFunc(g.all, func(o *Parked) bool { return o == p })
	g.mu.Unlock()
	p.fate <- f
}

// park waits until the effect is let go.
func (g *Gate) park(inv *Invocation, e *Effect) Fate {
	p := &Parked{Name: nameOf(inv, e), Effect: e, inv: inv, fate: make(chan Fate, 1)}
	g.mu.Lock()
	if g.shut {
		g.mu.Unlock()
		return KillBefore
	}
	g.all = append(g.all, p)
	g.mu.Unlock()
	select {
	case g.came <- struct{}{}:
	default:
	}
	return <-p.fate
}

// saw remembers what a part was answered.
func (g *Gate) saw(inv *Invocation, e *Effect, f Fate, answer string) {
	name := e.Part
	if inv != nil {
		name = inv.Name
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.knows[name]
	if k == nil {
		k = &knowledge{inv: inv, nth: map[uint64]int{}}
		g.knows[name] = k
	}
	step := Hash(0, e.Op, e.What, e.On)
	k.nth[step]++
	k.sum += Hash(step+uint64(k.nth[step]), fmt.Sprint(time.Now().UnixNano(), f), answer)
	switch {
	case e.To == ToQueue && e.Op == Send:
		g.sends += Hash(k.sum, e.What, e.On, fmt.Sprint(time.Now().UnixNano()))
		m := queue.Message{Kind: queue.Kind(e.What), ID: e.On}
		if !slices.Contains(g.sent, m) {
			g.sent = append(g.sent, m)
		}
	case e.Part == Source:
		g.sends += Hash(1, e.On)
	}
}

// Tell writes what is under way: what waits, and what those that live know.
func (g *Gate) Tell(b *strings.Builder) {
	for _, p := range g.Waiting() {
		fmt.Fprintln(b, p.Name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintln(b, g.sends)
	var live []string
	for _, name := range slices.Sorted(maps.Keys(g.knows)) {
		k := g.knows[name]
		if k.inv != nil && k.inv.Part == API {
			name = API + " " + k.inv.call
		}
		if name != Source && !k.inv.Dead() && (k.inv == nil || !k.inv.returned.Load()) {
			live = append(live, fmt.Sprint(name, k.sum))
		}
	}
	slices.Sort(live)
	fmt.Fprintln(b, live)
}

// gated makes one call in no time, once it is let go. A caller whose time was up
// meanwhile, or who died, does not learn its outcome.
func gated[T any](ctx context.Context, k *Kernel, inv *Invocation, e *Effect, call func(context.Context) (T, error)) (T, error) {
	var none T
	if inv.Dead() {
		return none, fmt.Errorf("%s: %w", e.Op, ErrDead)
	}
	fate := k.cfg.Gate.park(inv, e)
	k.number(e)
	k.fated(e, fate)
	fault := fmt.Errorf("%s: %w", e.Op, ErrFault)
	if fate == KillBefore {
		if inv != nil {
			inv.kill()
		}
		return none, fmt.Errorf("%s: %w", e.Op, ErrDead)
	}
	v, err := call(context.WithoutCancel(ctx))
	k.cfg.Gate.saw(inv, e, fate, answered(v, err))
	switch {
	case inv.Dead():
		return none, fmt.Errorf("%s: %w", e.Op, ErrDead)
	case ctx.Err() != nil:
		return none, fmt.Errorf("%s: %w", e.Op, ctx.Err())
	case fate == FailAfter:
		return none, fault
	}
	return v, err
}

// answered is an answer in words.
func answered(v any, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	switch v := v.(type) {
	case []store.Item:
		var b strings.Builder
		for _, i := range v {
			fmt.Fprintln(&b, Plain(i))
		}
		return b.String()
	case store.Account: // it has pointers, which would print as addresses: each world has others
		b, err := json.Marshal(v)
		return fmt.Sprint(string(b), err)
	case *http.Response:
		body, err := io.ReadAll(v.Body)
		v.Body = io.NopCloser(bytes.NewReader(body))
		return fmt.Sprint(v.StatusCode, string(body), err)
	}
	return fmt.Sprint(v)
}

// Plain is a record without what no rule reads: who wrote it, and its history.
func Plain(i store.Item) string {
	switch was := i.(type) {
	case *store.Request:
		now := *was
		now.History, i = nil, &now
	case *store.Runner:
		now := *was
		now.History, i = nil, &now
	case *store.Lock:
		i = new(*was)
	case *store.Pulse:
		i = new(*was)
	case *store.Quota:
		i = new(*was)
	case *store.Points:
		i = new(*was)
	case *store.Spares:
		i = new(*was)
	case *store.Checkup:
		i = new(*was)
	case *store.ReaperRun:
		i = new(*was)
	case *store.Overflow:
		i = new(*was)
	case *store.Sweep:
		now := *was
		now.History, i = nil, &now
	}
	i.Base().Writer = ""
	b, err := store.Encode(i)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
