package store

import (
	"fmt"
	"slices"
	"time"
)

// drain is the only way out of a usable state but failure: nothing new happens
// on the runner. The lock is changed, to draining, only if it names r. The sealed
// config is dropped: no call of a machine that drains is answered with one, and it
// is most of the record.
func drain(now time.Time, r Runner, l Lock, why Failure) (Runner, Lock) {
	if !r.State.Usable() {
		return r, l
	}
	if why.Code == EndNoLaunch && r.Said.Code != "" {
		why.Text += fmt.Sprintf(" EC2's last answer, %d times: %s (%s).", r.Said.Times, r.Said.Text, r.Said.Code)
	}
	if u := r.Unminted; u != nil && u.Code == why.Code && why.Text == endTexts[why.Code] {
		why.Text += " " + u.Text
	}
	r.End, r.DrainingAt, r.Wait, r.WaitUntil = &why, now, "", time.Time{}
	r.Config.Sealed = ""
	r = r.transition(now, RunnerDraining, why.Code)
	if l.Names(r.ID) {
		l.State = LockDraining
	}
	return r, l
}

// DrainReason returns why a usable runner has to drain, or "". req is the
// request that launched it, or that it was given to since; absent, it counts as ended
// well.
func DrainReason(now time.Time, lim Limits, r Runner, l Lock, p Pulse, req Request) string {
	if !r.State.Usable() {
		return ""
	}
	unwanted := !r.OfJob() && req.Version != 0 && (req.State == Cancelled || req.State == Expired || req.State == Failed)
	switch {
	case r.Mismatched():
		return EndCompromised
	case !now.Before(r.Hard):
		return EndHard
	case !l.Names(r.ID) && r.State != RunnerBusy:
		return EndHandover
	}
	if why := r.overdue(now, lim, l, p); why != "" && l.Names(r.ID) {
		return why
	}
	if unwanted && (r.Mode == Ephemeral || l.Joined == "") && r.State != RunnerBusy || r.orphaned(now, lim, req) {
		return EndUnwanted
	}
	return ""
}

// overdue returns which of the times has passed that a runner has while its lock names
// it, or "".
func (r Runner) overdue(now time.Time, lim Limits, l Lock, p Pulse) string {
	switch {
	case !now.Before(l.Exp) && r.unused(now, lim):
		return EndExpired
	case r.InstanceID == "" && !now.Before(l.BootBy):
		return EndNoLaunch
	case r.unregistered(now, l):
		return r.Unminted.Code
	case r.Boot.At.IsZero() && !now.Before(l.BootBy):
		return EndNoBoot
	case r.OnlineAt.IsZero() && !now.Before(l.BootBy.Add(lim.OnlineGrace)) && (r.ListeningAt.IsZero() || !r.MissedAt.IsZero()):
		return EndNotOnline // one that listens, and that GitHub tells nothing of, may well be online
	case !r.Boot.At.IsZero() && now.Sub(r.seen(p)) > lim.Lost:
		return EndLost
	}
	return ""
}

// unregistered reports whether a runner has to boot no more since GitHub registered
// nothing for it. Its machine may well have called: there was no config to answer with.
func (r Runner) unregistered(now time.Time, l Lock) bool {
	return l.Names(r.ID) && r.Boot.At.IsZero() && !now.Before(l.BootBy) && r.Config.N == 0 && r.Unminted != nil
}

// unused reports whether nothing is queued for a runner past its exp, as far as can
// be seen: GitHub hands out what is queued as soon as the program listens, so that
// half a minute without a job means that there is none. Before it listens, a next
// config may be on its way.
func (r Runner) unused(now time.Time, lim Limits) bool {
	switch {
	case r.OnlineAt.IsZero():
		return true
	case r.jobRuns():
		return false
	case r.ListeningAt.After(r.Job.EndedAt):
		return now.Sub(maxTime(r.ListeningAt, r.OnlineAt)) >= lim.ShareStep
	}
	return now.Sub(maxTime(r.OnlineAt, r.Job.EndedAt)) >= lim.OnlineGrace
}

// jobRuns reports whether a job is known to have begun and not to have ended.
func (r Runner) jobRuns() bool { return !r.Job.StartedAt.IsZero() && r.Job.EndedAt.IsZero() }

// seen is the last sign of life.
func (r Runner) seen(p Pulse) time.Time {
	return maxTime(r.Boot.At, maxTime(r.OnlineAt, p.SeenOf(r.ID)))
}

// saidEnd maps what a machine gives as its reason to the reasons it may give. Why a
// machine could not be set up it alone knows: who asked for it reads that.
func saidEnd(e Event) Failure {
	if !slices.Contains(SaidReasons, e.Reason) {
		return NewEnd(EndAgent)
	}
	why := NewEnd(e.Reason)
	if e.Reason == EndSetup && e.Detail != "" {
		why.Text += " " + e.Detail
	}
	return why
}

// Drain drains the runner. It needs the runner and its lock.
func (c Case) Drain(now time.Time, why Failure) Decision {
	return decide(c, func(d *Decision) { d.drain(now, why) })
}

// Stop ends what the request uses, because its caller said so: the request itself,
// after what its runner means for it, and that runner when no other request uses it,
// or force is set. It needs the request, its runner and its lock.
func (c Case) Stop(now time.Time, lim Limits, by string, force bool) Decision {
	return decide(c, func(d *Decision) {
		d.settle(now, lim)
		d.Sends = nil // it is not tried again
		r, run, l := d.Request, d.Runner, d.Lock
		if run.Version != 0 && run.ID == r.Runner && run.State.Usable() &&
			(force || r.Mode == Ephemeral || run.Request == r.ID && l.Names(run.ID) && l.Joined == "") {
			d.drain(now, NewEnd(EndStopped))
		}
		if !r.State.Final() {
			d.Request = r.cancel(now, lim, by)
		}
	})
}
