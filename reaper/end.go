package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// getAtOnce is how many instances one call asks for.
	getAtOnce = 100
	// finishTries is how often an end is tried against its account's quota, which
	// every launch of the account writes too.
	finishTries = 3
)

// view is what EC2 showed of the instances of a place.
type view struct {
	at        fleet.Place
	ids       []string
	instances map[string]fleet.Instance
	err       error
}

func placeOf(r *store.Runner) fleet.Place { return fleet.Place{Account: r.Account, Region: r.Region} }

// end takes draining and ending runners on towards their end, in the order that
// protects a job: first the registration goes, then the machine.
func (r *run) end(ctx context.Context, runners []*store.Runner) {
	views := r.look(ctx, runners)
	left := runners[:0:0]
	for _, run := range runners {
		v := views[placeOf(run)]
		if in, ok := v.instances[run.InstanceID]; ok && run.InstanceID != "" && in.State.Over() && !r.isLate(ctx) {
			r.guard("runner", run.ID, func() { r.finish(ctx, run, in, over(in)) })
			continue
		}
		left = append(left, run)
	}
	r.deregister(ctx, left, views)
	r.begin(ctx, left, views)
	r.terminate(ctx, left, views)
}

// off reports that EC2 shows the runner's machine, and not running: no job is on it,
// whatever GitHub says.
func off(run *store.Runner, views map[fleet.Place]*view) bool {
	in, shown := views[placeOf(run)].instances[run.InstanceID]
	return shown && run.InstanceID != "" && in.State != fleet.Pending && in.State != fleet.Running
}

// look reads the instances of all runners: one call for each place and hundred.
func (r *run) look(ctx context.Context, runners []*store.Runner) map[fleet.Place]*view {
	views := map[fleet.Place]*view{}
	var calls []*view
	for _, run := range runners {
		at := placeOf(run)
		if views[at] == nil {
			views[at] = &view{at: at, instances: map[string]fleet.Instance{}}
		}
		if run.InstanceID == "" {
			continue
		}
		i := slices.IndexFunc(calls, func(v *view) bool { return v.at == at && len(v.ids) < getAtOnce })
		if i < 0 {
			calls = append(calls, &view{at: at, err: errLater})
			i = len(calls) - 1
		}
		calls[i].ids = append(calls[i].ids, run.InstanceID)
	}
	r.each(ctx, len(calls), func(i int) string { return calls[i].at.Account }, func(i int) {
		v := calls[i]
		v.err = r.askEC2(ctx, v.at, callLimit, func(ctx context.Context) (err error) {
			v.instances, err = r.cfg.Fleet.Get(ctx, v.at, v.ids...)
			return err
		})
	})
	for _, v := range calls {
		whole := views[v.at]
		if v.err != nil {
			whole.err = v.err
			r.unreachable(v.at, fmt.Errorf("get %d instances in %s: %w", len(v.ids), v.at, v.err))
			continue
		}
		maps.Copy(whole.instances, v.instances)
	}
	return views
}

// unreachable reports that a place could not be asked. An account that refuses
// us is never silent.
func (r *run) unreachable(at fleet.Place, err error) {
	if errors.Is(err, errLater) {
		r.line(Line{Kind: "account", ID: at.String(), Action: Skip, Reason: err.Error()})
		return
	}
	r.fail("account", at.String(), err)
	if refused(err) {
		r.alarm(store.AlarmAccess, at.String(), "the account's machines cannot be seen or ended: "+err.Error(),
			"account", at.Account, "region", at.Region)
	}
}

// refused reports that the account will refuse us until a person changes something.
func refused(err error) bool {
	return errors.Is(err, fleet.ErrRefused) || errors.Is(err, store.ErrNoAccount)
}

// deregister asks GitHub to delete the registrations of those whose turn it is.
// That it is being asked is committed first: a compromised machine gets one
// DELETE, and no second wait for it.
func (r *run) deregister(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*view) {
	var jobs []*removal
	for _, run := range runners {
		now := r.cfg.Now()
		if store.NextEndStep(now, r.cfg.Limits, *run, off(run, views)) != store.EndDelete || r.isLate(ctx) {
			continue
		}
		if !r.advance(ctx, run, store.Case{Runner: *run}.Deleting(now)) {
			continue
		}
		jobs = append(jobs, &removal{runner: run, repo: repositoryOf(run), id: run.Config.RunnerID})
	}
	r.remove(ctx, jobs)
	for _, j := range jobs {
		r.guard("runner", j.runner.ID, func() { r.deregistered(ctx, j) })
	}
}

