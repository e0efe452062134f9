package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The events that an agent reports.
const (
	EventHeartbeat  = "heartbeat"
	EventBooting    = "booting"
	EventOnline     = "online"
	EventJobStarted = "job_started"
	EventJobDone    = "job_done"
	EventIdle       = "idle"
	EventNote       = "note"
	EventDraining   = "draining"
)

// EventKinds has every event, in the order of a machine's life.
var EventKinds = []string{EventHeartbeat, EventBooting, EventOnline, EventJobStarted, EventJobDone, EventIdle, EventDraining, EventNote}

// SaidReasons are the ends that a machine may give as the reason why it drains. Any
// other word counts as EndAgent.
var SaidReasons = []string{EndSpot, EndTooOld, EndIdle, EndHard, EndDone, EndSetup, EndAgent}

// Event is one thing that a machine says. Machines may lie: an event can change
// its own runner alone, and after a job started only shorten its life.
type Event struct {
	Kind    string
	Counter int64  // rises with every event; one that was already taken changes nothing
	RunID   string // of EventJobStarted: the run that the job belongs to
	Reason  string // of EventDraining: one of SaidReasons
	Detail  string // for people, at most 4 KiB; it becomes part of the history
	// LeftOut is how many events for people were left out of the record since one
	// was written, as the API counted them, and not the machine.
	LeftOut int
}

// Order is what the machine has to do.
type Order string

// The orders. OrderGone goes with status 410: power off.
const (
	OrderGo    Order = "go"
	OrderDrain Order = "drain" // ask for no further config; do not end the runner program
	OrderStop  Order = "stop"  // power off
	OrderGone  Order = "gone"
)

// OrderFor returns what r is to be told. Past its hard limit that is to stop, whether
// the reaper has begun to end it or not.
func OrderFor(now time.Time, r Runner, l Lock) Order {
	switch {
	case r.State.Final() || r.Version == 0:
		return OrderGone
	case r.State == RunnerEnding || !now.Before(r.Hard):
		return OrderStop
	case r.State == RunnerDraining || !l.Names(r.ID):
		return OrderDrain
	}
	return OrderGo
}

// ApplyEvent decides what an event changes, and what the machine is to do. It needs the
// runner, its lock and its pulse; when a machine gives up that never had a job, its
// account's quota and the request that launched it too. programs is the ProgramKey of
// the runner programs that the API offers.
//
// Past the hard limit nothing is written. Before it, an event that changes nothing
// writes nothing, and one that does is paid for from the runner's budget. A decision
// that waits for OverBudget took nothing: the machine is to say it again.
func (c Case) ApplyEvent(now time.Time, lim Limits, e Event, programs string) (Decision, Order) {
	if o := OrderFor(now, c.Runner, c.Lock); o == OrderGone || o == OrderStop {
		return decisionOf(c).done(), o
	}
	d := decide(c, func(d *Decision) {
		switch {
		case e.Kind == EventHeartbeat:
			d.heartbeat(now, lim, e)
		case e.ForPeople():
			d.remark(now, lim, e)
		case e.Counter > c.Runner.Counter: // else it was taken before, and only the answer was lost
			d.apply(now, lim, e, programs)
			if d.wrote(KindRunner) && d.pay(now, lim, priceEvent) {
				d.Runner.Counter = e.Counter
			}
		}
	})
	return d, OrderFor(now, d.Runner, d.Lock)
}

// heartbeat notes a sign of life. A flood of them writes four times a period at most.
// They are written past exp too: a machine that is silent counts as lost, and may have
// a job.
func (d *Decision) heartbeat(now time.Time, lim Limits, e Event) {
	r, l, p := d.Runner, d.Lock, d.Pulse
	fresh := p.Runner != r.ID || e.Counter > p.Counter && now.Sub(p.Seen) >= lim.Heartbeat/4
	if l.Names(r.ID) && !r.Boot.At.IsZero() && fresh {
		d.Pulse = p.beat(now, lim, r.ID, e.Counter)
	}
}

// apply lets an event happen that is neither a heartbeat nor for people alone, and was
// not taken before. What happened already does not happen again: a machine can say
// each of these once for each of its jobs.
func (d *Decision) apply(now time.Time, lim Limits, e Event, programs string) {
	r, l := &d.Runner, &d.Lock
	switch e.Kind {
	case EventOnline:
		if listening(now, r, *l) {
			d.confirmLater(now, lim)
		}
	case EventJobStarted:
		if !r.starts(e) {
			return
		}
		if hasJob(now, r, l) {
			d.confirmLater(now, lim)
		}
		if r.Mode == Shared && l.Names(r.ID) {
			l.Busy, l.CountedOn = true, time.Time{}
		}
		*r, d.Alarm = jobStarted(now, *r, e)
	case EventJobDone:
		if r.jobRuns() || !r.Config.Used {
			*r, *l = jobDone(now, *r, *l, e)
		}
	case EventIdle:
		*r, *l = idle(now, lim, *r, *l)
		if r.State.Usable() {
			d.check(KindLock) // "go" is true of this lock alone
		}
	case EventDraining:
		if r.State.Usable() {
			d.draining(now, lim, e, programs)
		} else if e.Reason == EndTooOld && !r.told(EndTooOld) {
			*r, d.Alarm = r.note(now, withDetail(EndTooOld, e.Detail)), AlarmRunnerTooOld
		}
	}
}

// told reports whether the history says something.
func (r Runner) told(what string) bool {
	return slices.ContainsFunc(r.History, func(e Entry) bool { return strings.HasPrefix(e.Reason, what) })
}

