package reaper_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBusyGhostsCost27DeletesEachAndOneAlarmEach(t *testing.T) {
	inWorld(t, func(w *world) {
		const ghosts = 20
		for i := range ghosts {
			run := w.draining(fmt.Sprintf("g%c", 'a'+i))
			w.hub.busy("42", run.Config.RunnerID, true)
		}
		for range 14 {
			w.run()
			time.Sleep(time.Minute)
		}
		w.run()
		w.wantAlarms()
		time.Sleep(time.Minute)
		w.run()
		w.wantAlarms(slices.Repeat([]store.Alarm{store.AlarmBusy}, ghosts)...)
		for range 344 {
			time.Sleep(time.Minute)
			w.run()
		}
		if got, want := w.hub.count("delete"), ghosts*27; got != want {
			t.Errorf("%d DELETEs in six hours for %d runners, want %d", got, ghosts, want)
		}
		w.wantRunner(id("ga"), store.RunnerDraining)
		w.minutes(1)
		w.wantRunner(id("ga"), store.RunnerEnding) // at its hard limit
		w.wantAlarms(slices.Repeat([]store.Alarm{store.AlarmBusy}, ghosts)...)
	})
}

func TestLongJobOfADrainingRunnerIsNoAlarm(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		w.hear(run.ID, store.Event{Kind: store.EventJobStarted})
		w.hear(run.ID, store.Event{Kind: store.EventDraining, Reason: store.EndAgent})
		w.hub.busy("42", run.Config.RunnerID, true)
		w.livingMinutes(40, run)
		w.hear(run.ID, store.Event{Kind: store.EventJobDone})
		w.minutes(1) // GitHub says busy a moment longer
		w.hub.busy("42", run.Config.RunnerID, false)
		w.minutes(5)
		w.wantRunner(run.ID, store.RunnerEnded)
		w.wantAlarms()
	})
}

func TestMachineThatFallsSilentWhileItsRunnerDrainsIsAlarmedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		w.hear(run.ID, store.Event{Kind: store.EventJobStarted})
		w.hear(run.ID, store.Event{Kind: store.EventDraining, Reason: store.EndAgent})
		w.hub.busy("42", run.Config.RunnerID, true)
		w.livingMinutes(20, run)
		w.minutes(2) // without a word
		w.wantAlarms()
		w.minutes(1)
		w.wantAlarms(store.AlarmBusy)
		w.minutes(60)
		w.wantAlarms(store.AlarmBusy)
		w.wantRunner(run.ID, store.RunnerDraining)
	})
}

func TestSilentMachineWithAJobIsAlarmedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		w.hear(run.ID, store.Event{Kind: store.EventJobStarted})
		w.hub.busy("42", run.Config.RunnerID, true)
		w.minutes(3) // without a word
		if got := w.wantRunner(run.ID, store.RunnerDraining); got.End.Code != store.EndLost {
			t.Errorf("end = %v, want lost", got.End)
		}
		w.minutes(14)
		w.wantAlarms()
		w.minutes(60)
		w.wantAlarms(store.AlarmBusy)
		w.wantRunner(run.ID, store.RunnerDraining)
	})
}

func TestMachineThatDoesNotRunEndsAtOnceWhateverGitHubSays(t *testing.T) {
	for name, state := range map[string]fleet.State{"Stopped": fleet.Stopped, "Stopping": fleet.Stopping} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.draining("r")
				w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
				w.hub.busy("42", run.Config.RunnerID, true)
				w.run()
				w.wantRunner(run.ID, store.RunnerDraining)
				deletes := w.hub.count("delete")
				w.fleet.set(here, run.InstanceID, state)
				time.Sleep(time.Minute)
				w.run()
				w.wantRunner(run.ID, store.RunnerEnding)
				if got := w.hub.count("delete") - deletes; got != 0 || w.fleet.count("terminate") != 1 {
					t.Errorf("%d more DELETEs and %d terminations, want none and one", got, w.fleet.count("terminate"))
				}
				w.minutes(1)
				w.wantRunner(run.ID, store.RunnerEnded)
				w.wantAlarms()
			})
		})
	}
}

func TestMachineThatEC2DoesNotShowMayRunAJob(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.hub.busy("42", run.Config.RunnerID, true)
		w.fleet.hidden[run.InstanceID] = true
		w.minutes(3)
		w.wantRunner(run.ID, store.RunnerDraining)
	})
}

// GitHub's view of a job lags: it deletes the registration of a runner whose job began
// a moment ago.
func TestJobWhoseRegistrationWasDeletedFinishes(t *testing.T) {
	deleted := func(w *world) store.Runner {
		run := w.online("r", sharedIn("42", "r"))
		w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
		time.Sleep(20 * time.Second)
		w.hear(run.ID, store.Event{Kind: store.EventDraining, Reason: store.EndAgent})
		w.run()
		if w.runner(run.ID).DeregisteredAt.IsZero() {
			w.t.Fatal("GitHub did not delete the registration")
		}
		return run
	}
	t.Run("InTenMinutes", func(t *testing.T) {
		inWorld(t, func(w *world) {
			run := deleted(w)
			w.minutes(10)
			w.wantRunner(run.ID, store.RunnerDraining)
			if n := w.fleet.count("terminate"); n != 0 {
				t.Errorf("EC2 was asked %d times to terminate it in its job, want 0", n)
			}
			w.hear(run.ID, store.Event{Kind: store.EventJobDone})
			w.hear(run.ID, store.Event{Kind: store.EventIdle})
			w.run()
			w.wantRunner(run.ID, store.RunnerEnding)
			w.wantAlarms()
		})
	})
	t.Run("OrEndsAtTheHardLimit", func(t *testing.T) {
		inWorld(t, func(w *world) {
			run := deleted(w)
			time.Sleep(time.Until(run.Hard) - time.Second)
			w.run()
			w.wantRunner(run.ID, store.RunnerDraining)
			time.Sleep(time.Second)
			w.run()
			w.wantRunner(run.ID, store.RunnerEnding)
		})
	})
}

func TestQueuedJobsOfASharedRunnerAreServedPastItsExp(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		serve := func(d int) { // a job of so many minutes
			t.Helper()
			w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
			w.livingMinutes(d, run)
			w.wantRunner(run.ID, store.RunnerBusy)
			w.hear(run.ID, store.Event{Kind: store.EventJobDone})
			w.hub.forget("42", w.runner(run.ID).Config.RunnerID)
			w.next(run.ID)
			w.livingMinutes(1, run)
			next := w.configure(w.runner(run.ID))
			w.hear(run.ID, store.Event{Kind: store.EventOnline})
			w.hub.online("42", next.Config.RunnerID, true)
		}
		serve(40)
		serve(40) // past exp, which is 65 minutes after the start
		serve(40)
		time.Sleep(30*time.Second - 1)
		w.alive(run)
		w.run()
		w.wantRunner(run.ID, store.RunnerOnline)
		time.Sleep(time.Nanosecond)
		w.run()
		if got := w.wantRunner(run.ID, store.RunnerDraining); got.Jobs != 3 || got.End.Code != store.EndExpired {
			t.Errorf("%d jobs, end %v; want three, and expired half a minute after it listened", got.Jobs, got.End)
		}
	})
}
