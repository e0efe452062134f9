package store

import (
	"fmt"
	"slices"
	"time"
)

// Shareable reports whether the lock's runner may be shared by r now: it is
// live and was heard of lately, or is launching and may still boot; its time is
// not nearly up; and its hard limit leaves room for all of r's timeout. A live one
// must be Confirmed too, and not have been shared in vain for as long as it may
// idle. A request that is Overdue shares nothing.
func Shareable(now time.Time, lim Limits, r Request, l Lock, p Pulse) bool {
	if r.Mode != Shared || r.Overdue(now) || l.Exp.Before(now.Add(lim.ShareMargin)) || l.Hard.Before(l.usable(now).Add(r.Timeout())) {
		return false
	}
	switch l.State {
	case LockLive:
		return now.Sub(p.SeenOf(l.Runner)) <= lim.Silent && !l.vain(now, lim)
	case LockLaunching:
		return now.Before(l.BootBy)
	}
	return false
}

// usable returns when a request's timeout begins: once the runner can be used, which
// for one that is launching is at boot_by.
func (l Lock) usable(now time.Time) time.Time {
	if l.State == LockLaunching {
		return maxTime(now, l.BootBy)
	}
	return now
}

// vain reports whether requests have shared the runner for as long as one may idle, and
// no job came: GitHub may show a runner online that can get no job, when its one job
// was given to another (actions/runner 2.336.0, src/Runner.Listener/Runner.cs: 409).
func (l Lock) vain(now time.Time, lim Limits) bool {
	return !l.Busy && !l.CountedOn.IsZero() && now.Sub(l.CountedOn) > lim.Idle
}

// Confirmed reports whether GitHub showed the live runner that the lock names
// online lately, with the config that it has now. A launching one needs no word
// of GitHub: who shares it waits.
func (l Lock) Confirmed(now time.Time, lim Limits) bool {
	return l.State == LockLaunching || l.State == LockLive && !l.ConfirmedAt.IsZero() && now.Sub(l.ConfirmedAt) <= lim.Confirmed
}

// Share gives an accepted request the runner that Shareable and Confirmed allowed: ready at
// once on a live lock, waiting on a launching one. The lock is to be written
// when wrote is true, and to be checked otherwise; both in one commit with r.
func Share(now time.Time, lim Limits, r Request, l Lock) (_ Request, _ Lock, wrote bool) {
	exp := minTime(maxTime(l.Exp, l.usable(now).Add(r.Timeout())), l.Hard)
	if l.State == LockLive && !l.Busy && l.CountedOn.IsZero() {
		l.CountedOn, wrote = now, true
	}
	if l.Joined == "" || exp.Sub(l.Exp) > lim.ShareStep || now.Sub(l.SharedAt) > lim.ShareStep {
		if l.Joined == "" {
			l.Joined = r.ID
		}
		l.Exp, l.SharedAt, wrote = exp, now, true
	}
	if l.State == LockLive {
		r = r.ready(now, lim, l.Runner, "shares runner "+l.Runner)
	} else {
		r = r.await(now, lim, l.Runner, l.BootBy, "shares runner "+l.Runner)
		r.DueAt = minTime(r.DueAt, now.Add(lim.ReaperPeriod)) // who confirms the runner does not know of r
	}
	return r, l, wrote
}

// Blocked decides about a lock that an accepted request can neither share nor
// take: its runner is to be drained, for the reason that end holds, or the
// request has to wait until the lock is looked at again.
//
// A live runner that is well but has too little time left hands over: what is
// still queued for its label is served by its successor, which has the same one.
func Blocked(now time.Time, lim Limits, l Lock, p Pulse, run Runner, launcher Request) (end string, until time.Time) {
	if run.Version == 0 || run.State.Final() {
		return "", now.Add(lim.SettleSlack) // the lock is about to be emptied
	}
	if why := DrainReason(now, lim, run, l, p, launcher); why != "" {
		return why, time.Time{}
	}
	seen := run.seen(p)
	if l.State == LockLive && now.Sub(seen) <= lim.Silent {
		return EndHandover, time.Time{}
	}
	if l.State == LockLive {
		return "", seen.Add(lim.Lost + time.Second)
	}
	return "", now.Add(lim.SettleSlack)
}

