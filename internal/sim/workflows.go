package sim

import (
	"context"
	"errors"
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

// workflows is what GitHub tells of workflow jobs on its own: simgithub has them, and decides
// which runner gets which; whether webhooks come is said here. It is safe for concurrent use.
type workflows struct {
	w *World

	mu   sync.Mutex
	jobs map[string]*workflow // by id
	ids  []string             // in order
}

// workflow is a job, and what was said of it.
type workflow struct {
	PlainJob
	told string // the last status that a webhook was about
	ran  bool   // it ran on a machine of ours, from its first step to its last
	held bool   // it is queued, and given to nobody
	past []moment
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
	held := ""
	if j.Environment {
		held = github.StatusWaiting
	}
	f.w.GitHub.SetWorkflow(j.Run, simgithub.Workflow{Event: j.Event, Actor: "somebody"})
	id, err := f.w.GitHub.Queue(setting.RepositoryID, simgithub.Job{RunID: j.Run, Labels: j.Labels, Duration: j.Length, Back: j.Back || j.Environment, Held: held})
	if err == nil {
		f.jobs[id], f.ids = &workflow{PlainJob: j}, append(f.ids, id)
	}
	f.mu.Unlock()
	f.w.must(err)
	f.happens(nil)
	return id
}

// Approve lets jobs that wait, or are held back, be given to runners, all at once. It reports
// whether all were waiting or held.
func (f *workflows) Approve(ids ...string) bool {
	var all error
	for _, id := range ids {
		all = errors.Join(all, f.w.GitHub.Release(id))
	}
	return f.happens(all)
}

// CancelPlain cancels a job that has not begun.
func (f *workflows) CancelPlain(id string) bool { return f.happens(f.w.GitHub.CancelJob(id)) }

// TakeElsewhere gives a job that has not begun to a runner of others, which may be called
// as one of ours.
func (f *workflows) TakeElsewhere(id, name string) bool {
	return f.happens(f.w.GitHub.TakeElsewhere(id, name))
}

// happens has GitHub tell of what happened, unless it did not. A runner that is given a job
// begins it in this instant: GitHub tells of both, or it would depend on who is faster.
func (f *workflows) happens(err error) bool {
	time.Sleep(time.Nanosecond)
	f.look()
	return err == nil
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
		j.ran = t.State == simgithub.Done && !t.Refused && !t.Elsewhere
		j.held = t.Back && t.Held == ""
		is := shown(t)
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

// shown is a job as GitHub tells of it.
func shown(t simgithub.Job) github.Job {
	id, _ := strconv.ParseInt(t.ID, 10, 64) // they are numbers
	run, _ := strconv.ParseInt(t.RunID, 10, 64)
	out := github.Job{ID: id, RunID: run, Attempt: 1, Name: "job " + t.ID, Labels: t.Labels, Workflow: "ci", HeadBranch: "main", CreatedAt: t.QueuedAt, StartedAt: t.StartedAt, CompletedAt: t.EndedAt}
	out.Status, out.Conclusion = t.Status()
	if !t.StartedAt.IsZero() {
		out.RunnerID, out.RunnerName = t.RunnerID, t.RunnerName
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
	out := promise.Workflow{Job: j.past[len(j.past)-1].Job, Labels: j.Labels, Allowed: j.Event == "" || j.Event == "push", Held: j.held, Ran: j.ran}
	if j.past[0].Status == github.StatusInProgress { // it was queued for an instant, which answers that lag show
		out.QueuedUntil = j.past[0].from
	}
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
func (w *World) lag() time.Duration {
	if w.cfg.ReadLag == nil {
		return 0
	}
	return w.cfg.ReadLag()
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
