package agent

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestEphemeralMachineRunsOneJobAndEnds(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.later(5 * time.Second)
		w.connect()
		w.later(time.Minute)
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "77"})
		w.later(time.Hour)
		w.happen(ProgramEvent{Kind: JobDone})
		w.wantOn() // the runner program still uploads the log
		w.exit(0)
		w.wantOff("the job is done")
		w.wantSaid("booting", "online", "job_started 77", "job_done")
		if got := w.events[0].Detail; got != strings.Repeat("ab", 6) {
			t.Errorf("detail of booting = %q, want the agent's version", got)
		}
		if !slices.Equal(w.configs, []string{configOf(1)}) {
			t.Errorf("configs started = %q, want the first alone", w.configs)
		}
		if got := len(w.of("boot")); got != 1 {
			t.Errorf("%d boots, want 1", got)
		}
		if want := w.start.Add(6 * time.Hour); len(w.timers) != 1 || !w.timers[0].Equal(want) {
			t.Errorf("timers = %v, want %v alone", w.timers, want)
		}
		if got, want := len(w.of("heartbeat")), 3665/20; got < want*9/10 || got > want*11/10 {
			t.Errorf("%d heartbeats in 3665 s, want about %d", got, want)
		}
		if len(w.of("next")) != 0 || w.cleans != 0 {
			t.Errorf("%d calls of next and %d cleans, want none", len(w.of("next")), w.cleans)
		}
	})
}

func TestSharedMachineRunsOneJobAfterAnother(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.job("1", time.Minute)
		w.connect()
		w.job("2", time.Minute)
		w.wantSaid("booting", "online", "job_started 1", "job_done", "online", "job_started 2", "job_done")
		if want := []string{configOf(1), configOf(2), configOf(3)}; !slices.Equal(w.configs, want) {
			t.Errorf("configs started = %q, want %q", w.configs, want)
		}
		if w.cleans != 2 {
			t.Errorf("cleaned %d times, want 2: after each job", w.cleans)
		}
		w.wantOn()
	})
}

func TestNextConfigIsAskedForUntilItIsThere(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.ready = time.Now().Add(61 * time.Second)
		w.job("1", time.Minute)
		w.later(5 * time.Second)
		calls := w.of("next")
		if len(calls) != 2 || calls[0].n != 2 || calls[1].n != 2 || calls[1].at-calls[0].at != 2*time.Second {
			t.Errorf("calls of next = %+v, want two for config 2, Retry-After apart", calls)
		}
		if !slices.Equal(w.configs, []string{configOf(1), configOf(2)}) {
			t.Errorf("configs started = %q, want two", w.configs)
		}
	})
}

// Numbers may skip: a name that may have been used is never used again.
func TestNextConfigCountsFromTheLast(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.n = 5
		w.job("1", time.Minute)
		w.job("2", time.Minute)
		if calls := w.of("next"); len(calls) != 2 || calls[0].n != 2 || calls[1].n != 6 {
			t.Errorf("calls of next = %+v, want them for 2 and 6", calls)
		}
		if want := []string{configOf(1), configOf(5), configOf(6)}; !slices.Equal(w.configs, want) {
			t.Errorf("configs started = %q, want %q", w.configs, want)
		}
	})
}

func TestNextOtherThanGoDrains(t *testing.T) {
	for order, off := range map[string]bool{"drain": false, "stop": true, "unheard-of": false} {
		t.Run(order, func(t *testing.T) {
			bubble(t, store.Shared, func(w *world) {
				w.heartbeat = 600 // so that it is not told otherwise first
				w.boot()
				w.connect()
				w.ready = time.Now().Add(time.Hour)
				w.job("1", time.Minute)
				w.order = order
				w.later(3 * time.Second)
				if off {
					w.wantOff("ordered to stop")
					return
				}
				w.wantSaid("booting", "online", "job_started 1", "job_done", "idle")
				w.later(5 * time.Minute)
				w.wantOn() // until it is ordered to
				if got := len(w.of("next")); got != 2 {
					t.Errorf("%d calls of next, want none after the order", got)
				}
			})
		})
	}
}

