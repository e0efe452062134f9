package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestDrainedMachineLeavesItsJobAlone(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.order = "drain"
		w.later(30 * time.Minute)
		w.wantSaid("booting", "online", "job_started 1")
		w.happen(ProgramEvent{Kind: JobDone})
		w.exit(0)
		w.wantSaid("booting", "online", "job_started 1", "job_done", "idle")
		beats := len(w.of("heartbeat"))
		w.later(5 * time.Minute)
		w.wantOn()
		if len(w.of("heartbeat")) < beats+10 || len(w.of("next")) != 0 || w.cleans != 0 {
			t.Errorf("%d heartbeats since, %d calls of next, %d cleans; want the first alone", len(w.of("heartbeat"))-beats, len(w.of("next")), w.cleans)
		}
		w.order = "stop"
		w.later(22 * time.Second)
		w.wantOff("ordered to stop")
	})
}

// GitHub may have handed out a job just before: only the end of the runner
// program shows that none will run.
func TestDrainedMachineIsIdleOnceItsProgramIsGone(t *testing.T) {
	for mode, code := range map[string]int{store.Shared: 0, store.Ephemeral: 1} {
		t.Run(mode, func(t *testing.T) {
			bubble(t, mode, func(w *world) {
				w.boot()
				w.connect()
				w.order = "drain"
				w.later(time.Hour)
				w.wantSaid("booting", "online")
				w.exit(code)
				w.wantSaid("booting", "online", "idle")
				w.later(time.Hour)
				w.wantSaid("booting", "online", "idle")
				w.wantOn()
				w.answers = []int{410}
				w.later(22 * time.Second)
				w.wantOff("the runner is ended")
			})
		})
	}
}

func TestJobThatComesWhileDrainingIsDone(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.order = "drain"
		w.later(30 * time.Second)
		w.job("1", time.Minute)
		w.wantOff("the job is done")
		w.wantSaid("booting", "online", "job_started 1", "job_done")
	})
}

func TestMachineThatDrainsFromTheFirstStartsNothing(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.order = "drain"
		w.boot()
		w.wantSaid("booting", "idle")
		if len(w.configs) != 0 {
			t.Errorf("configs started = %q, want none", w.configs)
		}
	})
}

func TestIdleMachineAsksWhetherToDrain(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.later(time.Minute)
		w.connect()
		w.later(10 * time.Minute)
		w.wantSaid("booting", "online", "idle")
		w.later(150*time.Second - time.Millisecond)
		w.wantSaid("booting", "online", "idle")
		w.later(time.Millisecond)
		w.wantSaid("booting", "online", "idle", "idle") // "go" asks again after a quarter
		w.job("1", time.Hour)                           // no idling while it runs
		w.connect()                                     // the API heard of it last
		w.later(10*time.Minute - time.Millisecond)
		w.wantSaid("booting", "online", "idle", "idle", "job_started 1", "job_done", "online")
		w.order = "drain"
		w.later(time.Millisecond)
		w.wantSaid("booting", "online", "idle", "idle", "job_started 1", "job_done", "online", "idle")
		w.later(time.Hour)
		w.wantOn()
		w.exit(0)
		w.wantSaid("booting", "online", "idle", "idle", "job_started 1", "job_done", "online", "idle", "idle")
	})
}

func TestShortIdleLimitAsksOnceASecond(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.idle = 2
		w.boot()
		w.connect()
		w.later(2 * time.Second)
		w.later(3 * time.Second)
		w.wantSaid("booting", "online", "idle", "idle", "idle", "idle")
	})
}

func TestJobThatStartsBeforeTheAnswerEndsTheIdling(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.later(10*time.Minute - time.Millisecond)
		w.lose = func(string) bool { return true }
		w.later(time.Millisecond)
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.lose = nil
		w.later(time.Hour)
		w.wantSaid("booting", "online", "idle", "job_started 1")
	})
}

func TestProgramWithoutAJob(t *testing.T) {
	for name, c := range map[string]struct {
		mode   string
		code   int
		reason string
	}{
		"EndsAnEphemeralMachine":       {store.Ephemeral, 1, store.EndAgent},
		"TooOldEndsAnEphemeralMachine": {store.Ephemeral, ExitTooOld, store.EndTooOld},
		"TooOldEndsASharedMachine":     {store.Shared, ExitTooOld, store.EndTooOld},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, c.mode, func(w *world) {
				w.boot()
				w.lose = func(string) bool { return len(w.calls) < 6 }
				w.exit(c.code)
				w.wantOn() // until it was heard
				w.later(time.Minute)
				w.wantOff(c.reason)
				w.wantSaid("booting", "draining "+c.reason)
				if got := w.events[1].Detail; !strings.Contains(got, fmt.Sprintf("exit code %d", c.code)) {
					t.Errorf("detail = %q, want the exit code in it", got)
				}
			})
		})
	}
}

func TestTooOldIsReportedWhileDrainingToo(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.order = "drain"
		w.later(30 * time.Second)
		w.exit(ExitTooOld)
		w.wantOff(store.EndTooOld)
		w.wantSaid("booting", "draining runner_too_old")
	})
}

func TestSharedMachineAsksThreeTimesForAJob(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.exit(1)
		w.exit(1)
		w.job("1", time.Minute) // a job ends the row
		for range 3 {
			w.exit(1)
		}
		w.wantSaid("booting", "online", "online", "job_started 1", "job_done")
		w.wantOn()
		w.exit(1)
		w.wantOff(store.EndAgent)
		w.wantSaid("booting", "online", "online", "job_started 1", "job_done", "draining agent_ended")
		if len(w.configs) != 7 || w.cleans != 6 {
			t.Errorf("%d configs and %d cleans, want 7 and 6", len(w.configs), w.cleans)
		}
	})
}

