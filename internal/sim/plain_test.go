package sim_test

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// plainWorld plays a story with workflow jobs, and has a look at all that must hold once
// nothing is left.
func plainWorld(t *testing.T, cfg sim.Config, story func(w *sim.World)) {
	t.Helper()
	cfg.Plain = true
	sim.Run(t, cfg, func(w *sim.World) {
		story(w)
		healed := time.Now()
		w.Quiet(90 * time.Minute)
		w.Check()
		w.Healed(healed, 0, w.PlainJobs(), w.Alarms())
	})
}

// ran waits until a job is over, and returns how long that took.
func ran(w *sim.World, job string, limit time.Duration) time.Duration {
	w.Helper()
	return w.Until("job "+job+" is done", limit, func() bool { return w.Done(job) })
}

func TestAPlainJobRuns(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute})
		ran(w, job, 4*time.Minute)
		w.Until("its request is ready", time.Minute, func() bool { return w.States()[store.Ready] == 1 })
		if n := len(w.Fleet.Instances()); n != 1 {
			t.Errorf("%d machines, want one", n)
		}
	})
}

// Nobody hears of the jobs but by the reaper's looks: the first one alone has a webhook.
func TestJobsWithoutWebhooksAreServedByTheirRun(t *testing.T) {
	first := true
	plainWorld(t, sim.Config{Webhook: func(string, string) []time.Duration {
		if first {
			first = false
			return []time.Duration{0}
		}
		return nil
	}}, func(w *sim.World) {
		var jobs []string
		for range 3 {
			jobs = append(jobs, w.Plain(sim.PlainJob{Run: "77", Length: 10 * time.Minute}))
		}
		for _, j := range jobs {
			ran(w, j, 40*time.Minute)
		}
	})
}

// No webhook ever comes: the reaper's sweeps look into the repository.
func TestJobsOfWhichNoWebhookComesAreFound(t *testing.T) {
	plainWorld(t, sim.Config{Webhook: func(string, string) []time.Duration { return nil }}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: 5 * time.Minute})
		if took := ran(w, job, 20*time.Minute); took > 15*time.Minute {
			t.Errorf("done after %s, want ten minutes beside its own five", took)
		}
		w.Until("its request is ready", 10*time.Minute, func() bool { return w.States()[store.Ready] == 1 })
	})
}

// A set-up that fails each time ends no job, and does not launch machine after machine: the
// next comes after a pause, an operator reads why, and once it is fixed the job runs.
func TestAJobWhoseMachinesCannotBeSetUpWaitsForPeople(t *testing.T) {
	var fixed atomic.Bool
	plainWorld(t, sim.Config{Account: wanting, SetUp: func(int) (time.Duration, error) {
		if fixed.Load() {
			return 0, nil
		}
		return time.Second, errors.New("script: exit status 3")
	}}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute})
		time.Sleep(2 * time.Hour)
		// Pauses of 30 s, 1, 2, 4 and 8 minutes, and of ten from then on, each after a boot.
		if n := len(w.Fleet.Instances()); n < 12 || n > 17 {
			t.Errorf("%d machines in two hours, want at most one in ten minutes after the first five", n)
		}
		if !slices.Contains(w.Alarms(), store.AlarmJobWaits) {
			t.Error("no alarm, want one that tells people to look at the set-up")
		}
		fixed.Store(true)
		ran(w, job, 15*time.Minute)
	})
}

// An account that would rather know at once has the run cancelled, and gets no second machine.
func TestAJobWhoseMachineCannotBeSetUpCanBeCancelled(t *testing.T) {
	account := func(a *store.Account) { wanting(a); a.OnFailure = store.CancelRun }
	plainWorld(t, sim.Config{Account: account, SetUp: func(int) (time.Duration, error) { return time.Second, errors.New("script: exit status 3") }}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute})
		w.Until("it is cancelled", 5*time.Minute, func() bool { return w.JobOf(job).State == simgithub.Cancelled })
		w.Until("its request is over", 5*time.Minute, func() bool { return w.States()[store.Cancelled] == 1 })
		if n := len(w.Fleet.Instances()); n != 1 || !slices.Contains(w.Alarms(), store.AlarmJobWaits) {
			t.Errorf("%d machines, and alarms %v; want one, and %s", n, w.Alarms(), store.AlarmJobWaits)
		}
	})
}

