package simfleet

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Inspected is a World that tells what launches depend on.
type Inspected struct{ *World }

var _ fleet.Inspector = Inspected{}

// TakeOn implements fleet.Inspector: every account trusts the control plane, unless a
// Fault says otherwise.
func (w Inspected) TakeOn(ctx context.Context, account string) error {
	return w.begin(ctx, OpTakeOn, fleet.Place{Account: account}, fleet.Launch{})
}

// Strangers implements fleet.Inspector: no account trusts them.
func (w Inspected) Strangers(ctx context.Context, account string) ([]string, error) {
	return nil, w.begin(ctx, OpStrangers, fleet.Place{Account: account}, fleet.Launch{})
}

// Vet implements fleet.Inspector. It takes from the same bucket as launches do.
func (w Inspected) Vet(ctx context.Context, at fleet.Place, l fleet.Launch) error {
	if !w.admit(at) {
		return throttled(at)
	}
	if err := w.begin(ctx, OpVet, at, l); err != nil {
		return err
	}
	l.ClientToken = "none" // it binds none
	if err := acceptable(l); err != nil {
		return err
	}
	w.hold()
	defer w.release()
	return w.supply.unsuited(l)
}

// AMI implements fleet.Inspector.
func (w Inspected) AMI(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
	if err := w.begin(ctx, OpAMI, at, fleet.Launch{Image: id}); err != nil {
		return fleet.AMI{}, err
	}
	w.hold()
	defer w.release()
	if w.supply.gone[id] {
		return fleet.AMI{}, w.supply.unsuited(fleet.Launch{Image: id})
	}
	ami := fleet.AMI{State: "available", RootDevice: simRoot.Device}
	if w.supply.architecture != nil {
		ami.Architecture = w.supply.architecture(id)
	}
	return ami, nil
}

// Subnets implements fleet.Inspector: as Config.Subnet has them.
func (w Inspected) Subnets(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Subnet, error) {
	if err := w.begin(ctx, OpSubnets, at, fleet.Launch{}); err != nil {
		return nil, err
	}
	all := map[string]fleet.Subnet{}
	for _, id := range ids {
		// A /24 has 251 addresses
		// (https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html).
		s, ok := fleet.Subnet{Zone: at.Region + "a", Free: 251, Out: "igw-sim", Public: true}, true
		if w.cfg.Subnet != nil {
			s, ok = w.cfg.Subnet(at, id)
		}
		if ok {
			all[id] = s
		}
	}
	return all, nil
}
