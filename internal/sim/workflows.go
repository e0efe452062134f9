package sim

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/promise"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// Plain is the label that gets a job a machine, in every world.
const Plain = "plain"

// PlainJob is a workflow job that names labels, and asks nobody.
type PlainJob struct {
	Run    string   // of digits; jobs of one run are its legs. Empty: a run of its own
	Labels []string // nil: Plain
	Length time.Duration
	// Event began the run; empty: push, which may have machines.
	Event string
	// Environment: it waits for approval before it is queued. Back: it is queued, and
	// GitHub gives it to nobody. Both end with Approve.
	Environment, Back bool
}

// workflows is what GitHub tells of workflow jobs. simgithub decides which runner gets
// which; what else happens to a job is here: its environment, runners of others, and
// whether webhooks come. It is safe for concurrent use.
type workflows struct {
	w *World

	mu   sync.Mutex
	jobs map[string]*workflow // by id
	ids  []string             // in order
}

// others is the registration of every runner that is not ours.
const others = 999_999

// workflow is a job, and what was said of it.
type workflow struct {
	PlainJob
	waits     bool
	elsewhere time.Time // when a runner of others took it
	taker     string    // what that is called
	told      string    // the last status that a webhook was about
	ran       bool      // it ran on a machine of ours, from its first step to its last
	past      []moment
}

// moment is how a job was from a time on.
type moment struct {
	from time.Time
	github.Job
}

func newWorkflows(w *World) *workflows { return &workflows{w: w, jobs: map[string]*workflow{}} }

// Plain queues a workflow job at GitHub, which tells of it.
func (f *workflows) Plain(j PlainJob) string {
	if j.Labels == nil {
		j.Labels = []string{Plain}
	}
	f.mu.Lock()
	if j.Run == "" {
		j.Run = strconv.Itoa(5000 + len(f.ids))
	}
	id, err := f.w.GitHub.Queue(setting.RepositoryID, simgithub.Job{RunID: j.Run, Labels: j.Labels, Duration: j.Length, Back: j.Back || j.Environment})
	if err == nil {
		f.jobs[id], f.ids = &workflow{PlainJob: j, waits: j.Environment}, append(f.ids, id)
	}
	f.mu.Unlock()
	f.w.must(err)
	f.look()
	return id
}

// Approve lets a job that waits, or is held back, be given to a runner.
func (f *workflows) Approve(id string) bool {
	f.mu.Lock()
	f.jobs[id].waits = false
	f.mu.Unlock()
	err := f.w.GitHub.Release(id)
	f.look()
	return err == nil
}

// CancelPlain cancels a job that has not begun.
func (f *workflows) CancelPlain(id string) bool {
	err := f.w.GitHub.CancelJob(id)
	f.look()
	return err == nil
}

// TakeElsewhere gives a job that has not begun to a runner of others, which may be called
// as one of ours.
func (f *workflows) TakeElsewhere(id, name string) bool {
	f.mu.Lock()
	ok := f.w.GitHub.CancelJob(id) == nil
	if ok {
		f.jobs[id].elsewhere, f.jobs[id].taker = time.Now(), name
	}
	f.mu.Unlock()
	f.look()
	return ok
}

// PlainJobs returns the ids of all workflow jobs, in the order in which they were queued.
func (f *workflows) PlainJobs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ids)
}

// often is how often GitHub is looked at for what it tells: it has told within a second.
const often = 200*time.Millisecond + 3571

// tells has GitHub tell of what happens to workflow jobs, until the context ends.
func (f *workflows) tells(ctx context.Context) {
	t := time.NewTicker(often)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		f.look()
	}
}

