package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
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
			ec2.unseen(run, v.err)
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
			e.called = true
			calls = append(calls, e)
		}
	}
	if !ec2.cfg.DryRun {
		ends := make([]end, len(calls))
		for i, e := range calls {
			ends[i] = end{fleet.PlaceOf(*e.runner), e.runner.InstanceID}
		}
		for i, err := range ec2.terminateAll(ctx, ends) {
			calls[i].err = err
		}
	}
	ec2.record(len(all), func(q *pass, i int) {
		q.guard("runner", all[i].runner.ID, func() { atEC2{q}.terminated(ctx, all[i]) })
	})
}

// end is an instance that EC2 is to end.
type end struct {
	at fleet.Place
	id string
}

// terminateAll asks EC2 to end instances, in groups for each place, and returns what came
// of each. For the sake of one that it does not know, or that is protected, EC2 refuses a
// group. Then, and after any other answer but that it throttles, it is asked about each
// alone.
func (ec2 atEC2) terminateAll(ctx context.Context, ends []end) []error {
	errs := queue.Each(len(ends), errLater)
	var places []fleet.Place
	at := map[fleet.Place][]int{}
	for i, e := range ends {
		if at[e.at] == nil {
			places = append(places, e.at)
		}
		at[e.at] = append(at[e.at], i)
	}
	var groups [][]int
	for _, place := range places {
		groups = slices.AppendSeq(groups, slices.Chunk(at[place], fleet.MaxTerminate))
	}
	alone := ec2.terminateEach(ctx, ends, groups, errs)
	ec2.terminateEach(ctx, ends, alone, errs)
	return errs
}

// terminateEach makes a call for each group, and puts its outcome into errs. It
// returns those of refused groups, each alone.
func (ec2 atEC2) terminateEach(ctx context.Context, ends []end, groups [][]int, errs []error) (alone [][]int) {
	ec2.each(ctx, len(groups), accounts(ec2AtOnce, func(i int) string { return ends[groups[i][0]].at.Account }), func(q *pass, n int) {
		ids := make([]string, len(groups[n]))
		for k, i := range groups[n] {
			ids[k] = ends[i].id
		}
		place := ends[groups[n][0]].at
		err := atEC2{q}.askEC2(ctx, place, callLimit, func(ctx context.Context) error {
			return q.cfg.Fleet.Terminate(ctx, place, ids...)
		})
		for _, i := range groups[n] {
			errs[i] = err
		}
	})
	for _, group := range groups {
		e, answered := errors.AsType[*fleet.Error](errs[group[0]])
		if len(group) > 1 && answered && e.Kind != fleet.ErrThrottled {
			for _, i := range group {
				alone = append(alone, []int{i})
			}
		}
	}
	return alone
}

// find looks up the instances of runners that have none on record, by client
// token and tag, and records what it finds. It returns those that continue.
func (ec2 atEC2) find(ctx context.Context, unknown []*ending) []*ending {
	ec2.each(ctx, len(unknown), accounts(ec2AtOnce, func(i int) string { return unknown[i].runner.Account }), func(q *pass, i int) {
		e := unknown[i]
		e.err = atEC2{q}.askEC2(ctx, fleet.PlaceOf(*e.runner), callLimit, func(ctx context.Context) (err error) {
			e.in, err = q.cfg.Fleet.ByToken(ctx, fleet.PlaceOf(*e.runner), e.runner.ID, e.runner.ClientToken())
			return err
		})
	})
	continues := make([]bool, len(unknown))
	ec2.record(len(unknown), func(q *pass, i int) {
		q.guard("runner", unknown[i].runner.ID, func() { continues[i] = atEC2{q}.found(ctx, unknown[i]) })
	})
	var out []*ending
	for i, e := range unknown {
		if continues[i] {
			out = append(out, &ending{runner: e.runner, in: e.in, shown: e.err == nil, err: errLater})
		}
	}
	return out
}

// found records what a look-up came to, and reports whether the end continues.
func (ec2 atEC2) found(ctx context.Context, e *ending) bool {
	run := e.runner
	switch {
	case errors.Is(e.err, fleet.ErrNotFound):
		return true
	case e.err != nil:
		ec2.unreachable(fleet.PlaceOf(*run), fmt.Errorf("find the instance of runner %s in %s: %w", run.ID, fleet.PlaceOf(*run), e.err))
		ec2.unseen(run, e.err)
		return false
	case e.in.State.Over():
		ec2.finish(run, e.in, whyOver(e.in))
		return false
	}
	if _, ok := ec2.advance(ctx, run, func(c store.Case) store.Decision { return c.Adopt(ec2.cfg.Now(), e.in.ID) }); !ok {
		return false
	}
	ec2.note(run, Adopt, "instance "+e.in.ID)
	return true
}

// terminated records the outcome for one instance in this run.
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
	if d, gone := (store.Case{Runner: run}).Looked(ec2.cfg.Now(), ec2.cfg.Limits, asked, e.shown); gone {
		ec2.finish(e.runner, fleet.Instance{ID: run.InstanceID}, "EC2 does not know the instance")
		return
	} else if !e.shown {
		ec2.note(e.runner, Missing, "EC2 does not find the instance, since "+d.Runner.MissingAt.UTC().Format("15:04:05"))
	}
	ec2.advance(ctx, e.runner, func(c store.Case) store.Decision {
		d, _ := c.Looked(ec2.cfg.Now(), ec2.cfg.Limits, asked, e.shown)
		return d
	})
}
