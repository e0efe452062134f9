package sim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// Promise is something that must hold, by its name.
type Promise string

// The promises that are looked at whenever something is committed or called.
const (
	Final         Promise = "what is final stays as it is"
	ReadyRunner   Promise = "a ready request keeps its runner, which was online"
	Reasons       Promise = "whatever ends says why"
	Watched       Promise = "whatever is open will be looked at again"
	Fixed         Promise = "what a record began with stays"
	GivesUp       Promise = "a request is not tried more often than it may be"
	OneUsable     Promise = "a key has at most one usable runner"
	LockTells     Promise = "a lock that may be shared names a usable runner"
	SharedRoom    Promise = "a shared runner is usable, and has the time that was asked for"
	Rising        Promise = "what may only rise rises"
	BootBound     Promise = "only an index that moves moves the boot limit"
	BootOrder     Promise = "a config is answered to the launched machine alone, in time"
	HardKept      Promise = "nobody may count on a runner beyond its hard limit"
	QuotaTrue     Promise = "the quota counts what lives"
	QuotaKept     Promise = "the quota is never passed"
	Claimed       Promise = "what EC2 or GitHub does once is asked for under a claim"
	Paced         Promise = "each RunInstances call has a slot, and the slots keep the pace"
	NameOnce      Promise = "a name is written ahead, and registered once"
	DeleteOrder   Promise = "a registration is deleted when nothing may use it any more"
	EndOrder      Promise = "a machine is terminated when no job can be on it any more"
	Goroutines    Promise = "nothing runs on after its invocation returned"
	OneMachine    Promise = "a runner has at most one machine with credentials"
	OneOfRequest  Promise = "a request has at most one machine of use at a time"
	Timer         Promise = "no machine outlives its own timer"
	Age           Promise = "no machine outlives its hard limit and a run of the reaper"
	NoMoreThan    Promise = "no more machines with credentials live than may"
	Hidden        Promise = "no secret can be read anywhere"
	Nothing       Promise = "nothing is left"
	Answered      Promise = "what was accepted is recorded"
	EndedInTime   Promise = "every request has an end soon after the trouble and its own limit"
	DrainedInTime Promise = "every runner has an end soon after the trouble and its drain"
	Rest          Promise = "the world comes to rest"
)

// hold notes that a promise was put to the test, and says so if it is broken. The
// caller holds the mutex.
func (w *World) hold(p Promise, ok bool, format string, args ...any) {
	w.watch.looked[p]++
	if !ok {
		w.broken(format, args...)
	}
}

// broken reports that something does not hold.
func (w *World) broken(format string, args ...any) {
	w.Errorf("%s "+format, append([]any{time.Now().Format("15:04:05.000")}, args...)...)
}

// instant is how long after its decision a commit is made, at most, by one who does
// not stand still meanwhile.
const instant = 2 * time.Second

// slack is by how much the clocks of two parts may differ.
const slack = 12 * time.Second

