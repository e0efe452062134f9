package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// admit answers the machine that asks whether it may run the job which it was given: by
// the policy that a request for that job would meet. If GitHub does not tell, there is no
// answer, and the machine refuses the job on its own. unread is why there is no registration.
func (v *launching) admit(ctx context.Context, account store.Account, unread error) error {
	q := v.Runner.Admission
	no, err := v.whyNot(ctx, account, unread)
	if err != nil {
		v.Log.Warn("nobody can say whether a job may run", "runner", v.Runner.ID, "run", q.RunID, "repository", q.Repository.Name, "trace", v.Runner.Trace, "error", err)
		return nil // it is asked again, or refused: a message that comes again would be too late
	}
	d, err := v.apply(ctx, func(now time.Time) store.Decision { return store.Answer(v.Case, now, no) })
	if err != nil {
		return err
	}
	if len(d.Changes) == 0 {
		return nil // somebody was faster
	}
	if no == "" {
		v.Log.Info("job let in", "runner", v.Runner.ID, "run", q.RunID, "repository", q.Repository.Name, "trace", v.Runner.Trace)
		return nil
	}
	v.alarm(store.AlarmJobForbidden, "a job that may have no machine was given one, and is refused there", "runner", v.Runner.ID, "run", q.RunID,
		"repository", q.Repository.Name, "account", v.Runner.Account, "trace", v.Runner.Trace, "text", no)
	return nil
}

// whyNot returns why the job that the machine asks about may not run there; empty: it may.
func (v *launching) whyNot(ctx context.Context, account store.Account, unread error) (string, error) {
	q := v.Runner.Admission
	repo := q.Repository
	repo.Server = account.Server
	repo.Owner, _, _ = strings.Cut(repo.Name, "/")
	run, malformed := strconv.ParseInt(q.RunID, 10, 64)
	switch {
	case errors.Is(unread, store.ErrNoAccount):
		return "The account is not registered any more.", nil
	case unread != nil:
		return "", unread
	case malformed != nil:
		return "GitHub has no run of that number.", nil
	case !serves(v.Runner, repo):
		return "The machine is registered elsewhere than the job.", nil
	}
	m := account.Match(repo, v.Runner.Labels)
	if m.Offer == nil {
		return "The account's registration offers machines like this one to other repositories (runs_on).", nil
	}
	if v.Workflows == nil {
		return "", errors.New("no one tells of workflow runs here")
	}
	known, err := v.Workflows.Run(ctx, github.Repository{ID: repo.ID, Name: repo.Name, Account: account.ID}, run)
	if errors.Is(err, github.ErrNotFound) {
		return "GitHub shows no such run in that repository.", nil
	}
	if err != nil {
		return "", fmt.Errorf("run %d of repository %s: %w", run, repo.Name, err)
	}
	r := store.Request{
		Account: account.ID, Repository: repo, Region: v.Runner.Region, Type: v.Runner.Placement().Market, Mode: store.Ephemeral,
		Machine: m.Offer.Machine, TimeoutS: 1, // the machine is there, and its life is bounded
	}
	if no := intake.RunAllowed(v.Limits, account, *m.Offer, r, workflowRun(known)); no != nil {
		return no.Text, nil
	}
	return "", nil
}
