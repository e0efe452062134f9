package reaper_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// list is a price list of so many parts, each with one instance type.
type list struct {
	version string
	parts   []string
	asked   int
	read    []int64
	err     error
	slow    time.Duration
}

func (l *list) Newest(_ context.Context, region string) (string, error) {
	l.asked++
	return "/" + region + "/" + l.version, l.err
}

func (l *list) Read(ctx context.Context, f store.PriceFile) (map[string]store.MicroUSD, store.PriceFile, error) {
	select {
	case <-ctx.Done():
		return nil, f, ctx.Err()
	case <-time.After(l.slow):
	}
	if l.err != nil {
		return nil, f, l.err
	}
	l.read = append(l.read, f.Offset)
	hour := map[string]store.MicroUSD{l.parts[f.Offset]: 1e6 * store.MicroUSD(f.Offset+1)}
	f.Offset++
	f.Whole = int(f.Offset) == len(l.parts)
	return hour, f, nil
}

// priced is a world whose account may buy c7g.large on both markets.
func priced(w *world, l *list) {
	a := w.accounts[account]
	a.Markets, a.InstanceTypes = []string{store.Spot, store.OnDemand}, []string{"c7g.large"}
	a.Regions = map[string]store.Region{region: {Subnets: []string{"subnet-a"}}}
	w.accounts[account] = a
	w.config.Prices = l
}

func (w *world) prices() (spot, list store.Prices) {
	w.t.Helper()
	refs := store.PriceRefs(account, region)
	return get[store.Prices](w, refs[0].ID), get[store.Prices](w, refs[1].ID)
}

func TestPricesAreReadOnceForEachPeriod(t *testing.T) {
	inWorld(t, func(w *world) {
		l := &list{version: "1", parts: []string{"c7g.large", "m7g.large", "r7g.large"}}
		priced(w, l)
		w.run()
		spot, on := w.prices()
		if spot.Hour["c7g.large zone of subnet-a"] != 1e6 || spot.Zones["subnet-a"] != "zone of subnet-a" || on.Hour["c7g.large"] != 1e6 || on.File.Whole {
			t.Errorf("after a run: %+v and %+v, want spot prices and the first part of the list", spot, on)
		}
		w.minutes(24 * 60)
		if _, on = w.prices(); len(on.Hour) != 3 || !on.File.Whole || l.asked > 2 || len(l.read) != 3 {
			t.Errorf("in a day the list was asked for %d times and read at %v: %+v; want once, and each part once", l.asked, l.read, on)
		}
		if n := w.fleet.count("spot"); n < 20 || n > 25 {
			t.Errorf("spot prices were read %d times in a day, want once an hour at most", n)
		}
		l.version, l.parts = "2", []string{"c7g.large"}
		w.minutes(24 * 60)
		if _, on = w.prices(); !strings.HasSuffix(on.File.Path, "/2") || len(l.read) != 4 || len(on.Hour) != 3 {
			t.Errorf("after a new version: %+v, read at %v; want it read as well", on, l.read)
		}
	})
}

func TestPricesThatCannotBeReadAreNoFailureOfTheRun(t *testing.T) {
	inWorld(t, func(w *world) {
		l := &list{version: "1", parts: []string{"c7g.large"}, err: errors.New("no route to host")}
		priced(w, l)
		w.fleet.fail = func(op string, _ fleet.Place, _ string) error {
			if op == "spot" {
				return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "not allowed"}
			}
			return nil
		}
		w.run() // which fails the test for an error
		spot, on := w.prices()
		if !strings.Contains(spot.Unread, "UnauthorizedOperation") || !strings.Contains(on.Unread, "no route to host") || len(spot.Hour)+len(on.Hour) > 0 {
			t.Errorf("the records are %+v and %+v, want why the prices are not known", spot, on)
		}
		if strings.Contains(w.log.String(), `"alarm"`) {
			t.Errorf("an alarm was raised:\n%s", w.log)
		}
		w.minutes(14)
		if n := w.fleet.count("spot"); n != 1 {
			t.Errorf("spot prices were asked for %d times in 14 minutes, want once", n)
		}
		w.fleet.fail, l.err = func(string, fleet.Place, string) error { return nil }, nil
		w.minutes(10)
		if spot, on = w.prices(); spot.Unread+on.Unread != "" || len(spot.Hour) != 1 || len(on.Hour) != 1 {
			t.Errorf("later: %+v and %+v, want the prices", spot, on)
		}
	})
}

// A list that hangs takes a few seconds of a run, and leaves no trace: the time was too short.
func TestSlowPricesDoNotMakeARunLate(t *testing.T) {
	inWorld(t, func(w *world) {
		priced(w, &list{version: "1", parts: []string{"c7g.large"}, slow: time.Hour})
		began := time.Now()
		report := w.run()
		if took := time.Since(began); took > 6*time.Second || report.Late {
			t.Errorf("the run took %s, late %t; want about five seconds", took, report.Late)
		}
		if _, on := w.prices(); on.Version != 0 {
			t.Errorf("the record is %+v, want none", on)
		}
		time.Sleep(5 * time.Minute)
		w.config.DryRun = true
		if r := w.run(); r.Counts["priced"] != 0 {
			t.Errorf("a dry run read prices:\n%s", r)
		}
	})
}

func TestAccountWithoutSpotHasNoSpotPrices(t *testing.T) {
	inWorld(t, func(w *world) {
		priced(w, &list{version: "1", parts: []string{"c7g.large"}})
		a := w.accounts[account]
		a.Markets = []string{store.OnDemand}
		w.accounts[account] = a
		w.run()
		if spot, on := w.prices(); spot.Version != 0 || len(on.Hour) != 1 || w.fleet.count("spot") != 0 {
			t.Errorf("the records are %+v and %+v, want on-demand prices alone", spot, on)
		}
	})
}
