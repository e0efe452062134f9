package promise

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about ends.
const (
	ReallyOff Promise = "a runner is over when its machine is"
	Unseen    Promise = "a machine counts as missing when EC2 did not show it"
	Forgotten Promise = "a registration counts as deleted when GitHub has it no more"
	Braked    Promise = "machines without a record are ended when they are few, or an operator says so"
	SameTags  Promise = "a machine of a live record is not ended for its tags"
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
	if r.Boot.At.IsZero() || !now.Before(r.Hard) || r.End != nil && r.End.Code == store.EndCompromised || !on {
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
	ref := store.Ref{Kind: store.KindSweep, ID: store.SweepKey(setting.AccountID, setting.Region)}
	items, err := p.Store().Get(context.Background(), ref)
	return err == nil && !items[0].(*store.Sweep).ReleasedAt.IsZero()
}

// sawOver looks at what is recorded of a runner's machine and its registration on
// the way to its end.
func (p endPromises) sawOver(c commit, was, r store.Runner) {
	if was.DeregisteredAt.IsZero() && !r.DeregisteredAt.IsZero() && c.minted != nil && !p.forgot {
		p.hold(Forgotten, !c.minted[r.Config.RunnerID], "registration %d of runner %s counts as deleted, and is there", r.Config.RunnerID, r.ID)
	}
	if was.MissingAt.IsZero() && !r.MissingAt.IsZero() {
		key := r.InstanceID
		if key == "" {
			key = r.ClientToken()
		}
		at, ok := p.missed[key]
		p.hold(Unseen, ok && time.Since(at) < setting.ReaperTime+p.Kernel.KillLate()+slack, "the machine %q of runner %s counts as missing, and EC2 did not say so", key, r.ID)
	}
	if was.State.Final() || r.State != store.RunnerEnded {
		return
	}
	missing := !was.MissingAt.IsZero() && r.EndedAt.Sub(was.MissingAt) >= p.Limits.GoneGap
	for _, m := range c.machines {
		mine := m.ID == r.InstanceID || r.InstanceID == "" && m.ClientToken == r.ClientToken()
		p.hold(ReallyOff, !mine || m.State.Over() || missing, "runner %s is over, and its machine %s is %s", r.ID, m.ID, m.State)
	}
}

// Missed notes that EC2 did not show a machine, by its id or its token.
func (p endPromises) Missed(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed[key] = time.Now()
}
