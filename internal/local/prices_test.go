package local_test

import (
	"context"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A local system has prices of its simulated AWS for all that its account may launch, after
// the first run of its reaper.
func TestPricesOfTheSimulatedAWS(t *testing.T) {
	s, err := local.Open(t.Context(), local.Config{Dir: t.TempDir(), URL: "http://test.localhost", Limits: quick()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var spot, list store.Prices
	for ; ; time.Sleep(quick().SweepPeriod) { // on a slow machine the list takes several runs
		if ctx.Err() != nil {
			t.Fatalf("no prices in %s: %+v", patience, list)
		}
		if _, err := s.Reap(ctx, false); err != nil {
			t.Fatal(err)
		}
		refs := store.PriceRefs(local.BuiltIn, local.Region)
		items, err := s.Store.Get(ctx, refs[0], refs[1])
		if err != nil {
			t.Fatal(err)
		}
		if spot, list = *items[0].(*store.Prices), *items[1].(*store.Prices); list.File.Whole {
			break
		}
	}
	for _, typ := range []string{"t3a.micro", "t3a.small", "m7g.large", "c7g.xlarge"} {
		on, _ := store.PriceOf(store.Placement{Market: store.OnDemand, InstanceType: typ, Subnet: "subnet-a"}, spot, list)
		if spot, zone := store.PriceOf(store.Placement{Market: store.Spot, InstanceType: typ, Subnet: "subnet-a"}, spot, list); on <= 0 || spot <= 0 || spot >= on || zone == "" {
			t.Errorf("%s costs %v on demand, and %v as a spot machine in %q; want both, and spot less", typ, on, spot, zone)
		}
	}
}