// saw looks at what a commit wrote: first at each item and what it was before, and
// then at what they are together. It was decided so long before, or less.
func (w *World) saw(o outside, items []store.Item, before time.Duration) {
	defer w.sawLaunch(items)()
	shared := map[string]store.Lock{} // those that were given a runner, and how its lock was
	locks := map[string]store.Lock{}
	for _, i := range items {
		if r, ok := i.(*store.Request); ok {
			locks[r.LockKey()] = w.watch.locks[r.LockKey()]
		}
	}
	for _, i := range items {
		switch i := i.(type) {
		case *store.Request:
			was := w.watch.requests[i.ID]
			w.sawRequest(was, *i)
			w.watch.requests[i.ID] = *i
			if i.Runner != "" && i.Runner != was.Runner {
				shared[i.ID] = locks[i.LockKey()]
			}
		case *store.Runner:
			was := w.watch.runners[i.ID]
			w.watch.runners[i.ID] = *i
			w.sawRunner(was, *i)
			w.sawOnline(o, was, *i)
			w.sawRefused(was, *i)
			w.sawReason(o, was, *i)
			w.sawNames(*i)
			if !i.Job.StartedAt.Equal(was.Job.StartedAt) || i.Jobs != was.Jobs || i.Wanted != was.Wanted {
				delete(w.watch.confirmations.counted, i.ID)
			}
			if i.Refusals > 0 {
				w.watch.confirmations.busy[i.ID] = true
			}
			for _, other := range items {
				if q, ok := other.(*store.Quota); ok {
					w.sawBlame(was, *q)
				}
			}
			if was.OnlineAt.IsZero() && !i.OnlineAt.IsZero() {
				defer w.sawTold(o.part, *i) // when all of the commit is seen
			}
		case *store.Lock:
			w.sawLock(w.watch.locks[i.Key], *i)
			w.watch.locks[i.Key] = *i
		case *store.Pulse:
			w.watch.pulses[i.Key] = *i
		}
	}
	for _, i := range items {
		switch i := i.(type) {
		case *store.Request:
			run := w.watch.runners[i.Runner]
			if i.State == store.Ready {
				w.hold(ReadyRunner, !run.OnlineAt.IsZero(), "request %s is ready, and its runner %s was never online", i.ID, i.Runner)
			}
			if was, ok := shared[i.ID]; ok {
				w.sawShare(*i, run, was, w.watch.locks[i.LockKey()], before)
				if i.State == store.Ready && run.Request != i.ID {
					w.sawConfirmed(o, *i, run, was, before)
				}
			} else if i.State == store.Ready {
				w.hold(ReadyAt, i.ReadyAt.Equal(run.OnlineAt), "request %s is ready at %s, and its runner %s was online at %s", i.ID, i.ReadyAt, run.ID, run.OnlineAt)
			}
		case *store.Runner:
			w.agree(w.watch.locks[i.Lock])
		case *store.Lock:
			w.agree(*i)
		case *store.Quota:
			for _, other := range items {
				if r, ok := other.(*store.Runner); ok && r.Version == 1 {
					w.sawIntent(*r)
				}
			}
			w.hold(QuotaTrue, i.Live == w.watch.live, "the quota counts %d runners, and %d are neither failed nor ended", i.Live, w.watch.live)
			w.hold(QuotaKept, i.Live <= i.Limit && i.Limit == w.Account.MaxRunners, "%d runners live, and the limit is %d", i.Live, w.Account.MaxRunners)
		}
	}
}

func (w *World) sawRequest(was, r store.Request) {
	if r.State.Final() && r.State != store.Ready {
		w.hold(Reasons, r.Error != nil && r.Error.Code != "" && r.Error.Text != "", "request %s is %s, and does not say why", r.ID, r.State)
	}
	if !r.State.Final() {
		w.hold(Watched, !r.DueAt.IsZero(), "request %s is %s, and will be looked at never again", r.ID, r.State)
	}
	w.hold(GivesUp, r.Tries <= len(w.Limits.Waits), "request %s was tried %d times again", r.ID, r.Tries)
	if was.Version == 0 {
		return
	}
	w.hold(Final, !was.State.Final() || r.State == was.State, "request %s was %s, and is %s", r.ID, was.State, r.State)
	w.hold(ReadyRunner, was.State != store.Ready || r.Runner == was.Runner, "request %s was ready with runner %s, and has %s", r.ID, was.Runner, r.Runner)
	w.hold(Fixed, r.GiveUpAt.Equal(was.GiveUpAt) && r.BodyHash == was.BodyHash && r.CreatedAt.Equal(was.CreatedAt) && r.OwnLabel == was.OwnLabel,
		"request %s is another one than it was", r.ID)
	w.hold(Rising, r.Tries >= was.Tries, "request %s was tried %d times, and then %d", r.ID, was.Tries, r.Tries)
}

