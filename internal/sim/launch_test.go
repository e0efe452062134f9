package sim_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func isLaunch(e kernel.Effect) bool { return e.Part == kernel.Worker && e.Op == kernel.Launch }

// launches returns the calls of RunInstances.
func launches(w *sim.World) (calls []kernel.Effect) {
	for _, e := range w.Trace() {
		if e.Op == kernel.Launch {
			calls = append(calls, e)
		}
	}
	return calls
}

// oneToken checks that all calls of RunInstances were one and the same.
func oneToken(w *sim.World) {
	w.Helper()
	for _, e := range launches(w) {
		if e.On != launches(w)[0].On {
			w.Errorf("RunInstances was called with %s after %s", e.On, launches(w)[0].On)
		}
	}
}

func TestWorkerKilledInTheLaunchResumesTheSameInstance(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Fate: once(kernel.KillAfter, isLaunch)}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		if calls := launches(w); len(calls) != 2 || calls[0].By == calls[1].By {
			w.Errorf("RunInstances was called as %v, want twice, by two workers", calls)
		}
		oneToken(w)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestClaimOfAWorkerThatIsKilledLateHolds(t *testing.T) {
	t.Parallel()
	// The call is open until the worker is killed, 0.7 s after its deadline. Others
	// try all the time.
	fate := func(e kernel.Effect) kernel.Fate {
		if isLaunch(e) && e.By == "worker-1" {
			time.Sleep(time.Minute)
		}
		return kernel.Pass
	}
	sim.Run(t, sim.Config{Fate: fate}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Until("the intent", time.Minute, func() bool { return w.Request(s.ID).State == store.Waiting })
		until := w.RunnerOf(s.ID).Claim.Until
		for range 200 {
			w.Send(queue.StartOf(w.Request(s.ID)), 0)
			time.Sleep(250 * time.Millisecond)
		}
		w.Ready(s, 10*time.Minute)
		for _, e := range launches(w)[1:] {
			if e.At.Before(until) {
				w.Errorf("%s called RunInstances at %s, and the claim held until %s", e.By, e.At, until)
			}
		}
		oneToken(w)
		good(w, s)
		machines(w, 1)
	})
}

func TestTwoResumesOfOneIntentAreOneInstance(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Fate: once(kernel.KillBefore, isLaunch)}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Until("the intent", time.Minute, func() bool { return w.Request(s.ID).State == store.Waiting })
		run := w.RunnerOf(s.ID)
		time.Sleep(time.Until(run.Claim.Until))
		for range 5 {
			w.Send(queue.Message{Kind: queue.Resume, ID: run.ID}, 0)
			time.Sleep(time.Millisecond) // another worker each
		}
		w.Ready(s, 10*time.Minute)
		oneToken(w)
		good(w, s)
		machines(w, 1)
	})
}

