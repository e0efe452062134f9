package reaper

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// runners looks at the due runners, a round at a time. It drains those whose time is up,
// reminds the worker of forgotten ones, and takes those on that are on their way to the
// end. Of those with names at GitHub that nothing needs any more, and of those of which
// GitHub is to be asked whether they are online, it makes lists for later phases.
func (p *pass) runners(ctx context.Context) {
	for len(p.todo.runners) > 0 && !isLate(ctx) {
		p.guard("phase", "ends", func() { p.round(ctx, take(&p.todo.runners, round)) })
		p.flush(ctx)
	}
}

// looked is a runner that is looked at.
type looked struct {
	runner *store.Runner
	around store.Case // of a usable one
	known  bool       // that what is around it was read
}

// round looks at some runners.
func (p *pass) round(ctx context.Context, refs []store.Ref) {
	all, _ := read[*store.Runner](ctx, p, "runner", refs...)
	var due []*store.Runner
	for _, run := range all {
		if run != nil && isDue(run.Base(), p.cfg.Now()) {
			due = append(due, run)
		}
	}
	p.report.Runners += len(due)
	for _, run := range due {
		p.report.Live += one(!run.State.Final())
	}
	cases := p.around(ctx, due)
	looks := make([]*looked, len(due))
	for i, run := range due {
		c, known := cases[run.ID]
		looks[i] = &looked{run, c, known}
	}
	p.review(ctx, looks)
	p.finishAll(ctx)
	var ending []*store.Runner
	for _, l := range looks {
		run := l.runner
		if run.State.Usable() && run.Version == l.around.Runner.Version && unconfirmed(p.cfg.Now(), p.cfg.Limits, l.around) {
			p.todo.asked = append(p.todo.asked, l.around)
		}
		switch {
		case run.State == store.RunnerDraining || run.State == store.RunnerEnding:
			ending = append(ending, run)
		case run.State.Final() || len(run.Unused()) > 0:
			p.todo.naming = append(p.todo.naming, run)
		}
	}
	p.end(ctx, ending)
	p.finishAll(ctx)
}

// around reads what is around the usable ones of the runners, all at once. It has none
// of those of which something could not be read.
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
	items, _ := read[store.Item](ctx, p, "runner", refs...)
	out := map[string]store.Case{}
	for _, run := range runners {
		if !run.State.Usable() {
			continue
		}
		c, whole := store.Case{Runner: *run}, true
		for _, ref := range surroundings(run) {
			if it := items[at[ref]]; it != nil {
				c = c.With(it)
			} else {
				whole = false
			}
		}
		if whole {
			out[run.ID] = c
		}
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
// seems to have forgotten it. console is what its machine's console shows, if it did not
// boot. It returns the runner as it then is.
func (p *pass) usable(ctx context.Context, c store.Case, console string) store.Runner {
	c, d, ok := p.decide(ctx, &c.Runner, c, func(c store.Case) store.Decision {
		return c.ReviewRunner(p.cfg.Now(), p.cfg.Limits, console)
	})
	if !ok {
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
