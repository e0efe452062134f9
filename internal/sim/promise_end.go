package sim

import (
	"context"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about ends, and about the reaper.
const (
	DrainsFor Promise = "a runner drains for a reason that is true of it"
	ReallyOff Promise = "a runner is over when its machine is"
	Unseen    Promise = "a machine counts as missing when EC2 did not show it"
	Forgotten Promise = "a registration counts as deleted when GitHub has it no more"
	NotEarly  Promise = "a request is taken up when its pause is over"
	EachRun   Promise = "a whole run of the reaper does all that is due"
	Braked    Promise = "machines without a record are ended when they are few, or an operator says so"
	TimerSet  Promise = "a machine with a config ends by itself at its hard limit"
	JobKept   Promise = "a machine does not switch itself off with a job"
	NoPanic   Promise = "nothing panics"
	OneEach   Promise = "a caller who repeats his call gets one request"
)

// early is how much before its time a worker may take a request up: it knows that
// clocks differ.
const early = 2 * time.Second

// outside is what is really there when a commit is made.
type outside struct {
	machines []simfleet.Fact
	minted   map[int64]bool      // what is registered
	removed  map[int64]time.Time // when what was registered ended
	jobs     []githubtest.Job
	part     string // who makes the commit
}

// around looks at EC2 and GitHub if a commit says something of them.
func (w *World) around(changes []store.Change) (o outside) {
	for _, c := range changes {
		if q, ok := c.Item.(*store.Request); ok && q.State == store.Ready && o.removed == nil {
			o.removed = map[int64]time.Time{}
			for _, g := range w.GitHub.Minted() {
				o.removed[g.ID] = g.RemovedAt
			}
		}
		if l, ok := c.Item.(*store.Lock); ok && l.State == store.LockLive && !c.CheckOnly && o.jobs == nil {
			o.jobs = w.GitHub.Jobs()
		}
		r, ok := c.Item.(*store.Runner)
		if !ok {
			continue
		}
		if (r.State == store.RunnerEnded || r.End != nil && r.End.Code == store.EndTerminated) && o.machines == nil {
			o.machines = w.Fleet.Instances()
		}
		lost := r.State == store.RunnerDraining && r.End.Code == store.EndUnlisted
		if (!r.DeregisteredAt.IsZero() || lost) && !r.State.Final() && o.minted == nil {
			o.minted = map[int64]bool{}
			for _, g := range w.GitHub.Registrations() {
				o.minted[g.ID] = true
			}
		}
	}
	return o
}

// sawEnd looks at what a commit is about to change of those that end, and of what
// machines said.
func (w *World) sawEnd(e *Effect, o outside, items []store.Item) {
	for _, i := range items {
		switch i := i.(type) {
		case *store.Request:
			was := w.watch.requests[i.ID]
			if was.State == store.Accepted && was.Wait == store.WaitBackoff && (i.State == store.Waiting || i.State == store.Ready) {
				w.hold(NotEarly, !was.DueAt.After(i.UpdatedAt.Add(early)), "request %s is taken up at %s, and was to pause until %s", i.ID, i.UpdatedAt, was.DueAt)
			}
		case *store.Runner:
			was, l := w.watch.runners[i.ID], w.watch.locks[i.Lock]
			w.sawBoot(e, was, *i, l)
			if was.Version == 0 {
				continue
			}
			w.hold(Final, was.State.Usable() || !i.State.Usable(), "runner %s was %s, and is %s", i.ID, was.State, i.State)
			if was.State.Usable() && i.State == store.RunnerDraining {
				w.sawDrain(e, o, was, *i, l)
			}
			w.sawOver(o, was, *i)
		case *store.Lock:
			if was := w.watch.locks[i.Key]; was.Runner != "" && was.Runner != i.Runner {
				w.watch.heard.unnamed[was.Runner] = time.Now()
			}
		}
	}
	for _, i := range items {
		if p, ok := i.(*store.Pulse); ok {
			named := false // by the same commit
			for _, i := range items {
				l, ok := i.(*store.Lock)
				named = named || ok && l.Key == p.Key && l.Names(p.Runner)
			}
			if !named {
				w.sawPulse(*p)
			}
		}
	}
}

// sawDrain looks at a runner that begins to drain. l is its lock as it was; who
// drains it demands that nobody changed that.
func (w *World) sawDrain(e *Effect, o outside, was, r store.Runner, l store.Lock) {
	alone := r.Mode == store.Ephemeral || l.Joined == ""
	at := r.DrainingAt
	switch r.End.Code {
	case store.EndUnwanted:
		q := w.watch.requests[r.Request]
		w.hold(DrainsFor, l.Names(r.ID) && alone && was.State != store.RunnerBusy, "runner %s, %s, drains as unwanted, and request %s uses it too", r.ID, was.State, l.Joined)
		w.hold(DrainsFor, q.State.Final() && q.State != store.Ready, "runner %s drains as unwanted, and its request is %s", r.ID, q.State)
	case store.EndStopped:
		forced := false
		for id := range w.watch.heard.forced {
			forced = forced || w.watch.requests[id].Runner == r.ID
		}
		w.hold(DrainsFor, forced || alone, "runner %s is stopped, and request %s uses it too", r.ID, l.Joined)
	case store.EndExpired:
		w.hold(DrainsFor, at.Before(r.Hard), "runner %s drains as expired at %s, and its hard limit was at %s", r.ID, at, r.Hard)
		w.hold(DrainsFor, !at.Before(l.Exp), "runner %s drains as expired at %s, and may be counted on until %s", r.ID, at, l.Exp)
		w.hold(Served, !jobRuns(was), "runner %s drains as expired at %s, with a job since %s", r.ID, at, was.Job.StartedAt)
		since := latest(was.OnlineAt, was.Job.EndedAt, was.ListeningAt)
		w.hold(Served, was.OnlineAt.IsZero() || at.Sub(since) >= w.Limits.ShareStep, "runner %s drains as expired at %s, and had a job or a new config at %s", r.ID, at, since)
	case store.EndUnlisted:
		w.hold(DrainsFor, !was.MissedAt.IsZero() && at.Sub(was.MissedAt) >= w.Limits.Silent, "runner %s drains as forgotten at %s, and was missed at %s", r.ID, at, was.MissedAt)
		w.hold(DrainsFor, !o.minted[was.Config.RunnerID], "runner %s drains as forgotten, and GitHub has its registration %d", r.ID, was.Config.RunnerID)
	case store.EndOffline:
		w.hold(DrainsFor, !was.MissedAt.IsZero() && at.Sub(was.MissedAt) >= w.Limits.Lost, "runner %s drains as offline at %s, and was missed at %s", r.ID, at, was.MissedAt)
	case store.EndNoLaunch:
		asked := 0 // how often, in vain, for an answer that nobody knows
		for _, n := range w.watch.answers.strange[was.ClientToken()] {
			asked = max(asked, n)
		}
		w.hold(DrainsFor, was.Boot.At.IsZero() && (asked >= store.MaxUnfamiliar || !at.Before(l.BootBy)), "runner %s drains at %s for it was not launched, and had until %s", r.ID, at, l.BootBy)
	case store.EndNoBoot, store.EndGitHubDown, store.EndGitHubLimit:
		w.hold(DrainsFor, was.Boot.At.IsZero() && !at.Before(l.BootBy), "runner %s drains at %s for it did not boot, and had until %s", r.ID, at, l.BootBy)
	case store.EndNotOnline:
		w.hold(DrainsFor, was.OnlineAt.IsZero() && !at.Before(l.BootBy.Add(w.Limits.OnlineGrace)), "runner %s drains at %s for it was not online, and was to boot by %s", r.ID, at, l.BootBy)
	case store.EndIdle:
		if e.For != "event idle" {
			return // the machine itself says why
		}
		began := was.OnlineAt
		if !was.ListeningAt.IsZero() && was.ListeningAt.Before(began) {
			began = was.ListeningAt
		}
		since := latest(began, was.Job.EndedAt, l.SharedAt.Add(w.Limits.ShareStep))
		w.hold(DrainsFor, was.State == store.RunnerOnline && at.Sub(since) >= w.Limits.Idle, "runner %s, %s, drains as idle at %s, and had a job or was shared at %s", r.ID, was.State, at, since)
	}
}

// sawOver looks at what is recorded of a runner's machine and its registration on
// the way to its end.
func (w *World) sawOver(o outside, was, r store.Runner) {
	if was.DeregisteredAt.IsZero() && !r.DeregisteredAt.IsZero() && o.minted != nil && !w.forgot {
		w.hold(Forgotten, !o.minted[r.Config.RunnerID], "registration %d of runner %s counts as deleted, and is there", r.Config.RunnerID, r.ID)
	}
	if was.MissingAt.IsZero() && !r.MissingAt.IsZero() {
		key := r.InstanceID
		if key == "" {
			key = r.ClientToken()
		}
		at, ok := w.watch.missed[key]
		w.hold(Unseen, ok && time.Since(at) < reaperTime+w.cfg.KillLate+slack, "the machine %q of runner %s counts as missing, and EC2 did not say so", key, r.ID)
	}
	if was.State.Final() || r.State != store.RunnerEnded {
		return
	}
	missing := !was.MissingAt.IsZero() && r.EndedAt.Sub(was.MissingAt) >= w.Limits.GoneGap
	for _, m := range o.machines {
		mine := m.ID == r.InstanceID || r.InstanceID == "" && m.ClientToken == r.ClientToken()
		w.hold(ReallyOff, !mine || m.State.Over() || missing, "runner %s is over, and its machine %s is %s", r.ID, m.ID, m.State)
	}
}

// missed notes that EC2 did not show a machine, by its id or its token.
func (w *World) missed(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.missed[key] = time.Now()
}

// brakes looks at a TerminateInstances call of a machine without a record: there
// are few of those. What EC2 may not have shown to the reaper does not count.
func (w *World) brakes(inv *invocation, instance string) {
	f, ok := w.Fleet.Instance(instance)
	if !ok || w.recorded(f) {
		return
	}
	n := 0
	for _, m := range w.Fleet.Instances() {
		if !m.State.Over() && m.State != fleet.ShuttingDown && !w.recorded(m) && time.Since(m.LaunchedAt) > w.Limits.OrphanAge-slack {
			n++
		}
	}
	ref := store.Ref{Kind: store.KindSweep, ID: store.SweepKey(AccountID, Region)}
	items, err := w.Store().Get(context.Background(), ref)
	released := err == nil && !items[0].(*store.Sweep).ReleasedAt.IsZero()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outdated(inv) {
		return
	}
	w.hold(Braked, n <= store.BrakeAbove || released, "%d machines without a record live, and %s is terminated", n, instance)
}

func (w *World) recorded(m simfleet.Fact) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watch.runners[w.tagged(m)].Version != 0
}