func TestLaunchThatTakesEffectAMinuteLate(t *testing.T) {
	t.Parallel()
	t.Run("IsTakenUpByTheRepeatedCall", func(t *testing.T) {
		sim.Run(t, sim.Config{Fate: once(kernel.FailLate, isLaunch)}, func(w *sim.World) {
			s := w.Start(sim.Ephemeral("a"))
			w.Ready(s, 10*time.Minute)
			time.Sleep(2 * time.Minute)
			good(w, s)
			machines(w, 1)
		})
	})
	t.Run("IsFoundAtTheEndOfItsRunner", func(t *testing.T) {
		late := once(kernel.FailLate, isLaunch)
		sim.Run(t, sim.Config{
			NeverBoots: func(n int) bool { return n == 1 },
			Fate: func(e kernel.Effect) kernel.Fate {
				if fate := late(e); fate != kernel.Pass {
					return fate
				}
				if isLaunch(e) && e.On == e.On[:len(e.On)-1]+"0" && e.At.Before(time.Date(2000, 1, 1, 0, 6, 0, 0, time.UTC)) {
					return kernel.FailBefore // nobody hears of it for longer than the boot limit
				}
				return kernel.Pass
			},
		}, func(w *sim.World) {
			s := w.Start(sim.Ephemeral("a"))
			w.Ready(s, 15*time.Minute)
			good(w, s)
			machines(w, 2)
		})
	})
	t.Run("AndAfterItsRunnerEndedIsSwept", func(t *testing.T) {
		var mu sync.Mutex
		var asked fleet.Launch
		away := true
		sim.Run(t, sim.Config{
			NeverBoots: func(int) bool { return true },
			EC2: func(op string, l fleet.Launch) error {
				mu.Lock()
				defer mu.Unlock()
				if op != simfleet.OpLaunch || !away {
					return nil
				}
				if asked.ClientToken == "" {
					asked = l
				}
				return errors.New("no answer")
			},
		}, func(w *sim.World) {
			w.Start(sim.Ephemeral("a"))
			w.Until("the launch", time.Minute, func() bool { mu.Lock(); defer mu.Unlock(); return asked.ClientToken != "" })
			w.Quiet(time.Hour)
			mu.Lock()
			away = false
			mu.Unlock()
			late, err := w.Fleet.Launch(w.Context(), setting.Here, asked)
			if err != nil {
				w.Fatal(err)
			}
			w.Until("two sweeps to have ended it", 2*w.Limits.SweepPeriod+time.Minute, func() bool { f, _ := w.Fleet.Instance(late.ID); return f.State.Over() })
			w.Quiet(0)
			w.Check()
		})
	})
}

func TestTwoHundredStartsAreLaunchedAtEC2sPace(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	sim.Run(t, sim.Config{EC2: func(op string, _ fleet.Launch) error {
		if op == simfleet.OpLaunch && n.Add(1)%3 == 0 { // others use the account too
			return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}
		}
		return nil
	}}, func(w *sim.World) {
		w.GitHub.Change(func(r *simgithub.Rules) { r.AutoJobs = 10 * time.Second })
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() { w.Start(sim.Ephemeral(fmt.Sprint(i))) })
		}
		wg.Wait()
		w.Until("all to be launched", 10*time.Minute, func() bool { return len(w.Fleet.Instances()) == 200 })
		w.Quiet(time.Hour)
		w.Check()
		for _, r := range w.All() {
			if r.State != store.Ready {
				w.Errorf("request %s is %s (%v), want ready", r.ID, r.State, r.Error)
			}
		}
		machines(w, 200)
		paced(w)
	})
}

// paced checks that the slots of all calls of RunInstances came from a bucket of 5
// that fills at 2 a second.
func paced(w *sim.World) {
	w.Helper()
	slots := w.Slots()
	room, last := 5.0, slots[0]
	for i, at := range slots {
		room = min(5, room+2*at.Sub(last).Seconds()) - 1
		last = at
		if room < -0.001 {
			w.Errorf("slot %d of %d, at %s, is before its time", i, len(slots), at)
			return
		}
	}
}

func TestHalfAnHourOfEC2ErrorsLeavesNoDuplicate(t *testing.T) {
	t.Parallel()
	// Every call fails, and every other one has launched a machine all the same.
	heals := time.Date(2000, 1, 1, 0, 30, 0, 0, time.UTC)
	var n atomic.Int64
	sim.Run(t, sim.Config{Fate: func(e kernel.Effect) kernel.Fate {
		if !isLaunch(e) || e.At.After(heals) {
			return kernel.Pass
		}
		return []kernel.Fate{kernel.FailBefore, kernel.FailAfter, kernel.FailLate}[n.Add(1)%3]
	}}, func(w *sim.World) {
		w.GitHub.Change(func(r *simgithub.Rules) { r.AutoJobs = 10 * time.Second })
		for i := range 5 {
			w.Start(sim.Ephemeral(fmt.Sprint(i)))
			time.Sleep(2 * time.Minute)
		}
		time.Sleep(time.Until(heals))
		w.Quiet(time.Hour)
		w.Check()
	})
}

