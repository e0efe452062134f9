package store

import (
	"fmt"
	"strings"
	"time"
)

// RunnerNamed returns the runner whose registration has that name at GitHub, if a control
// plane gives out such names. It proves nothing: anybody can register a name.
func RunnerNamed(controlPlane, name string) (runner string, ok bool) {
	rest, ok := strings.CutPrefix(name, GitHubPrefix(controlPlane))
	if !ok {
		return "", false
	}
	runner, n, ok := strings.Cut(rest, "-")
	return runner, ok && runner != "" && n != ""
}

// Proves reports whether the job is on r, or was: by the name and the number of its
// registration. Who can register runners can give one the name alone.
func (s Sighting) Proves(controlPlane string, r Runner) bool {
	return r.Version != 0 && s.Registration != 0 && s.Registration == r.Config.RunnerID &&
		s.Runner == GitHubNameFor(controlPlane, r.ID, r.Config.N)
}

// Hearing is what a sighting means for a workflow job.
type Hearing string

// The hearings.
const (
	HeardBegan   Hearing = "began"   // on a runner of ours
	HeardOver    Hearing = "over"    // it is done without us, or was cancelled
	HeardHeld    Hearing = "held"    // GitHub gives it to nobody yet
	HeardAgain   Hearing = "again"   // it is queued, though its request was over, or held
	HeardTwice   Hearing = "twice"   // the runner took another job before
	HeardUnsure  Hearing = "unsure"  // it proves nothing: GitHub is to be asked
	HeardNothing Hearing = "nothing" // that is not known
)

// Heard decides what follows for a workflow job from what GitHub says of it. on reports
// that the sighting Proves that the job is on the runner of the case, which is not needed
// else. It needs the request; one that is in no record, and has no state, is for a job
// that began on a runner of ours and that no offer fits.
//
// GitHub decides which runner takes which job. That it began on r is written down in both
// items, and nothing is swapped: who waits for r learns of it by settling, and the runner
// that the request waited for has nobody who counts on it.
func Heard(c Case, now time.Time, lim Limits, s Sighting, on bool) (_ Decision, h Hearing) {
	d := decide(c, func(d *Decision) { h = d.heard(now, lim, s, on) })
	return d, h
}

func (d *Decision) heard(now time.Time, lim Limits, s Sighting, on bool) Hearing {
	r := &d.Request
	switch {
	case s.Status.Begun() && on:
		return d.began(now, lim, s)
	case s.Status.Begun() && !s.Read:
		return HeardUnsure
	case s.Status == JobInProgress && s.Runner == "":
		return HeardNothing // GitHub may know later where it is
	case s.Status.Begun():
		return d.over(now, lim, s)
	case s.Status.Held() && s.Read:
		return d.held(now, s)
	case s.Status == JobQueued && s.Read && r.State.Final() && r.State != "":
		return d.revived(now, lim)
	case s.Status == JobQueued && s.Read && r.State == Accepted && r.Wait == WaitHeld: // it waits no more
		r.DueAt, r.Wait = now, ""
		*r = r.sent(now)
		d.remind()
		return HeardAgain
	}
	return HeardNothing
}

// began writes down that the job of the request began on the runner.
func (d *Decision) began(now time.Time, lim Limits, s Sighting) Hearing {
	r, run := &d.Request, &d.Runner
	switch {
	case run.Took.Job != "" && run.Took.Job != s.Job.ID:
		d.Alarm = AlarmTwoJobs
		return HeardTwice
	case run.Took.Job == "":
		run.Took = Took{Job: s.Job.ID, Request: r.ID, At: now}
		*run = run.note(now, "took job "+s.Job.ID+" of run "+s.Job.RunID)
		if run.For != r.ID { // who waits for the runner is to look for another
			d.send(run, now)
		}
	}
	was := r.Job
	if r.ID != "" {
		r.Job = r.Job.seen(s)
	}
	switch {
	case r.ID == "":
		return HeardNothing
	case r.State == Ready && r.Runner == run.ID:
		if !was.CompletedAt.IsZero() {
			r.Job = was // it is recorded once
		}
		return HeardNothing
	case r.forbidden(): // the machine's own question fails the job
		return HeardNothing
	}
	*r = r.ready(now, lim, run.ID, "began on runner "+run.ID)
	r.Slot, r.Ahead = time.Time{}, false
	return HeardBegan
}

