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
	Reach        Reach
	Pacing       Pacing
	Lease        Lease // of its registration, which is committed
}

// Line puts an accepted request whose lock is free into its account's line of launches,
// unless its turn has come: then nothing changes, and Begin may be asked. Else it has a
// Wait. For its turn the request is held, and its message sent; for the quota nothing
// changes. Requests of one key have one turn: who comes first launches, and the others
// share. One that would be launched after its give_up_at takes nobody's place: it only
// knows its turn. It needs the request, the lock and the quota.
func (c Case) Line(now time.Time, lim Limits, maxRunners int, p Pacing) Decision {
	return decide(c, func(d *Decision) {
		if d.Quota.Live >= maxRunners {
			d.Wait = Wait{WaitQuota, now.Add(lim.Waits[0])}
			return
		}
		r, l := &d.Request, &d.Lock
		turn, q := d.Quota.Turn(now, *r, p)
		if turn.Taken() {
			return
		}
		if of := d.Quota.Lines[r.Region].at(l.Slot, l.Ahead); r.Mode == Shared && r.Slot.IsZero() && of.After(now) {
			turn, q = Turn{of, l.Slot, l.Ahead}, d.Quota
		}
		if !turn.At.After(r.GiveUpAt) {
			d.Quota = q
			d.Quota.Account, d.Quota.Limit = r.Account, maxRunners
		}
		r.Slot, r.Ahead = turn.Slot, turn.Ahead
		if r.Mode == Shared && !turn.At.After(r.GiveUpAt) {
			l.Key, l.Slot, l.Ahead = r.LockKey(), r.Slot, r.Ahead
			if l.State == "" {
				l.State = LockEmpty
				l.expire(now, lim.Keep)
			}
		}
		d.Wait = Wait{WaitPaced, turn.At}
		d.hold(now, d.Wait, WaitPaced+": its turn is at "+turn.At.UTC().Format(time.RFC3339))
	})
}

// Begin turns an accepted request whose lock is free into a waiting one with a
// new runner, claimed by the worker. The runner's CalledAt is the slot at which
// RunInstances may be called. It needs the request, the lock and the quota.
//
// It refuses with a Wait, and then changes nothing: its turn has not come, and Line
// says what follows; or its registration is longer ahead than Limits.LeaseAhead.
func (c Case) Begin(now time.Time, lim Limits, in Intent) Decision {
	return decide(c, func(d *Decision) {
		r, l := d.Request, d.Lock
		if d.Quota.Live >= in.MaxRunners {
			d.Wait = Wait{WaitQuota, now.Add(lim.Waits[0])}
			return
		}
		turn, q := d.Quota.Turn(now, r, in.Pacing)
		if !turn.Taken() {
			d.Wait = Wait{WaitPaced, turn.At}
			return
		}
		if first := in.Lease.At.Add(-lim.LeaseAhead); first.After(now) {
			d.Wait = Wait{WaitGitHub, first}
			return
		}
		q.Account, q.Live, q.Limit = r.Account, q.Live+1, in.MaxRunners

		hard := now.Add(time.Duration(in.Launch.HardS) * time.Second)
		q = q.reach(in.Reach, hard, lim)
		called := maxTime(now, turn.At)
		bootBy := called.Add(in.Launch.BootLimit(in.Plan[0], lim))
		l = Lock{
			Meta: l.Meta, Key: r.LockKey(), State: LockLaunching, Runner: in.Runner,
			Exp: minTime(bootBy.Add(r.Timeout()), hard), Hard: hard, BootBy: bootBy, SharedAt: now,
		}
		l.TTL = 0
		run := Runner{
			ID: in.Runner, CreatedAt: now, Lock: l.Key, Request: r.ID, Trace: r.Trace,
			Repository: r.Repository, Scope: r.Scope, RunID: r.Origin.RunID, Account: r.Account, Region: r.Region, Mode: r.Mode,
			Labels: r.RunnerLabels(), Plan: in.Plan, Launch: in.Launch, CalledAt: called, Claim: in.Claim, Lease: in.Lease,
			Wanted: 1, Hard: hard,
		}
		if r.OfJob() {
			run.For = r.ID
		}
		run.DueAt = now // and it stays: the reaper looks at every live runner in every run
		run = run.writeAhead(in.ControlPlane).transition(now, RunnerNew, "for request "+r.ID)
		r = r.await(now, lim, run.ID, l.BootBy, "launches runner "+run.ID)
		d.Request, d.Lock, d.Quota, d.Runner = r, l, q, run
	})
}

// RunnerLabels returns what a runner for r registers with. An ephemeral one has
// its own label alone: GitHub matches by subset, so whatever else it named could
// be taken by another job. One for a workflow job has the labels that its rule gives.
func (r Request) RunnerLabels() []string {
	if r.OfJob() {
		return r.Labels
	}
	labels := []string{r.OwnLabel}
	if r.Mode == Shared {
		labels = append(append(labels, r.Type), r.Labels...)
	}
	return labels
}

// RunsOn returns what a workflow's runs-on names to get the runner of r.
func (r Request) RunsOn() []string {
	if r.OfJob() {
		return r.Labels
	}
	return []string{r.OwnLabel}
}
