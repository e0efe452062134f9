package store

import "time"

// ReviewRunner drains a usable runner that has to, and else has a worker continue with one
// that seems to be forgotten: a step is outstanding and no worker is at it. The claim is
// free, the time to wait is over, and nobody wrote the runner for a while. It also has one
// ask GitHub about the workflow job that a runner puzzles by. It needs all but the quota.
//
// The request that nobody wants, the limits and a lock that names another runner cannot
// be otherwise a moment later; a share is excluded by the lock's version, and a
// heartbeat by the pulse's. console is what the machine's Console says, if it is NotBooted.
func (c Case) ReviewRunner(now time.Time, lim Limits, console string) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if why := DrainReason(now, lim, *r, d.Lock, d.Pulse, d.Request); why != "" {
			d.drain(now, notBooted(why, console))
			switch why {
			case EndLost:
				d.check(KindPulse)
			case EndCompromised:
				d.Alarm = AlarmCompromised
			}
			return
		}
		step := NextStep(now, *r, d.Lock) // StepConfirm is the reaper's too: the worker's message comes again on its own
		if step != StepNone && step != StepConfirm && !r.Held(now, "") &&
			now.Sub(r.WaitUntil) >= lim.Resend && now.Sub(r.UpdatedAt) >= lim.Resend {
			d.send(r, now)
		}
		if r.puzzles(now, d.Request) {
			d.send(&d.Request, now)
		}
	})
}

// Remind has a worker ask GitHub about a runner that waits to come into use and that
// nobody has asked about. It needs the runner.
func (c Case) Remind(now time.Time) Decision {
	return decide(c, func(d *Decision) {
		if d.Runner.OnlineAt.IsZero() && d.Runner.MissedAt.IsZero() {
			d.send(&d.Runner, now)
		}
	})
}

// Adopt records the instance that a launch left unrecorded, and has a worker continue with
// the runner. It needs the runner.
func (c Case) Adopt(now time.Time, instance string) Decision {
	return decide(c, func(d *Decision) {
		d.Runner, _ = launched(now, d.Runner, instance)
		if NextStep(now, d.Runner, Lock{}) != StepNone { // with an instance, the lock has no say
			d.send(&d.Runner, now)
		}
	})
}

// WaitsUntil returns when what an accepted request waits for is expected to be over,
// which may be after its give_up_at. Zero: it waits for nothing.
func (r Request) WaitsUntil() time.Time {
	switch {
	case r.State != Accepted || r.Wait == "" || r.Wait == WaitQuota || r.Wait == WaitBudget || r.Wait == WaitHeld: // for how long, nobody knows
		return time.Time{}
	case r.Wait == WaitPaced && r.Slot.After(r.DueAt):
		return r.Slot
	}
	return r.DueAt
}

// Wakes reports whether r waits for the account's quota, and may be woken: it is not
// given up, and was not woken a moment ago.
func (r Request) Wakes(now time.Time, lim Limits) bool {
	return r.parked() && r.Wait == WaitQuota && !r.Overdue(now) && r.forgotten(now, lim)
}

// parked reports whether r waits for minutes rather than for a moment: for the
// account's quota, or a workflow job for GitHub or after it lost many machines. No message
// of it is under way meanwhile; the reaper sends one once r is due.
func (r Request) parked() bool {
	return r.State == Accepted && (r.Wait == WaitQuota || r.OfJob() && (r.Wait == WaitHeld || r.Wait == WaitBackoff))
}

// forgotten reports whether the reaper is to send the start message of r: once r is
// parked and due, or when its due_at is so long past that its own was lost.
//
// A start that went out a moment ago is not sent again: another run was faster.
// Half of Resend is longer than any two runs overlap, and still shorter than the
// time to the next one. After each send the next one takes twice as long: what is
// behind a backlog would only add to it.
func (r Request) forgotten(now time.Time, lim Limits) bool {
	wait := lim.Resend << min(max(0, r.Sends-1), maxPatience)
	if r.parked() {
		wait = 0
	}
	return r.State == Accepted && now.Sub(r.DueAt) >= wait && now.Sub(r.SentAt) >= max(wait, lim.Resend/2)
}

// maxPatience is how often Resend doubles at most: to 8 minutes, so that who is tried
// for long is not forgotten.
const maxPatience = 3

// unpicked reports whether a poll should send the start message of r again:
// once, when nothing took it up a while after its first send.
func (r Request) unpicked(now time.Time, lim Limits) bool {
	return r.State == Accepted && r.Sends == 1 && r.Wait == "" && now.Sub(r.SentAt) >= lim.PollResend
}

// Poll decides what a look at the request by its caller changes: it settles, or its start
// message is sent again. It needs the request and the runner that it names.
func (c Case) Poll(now time.Time, lim Limits) Decision {
	return decide(c, func(d *Decision) {
		if d.settle(now, lim); !d.wrote(KindRequest) && d.Request.unpicked(now, lim) {
			d.Request = d.Request.sent(now)
			d.send(&d.Request, now)
		}
	})
}

// Outcome is what a review made of a request.
type Outcome string

// The outcomes.
const (
	Settled Outcome = "settled"  // by the runner that it waits for
	GivenUp Outcome = "given up" // it is Overdue
	WaitsOn Outcome = "waits on" // its runner may still come online
	Resent  Outcome = "resent"   // its start message is sent again, which was lost
	Left    Outcome = ""         // there is nothing to do now
)

// ReviewRequest decides what becomes of a request that is due. It needs the request and
// the runner that it names.
func (c Case) ReviewRequest(now time.Time, lim Limits) (_ Decision, out Outcome) {
	d := decide(c, func(d *Decision) { out = d.reviewRequest(now, lim) })
	return d, out
}

func (d *Decision) reviewRequest(now time.Time, lim Limits) Outcome {
	r := &d.Request
	if d.settle(now, lim); d.wrote(KindRequest) {
		return Settled
	}
	switch {
	case r.Overdue(now):
		*r = r.tried(d.Runner).giveUp(now, lim, d.Runner)
		return GivenUp
	case r.State == Waiting:
		r.DueAt = now.Add(lim.ReaperPeriod)
		d.look(now)
		return WaitsOn
	case r.forgotten(now, lim):
		*r = r.sent(now)
		// It is due again half of Resend later, before the next run, and behind all that
		// have waited longer: the index has it where it belongs, whatever process makes
		// that run. That its time is past keeps any worker's clock from calling it early.
		r.DueAt = maxTime(r.DueAt, now.Add(-lim.Resend/2))
		d.send(r, r.DueAt)
		return Resent
	}
	return Left
}
