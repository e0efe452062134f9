package sim

import (
	"bytes"
	"context"
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

// gate holds effects until they are let go, and remembers what each part was
// answered: all that a part is about to do follows from that.
type gate struct {
	holding atomic.Bool
	came    chan struct{} // has a token when something came that was not looked at

	mu    sync.Mutex
	shut  bool // the world ends: nothing goes on
	all   []*parked
	knows map[string]*knowledge // by part
	sends uint64                // what was put into the queue and taken out of it
	sent  []queue.Message       // different ones
}

func newGate() *gate { return &gate{knows: map[string]*knowledge{}} }

// knowledge is what a part was answered. What it does side by side has no order.
type knowledge struct {
	inv *invocation
	sum uint64
	nth map[uint64]int
}

// parked is an effect that waits to be let go.
type parked struct {
	name string
	e    *Effect
	inv  *invocation
	fate chan Fate
}

// nameOf names an effect by who makes it: those of the API by what is called, since the
// numbers of its calls depend on what else goes on.
func nameOf(inv *invocation, e *Effect) string {
	name := e.Name() + " " + e.On
	if inv != nil && inv.part != API {
		name = inv.name + " " + name
	}
	return name
}

// holds reports whether effects are held; a nil gate holds none.
func (g *gate) holds() bool { return g != nil && g.holding.Load() }

// open ends the holding: what waits fails, and its invocations are dead.
func (g *gate) open() {
	g.holding.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for _, p := range g.all {
		p.fate <- KillBefore
	}
	g.all = nil
}

// waiting returns what may be let go.
func (g *gate) waiting() []*parked {
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.SortStableFunc(g.all, func(a, b *parked) int { return strings.Compare(a.name, b.name) })
	return slices.Clone(g.all)
}

// messages returns those that were sent, each once.
func (g *gate) messages() []queue.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.sent)
}

// release lets an effect go to its fate.
func (g *gate) release(p *parked, f Fate) {
	g.mu.Lock()
	g.all = slices.DeleteFunc(g.all, func(o *parked) bool { return o == p })
	g.mu.Unlock()
	p.fate <- f
}

// park waits until the effect is let go.
func (g *gate) park(inv *invocation, e *Effect) Fate {
	p := &parked{name: nameOf(inv, e), e: e, inv: inv, fate: make(chan Fate, 1)}
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
func (g *gate) saw(inv *invocation, e *Effect, f Fate, answer string) {
	name := e.Part
	if inv != nil {
		name = inv.name
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.knows[name]
	if k == nil {
		k = &knowledge{inv: inv, nth: map[uint64]int{}}
		g.knows[name] = k
	}
	step := hash64(0, e.Op, e.What, e.On)
	k.nth[step]++
	k.sum += hash64(step+uint64(k.nth[step]), fmt.Sprint(time.Now().UnixNano(), f), answer)
	switch {
	case e.To == ToQueue && e.Op == Send:
		g.sends += hash64(k.sum, e.What, e.On, fmt.Sprint(time.Now().UnixNano()))
		m := queue.Message{Kind: queue.Kind(e.What), ID: e.On}
		if !slices.Contains(g.sent, m) {
			g.sent = append(g.sent, m)
		}
	case e.Part == Source:
		g.sends += hash64(1, e.On)
	}
}

// tell writes what is under way: what waits, and what those that live know.
func (g *gate) tell(b *strings.Builder) {
	for _, p := range g.waiting() {
		fmt.Fprintln(b, p.name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintln(b, g.sends)
	var live []string
	for _, name := range slices.Sorted(maps.Keys(g.knows)) {
		k := g.knows[name]
		if k.inv != nil && k.inv.part == API {
			name = API + " " + k.inv.call
		}
		if name != Source && !k.inv.isDead() && (k.inv == nil || !k.inv.returned.Load()) {
			live = append(live, fmt.Sprint(name, k.sum))
		}
	}
	slices.Sort(live)
	fmt.Fprintln(b, live)
}

// gated makes one call in no time, once it is let go. A caller whose time was up
// meanwhile, or who died, does not learn what came of it.
func gated[T any](ctx context.Context, w *World, inv *invocation, e *Effect, call func(context.Context) (T, error)) (T, error) {
	var none T
	if inv.isDead() {
		return none, fmt.Errorf("%s: %w", e.Op, errDead)
	}
	fate := w.cfg.gate.park(inv, e)
	w.number(e)
	w.mu.Lock()
	e.Fate = fate
	w.mu.Unlock()
	fault := fmt.Errorf("%s: %w", e.Op, ErrFault)
	if fate == KillBefore {
		if inv != nil {
			inv.kill()
		}
		return none, fault
	}
	v, err := call(context.WithoutCancel(ctx))
	w.cfg.gate.saw(inv, e, fate, answered(v, err))
	switch {
	case inv.isDead():
		return none, fmt.Errorf("%s: %w", e.Op, errDead)
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
			fmt.Fprintln(&b, plain(i))
		}
		return b.String()
	case *http.Response:
		body, err := io.ReadAll(v.Body)
		v.Body = io.NopCloser(bytes.NewReader(body))
		return fmt.Sprint(v.StatusCode, string(body), err)
	}
	return fmt.Sprint(v)
}
