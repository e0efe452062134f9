// Command garo-api is the Lambda function behind the API's URL. It has neither EC2
// nor a role of any account: it records, enqueues and answers.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/internal/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdaconfig"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdahttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdastart"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

func main() { lambdastart.Main("garo-api", start) }

// start returns the function. What it fetches in advance it can do without: it
// answers 503 for as long as there are no keys, and says in the log what is wrong
// with them.
func start(ctx context.Context, p lambdastart.Process) (any, error) {
	cfg, err := lambdaconfig.ReadAPI(p.Environ)
	if err != nil {
		return nil, err
	}
	log := lambdastart.Log(p.Out, cfg.Common)
	agents, err := bundle.Agents(p.Dir)
	if err != nil {
		return nil, err
	}
	tokens, err := verifier(cfg, log)
	if err != nil {
		return nil, err
	}
	sdk, err := lambdastart.AWS()
	if err != nil {
		return nil, err
	}
	parameters := ssmparam.New(ssmparam.Config{AWS: sdk, Prefix: cfg.Parameters, Log: log})
	records := dynamostore.New(sdk, cfg.Table, nil)
	c := api.Config{
		Store: records, Queue: sqsqueue.NewSender(sdk, cfg.QueueURL), Accounts: parameters, Limits: store.DefaultLimits(), URL: cfg.URL,
		Auth:     api.ByPrefix{Operators: operators{parameters}, GitHub: api.IDTokens{Verifier: tokens}},
		Programs: cfg.Programs, Agents: agents, Log: log,
	}
	lambdastart.Fetch(ctx, log,
		// One after the other, on one connection: to open another takes more time than
		// it saves, since registrations take two calls too.
		lambdastart.Task{Name: "keys and operators", Do: func(ctx context.Context) error {
			_, err := parameters.Keys(ctx)
			_, err2 := parameters.Operators(ctx)
			return errors.Join(err, err2)
		}},
		lambdastart.Registrations(log, parameters, nil),
		lambdastart.Task{Name: "issuers' keys", Do: tokens.Prefetch},
		lambdastart.Table(records),
		lambdastart.Connection(sdk, cfg.QueueURL),
	)
	handler := lambdastart.Kept[http.Handler]{Make: func(ctx context.Context) (_ http.Handler, err error) {
		c := c
		c.Keys, err = parameters.Keys(ctx)
		return api.New(c), err
	}}
	return lambdahttp.New(handler.Get, log), nil
}

func verifier(cfg lambdaconfig.API, log *slog.Logger) (*oidc.Verifier, error) {
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