// advance applies a decision about a runner, which it replaces by what it then is.
func (r *run) advance(ctx context.Context, run *store.Runner, d store.Decision) bool {
	if !r.apply(ctx, run, d) {
		return false
	}
	*run = d.Runner
	return true
}

func (r *run) deregistered(ctx context.Context, j *removal) {
	c, now := store.Case{Runner: *j.runner}, r.cfg.Now()
	switch j.out {
	case removed, absent:
		if r.advance(ctx, j.runner, c.Deregistered(now)) {
			r.note(j.runner, Deregister, j.String())
		}
	case busy:
		if r.advance(ctx, j.runner, c.Refused(now, r.cfg.Limits)) {
			r.note(j.runner, Wait, "GitHub says that a job runs; it is asked again after "+j.runner.DeleteAfter.UTC().Format("15:04:05"))
		}
	default:
		r.unremoved(j)
	}
}

// suspect alarms a person about a runner whose end waits for a job that seems to be
// none, once.
func (r *run) suspect(ctx context.Context, run *store.Runner) {
	c := store.Case{Runner: *run}
	d := c.Suspect(r.cfg.Now(), r.cfg.Limits)
	if d.Need != nil {
		items, ok := read[store.Item](ctx, r, "runner", d.Need...)
		if !ok {
			return
		}
		d = c.With(items...).Suspect(r.cfg.Now(), r.cfg.Limits)
	}
	if d.Alarm == "" || !r.advance(ctx, run, d) {
		return
	}
	r.alarm(d.Alarm, run.ID, "a runner drains for a long time, for a job that nobody knows of or whose machine is silent; it ends at its hard limit",
		"runner", run.ID, "request", run.Request, "trace", run.Trace, "instance", run.InstanceID, "repository", run.Repository.Name,
		"registration", run.Config.RunnerID, "hard", run.Hard)
}

// begin commits the state ending for those who need not wait any more.
func (r *run) begin(ctx context.Context, runners []*store.Runner, views map[fleet.Place]*view) {
	for _, run := range runners {
		if r.isLate(ctx) {
			return
		}
		now := r.cfg.Now()
		r.suspect(ctx, run)
		switch store.NextEndStep(now, r.cfg.Limits, *run, off(run, views)) {
		case store.EndWait:
			r.note(run, Wait, waitsFor(now, r.cfg.Limits, *run))
		case store.EndBegin:
			why := endable(now, *run, off(run, views))
			if r.advance(ctx, run, store.Case{Runner: *run}.Ending(now, why)) {
				r.note(run, End, why)
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
func (r *run) finish(ctx context.Context, seen *store.Runner, instance fleet.Instance, reason string) {
	if r.finished[seen.ID] {
		return
	}
	for range finishTries {
		items, ok := read[store.Item](ctx, r, "runner", append(seen.Around(store.KindLock, store.KindQuota, store.KindRequest), seen.Ref())...)
		if !ok {
			return
		}
		c := store.Case{}.With(items...)
		d, ok := c.Finish(r.cfg.Now(), r.cfg.Limits, shown(instance), reason)
		if !ok {
			r.note(seen, Skip, "somebody was faster")
			return
		}
		var err error
		if !r.cfg.DryRun {
			err = r.store.Commit(ctx, d.Changes...)
		}
		switch {
		case err == nil:
			r.finished[d.Runner.ID] = true
			r.note(&d.Runner, Ended, reason)
			if c.Runner.State.Usable() {
				r.diedAlarm(&d.Runner, instance)
			}
			r.settled(c, d)
			r.sendAll(ctx, d)
			return
		case !errors.Is(err, store.ErrConflict):
			r.fail("runner", seen.ID, fmt.Errorf("commit the end of runner %s: %w", seen.ID, err))
			return
		}
	}
	r.note(seen, Skip, "somebody was faster, again and again")
}

// over tells why an instance is over, in EC2's words.
func over(in fleet.Instance) string {
	if in.Reason == "" {
		return "EC2: " + string(in.State)
	}
	return "EC2: " + string(in.State) + " (" + in.Reason + ")"
}