// look notes how jobs are now, and delivers what changed.
func (f *workflows) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ids) == 0 {
		return
	}
	now := time.Now()
	for _, t := range f.w.GitHub.Jobs() {
		j := f.jobs[t.ID]
		if j == nil {
			continue // of an own label
		}
		j.ran = t.State == simgithub.Done && !t.Refused
		is := j.as(now, t)
		if n := len(j.past); n > 0 && j.past[n-1].Status == is.Status && j.past[n-1].RunnerID == is.RunnerID {
			continue
		}
		j.past = append(j.past, moment{now, is})
		if is.Status != j.told {
			j.told = is.Status
			f.deliver(is)
		}
	}
}

// as is how GitHub shows a job.
func (j *workflow) as(now time.Time, t simgithub.Job) github.Job {
	id, _ := strconv.ParseInt(t.ID, 10, 64) // it is a number
	run, _ := strconv.ParseInt(j.Run, 10, 64)
	out := github.Job{ID: id, RunID: run, Attempt: 1, Name: "job " + t.ID, Labels: j.Labels, Status: github.StatusQueued, Workflow: "ci", HeadBranch: "main", CreatedAt: t.QueuedAt, StartedAt: t.StartedAt}
	switch {
	case !j.elsewhere.IsZero():
		out.Status, out.RunnerID, out.RunnerName, out.StartedAt = github.StatusInProgress, others, j.taker, j.elsewhere
		if now.Sub(j.elsewhere) >= j.Length {
			out.Status, out.Conclusion, out.CompletedAt = github.StatusCompleted, "success", j.elsewhere.Add(j.Length)
		}
	case t.State == simgithub.Cancelled:
		out.Status, out.Conclusion, out.CompletedAt = github.StatusCompleted, "cancelled", t.EndedAt
	case t.State == simgithub.Running:
		out.Status, out.RunnerID, out.RunnerName = github.StatusInProgress, t.RunnerID, t.RunnerName
	case t.State == simgithub.Done || t.State == simgithub.Lost:
		out.Status, out.Conclusion, out.RunnerID, out.RunnerName, out.CompletedAt = github.StatusCompleted, "success", t.RunnerID, t.RunnerName, t.EndedAt
		if t.State == simgithub.Lost || t.Refused {
			out.Conclusion = "failure"
		}
	case j.waits:
		out.Status = github.StatusWaiting
	}
	return out
}

// at tells the promises how a job was at GitHub.
func (f *workflows) at(id string) (promise.Workflow, bool) {
	f.look()
	f.mu.Lock()
	defer f.mu.Unlock()
	j, ok := f.jobs[id]
	if !ok || len(j.past) == 0 {
		return promise.Workflow{}, false
	}
	out := promise.Workflow{Job: j.past[len(j.past)-1].Job, Labels: j.Labels, Allowed: j.Event == "" || j.Event == "push", Held: j.Back && !j.waits, Ran: j.ran}
	for i, m := range j.past {
		to := time.Now()
		if i+1 < len(j.past) {
			to = j.past[i+1].from
		}
		if m.Status == github.StatusQueued {
			out.QueuedUntil = to
		}
	}
	return out, true
}

// lag is how old the answers of GitHub are now.
func (f *workflows) lag() time.Duration {
	if f.w.cfg.ReadLag == nil {
		return 0
	}
	return f.w.cfg.ReadLag()
}

// shows returns how GitHub shows the jobs that are so, with the lag of reads.
func (f *workflows) shows(is func(*workflow, string) bool) (out []github.Job) {
	f.look()
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Now().Add(-f.lag())
	for _, id := range f.ids {
		j := f.jobs[id]
		if !is(j, id) {
			continue
		}
		shown := j.past[0].Job
		for _, m := range j.past {
			if !m.from.After(at) {
				shown = m.Job
			}
		}
		out = append(out, shown)
	}
	return out
}

// Left is as the promises have it, and the workflow jobs that are not over.
func (w *World) Left() []string {
	left := w.Oracle.Left()
	for _, id := range w.PlainJobs() {
		if at, ok := w.workflows.at(id); ok && at.Allowed && at.Status != github.StatusCompleted {
			left = append(left, fmt.Sprintf("job %s, %s", id, at.Status))
		}
	}
	return left
}
