package promise

import (
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about machines.
const (
	OneMachine   Promise = "a runner has at most one machine with credentials"
	OneOfRequest Promise = "a request has at most one machine of use at a time"
	NoMoreThan   Promise = "no more machines with credentials live than may"
	Timer        Promise = "no machine outlives its own timer"
	TimerSet     Promise = "a machine with a config ends on its own at its hard limit"
	JobKept      Promise = "a machine does not switch itself off with a job"
)

// machinePromises are about the machines that there were.
type machinePromises struct{ *History }

// sawMachines looks at all machines, and at those that got credentials.
func (p machinePromises) sawMachines(machines []simfleet.Fact, powerless map[string]time.Time) {
	hard := p.Account.Hard(*p.Limits)
	ofRunner := map[string]string{}
	var with []simfleet.Fact
	for _, m := range machines {
		end := m.EndedAt
		if end.IsZero() {
			end = time.Now()
		}
		if !m.Planted && !m.NeverBoots {
			late := time.Duration(0)
			if p.confirmations.lied[p.tagged(m)] { // a job with root disarmed its timer
				late = 2*p.Limits.ReaperPeriod + slack
			}
			if at := p.stopped[m.ID]; !at.IsZero() && at.Before(end) {
				end = at // a machine that a person stopped runs nothing, its timer neither
			}
			p.hold(Timer, !end.After(m.RunsAt.Add(setting.BootTime+hard+setting.Stopping+late)), "machine %s lived %s", m.ID, end.Sub(m.LaunchedAt))
		}
		if m.CredentialedAt.IsZero() {
			continue
		}
		runner := p.tagged(m)
		p.hold(OneMachine, ofRunner[runner] == "", "machines %s and %s got credentials of runner %s", ofRunner[runner], m.ID, runner)
		ofRunner[runner] = m.ID
		with = append(with, m)
	}
	p.sawCredentials(with, powerless)
}

// sawCredentials looks at the machines that got credentials.
func (p machinePromises) sawCredentials(with []simfleet.Fact, powerless map[string]time.Time) {
	for i, a := range with {
		alive := 0
		for _, b := range with {
			if !b.CredentialedAt.After(a.CredentialedAt) && (b.EndsAt.IsZero() || b.EndsAt.After(a.CredentialedAt)) {
				alive++
			}
		}
		p.hold(NoMoreThan, alive <= p.Account.MaxRunners || p.wiped(), "%d machines with credentials lived at once, and the limit is %d", alive, p.Account.MaxRunners)
		for _, b := range with[i+1:] {
			if of := a.Tags[fleet.TagRequest]; of == b.Tags[fleet.TagRequest] && !p.wiped() && !p.spares(a, b) {
				p.hold(OneOfRequest, p.before(a, b, powerless) || p.before(b, a, powerless), "request %s had machines %s and %s with credentials at once", a.Tags[fleet.TagRequest], a.ID, b.ID)
			}
		}
	}
}

// before reports whether a was of no use any more when b got its credentials: it
// shut down, or GitHub had forgotten all that it ever registered.
func (p machinePromises) before(a, b simfleet.Fact, powerless map[string]time.Time) bool {
	at := powerless[p.tagged(a)]
	return !a.EndsAt.IsZero() && !b.CredentialedAt.Before(a.EndsAt) || !at.IsZero() && !b.CredentialedAt.Before(at)
}

// powerless returns when the last registration of each runner was removed whose
// config was recorded, so that a machine may have it; runners with one that is
// there are not in it.
func (p machinePromises) powerless() map[string]time.Time {
	at := map[string]time.Time{}
	minted, left := p.GitHub.Minted(), p.GitHub.Registrations()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range minted {
		if id := setting.RunnerIn(g.Name); p.configs[g.ID] && g.RemovedAt.After(at[id]) {
			at[id] = g.RemovedAt
		}
	}
	for _, g := range left {
		if p.configs[g.ID] {
			delete(at, setting.RunnerIn(g.Name))
		}
	}
	return at
}

// Ages returns how long the oldest machine lived that no record counted on, and
// how long at most two machines of one runner lived at once.
func (p machinePromises) Ages() (orphan, duplicate time.Duration) {
	machines := p.Fleet.Instances()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range machines {
		end := func(f simfleet.Fact) time.Time {
			if f.EndsAt.IsZero() {
				return time.Now()
			}
			return f.EndsAt
		}
		if p.runners[p.tagged(a)].InstanceID != a.ID {
			orphan = max(orphan, end(a).Sub(a.LaunchedAt))
		}
		for _, b := range machines[i+1:] {
			if p.tagged(a) == p.tagged(b) {
				from, to := latest(a.LaunchedAt, b.LaunchedAt), earliest(end(a), end(b))
				duplicate = max(duplicate, to.Sub(from))
			}
		}
	}
	return orphan, duplicate
}

// sawJobs looks at the machines that switched themselves off: none had a job, but
// for those that had to, and those whose time was up.
func (p machinePromises) sawJobs() {
	jobs := p.jobs()
	for _, m := range p.Fleet.Instances() {
		if m.PowerOff == "" || m.PowerOff == setting.Died || m.PowerOff == store.EndTooOld {
			continue // a program that GitHub refuses cuts its job itself
		}
		r := p.runners[p.tagged(m)]
		// A machine counts what an answer leaves it from when it asked.
		if r.Version == 0 || r.InstanceID != m.ID || m.EndsAt.After(r.Hard.Add(-slack-p.slow[r.ID])) {
			continue
		}
		told := !r.EndingAt.IsZero() && !m.EndsAt.Before(r.EndingAt.Add(-slack)) || !r.EndedAt.IsZero() && !m.EndsAt.Before(r.EndedAt.Add(-slack))
		for _, j := range jobs {
			on := setting.RunnerIn(j.RunnerName) == r.ID && ranAt(j, m.EndsAt)
			p.hold(JobKept, !on || told, "machine %s switched itself off (%s) with job %s", m.ID, m.PowerOff, j.ID)
		}
	}
}

// ranAt reports whether a job ran at a time.
func ranAt(j simgithub.Job, at time.Time) bool {
	return !j.StartedAt.IsZero() && j.StartedAt.Before(at) && (j.EndedAt.IsZero() || j.EndedAt.After(at))
}

// spares reports whether one of two machines that were launched for one workflow job had
// another job, or was given to another request: so the first one may run on.
func (p machinePromises) spares(machines ...simfleet.Fact) bool {
	return slices.ContainsFunc(machines, func(m simfleet.Fact) bool {
		r := p.runners[p.tagged(m)]
		q := p.requests[r.Request]
		return q.OfJob() && (r.For != q.ID || !r.Job.StartedAt.IsZero() || r.Took.Job != "" && r.Took.Request != q.ID)
	})
}
