package sim_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// count returns how many of the things are as they should be.
func count[T any](things []T, is func(T) bool) (n int) {
	for _, t := range things {
		if is(t) {
			n++
		}
	}
	return n
}

func tooOld(w *sim.World, refused bool) {
	w.GitHub.Change(func(r *simgithub.Rules) { r.TooOld = refused })
}

func TestVersionThatIsRefusedAtOnceFailsItsRequestAndEachNextOne(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		tooOld(w, true)
		s := w.Start(sim.Shared("a"))
		if r := w.Final(s, 10*time.Minute); r.State != store.Failed || r.Error.Code != store.EndTooOld || r.Error.Retryable {
			w.Errorf("request is %s (%v), want failed: the program listened, and was refused", r.State, r.Error)
		}
		for i := range 3 {
			if r := w.Final(w.Start(sim.Shared(fmt.Sprint("again-", i))), time.Minute); r.State != store.Failed || r.Error.Code != store.EndTooOld {
				w.Errorf("the next request is %s (%v), want failed at once: its image is the same", r.State, r.Error)
			}
		}
		machines(w, 1)
		if n := count(w.Alarms(), func(a store.Alarm) bool { return a == store.AlarmRunnerTooOld }); n != 1 {
			w.Errorf("%d alarms, want one", n)
		}
		tooOld(w, false)
		w.NewImage()
		next := w.Start(sim.Shared("new-image"))
		w.Ready(next, 5*time.Minute)
		good(w, next, w.Job(next.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestVersionThatIsRefusedLaterLeavesTheRequestReadyAndItsImageRefused(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{3 * time.Second, 20 * time.Second, 5 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				s := w.Start(sim.Shared("a"))
				w.Until("the runner to be online", 5*time.Minute, func() bool { return w.Request(s.ID).State == store.Ready })
				time.Sleep(after)
				tooOld(w, true)
				w.Until("the runner to end", 5*time.Minute, func() bool { return w.RunnerOf(s.ID).State.Final() })
				if r := w.Request(s.ID); r.State != store.Ready {
					w.Errorf("request is %s, want ready: that is final", r.State)
				}
				if r := w.RunnerOf(s.ID); r.End.Code != store.EndTooOld || !slices.Contains(w.Alarms(), store.AlarmRunnerTooOld) {
					w.Errorf("the runner ended for %s, with alarms %v", r.End.Code, w.Alarms())
				}
				if r := w.Final(w.Start(sim.Shared("b")), time.Minute); r.State != store.Failed || r.Error.Code != store.EndTooOld {
					w.Errorf("the next request is %s (%v), want failed", r.State, r.Error)
				}
				machines(w, 1)
				w.Quiet(time.Hour)
				w.Check()
			})
		})
	}
}

