package store_test

import (
	"maps"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestPricesAreReadAsAWSWritesThem(t *testing.T) {
	for text, want := range map[string]store.MicroUSD{
		"0.0345000000": 34_500, "0.034500": 34_500, "12.1250000000": 12_125_000, "2750": 2_750_000_000, "0.00000149": 1, "0.0000015": 2,
		"0.9999996": 1_000_000, "1000000": 1_000_000_000_000,
		"0.0000000000": 0, "": 0, ".": 0, ".5": 0, "1.": 1_000_000, "-1": 0, "+1": 0, "1e3": 0, "1,5": 0, "0x10": 0, "1000001": 0, "99999999999999999999": 0, "NaN": 0, "1.5.2": 0, "0.0000001": 0,
	} {
		if got, ok := store.ParseUSD(text); got != want || ok != (want > 0) {
			t.Errorf("ParseUSD(%q) = %d, %t; want %d", text, got, ok, want)
		}
	}
	for usd, want := range map[store.MicroUSD]string{0: "$0.00", 1: "$0.000001", 34_500: "$0.0345", 100_000: "$0.10", 12_125_000: "$12.125", -1_500_000: "-$1.50", 2_000_000: "$2.00"} {
		if got := usd.String(); got != want {
			t.Errorf("%d is %s, want %s", int64(usd), got, want)
		}
	}
}

func FuzzParseUSD(f *testing.F) {
	f.Add("0.0345000000")
	f.Add("1.5.2")
	f.Fuzz(func(t *testing.T, text string) {
		usd, ok := store.ParseUSD(text)
		if ok != (usd > 0) || usd < 0 || usd > 1_000_001_000_000 {
			t.Errorf("ParseUSD(%q) = %d, %t", text, int64(usd), ok)
		}
		if again, _ := store.ParseUSD(usd.String()[1:]); ok && again != usd {
			t.Errorf("%q is %s, which is %d", text, usd, int64(again))
		}
	})
}

func TestPriceIsOfTheMarketAndTheZone(t *testing.T) {
	spot := store.Prices{Hour: map[string]store.MicroUSD{"c7g.large eu-west-2a": 30_000, "c7g.large eu-west-2b": 40_000}, Zones: map[string]string{"subnet-a": "eu-west-2a", "subnet-b": "eu-west-2b"}}
	list := store.Prices{Hour: map[string]store.MicroUSD{"c7g.large": 86_000}}
	for _, c := range []struct {
		market, typ, subnet string
		hour                store.MicroUSD
		zone                string
	}{
		{store.Spot, "c7g.large", "subnet-a", 30_000, "eu-west-2a"},
		{store.Spot, "c7g.large", "subnet-b", 40_000, "eu-west-2b"},
		{store.OnDemand, "c7g.large", "subnet-b", 86_000, "eu-west-2b"},
		{store.OnDemand, "c7g.large", "subnet-c", 86_000, ""},
		{store.Spot, "c7g.large", "subnet-c", 0, ""},
		{store.Spot, "m7g.large", "subnet-a", 0, "eu-west-2a"},
		{store.OnDemand, "m7g.large", "subnet-a", 0, "eu-west-2a"},
	} {
		hour, zone := store.PriceOf(store.Placement{Market: c.market, InstanceType: c.typ, Subnet: c.subnet}, spot, list)
		if hour != c.hour || zone != c.zone {
			t.Errorf("PriceOf %s %s in %s = %v in %q, want %v in %q", c.market, c.typ, c.subnet, hour, zone, c.hour, c.zone)
		}
	}
	if hour, zone := store.PriceOf(store.Placement{Market: store.Spot}, store.Prices{}, store.Prices{}); hour != 0 || zone != "" {
		t.Errorf("without prices: %v in %q, want neither", hour, zone)
	}
}

func TestPricesAreReadAtTheirTimes(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := store.Prices{Key: "111111111111/eu-west-2"}
	if !p.Due(now) {
		t.Error("prices that were never read are not due")
	}
	p.ReadSpot(now, map[string]store.MicroUSD{"a b": 1}, map[string]string{"s": "b"})
	if p.Due(now.Add(time.Hour-1)) || !p.Due(now.Add(time.Hour)) || p.ReadAt != now || p.TTL == 0 {
		t.Errorf("spot prices are due again at %s of %+v, want in an hour", p.NextAt, p)
	}
	p.Missed(now, "denied")
	if p.Due(now.Add(15*time.Minute-1)) || !p.Due(now.Add(15*time.Minute)) || p.Unread != "denied" || p.Hour["a b"] != 1 || p.ReadAt != now {
		t.Errorf("after a failure: %+v, want the old prices, the reason, and another try in 15 minutes", p)
	}

	list := store.Prices{Key: "eu-west-2", Unread: "was away"}
	before := list
	list.ReadList(now, map[string]store.MicroUSD{"a": 1, "b": 2}, store.PriceFile{Path: "/v1", Offset: 10})
	if !list.Due(now) || !list.ReadAt.IsZero() || list.Unread != "" || before.Hour != nil {
		t.Errorf("after a part: %+v, want it due at once", list)
	}
	list.ReadList(now, map[string]store.MicroUSD{"b": 3, "c": 4}, store.PriceFile{Path: "/v1", Offset: 20, Whole: true})
	if want := map[string]store.MicroUSD{"a": 1, "b": 3, "c": 4}; !maps.Equal(list.Hour, want) || list.Due(now.Add(24*time.Hour-1)) || !list.Due(now.Add(24*time.Hour)) {
		t.Errorf("after the whole: %+v, want %v, and due in a day", list, want)
	}
	list.Missed(now, "gone")
	if list.File != (store.PriceFile{}) {
		t.Errorf("after a failure the file is at %+v, want that it starts again", list.File)
	}
	empty := store.Prices{Key: "eu-west-2"}
	empty.ReadList(now, nil, store.PriceFile{Path: "/v2", Offset: 20, Whole: true})
	if empty.Unread == "" || !empty.ReadAt.IsZero() {
		t.Errorf("a file without a price: %+v, want that it counts as not read", empty)
	}
}
