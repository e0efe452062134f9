package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// getAtOnce is how many instances one call asks for.
const getAtOnce = 100

// lookup is what EC2 showed of the instances of a place.
type lookup struct {
	at        fleet.Place
	ids       []string
	instances map[string]fleet.Instance
	err       error
}

// end takes draining and ending runners on towards their end, in the order that
// protects a job: first the registration goes, then the machine. Each step is made for
// all of them at once.
func (p *pass) end(ctx context.Context, runners []*store.Runner) {
	views := atEC2{p}.lookUp(ctx, runners)
	left := runners[:0:0]
	for _, run := range runners {
		v := views[fleet.PlaceOf(*run)]
		if in, ok := v.instances[run.InstanceID]; ok && run.InstanceID != "" && in.State.Over() {
			p.finish(run, in, whyOver(in))
			continue
		}
		left = append(left, run)
	}
	atGitHub{p}.deregister(ctx, left, views)
	p.begin(ctx, left, views)
	atEC2{p}.terminate(ctx, left, views)
}

// off reports that EC2 shows the runner's machine, and not running: no job is on it,
// whatever GitHub says.
func off(run *store.Runner, views map[fleet.Place]*lookup) bool {
	in, shown := views[fleet.PlaceOf(*run)].instances[run.InstanceID]
	return shown && run.InstanceID != "" && in.State != fleet.Pending && in.State != fleet.Running
}

// look reads the instances of all runners: one call for each place and hundred.
func (ec2 atEC2) lookUp(ctx context.Context, runners []*store.Runner) map[fleet.Place]*lookup {
	views := map[fleet.Place]*lookup{}
	var calls []*lookup
	for _, run := range runners {
		at := fleet.PlaceOf(*run)
		if views[at] == nil {
			views[at] = &lookup{at: at, instances: map[string]fleet.Instance{}}
		}
		if run.InstanceID == "" {
			continue
		}
		i := slices.IndexFunc(calls, func(v *lookup) bool { return v.at == at && len(v.ids) < getAtOnce })
		if i < 0 {
			calls = append(calls, &lookup{at: at, err: errLater})
			i = len(calls) - 1
		}
		calls[i].ids = append(calls[i].ids, run.InstanceID)
	}
	ec2.each(ctx, len(calls), accounts(ec2AtOnce, func(i int) string { return calls[i].at.Account }), func(q *pass, i int) {
		v := calls[i]
		v.err = atEC2{q}.askEC2(ctx, v.at, callLimit, func(ctx context.Context) (err error) {
			v.instances, err = ec2.cfg.Fleet.Get(ctx, v.at, v.ids...)
			return err
		})
	})
	for _, v := range calls {
		whole := views[v.at]
		if v.err != nil {
			whole.err = v.err
			ec2.unreachable(v.at, fmt.Errorf("get %d instances in %s: %w", len(v.ids), v.at, v.err))
			continue
		}
		maps.Copy(whole.instances, v.instances)
	}
	return views
}

// unreachable reports that a place could not be asked. An account that refuses
// us is never silent.
func (ec2 atEC2) unreachable(at fleet.Place, err error) {
	if errors.Is(err, errLater) {
		ec2.line(Line{Kind: "account", ID: at.String(), Action: Skip, Reason: err.Error()})
		return
	}
	if !ec2.isRefused(at.Account, "account", at.String(), err) {
		ec2.fail("account", at.String(), err)
	}
}

// refused reports that the account will refuse us until a person changes something.
func refused(err error) bool {
	return errors.Is(err, fleet.ErrRefused) || errors.Is(err, store.ErrNoAccount) || errors.Is(err, store.ErrUnusable)
}

// deregister asks GitHub to delete the registrations of those whose turn it is.
// That it is being asked is committed first: a compromised machine gets one
// DELETE, and no second wait for it.
func (gh atGitHub) deregister(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*lookup) {
	var asks []*store.Runner
	for _, run := range runners {
		if store.NextEndStep(gh.cfg.Now(), gh.cfg.Limits, *run, off(run, views)) == store.EndDelete {
			asks = append(asks, run)
		}
	}
	jobs := make([]*removal, len(asks))
	gh.each(ctx, len(asks), common(commitsAtOnce), func(q *pass, i int) {
		run := asks[i]
		if _, ok := q.advance(ctx, run, func(c store.Case) store.Decision { return c.Deleting(q.cfg.Now()) }); ok {
			jobs[i] = &removal{runner: run, scope: github.ScopeOf(*run), id: run.Config.RunnerID}
		}
	})
	jobs = slices.DeleteFunc(jobs, func(j *removal) bool { return j == nil })
	gh.remove(ctx, jobs)
	gh.record(len(jobs), func(q *pass, i int) {
		q.guard("runner", jobs[i].runner.ID, func() { atGitHub{q}.deregistered(ctx, jobs[i]) })
	})
}

