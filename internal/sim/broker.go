package sim

import (
	"context"
	"errors"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simjobs"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
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
			runner = setting.RunnerIn(g.Name)
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
	s.heard(ctx, err)
	return j, err
}

func (s session) Watch(ctx context.Context) error {
	err := s.Session.Watch(ctx)
	s.heard(ctx, err)
	return err
}

// heard notes that GitHub refused the program. It takes a time of its own, since
// GitHub refuses all programs at once. A program that ends meanwhile for another
// reason, such as the end of its job, never hears of it.
func (s session) heard(ctx context.Context, err error) {
	if !errors.Is(err, simfleet.ErrTooOld) {
		return
	}
	t := time.NewTimer(time.Duration(kernel.Hash(s.world.cfg.Seed, "refused", s.runner)%499_979)*time.Microsecond + 1)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		s.world.Refuses(s.runner)
	}
}
