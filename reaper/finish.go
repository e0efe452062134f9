package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// finishAtOnce is how many runners of an account one commit ends: each with its lock, its
// request and the usage of its repository, and their account's quota once.
const finishAtOnce = (store.MaxChanges - 1) / 4

// over is a runner whose machine is over. in is what was seen to be so; its zero value:
// none was ever launched.
type over struct {
	runner *store.Runner
	in     fleet.Instance
	reason string
	at     time.Time // when that was seen: its cost is rolled up on that day
}

// finish notes a runner whose instance EC2 has terminated, or no longer knows, for
// finishAll.
func (p *pass) finish(run *store.Runner, in fleet.Instance, reason string) {
	p.overs = append(p.overs, &over{run, in, reason, p.cfg.Now()})
}

// finishAll ends the runners that finish noted: the runner, its account's quota and its
// lock in one commit. A request that waits for a machine which ended before it was
// online learns of it in the same commit. Runners of one account are committed together,
// since each of them writes the quota.
func (p *pass) finishAll(ctx context.Context) {
	byAccount := map[string][]*over{}
	var names []string
	for _, o := range take(&p.overs, len(p.overs)) {
		if p.finished[o.runner.ID] {
			continue
		}
		p.finished[o.runner.ID] = true
		if byAccount[o.runner.Account] == nil {
			names = append(names, o.runner.Account)
		}
		byAccount[o.runner.Account] = append(byAccount[o.runner.Account], o)
	}
	p.each(ctx, len(names), common(commitsAtOnce), func(q *pass, i int) { q.finishAccount(ctx, byAccount[names[i]]) })
}

// finishAccount ends runners of one account, group by group.
func (p *pass) finishAccount(ctx context.Context, all []*over) {
	items := items{}
	if !items.fetch(ctx, p, all) {
		return
	}
	for len(all) > 0 {
		if isLate(ctx) {
			p.leave(len(all))
			return
		}
		for _, o := range p.finishGroup(ctx, items, take(&all, finishAtOnce)) {
			p.finishGroup(ctx, items, []*over{o})
		}
	}
}

// items are records by their name, as they were read or written last.
type items map[store.Ref]store.Item

// refs names what the end is decided from.
func (o *over) refs() []store.Ref {
	return append(o.runner.Around(store.KindLock, store.KindQuota, store.KindRequest), o.runner.Ref(), store.UsageRef(o.at, o.runner.Repository))
}

// priceIn returns what an hour of the machine costs.
func (o *over) priceIn(known items) store.Price {
	refs := store.PriceRefs(o.runner.Account, o.runner.Region)
	spot, _ := known[refs[0]].(*store.Prices)
	list, _ := known[refs[1]].(*store.Prices)
	if spot == nil || list == nil {
		return store.Price{}
	}
	return o.runner.PriceOf(*spot, *list)
}

// fetch reads what the ends of some runners are decided from.
func (into items) fetch(ctx context.Context, p *pass, all []*over) bool {
	var refs []store.Ref
	seen := map[store.Ref]bool{}
	for _, o := range all {
		from := o.refs()
		if p.cfg.Prices != nil {
			prices := store.PriceRefs(o.runner.Account, o.runner.Region)
			from = append(from, prices[:]...)
		}
		for _, ref := range from {
			if !seen[ref] {
				seen[ref] = true
				refs = append(refs, ref)
			}
		}
	}
	got, ok := read[store.Item](ctx, p, "runner", refs...)
	for i, it := range got {
		if it != nil {
			into[refs[i]] = it
		}
	}
	return ok
}

// finishGroup ends some runners in one commit. It returns those that are to be tried
// alone: whom somebody else writes, or all after a failure that may be the fault of one.
func (p *pass) finishGroup(ctx context.Context, known items, group []*over) (alone []*over) {
	for range tries {
		ends, batch := p.chain(known, group)
		if group = group[:0:0]; len(ends) == 0 {
			return alone
		}
		for _, e := range ends {
			group = append(group, e.over)
		}
		var err error
		if !p.cfg.DryRun {
			err = p.store.Commit(ctx, batch.Changes...)
		}
		if err == nil {
			for _, c := range batch.Changes {
				known[c.Item.Ref()] = c.Item
			}
			p.tellEnds(ends)
			return alone
		}
		conflict, lost := errors.AsType[*store.ConflictError](err)
		switch {
		case !lost && len(group) > 1:
			if !known.fetch(ctx, p, group) {
				return alone
			}
			return append(alone, group...)
		case !lost:
			p.fail("runner", group[0].runner.ID, fmt.Errorf("commit the end of runner %s: %w", group[0].runner.ID, err))
			return alone
		}
		for _, it := range conflict.Current {
			known[it.Ref()] = it
		}
		if len(group) > 1 {
			var contested []*over
			contested, group = split(group, conflict.Current)
			alone = append(alone, contested...)
		}
	}
	if len(group) > 1 {
		return append(alone, group...)
	}
	for _, o := range group {
		p.note(o.runner, Skip, "somebody was faster, again and again")
	}
	return alone
}

// split parts those whose own records somebody wrote from the others, who lost for them, for
// the quota or for the usage of their repository.
func split(group []*over, lost []store.Item) (contested, others []*over) {
	for _, o := range group {
		mine := slices.ContainsFunc(lost, func(it store.Item) bool {
			return it.Ref().Kind != store.KindQuota && it.Ref().Kind != store.KindUsage && slices.Contains(o.refs(), it.Ref())
		})
		if mine {
			contested = append(contested, o)
		} else {
			others = append(others, o)
		}
	}
	return contested, others
}

// ended is one end that a commit makes.
type ended struct {
	*over
	was store.Case
	d   store.Decision
}

// chain decides the ends of some runners one after another, each as if those before it
// were committed: what two of them write, such as the quota, is written once.
func (p *pass) chain(known items, group []*over) (ends []ended, batch store.Batch) {
	next := items{}
	get := func(ref store.Ref) store.Item {
		if it, ok := next[ref]; ok {
			return it
		}
		return known[ref]
	}
	for _, o := range group {
		p.guard("runner", o.runner.ID, func() {
			c := store.Case{}
			for _, ref := range o.refs() {
				c = c.With(get(ref))
			}
			d, ok := c.Finish(p.cfg.Now(), p.cfg.Limits, shown(o.in), o.reason, o.priceIn(known))
			if !ok {
				p.note(o.runner, Skip, "somebody was faster")
				return
			}
			for _, change := range d.Changes {
				next[change.Item.Ref()] = change.Item
			}
			batch.Add(d)
			ends = append(ends, ended{o, c, d})
		})
	}
	return ends, batch
}

// tellEnds reports ends that are committed, or in a dry run would be.
func (p *pass) tellEnds(ends []ended) {
	for _, e := range ends {
		p.note(&e.d.Runner, Ended, e.reason)
		if e.was.Runner.State.Usable() {
			p.diedAlarm(&e.d.Runner, e.in)
		}
		p.settled(e.was, e.d)
		p.sends = append(p.sends, e.d.Sends...)
	}
}

// whyOver tells why an instance is over, in EC2's words.
func whyOver(in fleet.Instance) string {
	if in.Reason == "" {
		return "EC2: " + string(in.State)
	}
	return "EC2: " + string(in.State) + " (" + in.Reason + ")"
}
