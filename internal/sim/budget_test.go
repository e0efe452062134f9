package sim_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The first machine spends the budget of the day, and nothing is launched for what is
// asked for after its end. Before that nobody knows what it costs.
func TestNothingIsLaunchedOnceTheBudgetIsSpent(t *testing.T) {
	t.Parallel()
	cfg := sim.Config{Prices: true, Account: func(a *store.Account) { a.DailyBudget = store.DailyBudget{USD: "0.0001", Wait: true} }}
	sim.Run(t, cfg, func(w *sim.World) {
		time.Sleep(2 * time.Minute) // the reaper reads the prices
		first := w.Start(sim.Ephemeral("first"))
		w.Ready(first, 10*time.Minute)
		job := w.Job(first.RunsOn, 2*time.Minute)
		w.Until("the job to be done", time.Hour, func() bool { return w.Done(job) })
		w.Quiet(time.Hour)
		if q := w.Quota(); q.Spent.Cost == 0 {
			w.Fatalf("the account has spent %+v, want what the machine cost", q.Spent)
		}
		second := w.Start(sim.Ephemeral("second"))
		w.Until("the second to wait for the budget", 5*time.Minute, func() bool { return w.Request(second.ID).Wait == store.WaitBudget })
		if q := w.Final(second, time.Hour); q.State != store.Expired || q.Runner != "" || len(launches(w)) != 1 {
			w.Errorf("the second is %s with runner %q after %d launches, want it expired without a launch", q.State, q.Runner, len(launches(w)))
		}
		w.Check()
	})
}
