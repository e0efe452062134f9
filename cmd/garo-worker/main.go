// Command garo-worker is the Lambda function that the queue invokes: it takes
// requests to launched, configured runners.
package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/alphagov/github-actions-runner-orchestration/internal/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/ec2fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdaconfig"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdastart"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func main() { lambdastart.Main("garo-worker", start) }

// start returns the function.
func start(ctx context.Context, p lambdastart.Process) (any, error) {
	cfg, err := lambdaconfig.ReadWorker(p.Environ)
	if err != nil {
		return nil, err
	}
	log := lambdastart.Log(p.Out, cfg.Common)
	agents, err := bundle.Sums(p.Dir)
	if err != nil {
		return nil, err
	}
	sdk, err := lambdastart.AWS()
	if err != nil {
		return nil, err
	}
	parameters := ssmparam.New(ssmparam.Config{AWS: sdk, Prefix: cfg.Parameters, Log: log})
	sessions := assume.New(assume.Config{AWS: sdk, Accounts: parameters, ControlPlane: cfg.ControlPlane, Part: assume.Worker, Log: log})
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: cfg.GitHubURL, Account: parameters.Account, Parameter: sessions.Credential, HTTP: lambdastart.GitHub(),
	})
	if err != nil {
		return nil, err
	}
	gh, err := github.New(github.Config{
		BaseURL: cfg.GitHubURL, Token: creds.Token, Renew: creds.Renew, Share: github.DefaultShare, HTTP: lambdastart.GitHub(),
	})
	if err != nil {
		return nil, err
	}
	records := dynamostore.New(sdk, cfg.Table, nil)
	c := worker.Config{
		Store: records, Queue: sqsqueue.NewSender(sdk, cfg.QueueURL), Accounts: parameters, Fleet: ec2fleet.New(lambdastart.EC2(sdk), sessions),
		GitHub: gh, Limits: store.DefaultLimits(), ControlPlane: cfg.ControlPlane, APIURL: cfg.URL, Agents: agents,
		ProgramKey: store.ProgramKey(cfg.ProgramSums), Log: log,
	}
	lambdastart.Fetch(ctx, log,
		lambdastart.Task{Name: "keys", Do: func(ctx context.Context) error { _, err := parameters.Keys(ctx); return err }},
		lambdastart.Registrations(log, parameters, func(ctx context.Context, id string) error {
			return sessions.Do(ctx, id, func(aws.CredentialsProvider) error { return nil }) // takes on the role
		}),
		lambdastart.Table(records),
		lambdastart.Connection(sdk, cfg.QueueURL),
	)
	// A worker that is made anew forgets which placements had no capacity, which
	// counts for three minutes only.
	f := &function{log: log, worker: &lambdastart.Kept[*worker.Worker]{Make: func(ctx context.Context) (_ *worker.Worker, err error) {
		c := c
		c.Keys, err = parameters.Keys(ctx)
		return worker.New(c), err
	}}}
	return f.handle, nil
}
