package store

import (
	"fmt"
	"slices"
	"time"
)

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
	return c.decide(func(d *Decision) {
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
// still queued for its label is served by its successor, which has the same one.
func (c Case) Unblock(now time.Time, lim Limits) Decision {
	return c.decide(func(d *Decision) {
		end, until := blocked(now, lim, d.Lock, d.Pulse, d.Runner, d.Request)
		if end == "" {
			d.Wait = Wait{WaitRunner, until}
			return
		}
		d.drain(now, NewEnd(end))
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

// Intent is what the launch of a machine is made of.
type Intent struct {
	Runner       string // a fresh id
	ControlPlane string
	Plan         []Placement
	Launch       Launch
	MaxRunners   int
	Claim        Claim
	Slots        Slots
}

// Slots says when RunInstances may be called.
type Slots struct {
	Pacing Pacing
	// Latest is the latest slot that the worker can still use; zero: none.
	Latest time.Time
}

// Begin turns an accepted request whose lock is free into a waiting one with a
// new runner, claimed by the worker. The runner's CalledAt is the slot at which
// RunInstances may be called. It needs the request, the lock and the quota.
//
// It refuses with a Wait, and then changes nothing.
func (c Case) Begin(now time.Time, lim Limits, in Intent) Decision {
	return c.decide(func(d *Decision) {
		r, l, q := d.Request, d.Lock, d.Quota
		if q.Live >= in.MaxRunners {
			d.Wait = Wait{WaitQuota, now.Add(lim.Waits[0])}
			return
		}
		slot := q.Slot(now, r.Region, in.Slots.Pacing)
		if slot.After(in.Slots.Latest) {
			d.Wait = Wait{WaitPaced, slot}
			return
		}
		q = q.Reserve(slot, r.Region, in.Slots.Pacing)
		slot = maxTime(slot, now)
		q.Account, q.Live, q.Limit = r.Account, q.Live+1, in.MaxRunners

		hard := now.Add(time.Duration(in.Launch.HardS) * time.Second)
		bootBy := slot.Add(lim.BootLimit)
		l = Lock{
			Meta: l.Meta, Key: r.LockKey(), State: LockLaunching, Runner: in.Runner,
			Exp: minTime(bootBy.Add(r.Timeout()), hard), Hard: hard, BootBy: bootBy, SharedAt: now,
		}
		l.TTL = 0
		run := Runner{
			ID: in.Runner, CreatedAt: now, Lock: l.Key, Request: r.ID, Trace: r.Trace,
			Repository: r.Repository, RunID: r.Origin.RunID, Account: r.Account, Region: r.Region, Mode: r.Mode,
			Labels: r.RunnerLabels(), Plan: in.Plan, Launch: in.Launch, CalledAt: slot, Claim: in.Claim,
			Wanted: 1, Hard: hard,
		}
		run.DueAt = now // and it stays: the reaper looks at every live runner in every run
		run = run.writeAhead(in.ControlPlane).enter(now, RunnerNew, "for request "+r.ID)
		r = r.await(now, lim, run.ID, l.BootBy, "launches runner "+run.ID)
		d.Request, d.Lock, d.Quota, d.Runner = r, l, q, run
	})
}

// RunnerLabels returns what a runner for r registers with. An ephemeral one has
// its own label alone: GitHub matches by subset, so whatever else it named could
// be taken by another job.
func (r Request) RunnerLabels() []string {
	labels := []string{r.OwnLabel}
	if r.Mode == Shared {
		labels = append(append(labels, r.Type), r.Labels...)
	}
	return labels
}

// RunsOn returns what a workflow's runs-on names to get the runner of r.
func (r Request) RunsOn() []string { return []string{r.OwnLabel} }

// Take claims a runner whose former claim was given back or has lapsed, if a step is
// open, and reserves the slot of the RunInstances call when that is the step; else it
// has a Wait. It needs the runner, its lock and the quota.
func (c Case) Take(now time.Time, claim Claim, controlPlane string, s Slots) Decision {
	return c.decide(func(d *Decision) {
		r := &d.Runner
		if r.Claim.By == claim.By || r.Held(now, claim.By) || NextStep(now, *r, d.Lock) == StepNone {
			return
		}
		*r = r.take(now, claim, controlPlane)
		d.call(now, s)
	})
}

// take claims the runner. After a lapse nobody knows which name was used, so that the
// next one is written ahead; of a crowded runner the last one was not.
func (r Runner) take(now time.Time, claim Claim, controlPlane string) Runner {
	lapsed := r.Claim.By != "" && r.Claim.By != claim.By
	_, named := r.NextName()
	r.Claim = claim
	r.Wait, r.WaitUntil = "", time.Time{}
	if r.needsMint() && (lapsed && !r.Crowded() || !named) {
		r = r.writeAhead(controlPlane)
	}
	r.Unclear = r.Unclear || lapsed && r.InstanceID == ""
	return r.note(now, "claimed by "+claim.By)
}

func (r Runner) needsMint() bool { return r.Config.N < r.Wanted }

// Step is what a worker is to do next for a runner.
type Step string

// The steps of a worker, in their order.
const (
	StepLaunch Step = "launch" // call RunInstances
	StepMint   Step = "mint"   // register at GitHub for the config that is wanted
	// StepConfirm is to ask GitHub whether it shows the runner online. It needs no claim.
	StepConfirm Step = "confirm"
	StepNone    Step = ""
)

// NextStep returns the first step that is not recorded. A lock that does not
// name the runner, or whose boot_by has passed, allows no launch any more.
func NextStep(now time.Time, r Runner, l Lock) Step {
	switch {
	case !r.State.Usable():
		return StepNone
	case r.InstanceID == "":
		if r.State != RunnerNew || !l.Names(r.ID) || l.State != LockLaunching || !now.Before(l.BootBy) {
			return StepNone
		}
		return StepLaunch
	case r.needsMint():
		return StepMint
	case r.ListeningAt.After(l.ConfirmedAt) && l.Names(r.ID) && r.Registered():
		return StepConfirm
	}
	return StepNone
}

// call reserves the slot of one more RunInstances call, at the index that the runner
// has, if that is its next step. When the slot is too late, the call has to wait for it.
// It returns the slot.
func (d *Decision) call(now time.Time, s Slots) time.Time {
	r := &d.Runner
	if NextStep(now, *r, d.Lock) != StepLaunch {
		return now
	}
	slot := d.Quota.Slot(now, r.Region, s.Pacing)
	if slot.After(s.Latest) {
		d.Wait = Wait{WaitPaced, slot}
		return slot
	}
	d.Quota = d.Quota.Reserve(slot, r.Region, s.Pacing)
	r.CalledAt = maxTime(slot, now)
	return r.CalledAt
}

// Refusal is EC2's no to a placement.
type Refusal struct {
	Code string
	// Text is in EC2's words, of a placement that it refuses whatever its capacity;
	// empty: it has no capacity now.
	Text string
	// Image is another image, under which the same placement is tried as the next one
	// of the plan; empty: the plan stays. The client token of the current index stands
	// for a launch of the former image.
	Image string
}

// Advance records EC2's no to placement from, and moves to index next of the plan;
// boot_by moves along. The slot of the next call is reserved, or that call has a Wait.
// A runner that is elsewhere by now, or has another step, stays as it is. It needs the
// runner, its lock and the quota.
func (c Case) Advance(now time.Time, lim Limits, from, next int, no Refusal, s Slots) Decision {
	return c.decide(func(d *Decision) {
		r, l := &d.Runner, &d.Lock
		if no.Image != "" {
			r.Plan = slices.Insert(slices.Clone(r.Plan), r.Index+1, r.Placement())
			r.Launch.Image = no.Image
		}
		if r.Index != from || next <= from || next >= len(r.Plan) || NextStep(now, *r, *l) != StepLaunch {
			*r = d.was.Runner
			return
		}
		*r = r.attempted(now, no.Code)
		r.Attempts[len(r.Attempts)-1].Text = no.Text
		r.Index, r.Unclear, r.Said = next, false, Said{}
		slot := d.call(now, s)
		bootBy := maxTime(l.BootBy, slot.Add(lim.BootLimit)) // clocks differ; it only rises
		l.Exp = minTime(l.Exp.Add(bootBy.Sub(l.BootBy)), l.Hard)
		l.BootBy = bootBy
		*r = r.note(now, no.Code+"; next: "+r.Placement().String())
		d.check(KindLock)
	})
}

func (r Runner) attempted(now time.Time, code string) Runner {
	r.Attempts = append(r.Attempts[:len(r.Attempts):len(r.Attempts)], Attempt{Placement: r.Placement(), Runner: r.ID, At: now, Code: code})
	return r
}

// Hear keeps what EC2 answered that does not tell whether it launched.
func (r Runner) Hear(code, text string) Runner {
	if r.Said.Code != code {
		r.Said.Times = 0
	}
	r.Said = Said{Code: code, Text: text, Times: r.Said.Times + 1}
	return r
}

// Again records an answer of EC2's that does not tell whether it launched, and reserves
// the slot of the same call once more, or that call has a Wait. It needs the runner, its
// lock and the quota.
func (c Case) Again(now time.Time, said Said, s Slots) Decision {
	return c.decide(func(d *Decision) {
		if NextStep(now, d.Runner, d.Lock) == StepLaunch {
			d.Runner.Said, d.Runner.Unclear = said, true
			d.call(now, s)
		}
	})
}

// MaxUnfamiliar is how often a launch is repeated in all when EC2 answers each
// time with the same code that nobody knows: with the pauses of 1, 2, 4 and 8 s
// between them it has had a quarter of a minute to pass by itself.
const MaxUnfamiliar = 5

// Launched records the instance that EC2 answered. When another machine has booted as
// this runner, the runner drains. A second, different id is not taken: ok is false, and
// that instance is left to the sweep. It needs the runner and its lock.
func (c Case) Launched(now time.Time, instance string) (_ Decision, ok bool) {
	d := c.decide(func(d *Decision) {
		if d.Runner, ok = launched(now, d.Runner, instance); ok && d.Runner.Mismatched() {
			d.drain(now, NewEnd(EndCompromised))
		}
		if d.Runner.Mismatched() {
			d.Alarm = AlarmCompromised
		}
	})
	return d, ok
}

// launched records the instance in any state but a final one, so that the end knows
// what to terminate; a runner that is not new any more keeps its state.
func launched(now time.Time, r Runner, instance string) (_ Runner, ok bool) {
	if r.InstanceID != "" {
		return r, r.InstanceID == instance
	}
	if r.State.Final() {
		return r, false
	}
	r = r.attempted(now, "launched")
	r.InstanceID, r.LaunchedAt, r.Wait, r.WaitUntil, r.Said = instance, now, "", time.Time{}, Said{}
	if r.State == RunnerNew {
		return r.enter(now, RunnerLaunched, "instance "+instance), true
	}
	return r.note(now, "instance "+instance), true
}

// Mismatched reports that the machine which called boot first is not the
// instance that EC2 answered: somebody else holds the boot token.
func (r Runner) Mismatched() bool {
	return r.Boot.NonceHash != "" && r.InstanceID != "" && r.Boot.InstanceID != r.InstanceID
}

// Abandon ends a usable runner that could not be launched, and lets the request that
// launched it learn of that; others that wait for the runner settle by themselves. One
// that never had an instance fails at once: its place and its lock are free. One that
// may have a machine drains. code is what EC2 said of the current placement, or empty;
// said is its answer when that does not tell whether it launched. It needs all but the
// pulse.
func (c Case) Abandon(now time.Time, lim Limits, code string, said Said, why Failure) Decision {
	return c.decide(func(d *Decision) {
		r, l, q := d.Runner, d.Lock, d.Quota
		if !r.State.Usable() || r.InstanceID != "" {
			return
		}
		mayExist := r.Unclear || why.Code == EndTerminated || why.Code == EndSpot || why.Code == EndNoLaunch
		if said.Code != "" {
			r = r.Hear(said.Code, said.Text)
		}
		if code != "" {
			r = r.attempted(now, code)
		}
		r = r.release(now)
		if r.State != RunnerNew || r.Config.N > 0 || mayExist {
			r, l = drain(now, r, l, why)
		} else {
			r.End, r.EndedAt, r.DueAt = &why, now, time.Time{}
			r = r.enter(now, RunnerFailed, why.Code)
			r.expire(now, lim.Keep)
			if l.Names(r.ID) {
				l = l.empty(now, lim)
			}
			q = q.release()
		}
		d.Runner, d.Lock, d.Quota = r, l, q
		d.settle(now, lim)
	})
}

// Settle lets a waiting request come to what its runner means for it. It needs the
// request and the runner that it names.
func (c Case) Settle(now time.Time, lim Limits) Decision {
	return c.decide(func(d *Decision) { d.settle(now, lim) })
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

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (f Failure) String() string { return fmt.Sprintf("%s: %s", f.Code, f.Text) }