// sawShare looks at a request that was just given a runner, whose lock was so
// before.
func (w *World) sawShare(r store.Request, run store.Runner, was, l store.Lock, before time.Duration) {
	now := r.UpdatedAt // by the clock that it was decided by
	w.hold(SharedRoom, run.State.Usable() && l.Names(run.ID) && (l.State == store.LockLive || l.State == store.LockLaunching),
		"request %s is given runner %s, which is %s; its lock is %s and names %s", r.ID, run.ID, run.State, l.State, l.Runner)
	if run.Request == r.ID {
		return // it launched it
	}
	w.hold(SharedRoom, r.Mode == store.Shared && run.Mode == store.Shared, "request %s shares runner %s, and they are %s and %s", r.ID, run.ID, r.Mode, run.Mode)
	from := now // when its time begins
	if l.State == store.LockLaunching {
		from = latest(now, l.BootBy)
	}
	w.hold(SharedRoom, !run.Hard.Before(from.Add(r.Timeout()-before)), "request %s wants %s of runner %s, which ends at %s", r.ID, r.Timeout(), run.ID, run.Hard)
	w.hold(SharedRoom, l.Joined != "", "request %s shares runner %s, and nobody has joined it", r.ID, run.ID)
	w.hold(SharedRoom, !l.Exp.Before(from.Add(r.Timeout()-w.Limits.ShareStep-before)), "request %s wants %s of runner %s, whose lock expires at %s", r.ID, r.Timeout(), run.ID, l.Exp)
	if !was.Names(run.ID) {
		return // the same commit launches it
	}
	w.hold(SharedRoom, !was.Exp.Before(now.Add(w.Limits.ShareMargin-before)), "request %s is given runner %s at %s, whose lock expires at %s", r.ID, run.ID, now, was.Exp)
	switch was.State {
	case store.LockLaunching:
		w.hold(SharedRoom, !now.After(was.BootBy.Add(before)), "request %s waits for runner %s from %s on, which was to boot by %s", r.ID, run.ID, now, was.BootBy)
	case store.LockLive:
		seen := latest(w.watch.pulses[l.Key].SeenOf(run.ID), run.OnlineAt)
		w.hold(SharedRoom, now.Sub(seen) <= w.Limits.Silent+slack+before, "request %s is given runner %s, which was heard of %s before", r.ID, run.ID, now.Sub(seen))
	}
}

func (w *World) sawRunner(was, r store.Runner) {
	now := time.Now()
	if !r.CalledAt.Equal(was.CalledAt) {
		w.watch.slots = append(w.watch.slots, r.CalledAt)
		w.watch.slotsOf[r.ID]++
	}
	if was.Version == 0 {
		w.watch.live++
	}
	if r.State.Final() && !was.State.Final() {
		w.watch.live--
	}
	if r.Config.RunnerID != 0 {
		w.watch.configs[r.Config.RunnerID] = true
	}
	other := w.watch.usable[r.Lock]
	w.hold(OneUsable, !r.State.Usable() || other == "" || other == r.ID, "runners %s and %s of %s are usable at once", other, r.ID, r.Lock)
	switch {
	case r.State.Usable():
		w.watch.usable[r.Lock] = r.ID
	case other == r.ID:
		delete(w.watch.usable, r.Lock)
	}
	if !r.State.Final() {
		w.hold(Watched, !r.DueAt.IsZero(), "runner %s is %s, and will be looked at never again", r.ID, r.State)
	}
	if r.State == store.RunnerFailed {
		w.hold(Final, r.InstanceID == "" && r.Config.N == 0, "runner %s failed, and has instance %q and config %d", r.ID, r.InstanceID, r.Config.N)
	}
	if was.Version == 0 {
		return
	}
	if was.Boot.At.IsZero() && !r.Boot.At.IsZero() {
		l := w.watch.locks[r.Lock]
		w.hold(BootOrder, r.Config.N > 0 && r.InstanceID != "" && r.Boot.InstanceID == r.InstanceID && r.Boot.NonceHash != "",
			"runner %s booted with config %d on %q, and its instance is %q", r.ID, r.Config.N, r.Boot.InstanceID, r.InstanceID)
		w.hold(BootOrder, l.Names(r.ID) && !now.After(l.BootBy.Add(slack)), "runner %s booted at %s, and its lock names %s, to boot by %s", r.ID, now, l.Runner, l.BootBy)
	}
	w.hold(Final, !was.State.Final() || r.State == was.State, "runner %s was %s, and is %s", r.ID, was.State, r.State)
	w.hold(Fixed, r.Hard.Equal(was.Hard) && r.Lock == was.Lock && r.Request == was.Request && (slices.Equal(r.Plan, was.Plan) && sameLaunch(r.Launch, was.Launch) || w.reimaged(was, r)),
		"runner %s is another one than it was", r.ID)
	w.hold(Fixed, was.InstanceID == "" || r.InstanceID == was.InstanceID, "runner %s had instance %s, and has %s", r.ID, was.InstanceID, r.InstanceID)
	w.hold(Fixed, was.Boot.NonceHash == "" || r.Boot.NonceHash == was.Boot.NonceHash, "runner %s booted with another nonce", r.ID)
	w.hold(Rising, r.Index >= was.Index && r.Config.N >= was.Config.N && r.Counter >= was.Counter && r.Wanted >= was.Wanted,
		"runner %s went back to index %d, config %d, event %d and wish %d", r.ID, r.Index, r.Config.N, r.Counter, r.Wanted)
	if !r.State.Usable() {
		w.hold(Reasons, r.End != nil, "runner %s is %s, and does not say why", r.ID, r.State)
	}
}

