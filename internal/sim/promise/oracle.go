// Package promise knows what must hold of a simulated world, and says so when it
// does not.
//
// An Oracle sees every commit, and every call of EC2 and GitHub with its answer. It
// keeps a History of them, and judges each promise by that history and by what is
// really there, when something is committed or called, and at the end.
//
// The oracle restates every rule by which GARO decides: who shares a runner and for
// how long, what a runner waits for and when it has to drain, the pace of launches,
// the quota, the order of an end. It asks no rule of package store, since a bug in a
// rule must not hide itself: a rule that judges itself is always right. What it
// restates is often weaker than the rule, by what clocks and calls on their way may
// change. It trusts the words of the records alone (which states are final or usable,
// what a lock names, what a request asked for, the keys and tokens of an id) and the
// numbers (Limits, and constants such as BrakeAbove): these have tables of tests in
// package store.
package promise

import (
	"errors"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Oracle watches one world. Make it with New.
type Oracle struct {
	*History
	recordPromises
	launchPromises
	bootPromises
	wordPromises
	scopePromises
	endPromises
	runPromises
	machinePromises
	finalPromises
	floodPromises
	plainPromises
	outfitPromises
	leasePromises
	credentialPromises
	checkPromises
	usagePromises
	countPromises
}

// New returns an oracle that has seen nothing.
func New(cfg Config) *Oracle {
	h := &History{Config: cfg, seen: newSeen(), retagged: map[string]string{}, stopped: map[string]time.Time{}, keyLost: map[string]time.Time{},
		outfits: outfits{map[string]bool{}, map[string]string{}}, counts: counts{owed: map[metrics.Name]int{}}, refusals: newRefusals()}
	return &Oracle{
		h, recordPromises{h}, launchPromises{h}, bootPromises{h}, wordPromises{h}, scopePromises{h}, endPromises{h},
		runPromises{h}, machinePromises{h}, finalPromises{h}, floodPromises{h}, plainPromises{h}, outfitPromises{h}, leasePromises{h}, credentialPromises{h}, checkPromises{h}, usagePromises{h}, countPromises{h},
	}
}

// commit is a commit that was made.
type commit struct {
	effect *kernel.Effect
	items  []store.Item  // what it wrote
	before time.Duration // how long ago it was decided, at most
}

// Commit makes a commit by f, and looks at what it wrote. It returns that in words.
func (o *Oracle) Commit(e *kernel.Effect, changes []store.Change, f func() error) (changed []string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	err = f()
	if errors.Is(err, store.ErrConflict) {
		o.conflicts++
	}
	if err != nil {
		return nil, err
	}
	o.commits++
	c := commit{effect: e, before: instant + o.slow[e.By]}
	for _, was := range changes {
		// What was made before, and its answer lost, is nothing new.
		if !was.CheckOnly && o.versions[was.Item.Ref()] < was.Item.Base().Version {
			if what := o.wrote(was.Item); what != "" {
				changed = append(changed, what)
			}
			c.items = append(c.items, was.Item)
		}
	}
	o.sawSaid(c)
	o.sawOrder(c)
	o.saw(c)
	return changed, nil
}

// sawOrder looks at what a commit is about to change: it may, as things were.
func (o *Oracle) sawOrder(c commit) {
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Request:
			o.sawTakenUp(o.requests[i.ID], *i)
		case *store.Runner:
			was, l := o.runners[i.ID], o.locks[i.Lock]
			o.sawBoot(c.effect, was, *i, l)
			if was.Version == 0 {
				continue
			}
			o.hold(Final, was.State.Usable() || !i.State.Usable(), "runner %s was %s, and is %s", i.ID, was.State, i.State)
			if was.State.Usable() && i.State == store.RunnerDraining {
				o.sawDrain(c, was, *i, l)
				o.sawDenied(*i, l)
			}
			o.sawOver(was, *i)
		case *store.Lock:
			if was := o.locks[i.Key]; was.Runner != "" && was.Runner != i.Runner {
				o.heard.unnamed[was.Runner] = time.Now()
			}
		}
	}
	o.sawPulses(c)
	o.sawLeases(c)
	o.sawUsage(c)
	o.sawCounts(c)
	o.sawOverflow(c)
}

