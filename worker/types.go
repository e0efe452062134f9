package worker

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// typesFor is how long it is remembered which instance types a region offers: new ones
	// come in weeks, and a list takes seconds.
	typesFor = time.Hour
	// maxOffers bounds what is remembered, at some kilobytes each.
	maxOffers = 200
)

// offers remembers, for this process alone, which instance types regions offer under some
// rules. One that cannot be read again is used on: what a region has, it keeps.
type offers struct {
	mu  sync.Mutex
	all map[offered]offer
}

// offered is what was asked for.
type offered struct {
	at    fleet.Place
	rules string
}

type offer struct {
	types  []store.InstanceType
	prices store.Prices // on-demand, of the region; in both markets they say which type is the cheaper one
	readAt time.Time
}

// chosen returns the instance types that the account chooses for the request; nil: it names
// them. It makes calls at most once an hour for each region and rule.
func (in *invocation) chosen(ctx context.Context, a store.Account, req store.Request) ([]string, error) {
	rules, _, ok := a.Chooses(req.Machine)
	if !ok {
		return nil, nil
	}
	offer, err := in.offered(ctx, fleet.Place{Account: a.ID, Region: req.Region}, rules)
	if err != nil {
		return nil, err
	}
	return a.Choose(req.Machine, req.Type, offer.types, func(name string) store.MicroUSD { return offer.prices.Hour[name] }), nil
}

// offered returns which instance types a region offers under rules, and at which prices.
func (in *invocation) offered(ctx context.Context, at fleet.Place, rules store.Requirements) (offer, error) {
	text, err := json.Marshal(rules)
	if err != nil {
		return offer{}, err
	}
	o, key := &in.offers, offered{at, string(text)}
	o.mu.Lock()
	known, ok := o.all[key]
	o.mu.Unlock()
	if ok && in.Now().Sub(known.readAt) < typesFor {
		return known, nil
	}
	fresh := offer{readAt: in.Now()}
	fresh.types, err = in.Fleet.Types(ctx, at, rules)
	switch {
	case err != nil && (!ok || errors.Is(err, fleet.ErrRefused)):
		return offer{}, err
	case err != nil:
		in.Log.Warn("instance types not read again", "account", at.Account, "region", at.Region, "read", known.readAt, "error", err)
		return known, nil
	}
	if fresh.prices, err = store.Read[store.Prices](ctx, in.Store, at.Region); err != nil {
		in.Log.Warn("prices not read: instance types are chosen by their size", "region", at.Region, "error", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil || len(o.all) >= maxOffers {
		o.all = map[offered]offer{}
	}
	o.all[key] = fresh
	return fresh, nil
}
