package promise

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Promise is something that must hold, by its name.
type Promise string

// The promises that are about records of all kinds, and about the whole of a world.
const (
	Final       Promise = "what is final stays as it is"
	Reasons     Promise = "whatever ends says why"
	Watched     Promise = "whatever is open will be looked at again"
	Fixed       Promise = "what a record began with stays"
	GivesUp     Promise = "a request is not tried more often than it may be"
	OneUsable   Promise = "a key has at most one usable runner"
	LockTells   Promise = "a lock that may be shared names a usable runner"
	SharedRoom  Promise = "a shared runner is usable, and has the time that was asked for"
	Rising      Promise = "what may only rise rises"
	BootBound   Promise = "only an index that moves, and once a machine that waits for its config, moves the boot limit"
	HardKept    Promise = "nobody may count on a runner beyond its hard limit"
	QuotaTrue   Promise = "the quota counts what lives"
	QuotaKept   Promise = "the quota is never passed"
	TurnKept    Promise = "who comes at its turn and finds no room goes before the line"
	Goroutines  Promise = "nothing runs on after its invocation returned"
	Answered    Promise = "what was accepted is recorded"
	Rest        Promise = "the world comes to rest"
	ReadyRunner Promise = "a ready request keeps its runner, which was online"
)

// turnLapses is how late a turn may be had at least: EC2's bucket is not full before.
const turnLapses = 2 * time.Second

// recordPromises are about what is written of a record, whatever it is about.
type recordPromises struct{ *History }

func (p recordPromises) sawRequest(was, r store.Request) {
	if unserved(r) {
		p.hold(Reasons, r.Error != nil && r.Error.Code != "" && r.Error.Text != "", "request %s is %s, and does not say why", r.ID, r.State)
	}
	if !r.State.Final() {
		p.hold(Watched, !r.DueAt.IsZero(), "request %s is %s, and will be looked at never again", r.ID, r.State)
	}
	p.hold(GivesUp, r.OfJob() || r.Tries <= len(p.Limits.Waits), "request %s was tried %d times again", r.ID, r.Tries)
	if was.Version == 0 || r.OfJob() && r.Version == 1 {
		return // or its record was deleted, and its job was heard of again
	}
	p.hold(Final, !was.State.Final() || r.State == was.State || r.OfJob(), "request %s was %s, and is %s", r.ID, was.State, r.State)
	p.hold(ReadyRunner, r.OfJob() || was.State != store.Ready || r.Runner == was.Runner, "request %s was ready with runner %s, and has %s", r.ID, was.Runner, r.Runner)
	p.hold(Fixed, r.GiveUpAt.Equal(was.GiveUpAt) && (r.Scope == was.Scope || r.OfJob()) && r.BodyHash == was.BodyHash && r.CreatedAt.Equal(was.CreatedAt) && r.OwnLabel == was.OwnLabel,
		"request %s is another one than it was", r.ID)
	if was.Wait == store.WaitPaced && r.Wait == store.WaitPaced && !was.Slot.IsZero() {
		moved, late := r.Slot.Sub(was.Slot), r.UpdatedAt.Sub(was.DueAt)
		p.hold(TurnKept, moved <= time.Millisecond || late > turnLapses || r.Ahead, "request %s came %s after its turn, and has one that is %s later", r.ID, late, moved)
	}
	p.hold(Rising, r.Tries >= was.Tries, "request %s was tried %d times, and then %d", r.ID, was.Tries, r.Tries)
}