// due is what a run of the reaper has to do: for each id, what, and whether it was
// done or is not to be done any more.
type dueThing struct {
	id, what string
	done     func() bool
}

// due returns what a run that begins now has to do. It is judged by the reaper's
// clock, and by what is recorded now: nothing of it can become untrue but by a
// change of what it is about.
func (w *World) dueNow() (things []dueThing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock(Reaper)()
	lim := w.Limits
	young := time.Duration(w.index.Load()) + slack // the index may not show it yet
	if w.wiped() {
		return nil
	}
	for _, r := range w.watch.runners {
		if r.State.Final() || time.Since(w.watch.placed[r.Ref()].at) < young {
			continue
		}
		l := w.watch.locks[r.Lock]
		why := w.mustDrain(now, r, l)
		switch {
		case r.State.Usable() && why != "":
			things = append(things, dueThing{r.ID, "drains, " + why, func() bool {
				is, run := w.watch.locks[r.Lock], w.watch.runners[r.ID]
				return !run.State.Usable() || !is.Exp.Equal(l.Exp) || !is.BootBy.Equal(l.BootBy) ||
					!run.Job.StartedAt.Equal(r.Job.StartedAt) || !run.ListeningAt.Equal(r.ListeningAt)
			}})
		case r.State == store.RunnerDraining && (r.Boot.At.IsZero() || !now.Before(r.Hard) || !r.DeregisteredAt.IsZero() && now.Sub(r.DeregisteredAt) >= lim.Grace && !jobRuns(r)):
			things = append(things, dueThing{r.ID, "ends", func() bool { return w.watch.runners[r.ID].State != store.RunnerDraining }})
		case r.State.Usable():
			step := store.NextStep(now, r, l)
			if step == store.StepNone || r.Held(now, "") || now.Sub(r.WaitUntil) < lim.Resend || now.Sub(r.UpdatedAt) < lim.Resend+slack {
				continue
			}
			sent := w.watch.sent[r.ID]
			things = append(things, dueThing{r.ID, "goes on", func() bool {
				is := w.watch.runners[r.ID]
				asked := step == store.StepConfirm && (!is.MissedAt.IsZero() || !w.watch.locks[r.Lock].ConfirmedAt.Equal(l.ConfirmedAt))
				return w.watch.sent[r.ID] > sent || is.Version != r.Version || asked || !w.clock(Reaper)().Before(l.BootBy)
			}})
		}
	}
	for _, q := range w.watch.requests {
		if q.State.Final() || q.DueAt.After(now) || time.Since(w.watch.placed[q.Ref()].at) < young {
			continue
		}
		run := w.watch.runners[q.Runner]
		over := run.State.Final() || !run.State.Usable() && (run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero())
		switch {
		case now.After(q.GiveUpAt),
			q.State == store.Waiting && run.Version != 0 && (over || !run.OnlineAt.IsZero()),
			q.State == store.Accepted && now.Sub(q.DueAt) >= lim.Resend && now.Sub(q.SentAt) >= lim.Resend/2:
			things = append(things, dueThing{q.ID, "goes on, " + string(q.State), func() bool {
				is := w.watch.requests[q.ID]
				held := is.State == store.Accepted && !is.DueAt.Equal(q.DueAt) // by a worker that takes it up at last
				return is.Version != q.Version && (is.State != q.State || is.Sends != q.Sends || is.Tries != q.Tries || held)
			}})
		}
	}
	return things
}

