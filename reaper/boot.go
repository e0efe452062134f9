package reaper

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// boot is a runner whose machine was launched and is not online yet, and what is
// around it.
type boot struct {
	runner *store.Runner
	around store.Case
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
func (ec2 atEC2) boot(ctx context.Context, all []*boot) {
	runners := make([]*store.Runner, len(all))
	for i, b := range all {
		runners[i] = b.runner
	}
	views := ec2.lookUp(ctx, runners)
	for _, b := range all {
		in, seen := views[fleet.PlaceOf(*b.runner)].instances[b.runner.InstanceID]
		ec2.guard("runner", b.runner.ID, func() {
			switch {
			case ec2.isLate(ctx):
			case seen && in.State.Over():
				ec2.finish(ctx, b.runner, in, over(in))
			case seen && doomed(in.State):
				*b.runner = ec2.died(ctx, b.around, in)
			default:
				*b.runner = ec2.usable(ctx, b.around)
			}
		})
	}
}

// doomed reports whether a machine in that state never comes online: EC2 starts
// none again.
func doomed(s fleet.State) bool {
	return s == fleet.ShuttingDown || s == fleet.Stopping || s == fleet.Stopped
}

// died drains a runner whose machine is on its way to its end. It returns the runner as
// it then is.
func (ec2 atEC2) died(ctx context.Context, c store.Case, in fleet.Instance) store.Runner {
	d := c.Died(ec2.cfg.Now(), ec2.cfg.Limits, shown(in))
	if !ec2.apply(ctx, &d.Runner, d) {
		return c.Runner
	}
	ec2.note(&d.Runner, Drain, over(in))
	ec2.diedAlarm(&d.Runner, in)
	ec2.settled(c, d)
	return d.Runner
}

// shown is what a rule reads of an instance.
func shown(in fleet.Instance) store.Instance {
	return store.Instance{ID: in.ID, State: string(in.State), Code: in.ReasonCode, Reason: in.Reason}
}

// settled reports what a decision made of the request of a case, if it changed that.
func (p *pass) settled(c store.Case, d store.Decision) {
	if d.Request.State != c.Request.State {
		p.note(&d.Request, Settle, story(d.Request))
	}
}

// diedAlarm tells people of a machine that died of what they have to mend, once in
// a run for each account and reason.
func (p *pass) diedAlarm(run *store.Runner, in fleet.Instance) {
	if store.PeopleMend(in.ReasonCode) {
		p.alarm(store.AlarmLaunchRefused, run.Account+" "+in.ReasonCode, "EC2 ends machines when they are launched: "+run.End.Text,
			"runner", run.ID, "request", run.Request, "trace", run.Trace, "account", run.Account, "region", run.Region,
			"instance", in.ID, "placement", run.Placement().String(), "code", in.ReasonCode)
	}
}
