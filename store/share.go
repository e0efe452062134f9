package store

import "time"

// Shareable reports whether the lock's runner may be shared by r now: it is
// live and was heard of lately, or is launching and may still boot; its time is
// not nearly up; and its hard limit leaves room for all of r's timeout. A live one
// must be Confirmed too, and not have been shared in vain for as long as it may
// idle. A request that is Overdue shares nothing.
func Shareable(now time.Time, lim Limits, r Request, l Lock, p Pulse) bool {
	if r.Mode != Shared || r.Overdue(now) || l.Exp.Before(now.Add(lim.ShareMargin)) || l.Hard.Before(l.usable(now).Add(r.Timeout())) {
		return false
	}
	switch l.State {
	case LockLive:
		return now.Sub(p.SeenOf(l.Runner)) <= lim.Silent && !l.vain(now, lim)
	case LockLaunching:
		return now.Before(l.BootBy)
	}
	return false
}

// usable returns when a request's timeout begins: once the runner can be used, which
// for one that is launching is at boot_by.
func (l Lock) usable(now time.Time) time.Time {
	if l.State == LockLaunching {
		return maxTime(now, l.BootBy)
	}
	return now
}

// vain reports whether requests have shared the runner for as long as one may idle, and
// no job came: GitHub may show a runner online that can get no job, when its one job
// was given to another (actions/runner 2.336.0, src/Runner.Listener/Runner.cs: 409).
func (l Lock) vain(now time.Time, lim Limits) bool {
	return !l.Busy && !l.CountedOn.IsZero() && now.Sub(l.CountedOn) > lim.Idle
}

// Confirmed reports whether GitHub showed the live runner that the lock names
// online lately, with the config that it has now. A launching one needs no word
// of GitHub: who shares it waits.
func (l Lock) Confirmed(now time.Time, lim Limits) bool {
	return l.State == LockLaunching || l.State == LockLive && !l.ConfirmedAt.IsZero() && now.Sub(l.ConfirmedAt) <= lim.Confirmed
}

// Share gives an accepted request the runner that Shareable and Confirmed allowed: ready
// at once on a live lock, waiting on a launching one. It needs the request and the lock,
// which is checked when it stays as it is.
func (c Case) Share(now time.Time, lim Limits) Decision {
	return decide(c, func(d *Decision) {
		r, l := &d.Request, &d.Lock
		exp := minTime(maxTime(l.Exp, l.usable(now).Add(r.Timeout())), l.Hard)
		if l.State == LockLive && !l.Busy && l.CountedOn.IsZero() {
			l.CountedOn = now
		}
		if l.Joined == "" || exp.Sub(l.Exp) > lim.ShareStep || now.Sub(l.SharedAt) > lim.ShareStep {
			if l.Joined == "" {
				l.Joined = r.ID
			}
			l.Exp, l.SharedAt = exp, now
		}
		if l.State == LockLive {
			*r = r.ready(now, lim, l.Runner, "shares runner "+l.Runner)
		} else {
			*r = r.await(now, lim, l.Runner, l.BootBy, "shares runner "+l.Runner)
			r.DueAt = minTime(r.DueAt, now.Add(lim.ReaperPeriod)) // who confirms the runner does not know of r
		}
		d.check(KindLock)
	})
}

// Unblock decides about a lock that an accepted request can neither share nor take: its
// runner is drained, or the request has to wait until the lock is looked at again. The
// request of the case is the one that launched that runner. It needs all but the quota.
//
// A live runner that is well but has too little time left hands over: what is
// still queued for its label is served by its successor, which has the same one. console is
// what the machine's Console says, if it is NotBooted.
func (c Case) Unblock(now time.Time, lim Limits, console string) Decision {
	return decide(c, func(d *Decision) {
		end, until := blocked(now, lim, d.Lock, d.Pulse, d.Runner, d.Request)
		if end == "" {
			d.Wait = Wait{WaitRunner, until}
			return
		}
		d.drain(now, notBooted(end, console))
		d.check(KindLock)
	})
}

// blocked returns why the runner of a lock is to be drained, or until when to wait.
func blocked(now time.Time, lim Limits, l Lock, p Pulse, run Runner, launcher Request) (end string, until time.Time) {
	if run.Version == 0 || run.State.Final() {
		return "", now.Add(lim.SettleSlack) // the lock is about to be emptied
	}
	if why := DrainReason(now, lim, run, l, p, launcher); why != "" {
		return why, time.Time{}
	}
	seen := run.seen(p)
	if l.State == LockLive && now.Sub(seen) <= lim.Silent {
		return EndHandover, time.Time{}
	}
	if l.State == LockLive {
		return "", seen.Add(lim.Lost + time.Second)
	}
	return "", now.Add(lim.SettleSlack)
}