// Intent is what the launch of a machine is decided from.
type Intent struct {
	Request      Request
	Lock         Lock
	Quota        Quota
	Runner       string // a fresh id
	ControlPlane string
	Plan         []Placement
	Launch       Launch
	MaxRunners   int
	Pacing       Pacing
	Claim        Claim
	// Latest is the latest slot that the worker can still use.
	Latest time.Time
}

// Begin turns an accepted request whose lock is free into a waiting one with a
// new runner, claimed by the worker: four items in one commit. The runner's
// CalledAt is the slot at which RunInstances may be called.
//
// It refuses with a Wait code and the time to try again, and then changes nothing.
func (in Intent) Begin(now time.Time, lim Limits) (r Request, l Lock, run Runner, q Quota, wait string, until time.Time) {
	r, l, q = in.Request, in.Lock, in.Quota
	if q.Live >= in.MaxRunners {
		return r, l, run, q, WaitQuota, now.Add(lim.Waits[0])
	}
	slot := q.Slot(now, r.Region, in.Pacing)
	if slot.After(in.Latest) {
		return r, l, run, q, WaitPaced, slot
	}
	q = q.Reserve(slot, r.Region, in.Pacing)
	slot = maxTime(slot, now)
	q.Account, q.Live, q.Limit = r.Account, q.Live+1, in.MaxRunners

	hard := now.Add(time.Duration(in.Launch.HardS) * time.Second)
	bootBy := slot.Add(lim.BootLimit)
	l = Lock{
		Meta: l.Meta, Key: r.LockKey(), State: LockLaunching, Runner: in.Runner,
		Exp: minTime(bootBy.Add(r.Timeout()), hard), Hard: hard, BootBy: bootBy, SharedAt: now,
	}
	l.TTL = 0
	run = Runner{
		ID: in.Runner, CreatedAt: now, Lock: l.Key, Request: r.ID, Trace: r.Trace,
		Repository: r.Repository, RunID: r.Origin.RunID, Account: r.Account, Region: r.Region, Mode: r.Mode,
		Labels: r.RunnerLabels(), Plan: in.Plan, Launch: in.Launch, CalledAt: slot, Claim: in.Claim,
		Wanted: 1, Hard: hard,
	}
	run.DueAt = now // and it stays: the reaper looks at every live runner in every run
	run = run.WriteAhead(in.ControlPlane).enter(now, RunnerNew, "for request "+r.ID)
	r = r.await(now, lim, run.ID, l.BootBy, "launches runner "+run.ID)
	return r, l, run, q, "", time.Time{}
}

// RunnerLabels returns what a runner for r registers with. An ephemeral one has
// its own label alone: GitHub matches by subset, so whatever else it named could
// be taken by another job.
func (r Request) RunnerLabels() []string {
	labels := []string{r.OwnLabel}
	if r.Mode == Shared {
		labels = append(append(labels, r.Type), r.Labels...)
	}
	return labels
}

// RunsOn returns what a workflow's runs-on names to get the runner of r.
func (r Request) RunsOn() []string { return []string{r.OwnLabel} }

// Take claims a runner whose former claim was given back or has lapsed. After a
// lapse nobody knows which name was used, so that the next one is written ahead;
// of a crowded runner the last one was not.
func (r Runner) Take(now time.Time, claim Claim, controlPlane string) Runner {
	lapsed := r.Claim.By != "" && r.Claim.By != claim.By
	_, named := r.NextName()
	r.Claim = claim
	r.Wait, r.WaitUntil = "", time.Time{}
	if r.needsMint() && (lapsed && !r.Crowded() || !named) {
		r = r.WriteAhead(controlPlane)
	}
	r.Unclear = r.Unclear || lapsed && r.InstanceID == ""
	return r.note(now, "claimed by "+claim.By)
}

func (r Runner) needsMint() bool { return r.Config.N < r.Wanted }

// Step is what a worker is to do next for a runner.
type Step string