func TestVersionThatIsRefusedInAJobEndsTheMachineAndBlamesNoImage(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Job(s.RunsOn, 10*time.Minute)
		w.Until("the job to run", 5*time.Minute, func() bool { return w.Request(s.ID).Runner != "" && w.RunnerOf(s.ID).State == store.RunnerBusy })
		time.Sleep(time.Minute)
		tooOld(w, true)
		w.Until("the runner to drain", time.Minute, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
		if r := w.RunnerOf(s.ID); r.End.Code != store.EndTooOld || r.Config.N != 1 {
			w.Errorf("the runner drains for %s with config %d, want %s and no config more", r.End.Code, r.Config.N, store.EndTooOld)
		}
		tooOld(w, false)
		next := w.Start(sim.Shared("b")) // what a machine says after a job is believed of itself alone
		w.Ready(next, 5*time.Minute)
		good(w, next, w.Job(next.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestReadyIsRecordedWithoutAnybodyWhoLooks(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.Pause(kernel.Reaper)
		first := w.Start(sim.Shared("a"))
		w.Until("a machine", time.Minute, func() bool { return len(w.Fleet.Instances()) == 1 })
		second := w.Start(sim.Shared("b"))
		w.Until("the request to be ready", time.Minute, func() bool { return w.Request(first.ID).State == store.Ready })
		run := w.RunnerOf(first.ID)
		if r := w.Request(first.ID); !r.ReadyAt.Equal(run.OnlineAt) || r.UpdatedAt.Sub(r.ReadyAt) > time.Second {
			w.Errorf("ready at %s, recorded at %s; the runner was online at %s", r.ReadyAt, r.UpdatedAt, run.OnlineAt)
		}
		if took := run.OnlineAt.Sub(run.ListeningAt); took <= 0 || took > time.Second {
			w.Errorf("GitHub's word took %s, want less than a second", took)
		}
		w.Resume(kernel.Reaper)
		w.Until("the other request to be ready", 2*time.Minute, func() bool { return w.Request(second.ID).State == store.Ready })
		if r := w.Request(second.ID); !r.ReadyAt.Equal(run.OnlineAt) {
			w.Errorf("the other is ready at %s, want %s", r.ReadyAt, run.OnlineAt)
		}
		good(w, first, w.Job(first.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestGhostIsSharedForTwoMinutesAtMost(t *testing.T) {
	t.Parallel()
	for _, reaps := range []bool{true, false} {
		t.Run(fmt.Sprintf("ReaperRuns=%v", reaps), func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				s := w.Start(sim.Shared("a"))
				w.Ready(s, 10*time.Minute)
				ghost := w.RunnerOf(s.ID)
				if err := w.GitHub.Forget(ghost.Config.RunnerID); err != nil {
					w.Fatal(err)
				}
				if !reaps {
					w.Pause(kernel.Reaper)
				}
				forgotten := time.Now()
				time.Sleep(w.Limits.Confirmed + w.Limits.ReaperPeriod)
				if r := w.Runner(ghost.ID); reaps && (r.State.Usable() || r.End.Code != store.EndUnlisted) {
					w.Errorf("runner is %s (%v) without any start, want it to drain as %s", r.State, r.End, store.EndUnlisted)
				}
				var jobs []string
				for i := range 12 { // an hour of starts
					q := w.Ready(w.Start(sim.Shared(fmt.Sprint("b-", i))), 5*time.Minute)
					if q.Runner == ghost.ID {
						w.Errorf("request is ready with the ghost, %s after GitHub forgot it", q.ReadyAt.Sub(forgotten))
					}
					jobs = append(jobs, w.Job(s.RunsOn, 30*time.Second))
					time.Sleep(5 * time.Minute)
				}
				if !reaps {
					w.Resume(kernel.Reaper)
				}
				good(w, s, jobs...)
				machines(w, 2)
			})
		})
	}
}

func TestRunnerThatUsedItsConfigUpIsNotSharedUntilItHasAnother(t *testing.T) {
	t.Parallel()
	up := in(5 * time.Hour)
	down := false
	sim.Run(t, sim.Config{GitHub: func(op string) (f simgithub.Fault) {
		if op == simgithub.OpMint && down && time.Now().Before(up) {
			f.Instead = answers(http.StatusBadGateway)
		}
		return f
	}}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		down = true
		first := w.RunnerOf(s.ID)
		job := w.Job(s.RunsOn, 30*time.Second)
		w.Until("the job to be done", 5*time.Minute, func() bool { return w.Runner(first.ID).Jobs == 1 })
		for i := 0; time.Until(up) > 10*time.Minute; i++ {
			body := sim.Shared(fmt.Sprint("b-", i))
			body.GiveUp = 240
			if r := w.Final(w.Start(body), 10*time.Minute); r.State == store.Ready {
				w.Errorf("request is ready with runner %s, and GitHub registers nothing", r.Runner)
			}
			time.Sleep(5 * time.Minute)
		}
		if n := len(w.Runner(first.ID).Names); n > 10 {
			w.Errorf("%d names are written in the record, want few", n)
		}
		time.Sleep(time.Until(up) + time.Minute)
		after := w.Start(sim.Shared("after"))
		w.Ready(after, 10*time.Minute)
		good(w, after, job, w.Job(after.RunsOn, 30*time.Second))
	})
}

func TestJobsThatAreQueuedForASharedRunnerAreServedUpToItsHardLimit(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a")) // for an hour
		w.Ready(s, 10*time.Minute)
		var jobs []string
		for range 3 {
			jobs = append(jobs, w.Job(s.RunsOn, 40*time.Minute))
		}
		w.Until("all three jobs to be done", 3*time.Hour, func() bool { return w.Done(jobs[0]) && w.Done(jobs[1]) && w.Done(jobs[2]) })
		done := time.Now()
		machines(w, 1)
		took := w.Until("the runner to drain", 5*time.Minute, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
		if r := w.RunnerOf(s.ID); r.End.Code != store.EndExpired || took < w.Limits.ShareStep || r.DrainingAt.Sub(done) > w.Limits.ShareStep+2*w.Limits.ReaperPeriod {
			w.Errorf("the runner drains %s after its last job, for %s; want it half a minute after", took, r.End.Code)
		}
		w.Quiet(time.Hour)
		w.Check()
	})
}

func TestJobThatBeganBeforeItsRegistrationWasDeletedRunsToItsEnd(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{25 * time.Second, time.Minute, 5 * time.Minute} {
		t.Run(lag.String(), func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				w.GitHub.Change(func(r *simgithub.Rules) { r.BusyLag = lag })
				s := w.Start(sim.Shared("a"))
				w.Ready(s, 10*time.Minute)
				time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(50 * time.Second)))
				job := w.Job(s.RunsOn, 10*time.Minute) // just before the reaper looks
				w.Until("the job to be told of", time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerBusy })
				stop(w, s)
				w.Until("the registration to be deleted", 2*time.Minute, func() bool { return !w.RunnerOf(s.ID).DeregisteredAt.IsZero() })
				w.Until("the job to be done", 15*time.Minute, func() bool { return w.Done(job) })
				w.Quiet(10 * time.Minute)
				w.Check()
				machines(w, 1)
			})
		})
	}
}

