package simfleet

import (
	"cmp"
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// SpotPrices implements fleet.Fleet, with made-up prices.
func (w *World) SpotPrices(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
	if err := w.begin(ctx, OpSpot, at, fleet.Launch{}); err != nil {
		return nil, nil, err
	}
	if len(types) == 0 {
		types = simprices.Types()
	}
	hour, zones := map[string]store.MicroUSD{}, map[string]string{}
	for _, subnet := range subnets {
		zone := w.zone(subnet)
		zones[subnet] = zone
		for _, t := range types {
			if usd := simprices.SpotHour(t, zone); usd > 0 {
				hour[store.SpotKey(t, zone)] = usd
			}
		}
	}
	return hour, zones, nil
}

// zone returns the availability zone of a subnet.
func (w *World) zone(subnet string) string { return cmp.Or(w.cfg.Zones[subnet], subnet) }
