package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRestartBeforeTheBootIsAnsweredKeepsTheNonce(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.lose = func(string) bool { return len(w.calls) < 3 }
		w.boot()
		w.kill()
		w.boot()
		w.later(time.Minute)
		if len(w.nonces) != 1 || len(w.of("boot")) != 3 || len(w.configs) != 1 {
			t.Errorf("%d nonces, %d boots, %d programs; want 1, 3, 1", len(w.nonces), len(w.of("boot")), len(w.configs))
		}
	})
}

func TestRestartAfterTheBootGoesOn(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.later(time.Minute)
		w.kill()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.later(10 * time.Minute)
		w.boot()
		w.happen(ProgramEvent{Kind: Connected}) // told again
		w.later(time.Minute)
		w.kill()
		w.later(time.Minute)
		w.boot()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}) // told again
		w.happen(ProgramEvent{Kind: JobDone})
		w.exit(0)
		w.wantSaid("booting", "online", "job_started 1", "job_done")
		if len(w.of("boot")) != 1 || len(w.configs) != 2 {
			t.Errorf("%d boots and %d configs, want 1 and 2", len(w.of("boot")), len(w.configs))
		}
		var last int64
		for _, c := range w.of("events") {
			if c.event.Counter <= last {
				t.Errorf("counter %d after %d, want it to rise", c.event.Counter, last)
			}
			last = c.event.Counter
		}
		if got := w.timers; len(got) != 3 || !got[2].Equal(got[0]) {
			t.Errorf("timers = %v, want the first again and again", got)
		}
	})
}

func TestProgramThatEndedWhileTheAgentWasAway(t *testing.T) {
	for name, c := range map[string]struct {
		mode string
		job  bool
		said []string
		off  string // "": it continues with the next config
	}{
		"AfterItsJobEndsAnEphemeralMachine":   {store.Ephemeral, true, []string{"booting", "online", "job_started 1", "job_done"}, "the job is done"},
		"WithoutAJobEndsAnEphemeralMachine":   {store.Ephemeral, false, []string{"booting", "online", "draining agent_ended"}, store.EndAgent},
		"AfterItsJobFreesASharedMachine":      {store.Shared, true, []string{"booting", "online", "job_started 1", "job_done"}, ""},
		"WithoutAJobGivesWayOnASharedMachine": {store.Shared, false, []string{"booting", "online"}, ""},
		"BeforeItListensEndsASharedMachine":   {"unconnected", false, []string{"booting", "draining agent_ended"}, store.EndAgent},
		"WithoutAJobIsMeantWhileDraining":     {"drained", false, []string{"booting", "online", "idle"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			mode := c.mode
			if mode == "drained" || mode == "unconnected" {
				mode = store.Shared
			}
			bubble(t, mode, func(w *world) {
				w.boot()
				if c.mode != "unconnected" {
					w.connect()
				}
				if c.mode == "drained" {
					w.order = "drain"
					w.later(30 * time.Second)
				}
				if c.job {
					w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
				}
				w.kill()
				w.exit(0)
				w.boot()
				w.wantSaid(c.said...)
				configs := 1
				if c.off != "" {
					w.wantOff(c.off)
				} else if c.mode == store.Shared {
					configs = 2
				}
				if len(w.configs) != configs || len(w.of("boot")) != 1 {
					t.Errorf("%d configs and %d boots, want %d and 1", len(w.configs), len(w.of("boot")), configs)
				}
			})
		})
	}
}

func TestProgramThatStaysAfterItsJobIsNotWaitedForAfterARestart(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone})
		w.kill()
		w.boot()
		w.later(exitGrace)
		w.wantOff("the job is done")
	})
}

func TestIdleLimitHoldsAfterARestart(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.kill()
		w.boot()
		w.later(10 * time.Minute)
		w.wantSaid("booting", "online", "idle")
	})
}