// The account's registration moves to the organization, and back, while jobs wait: each is
// served where runners register when its machine is launched.
func TestAJobIsServedWhereRunnersRegisterByThen(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		held := w.Plain(sim.PlainJob{Length: time.Minute, Environment: true})
		time.Sleep(time.Minute)
		w.RegisterIn(true)
		time.Sleep(8 * time.Minute)
		w.Approve(held)
		ran(w, held, 15*time.Minute)
		for _, r := range w.GitHub.Minted() {
			if r.OrganizationID == "" {
				t.Errorf("%s is registered in repository %s, want the organization", r.Name, r.RepositoryID)
			}
		}
	})
}

// GitHub could not deliver the one webhook that mattered, and said so in its log, below many
// others. The account has so many repositories that their turns come too late, and GitHub
// does not answer the first look.
func TestAJobWhoseWebhookFailedIsFoundInTheLog(t *testing.T) {
	var silent atomic.Bool
	silent.Store(true)
	plainWorld(t, sim.Config{
		Account: func(a *store.Account) {
			for i := range 200 {
				a.Repositories = append(a.Repositories, store.Named{ID: strconv.Itoa(1000 + i), Name: "acme/r" + strconv.Itoa(i)})
			}
		},
		Webhook: func(_, event string) []time.Duration {
			if event == "queued" {
				return nil
			}
			return []time.Duration{0}
		},
		Logged: func(string, string) bool { return true },
		GitHub: func(op string) (f simgithub.Fault) {
			if op == simgithub.OpRuns && silent.CompareAndSwap(true, false) {
				f.Instead = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
			}
			return f
		},
	}, func(w *sim.World) {
		time.Sleep(90 * time.Second) // the first sweep, in a minute, is over
		silent.Store(true)
		job := w.Plain(sim.PlainJob{Length: time.Minute})
		for range 250 {
			w.GitHub.Deliver(simgithub.Delivery{Code: 202, Event: "workflow_job", Action: "completed", Repository: "1000"})
		}
		if took := ran(w, job, time.Hour); took > 11*time.Minute {
			t.Errorf("done after %s, want it found by the log within two sweeps", took)
		}
	})
}

func TestMachinesThatTakeEachOthersJobsServeAll(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		var jobs []string
		for range 8 {
			jobs = append(jobs, w.Plain(sim.PlainJob{Run: "77", Length: time.Minute}))
			time.Sleep(3 * time.Second)
		}
		for _, j := range jobs {
			ran(w, j, 10*time.Minute)
		}
		for _, j := range w.GitHub.Jobs() {
			if j.Refused {
				t.Errorf("job %s was refused on a machine of its own run", j.ID)
			}
		}
	})
}

// A DELETE that GitHub answers proves nothing: the job began a moment before, on a machine that
// drained since GitHub held the job back, and no webhook has told of it yet.
func TestAJobWhoseRegistrationIsDeletedKeepsItsMachine(t *testing.T) {
	plainWorld(t, sim.Config{Webhook: func(_, event string) []time.Duration {
		if event == "in_progress" {
			return []time.Duration{30 * time.Minute}
		}
		return []time.Duration{0}
	}}, func(w *sim.World) {
		w.GitHub.Change(func(r *simgithub.Rules) { r.BusyLag = 30 * time.Minute })
		job := w.Plain(sim.PlainJob{Length: 20 * time.Minute, Back: true})
		run := func() store.Runner {
			for _, r := range w.GitHub.Registrations() {
				return w.Runner(setting.RunnerIn(r.Name))
			}
			return store.Runner{}
		}
		w.Until("its machine drains", 10*time.Minute, func() bool { return run().State == store.RunnerDraining })
		w.Approve(job)
		ran(w, job, 30*time.Minute)
		if n := len(w.Fleet.Instances()); n != 1 {
			t.Errorf("%d machines, want one", n)
		}
	})
}

func TestAJobThatIsCancelledWhileItsMachineBootsLeavesNothing(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute})
		w.Until("its machine is launched", time.Minute, func() bool { return len(w.Fleet.Instances()) == 1 })
		if !w.CancelPlain(job) {
			t.Fatal("not cancelled")
		}
		// GitHub was asked a moment ago, and called it queued: the webhook is newer.
		w.Until("its request is over", time.Minute, func() bool { return w.States()[store.Cancelled] == 1 })
		if took := w.Quiet(10 * time.Minute); took > 6*time.Minute {
			t.Errorf("nothing was left after %s, want 6 minutes at most", took)
		}
	})
}

