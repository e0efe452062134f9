package store

import (
	"fmt"
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

// Event is one thing that a machine says. Machines may lie: an event can change
// its own runner alone, and after a job started only shorten its life.
type Event struct {
	Kind    string
	Counter int64  // rises with every event; one that was already taken changes nothing
	RunID   string // of EventJobStarted: the run that the job belongs to
	Reason  string // of EventDraining: EndSpot, EndTooOld, EndIdle, EndHard or EndAgent
	Detail  string // for people, at most 4 KiB; it becomes part of the history
}

// Order is what the machine is told to do.
type Order string

// The orders. OrderGone goes with status 410: power off.
const (
	OrderGo    Order = "go"
	OrderDrain Order = "drain" // ask for no further config; do not end the runner program
	OrderStop  Order = "stop"  // power off
	OrderGone  Order = "gone"
)

// Heard is the outcome of an event. Items that are not nil are to be written in
// one commit; the lock is to be checked when CheckLock is set.
type Heard struct {
	Runner    *Runner
	Lock      *Lock
	Pulse     *Pulse
	CheckLock bool
	Order     Order
	Alarm     Alarm // "" for none
	// Confirm: a worker is to ask GitHub whether it shows the runner online.
	Confirm bool
	// GaveUp: the machine drains, and never had a job. Its launching request may have
	// to be told.
	GaveUp bool
	// TooOld: GitHub refused the runner program before any job could change the
	// machine, so that the same image would be refused again.
	TooOld bool
}

// OrderFor returns what r is to be told.
func OrderFor(r Runner, l Lock) Order {
	switch {
	case r.State.Final() || r.Version == 0:
		return OrderGone
	case r.State == RunnerEnding:
		return OrderStop
	case r.State == RunnerDraining || !l.Names(r.ID):
		return OrderDrain
	}
	return OrderGo
}

// Hear decides what an event changes.
func Hear(now time.Time, lim Limits, e Event, r Runner, l Lock, p Pulse) Heard {
	out := Heard{Order: OrderFor(r, l)}
	if out.Order == OrderGone || out.Order == OrderStop {
		return out
	}
	if e.Kind == EventHeartbeat {
		fresh := p.Runner != r.ID || e.Counter > p.Counter && now.Sub(p.Seen) >= lim.Heartbeat/4 // a flood writes four times a period at most
		if l.Names(r.ID) && !r.Boot.At.IsZero() && fresh {
			beat := p.beat(now, lim, r.ID, e.Counter)
			out.Pulse = &beat
		}
		return out
	}
	if e.Counter <= r.Counter {
		return out // said before, and taken: only the answer was lost
	}
	r.Counter = e.Counter
	lock := l
	switch e.Kind {
	case EventBooting:
		r = r.note(now, said("agent runs", e.Detail))
	case EventNote:
		r = r.note(now, said("agent", e.Detail))
	case EventOnline:
		r, out.Confirm = listening(now, r, lock)
	case EventJobStarted:
		r, out.Confirm = hasJob(now, r, &lock)
		if r.Mode == Shared && lock.Names(r.ID) {
			lock.Busy, lock.CountedOn = true, time.Time{}
		}
		r, out.Alarm = jobStarted(now, r, e)
	case EventJobDone:
		r, lock = jobDone(now, r, lock, e)
	case EventIdle:
		r, lock = idle(now, lim, r, lock)
		out.CheckLock = lock == l && r.State.Usable() // "go" is true of this lock alone
	case EventDraining:
		out.GaveUp = r.State.Usable() && r.Job.StartedAt.IsZero() && r.Jobs == 0
		r, lock = Drain(now, r, lock, saidEnd(e))
		if e.Reason == EndTooOld {
			out.Alarm = AlarmRunnerTooOld
			out.TooOld = out.GaveUp
		}
		if e.Detail != "" {
			r = r.note(now, e.Detail)
		}
	}
	out.Runner = &r
	if lock != l {
		out.Lock, out.CheckLock = &lock, false
	}
	if out.Confirm {
		beat := p.beat(now, lim, r.ID, p.Counter)
		if p.Runner != r.ID {
			beat.Counter = 0
		}
		out.Pulse = &beat
	}
	out.Order = OrderFor(r, lock)
	return out
}

// listening notes that the runner program of the current config listens. Whether
// jobs can come is for GitHub to say: confirm is true where somebody is to ask, which
// is once for each config, however often a machine says it.
func listening(now time.Time, r Runner, l Lock) (_ Runner, confirm bool) {
	if !r.State.Usable() || r.Boot.At.IsZero() || !r.Registered() || !l.Names(r.ID) || !r.ListeningAt.IsZero() {
		return r, false
	}
	r.ListeningAt = now
	return r.note(now, "the runner program listens"), true
}

// hasJob takes a runner into use that GitHub gave a job before it was asked: that
// proves more than its word.
func hasJob(now time.Time, r Runner, l *Lock) (_ Runner, confirm bool) {
	if r.State != RunnerBooting || !l.Names(r.ID) || l.State != LockLaunching {
		return r, false
	}
	l.State = LockLive
	r.OnlineAt = now
	if r.ListeningAt.IsZero() {
		r.ListeningAt = now
	}
	return r.enter(now, RunnerOnline, "GitHub gave it a job"), true
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
	if r.Mode == Ephemeral && r.RunID != "" && e.RunID != "" && e.RunID != r.RunID {
		r.Stolen, alarm = e.RunID, AlarmJobStolen
		reason += ", which did not ask for this runner"
	}
	if r.State == RunnerOnline {
		return r.enter(now, RunnerBusy, reason), alarm
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
		return Drain(now, r, l, NewEnd(EndDone))
	}
	if r.State == RunnerBusy {
		return r.enter(now, RunnerOnline, said("job done", e.Detail)), l
	}
	return r.note(now, said("job done", e.Detail)), l
}

// idle answers a machine that has no job: while draining it may be ended at
// once; before, it drains if it has been idle for long enough since its last
// job and since it was last shared.
func idle(now time.Time, lim Limits, r Runner, l Lock) (Runner, Lock) {
	if r.State == RunnerDraining {
		r.IdleAt, r.Refusals, r.DeleteAfter = now, 0, time.Time{}
		return r.note(now, "no job runs"), l
	}
	began := r.OnlineAt
	if !r.ListeningAt.IsZero() && r.ListeningAt.Before(began) {
		began = r.ListeningAt // which the machine counts from: it would ask too early otherwise
	}
	since := maxTime(maxTime(began, r.Job.EndedAt), l.SharedAt.Add(lim.ShareStep))
	if r.State == RunnerOnline && now.Sub(since) >= lim.Idle {
		return Drain(now, r, l, NewEnd(EndIdle))
	}
	return r, l
}

// saidEnd maps what a machine gives as its reason to the reasons it may give.
func saidEnd(e Event) Failure {
	switch e.Reason {
	case EndSpot, EndTooOld, EndIdle, EndHard, EndDone:
		return NewEnd(e.Reason)
	}
	return NewEnd(EndAgent)
}

func said(what, detail string) string {
	if detail == "" {
		return what
	}
	return fmt.Sprintf("%s: %s", what, detail)
}

// BootVerdict is the answer to a machine's boot call.
type BootVerdict string

// The verdicts, with the statuses that they are answered with.
const (
	BootGo          BootVerdict = "go"          // 200: here is the config
	BootLater       BootVerdict = "later"       // 425: not everything is recorded yet
	BootGone        BootVerdict = "gone"        // 410: power off
	BootCompromised BootVerdict = "compromised" // 409: somebody else was here first
)

// BootCall decides a boot call whose token was verified for the runner's
// recorded index. Items with a true flag are to be written in one commit, and
// the lock is to be checked when the verdict is BootGo: two runners that take
// turns on one lock can never both be answered.
func BootCall(now time.Time, r Runner, l Lock, nonceHash, instance string) (_ Runner, _ Lock, _ BootVerdict, runner, lock bool) {
	if r.Version == 0 || !r.State.Usable() {
		return r, l, BootGone, false, false
	}
	first := r.Boot.NonceHash == ""
	if first {
		r.Boot.NonceHash, r.Boot.InstanceID = nonceHash, instance
	}
	if r.Boot.NonceHash != nonceHash || instance != r.Boot.InstanceID || r.Mismatched() {
		was := l.State
		r, l = Drain(now, r, l, NewEnd(EndCompromised))
		return r, l, BootCompromised, true, l.State != was
	}
	switch {
	case r.State == RunnerOnline || r.State == RunnerBusy || !l.Names(r.ID) || l.State != LockLaunching || !now.Before(l.BootBy):
		return r, l, BootGone, false, false
	case r.InstanceID == "" || r.Config.N == 0:
		return r, l, BootLater, first, false
	case r.Boot.At.IsZero():
		r.Boot.At = now
		return r.enter(now, RunnerBooting, "config answered to "+instance), l, BootGo, true, false
	}
	return r, l, BootGo, false, false
}

// NextCall decides a shared machine's call for config n. With ready, the
// recorded config may be answered. With wanted, a worker is to mint one; with
// changed too, runner and lock are to be written first. Neither ready nor wanted:
// the machine drains. Past the lock's exp it still gets configs, up to its hard
// limit: jobs may be queued for it, and DrainReason ends it when none comes.
func NextCall(now time.Time, r Runner, l Lock, n int) (_ Runner, _ Lock, ready, wanted, changed bool) {
	if r.Mode != Shared || r.State != RunnerOnline || !l.Names(r.ID) || l.State != LockLive || !now.Before(r.Hard) || n > r.Config.N+1 {
		return r, l, false, false, false
	}
	if r.Config.N >= n {
		return r, l, true, false, false
	}
	if r.Wanted < n {
		r.Wanted = n
		r, l = r.usedUp(l)
		return r.note(now, fmt.Sprintf("asks for config %d", n)), l, false, true, true
	}
	return r, l, false, true, false
}