func TestBootIsRepeatedUntilAnswered(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.answers = []int{0, 500, 502, 429, 503, 408, 302, 204, 0, 425, 425}
		w.boot()
		w.later(2 * time.Minute)
		boots := w.of("boot")
		if len(boots) != 12 || len(w.configs) != 1 || len(w.nonces) != 1 {
			t.Fatalf("%d boots, %d programs, %d nonces; want 12, 1, 1", len(boots), len(w.configs), len(w.nonces))
		}
		for i, longest := range []time.Duration{1, 2, 4, 8, 15, 15, 15, 15, 15} {
			pause := boots[i+1].at - boots[i].at
			if longest *= time.Second; pause < longest/2 || pause > longest {
				t.Errorf("pause %d = %v, want between %v and %v", i, pause, longest/2, longest)
			}
		}
		if pause := boots[11].at - boots[10].at; pause != 2*time.Second {
			t.Errorf("pause after 425 = %v, want what Retry-After says", pause)
		}
	})
}

func TestRefusedBootEndsTheMachine(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 409, 410, 413, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				w.answers = []int{425, status}
				w.boot()
				w.later(2 * time.Second)
				w.wantOff(fmt.Sprintf("the boot was refused with status %d", status))
				if len(w.configs) != 0 || len(w.of("boot")) != 2 {
					t.Errorf("%d programs and %d boots, want none and 2", len(w.configs), len(w.of("boot")))
				}
			})
		})
	}
}

func TestIncompleteBootAnswerIsNone(t *testing.T) {
	for name, spoil := range map[string]func(b map[string]any){
		"NoSession":   func(b map[string]any) { delete(b, "session") },
		"NoConfig":    func(b map[string]any) { delete(b, "config") },
		"NoNumber":    func(b map[string]any) { delete(b, "n") },
		"NoOrder":     func(b map[string]any) { delete(b, "order") },
		"UnknownMode": func(b map[string]any) { b["mode"] = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				w.meddle = once(w, rewrite(spoil))
				w.boot()
				if len(w.configs) != 0 {
					t.Error("a program was started")
				}
				w.later(2 * time.Second)
				if len(w.configs) != 1 || len(w.of("boot")) != 2 {
					t.Errorf("%d programs and %d boots, want 1 and 2", len(w.configs), len(w.of("boot")))
				}
			})
		})
	}
}

func TestLostAnswersLoseNothing(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		times := map[string]int{} // how often a call was made, with what
		w.lose = func(path string) bool {
			c := w.calls[len(w.calls)-1]
			key := fmt.Sprint(path, c.event.Event, c.event.RunID, c.n)
			times[key]++
			return c.event.Event != "heartbeat" && times[key] <= 3
		}
		w.boot()
		w.later(30 * time.Second)
		w.connect()
		w.later(30 * time.Second)
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.later(30 * time.Second)
		w.happen(ProgramEvent{Kind: JobDone})
		w.exit(0)
		w.later(time.Minute)
		w.wantSaid("booting", "online", "job_started 1", "job_done")
		for key, n := range times {
			if !strings.Contains(key, "heartbeat") && n != 4 {
				t.Errorf("call %s was made %d times, want 4", key, n)
			}
		}
		if len(w.nonces) != 1 || len(w.configs) != 2 {
			t.Errorf("%d nonces, %d programs; want 1 and 2", len(w.nonces), len(w.configs))
		}
	})
}

func TestOutageOfThreeMinutesLosesNothing(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		down := time.Now().Add(3 * time.Minute)
		w.meddle = func(*http.Response) error {
			if time.Now().Before(down) {
				return errors.New("no route to host")
			}
			return nil
		}
		before := len(w.calls)
		w.job("1", time.Minute)
		w.later(119 * time.Second)
		calls := len(w.calls) - before
		w.later(16 * time.Second)
		w.wantSaid("booting", "online", "job_started 1", "job_done")
		if calls < 3*60/15 || calls > 3*60/5 {
			t.Errorf("%d calls in an outage of 3 minutes, want about one each 10 s", calls)
		}
		if len(w.configs) != 2 {
			t.Errorf("%d programs started, want the second after the outage", len(w.configs))
		}
		beats := len(w.of("heartbeat"))
		w.later(time.Minute)
		if got := len(w.of("heartbeat")) - beats; got < 2 || got > 4 {
			t.Errorf("%d heartbeats in the minute after the outage, want about 3", got)
		}
	})
}

