package explore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// budget is what may still go wrong.
type budget struct{ deaths, losses, duplicates, runs, pauses int }

// course is a course on its way.
type course struct {
	x     *explorer
	w     *sim.World
	gate  *kernel.Gate
	began time.Time
	left  budget
}

// first reports whether the state was never seen before, and remembers it.
func (c *course) first() bool {
	h := c.state()
	if c.x.seen[h] {
		return false
	}
	c.x.seen[h] = true
	c.x.out.States++
	return true
}

// option is one thing that may come next.
type option struct {
	name string
	do   func()
	ends bool // the scope
}

// options returns all that may come next, in an order that depends on the state alone.
func (c *course) options() (all []option) {
	may := func(left *int, name string, do func()) {
		if *left > 0 {
			all = append(all, option{name: name, do: func() { *left--; do() }})
		}
	}
	letGo := func(p *kernel.Parked) {
		all = append(all, option{name: p.Name, do: func() { c.gate.Release(p, kernel.Pass) }})
		if p.Mortal() {
			may(&c.left.deaths, p.Name+" -> "+kernel.KillBefore.String(), func() { c.gate.Release(p, kernel.KillBefore) })
		}
		if p.Effect.Op != kernel.Get && p.Effect.Op != kernel.Due && p.Effect.Op != kernel.List {
			may(&c.left.losses, p.Name+" -> "+kernel.FailAfter.String(), func() { c.gate.Release(p, kernel.FailAfter) })
		}
	}
	waiting := c.gate.Waiting()
	if i := slices.IndexFunc(waiting, alone); i >= 0 {
		letGo(waiting[i])
		return all
	}
	switch {
	case len(waiting) > 0:
		may(&c.left.pauses, "time passes, and all stand still", c.pass)
	case time.Since(c.began) >= c.x.scope.Limit || c.x.scope.Over(c.w):
		all = append(all, option{name: "end", do: func() {}, ends: true})
	default:
		all = append(all, option{name: "time passes", do: c.pass})
	}
	for _, p := range waiting {
		letGo(p)
	}
	for _, m := range c.gate.Messages() {
		may(&c.left.duplicates, fmt.Sprintf("again: %s %s", m.Kind, m.ID), func() { c.again(m) })
	}
	may(&c.left.runs, "the reaper runs", func() { c.w.Go(func() { _, _ = c.w.Reap() }) })
	return all
}

// alone reports whether an effect changes nothing that another one could see or
// prevent, but for what only comes after it: whether it is the next to continue or a
// later one is all the same, and so it continues at once.
func alone(p *kernel.Parked) bool {
	switch p.Effect.Op {
	case kernel.Image, kernel.Root, kernel.Types, kernel.Console, kernel.Send, kernel.Call:
		return true
	case kernel.Get:
		return p.Effect.What == "account"
	case kernel.Delete:
		return p.Effect.Part == kernel.Source
	}
	return false
}

// again sends a message once more.
func (c *course) again(m queue.Message) {
	switch m.Kind {
	case queue.Start:
		m = queue.StartOf(c.w.Request(m.ID))
	case queue.Next:
		m.N = c.w.Runner(m.ID).Wanted
	}
	c.must(c.w.Queue.Send(c.w.Context(), m, 0))
}

// pass lets time continue until something is under way that was not.
func (c *course) pass() {
	select {
	case <-c.gate.Came():
	default:
	}
	select {
	case <-c.gate.Came():
	case <-time.After(c.x.scope.Limit):
	}
}

// state is what the rest of the course depends on.
func (c *course) state() uint64 {
	var b strings.Builder
	say := func(v ...any) { fmt.Fprintln(&b, v...) }
	say(time.Since(c.began), c.left)
	for _, i := range c.items() {
		say(kernel.Plain(i))
	}
	for _, f := range c.w.Fleet.Instances() {
		say(f)
	}
	for _, r := range c.w.GitHub.Minted() {
		say(r)
	}
	for _, j := range c.w.GitHub.Jobs() {
		say(j)
	}
	c.gate.Tell(&b)
	return kernel.Hash(0, b.String())
}

// items returns all records of the world.
func (c *course) items() []store.Item {
	refs := []store.Ref{{Kind: store.KindQuota, ID: setting.AccountID}, {Kind: store.KindPoints, ID: c.w.Account.CredentialNames()[0]}, {Kind: store.KindSweep, ID: store.SweepKey(setting.AccountID, setting.Region)}}
	var all []store.Item
	for _, kind := range []store.Kind{store.KindRequest, store.KindRunner} {
		for i, err := range c.w.Store().List(c.w.Context(), store.Filter{Kind: kind}) {
			c.must(err)
			all = append(all, i)
			if q, ok := i.(*store.Request); ok {
				lock := store.Ref{Kind: store.KindLock, ID: q.LockKey()}
				if !slices.Contains(refs, lock) {
					refs = append(refs, lock, store.Ref{Kind: store.KindPulse, ID: lock.ID})
				}
			}
		}
	}
	more, err := c.w.Store().Get(c.w.Context(), refs...)
	c.must(err)
	return append(all, more...)
}

func (c *course) must(err error) {
	if err != nil {
		c.w.Helper()
		c.w.Fatal(err)
	}
}
