package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// oneAlarm wants the alarm about the account once, and no other.
func oneAlarm(w *sim.World) {
	w.Helper()
	if got := w.Alarms(); len(got) != 1 || got[0] != store.AlarmAccess {
		w.Errorf("%d alarms were raised, %v; want one for the account", len(got), got)
	}
}

// nobody wants no machine to live, and the account's quota given back.
func nobody(w *sim.World) {
	w.Helper()
	for _, m := range w.Fleet.Instances() {
		if !m.State.Over() {
			w.Errorf("machine %s is %s, want it ended", m.ID, m.State)
		}
	}
	if q := w.Quota(); q.Live != 0 {
		w.Errorf("the quota counts %d runners, want none", q.Live)
	}
	w.Check()
}

func TestRunnersOfARemovedAccountEndAsEver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body   apitype.Start
		job    time.Duration
		within time.Duration
	}{
		"Busy": {sim.Ephemeral("a"), 20 * time.Minute, 30 * time.Minute},
		"Idle": {sim.Shared("a"), 0, 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				s := w.Start(c.body)
				job := ""
				if c.job > 0 {
					job = w.Job(s.RunsOn, c.job)
				}
				w.Ready(s, 10*time.Minute)
				time.Sleep(time.Minute)
				w.Remove()
				w.Quiet(c.within)
				if job != "" && !w.Done(job) {
					w.Errorf("the job is %+v, want it done", w.JobOf(job))
				}
				if r := w.RunnerOf(s.ID); !strings.HasPrefix(r.History[len(r.History)-1].Reason, "EC2: terminated") {
					w.Errorf("the runner ended for %v, want EC2's word", r.History[len(r.History)-1])
				}
				time.Sleep(30 * time.Minute)
				nobody(w)
				oneAlarm(w)
			})
		})
	}
}

// What waits for a machine of a removed account learns of that in its next
// step, and the machine that was launched for it ends.
func TestOpenRequestsOfARemovedAccountFailAtOnce(t *testing.T) {
	t.Parallel()
	for name, until := range map[string]func(w *sim.World, s apitype.Started) bool{
		"BeforeItsIntent": func(*sim.World, apitype.Started) bool { return true },
		"BeforeItsConfig": func(w *sim.World, s apitype.Started) bool {
			return w.Request(s.ID).Runner != "" && w.RunnerOf(s.ID).InstanceID != ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{Fate: first(1, kernel.KillBefore, func(e kernel.Effect) bool {
				return e.Op == kernel.Mint || name == "BeforeItsIntent" && e.Part == kernel.Worker
			})}, func(w *sim.World) {
				s := w.Start(sim.Ephemeral("a"))
				w.Until("the machine", 5*time.Minute, func() bool { return until(w, s) })
				w.Remove()
				r := w.Final(s, 5*time.Minute)
				if r.State != store.Failed || r.Error.Code != "account_unknown" || r.Error.Retryable {
					w.Errorf("the request is %s for %v, want it failed with account_unknown, for good", r.State, r.Error)
				}
				w.Quiet(20 * time.Minute)
				nobody(w)
			})
		})
	}
}

func TestRunnersOfAnAccountThatRefusesUsEndByTime(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*sim.World){
		"RoleGone":           func(w *sim.World) { w.Distrust() },
		"RoleAndAccountGone": func(w *sim.World) { w.Remove(); w.Distrust() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{Account: func(a *store.Account) { a.HardS = 3600 }}, func(w *sim.World) {
				s := w.Start(sim.Shared("a"))
				w.Ready(s, 10*time.Minute)
				lose(w)
				hard := w.RunnerOf(s.ID).Hard
				time.Sleep(time.Until(hard.Add(w.Limits.BootLimit)))
				if r := w.RunnerOf(s.ID); r.State != store.RunnerEnding {
					w.Errorf("the runner is %s at its hard limit, want it ending: its machine may still run", r.State)
				}
				w.Until("the end by time", 15*time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerEnded })
				if last := w.RunnerOf(s.ID).History; !strings.Contains(last[len(last)-1].Reason, "could not be seen") {
					w.Errorf("the runner ended for %v, want it said that nobody saw it", last[len(last)-1])
				}
				nobody(w)
				oneAlarm(w)
			})
		})
	}
}

func TestAccountThatComesBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		w.Remove()
		time.Sleep(3 * time.Minute)
		w.RegisterWith("arn:aws:iam::111122223333:role/other")
		again := w.Start(sim.Ephemeral("b"))
		job := w.Job(again.RunsOn, time.Minute)
		w.Ready(again, 10*time.Minute)
		good(w, again, job)
		nobody(w)
		for _, a := range w.Alarms() {
			if a != store.AlarmAccess {
				w.Errorf("alarm %s, want none but the account's", a)
			}
		}
	})
}
