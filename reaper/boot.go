package reaper

import (
	"context"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// boot is a runner whose machine was launched and is not online yet, and what is
// around it.
type boot struct {
	runner *store.Runner
	around around
}

// boots reports whether a usable runner's machine may die without a word to
// anybody but EC2: its agent has not said yet that it is online.
func boots(r store.Runner) bool {
	return r.State.Usable() && r.InstanceID != "" && r.OnlineAt.IsZero()
}

// boot asks EC2 for the machines that are on their way to be online, all of a place
// at once, so that one which EC2 ends at once is known in this run and not when
// boot_by has passed. A machine that EC2 does not show may still come to be seen:
// nothing follows from that.
func (r *run) boot(ctx context.Context, all []*boot) {
	runners := make([]*store.Runner, len(all))
	for i, b := range all {
		runners[i] = b.runner
	}
	views := r.look(ctx, runners)
	for _, b := range all {
		in, shown := views[placeOf(b.runner)].instances[b.runner.InstanceID]
		r.guard("runner", b.runner.ID, func() {
			switch {
			case r.isLate(ctx):
			case shown && in.State.Over():
				r.finish(ctx, b.runner, in, over(in))
			case shown && doomed(in.State):
				*b.runner = r.died(ctx, b.around, in)
			default:
				*b.runner = r.usable(ctx, b.around)
			}
		})
	}
}

// doomed reports whether a machine in that state never comes online: EC2 starts
// none again.
func doomed(s fleet.State) bool {
	return s == fleet.ShuttingDown || s == fleet.Stopping || s == fleet.Stopped
}

// died drains a runner whose machine is on its way to its end, and tells the
// request that waits for it in the same commit. It returns the runner as it then is.
func (r *run) died(ctx context.Context, a around, in fleet.Instance) store.Runner {
	now := r.cfg.Now()
	drained, lock := store.Died(now, a.runner, a.lock, string(in.State), in.ReasonCode, in.Reason)
	changes := []store.Change{store.Put(&drained)}
	if lock.State != a.lock.State {
		changes = append(changes, store.Put(&lock))
	}
	request, settled, again := store.Settle(now, r.cfg.Limits, a.request, drained)
	if settled {
		changes = append(changes, store.Put(&request))
	}
	if !r.commit(ctx, &drained, changes...) {
		return a.runner
	}
	r.note(&drained, Drain, over(in))
	r.diedAlarm(&drained, in)
	if settled {
		r.settled(ctx, now, &request, again)
	}
	return drained
}

// settled reports how a request was settled, and sends its next try.
func (r *run) settled(ctx context.Context, now time.Time, q *store.Request, again bool) {
	r.note(q, Settle, story(*q, Settle))
	if again {
		r.send(ctx, queue.StartOf(*q), q.DueAt.Sub(now))
	}
}

// diedAlarm tells people of a machine that died of what they have to mend, once in
// a run for each account and reason.
func (r *run) diedAlarm(run *store.Runner, in fleet.Instance) {
	if store.PeopleMend(in.ReasonCode) {
		r.alarm(store.AlarmLaunchRefused, run.Account+" "+in.ReasonCode, "EC2 ends machines when they are launched: "+run.End.Text,
			"runner", run.ID, "request", run.Request, "trace", run.Trace, "account", run.Account, "region", run.Region,
			"instance", in.ID, "placement", run.Placement().String(), "code", in.ReasonCode)
	}
}
