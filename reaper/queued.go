package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// listedAtOnce is in how many repositories of an account a sweep looks for queued jobs.
	// Each takes five calls of the 5,000 or more that a credential has an hour
	// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api):
	// 1,200 an hour, and the others wait their turn.
	listedAtOnce = 20
	// runsAtOnce is of how many runs a sweep reads the jobs: 720 calls an hour.
	runsAtOnce = 60
	// knownBy is how many of the newest requests tell which repositories there are.
	knownBy = 500
)

// unfinished are the statuses of runs that may have a queued job: a run has that of its
// least advanced job, and others of its jobs may be queued beside that.
var unfinished = []string{github.StatusQueued, github.StatusInProgress, github.StatusWaiting, github.StatusPending, github.StatusRequested}

// queued looks for workflow jobs that are queued and of which no webhook told: in some of
// the account's repositories, in turn. A worker looks at each, and makes its request.
func (gh atGitHub) queued(ctx context.Context, id string) {
	if gh.cfg.Workflows == nil || gh.cfg.DryRun {
		return
	}
	account, err := gh.cfg.Accounts.Account(ctx, id)
	if err != nil || account.Closed || len(account.RunsOn) == 0 {
		return // who could not be read was reported
	}
	ring, err := gh.cfg.Keys(ctx)
	if err != nil {
		gh.fail("account", id, fmt.Errorf("read the keys: %w", err))
		return
	}
	repos := gh.repositories(ctx, account)
	var jobs []store.Send
	for _, r := range gh.runs(ctx, account, gh.turn(repos)) {
		for _, j := range r.jobs {
			if j.Status != github.StatusQueued || account.Match(r.repo, j.Labels).Offer == nil {
				continue
			}
			number := strconv.FormatInt(j.ID, 10)
			jobs = append(jobs, store.Send{Due: gh.cfg.Now(), Item: &store.Request{ // as its own would be
				ID: ring.JobRequestID(r.repo.Key(), number), Account: id, Repository: r.repo,
				Job: store.WorkflowJob{ID: number, RunID: strconv.FormatInt(j.RunID, 10)},
			}})
		}
	}
	var refs []store.Ref
	for _, s := range jobs {
		refs = append(refs, s.Item.Ref())
	}
	known, _ := read[*store.Request](ctx, gh.pass, "request", refs...)
	for i, q := range known {
		if q != nil && (q.Version == 0 || q.State.Final()) {
			gh.sends = append(gh.sends, jobs[i])
			gh.note(jobs[i].Item, Resend, "its job is queued, and nobody counts on a machine for it")
		}
	}
}

// repositories returns those of the account that are named or have had a request lately,
// by their id.
func (gh atGitHub) repositories(ctx context.Context, account store.Account) []store.Repository {
	var repos []store.Repository
	for _, n := range account.Repositories {
		r := store.Repository{Server: account.Server, ID: n.ID, Name: n.Name}
		if account.Scope.Kind == store.OrganizationScope {
			r.OwnerID = account.Scope.ID // else the account does not serve it
		}
		repos = append(repos, r)
	}
	for it, err := range gh.store.List(ctx, store.Filter{Kind: store.KindRequest, Limit: knownBy, Look: knownBy}) {
		if _, more := errors.AsType[*store.MoreError](err); err != nil && !more {
			gh.fail("index", "", fmt.Errorf("list the newest requests: %w", err))
		}
		if err != nil {
			break
		}
		r := it.(*store.Request)
		if r.Account == account.ID && account.Serves(r.Repository) {
			repos = append([]store.Repository{r.Repository}, repos...) // with its owner
		}
	}
	slices.SortStableFunc(repos, func(a, b store.Repository) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(repos, func(a, b store.Repository) bool { return a.ID == b.ID })
}

// turn returns those repositories whose turn it is in this sweep.
func (gh atGitHub) turn(repos []store.Repository) []store.Repository {
	if len(repos) <= listedAtOnce {
		return repos
	}
	n := int(gh.cfg.Now().UnixNano() / int64(gh.cfg.Limits.SweepPeriod) * listedAtOnce % int64(len(repos)))
	return append(slices.Clone(repos[n:]), repos[:n]...)[:listedAtOnce]
}

// unfinishedRun is a run that is not over.
type unfinishedRun struct {
	repo store.Repository
	id   int64
	jobs []github.Job
}

// runs returns the runs of the repositories that are not over, the newest first in each,
// and their jobs. What GitHub does not tell now is left to a later sweep.
func (gh atGitHub) runs(ctx context.Context, account store.Account, repos []store.Repository) []*unfinishedRun {
	found := make([][]*unfinishedRun, len(repos))
	one := accounts(gitHubAtOnce, func(int) string { return account.ID })
	gh.each(ctx, len(repos), one, func(q *pass, i int) {
		seen := map[int64]bool{}
		for _, status := range unfinished {
			err := atGitHub{q}.askWorkflows(ctx, account.ID, repos[i], func(ctx context.Context, at github.Repository) error {
				for r, err := range q.cfg.Workflows.Runs(ctx, at, status) {
					if err != nil {
						return err
					}
					if !seen[r.ID] {
						seen[r.ID] = true
						found[i] = append(found[i], &unfinishedRun{repo: repos[i], id: r.ID})
					}
				}
				return nil
			})
			if err != nil {
				return
			}
		}
	})
	all := slices.Concat(found...)
	all = all[:min(len(all), runsAtOnce)]
	gh.each(ctx, len(all), one, func(q *pass, i int) {
		r := all[i]
		_ = atGitHub{q}.askWorkflows(ctx, account.ID, r.repo, func(ctx context.Context, at github.Repository) (err error) {
			r.jobs, err = q.cfg.Workflows.RunJobs(ctx, at, r.id)
			return err
		})
	})
	return all
}

// askWorkflows makes one call about the workflow runs of a repository, and tells of its
// failure.
func (gh atGitHub) askWorkflows(ctx context.Context, account string, repo store.Repository, call func(context.Context, github.Repository) error) error {
	scope := github.Scope{ID: repo.ID, Name: repo.Name, Account: account}
	err := gh.askGitHub(ctx, scope, listLimit, func(ctx context.Context) error {
		return call(ctx, github.Repository{ID: repo.ID, Name: repo.Name, Account: account})
	})
	switch {
	case err == nil, errors.Is(err, github.ErrNotFound):
	case errors.Is(err, errLater):
		gh.line(Line{Kind: scope.Kind(), ID: repo.Name, Action: Skip, Reason: err.Error()})
	case !gh.isRefused(account, scope.Kind(), repo.Name, err):
		gh.fail(scope.Kind(), repo.Name, fmt.Errorf("look for queued jobs in %s: %w", repo.Name, err))
	}
	return err
}
