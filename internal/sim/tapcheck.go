package sim

import (
	"context"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
)

var _ fleet.Inspector = tappedFleet{}

// real is EC2 as it is.
func (f tappedFleet) real() simfleet.Inspected { return simfleet.Inspected{World: f.w.Fleet.World} }

func (f tappedFleet) TakeOn(ctx context.Context, account string) error {
	_, err := atEC2(ctx, f.w, fleet.Place{Account: account}, &kernel.Effect{Op: kernel.TakeOn, On: account}, func(ctx context.Context) (none, error) {
		return none{}, f.real().TakeOn(ctx, account)
	})
	return err
}

func (f tappedFleet) Strangers(ctx context.Context, account string) ([]string, error) {
	return atEC2(ctx, f.w, fleet.Place{Account: account}, &kernel.Effect{Op: kernel.Strangers, On: account}, func(ctx context.Context) ([]string, error) {
		return f.real().Strangers(ctx, account)
	})
}

func (f tappedFleet) Vet(ctx context.Context, at fleet.Place, l fleet.Launch) error {
	on := elsewhere(l.Market+"/"+l.InstanceType+"/"+l.Subnet, at)
	_, err := atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Vet, On: on}, func(ctx context.Context) (none, error) {
		return none{}, f.real().Vet(ctx, at, l)
	})
	return err
}

func (f tappedFleet) AMI(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
	return atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.AMI, On: elsewhere(id, at)}, func(ctx context.Context) (fleet.AMI, error) {
		return f.real().AMI(ctx, at, id)
	})
}

func (f tappedFleet) Subnets(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Subnet, error) {
	return atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Subnets, On: elsewhere(strings.Join(ids, " "), at)}, func(ctx context.Context) (map[string]fleet.Subnet, error) {
		return f.real().Subnets(ctx, at, ids...)
	})
}

// tappedCheck is GitHub as checks see it.
type tappedCheck struct {
	tappedGitHub
	tappedWorkflows
}

func (c tappedCheck) Rates(ctx context.Context, in github.Scope) (github.Rates, error) {
	return unanswered(atGitHub(ctx, c.tappedGitHub.w, in, &kernel.Effect{Op: kernel.Get, What: "rates", On: in.Key()}, func(ctx context.Context) (github.Rates, error) {
		return c.tappedGitHub.w.github.Rates(ctx, in)
	}))
}

func (c tappedCheck) Group(ctx context.Context, in github.Scope) (github.Group, error) {
	return unanswered(atGitHub(ctx, c.tappedGitHub.w, in, &kernel.Effect{Op: kernel.Get, What: "group", On: in.Key()}, func(ctx context.Context) (github.Group, error) {
		return c.tappedGitHub.w.github.Group(ctx, in)
	}))
}

// selected is what a runner group admits, and whether that is all.
type selected struct {
	repositories []github.Admitted
	whole        bool
}

func (c tappedCheck) Admits(ctx context.Context, in github.Scope, g github.Group) ([]github.Admitted, bool, error) {
	s, err := unanswered(atGitHub(ctx, c.tappedGitHub.w, in, &kernel.Effect{Op: kernel.Get, What: "admitted", On: in.Key()}, func(ctx context.Context) (s selected, err error) {
		s.repositories, s.whole, err = c.tappedGitHub.w.github.Admits(ctx, in, g)
		return s, err
	}))
	return s.repositories, s.whole, err
}