// starts reports whether a job_started says something new: a job of a config that had
// none yet, or the run of the job that runs.
func (r Runner) starts(e Event) bool {
	if r.jobRuns() {
		return e.RunID != "" && r.Job.RunID == ""
	}
	return !r.Config.Used
}

// confirmLater has a worker ask GitHub whether it shows the runner online. What the
// machine said is a sign of life.
func (d *Decision) confirmLater(now time.Time, lim Limits) {
	counter := d.Pulse.Counter
	if d.Pulse.Runner != d.Runner.ID {
		counter = 0
	}
	d.Pulse = d.Pulse.beat(now, lim, d.Runner.ID, counter)
	d.send(&d.Runner, now)
}

// draining drains the runner of a machine that says that it drains. When it never had a
// job, the request that launched it learns of that; and when GitHub refused the runner
// program before any job could change the machine, the same image would be refused
// again.
func (d *Decision) draining(now time.Time, lim Limits, e Event, programs string) {
	r := &d.Runner
	gaveUp := r.Job.StartedAt.IsZero() && r.Jobs == 0
	if gaveUp && d.need(KindQuota, KindRequest) {
		return
	}
	d.drain(now, saidEnd(e))
	if e.Detail != "" && e.Reason != EndSetup { // whose end has it
		*r = r.note(now, e.Detail)
	}
	if e.Reason == EndTooOld {
		d.Alarm = AlarmRunnerTooOld
		if gaveUp {
			d.Quota = d.Quota.refuse(now, *r, programs)
		}
	}
	if gaveUp {
		d.settle(now, lim)
	}
}

// listening notes that the runner program of the current config listens. Whether
// jobs can come is for GitHub to say: confirm is true where a worker is to ask, which
// is once for each config, however often a machine says it.
func listening(now time.Time, r *Runner, l Lock) (confirm bool) {
	if !r.State.Usable() || r.Boot.At.IsZero() || !r.Registered() || !l.Names(r.ID) || !r.ListeningAt.IsZero() {
		return false
	}
	r.ListeningAt = now
	*r = r.note(now, "the runner program listens")
	return true
}

// hasJob takes a runner into use that GitHub gave a job before it was asked: that
// proves more than its word.
func hasJob(now time.Time, r *Runner, l *Lock) (confirm bool) {
	if r.State != RunnerBooting || !l.Names(r.ID) || l.State != LockLaunching {
		return false
	}
	l.State = LockLive
	r.OnlineAt = now
	if r.ListeningAt.IsZero() {
		r.ListeningAt = now
	}
	*r = r.transition(now, RunnerOnline, "GitHub gave it a job")
	return true
}

// jobStarted notes the job. A job of another run than the one that asked for an
// ephemeral runner took it: the record says so.
func jobStarted(now time.Time, r Runner, e Event) (Runner, Alarm) {
	if r.Job.StartedAt.IsZero() || !r.Job.EndedAt.IsZero() {
		r.Job = Job{StartedAt: now}
	}
	r.IdleAt = time.Time{}
	if e.RunID != "" { // a machine may learn it after the start
		r.Job.RunID = e.RunID
	}
	var alarm Alarm
	reason := "job of run " + e.RunID
	if e.RunID == "" {
		reason = "a job"
	}
	if r.Mode == Ephemeral && !r.OfJob() && r.RunID != "" && e.RunID != "" && e.RunID != r.RunID {
		r.Stolen, alarm = e.RunID, AlarmJobStolen
		reason += ", which did not ask for this runner"
	}
	if r.State == RunnerOnline {
		return r.transition(now, RunnerBusy, reason), alarm
	}
	return r.note(now, reason), alarm
}

// jobDone frees a shared runner for the next job, and ends an ephemeral one.
func jobDone(now time.Time, r Runner, l Lock, e Event) (Runner, Lock) {
	r.Jobs++
	r.Job.EndedAt = now
	if e.Detail == "" {
		r = r.Forget(r.Config.N) // GitHub removes a one-job registration after its job, and keeps one whose job was cut
	}
	r, l = r.usedUp(l)
	r.Refusals, r.DeleteAfter = 0, time.Time{} // GitHub's view follows within seconds
	if r.State == RunnerBusy && r.Mode == Ephemeral {
		return drain(now, r, l, NewEnd(EndDone))
	}
	if r.State == RunnerBusy {
		return r.transition(now, RunnerOnline, withDetail("job done", e.Detail)), l
	}
	return r.note(now, withDetail("job done", e.Detail)), l
}

// idle answers a machine that has no job: while draining it may be ended at
// once; before, it drains if it has been idle for long enough since its last
// job and since it was last shared.
func idle(now time.Time, lim Limits, r Runner, l Lock) (Runner, Lock) {
	if r.State == RunnerDraining {
		if !r.IdleAt.IsZero() && !r.IdleAt.Before(r.DeregisteredAt) {
			return r, l // it said so, and it counts
		}
		r.IdleAt, r.Refusals, r.DeleteAfter = now, 0, time.Time{}
		return r.note(now, "no job runs"), l
	}
	began := r.OnlineAt
	if !r.ListeningAt.IsZero() && r.ListeningAt.Before(began) {
		began = r.ListeningAt // which the machine counts from: it would ask too early otherwise
	}
	since := maxTime(maxTime(began, r.Job.EndedAt), l.SharedAt.Add(lim.ShareStep))
	if r.State == RunnerOnline && now.Sub(since) >= lim.Idle {
		return drain(now, r, l, NewEnd(EndIdle))
	}
	return r, l
}

func withDetail(what, detail string) string {
	if detail == "" {
		return what
	}
	return fmt.Sprintf("%s: %s", what, detail)
}
