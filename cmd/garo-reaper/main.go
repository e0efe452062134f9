// Command garo-reaper is the Lambda function that a schedule invokes each minute:
// it makes one run of the reaper. What the schedule sends with it does not matter.
package main

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/ec2fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdaconfig"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambdastart"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

func main() { lambdastart.Main("garo-reaper", start) }

// start returns the function.
func start(ctx context.Context, p lambdastart.Process) (any, error) {
	cfg, err := lambdaconfig.ReadReaper(p.Environ)
	if err != nil {
		return nil, err
	}
	log := lambdastart.Log(p.Out, cfg.Common)
	sdk, err := lambdastart.AWS()
	if err != nil {
		return nil, err
	}
	parameters := ssmparam.New(ssmparam.Config{AWS: sdk, Prefix: cfg.Parameters, Log: log})
	sessions := assume.New(assume.Config{AWS: sdk, Accounts: parameters, ControlPlane: cfg.ControlPlane, Part: assume.Reaper, Log: log})
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: cfg.GitHubURL, Account: parameters.Account, Parameter: sessions.Credential, HTTP: lambdastart.GitHub(),
	})
	if err != nil {
		return nil, err
	}
	gh, err := github.New(github.Config{
		BaseURL: cfg.GitHubURL, Token: creds.Token, Renew: creds.Renew, HTTP: lambdastart.GitHub(),
		Share: 1, // a registration that is not removed keeps a machine: workers can wait rather than that
	})
	if err != nil {
		return nil, err
	}
	records := dynamostore.New(sdk, cfg.Table, nil)
	r := reaper.New(reaper.Config{
		Store: records, Queue: sqsqueue.NewSender(sdk, cfg.QueueURL), Accounts: parameters, Fleet: ec2fleet.New(lambdastart.EC2(sdk), sessions),
		GitHub: gh, Limits: store.DefaultLimits(), ControlPlane: cfg.ControlPlane, Log: log,
	})
	lambdastart.Fetch(ctx, log, lambdastart.Registrations(log, parameters, nil), lambdastart.Table(records), lambdastart.Connection(sdk, cfg.QueueURL))
	return func(ctx context.Context) error { return run(ctx, r, log) }, nil
}
