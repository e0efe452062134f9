package store_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// closing is when the machines of these tests end.
var closing = time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)

// machineAt returns a runner whose machine was launched so long before closing.
func machineAt(id string, age time.Duration) store.Runner {
	return store.Runner{
		Meta: store.Meta{Version: 1}, ID: id, State: store.RunnerEnding, InstanceID: "i-" + id, Account: "111111111111", Region: "eu-west-2", Lock: "k-" + id,
		Repository: store.Repository{ID: "7", Name: "acme/shop"}, LaunchedAt: closing.Add(-age), CalledAt: closing.Add(-age - time.Second),
		Plan: []store.Placement{{Market: store.Spot, InstanceType: "c7g.large", Subnet: "subnet-a"}},
	}
}

func TestCostOfAMachine(t *testing.T) {
	known := store.Price{Hour: 36_000, Zone: "eu-west-2a"} // ten millionths a second
	for name, c := range map[string]struct {
		edit    func(*store.Runner)
		price   store.Price
		seconds int64
		total   store.MicroUSD
	}{
		"AnHour":            {func(*store.Runner) {}, known, 3600, 36_000},
		"EndedBefore":       {func(r *store.Runner) { r.TerminatedAt = closing.Add(-30 * time.Minute) }, known, 1800, 18_000},
		"LessThanAMinute":   {func(r *store.Runner) { r.LaunchedAt = closing.Add(-5 * time.Second) }, known, 5, 600},
		"ClocksDiffer":      {func(r *store.Runner) { r.LaunchedAt = closing.Add(5 * time.Second) }, known, 0, 600},
		"LaunchNotAnswered": {func(r *store.Runner) { r.LaunchedAt = time.Time{} }, known, 3601, 36_010},
		"PriceUnknown":      {func(*store.Runner) {}, store.Price{}, 3600, 0},
		"Rounded":           {func(r *store.Runner) { r.LaunchedAt = closing.Add(-61 * time.Second) }, store.Price{Hour: 100}, 61, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := machineAt("a", time.Hour)
			c.edit(&r)
			got := r.CostAt(closing, c.price)
			if got.Seconds != c.seconds || got.Total != c.total || got.Hour != c.price.Hour || got.Zone != c.price.Zone || got.To.Before(got.From) {
				t.Errorf("CostAt = %+v, want %d seconds for %s", got, c.seconds, c.total)
			}
		})
	}
	r := machineAt("a", time.Hour)
	r.InstanceID = ""
	if got := r.CostAt(closing, known); got != (store.Cost{}) {
		t.Errorf("without a machine: %+v, want nothing", got)
	}
	r.State, r.Cost = store.RunnerEnded, store.Cost{Seconds: 9}
	if got := r.CostAt(closing, known); got != r.Cost {
		t.Errorf("of one that ended: %+v, want what it cost then", got)
	}
	list := store.Prices{Hour: map[string]store.MicroUSD{"c7g.large": 5}}
	r.Plan[0].Market = store.OnDemand
	if got := r.PriceOf(store.Prices{}, list); got.Hour != 5 {
		t.Errorf("PriceOf = %+v, want 5", got)
	}
	r.Launch.Options.Tenancy = store.Dedicated
	if got := r.PriceOf(store.Prices{}, list); got.Hour != 0 {
		t.Errorf("PriceOf a dedicated machine = %+v, want that it is not known", got)
	}
}

