package sim

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simjobs"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
)

// broker lets simulated machines talk to the simulated GitHub.
type broker struct {
	*githubtest.Server
	ghosts bool
}

func (b broker) Connect(ctx context.Context, config string) (simfleet.Session, error) {
	s, err := simjobs.Connect(ctx, b.Server, config)
	if err != nil {
		return nil, err
	}
	return session{s, b.ghosts}, nil
}

type session struct {
	simjobs.Session
	ghost bool
}

func (s session) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := s.Session.Wait(ctx)
	if s.ghost && errors.Is(err, simfleet.ErrDeleted) {
		<-ctx.Done() // it never learns
	}
	return j, err
}
