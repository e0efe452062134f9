package reaper

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// boots reports whether a usable runner's machine may die without a word to
// anybody but EC2: its agent has not said yet that it is online.
func boots(r store.Runner) bool {
	return r.State.Usable() && r.InstanceID != "" && r.OnlineAt.IsZero()
}

// review drains those of the runners that have to. It asks EC2 for the machines that are
// on their way to be online, all of a place at once, so that one which EC2 ends at once
// is known in this run and not when boot_by has passed. A machine that EC2 does not show
// may still come to be seen: nothing follows from that.
func (p *pass) review(ctx context.Context, looks []*looked) {
	var booting []*store.Runner
	var usable []*looked
	for _, l := range looks {
		if l.known {
			usable = append(usable, l)
		}
		if l.known && boots(*l.runner) {
			booting = append(booting, l.runner)
		}
	}
	views := atEC2{p}.lookUp(ctx, booting)
	consoles := atEC2{p}.consoles(ctx, usable)
	p.each(ctx, len(usable), common(commitsAtOnce), func(q *pass, i int) {
		run, c := usable[i].runner, usable[i].around
		var in fleet.Instance
		var seen bool
		if boots(*run) {
			in, seen = views[fleet.PlaceOf(*run)].instances[run.InstanceID]
		}
		q.guard("runner", run.ID, func() {
			switch {
			case seen && in.State.Over():
				q.finish(run, in, whyOver(in))
			case seen && doomed(in.State):
				*run = q.died(ctx, c, in)
			default:
				*run = q.usable(ctx, c, consoles[run.ID])
			}
		})
	})
}

// doomed reports whether a machine in that state never comes online: EC2 starts
// none again.
func doomed(s fleet.State) bool {
	return s == fleet.ShuttingDown || s == fleet.Stopping || s == fleet.Stopped
}

// died drains a runner whose machine is on its way to its end. It returns the runner as
// it then is.
func (p *pass) died(ctx context.Context, c store.Case, in fleet.Instance) store.Runner {
	c, d, ok := p.decide(ctx, &c.Runner, c, func(c store.Case) store.Decision {
		return c.Died(p.cfg.Now(), p.cfg.Limits, shown(in))
	})
	if !ok {
		return c.Runner
	}
	p.note(&d.Runner, Drain, whyOver(in))
	p.diedAlarm(&d.Runner, in)
	p.settled(c, d)
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

// diedAlarm tells people of a machine that died of what they have to fix, once in
// a run for each account and reason.
func (p *pass) diedAlarm(run *store.Runner, in fleet.Instance) {
	if store.PeopleMend(in.ReasonCode) {
		p.alarm(store.AlarmLaunchRefused, run.Account+" "+in.ReasonCode, "EC2 ends machines when they are launched: "+run.End.Text,
			"runner", run.ID, "request", run.Request, "trace", run.Trace, "account", run.Account, "region", run.Region,
			"instance", in.ID, "placement", run.Placement().String(), "code", in.ReasonCode)
	}
}
