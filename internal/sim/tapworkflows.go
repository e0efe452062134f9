package sim

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
)

// tappedWorkflows is what worker and reaper ask GitHub about workflow jobs.
type tappedWorkflows struct{ w *World }

// about makes one call about a repository.
func about[T any](ctx context.Context, w *World, repo github.Repository, e *kernel.Effect, call func(context.Context) (T, error)) (T, error) {
	return unanswered(atGitHub(ctx, w, github.Scope{ID: repo.ID, Name: repo.Name, Account: repo.Account}, e, call))
}

func (t tappedWorkflows) Run(ctx context.Context, repo github.Repository, id int64) (github.Run, error) {
	e := &kernel.Effect{Op: kernel.Get, What: "run", On: strconv.FormatInt(id, 10)}
	return about(ctx, t.w, repo, e, func(ctx context.Context) (github.Run, error) { return t.w.github.Run(ctx, repo, id) })
}

func (t tappedWorkflows) Runs(ctx context.Context, repo github.Repository, status string) iter.Seq2[github.Run, error] {
	e := &kernel.Effect{To: kernel.ToGitHub, Op: kernel.Get, What: "runs that are " + status, On: "0"}
	list := tappedSeq(ctx, t.w, e, func(ctx context.Context) iter.Seq2[github.Run, error] {
		if err := t.w.credential(ctx, repo.Account); err != nil {
			return failing[github.Run](err)
		}
		return t.w.github.Runs(ctx, repo, status)
	})
	return func(yield func(github.Run, error) bool) {
		began := time.Now()
		for r, err := range list {
			r, err = unanswered(r, err)
			if err != nil && !errors.Is(err, github.ErrUnknown) && !errors.Is(err, github.ErrLimited) {
				t.w.Listed(repo.ID, began) // GitHub refuses to
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		t.w.Listed(repo.ID, began)
	}
}

func (t tappedWorkflows) RunJobs(ctx context.Context, repo github.Repository, run int64) ([]github.Job, error) {
	e := &kernel.Effect{Op: kernel.Get, What: "jobs of a run", On: strconv.FormatInt(run, 10)}
	return about(ctx, t.w, repo, e, func(ctx context.Context) ([]github.Job, error) { return t.w.github.RunJobs(ctx, repo, run) })
}

func (t tappedWorkflows) Job(ctx context.Context, repo github.Repository, id int64) (github.Job, error) {
	e := &kernel.Effect{Op: kernel.Get, What: "job", On: strconv.FormatInt(id, 10)}
	return about(ctx, t.w, repo, e, func(ctx context.Context) (github.Job, error) { return t.w.github.Job(ctx, repo, id) })
}

func (t tappedWorkflows) Cancel(ctx context.Context, repo github.Repository, run int64) error {
	e := &kernel.Effect{Op: kernel.Delete, What: "run", On: strconv.FormatInt(run, 10)}
	_, err := about(ctx, t.w, repo, e, func(ctx context.Context) (none, error) { return none{}, t.w.github.Cancel(ctx, repo, run) })
	return err
}

// deliveries is a page of the App's log.
type deliveries struct {
	page []github.Delivery
	next string
}

func (t tappedWorkflows) Deliveries(ctx context.Context, account, cursor string) ([]github.Delivery, string, error) {
	e := &kernel.Effect{Op: kernel.Get, What: "deliveries"}
	d, err := about(ctx, t.w, github.Repository{Account: account}, e, func(ctx context.Context) (d deliveries, err error) {
		d.page, d.next, err = t.w.github.Deliveries(ctx, account, cursor)
		return d, err
	})
	return d.page, d.next, err
}