// The steps of a worker, in their order.
const (
	StepLaunch Step = "launch" // call RunInstances
	StepMint   Step = "mint"   // register at GitHub for the config that is wanted
	// StepConfirm is to ask GitHub whether it shows the runner online. It needs no claim.
	StepConfirm Step = "confirm"
	StepNone    Step = ""
)

// NextStep returns the first step that is not recorded. A lock that does not
// name the runner, or whose boot_by has passed, allows no launch any more.
func NextStep(now time.Time, r Runner, l Lock) Step {
	switch {
	case !r.State.Usable():
		return StepNone
	case r.InstanceID == "":
		if r.State != RunnerNew || !l.Names(r.ID) || l.State != LockLaunching || !now.Before(l.BootBy) {
			return StepNone
		}
		return StepLaunch
	case r.needsMint():
		return StepMint
	case r.ListeningAt.After(l.ConfirmedAt) && l.Names(r.ID) && r.Registered():
		return StepConfirm
	}
	return StepNone
}

// Call reserves the slot of one more RunInstances call, at the index that the
// runner has: two items in one commit. It refuses with the time of the slot
// when that is after latest.
func Call(now time.Time, r Runner, q Quota, p Pacing, latest time.Time) (Runner, Quota, time.Time, bool) {
	slot := q.Slot(now, r.Region, p)
	if slot.After(latest) {
		return r, q, slot, false
	}
	q = q.Reserve(slot, r.Region, p)
	r.CalledAt = maxTime(slot, now)
	return r, q, r.CalledAt, true
}

// Advance records that the current placement has no capacity and moves to index
// next; boot_by moves along. Three items. The slot of the next call is reserved
// in the same commit when it is not after latest; else reserved is false, and
// the call has to wait until slot and Call. With no such placement ok is false.
func Advance(now time.Time, lim Limits, r Runner, l Lock, q Quota, code string, next int, p Pacing, latest time.Time) (_ Runner, _ Lock, _ Quota, slot time.Time, reserved, ok bool) {
	if next <= r.Index || next >= len(r.Plan) {
		return r, l, q, now, false, false
	}
	r = r.attempted(now, code)
	r.Index, r.Unclear, r.Said = next, false, Said{}
	r, q, slot, reserved = Call(now, r, q, p, latest)
	if l.Names(r.ID) && l.State == LockLaunching {
		bootBy := maxTime(l.BootBy, slot.Add(lim.BootLimit)) // clocks differ; it only rises
		l.Exp = minTime(l.Exp.Add(bootBy.Sub(l.BootBy)), l.Hard)
		l.BootBy = bootBy
	}
	return r.note(now, code+"; next: "+r.Placement().String()), l, q, slot, reserved, true
}

func (r Runner) attempted(now time.Time, code string) Runner {
	r.Attempts = append(r.Attempts[:len(r.Attempts):len(r.Attempts)], Attempt{Placement: r.Placement(), Runner: r.ID, At: now, Code: code})
	return r
}

// Explain adds EC2's words to the last attempt: why it refuses that placement.
func (r Runner) Explain(text string) Runner {
	r.Attempts = slices.Clone(r.Attempts)
	r.Attempts[len(r.Attempts)-1].Text = text
	return r
}

// Hear keeps what EC2 answered that does not tell whether it launched.
func (r Runner) Hear(code, text string) Runner {
	if r.Said.Code != code {
		r.Said.Times = 0
	}
	r.Said = Said{Code: code, Text: text, Times: r.Said.Times + 1}
	return r
}

// MaxUnfamiliar is how often a launch is repeated in all when EC2 answers each
// time with the same code that nobody knows: with the pauses of 1, 2, 4 and 8 s
// between them it has had a quarter of a minute to pass by itself.
const MaxUnfamiliar = 5

// Reimage puts another image under the placement being tried, as the next one of
// the plan: the client token of this index stands for a launch of the former image.
func (r Runner) Reimage(ami string) Runner {
	r.Plan = slices.Insert(slices.Clone(r.Plan), r.Index+1, r.Placement())
	r.Launch.Image = ami
	return r
}

