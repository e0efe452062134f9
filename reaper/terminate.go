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
func (r *run) terminate(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*view) {
	var all, unknown []*ending
	for _, run := range runners {
		if store.NextEndStep(r.cfg.Now(), r.cfg.Limits, *run, false) != store.EndTerminate {
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
	all = append(all, r.find(ctx, unknown)...)

	calls := make([]*ending, 0, len(all))
	for _, e := range all {
		// A call of a moment ago, by an overlapping run, is not repeated.
		recent := r.cfg.Now().Sub(e.runner.TerminatedAt) < r.cfg.Limits.Resend/2
		if !recent && e.in.State != fleet.ShuttingDown && e.runner.InstanceID != "" {
			calls = append(calls, e)
		}
	}
	if !r.cfg.DryRun {
		r.each(ctx, len(calls), func(i int) string { return calls[i].runner.Account }, func(i int) {
			e := calls[i]
			e.err = r.askEC2(ctx, placeOf(e.runner), callLimit, func(ctx context.Context) error {
				return r.cfg.Fleet.Terminate(ctx, placeOf(e.runner), e.runner.InstanceID)
			})
		})
	}
	for _, e := range calls {
		e.called = true
	}
	for _, e := range all {
		r.guard("runner", e.runner.ID, func() { r.terminated(ctx, e) })
	}
}

// find looks up the instances of runners that have none on record, by client
// token and tag, and records what it finds. It returns those that go on.
func (r *run) find(ctx context.Context, unknown []*ending) []*ending {
	r.each(ctx, len(unknown), func(i int) string { return unknown[i].runner.Account }, func(i int) {
		e := unknown[i]
		e.err = r.askEC2(ctx, placeOf(e.runner), callLimit, func(ctx context.Context) (err error) {
			e.in, err = r.cfg.Fleet.ByToken(ctx, placeOf(e.runner), e.runner.ID, e.runner.ClientToken())
			return err
		})
	})
	var out []*ending
	for _, e := range unknown {
		r.guard("runner", e.runner.ID, func() {
			if r.found(ctx, e) {
				out = append(out, &ending{runner: e.runner, in: e.in, shown: e.err == nil, err: errLater})
			}
		})
	}
	return out
}

// found records what a look-up came to, and reports whether the end goes on.
func (r *run) found(ctx context.Context, e *ending) bool {
	run := e.runner
	switch {
	case errors.Is(e.err, fleet.ErrNotFound):
		return true
	case e.err != nil:
		r.unreachable(placeOf(run), fmt.Errorf("find the instance of runner %s in %s: %w", run.ID, placeOf(run), e.err))
		return false
	case e.in.State.Over():
		r.finish(ctx, run, e.in, over(e.in))
		return false
	}
	if !r.advance(ctx, run, store.Case{Runner: *run}.Adopt(r.cfg.Now(), e.in.ID)) {
		return false
	}
	r.note(run, Adopt, "instance "+e.in.ID)
	return true
}

// terminated records what came of one instance in this run.
func (r *run) terminated(ctx context.Context, e *ending) {
	run, asked := *e.runner, false
	switch {
	case e.called && r.cfg.DryRun:
		r.note(e.runner, Terminate, "instance "+run.InstanceID)
	case e.called && e.err == nil:
		asked = true
		r.note(e.runner, Terminate, "instance "+run.InstanceID)
	case e.called && errors.Is(e.err, fleet.ErrNotFound):
		e.shown = false
	case e.called && errors.Is(e.err, errLater):
		r.note(e.runner, Skip, e.err.Error())
		return
	case e.called:
		r.fail("runner", run.ID, fmt.Errorf("terminate instance %s of runner %s: %w", run.InstanceID, run.ID, e.err))
		if refused(e.err) {
			r.alarm(store.AlarmTerminate, run.ID, "a machine cannot be terminated; its own timer ends it at its hard limit",
				"runner", run.ID, "request", run.Request, "trace", run.Trace, "instance", run.InstanceID, "hard", run.Hard)
		}
		return
	case e.shown:
		r.note(e.runner, Wait, "EC2: "+string(e.in.State))
	}
	d, gone := store.Case{Runner: run}.Looked(r.cfg.Now(), r.cfg.Limits, asked, e.shown)
	if gone {
		r.finish(ctx, e.runner, fleet.Instance{ID: run.InstanceID}, "EC2 does not know the instance")
		return
	}
	if !e.shown {
		r.note(e.runner, Missing, "EC2 does not find the instance, since "+d.Runner.MissingAt.UTC().Format("15:04:05"))
	}
	r.advance(ctx, e.runner, d)
}