// sawShare looks at a request that was just given a runner, whose lock was so
// before.
func (p recordPromises) sawShare(r store.Request, run store.Runner, was, l store.Lock, before time.Duration) {
	if r.OfJob() {
		return // see CountsOn
	}
	now := r.UpdatedAt // by the clock that it was decided by
	p.hold(SharedRoom, run.State.Usable() && l.Names(run.ID) && (l.State == store.LockLive || l.State == store.LockLaunching),
		"request %s is given runner %s, which is %s; its lock is %s and names %s", r.ID, run.ID, run.State, l.State, l.Runner)
	if run.Request == r.ID {
		return // it launched it
	}
	p.hold(SharedRoom, r.Mode == store.Shared && run.Mode == store.Shared, "request %s shares runner %s, and they are %s and %s", r.ID, run.ID, r.Mode, run.Mode)
	from := now // when its time begins
	if l.State == store.LockLaunching {
		from = latest(now, l.BootBy)
	}
	p.hold(SharedRoom, !run.Hard.Before(from.Add(r.Timeout()-before)), "request %s wants %s of runner %s, which ends at %s", r.ID, r.Timeout(), run.ID, run.Hard)
	p.hold(SharedRoom, l.Joined != "", "request %s shares runner %s, and nobody has joined it", r.ID, run.ID)
	p.hold(SharedRoom, !l.Exp.Before(from.Add(r.Timeout()-p.Limits.ShareStep-before)), "request %s wants %s of runner %s, whose lock expires at %s", r.ID, r.Timeout(), run.ID, l.Exp)
	if !was.Names(run.ID) {
		return // the same commit launches it
	}
	p.hold(SharedRoom, !was.Exp.Before(now.Add(p.Limits.ShareMargin-before)), "request %s is given runner %s at %s, whose lock expires at %s", r.ID, run.ID, now, was.Exp)
	switch was.State {
	case store.LockLaunching:
		p.hold(SharedRoom, !now.After(was.BootBy.Add(before)), "request %s waits for runner %s from %s on, which was to boot by %s", r.ID, run.ID, now, was.BootBy)
	case store.LockLive:
		seen := latest(p.pulses[l.Key].SeenOf(run.ID), run.OnlineAt)
		p.hold(SharedRoom, now.Sub(seen) <= p.Limits.Silent+slack+before, "request %s is given runner %s, which was heard of %s before", r.ID, run.ID, now.Sub(seen))
	}
}

// sawRunner looks at a runner, and counts it. The history has it as it is.
func (p recordPromises) sawRunner(was, r store.Runner) {
	p.count(was, r)
	other := p.usable[r.Lock]
	p.hold(OneUsable, !r.State.Usable() || other == "" || other == r.ID, "runners %s and %s of %s are usable at once", other, r.ID, r.Lock)
	switch {
	case r.State.Usable():
		p.usable[r.Lock] = r.ID
	case other == r.ID:
		delete(p.usable, r.Lock)
	}
	if !r.State.Final() {
		p.hold(Watched, !r.DueAt.IsZero(), "runner %s is %s, and will be looked at never again", r.ID, r.State)
	}
	if r.State == store.RunnerFailed {
		p.hold(Final, r.InstanceID == "" && r.Config.N == 0, "runner %s failed, and has instance %q and config %d", r.ID, r.InstanceID, r.Config.N)
	}
	if was.Version != 0 {
		p.sawStep(was, r)
	}
}

// count counts a runner among those that live, and its slots and configs.
func (p recordPromises) count(was, r store.Runner) {
	if !r.CalledAt.Equal(was.CalledAt) {
		where := r.Account + "/" + r.Region
		p.slots[where] = append(p.slots[where], r.CalledAt)
		p.slotsOf[r.ID]++
	}
	if was.Version == 0 {
		p.live[r.Account]++
	}
	if r.State.Final() && !was.State.Final() {
		p.live[r.Account]--
	}
	if r.Config.RunnerID != 0 {
		p.configs[r.Config.RunnerID] = true
	}
}

// sawStep looks at a runner that was there before.
func (p recordPromises) sawStep(was, r store.Runner) {
	p.hold(Final, !was.State.Final() || r.State == was.State, "runner %s was %s, and is %s", r.ID, was.State, r.State)
	launch := slices.Equal(r.Plan, was.Plan) && sameLaunch(r.Launch, was.Launch) || p.reimaged(was, r)
	p.hold(Fixed, r.Hard.Equal(was.Hard) && r.Scope == was.Scope && r.Lock == was.Lock && r.Request == was.Request && launch, "runner %s is another one than it was", r.ID)
	p.hold(Fixed, was.InstanceID == "" || r.InstanceID == was.InstanceID, "runner %s had instance %s, and has %s", r.ID, was.InstanceID, r.InstanceID)
	p.hold(Fixed, was.Boot.NonceHash == "" || r.Boot.NonceHash == was.Boot.NonceHash, "runner %s booted with another nonce", r.ID)
	p.hold(Rising, r.Index >= was.Index && r.Config.N >= was.Config.N && r.Counter >= was.Counter && r.Wanted >= was.Wanted,
		"runner %s went back to index %d, config %d, event %d and wish %d", r.ID, r.Index, r.Config.N, r.Counter, r.Wanted)
	if !r.State.Usable() {
		p.hold(Reasons, r.End != nil, "runner %s is %s, and does not say why", r.ID, r.State)
	}
}

