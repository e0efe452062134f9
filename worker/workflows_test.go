package worker_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// workflows are GitHub's workflow runs and their jobs.
type workflows struct {
	lock      sync.Mutex
	runs      map[int64]github.Run
	jobs      []github.Job
	reads     []string // the calls, such as "run 1001"
	cancelled []int64
	silent    error // what each call is answered with; nil: the truth
}

func (f *workflows) note(what string, id int64) error {
	f.reads = append(f.reads, fmt.Sprint(what, " ", id))
	return f.silent
}

func (f *workflows) Run(_ context.Context, _ github.Repository, id int64) (github.Run, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if err := f.note("run", id); err != nil {
		return github.Run{}, err
	}
	r, ok := f.runs[id]
	if !ok {
		return r, &github.Error{Kind: github.ErrNotFound, Op: "run", Status: 404}
	}
	return r, nil
}

func (f *workflows) RunJobs(_ context.Context, _ github.Repository, run int64) ([]github.Job, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	out := slices.DeleteFunc(slices.Clone(f.jobs), func(j github.Job) bool { return j.RunID != run || j.Attempt != f.runs[run].Attempt })
	for range max(1, (len(out)+99)/100) { // one call a page
		if err := f.note("jobs of run", run); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *workflows) Job(_ context.Context, _ github.Repository, id int64) (github.Job, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if err := f.note("job", id); err != nil {
		return github.Job{}, err
	}
	if i := slices.IndexFunc(f.jobs, func(j github.Job) bool { return j.ID == id }); i >= 0 {
		return f.jobs[i], nil
	}
	return github.Job{}, &github.Error{Kind: github.ErrNotFound, Op: "job", Status: 404}
}

func (f *workflows) Cancel(_ context.Context, _ github.Repository, run int64) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.cancelled = append(f.cancelled, run)
	return f.silent
}

// at changes a job, as time does at GitHub.
func (f *workflows) at(id int64, change func(*github.Job)) {
	f.lock.Lock()
	defer f.lock.Unlock()
	change(&f.jobs[slices.IndexFunc(f.jobs, func(j github.Job) bool { return j.ID == id })])
}

const run = 1001

// offers has the account offer machines to jobs that name garo, in one run of a push.
func (w *world) offers(edit ...func(*store.Account)) {
	w.Helper()
	a := w.accounts[account]
	a.RunsOn = []store.Offer{{Labels: []string{"garo"}}}
	for _, f := range edit {
		f(&a)
	}
	w.accounts[account] = a
	w.github.runs = map[int64]github.Run{run: {ID: run, Attempt: 1, Event: "push", HeadRepository: 7}}
}

// queues has GitHub queue a job, and records its request, as its webhook does.
func (w *world) queues(id int64) store.Request {
	w.Helper()
	w.unheard(id)
	repo := store.Repository{ID: "7", Name: "acme/shop", OwnerID: "1", Owner: "acme"}
	a := w.accounts[account]
	job := store.WorkflowJob{ID: strconv.FormatInt(id, 10), RunID: strconv.Itoa(run), Attempt: 1, Labels: []string{"garo"}}
	in := intake.Intake{Accounts: w.accounts, Keys: w.keys, Limits: w.limits}
	wish := intake.OfJob(a.Match(repo, job.Labels), job, "trace-"+job.ID)
	r, err := in.Complete(a, repo, wish)
	if err != nil {
		w.Fatal(err)
	}
	d := in.Accept(time.Now(), r, wish)
	w.apply(d)
	return d.Request
}

// unheard has GitHub queue a job whose webhook is lost.
func (w *world) unheard(id int64) {
	w.github.jobs = append(w.github.jobs, github.Job{ID: id, RunID: run, Attempt: 1, Status: github.StatusQueued, Labels: []string{"garo"}})
}

// begins has GitHub give a job to the runner of a request, and returns the message of the
// webhook that tells of it.
func (w *world) begins(id int64, r store.Runner, status string) queue.Message {
	w.Helper()
	name := store.GitHubNameFor("test", r.ID, r.Config.N)
	w.github.at(id, func(j *github.Job) {
		j.Status, j.RunnerName, j.RunnerID = status, name, r.Config.RunnerID
	})
	s := store.Sighting{Job: store.WorkflowJob{ID: strconv.FormatInt(id, 10), RunID: strconv.Itoa(run)}, Status: store.JobStatus(status), Runner: name, Registration: r.Config.RunnerID}
	return w.message(s)
}

func (w *world) message(s store.Sighting) queue.Message {
	repo := store.Repository{ID: "7", Name: "acme/shop", OwnerID: "1"}
	return queue.JobOf(w.keys.JobRequestID("7", s.Job.ID), account, repo, s, "trace-"+s.Job.ID)
}

// look is the message that has a worker ask GitHub about a job.
func (w *world) look(id int64) queue.Message {
	return w.message(store.Sighting{Job: store.WorkflowJob{ID: strconv.FormatInt(id, 10), RunID: strconv.Itoa(run)}})
}
