package sim

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simjobs"
)

// broker lets simulated machines talk to the simulated GitHub.
type broker struct{ *World }

func (b broker) Connect(ctx context.Context, config string) (simfleet.Session, error) {
	s, err := simjobs.Connect(ctx, b.GitHub, config)
	if err != nil {
		return nil, err
	}
	runner := ""
	for _, g := range b.GitHub.Registrations() {
		if g.Config.Equal(config) {
			runner = runnerIn(g.Name)
		}
	}
	return session{s, b.World, runner}, nil
}

// session is a runner program's connection. runner is whose it is.
type session struct {
	simjobs.Session
	world  *World
	runner string
}

func (s session) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := s.Session.Wait(ctx)
	if s.world.cfg.Ghosts && errors.Is(err, simfleet.ErrDeleted) {
		<-ctx.Done() // it never learns
	}
	s.world.refuses(ctx, s.runner, err)
	return j, err
}

func (s session) Watch(ctx context.Context) error {
	err := s.Session.Watch(ctx)
	s.world.refuses(ctx, s.runner, err)
	return err
}