func (gh atGitHub) deregistered(ctx context.Context, j *removal) {
	switch j.out {
	case removed, absent:
		if _, ok := gh.advance(ctx, j.runner, func(c store.Case) store.Decision { return c.Deregistered(gh.cfg.Now()) }); ok {
			gh.note(j.runner, Deregister, j.String())
		}
	case busy:
		if _, ok := gh.advance(ctx, j.runner, func(c store.Case) store.Decision { return c.Refused(gh.cfg.Now(), gh.cfg.Limits) }); ok {
			gh.note(j.runner, Wait, "GitHub says that a job runs; it is asked again after "+j.runner.DeleteAfter.UTC().Format("15:04:05"))
		}
	default:
		gh.unremoved(j)
	}
}

// suspect alarms a person about a runner whose end waits for a job that seems to be
// none, once.
func (p *pass) suspect(ctx context.Context, run *store.Runner) {
	d, ok := p.advance(ctx, run, func(c store.Case) store.Decision { return c.Suspect(p.cfg.Now(), p.cfg.Limits) })
	if !ok || d.Alarm == "" {
		return
	}
	p.alarm(d.Alarm, run.ID, "a runner drains for a long time, for a job that nobody knows of or whose machine is silent; it ends at its hard limit",
		"runner", run.ID, "request", run.Request, "trace", run.Trace, "instance", run.InstanceID, "repository", run.Repository.Name,
		"registration", run.Config.RunnerID, "hard", run.Hard)
}

// begin commits the state ending for those who need not wait any more.
func (p *pass) begin(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*lookup) {
	p.spread(len(runners), common(commitsAtOnce), func() bool { return isLate(ctx) }, func(q *pass, i int) {
		run := runners[i]
		q.guard("runner", run.ID, func() { q.beginOne(ctx, run, off(run, views)) })
	})
	for _, run := range runners { // most of those that were not begun only wait
		if isLate(ctx) && store.NextEndStep(p.cfg.Now(), p.cfg.Limits, *run, off(run, views)) == store.EndBegin {
			p.leave(1)
		}
	}
}

func (p *pass) beginOne(ctx context.Context, run *store.Runner, off bool) {
	p.suspect(ctx, run)
	now := p.cfg.Now()
	switch store.NextEndStep(now, p.cfg.Limits, *run, off) {
	case store.EndWait:
		p.note(run, Wait, waitsFor(now, p.cfg.Limits, *run))
	case store.EndBegin:
		why := endable(now, *run, off)
		if _, ok := p.advance(ctx, run, func(c store.Case) store.Decision {
			if store.NextEndStep(now, p.cfg.Limits, c.Runner, off) != store.EndBegin {
				return c.Suspect(p.cfg.Now(), p.cfg.Limits) // it waits again, as the others do
			}
			return c.Ending(p.cfg.Now(), why)
		}); ok && run.State == store.RunnerEnding {
			p.note(run, End, why)
		}
	}
}

// waitsFor tells what the end of a draining runner waits for.
func waitsFor(now time.Time, lim store.Limits, r store.Runner) string {
	switch {
	case r.DeregisteredAt.IsZero():
		return "GitHub said that a job runs; it is asked again after " + r.DeleteAfter.UTC().Format("15:04:05")
	case now.Sub(r.DeregisteredAt) < lim.Grace:
		return "a job may still begin, until " + r.DeregisteredAt.Add(lim.Grace).UTC().Format(time.RFC3339)
	}
	return "its job runs on, though GitHub no longer has the registration"
}

// endable tells why a draining runner may be ended now. off: EC2 shows its machine,
// and not running.
func endable(now time.Time, r store.Runner, off bool) string {
	switch {
	case off:
		return "its machine does not run"
	case r.Boot.At.IsZero():
		return "no config was ever answered"
	case !now.Before(r.Hard):
		return "hard limit"
	case r.End != nil && r.End.Code == store.EndCompromised:
		return "compromised"
	case !r.IdleAt.IsZero():
		return "deregistered, and no job runs"
	}
	return "deregistered, and the grace period is over"
}