func (p recordPromises) sawLock(was, l store.Lock) {
	p.hold(HardKept, !l.Exp.After(l.Hard), "lock %s may be counted on until %s, and its runner ends at %s", l.Key, l.Exp, l.Hard)
	if l.Runner == "" || was.Runner != l.Runner {
		return
	}
	p.hold(Rising, !l.Exp.Before(was.Exp), "lock %s could be counted on until %s, and now until %s", l.Key, was.Exp, l.Exp)
	p.hold(Fixed, l.Hard.Equal(was.Hard) && (was.Joined == "" || l.Joined == was.Joined), "lock %s is another one than it was", l.Key)
	if !l.BootBy.Equal(was.BootBy) {
		r := p.runners[l.Runner] // as it was, or as the same commit has it
		moves := r.State == store.RunnerNew && p.slotsOf[r.ID] >= 1 && strings.HasPrefix(l.Writer, kernel.Worker)
		waits := r.State == store.RunnerLaunched && r.Config.N == 0 && !p.waited[r.ID] && // it never has an index that moves again
			!l.BootBy.After(earliest(l.UpdatedAt.Add(p.Limits.ConfigLimit+instant), l.Hard))
		p.hold(BootBound, moves || waits, "the boot limit of runner %s moved to %s", r.ID, l.BootBy)
		p.waited[r.ID] = p.waited[r.ID] || waits
	}
}

// agree looks at a lock and the runner that it names.
func (p recordPromises) agree(l store.Lock) {
	if l.State == store.LockDraining {
		p.hold(LockTells, !p.runners[l.Runner].State.Usable(), "lock %s drains, and its runner %s is usable", l.Key, l.Runner)
	}
	if l.State != store.LockLive && l.State != store.LockLaunching {
		return
	}
	r := p.runners[l.Runner]
	p.hold(LockTells, r.State.Usable() && r.Lock == l.Key, "lock %s is %s and names runner %s, which is %s", l.Key, l.State, l.Runner, r.State)
	p.hold(LockTells, l.Hard.Equal(r.Hard), "lock %s ends at %s, and its runner at %s", l.Key, l.Hard, r.Hard)
	p.hold(LockTells, (l.State == store.LockLive) == !r.OnlineAt.IsZero(), "lock %s is %s, and its runner %s", l.Key, l.State, r.State)
}

// sawQuota looks at the quota that a commit wrote.
func (p recordPromises) sawQuota(q store.Quota) {
	p.hold(QuotaTrue, q.Live == p.live[q.Account], "the quota counts %d runners, and %d are neither failed nor ended", q.Live, p.live[q.Account])
	p.hold(QuotaKept, q.Live <= q.Limit && (q.Limit == p.Account.MaxRunners || q.Limit == 0), "%d runners live, and the limit is %d", q.Live, p.Account.MaxRunners)
}

// Accepted looks for the record of a request whose caller learned that it is accepted.
func (p recordPromises) Accepted(request string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wiped() {
		p.hold(Answered, p.requests[request].Version != 0, "request %s was accepted, and is not recorded", request)
	}
}

func sameLaunch(a, b store.Launch) bool {
	return a.Image == b.Image && a.Script == b.Script && a.APIURL == b.APIURL && a.HardS == b.HardS && a.KeyID == b.KeyID &&
		a.InstanceProfile == b.InstanceProfile && slices.Equal(a.SecurityGroups, b.SecurityGroups) && maps.Equal(a.Tags, b.Tags) && reflect.DeepEqual(a.Options, b.Options)
}