// seen adds to what is known of a job.
func (j WorkflowJob) seen(s Sighting) WorkflowJob {
	j.TakenBy, j.StartedAt = s.Runner, s.Job.StartedAt
	if s.Status == JobCompleted {
		j.CompletedAt, j.Conclusion = s.Job.CompletedAt, s.Job.Conclusion
	}
	return j
}

// over ends the request of a job that GitHub says will not begin on a runner of ours.
func (d *Decision) over(now time.Time, lim Limits, s Sighting) Hearing {
	r := &d.Request
	if r.State.Final() {
		return HeardNothing
	}
	f := Failure{Code: "job_over", Text: "GitHub says that the job is over: " + s.Job.Conclusion + "."}
	switch {
	case s.Runner != "":
		f = Failure{Code: "job_elsewhere", Text: fmt.Sprintf("GitHub gave the job to runner %.100q, which is none of this control plane's.", s.Runner)}
	case s.Job.Conclusion == "cancelled":
		f = Failure{Code: "job_cancelled", Text: "The job was cancelled at GitHub before it began."}
	}
	r.Job = r.Job.seen(s)
	*r = r.finish(now, lim, Cancelled, f.Code, &f)
	r.Slot, r.Ahead = time.Time{}, false
	return HeardOver
}

// held lets an accepted request wait for its job, which waits at GitHub for something.
func (d *Decision) held(now time.Time, s Sighting) Hearing {
	r := &d.Request
	if r.State != Accepted {
		return HeardNothing
	}
	pause := firstPause
	if r.Wait == WaitHeld { // as long again as it has waited by now
		pause = min(max(now.Sub(r.HeldAt), firstPause), maxPause)
	} else {
		r.HeldAt = now
	}
	d.hold(now, Wait{WaitHeld, now.Add(pause)}, WaitHeld+": GitHub says that the job is "+string(s.Status))
	return HeardHeld
}

// reviveAfter is how long GitHub has to call a job queued, in two answers, though its
// request is over: its answers can be some seconds old.
const reviveAfter = time.Minute

// revived accepts a request again whose job GitHub calls queued though it was over. One
// that is forbidden stays so.
func (d *Decision) revived(now time.Time, lim Limits) Hearing {
	r := &d.Request
	switch {
	case r.forbidden():
		return HeardNothing
	case r.QueuedAt.IsZero():
		r.QueuedAt = now
		return HeardNothing
	case now.Sub(r.QueuedAt) < reviveAfter:
		return HeardNothing
	}
	r.QueuedAt, r.EndedAt, r.ReadyAt, r.Error, r.TTL = time.Time{}, time.Time{}, time.Time{}, nil, 0
	*r = r.again(now, "GitHub says that the job is queued", 0)
	d.remind()
	return HeardAgain
}

// CodeForbidden is the code of a request whose job may not have a machine.
const CodeForbidden = "forbidden"

// forbidden reports whether no machine is for the job of r, whatever becomes of the job.
func (r Request) forbidden() bool {
	return r.Error != nil && (r.Error.Code == CodeForbidden || r.Error.Code == CodeNotOffered)
}

// Starved reports whether people are to look at the workflow job of r: it lost one machine
// after another, or the last one could not be set up.
func (r Request) Starved() bool {
	return r.OfJob() && (r.Tries > atOnce || strings.HasPrefix(r.Lost, EndSetup))
}

const (
	// atOnce is how often in a row a job's request may lose its machine, and be launched
	// again without a pause: GitHub gives machines with equal labels to each other's jobs.
	atOnce = 3
	// firstPause and maxPause are the shortest and the longest pause after that, each
	// twice the one before it: a machine that nobody can use costs some minutes of its
	// price, and a job that waits costs a person's time.
	firstPause, maxPause = 30 * time.Second, 10 * time.Minute
)

// again accepts a request of a workflow job again, for another launch: at once, or after
// a pause once it has lost so many machines. more counts as so many further ones.
func (r Request) again(now time.Time, why string, more int) Request {
	r.State, r.Runner, r.Tries, r.Launches = Accepted, "", r.Tries+1, r.Launches+1
	r.DueAt, r.Wait, r.Lost = now, "", why
	if n := r.Tries + more - atOnce - 1; n >= 0 {
		r.DueAt, r.Wait = now.Add(min(firstPause<<min(n, 10), maxPause)), WaitBackoff
	}
	r.Sends = 0
	r = r.sent(now)
	r.History = r.History.with(now, string(Accepted), why)
	return r
}