func TestHeartbeatsComeATenthEarlierOrLater(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.later(time.Hour)
		beats := w.of("heartbeat")
		var seen []time.Duration
		for i := 1; i < len(beats); i++ {
			period := beats[i].at - beats[i-1].at
			if period < 18*time.Second || period > 22*time.Second {
				t.Errorf("period %d = %v, want 20 s and a tenth of that", i, period)
			}
			if beats[i].event.Counter <= beats[i-1].event.Counter {
				t.Errorf("counter %d after %d, want it to rise", beats[i].event.Counter, beats[i-1].event.Counter)
			}
			seen = append(seen, period)
		}
		if len(seen) < 160 || slices.Max(seen)-slices.Min(seen) < time.Second {
			t.Errorf("%d periods between %v and %v, want them to vary", len(seen), slices.Min(seen), slices.Max(seen))
		}
		if w.saves > 20 {
			t.Errorf("%d saves for %d heartbeats, want one for many", w.saves, len(beats))
		}
	})
}

func TestEarlierHardLimitSetsTheTimer(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.hard = 7 * time.Hour
		w.later(time.Minute)
		w.hard = time.Hour
		w.later(time.Minute)
		w.hard = 2 * time.Hour
		w.later(time.Minute)
		w.hard = 0 // says nothing
		w.later(time.Minute)
		want := []time.Time{w.start.Add(6 * time.Hour), w.start.Add(time.Hour)}
		equal := func(got, want time.Time) bool { return got.Sub(want).Abs() < time.Second }
		if !slices.EqualFunc(w.timers, want, equal) {
			t.Errorf("timers = %v, want %v", w.timers, want)
		}
	})
}

func TestTimerIsNoLaterForASlowAnswer(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.hard = time.Hour
		w.meddle = func(*http.Response) error {
			time.Sleep(9 * time.Second)
			return nil
		}
		w.later(time.Minute)
		last := w.timers[len(w.timers)-1]
		if late := last.Sub(w.start.Add(time.Hour)); len(w.timers) != 2 || late > time.Second {
			t.Errorf("%d timers, the last %v after the hard limit, want 2 and not after", len(w.timers), late)
		}
	})
}

func TestTimerThatCannotBeSetEndsNothing(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.timerErr = errors.New("no systemd")
		w.boot()
		w.connect()
		w.wantSaid("booting", "online")
	})
}

func TestStoppedMachinePowersOffAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(w *world)
		reason string
	}{
		"ByOrder":  {func(w *world) { w.order = "stop" }, "ordered to stop"},
		"ByStatus": {func(w *world) { w.answers = []int{410} }, "the runner is ended"},
	} {
		for when, set := range map[string]func(w *world){
			"InAHeartbeat": func(w *world) { w.later(22 * time.Second) },
			"InAnEvent":    func(w *world) { w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}) },
			"WhileAsking": func(w *world) {
				w.exit(0)
				w.later(time.Second)
			},
		} {
			t.Run(name+when, func(t *testing.T) {
				bubble(t, store.Shared, func(w *world) {
					w.boot()
					w.connect()
					c.set(w)
					set(w)
					w.wantOff(c.reason)
				})
			})
		}
	}
}

func TestAnswerMayLeaveOutHowOften(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.heartbeat, w.idle = 0, 0
		w.boot()
		w.connect()
		w.later(10 * time.Minute)
		w.wantSaid("booting", "online", "idle")
		if got := len(w.of("heartbeat")); got < 27 || got > 33 {
			t.Errorf("%d heartbeats in 10 minutes, want one each 20 s", got)
		}
	})
}

func TestWithoutRandomnessThereIsNoBoot(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.random = strings.NewReader("too short for a nonce")
		w.boot()
		w.wantOff("make a nonce")
		if len(w.calls) != 0 {
			t.Errorf("calls = %+v, want none", w.calls)
		}
	})
}

func TestWithoutRandomnessThereIsNoJitter(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.random = strings.NewReader(strings.Repeat("x", 32)) // for the nonce alone
		w.boot()
		w.connect()
		w.later(time.Minute)
		if got := len(w.of("heartbeat")); got != 3 {
			t.Errorf("%d heartbeats in a minute, want 3", got)
		}
	})
}

// Most of what the agent is given can be left out.
func TestConfigurationHasDefaults(t *testing.T) {
	a := New(Config{HTTP: http.DefaultClient})
	if a.cfg.Random == nil || a.cfg.Now == nil || a.log == nil || a.version != "unknown" {
		t.Errorf("New = %+v, want defaults", a.cfg)
	}
	if a.http == http.DefaultClient || http.DefaultClient.CheckRedirect != nil {
		t.Error("the given client was changed")
	}
}

// once meddles with the next answer alone.
func once(w *world, meddle func(*http.Response) error) func(*http.Response) error {
	return func(res *http.Response) error {
		w.meddle = nil
		return meddle(res)
	}
}
