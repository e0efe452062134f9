package sim

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strconv"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// tappedWorkflows is what worker and reaper learn of workflow jobs.
type tappedWorkflows struct{ w *World }

func (t tappedWorkflows) ask(ctx context.Context, repo github.Repository, what string, id int64, is func(*workflow, string) bool) ([]github.Job, error) {
	in := github.Scope{ID: repo.ID, Name: repo.Name, Account: repo.Account}
	return unanswered(atGitHub(ctx, t.w, in, &kernel.Effect{Op: kernel.Get, What: what, On: strconv.FormatInt(id, 10)}, func(context.Context) ([]github.Job, error) {
		jobs := t.w.shows(is)
		if len(jobs) == 0 || repo.ID != setting.RepositoryID {
			return nil, &github.Error{Kind: github.ErrNotFound, Op: what, Status: http.StatusNotFound}
		}
		return jobs, nil
	}))
}

func ofRun(run int64) func(*workflow, string) bool {
	return func(j *workflow, _ string) bool { return j.Run == strconv.FormatInt(run, 10) }
}

func (t tappedWorkflows) Run(ctx context.Context, repo github.Repository, id int64) (github.Run, error) {
	event := "push"
	_, err := t.ask(ctx, repo, "run", id, func(j *workflow, _ string) bool {
		if j.Run == strconv.FormatInt(id, 10) && j.Event != "" {
			event = j.Event
		}
		return ofRun(id)(j, "")
	})
	head, _ := strconv.ParseInt(setting.RepositoryID, 10, 64) // it is a number
	return github.Run{ID: id, Attempt: 1, Event: event, Actor: "somebody", HeadRepository: head, HeadBranch: "main"}, err
}

func (t tappedWorkflows) Runs(ctx context.Context, repo github.Repository, status string) iter.Seq2[github.Run, error] {
	return func(yield func(github.Run, error) bool) {
		jobs, err := t.ask(ctx, repo, "runs that are "+status, 0, func(*workflow, string) bool { return true })
		if errors.Is(err, github.ErrNotFound) {
			return // there are none
		}
		if err != nil {
			yield(github.Run{}, err)
			return
		}
		order := append(slices.Clone(leastAdvanced), github.StatusInProgress, github.StatusCompleted)
		runs := map[int64]string{}
		var ids []int64
		for _, j := range jobs {
			was, known := runs[j.RunID]
			if !known {
				ids = append(ids, j.RunID)
			}
			if !known || slices.Index(order, j.Status) < slices.Index(order, was) {
				runs[j.RunID] = j.Status
			}
		}
		for _, id := range slices.Backward(ids) {
			if runs[id] == status && !yield(github.Run{ID: id, Attempt: 1, Status: status}, nil) {
				return
			}
		}
	}
}

// leastAdvanced are the statuses of which a run has the first that any of its jobs has,
// before those of jobs that began.
var leastAdvanced = []string{github.StatusRequested, github.StatusPending, github.StatusWaiting, github.StatusQueued}

func (t tappedWorkflows) RunJobs(ctx context.Context, repo github.Repository, run int64) ([]github.Job, error) {
	return t.ask(ctx, repo, "jobs of a run", run, ofRun(run))
}

func (t tappedWorkflows) Job(ctx context.Context, repo github.Repository, id int64) (github.Job, error) {
	jobs, err := t.ask(ctx, repo, "job", id, func(_ *workflow, is string) bool { return is == strconv.FormatInt(id, 10) })
	if err != nil {
		return github.Job{}, err
	}
	return jobs[0], nil
}

func (t tappedWorkflows) Cancel(ctx context.Context, repo github.Repository, run int64) error {
	jobs, err := t.ask(ctx, repo, "cancel run", run, ofRun(run))
	for _, j := range jobs {
		t.w.CancelPlain(strconv.FormatInt(j.ID, 10))
	}
	return err
}
