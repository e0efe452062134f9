package promise

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about the reaper.
const (
	EachRun Promise = "a whole run of the reaper does all that is due"
	NoPanic Promise = "nothing panics"
)

// runPromises are about the runs of the reaper.
type runPromises struct{ *History }

// duty is what a run of the reaper has to do about a record.
type duty struct {
	id, what string
	done     func() bool // or not to be done any more
}

// Reaping looks at a run of the reaper that begins now. ended looks at what it has
// done of what was due by then. A run that reports a failure, or that somebody was
// faster, was not whole.
func (p runPromises) Reaping() (ended func(reaper.Report, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sawTimers()
	duties := p.duties()
	return func(report reaper.Report, err error) {
		if err != nil || report.Late || report.Counts[reaper.Skip] > 0 {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.wiped() {
			return
		}
		for _, d := range duties {
			p.hold(EachRun, d.done(), "%s: a run of the reaper did not see to it that it %s", d.id, d.what)
		}
	}
}

// sawTimers looks at when the machines that live switch themselves off, as they
// have been told with their configs.
func (p runPromises) sawTimers() {
	for _, m := range p.Fleet.Instances() {
		r := p.runners[p.tagged(m)]
		if m.State.Over() || m.CredentialedAt.IsZero() || time.Since(m.CredentialedAt) < instant || r.Version == 0 || m.EndsAt.IsZero() && p.confirmations.lied[r.ID] {
			continue // or a job with root disarmed it
		}
		p.hold(TimerSet, !m.EndsAt.IsZero() && !m.EndsAt.After(r.Hard.Add(slack)), "machine %s ends at %s, and its hard limit is %s", m.ID, m.EndsAt, r.Hard)
	}
}

// duties returns what a run that begins now has to do. It is judged by the reaper's
// clock, and by what is recorded now: nothing of it can become untrue but by a
// change of what it is about.
func (p runPromises) duties() (all []duty) {
	if p.wiped() {
		return nil
	}
	now := p.now(kernel.Reaper)
	for _, r := range p.runners {
		if !r.State.Final() && p.indexed(r.Ref()) {
			all = p.ofRunner(all, now, r, p.locks[r.Lock])
		}
	}
	return append(all, p.ofRequests(now)...)
}

// ofRequests returns what has to be done about requests.
func (p runPromises) ofRequests(now time.Time) (all []duty) {
	parked, seen := map[string][]store.Request{}, map[string]bool{} // by account, and whether the run must see one of them
	for _, q := range p.requests {
		waits := q.State == store.Accepted && q.Wait == store.WaitQuota && !now.After(q.GiveUpAt)
		if waits {
			parked[q.Account] = append(parked[q.Account], q)
		}
		switch {
		case q.State.Final() || q.DueAt.After(now) || !p.indexed(q.Ref()):
		case waits:
			seen[q.Account] = seen[q.Account] || now.Sub(q.SentAt) >= p.Limits.Resend/2
		default:
			all = p.ofRequest(all, now, q)
		}
	}
	for account := range seen {
		if seen[account] {
			all = append(all, duty{account, "wakes one of those who wait for its quota", func() bool { return p.woke(parked[account], account, now) }})
		}
	}
	return all
}

// woke reports whether one of an account's requests that waited for its quota was woken
// since: one of those that did so then, or one that has waited since a moment after.
func (p runPromises) woke(then []store.Request, account string, since time.Time) bool {
	for _, q := range then {
		if p.requests[q.ID].Version != q.Version {
			return true
		}
	}
	for _, q := range p.requests {
		if q.Account == account && q.Sends > 1 && !q.SentAt.Before(since) {
			return true
		}
	}
	return false
}

// indexed reports whether the due index shows a record by now.
func (p runPromises) indexed(ref store.Ref) bool {
	return time.Since(p.placed[ref].at) >= p.Lag()+slack
}

// ofRunner adds what has to be done about a runner.
func (p runPromises) ofRunner(all []duty, now time.Time, r store.Runner, l store.Lock) []duty {
	switch why := p.mustDrain(now, r, l); {
	case r.State == store.RunnerDraining && p.mustEnd(now, r):
		return append(all, duty{r.ID, "ends", func() bool { return p.runners[r.ID].State != store.RunnerDraining }})
	case r.State.Usable() && why != "":
		return append(all, duty{r.ID, "drains, " + why, func() bool {
			is, run := p.locks[r.Lock], p.runners[r.ID]
			return !run.State.Usable() || !is.Exp.Equal(l.Exp) || !is.BootBy.Equal(l.BootBy) || is.Joined != l.Joined ||
				!run.Job.StartedAt.Equal(r.Job.StartedAt) || !run.Boot.At.Equal(r.Boot.At) || !run.ListeningAt.Equal(r.ListeningAt) ||
				!run.OnlineAt.Equal(r.OnlineAt) || run.For != r.For // jobs may be queued for it now, or it was given to another job
		}})
	case r.State.Usable() && p.forgotten(now, r):
		return p.goesOn(all, r, l, waitsFor(now, r, l))
	}
	return all
}

// mustEnd reports whether a runner that drains has to end.
func (p runPromises) mustEnd(now time.Time, r store.Runner) bool {
	return r.Boot.At.IsZero() || !now.Before(r.Hard) || !r.DeregisteredAt.IsZero() && now.Sub(r.DeregisteredAt) >= p.Limits.Grace && !jobRuns(r)
}

// forgotten reports whether no worker is at a runner, or is to be for so long.
func (p runPromises) forgotten(now time.Time, r store.Runner) bool {
	claimed := r.Claim.By != "" && now.Before(r.Claim.Until)
	return !claimed && now.Sub(r.WaitUntil) >= p.Limits.Resend && now.Sub(r.UpdatedAt) >= p.Limits.Resend+slack
}

// goesOn adds that a worker has to be sent to a runner that waits for something.
func (p runPromises) goesOn(all []duty, r store.Runner, l store.Lock, wait string) []duty {
	if wait == "" {
		return all
	}
	sent := p.sent[r.ID]
	return append(all, duty{r.ID, "continues", func() bool {
		is := p.runners[r.ID]
		asked := wait == itsWord && (!is.MissedAt.IsZero() || !p.locks[r.Lock].ConfirmedAt.Equal(l.ConfirmedAt))
		return p.sent[r.ID] > sent || is.Version != r.Version || asked || !p.now(kernel.Reaper).Before(l.BootBy)
	}})
}

// What a runner may wait for.
const (
	itsMachine = "a machine that can boot in time"
	itsConfig  = "the config that its machine wants"
	itsWord    = "GitHub's word since its program listens"
)

// waitsFor says what a usable runner waits for; empty: for nothing that a worker does.
func waitsFor(now time.Time, r store.Runner, l store.Lock) string {
	switch {
	case r.InstanceID == "":
		if r.State == store.RunnerNew && l.State == store.LockLaunching && l.Names(r.ID) && now.Before(l.BootBy) {
			return itsMachine
		}
	case r.Wanted > r.Config.N:
		return itsConfig
	case l.Names(r.ID) && r.ListeningAt.After(l.ConfirmedAt) && serves(r):
		return itsWord
	}
	return ""
}

// ofRequest adds what has to be done about a request.
func (p runPromises) ofRequest(all []duty, now time.Time, q store.Request) []duty {
	run := p.runners[q.Runner]
	inTime := !run.OnlineAt.IsZero() && !run.OnlineAt.After(q.GiveUpAt) // else it expires at give_up_at, by the reaper's clock
	settles := q.State == store.Waiting && run.Version != 0 && (deserted(run) || inTime)
	if q.OfJob() {
		settles = q.State == store.Waiting && run.Version != 0 && (deserted(run) && (run.State.Final() || !jobRuns(run)) || run.Took.Job != "")
	}
	patience := p.Limits.Resend * []time.Duration{1, 1, 2, 4, 8}[min(q.Sends, 4)] // what is behind a backlog is not made more
	forgotten := q.State == store.Accepted && now.Sub(q.DueAt) >= patience && now.Sub(q.SentAt) >= patience
	if !now.After(q.GiveUpAt) && !settles && !forgotten {
		return all
	}
	return append(all, duty{q.ID, "continues, " + string(q.State), func() bool {
		is := p.requests[q.ID]
		held := is.State == store.Accepted && !is.DueAt.Equal(q.DueAt) // by a worker that takes it up at last
		return is.Version != q.Version && (is.State != q.State || is.Sends != q.Sends || is.Tries != q.Tries || held)
	}})
}

// mustDrain says why a usable runner has to drain: nothing but a share, an index that
// moves, or what its machine or GitHub says of it changes that.
func (p runPromises) mustDrain(now time.Time, r store.Runner, l store.Lock) string {
	late := r.OnlineAt.IsZero() && !now.Before(l.BootBy.Add(p.Limits.OnlineGrace))
	queued := jobRuns(r) || now.Sub(latest(r.OnlineAt, r.Job.EndedAt, r.ListeningAt)) < p.Limits.OnlineGrace
	switch {
	case !now.Before(r.Hard):
		return "its hard limit passed"
	case !l.Names(r.ID):
		return ""
	case !now.Before(l.Exp) && queued:
		return "" // jobs may be queued for it
	case !now.Before(l.Exp):
		return "nobody counts on it"
	case r.Boot.At.IsZero() && !now.Before(l.BootBy):
		return "it did not boot"
	case late && (r.ListeningAt.IsZero() || !r.MissedAt.IsZero()):
		return "it was not online"
	case p.unwanted(now, r, l):
		return "nobody wants it"
	}
	return ""
}

// unwanted reports whether nobody wants a runner, and it has no job.
func (p runPromises) unwanted(now time.Time, r store.Runner, l store.Lock) bool {
	q := p.requests[r.Request]
	if r.OfJob() {
		return p.spare(now, r)
	}
	return r.State != store.RunnerBusy && alone(r, l) && unserved(q) && p.kept(q.Ref())
}

// Sends notes a message that is sent.
func (p runPromises) Sends(m queue.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[m.ID]++
	if body, err := queue.Encode(m); err == nil {
		p.texts = append(p.texts, text{"message", body})
	}
}
