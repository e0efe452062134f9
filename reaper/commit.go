package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// tries is how often a decision is made again after somebody was faster, as often
	// as the API does: who writes a record without end must not win for that.
	tries = 5
	// mostKeys is how many items one read takes
	// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html).
	mostKeys = 100
)

// read gets items of one type, in the order of the refs; nil for those that could not be
// read, which is then reported under what. It is false if there is any.
func read[T store.Item](ctx context.Context, p *pass, what string, refs ...store.Ref) ([]T, bool) {
	parts := slices.Collect(slices.Chunk(refs, mostKeys))
	got := make([][]store.Item, len(parts))
	p.spread(len(parts), common(readsAtOnce), func() bool { return false }, func(q *pass, i int) {
		items, err := q.store.Get(ctx, parts[i]...)
		if err != nil {
			q.fail(what, parts[i][0].ID, fmt.Errorf("read %d items from %s on: %w", len(parts[i]), parts[i][0], err))
			return
		}
		got[i] = items
	})
	out, ok := make([]T, len(refs)), true
	for i, items := range got {
		ok = ok && items != nil
		for n, it := range items {
			out[i*mostKeys+n] = it.(T)
		}
	}
	return out, ok
}

// decide asks rule about a case and commits what it decides, or in a dry run does
// nothing. If somebody was faster, it asks again about what is there now, unless that
// has come to another part of its life: then that is the other's. It returns the case
// that was decided, and whether the run may continue from the decision.
func (p *pass) decide(ctx context.Context, it store.Item, c store.Case, rule func(store.Case) store.Decision) (store.Case, store.Decision, bool) {
	was := c
	var conflict *store.ConflictError
	for range tries {
		d := rule(c)
		if d.Need != nil {
			items, ok := read[store.Item](ctx, p, string(it.Ref().Kind), d.Need...)
			if !ok {
				return c, d, false
			}
			c = c.With(items...)
			d = rule(c)
		}
		if p.cfg.DryRun || len(d.Changes) == 0 {
			p.sends = append(p.sends, d.Sends...)
			return c, d, true
		}
		err := p.store.Commit(ctx, d.Changes...)
		if err == nil {
			p.sends = append(p.sends, d.Sends...)
			return c, d, true
		}
		var lost bool
		if conflict, lost = errors.AsType[*store.ConflictError](err); !lost {
			p.fail(string(it.Ref().Kind), it.Ref().ID, fmt.Errorf("commit %s: %w", it.Ref(), err))
			return c, d, false
		}
		if c = c.With(conflict.Current...); moved(was, c) {
			break
		}
	}
	p.note(it, Skip, "somebody was faster: "+conflict.Error())
	return c, store.Decision{}, false
}

// moved reports whether the runner or the request of a case has come to another part of
// its life, in which other rules hold.
func moved(was, is store.Case) bool {
	part := func(s store.RunnerState) store.RunnerState {
		if s.Usable() {
			return store.RunnerOnline
		}
		return s
	}
	return part(was.Runner.State) != part(is.Runner.State) || was.Runner.Version != 0 && is.Runner.Version == 0 ||
		was.Runner.ID == "" && was.Request.State != is.Request.State || was.Request.Version != 0 && is.Request.Version == 0
}

// advance is decide about a runner alone, which it replaces by what it then is.
func (p *pass) advance(ctx context.Context, run *store.Runner, rule func(store.Case) store.Decision) (store.Decision, bool) {
	_, d, ok := p.decide(ctx, run, store.Case{Runner: *run}, rule)
	if ok {
		*run = d.Runner
	}
	return d, ok
}

// apply commits a decision about a sweep or a quota, or in a dry run does nothing, and
// reports whether the run may continue from it.
func (p *pass) apply(ctx context.Context, it store.Item, d store.Decision) bool {
	if p.cfg.DryRun {
		return true
	}
	switch err := p.store.Commit(ctx, d.Changes...); {
	case err == nil:
		return true
	case errors.Is(err, store.ErrConflict):
		p.note(it, Skip, "somebody was faster: "+err.Error())
	default:
		p.fail(string(it.Ref().Kind), it.Ref().ID, fmt.Errorf("commit %s: %w", it.Ref(), err))
	}
	return false
}

// flush puts the messages of what was committed into the queue. A failure is reported,
// and a later run sends the message again.
func (p *pass) flush(ctx context.Context) {
	parts := slices.Collect(slices.Chunk(take(&p.sends, len(p.sends)), queue.MaxBatch))
	if p.cfg.DryRun {
		return
	}
	p.record(len(parts), func(q *pass, i int) {
		all := make([]queue.Outgoing, len(parts[i]))
		for n, s := range parts[i] {
			all[n] = queue.Outgoing{Message: queue.Of(s), Delay: min(max(s.Due.Sub(q.cfg.Now()), 0), queue.MaxDelay)}
		}
		for n, err := range q.cfg.Queue.SendAll(ctx, all...) {
			if err != nil {
				kind, m := parts[i][n].Item.Ref().Kind, all[n]
				q.fail(string(kind), m.ID, fmt.Errorf("send %s of %s %s: %w", m.Kind, kind, m.ID, err))
			}
		}
	})
}
