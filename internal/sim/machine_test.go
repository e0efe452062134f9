package sim_test

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// interrupt reclaims the machine of a request.
func interrupt(w *sim.World, s apitype.Started, notice time.Duration) {
	w.Helper()
	if err := w.Fleet.Interrupt(w.RunnerOf(s.ID).InstanceID, notice); err != nil {
		w.Fatal(err)
	}
}

func TestSpotInterruptionWhileBooting(t *testing.T) {
	t.Parallel()
	for name, notice := range map[string]time.Duration{"Announced": simfleet.SpotNotice, "WithoutAWord": 0} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				s := w.Start(sim.Ephemeral("a"))
				launchedWithin(w, time.Minute)
				w.Until("the instance's record", time.Minute, func() bool { return w.RunnerOf(s.ID).InstanceID != "" })
				lost := w.RunnerOf(s.ID).ID
				interrupt(w, s, notice)
				job := w.Job(s.RunsOn, 30*time.Second)
				r := w.Ready(s, 15*time.Minute)
				if notice == 0 && (r.Runner == lost || r.Tries != 1) {
					w.Errorf("request is ready with runner %s after %d more tries, want another one than %s", r.Runner, r.Tries, lost)
				}
				good(w, s, job)
			})
		})
	}
}

func TestSpotInterruptionOfAnIdleRunnerFreesItsKey(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		interrupt(w, s, simfleet.SpotNotice)
		time.Sleep(time.Second)
		if r := w.RunnerOf(s.ID); r.State.Usable() || r.End.Code != store.EndSpot {
			w.Errorf("runner is %s a second after the notice, want it to drain", r.State)
		}
		next := w.Start(sim.Shared("b"))
		w.Ready(next, 10*time.Minute)
		if w.Request(next.ID).Runner == w.Request(s.ID).Runner {
			w.Error("the next request shares the interrupted runner")
		}
		good(w, next, w.Job(next.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestSpotInterruptionOfABusyRunnerIsTold(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		w.Job(s.RunsOn, time.Hour)
		w.Until("the job to start", time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerBusy })
		interrupt(w, s, simfleet.SpotNotice)
		w.Until("the runner to end", 10*time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerEnded })
		status, err := w.Client.Status(w.Context(), s.ID)
		if err != nil {
			w.Fatal(err)
		}
		if status.State != string(store.Ready) || status.Runner == nil || status.Runner.End == nil || status.Runner.End.Code != store.EndSpot {
			w.Errorf("status is %s with runner %+v, want ready, and %s told", status.State, status.Runner, store.EndSpot)
		}
		if q := w.Quota(); q.Live != 0 {
			w.Errorf("the quota counts %d runners, want 0", q.Live)
		}
		w.Quiet(2 * time.Hour) // GitHub counts on the job for a while, and is asked hourly
		w.Check()
		machines(w, 1)
	})
}

