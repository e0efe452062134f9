package reaper_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Sixty machines of thirty repositories end at once, in several commits: each is in the usage
// of its repository, and its record says what it cost.
func TestMachinesThatEndTogetherAreRolledUpEach(t *testing.T) {
	inWorld(t, func(w *world) {
		priced(w, &list{version: "1", parts: []string{"c7g.large"}})
		a := w.accounts[account]
		a.InstanceTypes = []string{"m7i.large"} // as the plans of this world have it
		w.accounts[account] = a
		w.run() // which reads the prices
		var runners []store.Runner
		for n := range 60 {
			q := w.accept(fmt.Sprintf("r%c%c", 'a'+n/26, 'a'+n%26), func(q *store.Request) {
				q.Repository.ID, q.Origin.Workflow = fmt.Sprint(100+n/2), "build"
			})
			run := w.launch(w.begin(q))
			if n == 59 { // its zone is not known, and so no price
				run.Plan[run.Index].Subnet = "subnet-z"
				w.put(&run)
			}
			runners = append(runners, run)
		}
		began := time.Now()
		time.Sleep(30 * time.Minute)
		for _, run := range runners {
			w.fleet.kill(here, run.InstanceID, fleet.Terminated, "Client.UserInitiatedShutdown", "ended")
		}
		at := time.Now()
		w.minutes(3)
		for n, run := range runners {
			r := w.wantRunner(run.ID, store.RunnerEnded)
			u := get[store.Usage](w, store.UsageRef(at, r.Repository).ID)
			want := store.Cost{Zone: "zone of subnet-a", Hour: 1e6, From: r.LaunchedAt, To: r.EndedAt, Seconds: int64(r.EndedAt.Sub(began) / time.Second), Total: r.Cost.Total}
			if n == 59 {
				want.Zone, want.Hour = "", 0
			}
			if r.Cost != want || n != 59 && r.Cost.Total != store.MicroUSD(1e6*r.Cost.Seconds+1800)/3600 || n == 59 && r.Cost.Total != 0 {
				t.Errorf("runner %s cost %+v, want %+v", r.ID, r.Cost, want)
			}
			if len(u.Rows) != 1 || u.Rows[0].Runners != 2 || u.Rows[0].Workflow != "build" || u.Rows[0].Seconds < 2*r.Cost.Seconds-60 || (u.Rows[0].Unpriced > 0) != (n >= 58) {
				t.Errorf("the usage of repository %s is %+v, want its two machines", r.Repository.ID, u)
			}
		}
	})
}

func TestBudgetThatIsMostlySpentIsAnAlarmOnceADay(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.accounts[account]
		a.DailyBudget = store.DailyBudget{USD: "10"}
		w.accounts[account] = a
		q := get[store.Quota](w, account)
		q.Spent = store.Spent{Day: time.Now().UTC().Format(time.DateOnly), Cost: 7_999_999}
		w.put(&q)
		w.minutes(6)
		w.wantAlarms()
		q = get[store.Quota](w, account)
		q.Spent.Cost = 8_000_000
		w.put(&q)
		w.minutes(20)
		w.wantAlarms(store.AlarmBudget)
		if got := get[store.Quota](w, account); got.Spent.Told != got.Spent.Day {
			t.Errorf("the quota has %+v, want that the alarm was raised", got.Spent)
		}
	})
}
