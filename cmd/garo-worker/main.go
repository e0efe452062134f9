// Command garo-worker is the Lambda function that the queue invokes: it takes
// requests to launched, configured runners.
package main

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/accounts"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func main() { startup.Main("garo-worker", start) }

// start returns the function.
func start(ctx context.Context, p startup.Process) (any, error) {
	cfg, err := settings.ReadWorker(p.Environ)
	if err != nil {
		return nil, err
	}
	b, err := startup.Open(p.Out, cfg.Common)
	if err != nil {
		return nil, err
	}
	agents, err := bundle.Sums(p.Dir)
	if err != nil {
		return nil, err
	}
	access, err := accounts.Open(b, accounts.Config{
		ControlPlane: cfg.ControlPlane, Part: assume.Worker, GitHubURL: cfg.GitHubURL, GitHubShare: github.DefaultShare,
	})
	if err != nil {
		return nil, err
	}
	examiner := doctor.New(doctor.Config{
		Accounts: b.Parameters, Fleet: access.Fleet, GitHub: access.GitHub, Records: b.Store, Keys: b.Parameters.Keys, Vouches: identity.AWS().Has,
		ControlPlane: cfg.ControlPlane, APIURL: cfg.URL,
	})
	c := worker.Config{
		Store: b.Store, Queue: b.Queue, Accounts: b.Parameters, Fleet: access.Fleet, GitHub: access.GitHub, Workflows: access.GitHub, Doctor: examiner,
		Identity: identity.AWS(), Limits: store.DefaultLimits(), ControlPlane: cfg.ControlPlane, APIURL: cfg.URL, Agents: agents,
		ProgramKey: store.ProgramKey(cfg.ProgramSums), Log: b.Log,
	}
	b.Fetch(ctx, access.TakeOn,
		startup.Task{Name: "keys", Do: func(ctx context.Context) error { _, err := b.Parameters.Keys(ctx); return err }})
	// A worker that is made again forgets which placements had no capacity, which
	// counts for three minutes only.
	f := &function{log: b.Log, worker: &startup.Kept[*worker.Worker]{Make: func(ctx context.Context) (_ *worker.Worker, err error) {
		c := c
		c.Keys, err = b.Parameters.Keys(ctx)
		return worker.New(c), err
	}}}
	return b.Handler(f.handle, access.Measure), nil
}
