// Command garo-api is the Lambda function behind the API's URL. It has neither EC2
// nor a role of any account: it records, enqueues and answers.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/apigateway"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func main() { startup.Main("garo-api", start) }

// start returns the function. What it fetches in advance it can do without: it
// answers 503 for as long as there are no keys, and says in the log what is wrong
// with them.
func start(ctx context.Context, p startup.Process) (any, error) {
	cfg, err := settings.ReadAPI(p.Environ)
	if err != nil {
		return nil, err
	}
	b, err := startup.Open(p.Out, cfg.Common)
	if err != nil {
		return nil, err
	}
	agents, err := bundle.Agents(p.Dir)
	if err != nil {
		return nil, err
	}
	tokens, err := verifier(cfg, b.Log)
	if err != nil {
		return nil, err
	}
	c := api.Config{
		Store: b.Store, Queue: b.Queue, Accounts: b.Parameters, Identity: identity.AWS(), Limits: store.DefaultLimits(), URL: cfg.URL,
		Auth:       api.ByPrefix{Operators: operators{b.Parameters}, GitHub: api.IDTokens{Verifier: tokens}},
		AppSecrets: b.Parameters.WebhookSecrets, Programs: cfg.Programs, Script: b.Parameters.Script, Agents: agents, Log: b.Log,
	}
	b.Fetch(ctx, nil,
		// One after the other, on one connection: to open another takes more time than
		// it saves, since registrations take two calls too.
		startup.Task{Name: "keys and operators", Do: func(ctx context.Context) error {
			_, err := b.Parameters.Keys(ctx)
			_, err2 := b.Parameters.Operators(ctx)
			return errors.Join(err, err2)
		}},
		startup.Task{Name: "issuers' keys", Do: tokens.Prefetch},
	)
	handler := startup.Kept[http.Handler]{Make: func(ctx context.Context) (_ http.Handler, err error) {
		c := c
		c.Keys, err = b.Parameters.Keys(ctx)
		return api.New(c), err
	}}
	return b.Handler(apigateway.New(handler.Get, b.Log), nil), nil
}

func verifier(cfg settings.API, log *slog.Logger) (*oidc.Verifier, error) {
	var issuers []oidc.Issuer
	for _, url := range cfg.Issuers {
		issuers = append(issuers, oidc.Issuer{URL: url})
	}
	return oidc.New(oidc.Config{Issuers: issuers, Audience: cfg.URL, Log: log})
}

// operators authenticates by the operators that there are now, and reads them for
// operators' tokens alone.
type operators struct{ *ssmparam.Parameters }

// Authenticate implements api.Authenticator.
func (o operators) Authenticate(ctx context.Context, token string) (api.Caller, error) {
	known, err := o.Operators(ctx)
	if err != nil {
		return api.Caller{}, err
	}
	return api.Operators(known).Authenticate(ctx, token)
}
