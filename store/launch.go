package store

import (
	"slices"
	"time"
)

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

// call takes the slot of one more RunInstances call, at the index that the runner has,
// if that is its next step, or has it wait for its turn. waited: it did already. It
// returns the turn.
func (d *Decision) call(now time.Time, p Pacing, waited bool) time.Time {
	r := &d.Runner
	if NextStep(now, *r, d.Lock) != StepLaunch {
		return now
	}
	turn, q := d.Quota.First(now, r.Region, p)
	if room := d.Quota.Slot(now, r.Region, p); waited && p.atHand(now, room) {
		turn, q = Turn{At: room}, d.Quota.Reserve(room, r.Region, p)
	}
	d.Quota = q
	if !turn.Taken() {
		d.Wait = Wait{WaitPaced, turn.At}
		return turn.At
	}
	r.CalledAt = maxTime(now, turn.At)
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
	// for a launch of the former image. Options are those of the launch on that image.
	Image   string
	Options LaunchOptions
}

// Advance records EC2's no to placement from, and moves to index next of the plan;
// boot_by moves along. The slot of the next call is taken, or that call has a Wait.
// A runner that is elsewhere by now, or has another step, stays as it is. It needs the
// runner, its lock and the quota.
func (c Case) Advance(now time.Time, lim Limits, from, next int, no Refusal, p Pacing) Decision {
	return decide(c, func(d *Decision) {
		r, l := &d.Runner, &d.Lock
		if no.Image != "" {
			r.Plan = slices.Insert(slices.Clone(r.Plan), r.Index+1, r.Placement())
			r.Launch.Image, r.Launch.Options = no.Image, no.Options
		}
		if r.Index != from || next <= from || next >= len(r.Plan) || NextStep(now, *r, *l) != StepLaunch {
			*r = d.was.Runner
			return
		}
		*r = r.attempted(now, no.Code)
		r.Attempts[len(r.Attempts)-1].Text = no.Text
		r.Index, r.Unclear, r.Said = next, false, Said{}
		turn := d.call(now, p, false)
		*l = l.bootBy(maxTime(l.BootBy, turn.Add(r.Launch.BootLimit(r.Placement(), lim)))) // clocks differ; it only rises
		*r = r.note(now, no.Code+"; next: "+r.Placement().String())
		d.check(KindLock)
	})
}

func (r Runner) attempted(now time.Time, code string) Runner {
	r.Attempts = append(r.Attempts[:len(r.Attempts):len(r.Attempts)], Attempt{Placement: r.Placement(), Runner: r.ID, At: now, Code: code})
	return r
}

// HearEC2 keeps what EC2 answered that does not tell whether it launched.
func (r Runner) HearEC2(code, text string) Runner {
	if r.Said.Code != code {
		r.Said.Times = 0
	}
	r.Said = Said{Code: code, Text: text, Times: r.Said.Times + 1}
	return r
}

// MaxUnfamiliar is how often a launch is repeated in all when EC2 answers each
// time with the same code that nobody knows: with the pauses of 1, 2, 4 and 8 s
// between them it has had a quarter of a minute to pass on its own.
const MaxUnfamiliar = 5

// Launched records the instance that EC2 answered. When another machine has booted as
// this runner, the runner drains. A second, different id is not taken: ok is false, and
// that instance is left to the sweep. It needs the runner and its lock.
func (c Case) Launched(now time.Time, instance string) (_ Decision, ok bool) {
	d := decide(c, func(d *Decision) {
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
		return r.transition(now, RunnerLaunched, "instance "+instance), true
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
	return decide(c, func(d *Decision) {
		r, l, q := d.Runner, d.Lock, d.Quota
		if !r.State.Usable() || r.InstanceID != "" {
			return
		}
		mayExist := r.Unclear || why.Code == EndTerminated || why.Code == EndSpot || why.Code == EndNoLaunch
		if said.Code != "" {
			r = r.HearEC2(said.Code, said.Text)
		}
		if code != "" {
			r = r.attempted(now, code)
		}
		r = r.release(now)
		if r.State != RunnerNew || r.Config.N > 0 || mayExist {
			r, l = drain(now, r, l, why)
		} else {
			r.End, r.EndedAt, r.DueAt = &why, now, time.Time{}
			r = r.transition(now, RunnerFailed, why.Code)
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
