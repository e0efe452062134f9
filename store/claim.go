package store

import "time"

// Claim is the right to call EC2 and GitHub for a runner. It outlives its
// holder's invocation, since a call of a killed worker may still be open. One
// that was given back names nobody; one that lapsed still names its holder.
type Claim struct {
	By    string    `json:"by,omitempty"`
	Until time.Time `json:"until"`
}

// Held reports whether another invocation may have a call open for r.
func (r Runner) Held(now time.Time, by string) bool {
	return r.Claim.By != "" && r.Claim.By != by && now.Before(r.Claim.Until)
}

// Release gives back the claim of a runner that is not over: its holder has no call
// open any more. It needs the runner.
func (c Case) Release(now time.Time) Decision {
	return decide(c, func(d *Decision) {
		if !d.Runner.State.Final() {
			d.Runner = d.Runner.release(now)
		}
	})
}

func (r Runner) release(now time.Time) Runner {
	r.Claim = Claim{Until: now}
	return r
}

// Pause is why a worker leaves a runner for a while.
type Pause struct {
	Wait Wait
	// By holds the claim.
	By string
	// Said is what EC2 answered last, if that does not tell whether it launched.
	Said Said
	// Code and Text are why GitHub registered nothing, as Unregistered takes them.
	Code, Text string
	// Lease is what the next registration is made by; none: what was recorded stays.
	Lease Lease
}

// Pause gives the claim on a usable runner back until its next step may be tried, and
// has a worker continue then. It needs the runner.
func (c Case) Pause(now time.Time, p Pause) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if r.Claim.By != p.By {
			if r.Wait == p.Wait.For && r.WaitUntil.Equal(p.Wait.Until) {
				d.send(r, p.Wait.Until) // this was committed, and the answer lost
			}
			return
		}
		if !r.State.Usable() {
			return
		}
		r.Unclear = r.Unclear || p.Wait.For == WaitEC2
		if p.Said.Code != "" {
			*r = r.HearEC2(p.Said.Code, p.Said.Text)
		}
		if r.Wait != p.Wait.For {
			*r = r.note(now, "waits: "+p.Wait.For)
		}
		r.Wait, r.WaitUntil = p.Wait.For, p.Wait.Until
		*r = r.release(now)
		if p.Code != "" {
			*r = r.Unregistered(now, p.Code, p.Text)
		}
		if p.Lease != (Lease{}) {
			r.Lease = p.Lease
		}
		d.send(r, p.Wait.Until)
	})
}

// Take claims a runner whose former claim was given back or has lapsed, if a step is
// open, and takes the slot of the RunInstances call when that is the step; else it
// has a Wait. p is nil if no call will be made. It needs the runner, its lock and the
// quota.
func (c Case) Take(now time.Time, claim Claim, controlPlane string, p *Pacing) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if r.Claim.By == claim.By || r.Held(now, claim.By) || NextStep(now, *r, d.Lock) == StepNone {
			return
		}
		waited := r.Wait == WaitPaced
		*r = r.take(now, claim, controlPlane)
		if p != nil {
			d.call(now, *p, waited)
		}
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