// mustDrain says why a usable runner has to drain: nothing but a share, or an index
// that moves, changes that.
func (w *World) mustDrain(now time.Time, r store.Runner, l store.Lock) string {
	q := w.watch.requests[r.Request]
	unwanted := q.State.Final() && q.State != store.Ready && w.keeps(q)
	switch {
	case !now.Before(r.Hard):
		return "its hard limit passed"
	case !l.Names(r.ID):
		return ""
	case !now.Before(l.Exp) && jobRuns(r), !now.Before(l.Exp) && now.Sub(latest(r.OnlineAt, r.Job.EndedAt, r.ListeningAt)) < w.Limits.OnlineGrace:
		return "" // jobs may be queued for it
	case !now.Before(l.Exp):
		return "nobody counts on it"
	case r.Boot.At.IsZero() && !now.Before(l.BootBy):
		return "it did not boot"
	case r.OnlineAt.IsZero() && !now.Before(l.BootBy.Add(w.Limits.OnlineGrace)) && (r.ListeningAt.IsZero() || !r.MissedAt.IsZero()):
		return "it was not online"
	case unwanted && (r.Mode == store.Ephemeral || l.Joined == "") && r.State != store.RunnerBusy:
		return "nobody wants it"
	}
	return ""
}

// keeps reports whether a request's record is still there.
func (w *World) keeps(q store.Request) bool {
	items, err := w.Store().Get(context.Background(), q.Ref())
	return err == nil && items[0].Base().Version != 0
}