// Launched records the instance that EC2 answered. It is recorded in any state
// but a final one, so that the end knows what to terminate; a runner that is
// not new any more keeps its state. A second, different id is not taken: ok is
// false, and that instance is left to the sweep.
func Launched(now time.Time, r Runner, instance string) (_ Runner, ok bool) {
	if r.InstanceID != "" {
		return r, r.InstanceID == instance
	}
	if r.State.Final() {
		return r, false
	}
	r = r.attempted(now, "launched")
	r.InstanceID, r.LaunchedAt, r.Wait, r.WaitUntil, r.Said = instance, now, "", time.Time{}, Said{}
	if r.State == RunnerNew {
		return r.enter(now, RunnerLaunched, "instance "+instance), true
	}
	return r.note(now, "instance "+instance), true
}

// Mismatched reports that the machine which called boot first is not the
// instance that EC2 answered: somebody else holds the boot token.
func (r Runner) Mismatched() bool {
	return r.Boot.NonceHash != "" && r.InstanceID != "" && r.Boot.InstanceID != r.InstanceID
}

// Abandon ends a runner that could not be launched. One that never had an
// instance fails at once: its place and its lock are free. Any other drains, as
// does one of which mayExist says that some call may have launched a machine.
// code is what EC2 said of the current placement, or empty.
func Abandon(now time.Time, lim Limits, r Runner, l Lock, q Quota, code string, why Failure, mayExist bool) (Runner, Lock, Quota) {
	if r.State.Final() {
		return r, l, q
	}
	if code != "" {
		r = r.attempted(now, code)
	}
	r = r.Release(now)
	if r.State != RunnerNew || r.InstanceID != "" || r.Config.N > 0 || mayExist {
		r, l = Drain(now, r, l, why)
		return r, l, q
	}
	r.End, r.EndedAt, r.DueAt = &why, now, time.Time{}
	r = r.enter(now, RunnerFailed, why.Code)
	r.expire(now, lim.Keep)
	if l.Names(r.ID) {
		l = l.empty(now, lim)
	}
	return r, l, q.release()
}

// Settle decides what a waiting request comes to, from the runner that it waits
// for. It changes nothing while that runner may still come online, and gives no
// runner up that may still hold a live registration. A runner that was online only
// after give_up_at came too late: the request expires, whenever it is looked at.
// When again is true, who commits the result sends a start message that is
// delayed until r.DueAt.
func Settle(now time.Time, lim Limits, r Request, run Runner) (_ Request, changed, again bool) {
	if r.State != Waiting || (run.Version != 0 && run.ID != r.Runner) {
		return r, false, false
	}
	if run.Version == 0 { // long ended: its record is deleted
		run = Runner{ID: r.Runner, State: RunnerEnded}
	}
	if !run.OnlineAt.IsZero() {
		if run.OnlineAt.After(r.GiveUpAt) {
			if !r.Overdue(now) {
				return r, false, false // clocks differ: a later look expires it
			}
			return r.Tried(run).expireFor(now, lim, "runner "+run.ID+" was online only at "+run.OnlineAt.UTC().Format(time.TimeOnly)+" UTC"), true, false
		}
		r = r.ready(now, lim, run.ID, "runner online")
		r.ReadyAt = run.OnlineAt // whenever somebody looks
		return r, true, false
	}
	why := Failure{Code: "runner_ended", Text: "The runner ended before it was online.", Retryable: true}
	if run.End != nil {
		why = *run.End
	}
	over := run.State.Final() ||
		!run.State.Usable() && (run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero())
	switch {
	case !run.State.Usable() && !why.Retryable:
		return r.Tried(run).Fail(now, lim, why), true, false
	case over:
		r = r.Tried(run).retry(now, lim, why)
		return r, true, r.State == Accepted
	}
	return r, false, false
}

// Remind moves the due_at of a waiting request that Settle left as it is.
func (r Request) Remind(now time.Time, lim Limits) Request {
	r.DueAt = now.Add(lim.ReaperPeriod)
	return r
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (f Failure) String() string { return fmt.Sprintf("%s: %s", f.Code, f.Text) }
