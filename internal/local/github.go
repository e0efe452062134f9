package local

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"os"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// authenticator knows the operator and, if an issuer is configured, the jobs that
// it gives ID tokens to.
func (s *System) authenticator(ctx context.Context, url string) (api.Authenticator, error) {
	auth := api.ByPrefix{Operators: api.Operators{"local": keys.HashToken(s.Token.Reveal())}}
	if s.cfg.OIDCIssuer == "" {
		return auth, nil
	}
	v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: s.cfg.OIDCIssuer}}, Audience: cmp.Or(s.cfg.OIDCAudience, url), Log: s.cfg.Log})
	if err != nil {
		return nil, err
	}
	if err := v.Prefetch(ctx); err != nil {
		s.cfg.Log.Warn("the issuer's keys are not there yet", "issuer", s.cfg.OIDCIssuer, "error", err) // the next token tries again
	}
	auth.GitHub = api.IDTokens{Verifier: v}
	return auth, nil
}

// gitHub is all that worker and reaper ask of GitHub.
type gitHub interface {
	github.API
	github.Jobs
	doctor.GitHub
	HourLeft() (left float64, known bool)
}

// registrar is the GitHub that runners are registered at: the simulated one, or
// the one that the configuration names.
func (s *System) registrar(registered store.Accounts) (gitHub, error) {
	c, err := s.githubClient(registered)
	if s.cfg.GitHubURL == "" {
		return c, err
	}
	return presumed{c}, err
}

func (s *System) githubClient(registered store.Accounts) (*github.Client, error) {
	if s.cfg.GitHubURL == "" {
		return github.New(github.Config{
			BaseURL: "http://localhost", HTTP: memhttp.Client(s.GitHub.Handler()),
			Token: func(ctx context.Context, a github.Access) (secret.Text, error) {
				if a.Right == github.OrganizationRunners { // it has the organizations that registrations name, as it has every repository
					if account, err := registered.Account(ctx, a.Account); err == nil {
						s.GitHub.AddGroup(account.Scope.ID, account.Scope.Name, account.Scope.Group)
					}
				}
				return githubToken, nil
			},
		})
	}
	c, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: s.cfg.GitHubURL, Account: registered.Account,
		// One file stands for the parameter of every account.
		Parameter: func(_ context.Context, account, _ string, _ bool) (secret.Text, error) {
			b, err := os.ReadFile(s.cfg.GitHubTokenFile)
			if err != nil {
				return secret.Text{}, fmt.Errorf("credential of account %s: %w", account, err)
			}
			return secret.New(strings.TrimSpace(string(b))), nil
		},
	})
	if err != nil {
		return nil, err
	}
	return github.New(github.Config{BaseURL: s.cfg.GitHubURL, Token: c.Token, Renew: c.Renew, Share: 1}) // this process is all that registers
}

// presumed is a GitHub that simulated machines cannot talk to: each runner that it
// has counts as online, since it would never show one so.
type presumed struct{ *github.Client }

func (p presumed) Get(ctx context.Context, repo github.Scope, id int64) (github.Runner, error) {
	r, err := p.Client.Get(ctx, repo, id)
	r.Online = err == nil
	return r, err
}

func (p presumed) List(ctx context.Context, repo github.Scope, prefix string) iter.Seq2[github.Runner, error] {
	return func(yield func(github.Runner, error) bool) {
		for r, err := range p.Client.List(ctx, repo, prefix) {
			r.Online = err == nil
			if !yield(r, err) {
				return
			}
		}
	}
}

// pretender stands for a GitHub that simulated machines cannot talk to: their
// runner programs connect to nothing, and no job ever comes.
type pretender struct{}

func (pretender) Connect(context.Context, string) (simfleet.Session, error) { return pretended{}, nil }

type pretended struct{}

func (pretended) Wait(ctx context.Context) (simfleet.Job, error) {
	<-ctx.Done()
	return simfleet.Job{}, ctx.Err()
}

func (pretended) Watch(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (pretended) Done(context.Context, simfleet.Job) error { return nil }

func (pretended) Close() {}
