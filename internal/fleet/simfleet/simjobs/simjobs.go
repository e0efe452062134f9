// Package simjobs lets simulated machines work for the simulated GitHub: it gives
// the sessions and answers of simgithub the form in which simfleet knows them.
package simjobs

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
)

// Session is a simfleet.Session of a runner program that is connected to GitHub.
type Session struct{ *simgithub.Session }

// Connect is simgithub's Connect.
func Connect(ctx context.Context, gh *simgithub.Server, config string) (Session, error) {
	s, err := gh.Connect(ctx, config)
	return Session{s}, told(err)
}

// Wait implements simfleet.Session.
func (s Session) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := s.Session.Wait(ctx)
	return simfleet.Job{
		ID: j.ID, RunID: j.RunID, Duration: j.Duration,
		Asks: apitype.Admission{RepositoryID: j.RepositoryID, Repository: j.Repository, OwnerID: s.OwnerOf(j.Repository), RunID: j.RunID, Attempt: 1},
	}, told(err)
}

// Watch implements simfleet.Session.
func (s Session) Watch(ctx context.Context) error { return told(s.Session.Watch(ctx)) }

// Done implements simfleet.Session.
func (s Session) Done(ctx context.Context, j simfleet.Job) error {
	return told(s.Session.Done(ctx, simgithub.Job{ID: j.ID, Refused: j.Refused}))
}

// told gives an answer of GitHub the name that machines know it by.
func told(err error) error {
	switch {
	case errors.Is(err, simgithub.ErrDeleted):
		return simfleet.ErrDeleted
	case errors.Is(err, simgithub.ErrUnknownConfig):
		return simfleet.ErrUnknownConfig
	case errors.Is(err, simgithub.ErrTooOld):
		return simfleet.ErrTooOld
	}
	return err
}
