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
func (ec2 atEC2) terminate(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*lookup) {
	var all, unknown []*ending
	for _, run := range runners {
		if store.NextEndStep(ec2.cfg.Now(), ec2.cfg.Limits, *run, false) != store.EndTerminate {
			continue
		}
		e := &ending{runner: run, err: errLater}
		switch v := views[fleet.PlaceOf(*run)]; {
		case run.InstanceID == "":
			unknown = append(unknown, e)
		case v.err != nil: // reported when it was read
			ec2.unseen(ctx, run, v.err)
		default:
			e.in, e.shown = v.instances[run.InstanceID]
			all = append(all, e)
		}
	}
	all = append(all, ec2.find(ctx, unknown)...)

	calls := make([]*ending, 0, len(all))
	for _, e := range all {
		// A call of a moment ago, by an overlapping run, is not repeated.
		recent := ec2.cfg.Now().Sub(e.runner.TerminatedAt) < ec2.cfg.Limits.Resend/2
		if !recent && e.in.State != fleet.ShuttingDown && e.runner.InstanceID != "" {
			calls = append(calls, e)
		}
	}
	if !ec2.cfg.DryRun {
		ec2.each(ctx, len(calls), func(i int) string { return calls[i].runner.Account }, func(i int) {
			e := calls[i]
			e.err = ec2.askEC2(ctx, fleet.PlaceOf(*e.runner), callLimit, func(ctx context.Context) error {
				return ec2.cfg.Fleet.Terminate(ctx, fleet.PlaceOf(*e.runner), e.runner.InstanceID)
			})
		})
	}
	for _, e := range calls {
		e.called = true
	}
	for _, e := range all {
		ec2.guard("runner", e.runner.ID, func() { ec2.terminated(ctx, e) })
	}
}

// find looks up the instances of runners that have none on record, by client
// token and tag, and records what it finds. It returns those that go on.
func (ec2 atEC2) find(ctx context.Context, unknown []*ending) []*ending {
	ec2.each(ctx, len(unknown), func(i int) string { return unknown[i].runner.Account }, func(i int) {
		e := unknown[i]
		e.err = ec2.askEC2(ctx, fleet.PlaceOf(*e.runner), callLimit, func(ctx context.Context) (err error) {
			e.in, err = ec2.cfg.Fleet.ByToken(ctx, fleet.PlaceOf(*e.runner), e.runner.ID, e.runner.ClientToken())
			return err
		})
	})
	var out []*ending
	for _, e := range unknown {
		ec2.guard("runner", e.runner.ID, func() {
			if ec2.found(ctx, e) {
				out = append(out, &ending{runner: e.runner, in: e.in, shown: e.err == nil, err: errLater})
			}
		})
	}
	return out
}

// found records what a look-up came to, and reports whether the end goes on.
func (ec2 atEC2) found(ctx context.Context, e *ending) bool {
	run := e.runner
	switch {
	case errors.Is(e.err, fleet.ErrNotFound):
		return true
	case e.err != nil:
		ec2.unreachable(fleet.PlaceOf(*run), fmt.Errorf("find the instance of runner %s in %s: %w", run.ID, fleet.PlaceOf(*run), e.err))
		ec2.unseen(ctx, run, e.err)
		return false
	case e.in.State.Over():
		ec2.finish(ctx, run, e.in, over(e.in))
		return false
	}
	if !ec2.advance(ctx, run, store.Case{Runner: *run}.Adopt(ec2.cfg.Now(), e.in.ID)) {
		return false
	}
	ec2.note(run, Adopt, "instance "+e.in.ID)
	return true
}

// terminated records what came of one instance in this run.
func (ec2 atEC2) terminated(ctx context.Context, e *ending) {
	run, asked := *e.runner, false
	switch {
	case e.called && ec2.cfg.DryRun:
		ec2.note(e.runner, Terminate, "instance "+run.InstanceID)
	case e.called && e.err == nil:
		asked = true
		ec2.note(e.runner, Terminate, "instance "+run.InstanceID)
	case e.called && errors.Is(e.err, fleet.ErrNotFound):
		e.shown = false
	case e.called && errors.Is(e.err, errLater):
		ec2.note(e.runner, Skip, e.err.Error())
		return
	case e.called:
		ec2.fail("runner", run.ID, fmt.Errorf("terminate instance %s of runner %s: %w", run.InstanceID, run.ID, e.err))
		if refused(e.err) {
			ec2.alarm(store.AlarmTerminate, run.ID, "a machine cannot be terminated; its own timer ends it at its hard limit",
				"runner", run.ID, "request", run.Request, "trace", run.Trace, "instance", run.InstanceID, "hard", run.Hard)
		}
		return
	case e.shown:
		ec2.note(e.runner, Wait, "EC2: "+string(e.in.State))
	}
	d, gone := store.Case{Runner: run}.Looked(ec2.cfg.Now(), ec2.cfg.Limits, asked, e.shown)
	if gone {
		ec2.finish(ctx, e.runner, fleet.Instance{ID: run.InstanceID}, "EC2 does not know the instance")
		return
	}
	if !e.shown {
		ec2.note(e.runner, Missing, "EC2 does not find the instance, since "+d.Runner.MissingAt.UTC().Format("15:04:05"))
	}
	ec2.advance(ctx, e.runner, d)
}