func sameLaunch(a, b store.Launch) bool {
	return a.Image == b.Image && a.Script == b.Script && a.APIURL == b.APIURL && a.HardS == b.HardS && a.KeyID == b.KeyID &&
		a.InstanceProfile == b.InstanceProfile && slices.Equal(a.SecurityGroups, b.SecurityGroups)
}

func (w *World) sawLock(was, l store.Lock) {
	w.hold(HardKept, !l.Exp.After(l.Hard), "lock %s may be counted on until %s, and its runner ends at %s", l.Key, l.Exp, l.Hard)
	if l.Runner == "" || was.Runner != l.Runner {
		return
	}
	w.hold(Rising, !l.Exp.Before(was.Exp), "lock %s could be counted on until %s, and now until %s", l.Key, was.Exp, l.Exp)
	w.hold(Fixed, l.Hard.Equal(was.Hard) && (was.Joined == "" || l.Joined == was.Joined), "lock %s is another one than it was", l.Key)
	if !l.BootBy.Equal(was.BootBy) {
		r := w.watch.runners[l.Runner] // as it was, or as the same commit has it
		w.hold(BootBound, r.State == store.RunnerNew && w.watch.slotsOf[r.ID] >= 1, "the boot limit of runner %s moved to %s", r.ID, l.BootBy)
	}
}

// agree looks at a lock and the runner that it names.
func (w *World) agree(l store.Lock) {
	if l.State == store.LockDraining {
		w.hold(LockTells, !w.watch.runners[l.Runner].State.Usable(), "lock %s drains, and its runner %s is usable", l.Key, l.Runner)
	}
	if l.State != store.LockLive && l.State != store.LockLaunching {
		return
	}
	r := w.watch.runners[l.Runner]
	w.hold(LockTells, r.State.Usable() && r.Lock == l.Key, "lock %s is %s and names runner %s, which is %s", l.Key, l.State, l.Runner, r.State)
	w.hold(LockTells, l.Hard.Equal(r.Hard), "lock %s ends at %s, and its runner at %s", l.Key, l.Hard, r.Hard)
	w.hold(LockTells, (l.State == store.LockLive) == !r.OnlineAt.IsZero(), "lock %s is %s, and its runner %s", l.Key, l.State, r.State)
}

// answered looks for the record of a request whose caller was told that it is accepted.
func (w *World) answered(request string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.wiped() {
		w.hold(Answered, w.watch.requests[request].Version != 0, "request %s was accepted, and is not recorded", request)
	}
}

