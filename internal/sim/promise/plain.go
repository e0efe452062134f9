package promise

import (
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about workflow jobs that name labels, and ask nobody.
const (
	CountsOn   Promise = "a job's request counts on a machine that is for it, may take it, and has its labels"
	TookTrue   Promise = "a machine took the job that GitHub gave it, and one only"
	BeganTrue  Promise = "a job's request is ready when the job began on that machine"
	OverTrue   Promise = "a job's request is over when GitHub says so of the job"
	WantedOnly Promise = "no machine is launched for a job that is not queued, not ours or not allowed"
	NoStranger Promise = "a job that may have no machine runs no step on one"
	ServedAll  Promise = "a queued job that may have a machine gets one"
	NoSpares   Promise = "a machine that nobody needs ends within five minutes"
)

// Workflow is how a workflow job is at GitHub.
type Workflow struct {
	github.Job
	Labels  []string
	Allowed bool // its run may have machines
	Held    bool // it is queued, and GitHub gives it to nobody
	Ran     bool // its steps ran, on a machine of ours
	// QueuedUntil is when it was last queued. Zero: it never was.
	QueuedUntil time.Time
}

// plainPromises are about workflow jobs.
type plainPromises struct{ *History }

// believed is for how long a worker may believe what GitHub said of a job, and what it
// takes from there to a commit.
const believed = 90 * time.Second

// jobs returns all jobs of GitHub but those that a runner of others took, under whatever name.
func (h *History) jobs() []simgithub.Job {
	return slices.DeleteFunc(h.GitHub.Jobs(), func(j simgithub.Job) bool { return j.Elsewhere })
}

// sawPlain looks at the request of a workflow job, after all of its commit was noted.
func (p plainPromises) sawPlain(was, r store.Request) {
	if !r.OfJob() {
		return
	}
	run := p.runners[r.Runner]
	if r.State == store.Waiting {
		p.hold(CountsOn, run.For == r.ID && run.State.Usable() && run.Took.Job == "" || r.Runner == was.Runner && run.For == r.ID,
			"request %s waits for runner %s, which is %s, for %s and took %q", r.ID, run.ID, run.State, run.For, run.Took.Job)
		p.hold(CountsOn, !slices.ContainsFunc(r.Labels, func(l string) bool { return !slices.Contains(run.Labels, l) }),
			"request %s wants %v, and waits for runner %s with %v", r.ID, r.Labels, run.ID, run.Labels)
	}
	if r.State == store.Ready && was.State != store.Ready {
		p.hold(TookTrue, run.Took.Job == r.Job.ID && run.Took.Request == r.ID, "request %s is ready on runner %s, which took %q of %q", r.ID, run.ID, run.Took.Job, run.Took.Request)
	}
	at, ok := p.Workflow(r.Job.ID)
	if !ok {
		return
	}
	switch {
	case r.State == store.Ready && was.State != store.Ready:
		p.hold(BeganTrue, at.RunnerID != 0 && at.RunnerID == run.Config.RunnerID && !at.StartedAt.IsZero(),
			"request %s is ready on runner %s with registration %d, and its job %s is %s on %d", r.ID, run.ID, run.Config.RunnerID, r.Job.ID, at.Status, at.RunnerID)
	case r.State == store.Cancelled && was.State != store.Cancelled && r.Error != nil && r.Error.Code != "cancelled":
		elsewhere := at.RunnerID != 0 && !p.configs[at.RunnerID]
		p.hold(OverTrue, at.Status == github.StatusCompleted || elsewhere, "request %s is over for %s, and its job %s is %s", r.ID, r.Error.Code, r.Job.ID, at.Status)
	}
}

// sawTook looks at a runner that took a job.
func (p plainPromises) sawTook(was, r store.Runner) {
	if r.Took.Job == was.Took.Job {
		return
	}
	p.hold(TookTrue, was.Took.Job == "", "runner %s took job %s, and then %s", r.ID, was.Took.Job, r.Took.Job)
	if at, ok := p.Workflow(r.Took.Job); ok {
		p.hold(TookTrue, at.RunnerID == r.Config.RunnerID, "runner %s with registration %d took job %s, which is on %d", r.ID, r.Config.RunnerID, r.Took.Job, at.RunnerID)
	}
}

// sawWanted looks at a runner that is launched for a job.
func (p plainPromises) sawWanted(r store.Runner) {
	q := p.requests[r.For]
	if r.Version != 1 || !q.OfJob() {
		return
	}
	at, ok := p.Workflow(q.Job.ID)
	p.hold(WantedOnly, ok && at.Allowed && slices.Contains(at.Labels, "plain"), "runner %s is launched for job %s, known %v, allowed %v, with labels %v", r.ID, q.Job.ID, ok, at.Allowed, at.Labels)
	p.hold(WantedOnly, time.Since(at.QueuedUntil) <= believed+p.Reads(), "runner %s is launched for job %s, which is %s and was queued until %s", r.ID, q.Job.ID, at.Status, at.QueuedUntil)
}

// sawLeft notes since when nobody counts on a machine, and until when somebody did.
func (p plainPromises) sawLeft(was, r store.Request) {
	if !r.OfJob() || was.Runner == r.Runner && was.State == r.State {
		return
	}
	if was.State == store.Waiting {
		p.left[was.Runner] = time.Now()
	}
	if r.State == store.Waiting {
		delete(p.left, r.Runner)
	}
}

// spareFor is how long after nobody needs it an idle machine may be in the records: 90 s,
// two runs of the reaper, the end of its program, and EC2, which are five minutes; one more
// run that records its end; and what calls take.
const spareFor = 6*time.Minute + slack

// sawServed looks at what became of all workflow jobs of a world whose trouble ended at a
// time.
func (p plainPromises) sawServed(healed time.Time, ids []string) {
	for _, id := range ids {
		at, ok := p.Workflow(id)
		if !ok {
			continue
		}
		p.hold(NoStranger, at.Allowed || !at.Ran, "job %s of a run that may have no machine ran on runner %q", id, at.RunnerName)
		if !at.Allowed {
			continue
		}
		p.hold(ServedAll, at.Status == github.StatusCompleted, "job %s is %s when all is over", id, at.Status)
	}
	for id, since := range p.left {
		r := p.runners[id]
		if r.Took.Job != "" || !r.Job.StartedAt.IsZero() || r.Version == 0 || p.confirmations.lied[id] || p.confirmations.busy[id] {
			continue
		}
		if _, off := p.stopped[r.InstanceID]; off {
			continue
		}
		by := latest(since, r.OnlineAt, healed, p.locks[r.Lock].BootBy.Add(p.Limits.OnlineGrace)).Add(spareFor)
		if r.Boot.At.IsZero() {
			by = latest(since, healed, r.CalledAt.Add(p.Limits.GoneAge+p.Limits.GoneGap)).Add(spareFor)
		}
		p.hold(NoSpares, r.State.Final() && !r.EndedAt.After(by), "runner %s, %s, ended at %s, and nobody counted on it since %s", id, r.State, r.EndedAt, since)
	}
}

// spare reports whether nobody counts on a machine for workflow jobs, and it has to end:
// it never booted, or was online and idle for long.
func (h *History) spare(now time.Time, r store.Runner) bool {
	q := h.requests[r.For]
	if r.State == store.RunnerBusy || r.Took.Job != "" || jobRuns(r) || q.State == store.Waiting && q.Runner == r.ID || !h.kept(q.Ref()) {
		return false
	}
	return r.Boot.At.IsZero() || r.State == store.RunnerOnline && now.Sub(latest(r.OnlineAt, r.ListeningAt)) >= h.Limits.Grace
}
