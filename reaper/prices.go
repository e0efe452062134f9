package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// PriceList is what the reaper needs of a pricelist.Reader: on-demand prices, in parts.
type PriceList interface {
	Newest(ctx context.Context, region string) (string, error)
	Read(ctx context.Context, file store.PriceFile) (map[string]store.MicroUSD, store.PriceFile, error)
}

// priceTime bounds what prices add to a run, which its function pays for. A region's list
// takes about four of such parts, and there is one every SweepPeriod.
const priceTime = 5 * time.Second

// prices reads the prices that are due in the places that this run swept. They come last, in
// time that nothing else needs, and a reading that fails is noted and no failure of the run:
// all that follows is that a cost is not known.
func (ec2 atEC2) prices(ctx context.Context) {
	swept := ec2.todo.swept
	if ec2.cfg.Prices == nil || ec2.cfg.DryRun || len(swept) == 0 || isLate(ctx) {
		return
	}
	inner, cancel := timed(ctx, priceTime)
	defer cancel()
	var refs []store.Ref
	at := map[store.Ref]fleet.Place{}
	for _, place := range swept {
		for _, ref := range store.PriceRefs(place.Account, place.Region) {
			if _, seen := at[ref]; !seen {
				at[ref], refs = place, append(refs, ref)
			}
		}
	}
	items, _ := read[*store.Prices](inner, ec2.pass, "prices", refs...)
	items = slices.DeleteFunc(items, func(p *store.Prices) bool { return p == nil || !p.Due(ec2.cfg.Now()) })
	// One after another at EC2, as its calls are paced for each account; and one list only
	// for all, whose reading has the processor for itself.
	lane := lanes{func(i int) string { return at[items[i].Ref()].Account }, 1}
	ec2.spread(len(items), lane, func() bool { return inner.Err() != nil }, func(q *pass, i int) {
		item, place := items[i], at[items[i].Ref()]
		q.guard("prices", item.Key, func() {
			if item.Key == place.Region {
				atEC2{q}.listPrices(inner, item)
				return
			}
			atEC2{q}.spotPrices(inner, place, item)
		})
	})
}

// spotPrices reads the spot prices of the instance types and subnets that an account's
// registration has.
func (ec2 atEC2) spotPrices(ctx context.Context, at fleet.Place, item *store.Prices) {
	account, err := ec2.cfg.Accounts.Account(ctx, at.Account)
	if err != nil || !slices.Contains(account.Markets, store.Spot) {
		return // what is wrong with a registration, the sweeps tell
	}
	types := account.InstanceTypes
	if account.InstanceRequirements != nil {
		types = nil // whatever the rules choose, today and when EC2 has new ones
	}
	var hour map[string]store.MicroUSD
	var zones map[string]string
	err = ec2.askEC2(ctx, at, callLimit, func(ctx context.Context) (err error) {
		hour, zones, err = ec2.cfg.Fleet.SpotPrices(ctx, at, types, account.Regions[at.Region].Subnets)
		return err
	})
	if err != nil {
		ec2.noPrices(ctx, item, err)
		return
	}
	if ec2.apply(ctx, item, item.ReadSpot(ec2.cfg.Now(), hour, zones)) {
		ec2.note(item, Priced, fmt.Sprintf("%d spot prices", len(hour)))
	}
}

// listPrices reads on in the price list of a region.
func (ec2 atEC2) listPrices(ctx context.Context, item *store.Prices) {
	file := item.File
	if file.Path == "" || file.Whole {
		newest, err := ec2.cfg.Prices.Newest(ctx, item.Key)
		if err != nil {
			ec2.noPrices(ctx, item, err)
			return
		}
		if newest != file.Path {
			file = store.PriceFile{Path: newest}
		}
	}
	var hour map[string]store.MicroUSD
	if !file.Whole {
		var err error
		if hour, file, err = ec2.cfg.Prices.Read(ctx, file); err != nil {
			ec2.noPrices(ctx, item, err)
			return
		}
	}
	if ec2.apply(context.WithoutCancel(ctx), item, item.ReadList(ec2.cfg.Now(), hour, file)) {
		ec2.note(item, Priced, fmt.Sprintf("%d on-demand prices, to byte %d of %s", len(hour), file.Offset, file.Path))
	}
}

// noPrices notes why prices could not be read. Where only this run's time was too short, the
// next one tries again.
func (ec2 atEC2) noPrices(ctx context.Context, item *store.Prices, err error) {
	ec2.note(item, Skip, err.Error())
	if ctx.Err() == nil && !errors.Is(err, errLater) {
		ec2.apply(ctx, item, item.Missed(ec2.cfg.Now(), err.Error()))
	}
}
