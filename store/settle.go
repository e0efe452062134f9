package store

import "time"

// Settle lets a waiting request come to what its runner means for it. It needs the
// request and the runner that it names.
func (c Case) Settle(now time.Time, lim Limits) Decision {
	return decide(c, func(d *Decision) { d.settle(now, lim) })
}

// settle decides what a waiting request comes to, from the runner that it waits
// for. It changes nothing while that runner may still come online, and gives no
// runner up that may still hold a live registration. A runner that was online only
// after give_up_at came too late: the request expires, whenever it is looked at.
// When again is true, the request is tried again from its DueAt on.
func settle(now time.Time, lim Limits, r Request, run Runner) (_ Request, again bool) {
	if r.State != Waiting {
		return r, false
	}
	if r.OfJob() {
		return settleJob(now, r, run)
	}
	if run.Version == 0 { // long ended: its record is deleted
		run = Runner{ID: r.Runner, State: RunnerEnded}
	}
	if !run.OnlineAt.IsZero() {
		if run.OnlineAt.After(r.GiveUpAt) {
			if !r.Overdue(now) {
				return r, false // clocks differ: a later look expires it
			}
			return r.tried(run).expireFor(now, lim, "runner "+run.ID+" was online only at "+run.OnlineAt.UTC().Format(time.TimeOnly)+" UTC"), false
		}
		r = r.ready(now, lim, run.ID, "runner online")
		r.ReadyAt = run.OnlineAt // whenever somebody looks
		return r, false
	}
	why := Failure{Code: "runner_ended", Text: "The runner ended before it was online.", Retryable: true}
	if run.End != nil {
		why = *run.End
	}
	over := run.State.Final() ||
		!run.State.Usable() && (run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero())
	switch {
	case !run.State.Usable() && !why.Retryable:
		return r.tried(run).fail(now, lim, why), false
	case over:
		r = r.tried(run).retry(now, lim, why)
		return r, r.State == Accepted
	}
	return r, false
}