// A deploy happens while machines live: what the version before wrote has no cost, and
// reads what this one writes.
func TestRecordsOfTheVersionBeforeHaveCostsThatAreNotKnown(t *testing.T) {
	// with returns an item as this version writes it, and without as the one before did.
	with := func(i store.Item, later ...string) (whole, before []byte) {
		whole, err := store.Encode(i)
		if err != nil {
			t.Fatal(err)
		}
		members := map[string]json.RawMessage{}
		if err := json.Unmarshal(whole, &members); err != nil {
			t.Fatal(err)
		}
		for _, name := range later {
			if _, ok := members[name]; !ok {
				t.Fatalf("%s has no member %q: %s", i.Ref(), name, whole)
			}
			delete(members, name)
		}
		if before, err = json.Marshal(members); err != nil {
			t.Fatal(err)
		}
		return whole, before
	}
	ended := machineAt("a", time.Hour)
	ended.State, ended.EndedAt, ended.Cost = store.RunnerEnded, closing, store.Cost{Zone: "eu-west-2a", Hour: 36_000, Seconds: 3600, Total: 36_000}
	quota := store.Quota{Account: ended.Account, Live: 5, Limit: 9, Spent: store.Spent{Day: "2026-03-01", Cost: 1}}
	_, oldRunner := with(&ended, "cost")
	_, oldQuota := with(&quota, "spent")
	r, err := store.Decode(ended.Ref(), oldRunner)
	if err != nil || r.(*store.Runner).Cost != (store.Cost{}) {
		t.Fatalf("a runner of the version before = %+v, %v; want its cost unknown", r, err)
	}
	q, err := store.Decode(quota.Ref(), oldQuota)
	if err != nil || q.(*store.Quota).Spent != (store.Spent{}) {
		t.Fatalf("a quota of the version before = %+v, %v; want nothing spent", q, err)
	}

	// A machine that lived through the deploy ends with the prices of this version.
	live := machineAt("b", time.Hour)
	d, ok := finish(live, store.Usage{ID: store.UsageRef(closing, live.Repository).ID}, "ci", store.Price{Hour: 36_000})
	if !ok || d.Runner.Cost.Total != 36_000 {
		t.Errorf("it cost %+v, want an hour", d.Runner.Cost)
	}

	// The version before knows the other members, and leaves these out.
	whole, _ := with(&ended)
	var known struct {
		ID    string            `json:"id"`
		State store.RunnerState `json:"state"`
	}
	if err := json.Unmarshal(whole, &known); err != nil || known.ID != "a" || known.State != store.RunnerEnded {
		t.Errorf("the version before reads %+v, %v; want the runner", known, err)
	}
}

// finish ends a runner with the usage of its day.
func finish(r store.Runner, u store.Usage, workflow string, p store.Price) (store.Decision, bool) {
	c := store.Case{
		Runner: r, Usage: u, Lock: store.Lock{Key: r.Lock}, Quota: store.Quota{Account: r.Account, Live: 5, Limit: 9},
		Request: store.Request{ID: "q-" + r.ID, Origin: store.Origin{Workflow: workflow}},
	}
	return c.Finish(closing, lim, store.Instance{ID: r.InstanceID, State: "terminated"}, "EC2 says so", p)
}

