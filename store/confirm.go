package store

import "time"

// Registration is what GitHub shows of a runner's current registration.
type Registration struct {
	Absent bool // GitHub does not have it: 404 by id, which is no proof that it never comes back
	Online bool // its program is connected, with a job or without
}

// Verdict is what GitHub's word means for a runner.
type Confirmation string

// The verdicts.
const (
	Confirmed   Confirmation = "confirmed"   // jobs can come to it
	Unconfirmed Confirmation = "unconfirmed" // not now: ask again in a while
	Lost        Confirmation = "lost"        // it drains
)

// Confirm decides what GitHub's word about its registration makes of the runner, and
// of the request that launched it. It needs the runner and its lock; without the
// request, or with another than the launching one, that learns of it later.
func (c Case) Confirm(now time.Time, lim Limits, seen Registration) (Decision, Confirmation) {
	verdict := Unconfirmed
	d := decide(c, func(d *Decision) {
		d.Runner, d.Lock, verdict = confirm(now, lim, d.Runner, d.Lock, seen)
		if d.wrote(KindRunner) || d.wrote(KindLock) {
			d.check(KindRunner)
			d.check(KindLock)
		}
		d.settle(now, lim)
	})
	return d, verdict
}

// confirm decides what GitHub's word makes of a usable runner that its lock names.
// A runner that booted comes into use by it; one that is in use may be shared again
// for Limits.Confirmed. One that GitHub does not show is missed at first: a one-job
// registration is gone as soon as its job is done, before the machine can say so.
// Missed for Limits.Silent, in which a machine would have said so, or for Limits.Lost
// while GitHub has it and shows it offline, it drains. Before it was ever online,
// offline means nothing until its boot limit.
func confirm(now time.Time, lim Limits, r Runner, l Lock, seen Registration) (Runner, Lock, Confirmation) {
	switch {
	case !r.State.Usable() || !l.Names(r.ID) || !r.Registered():
		return r, l, Unconfirmed
	case seen.Online && r.OnlineAt.IsZero():
		l.State, l.ConfirmedAt = LockLive, maxTime(now, r.ListeningAt)
		r.OnlineAt, r.MissedAt = now, time.Time{}
		return r.transition(now, RunnerOnline, "GitHub shows it online"), l, Confirmed
	case seen.Online:
		l.ConfirmedAt, r.MissedAt = maxTime(now, r.ListeningAt), time.Time{}
		return r, l, Confirmed
	case r.MissedAt.IsZero() && seen.Absent:
		r.MissedAt = now
		return r.note(now, "GitHub does not have its registration"), l, Unconfirmed
	case r.MissedAt.IsZero():
		r.MissedAt = now
		return r.note(now, "GitHub shows it offline"), l, Unconfirmed
	case seen.Absent && now.Sub(r.MissedAt) >= lim.Silent:
		r, l = drain(now, r, l, NewEnd(EndUnlisted))
		return r, l, Lost
	case !seen.Absent && !r.OnlineAt.IsZero() && now.Sub(r.MissedAt) >= lim.Lost:
		r, l = drain(now, r, l, NewEnd(EndOffline))
		return r, l, Lost
	}
	return r, l, Unconfirmed
}

// Registered reports whether r has a registration at GitHub that can still get a
// job, as far as is recorded: a config that no job used up and that the machine
// does not want replaced.
func (r Runner) Registered() bool {
	if r.Config.RunnerID == 0 || r.Config.Used || r.needsMint() {
		return false
	}
	for _, g := range r.Names {
		if g.N == r.Config.N {
			return true
		}
	}
	return false
}

// usedUp records that no job can come by the current config any more.
func (r Runner) usedUp(l Lock) (Runner, Lock) {
	r.ListeningAt, r.MissedAt, r.Config.Used = time.Time{}, time.Time{}, true
	if l.Names(r.ID) {
		l.ConfirmedAt, l.Busy, l.CountedOn = time.Time{}, false, time.Time{}
	}
	return r, l
}

// ConfirmAfter returns when to ask GitHub again about r that it did not show
// online: after ConfirmAgain at first, and ever later the longer it takes, up to
// a heartbeat.
func (r Runner) ConfirmAfter(now time.Time, lim Limits) time.Time {
	waited := now.Sub(r.ListeningAt) / 2
	return now.Add(min(max(waited, lim.ConfirmAgain), lim.Heartbeat))
}
