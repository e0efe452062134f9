package sim_test

import (
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestLaggingIndexOnlyDelays(t *testing.T) {
	t.Parallel()
	unsent := once(kernel.KillBefore, func(e kernel.Effect) bool { return e.For == "POST start" && e.Op == kernel.Send })
	sim.Run(t, sim.Config{IndexLag: time.Minute, Fate: unsent}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		launchedWithin(w, 4*time.Minute) // found by the reaper alone
		w.Until("the request to be ready", 10*time.Minute, func() bool { return w.Request(s.ID).State == store.Ready })
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestRecordsAreDeletedEarlyWithoutHarmToWhatLives(t *testing.T) {
	t.Parallel()
	// Whatever may ever be deleted is, a minute after its end.
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		expire := func() {
			time.Sleep(time.Minute)
			w.Expire(time.Now().Add(w.Limits.Keep - time.Minute))
		}
		for i := range 3 {
			a, b := w.Start(sim.Shared(fmt.Sprint("a", i))), w.Start(sim.Ephemeral(fmt.Sprint("b", i)))
			jobs := []string{w.Job(a.RunsOn, 3*time.Minute), w.Job(b.RunsOn, 3*time.Minute)}
			for range 8 {
				expire()
			}
			for _, j := range jobs {
				if !w.Done(j) {
					w.Errorf("job %+v is not done", w.JobOf(j))
				}
			}
		}
		for range 20 {
			expire()
		}
		w.Quiet(0)
		w.Check()
	})
}

func TestTableEmptyByMistakeEndsNothing(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		var jobs []string
		for i := range 5 {
			s := w.Start(sim.Ephemeral(fmt.Sprint(i)))
			w.Ready(s, 10*time.Minute)
			jobs = append(jobs, w.Job(s.RunsOn, 40*time.Minute))
		}
		time.Sleep(time.Minute)
		w.Wipe()
		for _, j := range jobs {
			w.Until("job "+j+" to be done", time.Hour, func() bool { return w.Done(j) })
		}
		if !slices.Contains(w.Alarms(), store.AlarmBrake) {
			w.Errorf("alarms = %v, want %s", w.Alarms(), store.AlarmBrake)
		}
		for _, e := range w.Trace() {
			if e.Op == kernel.Terminate {
				w.Errorf("a machine was ended: %s", e)
			}
		}
		if _, err := w.Client.ReleaseBrake(w.Context(), setting.AccountID, setting.Region); err != nil {
			w.Error(err)
		}
		w.Quiet(2 * time.Hour)
		machines(w, 5)
	})
}

func TestTenMissedRunsDelayAndDoNoHarm(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		w.Pause(kernel.Reaper)
		job := w.Job(s.RunsOn, 30*time.Second)
		unsent := w.Start(sim.Ephemeral("b"))
		time.Sleep(10 * time.Minute)
		w.Resume(kernel.Reaper)
		w.Ready(unsent, 10*time.Minute)
		good(w, unsent, job)
	})
}

func TestOverlappingRunsOfTheReaperDoNothingTwice(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		stop(w, s)
		w.Pause(kernel.Reaper)
		for range 5 {
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() { _, _ = w.Reap() }) // anyone who loses says so in its report
			}
			wg.Wait()
			time.Sleep(time.Minute)
		}
		w.Quiet(0)
		w.Check() // the quota is looked at in every commit
		ended := 0
		for _, e := range w.Trace() {
			if e.Op == kernel.Commit && e.Part == kernel.Reaper && e.What == "lock empty, quota, runner ended config 1, usage" {
				ended++
			}
		}
		if ended == 0 {
			w.Error("nobody ended the runner")
		}
		machines(w, 1)
	})
}

// chaos makes one effect in so many go wrong, for ten minutes.
func chaos(seed uint64, rarity uint64) func(kernel.Effect) kernel.Fate {
	fates := []kernel.Fate{kernel.FailBefore, kernel.FailAfter, kernel.FailLate, kernel.KillBefore, kernel.KillAfter}
	return func(e kernel.Effect) kernel.Fate {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d %d %s", seed, e.N, e.Name())
		x := h.Sum64() >> 7
		if e.At.After(in(10*time.Minute)) || x%rarity != 0 {
			return kernel.Pass
		}
		return fates[x/rarity%uint64(len(fates))]
	}
}

// chaotic is a story of ten minutes in which requests of all kinds come, machines
// come and go, and much else goes wrong.
func chaotic(w *sim.World, seed uint64) {
	w.GitHub.Change(func(r *simgithub.Rules) { r.AutoJobs = 20 * time.Second })
	var wg sync.WaitGroup
	for i := range 12 {
		body := sim.Ephemeral(fmt.Sprint(i))
		if i%3 > 0 {
			body = sim.Shared(fmt.Sprint(i), fmt.Sprint("label-", i%3))
		}
		wg.Go(func() {
			s, err := w.Client.Start(w.Context(), body) // some clients give up
			if err == nil && i%6 == int(seed%6) {
				time.Sleep(time.Duration(i) * 7 * time.Second)
				_, _ = w.Client.Stop(w.Context(), s.ID, i%2 == 0)
			}
		})
		w.Fleet.SetCapacity(simfleet.Placement{Market: store.Spot, InstanceType: "t3a.micro"}, i%4 != int(seed%4))
		time.Sleep(25 * time.Second)
		if all := w.Fleet.Instances(); i%5 == int(seed%5) && len(all) > 0 {
			notice := simfleet.SpotNotice * time.Duration(i%2)
			_ = w.Fleet.Interrupt(all[len(all)-1].ID, notice) // if it is one, and still runs
		}
		for _, r := range w.All() { // messages come twice
			w.Send(queue.StartOf(r), time.Duration(i)*time.Second)
			if r.Runner != "" && i%3 == int(seed%3) {
				w.Send(queue.Message{Kind: queue.Resume, ID: r.Runner}, 0)
			}
		}
		time.Sleep(25 * time.Second)
	}
	wg.Wait()
	w.GitHub.Change(func(r *simgithub.Rules) { r.AutoJobs = 0 })
}

// chaosConfig is a world for such a story.
func chaosConfig(seed, rarity uint64) sim.Config {
	return sim.Config{
		Seed: seed, Fate: chaos(seed, rarity), NeverBoots: func(n int) bool { return n%7 == int(seed%7) },
		Skew: map[string]time.Duration{kernel.Worker: time.Duration(seed%5) * time.Second, kernel.Reaper: -time.Duration(seed%3) * time.Second},
	}
}

func TestEverythingHealsAfterTenMinutesOfChaos(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			sim.Run(t, chaosConfig(seed, 15), func(w *sim.World) {
				chaotic(w, seed)
				w.Until("all requests to be over, and nothing to be an orphan", 5*w.Limits.SweepPeriod, func() bool {
					n := w.States()
					return n[store.Accepted]+n[store.Waiting] == 0 && len(w.Orphans()) == 0
				})
				took := w.Quiet(26 * time.Hour) // names are looked for at GitHub for a day
				w.Check()
				w.Logf("%v, all over after %s", w.States(), took)
			})
		})
	}
}