// launches looks at a call of RunInstances before it is made: it is made under a
// claim, and has a slot of its own, whose time has come.
func (w *World) launches(runner string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.launches[runner]++
	r := w.watch.runners[runner]
	if r.Version == 0 && w.wiped() {
		return // its record is lost
	}
	now := w.clock(Worker)()
	w.hold(Claimed, r.Claim.By != "" && !now.After(r.Claim.Until), "RunInstances is called for runner %s without a claim", runner)
	// Whoever waits for a slot does not see what happens meanwhile.
	w.hold(Claimed, r.State == store.RunnerNew || r.InstanceID == "" && now.Sub(r.DrainingAt) < worker.Timeout+slack, "RunInstances is called for runner %s, which is %s", runner, r.State)
	w.hold(Paced, w.watch.launches[runner] <= w.watch.slotsOf[runner], "RunInstances is called %d times for runner %s, which got %d slots",
		w.watch.launches[runner], runner, w.watch.slotsOf[runner])
	w.hold(Paced, !now.Before(r.CalledAt), "RunInstances is called for runner %s at %s, and its slot is at %s", runner, now, r.CalledAt)
}

// mints looks at a registration before it is made: under a claim, and a name that
// was written ahead and is new.
func (w *World) mints(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.watch.runners[runnerIn(name)]
	if r.Version == 0 && w.wiped() {
		return // its record is lost
	}
	w.hold(NameOnce, !w.watch.minted[name], "the name %s is registered a second time", name)
	w.hold(NameOnce, slices.ContainsFunc(r.Names, func(g store.GitHubName) bool { return g.Name == name }), "the name %s is registered before it is written", name)
	now := w.clock(Worker)()
	// A call that is under way does not see that the reaper found the machine over, and ended
	// the runner and with it the claim.
	overtaken := r.State.Final() && now.Sub(r.EndedAt) < worker.Timeout+slack
	w.hold(Claimed, r.Claim.By != "" && !now.After(r.Claim.Until) || overtaken, "the name %s is registered without a claim", name)
}

