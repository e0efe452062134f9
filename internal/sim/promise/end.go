package promise

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about ends.
const (
	ReallyOff   Promise = "a runner is over when its machine is"
	Unseen      Promise = "a machine counts as missing when EC2 did not show it"
	Forgotten   Promise = "a registration counts as deleted when GitHub has it no more"
	Braked      Promise = "machines without a record are ended when they are few, or an operator says so"
	SameTags    Promise = "a machine of a live record is not ended for its tags"
	DeleteOrder Promise = "a registration is deleted when nothing may use it any more"
	EndOrder    Promise = "a machine is terminated when no job can be on it any more"
	JobSpared   Promise = "no machine is terminated with a job that it reported"
	Seldom      Promise = "GitHub is not asked before its time to delete what it calls busy"
	Served      Promise = "what is queued for a runner is served beyond the time that was asked for"
)

// endPromises are about the order in which machines and registrations end.
type endPromises struct{ *History }

// Deleting looks at the DELETE of a registration, just before GitHub hears of it:
// its runner drains or is over, or has a newer config.
func (p endPromises) Deleting(id int64) {
	for _, g := range p.GitHub.Registrations() {
		if g.ID != id {
			continue
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		r := p.runners[setting.RunnerIn(g.Name)]
		n, _ := strconv.Atoi(g.Name[strings.LastIndexByte(g.Name, '-')+1:])
		if r.Version == 0 {
			return // nobody knows of it
		}
		spent := len(r.Names) > 0 && n < r.Names[len(r.Names)-1].N // another name is written ahead since
		p.hold(DeleteOrder, !r.State.Usable() || n < r.Config.N || spent && n != r.Config.N, "registration %s is deleted while its runner is %s with config %d", g.Name, r.State, r.Config.N)
		p.hold(DeleteOrder, n <= r.Config.N || spent || r.State.Final(), "registration %s is deleted while it may be minted", g.Name)
		recent := time.Since(r.UpdatedAt) < setting.ReaperTime+p.Kernel.KillLate()+slack // a run that began before may not know of it
		if r.State == store.RunnerDraining && n == r.Config.N && !recent {
			p.hold(Seldom, !p.now(kernel.Reaper).Before(r.DeleteAfter.Add(-slack)), "registration %s is deleted again, and was to be left alone until %s", g.Name, r.DeleteAfter)
		}
	}
}

// Terminating looks at a TerminateInstances call of an invocation that began at a
// time, just before EC2 hears of it.
func (p endPromises) Terminating(began time.Time, instance string) {
	f, ok := p.Fleet.Instance(instance)
	freed := p.freed()
	machines := p.Fleet.Instances()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outdated(began) {
		return
	}
	if ok {
		r := p.runners[p.tagged(f)]
		p.sawTerminate(f, r)
		if r.Version == 0 {
			n := p.strays(machines)
			p.hold(Braked, n <= store.BrakeAbove || freed, "%d machines without a record live, and %s is terminated", n, instance)
		}
	}
	for _, r := range p.runners { // whatever its tags say
		if r.InstanceID == instance && !r.State.Final() {
			p.hold(SameTags, !r.State.Usable(), "machine %s is terminated, and its runner %s is %s", instance, r.ID, r.State)
		}
	}
}

// sawTerminate looks at the end of a machine that got a config: GitHub has forgotten
// it, and its job had the time to be seen, unless nothing protects it any more.
func (p endPromises) sawTerminate(f simfleet.Fact, r store.Runner) {
	now := p.now(kernel.Reaper)
	if r.Version == 0 {
		p.hold(EndOrder, f.Planted || now.Sub(f.LaunchedAt) >= p.Limits.OrphanAge-slack, "machine %s without a record is terminated at the age of %s", f.ID, now.Sub(f.LaunchedAt))
		return
	}
	if r.InstanceID != f.ID || r.State.Final() {
		p.hold(EndOrder, r.State.Final() || r.InstanceID != "" || r.ClientToken() != f.ClientToken, "machine %s is terminated as a stray, and its runner %s has none", f.ID, r.ID)
		return
	}
	p.hold(EndOrder, r.State == store.RunnerEnding, "machine %s is terminated, and its runner is %s", f.ID, r.State)
	on := f.State == fleet.Pending || f.State == fleet.Running
	if r.Boot.At.IsZero() || !now.Before(r.Hard) || ended(r) == store.EndCompromised || !on {
		return
	}
	p.hold(JobSpared, !jobRuns(r) || !r.IdleAt.Before(r.DeregisteredAt), "machine %s is terminated with the job that it reported at %s", f.ID, r.Job.StartedAt)
	p.hold(EndOrder, !r.DeregisteredAt.IsZero() && (!r.IdleAt.Before(r.DeregisteredAt) || now.Sub(r.DeregisteredAt) >= p.Limits.Grace),
		"machine %s is terminated, deregistered at %s and idle at %s", f.ID, r.DeregisteredAt, r.IdleAt)
}

// strays counts the machines without a record. What EC2 may not have shown to the
// reaper does not count.
func (p endPromises) strays(machines []simfleet.Fact) (n int) {
	for _, m := range machines {
		if !m.State.Over() && m.State != fleet.ShuttingDown && p.runners[p.tagged(m)].Version == 0 && time.Since(m.LaunchedAt) > p.Limits.OrphanAge-slack {
			n++
		}
	}
	return n
}

// freed reports whether an operator released the brake.
func (p endPromises) freed() bool {
	for _, region := range []string{setting.Region, setting.OtherRegion} {
		items, err := p.Store().Get(context.Background(), store.Ref{Kind: store.KindSweep, ID: store.SweepKey(setting.AccountID, region)})
		if err == nil && !items[0].(*store.Sweep).ReleasedAt.IsZero() {
			return true
		}
	}
	return false
}

// sawOver looks at what is recorded of a runner's machine and its registration on
// the way to its end.
func (p endPromises) sawOver(was, r store.Runner) {
	p.sawKey(was, r)
	if begins(was.DeregisteredAt, r.DeregisteredAt) && !r.State.Final() && !p.forgot {
		p.hold(Forgotten, !p.registered(r.Config.RunnerID), "registration %d of runner %s counts as deleted, and is there", r.Config.RunnerID, r.ID)
	}
	if begins(was.MissingAt, r.MissingAt) {
		key := cmp.Or(r.InstanceID, r.ClientToken())
		at, ok := p.missed[key]
		p.hold(Unseen, ok && time.Since(at) < setting.ReaperTime+p.Kernel.KillLate()+slack, "the machine %q of runner %s counts as missing, and EC2 did not say so", key, r.ID)
	}
	if was.State.Final() || r.State != store.RunnerEnded {
		return
	}
	if strings.Contains(r.History[len(r.History)-1].Reason, "could not be seen") {
		p.sawUnreached(r)
	}
	missing := !was.MissingAt.IsZero() && r.EndedAt.Sub(was.MissingAt) >= p.Limits.GoneGap
	for _, m := range p.Fleet.Instances() {
		mine := m.ID == r.InstanceID || r.InstanceID == "" && m.ClientToken == r.ClientToken()
		p.hold(ReallyOff, !mine || m.State.Over() || missing, "runner %s is over, and its machine %s is %s", r.ID, m.ID, m.State)
	}
}

// registered reports whether GitHub has a registration.
func (p endPromises) registered(id int64) bool {
	return slices.ContainsFunc(p.GitHub.Registrations(), func(g simgithub.Registration) bool { return g.ID == id })
}

// Missed notes that EC2 did not show a machine, by its id or its token.
func (p endPromises) Missed(key string) {
	p.note(func() { p.missed[key] = time.Now() })
}

// The promises about what is said of ends and failures.
const (
	DrainsFor  Promise = "a runner drains for a reason that is true of it"
	TrueReason Promise = "the reason that is recorded is the true one"
	InWords    Promise = "a failure has EC2's words"
)

// sawDrain looks at a runner that begins to drain. l is its lock as it was; who
// drains it demands that nobody changed that.
func (p endPromises) sawDrain(c commit, was, r store.Runner, l store.Lock) {
	at := r.DrainingAt
	switch r.End.Code {
	case store.EndUnwanted, store.EndStopped:
		p.sawUnused(was, r, l)
	case store.EndExpired:
		p.sawExpired(was, r, l)
	case store.EndUnlisted, store.EndOffline:
		p.sawUnseen(was, r)
	case store.EndNoLaunch:
		asked := 0 // how often, in vain, for an answer that nobody knows
		for _, n := range p.answers.strange[was.ClientToken()] {
			asked = max(asked, n)
		}
		p.hold(DrainsFor, was.Boot.At.IsZero() && (asked >= store.MaxUnfamiliar || !at.Before(l.BootBy)), "runner %s drains at %s for it was not launched, and had until %s", r.ID, at, l.BootBy)
	case store.EndNoBoot, store.EndGitHubDown, store.EndGitHubLimit:
		p.hold(DrainsFor, was.Boot.At.IsZero() && !at.Before(l.BootBy), "runner %s drains at %s for it did not boot, and had until %s", r.ID, at, l.BootBy)
	case store.EndKeyLost, store.EndNoAccount:
		p.sawGone(was, r)
	case store.EndNotOnline:
		p.hold(DrainsFor, was.OnlineAt.IsZero() && !at.Before(l.BootBy.Add(p.Limits.OnlineGrace)), "runner %s drains at %s for it was not online, and was to boot by %s", r.ID, at, l.BootBy)
	case store.EndIdle:
		if c.effect.For == "event idle" { // else the machine itself says why
			p.sawIdle(was, r, l)
		}
	}
}

// sawUnused looks at a runner that drains since nobody uses it, or somebody stops it.
func (p endPromises) sawUnused(was, r store.Runner, l store.Lock) {
	if r.End.Code == store.EndStopped {
		forced := false
		for id := range p.heard.forced {
			forced = forced || p.requests[id].Runner == r.ID
		}
		p.hold(DrainsFor, forced || alone(r, l), "runner %s is stopped, and request %s uses it too", r.ID, l.Joined)
		return
	}
	if r.OfJob() {
		q := p.requests[was.For]
		p.hold(DrainsFor, was.State != store.RunnerBusy && was.Took.Job == "" && !(q.State == store.Waiting && q.Runner == r.ID),
			"runner %s, %s, drains as unwanted, took %q, and request %s is %s on %s", r.ID, was.State, was.Took.Job, q.ID, q.State, q.Runner)
		p.hold(DrainsFor, was.Boot.At.IsZero() || !was.OnlineAt.IsZero() && r.DrainingAt.Sub(latest(was.OnlineAt, was.ListeningAt)) >= p.Limits.Grace, "runner %s drains as unwanted at %s, and was online at %s", r.ID, r.DrainingAt, was.OnlineAt)
		return
	}
	q := p.requests[r.Request]
	p.hold(DrainsFor, l.Names(r.ID) && alone(r, l) && was.State != store.RunnerBusy, "runner %s, %s, drains as unwanted, and request %s uses it too", r.ID, was.State, l.Joined)
	p.hold(DrainsFor, unserved(q), "runner %s drains as unwanted, and its request is %s", r.ID, q.State)
}

// alone reports whether nobody but the request that launched a runner uses it.
func alone(r store.Runner, l store.Lock) bool { return r.Mode == store.Ephemeral || l.Joined == "" }

// unserved reports whether a request ended without a runner.
func unserved(q store.Request) bool { return q.State.Final() && q.State != store.Ready }

// sawExpired looks at a runner that drains since nobody counts on it any more.
func (p endPromises) sawExpired(was, r store.Runner, l store.Lock) {
	at := r.DrainingAt
	p.hold(DrainsFor, at.Before(r.Hard), "runner %s drains as expired at %s, and its hard limit was at %s", r.ID, at, r.Hard)
	p.hold(DrainsFor, !at.Before(l.Exp), "runner %s drains as expired at %s, and may be counted on until %s", r.ID, at, l.Exp)
	p.hold(Served, !jobRuns(was), "runner %s drains as expired at %s, with a job since %s", r.ID, at, was.Job.StartedAt)
	since := latest(was.OnlineAt, was.Job.EndedAt, was.ListeningAt)
	p.hold(Served, was.OnlineAt.IsZero() || at.Sub(since) >= p.Limits.ShareStep, "runner %s drains as expired at %s, and had a job or a new config at %s", r.ID, at, since)
}

// sawUnseen looks at a runner that drains since GitHub did not show it.
func (p endPromises) sawUnseen(was, r store.Runner) {
	at := r.DrainingAt
	if r.End.Code == store.EndOffline {
		p.hold(DrainsFor, !was.MissedAt.IsZero() && at.Sub(was.MissedAt) >= p.Limits.Lost, "runner %s drains as offline at %s, and was missed at %s", r.ID, at, was.MissedAt)
		return
	}
	if p.requests[was.For].OfJob() && was.MissedAt.IsZero() { // asked about since its job did not come
		p.hold(DrainsFor, !was.OnlineAt.IsZero() && at.Sub(was.OnlineAt) >= p.Limits.OnlineGrace-slack, "runner %s drains as forgotten at %s, and was online at %s", r.ID, at, was.OnlineAt)
		p.hold(DrainsFor, !p.registered(was.Config.RunnerID), "runner %s drains as forgotten, and GitHub has its registration %d", r.ID, was.Config.RunnerID)
		return
	}
	p.hold(DrainsFor, !was.MissedAt.IsZero() && at.Sub(was.MissedAt) >= p.Limits.Silent, "runner %s drains as forgotten at %s, and was missed at %s", r.ID, at, was.MissedAt)
	p.hold(DrainsFor, !p.registered(was.Config.RunnerID), "runner %s drains as forgotten, and GitHub has its registration %d", r.ID, was.Config.RunnerID)
}

// sawIdle looks at a runner that drains since it had no job for long.
func (p endPromises) sawIdle(was, r store.Runner, l store.Lock) {
	began := was.OnlineAt
	if !was.ListeningAt.IsZero() && was.ListeningAt.Before(began) {
		began = was.ListeningAt
	}
	since := latest(began, was.Job.EndedAt, l.SharedAt.Add(p.Limits.ShareStep))
	p.hold(DrainsFor, was.State == store.RunnerOnline && r.DrainingAt.Sub(since) >= p.Limits.Idle,
		"runner %s, %s, drains as idle at %s, and had a job or was shared at %s", r.ID, was.State, r.DrainingAt, since)
}
