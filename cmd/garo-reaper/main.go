// Command garo-reaper is the Lambda function that a schedule invokes every minute:
// it makes one run of the reaper. A schedule of a shard sends which one, as
// {"shard": 0, "of": 2}; whatever else is sent with it does not matter.
package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist"
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
		// All shards together have the whole: a registration that is not removed keeps a
		// machine, and workers can wait rather than that.
		GitHubShare: 1 / float64(cfg.Shards),
	})
	if err != nil {
		return nil, err
	}
	r := reaper.New(reaper.Config{
		Store: b.Store, Queue: b.Queue, Accounts: b.Parameters, Fleet: access.Fleet, GitHub: access.GitHub,
		Workflows: access.GitHub, Keys: b.Parameters.Keys, Prices: pricelist.New(&http.Client{}, cfg.PricesURL),
		GitHubLeft: access.GitHub.HourLeft, Limits: store.DefaultLimits(), ControlPlane: cfg.ControlPlane, Log: b.Log,
	})
	b.Fetch(ctx, nil)
	return b.Handler(func(ctx context.Context, event json.RawMessage) error {
		report, err := run(ctx, r, event, b.Log)
		b.Metrics.Add(report.Figures())
		return err
	}, access.Measure), nil
}
