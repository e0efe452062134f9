package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestMachinesThatEndAreSpending(t *testing.T) {
	q := store.Quota{Account: "111111111111", Live: 9, Limit: 9}
	end := func(at time.Time, id string, p store.Price) {
		t.Helper()
		r := machineAt(id, time.Hour)
		u := store.Usage{ID: store.UsageRef(at, r.Repository).ID}
		d, ok := store.Case{Runner: r, Usage: u, Lock: store.Lock{Key: r.Lock}, Quota: q, Request: store.Request{ID: "q"}}.Finish(closing, lim, store.Instance{ID: r.InstanceID}, "gone", p)
		if !ok {
			t.Fatal("Finish refused")
		}
		q = d.Quota
	}
	end(closing, "a", store.Price{Hour: 3_000_000})
	end(closing, "b", store.Price{Hour: 5_000_000})
	end(closing, "c", store.Price{}) // not known
	end(closing.AddDate(0, 0, -1), "d", store.Price{Hour: 7_000_000})
	day := closing.Format(time.DateOnly)
	if want := (store.Spent{Day: day, Cost: 8_000_000}); q.Spent != want {
		t.Errorf("spent = %+v, want %+v", q.Spent, want)
	}
	tomorrow := closing.AddDate(0, 0, 1)
	if d := q.Spending(closing, store.DailyBudget{USD: "10.01"}); d.Alarm != "" || len(d.Changes) != 0 {
		t.Errorf("below 80 %%: %+v, want nothing", d)
	}
	d := q.Spending(closing, store.DailyBudget{USD: "10"})
	if d.Alarm != store.AlarmBudget || d.Quota.Spent.Told != day {
		t.Errorf("at 80 %%: alarm %q, %+v; want it, noted", d.Alarm, d.Quota.Spent)
	}
	q = d.Quota
	if d := q.Spending(closing.Add(time.Minute), store.DailyBudget{USD: "10"}); d.Alarm != "" {
		t.Error("the alarm is raised twice on one day")
	}
	if d := q.Spending(tomorrow, store.DailyBudget{USD: "1"}); d.Alarm != "" {
		t.Error("the alarm of today counts what was spent yesterday")
	}
	end(tomorrow, "e", store.Price{Hour: 1_000_000})
	if q.Spent.Cost != 1_000_000 || q.Spending(tomorrow, store.DailyBudget{USD: "1"}).Alarm == "" {
		t.Errorf("on the next day: %+v, want one dollar, and an alarm again", q.Spent)
	}
	if d := q.Spending(tomorrow, store.DailyBudget{}); d.Alarm != "" {
		t.Error("there is an alarm without a budget")
	}
}

func TestStartsWaitOnceTheBudgetIsSpent(t *testing.T) {
	spent := func(usd store.MicroUSD) store.Quota {
		return store.Quota{Spent: store.Spent{Day: closing.Format(time.DateOnly), Cost: usd}}
	}
	late := time.Date(2026, 3, 1, 23, 59, 30, 0, time.UTC)
	for name, c := range map[string]struct {
		budget store.DailyBudget
		quota  store.Quota
		now    time.Time
		want   store.Wait
	}{
		"Below":       {store.DailyBudget{USD: "10", Wait: true}, spent(9_999_999), closing, store.Wait{}},
		"Reached":     {store.DailyBudget{USD: "10", Wait: true}, spent(10_000_000), closing, store.Wait{For: store.WaitBudget, Until: closing.Add(2 * time.Minute)}},
		"AtMidnight":  {store.DailyBudget{USD: "10", Wait: true}, spent(10_000_000), late, store.Wait{For: store.WaitBudget, Until: late.Add(30 * time.Second)}},
		"NextDay":     {store.DailyBudget{USD: "10", Wait: true}, spent(10_000_000), late.Add(time.Minute), store.Wait{}},
		"OnlyAlarmed": {store.DailyBudget{USD: "10"}, spent(99_000_000), closing, store.Wait{}},
		"NoBudget":    {store.DailyBudget{}, spent(99_000_000), closing, store.Wait{}},
		"NoneSpent":   {store.DailyBudget{USD: "10", Wait: true}, store.Quota{}, closing, store.Wait{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (store.Account{DailyBudget: c.budget}).OverBudget(c.now, lim, c.quota); got.For != c.want.For || !got.Until.Equal(c.want.Until) {
				t.Errorf("OverBudget = %+v, want %+v", got, c.want)
			}
		})
	}
}
