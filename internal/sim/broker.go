package sim

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
)

// broker lets simulated machines talk to the simulated GitHub.
type broker struct {
	*githubtest.Server
	ghosts bool
}

func (b broker) Connect(ctx context.Context, config string) (simfleet.Session, error) {
	s, err := b.Server.Connect(ctx, config)
	if err != nil {
		return nil, told(err)
	}
	return session{s, b.ghosts}, nil
}

type session struct {
	*githubtest.Session
	ghost bool
}

func (s session) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := s.Session.Wait(ctx)
	if s.ghost && errors.Is(err, githubtest.ErrDeleted) {
		<-ctx.Done() // it never learns
	}
	return simfleet.Job{ID: j.ID, RunID: j.RunID, Duration: j.Duration}, told(err)
}

func (s session) Done(ctx context.Context, j simfleet.Job) error {
	return told(s.Session.Done(ctx, githubtest.Job{ID: j.ID}))
}

// told gives an answer of GitHub the name that machines know it by.
func told(err error) error {
	switch {
	case errors.Is(err, githubtest.ErrDeleted):
		return simfleet.ErrDeleted
	case errors.Is(err, githubtest.ErrUnknownConfig):
		return simfleet.ErrUnknownConfig
	case errors.Is(err, githubtest.ErrTooOld):
		return simfleet.ErrTooOld
	}
	return err
}
