package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/flight"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// runFor is for how long what GitHub said of the jobs of a run is good enough to
	// launch by: 256 jobs that are launched within two minutes take ten calls. A job that
	// was cancelled meanwhile costs a machine, unless its webhook was faster.
	runFor = time.Minute
	// newsFor is the same for who has reason to ask: a burst of messages about one run
	// takes one answer.
	newsFor = 10 * time.Second
)

// runID names a workflow run for the credential that reads it.
type runID struct {
	account, repository string
	run                 int64
}

// runs remembers, for this process alone, what GitHub last said of workflow runs and of
// the jobs of their latest attempts.
type runs = flight.Cache[runID, knownRun]

type knownRun struct {
	at   time.Time // when GitHub was asked
	run  github.Run
	jobs []github.Job
}

// job returns a job of the run.
func (k knownRun) job(id int64) (github.Job, bool) {
	i := slices.IndexFunc(k.jobs, func(j github.Job) bool { return j.ID == id })
	if i < 0 {
		return github.Job{}, false
	}
	return k.jobs[i], true
}

// read asks GitHub about a workflow job, by its run, or takes an answer that is younger
// than within. first is true for who asked, and not for those who take an answer. A job
// of an earlier attempt is not among those of its run, and asked about on its own.
func (in *invocation) read(ctx context.Context, account string, repo store.Repository, job store.WorkflowJob, within time.Duration) (s store.Sighting, run knownRun, first bool, err error) {
	number, err := strconv.ParseInt(job.ID, 10, 64)
	if err != nil {
		return s, run, false, fmt.Errorf("job %q: GitHub's numbers fit into 64 bits: %w", job.ID, err)
	}
	runNumber, err := strconv.ParseInt(job.RunID, 10, 64)
	if err != nil {
		return s, run, false, fmt.Errorf("run %q: GitHub's numbers fit into 64 bits: %w", job.RunID, err)
	}
	if in.Workflows == nil {
		return s, run, false, errors.New("nobody tells of workflow jobs")
	}
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	at := github.Repository{ID: repo.ID, Name: repo.Name, Account: account}
	id := runID{account, repo.Key(), runNumber}
	fetch := func(ctx context.Context, last knownRun) (knownRun, time.Time, error) {
		first = true
		k, err := in.readRun(ctx, at, runNumber, last)
		return k, in.Now().Add(runFor), err
	}
	known, ok := in.runs.Peek(id)
	run, err = in.runs.Get(ctx, id, ok && in.Now().Sub(known.at) >= within, fetch)
	if err != nil {
		return s, run, first, err
	}
	j, ok := run.job(number)
	if !ok {
		if j, err = in.Workflows.Job(ctx, at, number); err != nil {
			return s, run, first, err
		}
	}
	return sightingOf(j), run, first, nil
}

// readRun asks GitHub about a run and its jobs. The run itself, whose event and code do
// not change, is asked for once, unless its jobs are of another attempt by now.
func (in *invocation) readRun(ctx context.Context, repo github.Repository, run int64, last knownRun) (knownRun, error) {
	k := knownRun{at: in.Now(), run: last.run}
	jobs := make(chan error, 1)
	go func() {
		var panicked error
		in.guard(&panicked, func() (err error) { k.jobs, err = in.Workflows.RunJobs(ctx, repo, run); return err })
		jobs <- panicked
	}()
	var err error
	if last.run.ID == 0 {
		k.run, err = in.Workflows.Run(ctx, repo, run)
	}
	err = errors.Join(<-jobs, err)
	if err == nil && slices.ContainsFunc(k.jobs, func(j github.Job) bool { return j.Attempt != k.run.Attempt }) {
		k.run, err = in.Workflows.Run(ctx, repo, run)
	}
	return k, err
}

// sightingOf is what a read says of a job.
func sightingOf(j github.Job) store.Sighting {
	return store.Sighting{
		Read: true, Status: store.JobStatus(j.Status), Runner: j.RunnerName, Registration: j.RunnerID,
		Job: store.WorkflowJob{
			ID: strconv.FormatInt(j.ID, 10), RunID: strconv.FormatInt(j.RunID, 10), Attempt: j.Attempt, Name: j.Name, Labels: j.Labels,
			Workflow: j.Workflow, HeadBranch: j.HeadBranch, URL: j.URL,
			CreatedAt: j.CreatedAt, StartedAt: j.StartedAt, CompletedAt: j.CompletedAt, Conclusion: j.Conclusion,
		},
	}
}

// workflowRun is what a policy asks of a run.
func workflowRun(r github.Run) store.WorkflowRun {
	run := store.WorkflowRun{
		ID: strconv.FormatInt(r.ID, 10), Attempt: r.Attempt, Event: r.Event, Actor: r.Actor, Workflow: r.Path, HeadBranch: r.HeadBranch, Public: r.Public,
	}
	if r.HeadRepository != 0 {
		run.HeadRepository = strconv.FormatInt(r.HeadRepository, 10)
	}
	return run
}
