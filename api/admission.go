package api

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// maxAttempt bounds the attempt of a run: GitHub runs one again for 30 days, and nobody
// does so a million times
// (https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs).
const maxAttempt = 1_000_000

func checkAdmission(b apitype.Admission) error {
	for _, f := range []struct {
		name, value string
		fits        form.Form
	}{{"repository_id", b.RepositoryID, form.GitHubID}, {"owner_id", b.OwnerID, form.GitHubID}, {"run_id", b.RunID, form.GitHubID}} {
		if !f.fits.Fits(f.value) {
			return invalid(f.name, "Want GitHub's number.")
		}
	}
	switch {
	case !repoForm.Fits(b.Repository):
		return invalid("repository", "Want owner/name.")
	case b.Attempt < 1 || b.Attempt > maxAttempt:
		return invalid("attempt", "Want a number from 1 on.")
	}
	return nil
}

// admission answers a machine that was given a job whether it may run it, or later: a
// worker asks GitHub about the job's run if no policy was asked about that yet.
func (s *server) admission(ctx context.Context, c *call, b apitype.Admission) (apitype.Admitted, error) {
	if err := c.holder(); err != nil {
		return apitype.Admitted{}, err
	}
	if err := checkAdmission(b); err != nil {
		return apitype.Admitted{}, err
	}
	return decide(func() (apitype.Admitted, error) {
		cs, err := c.session(ctx)
		if err != nil {
			return apitype.Admitted{}, err
		}
		if cs.Runner.State.Final() {
			return apitype.Admitted{}, gone()
		}
		asked := store.Admission{RunID: b.RunID, Attempt: b.Attempt, Repository: store.Repository{
			Server: cs.Runner.Repository.Server, ID: b.RepositoryID, Name: b.Repository, OwnerID: b.OwnerID,
		}}
		d, answer := store.Admit(cs, s.Now(), asked)
		if err := c.apply(ctx, d); err != nil {
			return apitype.Admitted{}, err
		}
		c.about("run", b.RunID)
		c.about("repository", b.RepositoryID)
		if !answer.Answered {
			return apitype.Admitted{}, &problem{code: apitype.CodeTooEarly, detail: "Send the same call again after Retry-After.", after: 1}
		}
		if !answer.Allowed {
			c.deny("the job may not run: " + answer.Reason)
		}
		return apitype.Admitted{Allowed: answer.Allowed, Reason: answer.Reason}, nil
	})
}
