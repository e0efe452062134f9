// Command garo-reaper is the Lambda function that a schedule invokes each minute:
// it makes one run of the reaper. What the schedule sends with it does not matter.
package main

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/accounts"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func main() { startup.Main("garo-reaper", start) }

// start returns the function.
func start(ctx context.Context, p startup.Process) (any, error) {
	cfg, err := settings.ReadReaper(p.Environ)
	if err != nil {
		return nil, err
	}
	b, err := startup.Open(p.Out, cfg.Common)
	if err != nil {
		return nil, err
	}
	access, err := accounts.Open(b, accounts.Config{
		ControlPlane: cfg.ControlPlane, Part: assume.Reaper, GitHubURL: cfg.GitHubURL,
		GitHubShare: 1, // a registration that is not removed keeps a machine: workers can wait rather than that
	})
	if err != nil {
		return nil, err
	}
	r := reaper.New(reaper.Config{
		Store: b.Store, Queue: b.Queue, Accounts: b.Parameters, Fleet: access.Fleet, GitHub: access.GitHub,
		Limits: store.DefaultLimits(), ControlPlane: cfg.ControlPlane, Log: b.Log,
	})
	b.Fetch(ctx, nil)
	return func(ctx context.Context) error { return run(ctx, r, b.Log) }, nil
}