// reaped looks at what a run of the reaper has done of what was due when it began.
// A run that reports a failure, or that somebody was faster, was not whole.
func (w *World) reaped(things []dueThing, report reaper.Report, err error) {
	if err != nil || report.Late || report.Counts[reaper.Skip] > 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wiped() {
		return
	}
	for _, t := range things {
		w.hold(EachRun, t.done(), "%s: a run of the reaper did not see to it that it %s", t.id, t.what)
	}
}

// checkJobs looks at the machines that switched themselves off: none had a job, but
// for those that were told to, and those whose time was up.
func (w *World) checkJobs() {
	jobs := w.GitHub.Jobs()
	machines := w.Fleet.Instances()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range machines {
		if m.PowerOff == "" || m.PowerOff == died || m.PowerOff == store.EndTooOld {
			continue // a program that GitHub refuses cuts its job itself
		}
		r := w.watch.runners[w.tagged(m)]
		// A machine counts what an answer leaves it from when it asked.
		if r.Version == 0 || r.InstanceID != m.ID || m.EndsAt.After(r.Hard.Add(-slack-w.watch.slow[r.ID])) {
			continue
		}
		told := !r.EndingAt.IsZero() && !m.EndsAt.Before(r.EndingAt.Add(-slack)) || !r.EndedAt.IsZero() && !m.EndsAt.Before(r.EndedAt.Add(-slack))
		for _, j := range jobs {
			on := runnerIn(j.RunnerName) == r.ID && !j.StartedAt.IsZero() && j.StartedAt.Before(m.EndsAt) && (j.EndedAt.IsZero() || j.EndedAt.After(m.EndsAt))
			w.hold(JobKept, !on || told, "machine %s switched itself off (%s) with job %s", m.ID, m.PowerOff, j.ID)
		}
	}
}