func TestTwentyBusyRunnersThatDrainLeaveGitHubAlone(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		var jobs []string
		var ids []string
		for i := range 20 {
			s := w.Start(sim.Ephemeral(fmt.Sprint(i)))
			jobs, ids = append(jobs, w.Job(s.RunsOn, 5*time.Hour)), append(ids, s.ID)
		}
		w.Until("all to be busy", 10*time.Minute, func() bool {
			return count(ids, func(id string) bool { return w.Request(id).Runner != "" && w.RunnerOf(id).State == store.RunnerBusy }) == 20
		})
		before := w.GitHub.Calls()[simgithub.OpDelete]
		for _, id := range ids {
			if _, err := w.Client.Stop(w.Context(), id, true); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(4 * time.Hour)
		calls := w.GitHub.Calls()[simgithub.OpDelete] - before
		// After a minute, two, four and eight, and then each quarter of an hour.
		if each := float64(calls) / 20; each > 20 {
			w.Errorf("%d DELETEs of twenty busy runners in four hours, which is %.1f each; want at most 20", calls, each)
		}
		w.Until("all jobs to be done", 2*time.Hour, func() bool { return count(jobs, w.Done) == 20 })
		took := w.Until("all to end", 10*time.Minute, func() bool { return len(w.Left()) == 0 })
		t.Logf("%d DELETEs for each in four hours; the last ended %s after its job", calls/20, took.Round(time.Second))
		w.Check()
		machines(w, 20)
	})
}

func TestMachineThatDoesNotRunIsNotBusy(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		r := w.RunnerOf(s.ID)
		if err := w.GitHub.Haunt(r.Config.RunnerID); err != nil {
			w.Fatal(err)
		}
		if err := w.Fleet.Stop(r.InstanceID); err != nil {
			w.Fatal(err)
		}
		w.Until("the runner to end", 10*time.Minute, func() bool { return w.Runner(r.ID).State == store.RunnerEnded })
		if n := w.GitHub.Calls()[simgithub.OpDelete]; n > 3 {
			w.Errorf("%d DELETEs, want none that waits for a job", n)
		}
		w.GitHub.Calm()
		w.Quiet(3 * time.Hour)
		w.Check()
	})
}

func TestRunnerThatGitHubCallsBusyForEverIsTold(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Account: func(a *store.Account) { a.HardS, a.MaxTimeoutS = 2*3600, 1800 }}, func(w *sim.World) {
		body := sim.Ephemeral("a")
		body.Timeout = 1800
		s := w.Start(body)
		w.Ready(s, 10*time.Minute)
		r := w.RunnerOf(s.ID)
		if err := w.GitHub.Haunt(r.Config.RunnerID); err != nil {
			w.Fatal(err)
		}
		stop(w, s)
		began := time.Now()
		busy := func() int { return count(w.Alarms(), func(a store.Alarm) bool { return a == store.AlarmBusy }) }
		w.Until("an alarm", 20*time.Minute, func() bool { return busy() > 0 })
		if took := time.Since(began); took < 15*time.Minute {
			w.Errorf("the alarm came after %s, and many jobs are as long", took)
		}
		w.Until("the runner to end", 2*time.Hour, func() bool { return w.Runner(r.ID).State == store.RunnerEnded })
		if at := w.Runner(r.ID).EndedAt; at.Before(r.Hard) || at.After(r.Hard.Add(3*time.Minute)) {
			w.Errorf("the runner ended at %s, want it at its hard limit, %s", at, r.Hard)
		}
		if n := busy(); n != 1 {
			w.Errorf("%d alarms, want one", n)
		}
		w.GitHub.Calm()
		w.Quiet(3 * time.Hour)
		w.Check()
	})
}

func TestJobThatGoesToAnotherRunnerLeavesNoGhost(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.GitHub.Change(func(r *simgithub.Rules) { r.LosesJobs = true })
		s := w.Start(sim.Shared("a"))
		job := w.Job(s.RunsOn, 30*time.Second)
		w.Ready(s, 10*time.Minute)
		time.Sleep(time.Minute)
		w.GitHub.Change(func(r *simgithub.Rules) { r.LosesJobs = false })
		// GitHub shows the used-up registration online: only the idle limit ends it.
		w.Until("the runner to drain", 15*time.Minute, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
		next := w.Start(sim.Shared("b"))
		good(w, next, job)
		for _, m := range w.Fleet.Instances() {
			if m.State != fleet.Terminated {
				w.Errorf("machine %s is %s", m.ID, m.State)
			}
		}
	})
}