func TestProgramThatDiesInItsJobEndsTheJob(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.exit(137)
		w.wantSaid("booting", "online", "job_started 1", "job_done")
		if got := w.events[3].Detail; !strings.Contains(got, "exit code 137") {
			t.Errorf("detail of job_done = %q, want the exit code in it", got)
		}
		if len(w.configs) != 2 {
			t.Errorf("%d configs, want the next one", len(w.configs))
		}
	})
}

func TestProgramThatStaysAfterItsJobIsNotWaitedForLong(t *testing.T) {
	for _, mode := range []string{store.Shared, store.Ephemeral} {
		t.Run(mode, func(t *testing.T) {
			bubble(t, mode, func(w *world) {
				w.boot()
				w.connect()
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone})
				w.later(exitGrace - time.Millisecond)
				if w.cleans != 0 || w.off != "" {
					t.Fatalf("%d cleans, off %q; want neither yet", w.cleans, w.off)
				}
				w.later(time.Millisecond)
				if mode == store.Ephemeral {
					w.wantOff("the job is done")
				} else if w.cleans != 1 || len(w.configs) != 2 {
					t.Errorf("%d cleans and %d configs, want 1 and 2", w.cleans, len(w.configs))
				}
			})
		})
	}
}

func TestRunIDThatComesLaterIsReported(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted}, ProgramEvent{Kind: JobStarted, RunID: "7"}, ProgramEvent{Kind: JobStarted, RunID: "8"}, ProgramEvent{Kind: JobStarted})
		w.wantSaid("booting", "online", "job_started", "job_started 7")
	})
}

func TestSpotNoticeIsReportedAtOnce(t *testing.T) {
	notice := Notice{NoticeSpot, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	t.Run("WhileAJobRuns", func(t *testing.T) {
		bubble(t, store.Shared, func(w *world) {
			w.boot()
			w.connect()
			w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
			w.notices <- notice
			w.notices <- notice
			w.wantSaid("booting", "online", "job_started 1", "draining spot_interruption")
			if got := w.events[3].Detail; got != "EC2 reclaims the machine at 2026-11-23T12:00:00Z" {
				t.Errorf("detail = %q, want the time", got)
			}
			w.happen(ProgramEvent{Kind: JobDone})
			w.exit(0)
			w.wantSaid("booting", "online", "job_started 1", "draining spot_interruption", "job_done", "idle")
			w.wantOn() // it is EC2's to end
		})
	})
	t.Run("BeforeTheBoot", func(t *testing.T) {
		bubble(t, store.Shared, func(w *world) {
			w.answers = []int{0}
			w.notices <- notice
			w.boot()
			w.later(time.Second)
			w.wantSaid("draining spot_interruption", "booting", "idle")
			if len(w.configs) != 0 {
				t.Errorf("configs started = %q, want none", w.configs)
			}
		})
	})
	t.Run("WhileAsking", func(t *testing.T) {
		bubble(t, store.Shared, func(w *world) {
			w.boot()
			w.connect()
			w.ready = time.Now().Add(time.Hour)
			w.job("1", time.Minute)
			w.notices <- notice
			w.wantSaid("booting", "online", "job_started 1", "job_done", "draining spot_interruption", "idle")
			asked := len(w.of("next"))
			w.later(time.Minute)
			if got := len(w.of("next")); got != asked {
				t.Errorf("%d calls of next after the notice, want none", got-asked)
			}
		})
	})
}

func TestRebalanceNoticeIsReportedAndChangesNothing(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.notices <- Notice{Kind: NoticeRebalance, At: time.Now()}
		close(w.notices)
		w.later(time.Minute)
		w.wantSaid("booting", "online", "note")
		if !strings.Contains(w.logs.String(), "kind=rebalance") {
			t.Errorf("log:\n%s\nwant the notice in it", w.logs.String())
		}
	})
}

func TestProgramThatDoesNotStartEndsTheMachine(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.startErr = fmt.Errorf("bad config %s of %s, %s", configOf(1), session, strings.Repeat("é", 4<<10))
		w.boot()
		w.wantOff(store.EndAgent)
		w.wantSaid("booting", "draining agent_ended")
		detail := w.events[1].Detail
		if len(detail) > 4<<10 || len(detail) < 4<<10-2 || !strings.Contains(detail, "bad config *** of ***, éé") || !strings.HasSuffix(detail, "é") {
			t.Errorf("detail of %d bytes = %q, want it cut between letters and without secrets", len(detail), detail)
		}
	})
}

func TestDetailOfBrokenTextIsNotTooLong(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.startErr = errors.New(strings.Repeat("\xff\xfea", 2<<10))
		w.boot()
		w.wantOff(store.EndAgent)
		if detail := w.events[1].Detail; len(detail) > 4<<10 || !strings.Contains(detail, "a?a?") {
			t.Errorf("detail of %d bytes = %q, want at most 4096 and ? for what does not print", len(detail), detail)
		}
	})
}

func TestMachineThatCannotBeCleanedEnds(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.cleanErr = errors.New("a process does not die")
		w.boot()
		w.connect()
		w.job("1", time.Minute)
		w.wantOff(store.EndAgent)
		w.wantSaid("booting", "online", "job_started 1", "job_done", "draining agent_ended")
		if got := w.events[4].Detail; !strings.Contains(got, "a process does not die") {
			t.Errorf("detail = %q, want the reason", got)
		}
	})
}

func TestMachineThatIsDoneDoesNotWaitForEverToSaySo(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.lose = func(string) bool { return true }
		w.job("1", time.Minute)
		w.later(lastWords - time.Millisecond)
		w.wantOn()
		w.later(time.Millisecond)
		w.wantOff("the job is done")
	})
}
