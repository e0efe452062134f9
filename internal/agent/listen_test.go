package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The runner program prints that it listens before GitHub has answered it, and a
// refusal of its version ends it.
func TestProgramThatGitHubRefusesAtOnceIsNeverSaidToListen(t *testing.T) {
	for _, mode := range []string{store.Ephemeral, store.Shared} {
		for _, after := range []time.Duration{0, 300 * time.Millisecond, firstPoll - time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", mode, after), func(t *testing.T) {
				bubble(t, mode, func(w *world) {
					w.boot()
					w.happen(ProgramEvent{Kind: Connected})
					w.later(after)
					w.exit(ExitTooOld)
					w.wantOff(store.EndTooOld)
					w.wantSaid("booting", "draining runner_too_old")
				})
			})
		}
	}
}

func TestProgramThatGitHubRefusesLaterWasSaidToListen(t *testing.T) {
	for _, mode := range []string{store.Ephemeral, store.Shared} {
		for _, after := range []time.Duration{firstPoll, 20 * time.Second} {
			t.Run(fmt.Sprintf("%s/%v", mode, after), func(t *testing.T) {
				bubble(t, mode, func(w *world) {
					w.boot()
					w.happen(ProgramEvent{Kind: Connected})
					w.later(after)
					w.exit(ExitTooOld)
					w.wantOff(store.EndTooOld)
					w.wantSaid("booting", "online", "draining runner_too_old")
				})
			})
		}
	}
}

func TestTooOldDecidesWheneverItComes(t *testing.T) {
	for _, mode := range []string{store.Ephemeral, store.Shared} {
		for name, c := range map[string]struct {
			play func(w *world)
			said string
			cut  bool // whether the job's end tells of the exit code
		}{
			"InAJob": {func(w *world) {
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
			}, "booting, online, job_started 1, job_done, draining runner_too_old", true},
			"AfterAJob": {func(w *world) {
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone})
			}, "booting, online, job_started 1, job_done, draining runner_too_old", false},
			"InAJobWhileDraining": {func(w *world) {
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
				w.order = "drain"
				w.later(30 * time.Second)
			}, "booting, online, job_started 1, job_done, draining runner_too_old", true},
		} {
			t.Run(mode+name, func(t *testing.T) {
				bubble(t, mode, func(w *world) {
					w.boot()
					w.connect()
					c.play(w)
					w.exit(ExitTooOld)
					w.wantOff(store.EndTooOld)
					w.wantSaid(strings.Split(c.said, ", ")...)
					if got := w.events[3].Detail; strings.Contains(got, "exit code 7") != c.cut {
						t.Errorf("detail of job_done = %q, want the exit code in it: %v", got, c.cut)
					}
					if got := w.events[4].Detail; !strings.Contains(got, "exit code 7") {
						t.Errorf("detail of draining = %q, want the exit code in it", got)
					}
					if w.cleans != 0 || len(w.of("next")) != 0 {
						t.Errorf("%d cleans and %d calls of next, want none: it would be refused again", w.cleans, len(w.of("next")))
					}
				})
			})
		}
	}
}

func TestTooOldOfALaterConfigEndsASharedMachine(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.job("1", time.Minute)
		w.happen(ProgramEvent{Kind: Connected})
		w.exit(ExitTooOld)
		w.wantOff(store.EndTooOld)
		w.wantSaid("booting", "online", "job_started 1", "job_done", "draining runner_too_old")
	})
}

func TestAnyOtherExitEndsItsConfigAlone(t *testing.T) {
	for _, code := range []int{0, 1, 2, 3, 4, 5, 6, 137, -1} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			bubble(t, store.Shared, func(w *world) {
				w.boot()
				w.connect()
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone})
				w.exit(code)
				w.wantOn()
				if want := []string{configOf(1), configOf(2)}; !slices.Equal(w.configs, want) {
					t.Errorf("configs started = %q, want %q", w.configs, want)
				}
			})
		})
	}
}

func TestEachConfigIsSaidToListenAfterASecond(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		said := []string{"booting"}
		for n := range 3 {
			w.happen(ProgramEvent{Kind: Connected})
			w.later(firstPoll - time.Millisecond)
			w.wantSaid(said...)
			w.later(time.Millisecond)
			said = append(said, "online")
			w.wantSaid(said...)
			w.happen(ProgramEvent{Kind: Connected}) // it reconnects, and says it once more
			w.later(time.Minute)
			w.wantSaid(said...)
			w.job(fmt.Sprint(n), time.Minute)
			said = append(said, fmt.Sprintf("job_started %d", n), "job_done")
			w.wantSaid(said...)
		}
		w.wantOn()
	})
}

func TestJobWithinThatSecondIsSaidToListenFirst(t *testing.T) {
	for name, before := range map[string]func(w *world){
		"AfterItPrintedThatItListens": func(w *world) { w.happen(ProgramEvent{Kind: Connected}) },
		"ThoughItPrintedNothing":      func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				w.boot()
				before(w)
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
				w.wantSaid("booting", "online", "job_started 1")
				w.later(time.Minute)
				w.happen(ProgramEvent{Kind: JobDone})
				w.exit(0)
				w.wantSaid("booting", "online", "job_started 1", "job_done")
				w.wantOff("the job is done")
			})
		})
	}
}

func TestRestartWhileListeningSaysItOnce(t *testing.T) {
	for name, listens := range map[string]time.Duration{"Before": firstPoll / 2, "After": time.Minute} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Shared, func(w *world) {
				w.boot()
				w.connect()
				w.job("1", time.Minute)
				w.happen(ProgramEvent{Kind: Connected})
				w.later(listens)
				w.kill()
				w.boot()
				w.later(time.Minute)
				w.wantSaid("booting", "online", "job_started 1", "job_done", "online")
				if got := len(w.of("online")); got != 2 {
					t.Errorf("online was said %d times, want once for each config", got)
				}
				w.exit(0)
				w.happen(ProgramEvent{Kind: Connected})
				w.later(firstPoll)
				w.wantSaid("booting", "online", "job_started 1", "job_done", "online", "online")
			})
		})
	}
}

// Requests wait for the first program of a shared machine. Nobody gives it another config
// before one listened: it must not ask for one and wait.
func TestFirstProgramThatEndsBeforeItListensEndsTheMachine(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.happen(ProgramEvent{Kind: Connected})
		w.later(firstPoll / 2)
		w.exit(1)
		synctest.Wait()
		w.later(time.Minute)
		w.wantSaid("booting", "draining agent_ended")
		w.wantOff("agent_ended")
	})
}
