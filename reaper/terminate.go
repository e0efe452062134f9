package reaper

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ending is a runner in the state ending, and what EC2 shows of its instance.
type ending struct {
	runner *store.Runner
	in     fleet.Instance
	shown  bool
	called bool // TerminateInstances was called, by this run
	err    error
}

// terminate takes the ending ones of the runners to their end: it finds the
// instance, asks EC2 to terminate it unless that is under way, and leaves the
// rest to a later look.
func (p *pass) terminate(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*lookup) {
	var all, unknown []*ending
	for _, run := range runners {
		if store.NextEndStep(p.cfg.Now(), p.cfg.Limits, *run, false) != store.EndTerminate {
			continue
		}
		e := &ending{runner: run, err: errLater}
		switch v := views[placeOf(run)]; {
		case run.InstanceID == "":
			unknown = append(unknown, e)
		case v.err != nil: // reported when it was read
		default:
			e.in, e.shown = v.instances[run.InstanceID]
			all = append(all, e)
		}
	}
	all = append(all, p.find(ctx, unknown)...)

	calls := make([]*ending, 0, len(all))
	for _, e := range all {
		// A call of a moment ago, by an overlapping run, is not repeated.
		recent := p.cfg.Now().Sub(e.runner.TerminatedAt) < p.cfg.Limits.Resend/2
		if !recent && e.in.State != fleet.ShuttingDown && e.runner.InstanceID != "" {
			calls = append(calls, e)
		}
	}
	if !p.cfg.DryRun {
		p.each(ctx, len(calls), func(i int) string { return calls[i].runner.Account }, func(i int) {
			e := calls[i]
			e.err = p.askEC2(ctx, placeOf(e.runner), callLimit, func(ctx context.Context) error {
				return p.cfg.Fleet.Terminate(ctx, placeOf(e.runner), e.runner.InstanceID)
			})
		})
	}
	for _, e := range calls {
		e.called = true
	}
	for _, e := range all {
		p.guard("runner", e.runner.ID, func() { p.terminated(ctx, e) })
	}
}

// find looks up the instances of runners that have none on record, by client
// token and tag, and records what it finds. It returns those that go on.
func (p *pass) find(ctx context.Context, unknown []*ending) []*ending {
	p.each(ctx, len(unknown), func(i int) string { return unknown[i].runner.Account }, func(i int) {
		e := unknown[i]
		e.err = p.askEC2(ctx, placeOf(e.runner), callLimit, func(ctx context.Context) (err error) {
			e.in, err = p.cfg.Fleet.ByToken(ctx, placeOf(e.runner), e.runner.ID, e.runner.ClientToken())
			return err
		})
	})
	var out []*ending
	for _, e := range unknown {
		p.guard("runner", e.runner.ID, func() {
			if p.found(ctx, e) {
				out = append(out, &ending{runner: e.runner, in: e.in, shown: e.err == nil, err: errLater})
			}
		})
	}
	return out
}

// found records what a look-up came to, and reports whether the end goes on.
func (p *pass) found(ctx context.Context, e *ending) bool {
	run := e.runner
	switch {
	case errors.Is(e.err, fleet.ErrNotFound):
		return true
	case e.err != nil:
		p.unreachable(placeOf(run), fmt.Errorf("find the instance of runner %s in %s: %w", run.ID, placeOf(run), e.err))
		return false
	case e.in.State.Over():
		p.finish(ctx, run, e.in, over(e.in))
		return false
	}
	if !p.advance(ctx, run, store.Case{Runner: *run}.Adopt(p.cfg.Now(), e.in.ID)) {
		return false
	}
	p.note(run, Adopt, "instance "+e.in.ID)
	return true
}

// terminated records what came of one instance in this run.
func (p *pass) terminated(ctx context.Context, e *ending) {
	run, asked := *e.runner, false
	switch {
	case e.called && p.cfg.DryRun:
		p.note(e.runner, Terminate, "instance "+run.InstanceID)
	case e.called && e.err == nil:
		asked = true
		p.note(e.runner, Terminate, "instance "+run.InstanceID)
	case e.called && errors.Is(e.err, fleet.ErrNotFound):
		e.shown = false
	case e.called && errors.Is(e.err, errLater):
		p.note(e.runner, Skip, e.err.Error())
		return
	case e.called:
		p.fail("runner", run.ID, fmt.Errorf("terminate instance %s of runner %s: %w", run.InstanceID, run.ID, e.err))
		if refused(e.err) {
			p.alarm(store.AlarmTerminate, run.ID, "a machine cannot be terminated; its own timer ends it at its hard limit",
				"runner", run.ID, "request", run.Request, "trace", run.Trace, "instance", run.InstanceID, "hard", run.Hard)
		}
		return
	case e.shown:
		p.note(e.runner, Wait, "EC2: "+string(e.in.State))
	}
	d, gone := store.Case{Runner: run}.Looked(p.cfg.Now(), p.cfg.Limits, asked, e.shown)
	if gone {
		p.finish(ctx, e.runner, fleet.Instance{ID: run.InstanceID}, "EC2 does not know the instance")
		return
	}
	if !e.shown {
		p.note(e.runner, Missing, "EC2 does not find the instance, since "+d.Runner.MissingAt.UTC().Format("15:04:05"))
	}
	p.advance(ctx, e.runner, d)
}