// deletes looks at the DELETE of a registration, just before GitHub hears of it:
// its runner drains or is over, or has a newer config.
func (w *World) deletes(id int64) {
	for _, g := range w.GitHub.Registrations() {
		if g.ID != id {
			continue
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		r := w.watch.runners[runnerIn(g.Name)]
		n, _ := strconv.Atoi(g.Name[strings.LastIndexByte(g.Name, '-')+1:])
		if r.Version == 0 {
			return // nobody knows of it
		}
		spent := len(r.Names) > 0 && n < r.Names[len(r.Names)-1].N // another name is written ahead since
		w.hold(DeleteOrder, !r.State.Usable() || n < r.Config.N || spent && n != r.Config.N, "registration %s is deleted while its runner is %s with config %d", g.Name, r.State, r.Config.N)
		w.hold(DeleteOrder, n <= r.Config.N || spent || r.State.Final(), "registration %s is deleted while it may be minted", g.Name)
		recent := time.Since(r.UpdatedAt) < reaperTime+w.cfg.KillLate+slack // a run that began before may not know of it
		if r.State == store.RunnerDraining && n == r.Config.N && !recent {
			w.hold(Seldom, !w.clock(Reaper)().Before(r.DeleteAfter.Add(-slack)), "registration %s is deleted again, and was to be left alone until %s", g.Name, r.DeleteAfter)
		}
	}
}

// terminates looks at a TerminateInstances call, just before EC2 hears of it: a
// machine that got a config is ended when GitHub has forgotten it and its job had
// the time to be seen, unless nothing protects it any more.
func (w *World) terminates(inv *invocation, instance string) {
	f, ok := w.Fleet.Instance(instance)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.watch.runners[w.tagged(f)]
	now := w.clock(Reaper)()
	if w.outdated(inv) {
		return
	}
	if r.Version == 0 {
		w.hold(EndOrder, f.Planted || now.Sub(f.LaunchedAt) >= w.Limits.OrphanAge-slack, "machine %s without a record is terminated at the age of %s", instance, now.Sub(f.LaunchedAt))
		return
	}
	if r.InstanceID != instance || r.State.Final() {
		w.hold(EndOrder, r.State.Final() || r.InstanceID != "" || r.ClientToken() != f.ClientToken, "machine %s is terminated as a stray, and its runner %s has none", instance, r.ID)
		return
	}
	w.hold(EndOrder, r.State == store.RunnerEnding, "machine %s is terminated, and its runner is %s", instance, r.State)
	on := f.State == fleet.Pending || f.State == fleet.Running
	if r.Boot.At.IsZero() || !now.Before(r.Hard) || r.End != nil && r.End.Code == store.EndCompromised || !on {
		return
	}
	w.hold(JobSpared, !jobRuns(r) || !r.IdleAt.Before(r.DeregisteredAt), "machine %s is terminated with the job that it reported at %s", instance, r.Job.StartedAt)
	w.hold(EndOrder, !r.DeregisteredAt.IsZero() && (!r.IdleAt.Before(r.DeregisteredAt) || now.Sub(r.DeregisteredAt) >= w.Limits.Grace),
		"machine %s is terminated, deregistered at %s and idle at %s", instance, r.DeregisteredAt, r.IdleAt)
}

// Check fails the test for everything that does not hold though it must at any
// time: no runner ever has two machines with credentials, nor a request two that are
// of use at once; the quota counts what lives; no machine outlived its timer; and no secret
// can be read anywhere. What must hold at each commit was looked at then.
func (w *World) Check() {
	w.Helper()
	machines := w.Fleet.Instances()
	powerless := w.powerless()
	secrets := w.secrets()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold(Hidden, len(secrets) == 0, "%v", secrets)
	w.checkMachines(machines, powerless)
	w.checkPace()
	live := 0
	for _, r := range w.watch.runners {
		if !r.State.Final() {
			live++
		}
	}
	w.hold(QuotaTrue, live == w.watch.live, "%d runners are neither failed nor ended, and %d were counted", live, w.watch.live)
}

func (w *World) checkMachines(machines []simfleet.Fact, powerless map[string]time.Time) {
	hard := w.Account.Hard(w.Limits)
	ofRunner := map[string]string{}
	var with []simfleet.Fact
	for i, a := range machines {
		end := a.EndedAt
		if end.IsZero() {
			end = time.Now()
		}
		if !a.Planted && !a.NeverBoots {
			w.hold(Timer, !end.After(a.RunsAt.Add(bootTime+hard+stopping)), "machine %s lived %s", a.ID, end.Sub(a.LaunchedAt))
		}
		if a.CredentialedAt.IsZero() {
			continue
		}
		runner := w.tagged(a)
		w.hold(OneMachine, ofRunner[runner] == "", "machines %s and %s got credentials of runner %s", ofRunner[runner], a.ID, runner)
		ofRunner[runner] = a.ID
		with = append(with, a)
		for _, b := range machines[i+1:] {
			if b.CredentialedAt.IsZero() || a.Tags[fleet.TagRequest] != b.Tags[fleet.TagRequest] || w.wiped() {
				continue
			}
			w.hold(OneOfRequest, w.before(a, b, powerless) || w.before(b, a, powerless), "request %s had machines %s and %s with credentials at once", a.Tags[fleet.TagRequest], a.ID, b.ID)
		}
	}
	for _, a := range with {
		alive := 0
		for _, b := range with {
			if !b.CredentialedAt.After(a.CredentialedAt) && (b.EndsAt.IsZero() || b.EndsAt.After(a.CredentialedAt)) {
				alive++
			}
		}
		w.hold(NoMoreThan, alive <= w.Account.MaxRunners || w.wiped(), "%d machines with credentials lived at once, and the limit is %d", alive, w.Account.MaxRunners)
	}
}

// checkPace looks at the slots of all RunInstances calls: they come from a bucket
// of five that fills at two a second, unless the account says otherwise.
func (w *World) checkPace() {
	slots := slices.SortedFunc(slices.Values(w.watch.slots), time.Time.Compare)
	burst, interval := 5.0, 500*time.Millisecond
	if p := w.Account.Pacing; p != (store.Pacing{}) {
		burst, interval = float64(p.Burst), time.Duration(p.IntervalMS)*time.Millisecond
	}
	room := burst
	for i, at := range slots {
		if i > 0 {
			room = min(burst, room+at.Sub(slots[i-1]).Seconds()/interval.Seconds())
		}
		room--
		w.hold(Paced, room >= -0.001, "slot %d of %d, at %s, is before its time", i+1, len(slots), at)
	}
}

// checkHealed looks at what must hold when nothing is left of a world whose
// trouble ended at a time.
func (w *World) checkHealed(healed time.Time) {
	machines := w.Fleet.Instances()
	registrations := w.GitHub.Registrations()
	jobs := map[string]time.Time{} // when the last one of a runner ended
	for _, j := range w.GitHub.Jobs() {
		if id := runnerIn(j.RunnerName); !j.StartedAt.IsZero() {
			jobs[id] = latest(jobs[id], j.EndedAt)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	lim := w.Limits
	periods := 5 * lim.ReaperPeriod
	registrations = slices.DeleteFunc(registrations, func(g githubtest.Registration) bool { return w.watch.confirmations.lied[runnerIn(g.Name)] })
	w.hold(Nothing, len(registrations) == 0, "%d registrations are left, and no machine", len(registrations))
	for _, r := range w.watch.requests {
		by := latest(healed, r.GiveUpAt).Add(periods)
		if run := w.watch.runners[r.Runner]; run.Version != 0 { // nobody polls it: it is looked at when its runner ought to have booted
			by = latest(by, run.CalledAt.Add(lim.BootLimit+lim.SettleSlack+2*lim.ReaperPeriod))
		}
		w.hold(EndedInTime, r.State.Final() && !r.EndedAt.After(by), "request %s is %s at %s, want an end by %s", r.ID, r.State, r.EndedAt, by)
	}
	for _, r := range w.watch.runners {
		by := latest(healed, r.DrainingAt, r.CalledAt.Add(lim.GoneAge), earliest(jobs[r.ID], r.Hard)).Add(lim.Grace + lim.GoneGap + periods)
		if w.watch.confirmations.busy[r.ID] { // GitHub said that a job runs, and is asked again ever more seldom
			by = by.Add(lim.DeleteAgain)
		}
		stopped, off := w.watch.confirmations.stopped[r.InstanceID]
		switch {
		case off: // no job is on it, whatever GitHub says
			by = latest(healed, stopped.Add(lim.Lost), r.DrainingAt, r.CalledAt.Add(lim.GoneAge)).Add(lim.GoneGap + periods)
		case jobRuns(r) || w.watch.confirmations.lied[r.ID]: // the end waits for a job that it knows of
			by = latest(by, r.Hard.Add(lim.GoneGap+periods))
		}
		w.hold(DrainedInTime, r.State.Final() && !r.EndedAt.After(by), "runner %s is %s at %s, want an end by %s", r.ID, r.State, r.EndedAt, by)
	}
	for _, m := range machines {
		by := latest(healed, m.LaunchedAt.Add(w.Account.Hard(lim))).Add(2*lim.ReaperPeriod + stopping + slack)
		if r := w.watch.runners[w.tagged(m)]; r.InstanceID != m.ID {
			by = latest(healed, w.released, m.LaunchedAt.Add(lim.OrphanAge)).Add(2*lim.SweepPeriod + lim.ReaperPeriod + slack)
		}
		w.hold(Age, !m.EndsAt.IsZero() && !m.EndsAt.After(by), "machine %s ends at %s, want an end by %s", m.ID, m.EndsAt, by)
	}
}

func latest(times ...time.Time) time.Time   { return slices.MaxFunc(times, time.Time.Compare) }
func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// ages returns how long the oldest machine lived that no record counted on, and
// how long at most two machines of one runner lived at once.
func (w *World) ages() (orphan, duplicate time.Duration) {
	machines := w.Fleet.Instances()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, a := range machines {
		end := func(f simfleet.Fact) time.Time {
			if f.EndsAt.IsZero() {
				return time.Now()
			}
			return f.EndsAt
		}
		if w.watch.runners[w.tagged(a)].InstanceID != a.ID {
			orphan = max(orphan, end(a).Sub(a.LaunchedAt))
		}
		for _, b := range machines[i+1:] {
			if w.tagged(a) == w.tagged(b) {
				from, to := latest(a.LaunchedAt, b.LaunchedAt), earliest(end(a), end(b))
				duplicate = max(duplicate, to.Sub(from))
			}
		}
	}
	return orphan, duplicate
}

// Looked returns how often each promise was put to the test.
func (w *World) Looked() map[Promise]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.watch.looked)
}