func TestInstanceThatEndedBeforeItsAnswerIsReplaced(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Fate: once(kernel.KillAfter, isLaunch)}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		launchedWithin(w, time.Minute)
		if err := w.Fleet.Terminate(w.Context(), setting.Here, w.Fleet.Instances()[0].ID); err != nil {
			w.Fatal(err)
		}
		w.Ready(s, 15*time.Minute)
		if r := w.Request(s.ID); r.Tries != 1 {
			w.Errorf("request was tried %d times again, want once", r.Tries)
		}
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestMachineThatNeverBootsIsReplaced(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{NeverBoots: func(n int) bool { return n == 1 }}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 2)
		dead := w.Fleet.Instances()[0]
		if life := dead.EndsAt.Sub(dead.LaunchedAt); life > w.Limits.BootLimit+2*time.Minute {
			w.Errorf("the machine that never booted lived %s", life)
		}
	})
}

func TestMachineWithoutANetworkIsReplaced(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	cut := ""
	sim.Run(t, sim.Config{Fate: func(e kernel.Effect) kernel.Fate {
		mu.Lock()
		defer mu.Unlock()
		if e.Part == kernel.Machine && cut == "" {
			cut = e.On
		}
		if e.Part == kernel.Machine && e.On == cut {
			return kernel.FailBefore
		}
		return kernel.Pass
	}}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}

func TestMachineThatCannotBeTerminatedEndsByItsTimer(t *testing.T) {
	t.Parallel()
	hard := time.Hour
	var cut atomic.Bool
	sim.Run(t, sim.Config{
		Account: func(a *store.Account) { a.HardS = int(hard.Seconds()) },
		Ghosts:  true, // so that the agent waits for its runner program
		EC2: func(op string, _ fleet.Launch) error {
			if op != simfleet.OpTerminate {
				return nil
			}
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You may not."}
		},
		Fate: func(e kernel.Effect) kernel.Fate {
			if e.Part == kernel.Machine && cut.Load() {
				return kernel.FailBefore
			}
			return kernel.Pass
		},
	}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		cut.Store(true) // nobody can tell it to power off
		stop(w, s)
		time.Sleep(30 * time.Minute)
		if r := w.RunnerOf(s.ID); r.State != store.RunnerEnding {
			w.Errorf("runner is %s, want ending", r.State)
		}
		if !slices.Contains(w.Alarms(), store.AlarmTerminate) {
			w.Errorf("alarms = %v, want %s", w.Alarms(), store.AlarmTerminate)
		}
		w.Quiet(hard)
		w.Check()
		if f := w.Fleet.Instances()[0]; f.PowerOff != "timer" {
			w.Errorf("the machine ended by %q %q, want its timer", f.Reason, f.PowerOff)
		}
	})
}

func TestRefusalAfterAnUnclearLaunchCountsTheMachineUntilItIsOver(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	sim.Run(t, sim.Config{
		Fate:       once(kernel.FailAfter, isLaunch),
		NeverBoots: func(int) bool { return true },
		EC2: func(op string, _ fleet.Launch) error {
			if op != simfleet.OpLaunch || n.Add(1) == 1 {
				return nil
			}
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You may not."}
		},
	}, func(w *sim.World) {
		w.Start(sim.Ephemeral("a"))
		launchedWithin(w, time.Minute)
		w.Until("the quota to count nothing", 15*time.Minute, func() bool { return w.Quota().Live == 0 })
		if f := w.Fleet.Instances()[0]; !f.State.Over() {
			w.Errorf("the quota counts nothing, and machine %s is %s", f.ID, f.State)
		}
		w.Quiet(time.Hour)
		w.Check()
	})
}

func TestSweepRecordsTheInstanceThatNoWorkerDid(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Fate: once(kernel.KillAfter, isLaunch)}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		launchedWithin(w, time.Minute)
		w.Pause(kernel.Worker)
		w.Until("the instance's record", w.Limits.SweepPeriod, func() bool { return w.RunnerOf(s.ID).InstanceID != "" })
		w.Resume(kernel.Worker)
		w.Ready(s, 10*time.Minute)
		good(w, s)
		machines(w, 1)
	})
}
