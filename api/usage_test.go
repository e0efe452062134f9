package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// use puts the usage of a repository on a day into the table.
func (w *world) use(daysAgo int, repo store.Repository, rows ...store.UsageRow) {
	w.Helper()
	u := store.Usage{ID: store.UsageRef(time.Now().AddDate(0, 0, -daysAgo), repo).ID, Repository: repo, Rows: rows}
	w.put(&u)
}

// toldRows returns rows in words, one a line.
func toldRows(rows ...apitype.UsageRow) string {
	var b strings.Builder
	for _, r := range rows {
		usd := "unknown"
		if r.USD != nil {
			usd = fmt.Sprintf("%.6f", *r.USD)
		}
		fmt.Fprintln(&b, strings.Join(strings.Fields(strings.Join([]string{r.Day, r.Repository, r.Workflow, r.Account, r.InstanceType, r.Market}, " ")), " "), r.Runners, r.Seconds, r.UnpricedSeconds, usd)
	}
	return b.String()
}

func TestUsageIsAddedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		demo, other := store.Repository{ID: "1001", Name: "alphagov/demo"}, store.Repository{ID: "1002", Name: "alphagov/other"}
		row := func(workflow, typ, market string, seconds int64, cost store.MicroUSD) store.UsageRow {
			r := store.UsageRow{Account: accountID, Workflow: workflow, InstanceType: typ, Market: market, Runners: 1, Seconds: seconds, Cost: cost}
			if cost == 0 {
				r.Unpriced = seconds
			}
			return r
		}
		w.use(0, demo, row("Build", "c7g.large", store.Spot, 3600, 30_000), row("Build", "m7g.large", store.OnDemand, 60, 500_001))
		w.use(1, demo, row("", "c7g.large", store.Spot, 100, 0))
		w.use(1, other, row("Deploy", "c7g.large", store.Spot, 50, 0))
		w.use(7, demo, row("Build", "c7g.large", store.Spot, 9999, 9_999_999)) // before the seven days
		w.use(30, other, row("Build", "c7g.large", store.Spot, 7, 7))

		today, yesterday := time.Now().UTC().Format(time.DateOnly), time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
		for _, c := range []struct {
			token string
			query client.UsageQuery
			want  string
		}{
			{operatorToken, client.UsageQuery{}, "alphagov/demo 3 3760 100 0.530001\nalphagov/other 1 50 50 unknown\n 4 3810 150 0.530001\n"},
			{workflowToken, client.UsageQuery{}, "alphagov/demo 3 3760 100 0.530001\n 3 3760 100 0.530001\n"},
			{otherToken, client.UsageQuery{}, "alphagov/other 1 50 50 unknown\n 1 50 50 unknown\n"},
			{operatorToken, client.UsageQuery{Repository: "alphagov/other"}, "alphagov/other 1 50 50 unknown\n 1 50 50 unknown\n"},
			{operatorToken, client.UsageQuery{By: []string{"day", "workflow"}}, yesterday + " (none) 1 100 100 unknown\n" + yesterday + " Deploy 1 50 50 unknown\n" + today + " Build 2 3660 0 0.530001\n 4 3810 150 0.530001\n"},
			{operatorToken, client.UsageQuery{By: []string{"market", "type", "account"}}, accountID + " m7g.large ondemand 1 60 0 0.500001\n" + accountID + " c7g.large spot 3 3750 150 0.030000\n 4 3810 150 0.530001\n"},
			{operatorToken, client.UsageQuery{To: time.Now().AddDate(0, 0, -20), From: time.Now().AddDate(0, 0, -40)}, "alphagov/other 1 7 0 0.000007\n 1 7 0 0.000007\n"},
			{operatorToken, client.UsageQuery{To: time.Now().AddDate(0, 0, -50)}, " 0 0 0 0.000000\n"},
		} {
			got, err := w.client(c.token).Usage(t.Context(), c.query)
			if told := toldRows(append(got.Rows, got.Total)...); err != nil || told != c.want {
				t.Errorf("Usage(%+v) = %v\n%s, want\n%s", c.query, err, told, c.want)
			}
		}
		got, err := w.client(operatorToken).Usage(t.Context(), client.UsageQuery{})
		if want := time.Now().UTC().AddDate(0, 0, -6).Format(time.DateOnly); err != nil || got.From != want || got.To != today {
			t.Errorf("the days are %s to %s, %v; want the seven from %s on", got.From, got.To, err, want)
		}
	})
}

