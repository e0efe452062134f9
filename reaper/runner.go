package reaper

import (
	"context"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// runners looks at the due runners. It drains those whose time is up, reminds the
// worker of forgotten ones, and returns those that are on their way to the end,
// those with names at GitHub that nothing needs any more, and those of which GitHub
// is to be asked whether they are online.
func (p *pass) runners(ctx context.Context, refs []store.Ref) (ending, naming []*store.Runner, asked []store.Case) {
	next := func(run *store.Runner, a store.Case) {
		if run.State.Usable() && run.Version == a.Runner.Version && unconfirmed(p.cfg.Now(), p.cfg.Limits, a) {
			asked = append(asked, a)
		}
		switch {
		case run.State == store.RunnerDraining || run.State == store.RunnerEnding:
			ending = append(ending, run)
		case run.State.Final() || len(run.Unused()) > 0:
			naming = append(naming, run)
		}
	}
	var booting []*boot
	for part := range slices.Chunk(refs, batch) {
		if p.isLate(ctx) {
			break
		}
		all, ok := read[*store.Runner](ctx, p, "runner", part...)
		if !ok {
			continue
		}
		due := slices.DeleteFunc(all, func(run *store.Runner) bool { return !isDue(run.Base(), p.cfg.Now()) })
		p.report.Runners += len(due)
		surroundings := p.around(ctx, due)
		for _, run := range due {
			a, ok := surroundings[run.ID]
			if ok && boots(*run) {
				booting = append(booting, &boot{run, a})
				continue
			}
			if ok {
				p.guard("runner", run.ID, func() { *run = p.usable(ctx, a) })
			}
			next(run, a)
		}
	}
	atEC2{p}.boot(ctx, booting)
	for _, b := range booting {
		next(b.runner, b.around)
	}
	return ending, naming, asked
}

// around reads, in one round trip, what is around the usable ones of the runners.
// After a failure it has none of them.
func (p *pass) around(ctx context.Context, runners []*store.Runner) map[string]store.Case {
	var refs []store.Ref
	at := map[store.Ref]int{}
	// Two runners that took turns on one lock share it, and one read may name it once.
	for _, run := range runners {
		for _, ref := range surroundings(run) {
			if _, ok := at[ref]; !ok {
				at[ref] = len(refs)
				refs = append(refs, ref)
			}
		}
	}
	items, ok := read[store.Item](ctx, p, "runner", refs...)
	if !ok {
		return nil
	}
	out := map[string]store.Case{}
	for _, run := range runners {
		if !run.State.Usable() {
			continue
		}
		c := store.Case{Runner: *run}
		for _, ref := range surroundings(run) {
			c = c.With(items[at[ref]])
		}
		out[run.ID] = c
	}
	return out
}

// surroundings names what is around a usable runner, but for the quota: no end of it is
// decided from that.
func surroundings(run *store.Runner) []store.Ref {
	if !run.State.Usable() {
		return nil
	}
	return run.Around(store.KindLock, store.KindPulse, store.KindRequest)
}

// usable drains the runner if it has to, else reminds the worker of it if that
// seems to have forgotten it. It returns the runner as it then is.
func (p *pass) usable(ctx context.Context, c store.Case) store.Runner {
	if p.isLate(ctx) {
		return c.Runner
	}
	d := c.ReviewRunner(p.cfg.Now(), p.cfg.Limits)
	if !p.apply(ctx, &d.Runner, d) {
		return c.Runner
	}
	switch {
	case d.Runner.State != c.Runner.State:
		p.note(&d.Runner, Drain, d.Runner.End.Code)
	case d.Sends != nil:
		p.note(&d.Runner, Resend, "no worker continues with it: "+string(queue.Of(d.Sends[0]).Kind))
	}
	if d.Alarm != "" {
		p.alarm(d.Alarm, d.Runner.ID, "another machine than the launched one used the boot token",
			"runner", d.Runner.ID, "request", d.Runner.Request, "trace", d.Runner.Trace)
	}
	return d.Runner
}