// saw looks at what a commit wrote: first at each item and what it was before, and
// then at what they are together.
func (o *Oracle) saw(c commit) {
	noted := o.sawLaunch(c.items)
	shared := map[string]store.Lock{} // those that were given a runner, and how its lock was
	locks := map[string]store.Lock{}
	for _, i := range c.items {
		if r, ok := i.(*store.Request); ok {
			locks[r.LockKey()] = o.locks[r.LockKey()]
		}
	}
	var online []store.Runner
	var jobs []func() // what is looked at when all was noted
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Request:
			was := o.requests[i.ID]
			o.sawRequest(was, *i)
			o.requests[i.ID] = *i
			o.sawLeft(was, *i)
			jobs = append(jobs, func() { o.sawPlain(was, *i); o.sawPause(was, *i) })
			o.sawCrowd(c, was, *i)
			if i.Runner != "" && i.Runner != was.Runner {
				shared[i.ID] = locks[i.LockKey()]
			}
		case *store.Runner:
			was := o.runners[i.ID]
			o.runners[i.ID] = *i
			o.sawRunner(was, *i)
			o.sawWord(c, was, *i)
			o.sawBooted(was, *i)
			o.sawScopes(was, *i)
			o.sawReason(was, *i)
			o.sawTook(was, *i)
			jobs = append(jobs, func() { o.sawWanted(*i) })
			o.sawUnfit(was, *i)
			if begins(was.OnlineAt, i.OnlineAt) {
				online = append(online, *i)
			}
		case *store.Lock:
			o.sawLock(o.locks[i.Key], *i)
			o.locks[i.Key] = *i
		case *store.Pulse:
			o.pulses[i.Key] = *i
		case *store.Checkup:
			o.sawCheck(i)
		}
	}
	o.sawTogether(c, shared)
	for _, r := range online {
		o.sawTold(c.effect.Part, r)
	}
	for _, look := range jobs {
		look()
	}
	noted()
}

// sawTogether looks at what was written together. shared are the requests that were
// given a runner, and how its lock was.
func (o *Oracle) sawTogether(c commit, shared map[string]store.Lock) {
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Request:
			run := o.runners[i.Runner]
			o.sawUnfitRequest(*i)
			if i.State == store.Ready && !i.OfJob() {
				o.hold(ReadyRunner, !run.OnlineAt.IsZero(), "request %s is ready, and its runner %s was never online", i.ID, i.Runner)
			}
			if was, ok := shared[i.ID]; ok {
				o.sawShare(*i, run, was, o.locks[i.LockKey()], c.before)
				o.suits(*i, run.Launch.Options, run.Launch.Tags)
				o.fits(*i, run.Placement().InstanceType)
				if i.State == store.Ready && run.Request != i.ID && !i.OfJob() {
					o.sawConfirmed(c, *i, run)
				}
			} else if i.State == store.Ready && !i.OfJob() {
				o.hold(ReadyAt, i.ReadyAt.Equal(run.OnlineAt), "request %s is ready at %s, and its runner %s was online at %s", i.ID, i.ReadyAt, run.ID, run.OnlineAt)
			}
		case *store.Runner:
			o.agree(o.locks[i.Lock])
			o.sawBootBy(*i)
		case *store.Lock:
			o.agree(*i)
		case *store.Quota:
			o.sawIntents(c)
			o.sawQuota(*i)
		}
	}
}

// Check looks at everything that must hold at any time, but is looked at only now: no
// runner ever has two machines with credentials, nor a request two that are of use at
// once; the quota counts what lives; no machine outlived its timer; and no secret can
// be read anywhere, in the log neither.
func (o *Oracle) Check(log []byte) {
	machines := o.Fleet.Instances()
	powerless := o.powerless()
	found := o.readable(log)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hold(Hidden, len(found) == 0, "%v", found)
	o.sawMachines(machines, powerless)
	o.sawPace()
	o.sawDry()
	live := map[string]int{}
	for _, r := range o.runners {
		if !r.State.Final() {
			live[r.Account]++
		}
	}
	for account, counted := range o.live {
		o.hold(QuotaTrue, live[account] == counted, "%d runners of %s are neither failed nor ended, and %d were counted", live[account], account, counted)
	}
}

// Healed looks at what must hold when nothing is left of a world whose trouble ended
// at a time, in which so many requests were asked for, some workflow jobs queued, and some
// alarms raised.
func (o *Oracle) Healed(at time.Time, asked int, jobs []string, alarms []store.Alarm) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sawJobs()
	for _, g := range o.GitHub.Minted() {
		o.sawRegistration(g)
	}
	o.sawRefusals(alarms)
	o.hold(NoPanic, !slices.Contains(alarms, store.AlarmPanic), "panic: a part panicked, and says so in its log")
	o.hold(OneEach, len(o.requests) <= asked+len(jobs), "%d requests were asked for, and %d jobs queued, and %d requests are recorded", asked, len(jobs), len(o.requests))
	o.sawServed(at, jobs)
	o.sawHealed(at)
	o.sawAllCounted()
}