func TestMachineThatDiesWithoutAWordIsMissed(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		interrupt(w, s, 0)
		died := time.Now()
		w.Until("the runner to drain", 4*time.Minute, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
		if got := time.Since(died); got > w.Limits.Lost+w.Limits.ReaperPeriod+time.Second {
			w.Errorf("the runner drained %s after its machine died", got)
		}
		next := w.Start(sim.Shared("b"))
		w.Ready(next, 10*time.Minute)
		good(w, next, w.Job(next.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestLostBootAnswersAreOneRegistration(t *testing.T) {
	t.Parallel()
	fate := first(3, kernel.FailAfter, func(e kernel.Effect) bool { return e.Part == kernel.Machine && e.What == "boot" })
	sim.Run(t, sim.Config{Fate: fate}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		if all := w.GitHub.Minted(); len(all) != 1 || all[0].Opened != 1 {
			w.Errorf("registrations = %+v, want one, whose session was opened once", all)
		}
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

// steal boots with the token in a machine's user data and a word of AWS, and returns the
// status.
func steal(w *sim.World, instance, word string) int {
	w.Helper()
	m, ok := w.Fleet.Instance(instance)
	if !ok {
		w.Fatalf("there is no machine %s", instance)
	}
	return w.Steal(m, instance, word)
}

// raised counts an alarm.
func raised(w *sim.World, alarm store.Alarm) int {
	return count(w.Alarms(), func(a store.Alarm) bool { return a == alarm })
}

// booting waits until a request's machine has an id and a config, and has not booted.
func booting(w *sim.World, s apitype.Started) store.Runner {
	w.Helper()
	w.Until("the config", time.Minute, func() bool {
		return w.Request(s.ID).State == store.Waiting && w.RunnerOf(s.ID).Config.N == 1 && w.RunnerOf(s.ID).InstanceID != ""
	})
	return w.RunnerOf(s.ID)
}

func TestStolenBootTokenOpensNothingWithoutAWSsWord(t *testing.T) {
	t.Parallel()
	for _, word := range setting.Words {
		if word == setting.CopiedWord {
			continue
		}
		t.Run(word, func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				s := w.Start(sim.Ephemeral("a"))
				before := booting(w, s)
				if got := steal(w, before.InstanceID, word); got != http.StatusUnauthorized {
					w.Errorf("a thief who comes first is answered %d, want 401", got)
				}
				if r := w.RunnerOf(s.ID); r.Boot.NonceHash != "" {
					w.Errorf("boot = %+v, want nothing bound to a thief", r.Boot)
				}
				job := w.Job(s.RunsOn, 30*time.Second)
				if r := w.Ready(s, 5*time.Minute); r.Runner != before.ID {
					w.Errorf("the request is ready with runner %s, want %s: a thief ends nothing", r.Runner, before.ID)
				}
				if got := steal(w, before.InstanceID, word); got != http.StatusUnauthorized {
					w.Errorf("a thief who comes later is answered %d, want 401", got)
				}
				good(w, s, job)
				if n, m := raised(w, store.AlarmIdentity), raised(w, store.AlarmCompromised); n != 2 || m != 0 {
					w.Errorf("alarms = %v, want %s for each theft", w.Alarms(), store.AlarmIdentity)
				}
				machines(w, 1)
			})
		})
	}
}

// What remains: who copies AWS's word for a machine, and has its token too, can come
// before it. The machine then ends, with an alarm.
func TestStolenBootTokenWithACopiedWordEndsTheMachine(t *testing.T) {
	t.Parallel()
	alarmed := func(w *sim.World) {
		w.Helper()
		if raised(w, store.AlarmCompromised) == 0 {
			w.Errorf("alarms = %v, want %s", w.Alarms(), store.AlarmCompromised)
		}
	}
	t.Run("UsedFirst", func(t *testing.T) {
		sim.Run(t, sim.Config{}, func(w *sim.World) {
			s := w.Start(sim.Ephemeral("a"))
			lost := booting(w, s)
			if got := steal(w, lost.InstanceID, setting.CopiedWord); got != http.StatusOK {
				w.Errorf("the first boot is answered %d, want 200", got)
			}
			job := w.Job(s.RunsOn, 30*time.Second)
			if r := w.Ready(s, 15*time.Minute); r.Runner == lost.ID {
				w.Error("the request is ready with the runner whose token was stolen")
			}
			alarmed(w)
			if f, _ := w.Fleet.Instance(lost.InstanceID); !f.CredentialedAt.IsZero() {
				w.Error("the machine whose token was stolen got a config as well")
			}
			good(w, s, job)
			machines(w, 2)
		})
	})
	t.Run("UsedSecond", func(t *testing.T) {
		sim.Run(t, sim.Config{}, func(w *sim.World) {
			s := w.Start(sim.Ephemeral("a"))
			w.Ready(s, 15*time.Minute)
			lost := w.RunnerOf(s.ID)
			if got := steal(w, lost.InstanceID, setting.CopiedWord); got != http.StatusConflict {
				w.Errorf("the second boot is answered %d, want 409", got)
			}
			w.Quiet(10 * time.Minute) // though it could still have had its job
			w.Check()
			alarmed(w)
			machines(w, 1)
		})
	})
	t.Run("UsedSecondBeforeTheMachineIsOnline", func(t *testing.T) {
		var hold atomic.Bool
		hold.Store(true)
		sim.Run(t, sim.Config{Fate: func(e kernel.Effect) kernel.Fate {
			if e.Part == kernel.Machine && e.What == "event online" && hold.Load() {
				return kernel.FailBefore
			}
			return kernel.Pass
		}}, func(w *sim.World) {
			s := w.Start(sim.Ephemeral("a"))
			w.Until("the boot", time.Minute, func() bool {
				return w.Request(s.ID).State == store.Waiting && !w.RunnerOf(s.ID).Boot.At.IsZero()
			})
			lost := w.RunnerOf(s.ID)
			if got := steal(w, lost.InstanceID, setting.CopiedWord); got != http.StatusConflict {
				w.Errorf("the second boot is answered %d, want 409", got)
			}
			hold.Store(false)
			if r := w.Ready(s, 15*time.Minute); r.Runner == lost.ID {
				w.Error("the request is ready with the runner whose token was stolen")
			}
			alarmed(w)
			good(w, s, w.Job(s.RunsOn, 30*time.Second))
			machines(w, 2)
		})
	})
}

func TestMachineThatIsBoundBootsThoughItsMetadataIsAway(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	lost := first(1, kernel.FailAfter, func(e kernel.Effect) bool { return e.Part == kernel.Machine && e.What == "boot" })
	sim.Run(t, sim.Config{
		Fate: func(e kernel.Effect) kernel.Fate {
			f := lost(e)
			if f != kernel.Pass {
				away.Store(true) // from the answer that was lost on
			}
			return f
		},
		Metadata: func() error {
			if away.Load() {
				return errors.New("no route to host")
			}
			return nil
		},
	}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 5*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		if n := len(w.Alarms()); n != 0 {
			w.Errorf("alarms = %v, want none", w.Alarms())
		}
		machines(w, 1)
	})
}

func TestMachineWithoutMetadataIsRefusedAndTold(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	away.Store(true)
	sim.Run(t, sim.Config{Metadata: func() error {
		if away.Load() {
			return errors.New("no route to host")
		}
		return nil
	}}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Until("the alarm", 5*time.Minute, func() bool { return raised(w, store.AlarmIdentity) > 0 })
		away.Store(false)
		job := w.Job(s.RunsOn, 30*time.Second)
		if r := w.Ready(s, 15*time.Minute); r.Tries != 1 {
			w.Errorf("ready after %d more tries, want 1", r.Tries)
		}
		good(w, s, job)
		machines(w, 2)
	})
}

func TestSecondMachineOfALaunchIsRefusedAndEnds(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked fleet.Launch
	sim.Run(t, sim.Config{EC2: func(op string, l fleet.Launch) error {
		mu.Lock()
		defer mu.Unlock()
		if op == simfleet.OpLaunch && asked.ClientToken == "" {
			asked = l
		}
		return nil
	}}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		asked.ClientToken += "-again"
		twin, err := w.Fleet.Launch(w.Context(), setting.Here, asked)
		if err != nil {
			w.Fatal(err)
		}
		first := w.RunnerOf(s.ID)
		w.Until("the twin to end", 2*time.Minute, func() bool { f, _ := w.Fleet.Instance(twin.ID); return f.State.Over() })
		if f, _ := w.Fleet.Instance(twin.ID); !f.CredentialedAt.IsZero() {
			w.Error("the twin got a config")
		}
		if r := w.RunnerOf(s.ID); r.ID != first.ID || !r.State.Usable() || raised(w, store.AlarmIdentity) != 1 || raised(w, store.AlarmCompromised) != 0 {
			w.Errorf("runner %s is %s with alarms %v; want it untouched, and one alarm", r.ID, r.State, w.Alarms())
		}
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
	})
}

func TestSilentMachineIsNotSharedAndNotEndedInItsJob(t *testing.T) {
	t.Parallel()
	var cut atomic.Bool
	sim.Run(t, sim.Config{Fate: func(e kernel.Effect) kernel.Fate {
		if e.Part == kernel.Machine && cut.Load() {
			return kernel.FailBefore
		}
		return kernel.Pass
	}}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		job := w.Job(s.RunsOn, 15*time.Minute)
		w.Until("the job to start", time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerBusy })
		cut.Store(true)
		time.Sleep(time.Minute)
		other := w.Start(sim.Shared("b"))
		time.Sleep(2 * time.Minute)
		cut.Store(false)
		w.Ready(other, 15*time.Minute)
		if w.Request(other.ID).Runner == w.Request(s.ID).Runner {
			w.Error("the silent runner was shared")
		}
		w.Until("the job to be done", time.Hour, func() bool { return w.Done(job) })
		good(w, other, job)
		machines(w, 2)
	})
}
