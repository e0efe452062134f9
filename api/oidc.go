package api

import (
	"context"
	"net/url"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
)

// IDTokens authenticates workflows' jobs by the ID tokens that GitHub gives them.
type IDTokens struct{ *oidc.Verifier }

// Authenticate implements Authenticator.
func (t IDTokens) Authenticate(ctx context.Context, token string) (Caller, error) {
	cl, err := t.Verify(ctx, token)
	if err != nil {
		return Caller{}, err
	}
	return Caller{Kind: GitHub, Name: cl.Actor, Claims: Claims{
		Server: ServerOf(cl.Issuer), RepositoryID: cl.RepositoryID, Repository: cl.Repository, OwnerID: cl.OwnerID, Owner: cl.Owner,
		Visibility: cl.Visibility, RunID: cl.RunID, RunAttempt: cl.RunAttempt, CheckRunID: cl.CheckRunID,
		Actor: cl.Actor, ActorID: cl.ActorID, Event: cl.Event, Ref: cl.Ref,
		Workflow: cl.Workflow, WorkflowRef: cl.WorkflowRef, JobWorkflowRef: cl.JobWorkflowRef,
		Environment: cl.Environment, RunnerEnvironment: cl.RunnerEnvironment, Properties: cl.Properties,
	}}, nil
}

// ServerOf returns what names a GitHub server in records and registrations: the host
// of its issuer of ID tokens, and nothing for github.com, whichever enterprise the
// issuer is for, and for what is no URL.
func ServerOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "token.actions.githubusercontent.com" {
		return "" // the verifier believes configured issuers alone, and those parse
	}
	return u.Host
}