// sends notes a message that is sent.
func (w *World) sends(m queue.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.sent[m.ID]++
}

// left returns for how long a request may count on its runner.
func (w *World) left(request string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.watch.requests[request]
	return max(time.Second, time.Until(w.watch.locks[r.LockKey()].Exp))
}

// checkAsked looks at how many requests there are: who repeats his call gets the
// one that he has.
func (w *World) checkAsked(asked int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold(OneEach, len(w.watch.requests) <= asked, "%d requests were asked for, and %d are recorded", asked, len(w.watch.requests))
}

// checkPanics looks at what panicked, and was kept from doing harm.
func (w *World) checkPanics() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold(NoPanic, !slices.Contains(w.alarms, store.AlarmPanic), "panic: a part panicked, and says so in its log")
}

// checkTimers looks at when the machines that live switch themselves off, as they
// have been told with their configs.
func (w *World) checkTimers() {
	machines := w.Fleet.Instances()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range machines {
		r := w.watch.runners[w.tagged(m)]
		if m.State.Over() || m.CredentialedAt.IsZero() || time.Since(m.CredentialedAt) < instant || r.Version == 0 {
			continue
		}
		w.hold(TimerSet, !m.EndsAt.IsZero() && !m.EndsAt.After(r.Hard.Add(slack)), "machine %s ends at %s, and its hard limit is %s", m.ID, m.EndsAt, r.Hard)
	}
}

// lives returns how long the runner may still live that can be shared; of several
// the one that ends last.
func (w *World) lives() (left time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.watch.locks {
		if l.State == store.LockLive {
			left = max(left, time.Until(l.Hard))
		}
	}
	return left
}