func TestUsageThatCannotBeMeantIsRefused(t *testing.T) {
	w := newWorld(t)
	for query, field := range map[string]string{
		"from=yesterday": "from", "to=2026-02-30": "to", "from=2026-03-02&to=2026-03-01": "from", "from=2026-01-01&to=2026-04-03": "from",
		"by=": "by", "by=colour": "by", "by=day,day": "by", "by=day,": "by", "repository=a": "repository",
	} {
		a := w.raw("GET", "/usage?"+query, operatorToken, nil)
		p := a.problem(t)
		if a.status != http.StatusUnprocessableEntity || p.Field != field || p.Detail == "" {
			t.Errorf("GET /usage?%s = %d %+v, want 422 that names %s", query, a.status, p, field)
		}
	}
	if a := w.raw("GET", "/usage?repository=alphagov/other", workflowToken, nil); a.status != http.StatusUnprocessableEntity {
		t.Errorf("another repository's usage = %d, want a refusal", a.status)
	}
}

func TestMoreUsageThanACallReadsIsRefused(t *testing.T) {
	w := newWorld(t)
	for n := range 3001 {
		w.use(n%30, store.Repository{ID: fmt.Sprint(n), Name: "acme/" + fmt.Sprint(n)}, store.UsageRow{Runners: 1})
	}
	from := time.Now().AddDate(0, 0, -40).UTC().Format(time.DateOnly)
	if a := w.raw("GET", "/usage?from="+from, operatorToken, nil); a.status != http.StatusUnprocessableEntity || !strings.Contains(string(a.body), "fewer days") {
		t.Errorf("GET /usage of 3,001 records = %d %s, want that it asks for less", a.status, a.body)
	}
	if a := w.raw("GET", "/usage", operatorToken, nil); a.status != http.StatusOK {
		t.Errorf("GET /usage of a week = %d, want it", a.status)
	}
}

func TestRunnerThatEndedTellsItsCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.machineFor(w.start(workflowToken, apitype.Start{Mode: store.Ephemeral}).ID)
		run := w.runner(m.id)
		if got, err := w.client(operatorToken).Runner(t.Context(), m.id); err != nil || got.Cost != nil {
			t.Errorf("before there are prices: %+v, %v; want no cost", got.Cost, err)
		}
		refs := store.PriceRefs(run.Account, run.Region)
		w.put(&store.Prices{Key: refs[0].ID, Hour: map[string]store.MicroUSD{store.SpotKey(run.Placement().InstanceType, "eu-west-2b"): 50_000}, Zones: map[string]string{run.Placement().Subnet: "eu-west-2b"}},
			&store.Prices{Key: refs[1].ID, Hour: map[string]store.MicroUSD{run.Placement().InstanceType: 90_000}})
		live, err := w.client(operatorToken).Runners(t.Context(), client.Query{Live: true})
		if err != nil || len(live.Runners) != 1 || live.Runners[0].Cost == nil || *live.Runners[0].Cost.HourUSD != 0.05 || live.Runners[0].Cost.USD != nil {
			t.Errorf("a runner that lives is %+v, %v; want its price", live.Runners, err)
		}
		run.State, run.EndedAt, run.End = store.RunnerEnded, time.Now(), &store.Failure{Code: store.EndIdle, Text: "Idle."}
		run.Cost = store.Cost{Zone: "eu-west-2a", Hour: 36_000, Seconds: 1800, Total: 18_000}
		w.put(&run)
		got, err := w.client(operatorToken).Runner(t.Context(), m.id)
		if err != nil || got.Cost == nil || *got.Cost.USD != 0.018 || *got.Cost.HourUSD != 0.036 || got.Cost.Zone != "eu-west-2a" || got.Cost.Seconds != 1800 {
			t.Errorf("Runner = %+v, %v; want what it cost", got.Cost, err)
		}
		run = w.runner(m.id)
		run.Cost.Hour, run.Cost.Total = 0, 0
		w.put(&run)
		if got, err = w.client(operatorToken).Runner(t.Context(), m.id); err != nil || got.Cost == nil || got.Cost.USD != nil || got.Cost.HourUSD != nil {
			t.Errorf("without a price: %+v, %v; want that it is not known", got.Cost, err)
		}
	})
}