func TestUsageOfADayHasARowForEachKindOfMachine(t *testing.T) {
	u := store.Usage{ID: store.UsageRef(closing, store.Repository{ID: "7"}).ID}
	add := func(workflow, typ, market string, p store.Price) {
		t.Helper()
		r := machineAt("a", time.Hour)
		r.Plan = []store.Placement{{Market: market, InstanceType: typ, Subnet: "subnet-a"}}
		d, ok := finish(r, u, workflow, p)
		if !ok || len(d.Changes) == 0 {
			t.Fatalf("Finish = %+v, %t", d, ok)
		}
		u = d.Usage
	}
	add("build", "c7g.large", store.Spot, store.Price{Hour: 10})
	add("build", "c7g.large", store.Spot, store.Price{Hour: 20})
	add("build", "c7g.large", store.OnDemand, store.Price{Hour: 30})
	add("build", "m7g.large", store.Spot, store.Price{})
	add("", "c7g.large", store.Spot, store.Price{Hour: 40})
	want := []store.UsageRow{
		{Account: "111111111111", Workflow: "build", InstanceType: "c7g.large", Market: store.Spot, Runners: 2, Seconds: 7200, Cost: 30},
		{Account: "111111111111", Workflow: "build", InstanceType: "c7g.large", Market: store.OnDemand, Runners: 1, Seconds: 3600, Cost: 30},
		{Account: "111111111111", Workflow: "build", InstanceType: "m7g.large", Market: store.Spot, Runners: 1, Seconds: 3600, Unpriced: 3600},
		{Account: "111111111111", InstanceType: "c7g.large", Market: store.Spot, Runners: 1, Seconds: 3600, Cost: 40},
	}
	if fmt.Sprint(u.Rows) != fmt.Sprint(want) || u.Repository.Name != "acme/shop" || u.Day() != closing.Format(time.DateOnly) || u.TTL == 0 {
		t.Errorf("the usage is %+v, want rows %+v", u, want)
	}

	for n := range 700 {
		add(fmt.Sprintf("workflow %d %s", n, strings.Repeat("é", 100)), "c7g.large", store.Spot, store.Price{Hour: 1})
	}
	others, runners := 0, 0
	for _, r := range u.Rows {
		runners += r.Runners
		if r.Workflow == store.OtherWorkflows {
			others = r.Runners
		}
		if len(r.Workflow) > 100 {
			t.Errorf("a row's workflow has %d bytes", len(r.Workflow))
		}
	}
	if len(u.Rows) != 501 || runners != 705 || others != 700-496 {
		t.Errorf("%d rows with %d runners, %d of other workflows; want 501, 705 and 204", len(u.Rows), runners, others)
	}
	b, err := store.Encode(&u)
	if err != nil || len(b) > 200<<10 {
		t.Errorf("the item has %d bytes, %v; want at most half of what the table takes", len(b), err)
	}
}

// Whatever loses, is repeated or comes again: each runner is in the usage once, with all of
// its seconds.
func TestEachRunnerIsRolledUpOnce(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		usage, ended := map[string]store.Usage{}, map[string]store.Runner{}
		var seconds, unpriced int64
		var total store.MicroUSD
		for range 60 {
			id := fmt.Sprint(r.IntN(20))
			run, known := ended[id]
			if !known {
				run = machineAt(id, time.Duration(r.IntN(1e5))*time.Second)
				run.Repository.ID = fmt.Sprint(r.IntN(3))
				if r.IntN(10) == 0 {
					run.InstanceID, run.LaunchedAt = "", time.Time{} // nothing was launched
				}
			}
			ref := store.UsageRef(closing, run.Repository)
			u := usage[ref.ID]
			u.ID = ref.ID
			price := store.Price{Hour: store.MicroUSD(r.IntN(3)) * 50_000}
			d, ok := finish(run, u, "build", price)
			if ok == known {
				t.Fatalf("seed %d: runner %s ended %t, and ends again: %t", seed, id, known, ok)
			}
			if !ok || r.IntN(3) == 0 { // the commit loses, and is decided again later
				continue
			}
			ended[id], usage[ref.ID] = d.Runner, d.Usage
			seconds, total = seconds+d.Runner.Cost.Seconds, total+d.Runner.Cost.Total
			if run.InstanceID != "" && d.Runner.Cost.Seconds != int64(closing.Sub(run.LaunchedAt).Seconds()) {
				t.Errorf("seed %d: runner %s has %d seconds, want %s", seed, id, d.Runner.Cost.Seconds, closing.Sub(run.LaunchedAt))
			}
			if price.Hour == 0 {
				unpriced += d.Runner.Cost.Seconds
			}
		}
		for _, u := range usage {
			for _, row := range u.Rows {
				seconds, unpriced, total = seconds-row.Seconds, unpriced-row.Unpriced, total-row.Cost
			}
		}
		if seconds != 0 || unpriced != 0 || total != 0 {
			t.Errorf("seed %d: the usage lacks %d seconds, %d of them without a price, and %s", seed, seconds, unpriced, total)
		}
	}
}
