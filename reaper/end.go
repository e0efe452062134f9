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

const (
	// getAtOnce is how many instances one call asks for.
	getAtOnce = 100
	// finishTries is how often an end is tried against its account's quota, which
	// every launch of the account writes too.
	finishTries = 3
)

// lookup is what EC2 showed of the instances of a place.
type lookup struct {
	at        fleet.Place
	ids       []string
	instances map[string]fleet.Instance
	err       error
}

// end takes draining and ending runners on towards their end, in the order that
// protects a job: first the registration goes, then the machine.
func (p *pass) end(ctx context.Context, runners []*store.Runner) {
	views := atEC2{p}.lookUp(ctx, runners)
	left := runners[:0:0]
	for _, run := range runners {
		v := views[fleet.PlaceOf(*run)]
		if in, ok := v.instances[run.InstanceID]; ok && run.InstanceID != "" && in.State.Over() && !p.isLate(ctx) {
			p.guard("runner", run.ID, func() { p.finish(ctx, run, in, over(in)) })
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
	ec2.each(ctx, len(calls), func(i int) string { return calls[i].at.Account }, func(i int) {
		v := calls[i]
		v.err = ec2.askEC2(ctx, v.at, callLimit, func(ctx context.Context) (err error) {
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
	var jobs []*removal
	for _, run := range runners {
		now := gh.cfg.Now()
		if store.NextEndStep(now, gh.cfg.Limits, *run, off(run, views)) != store.EndDelete || gh.isLate(ctx) {
			continue
		}
		if !gh.advance(ctx, run, store.Case{Runner: *run}.Deleting(now)) {
			continue
		}
		jobs = append(jobs, &removal{runner: run, repo: github.RepositoryOf(*run), id: run.Config.RunnerID})
	}
	gh.remove(ctx, jobs)
	for _, j := range jobs {
		gh.guard("runner", j.runner.ID, func() { gh.deregistered(ctx, j) })
	}
}

// advance applies a decision about a runner, which it replaces by what it then is.
func (p *pass) advance(ctx context.Context, run *store.Runner, d store.Decision) bool {
	if !p.apply(ctx, run, d) {
		return false
	}
	*run = d.Runner
	return true
}

func (gh atGitHub) deregistered(ctx context.Context, j *removal) {
	c, now := store.Case{Runner: *j.runner}, gh.cfg.Now()
	switch j.out {
	case removed, absent:
		if gh.advance(ctx, j.runner, c.Deregistered(now)) {
			gh.note(j.runner, Deregister, j.String())
		}
	case busy:
		if gh.advance(ctx, j.runner, c.Refused(now, gh.cfg.Limits)) {
			gh.note(j.runner, Wait, "GitHub says that a job runs; it is asked again after "+j.runner.DeleteAfter.UTC().Format("15:04:05"))
		}
	default:
		gh.unremoved(j)
	}
}

// suspect alarms a person about a runner whose end waits for a job that seems to be
// none, once.
func (p *pass) suspect(ctx context.Context, run *store.Runner) {
	c := store.Case{Runner: *run}
	d := c.Suspect(p.cfg.Now(), p.cfg.Limits)
	if d.Need != nil {
		items, ok := read[store.Item](ctx, p, "runner", d.Need...)
		if !ok {
			return
		}
		d = c.With(items...).Suspect(p.cfg.Now(), p.cfg.Limits)
	}
	if d.Alarm == "" || !p.advance(ctx, run, d) {
		return
	}
	p.alarm(d.Alarm, run.ID, "a runner drains for a long time, for a job that nobody knows of or whose machine is silent; it ends at its hard limit",
		"runner", run.ID, "request", run.Request, "trace", run.Trace, "instance", run.InstanceID, "repository", run.Repository.Name,
		"registration", run.Config.RunnerID, "hard", run.Hard)
}

// begin commits the state ending for those who need not wait any more.
func (p *pass) begin(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*lookup) {
	for _, run := range runners {
		if p.isLate(ctx) {
			return
		}
		now := p.cfg.Now()
		p.suspect(ctx, run)
		switch store.NextEndStep(now, p.cfg.Limits, *run, off(run, views)) {
		case store.EndWait:
			p.note(run, Wait, waitsFor(now, p.cfg.Limits, *run))
		case store.EndBegin:
			why := endable(now, *run, off(run, views))
			if p.advance(ctx, run, store.Case{Runner: *run}.Ending(now, why)) {
				p.note(run, End, why)
			}
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

// finish ends a runner whose instance EC2 has terminated, or no longer knows: the
// runner, its account's quota and its lock in one commit. instance is what was
// seen to be over; its zero value: none was ever launched. A request that waits for
// a machine which ended before it was online learns of it in the same commit.
func (p *pass) finish(ctx context.Context, seen *store.Runner, instance fleet.Instance, reason string) {
	if p.finished[seen.ID] {
		return
	}
	for range finishTries {
		items, ok := read[store.Item](ctx, p, "runner", append(seen.Around(store.KindLock, store.KindQuota, store.KindRequest), seen.Ref())...)
		if !ok {
			return
		}
		c := store.Case{}.With(items...)
		d, ok := c.Finish(p.cfg.Now(), p.cfg.Limits, shown(instance), reason)
		if !ok {
			p.note(seen, Skip, "somebody was faster")
			return
		}
		var err error
		if !p.cfg.DryRun {
			err = p.store.Commit(ctx, d.Changes...)
		}
		switch {
		case err == nil:
			p.finished[d.Runner.ID] = true
			p.note(&d.Runner, Ended, reason)
			if c.Runner.State.Usable() {
				p.diedAlarm(&d.Runner, instance)
			}
			p.settled(c, d)
			p.sendAll(ctx, d)
			return
		case !errors.Is(err, store.ErrConflict):
			p.fail("runner", seen.ID, fmt.Errorf("commit the end of runner %s: %w", seen.ID, err))
			return
		}
	}
	p.note(seen, Skip, "somebody was faster, again and again")
}

// over tells why an instance is over, in EC2's words.
func over(in fleet.Instance) string {
	if in.Reason == "" {
		return "EC2: " + string(in.State)
	}
	return "EC2: " + string(in.State) + " (" + in.Reason + ")"
}