// Wherever the agent's process ends, the next one takes the machine to the same
// end, with one nonce, each event once and in order, and each config used once.
func TestRestartAtAnyCallComesToTheSameEnd(t *testing.T) {
	for _, mode := range []string{store.Ephemeral, store.Shared} {
		said := []string{"booting", "online", "job_started 1", "job_done"}
		configs := []string{configOf(1)}
		if mode == store.Shared {
			said = append(said, "online", "job_started 2", "job_done", "idle")
			configs = append(configs, configOf(2))
		}
		for _, lost := range []bool{false, true} { // the call took effect, and its answer was lost or not
			for k := 1; k <= 12; k++ {
				t.Run(fmt.Sprintf("%s/%d/%v", mode, k, lost), func(t *testing.T) {
					bubble(t, mode, func(w *world) {
						kills := 0
						w.lose = func(string) bool {
							if len(w.calls) != k {
								return false
							}
							kills++
							w.stop(errKilled)
							return lost
						}
						again := func() {
							synctest.Wait()
							if kills == 1 {
								kills++
								w.kill()
								w.boot()
								w.later(20 * time.Second)
							}
						}
						w.boot()
						again()
						w.connect()
						again()
						for _, run := range []string{"1", "2"} {
							w.happen(ProgramEvent{Kind: JobStarted, RunID: run})
							again()
							w.later(time.Minute)
							again()
							w.happen(ProgramEvent{Kind: JobDone})
							again()
							if run == "2" {
								w.order = "drain"
							}
							w.exit(0)
							again()
							w.later(25 * time.Second)
							again()
							if mode == store.Ephemeral {
								break
							}
						}
						w.wantSaid(said...)
						if len(w.nonces) != 1 || !slices.Equal(w.configs, configs) {
							t.Errorf("%d nonces and configs %q, want 1 and %q", len(w.nonces), w.configs, configs)
						}
						if kills != 2 && mode == store.Shared {
							t.Errorf("the agent was not killed: there were only %d calls", len(w.calls))
						}
						if mode == store.Ephemeral {
							w.wantOff("the job is done")
						} else {
							w.wantOn()
						}
					})
				})
			}
		}
	}
}

func TestStateThatCannotBeKept(t *testing.T) {
	t.Run("BeforeTheBootEndsTheMachine", func(t *testing.T) {
		bubble(t, store.Ephemeral, func(w *world) {
			w.saveErr = errors.New("disk full")
			w.boot()
			w.wantOff("disk full")
			if len(w.calls) != 0 {
				t.Errorf("calls = %+v, want none: the nonce would be lost", w.calls)
			}
		})
	})
	t.Run("AfterTheBootEndsNothing", func(t *testing.T) {
		bubble(t, store.Ephemeral, func(w *world) {
			w.boot()
			w.saveErr = errors.New("disk full")
			w.connect()
			w.job("1", time.Hour)
			w.wantOff("the job is done")
			w.wantSaid("booting", "online", "job_started 1", "job_done")
		})
	})
	t.Run("UnreadableEndsTheMachine", func(t *testing.T) {
		bubble(t, store.Ephemeral, func(w *world) {
			w.loadErr = errors.New("input/output error")
			w.boot()
			w.wantOff("input/output error")
		})
	})
	t.Run("SpoiltEndsTheMachine", func(t *testing.T) {
		bubble(t, store.Ephemeral, func(w *world) {
			w.disk = []byte(`{"runner":`)
			w.boot()
			w.wantOff("none of ours")
		})
	})
	t.Run("OfAnotherRunnerIsNone", func(t *testing.T) {
		bubble(t, store.Ephemeral, func(w *world) {
			w.disk = []byte(`{"runner":"r0","nonce":"old","session":"old","counter":5}`)
			w.boot()
			if len(w.of("boot")) != 1 || w.nonces[0] == "old" {
				t.Errorf("%d boots with nonces %q, want one with a new nonce", len(w.of("boot")), w.nonces)
			}
		})
	})
}
