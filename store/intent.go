package store

import "time"

// Intent is what the launch of a machine is made of.
type Intent struct {
	Runner       string // a fresh id
	ControlPlane string
	Plan         []Placement
	Launch       Launch
	MaxRunners   int
	Claim        Claim
	Slots        Slots
	Reach        Reach
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
	return decide(c, func(d *Decision) {
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
		q = q.reach(in.Reach, hard, lim)
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
		run = run.writeAhead(in.ControlPlane).transition(now, RunnerNew, "for request "+r.ID)
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