func TestAJobThatRunnersOfOthersTakeLeavesNothing(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute})
		time.Sleep(10 * time.Second)
		if !w.TakeElsewhere(job, "hers") {
			t.Fatal("not taken")
		}
		w.Until("its request is over", 2*time.Minute, func() bool { return w.States()[store.Cancelled] == 1 })
	})
}

func TestAJobThatWaitsForApprovalIsServedThen(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute, Environment: true})
		time.Sleep(30 * time.Minute)
		if n := len(w.Fleet.Instances()); n > 1 {
			t.Errorf("%d machines while it waits, want one at most", n)
		}
		w.Approve(job)
		ran(w, job, 15*time.Minute)
	})
}

// A leg of a matrix with max-parallel is queued, and given to nobody.
func TestALegThatIsHeldBackCostsFewMachines(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		job := w.Plain(sim.PlainJob{Length: time.Minute, Back: true})
		time.Sleep(time.Hour)
		if n := len(w.Fleet.Instances()); n > 9 {
			t.Errorf("%d machines in an hour, want 9 at most", n)
		}
		if !slices.Contains(w.Alarms(), store.AlarmJobWaits) {
			t.Errorf("alarms %v, want %s", w.Alarms(), store.AlarmJobWaits)
		}
		w.Approve(job)
		ran(w, job, 20*time.Minute)
	})
}

// A machine that took another job has the lock of its own launch: who stops the request of
// that job drains both.
func TestStopOfAJobDrainsTheMachineThatTookIt(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		twoOnline(w, time.Hour)
		swap(w)
		w.Until("both jobs run", 5*time.Minute, func() bool { return w.States()[store.Ready] == 2 })
		stopped := w.All()[0]
		run := w.Runner(stopped.Runner)
		if run.Lock == stopped.LockKey() {
			t.Fatalf("request %s has the machine of its own launch", stopped.ID)
		}
		if _, err := w.Client.Stop(w.Context(), stopped.ID, true); err != nil {
			t.Fatal(err)
		}
		if got := w.Runner(run.ID); got.State != store.RunnerDraining {
			t.Errorf("the machine is %s, want draining", got.State)
		}
	})
}

// GitHub gives the machine of one job to another, which was queued before it and whose run
// may have none.
func TestAForbiddenJobThatTakesAMachineIsRefusedThere(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		stranger := w.Plain(sim.PlainJob{Length: time.Minute, Event: "issues"})
		time.Sleep(10 * time.Second)
		ours := w.Plain(sim.PlainJob{Length: time.Minute})
		ran(w, stranger, 5*time.Minute)
		ran(w, ours, 10*time.Minute)
		for _, j := range w.GitHub.Jobs() {
			if j.Refused != (j.ID == stranger) {
				t.Errorf("job %s was refused = %t", j.ID, j.Refused)
			}
		}
		if !slices.Contains(w.Alarms(), store.AlarmJobForbidden) {
			t.Errorf("alarms %v, want %s", w.Alarms(), store.AlarmJobForbidden)
		}
	})
}

func TestAForbiddenJobHasNoMachineInTheWorld(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		w.Plain(sim.PlainJob{Length: time.Minute, Event: "issues"})
		time.Sleep(5 * time.Minute)
		if n := len(w.Fleet.Instances()); n != 0 || w.States()[store.Failed] != 1 {
			t.Errorf("%d machines, requests %v; want none, and one that failed", n, w.States())
		}
	})
}

// A machine is given another job than the one that it was launched for, and keeps it for half
// an hour: who waited for it gets another machine, and does not wait for that.
func TestAJobWhoseMachineIsTakenGetsAnotherAtOnce(t *testing.T) {
	plainWorld(t, sim.Config{}, func(w *sim.World) {
		robbed := w.Plain(sim.PlainJob{Length: time.Minute, Back: true})
		w.Until("its machine is online", 5*time.Minute, func() bool { return registered(w) == 1 && w.RunnerOf(w.All()[0].ID).State == store.RunnerOnline })
		w.Plain(sim.PlainJob{Length: 30 * time.Minute})
		time.Sleep(10 * time.Second)
		w.Approve(robbed)
		ran(w, robbed, 10*time.Minute)
	})
}
