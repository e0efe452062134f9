package sim_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// launchedWithin waits for the one machine of a story.
func launchedWithin(w *sim.World, limit time.Duration) {
	w.Helper()
	w.Until("a launch", limit, func() bool { return len(w.Fleet.Instances()) > 0 })
}

// machines checks how many machines were ever launched.
func machines(w *sim.World, want int) {
	w.Helper()
	if got := len(w.Fleet.Instances()); got != want {
		w.Errorf("%d machines were launched, want %d", got, want)
	}
}

// once returns a fate that comes to the first effect that is meant, and to no other.
func once(fate kernel.Fate, meant func(kernel.Effect) bool) func(kernel.Effect) kernel.Fate {
	return first(1, fate, meant)
}

// first returns a fate that comes to the first n effects that are meant.
func first(n int, fate kernel.Fate, meant func(kernel.Effect) bool) func(kernel.Effect) kernel.Fate {
	var mu sync.Mutex
	return func(e kernel.Effect) kernel.Fate {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !meant(e) {
			return kernel.Pass
		}
		n--
		return fate
	}
}

func TestDeadAPILeavesOneRecord(t *testing.T) {
	t.Parallel()
	// Where the invocation that answers POST /start dies.
	for name, meant := range map[string]struct {
		op   string
		fate kernel.Fate
	}{
		"BeforeItsRecord":  {kernel.Commit, kernel.KillBefore},
		"BeforeItsMessage": {kernel.Send, kernel.KillBefore},
		"BeforeItsAnswer":  {kernel.Send, kernel.KillAfter},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{Fate: once(meant.fate, func(e kernel.Effect) bool { return e.For == "POST start" && e.Op == meant.op })}, func(w *sim.World) {
				s := w.Start(sim.Ephemeral("a")) // the client repeats the call
				w.Ready(s, 2*time.Minute)
				if all := w.All(); len(all) != 1 || all[0].ID != s.ID {
					w.Errorf("%d requests are recorded, want the one that was answered", len(all))
				}
				good(w, s)
				machines(w, 1)
			})
		})
	}
}

func TestUnsentMessageIsMadeUpFor(t *testing.T) {
	t.Parallel()
	fate := func() func(kernel.Effect) kernel.Fate {
		return once(kernel.KillBefore, func(e kernel.Effect) bool { return e.For == "POST start" && e.Op == kernel.Send })
	}
	t.Run("ByAPoll", func(t *testing.T) {
		sim.Run(t, sim.Config{Fate: fate()}, func(w *sim.World) {
			s := w.Start(sim.Ephemeral("a"))
			w.Until("the time for a poll", time.Minute, func() bool { return time.Since(w.Request(s.ID).SentAt) > w.Limits.PollResend })
			if _, err := w.Client.Status(w.Context(), s.ID); err != nil {
				w.Fatal(err)
			}
			launchedWithin(w, 5*time.Second)
		})
	})
	t.Run("ByTheReaper", func(t *testing.T) {
		sim.Run(t, sim.Config{Fate: fate()}, func(w *sim.World) {
			w.Start(sim.Ephemeral("a"))
			launchedWithin(w, 2*time.Minute+10*time.Second) // two runs and a launch
		})
	})
}

func TestLostMessageIsSentAgain(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.Pause(kernel.Worker)
		s := w.Start(sim.Ephemeral("a"))
		lost, err := w.Queue.Receive(w.Context(), 10, 0)
		if err != nil || len(lost) != 1 {
			w.Fatalf("Receive = %d messages, %v; want the one that was sent", len(lost), err)
		}
		if err := w.Queue.Delete(w.Context(), lost[0]); err != nil {
			w.Fatal(err)
		}
		w.Resume(kernel.Worker)
		launchedWithin(w, 2*time.Minute+10*time.Second)
		w.Ready(s, 10*time.Minute)
		good(w, s)
		machines(w, 1)
	})
}

func TestFiveStartsAtOnceAreOneRequest(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		var all [5]apitype.Started
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				var err error
				if all[i], err = w.Client.Start(w.Context(), sim.Ephemeral("a")); err != nil {
					w.Error(err)
				}
			})
		}
		wg.Wait()
		for _, s := range all {
			if s.ID != all[0].ID {
				w.Errorf("Start = %s, and %s for the same key", s.ID, all[0].ID)
			}
		}
		w.Ready(all[0], 10*time.Minute)
		good(w, all[0])
		machines(w, 1)
	})
}

func TestOtherKeyOfTheSameRunIsAnotherRequest(t *testing.T) {
	t.Parallel()
	one := func(a *store.Account) { a.MaxRunners = 1 }
	sim.Run(t, sim.Config{Account: one}, func(w *sim.World) {
		run := w.Workflow("17")
		var started [2]apitype.Started
		for i := range started {
			s, err := run.Start(w.Context(), apitype.Start{Mode: store.Ephemeral, IdempotencyKey: fmt.Sprint(i)})
			if err != nil {
				w.Fatal(err)
			}
			started[i] = s
			if i == 0 { // the other one finds the place taken
				w.Until("the first request has its runner", time.Minute, func() bool { return w.Request(s.ID).State == store.Waiting })
			}
		}
		if started[0].ID == started[1].ID {
			w.Fatal("two keys are one request")
		}
		w.Ready(started[0], 5*time.Minute)
		if r := w.Request(started[1].ID); r.State != store.Accepted || r.Wait != store.WaitQuota {
			w.Errorf("second request is %s, %q; want accepted, %s", r.State, r.Wait, store.WaitQuota)
		}
		job := w.Job(started[0].RunsOn, 30*time.Second) // once it is done, there is room for another
		w.Ready(started[1], 15*time.Minute)
		good(w, started[1], job)
		machines(w, 2)
	})
}

// A request that waits for the quota until its give_up_at is looked at once a
// minute, by the reaper's message: the worker sends none to its own queue.
func TestWaitForTheQuotaUntilGiveUpIsTheReapers(t *testing.T) {
	t.Parallel()
	one := func(a *store.Account) { a.MaxRunners = 1 }
	sim.Run(t, sim.Config{Account: one}, func(w *sim.World) {
		a := w.Start(sim.Ephemeral("a"))
		job := w.Job(a.RunsOn, 40*time.Minute)
		w.Ready(a, 5*time.Minute)
		b := w.Start(sim.Ephemeral("b"))
		if r := w.Final(b, 20*time.Minute); r.State != store.Expired {
			w.Errorf("second request is %s, want expired", r.State)
		}
		sent := map[string]int{}
		for _, e := range w.Trace() {
			if e.Op == kernel.Send && e.On == b.ID {
				sent[e.Part]++
			}
		}
		w.Logf("messages for the request, by who sent them: %v", sent)
		if sent[kernel.API] != 1 || sent[kernel.Worker] != 0 || sent[kernel.Reaper] > 15 || sent[kernel.Reaper] < 13 {
			w.Errorf("messages for the request, by who sent them: %v; want 1 of the API, none of the worker, 13 to 15 of the reaper", sent)
		}
		w.Until("the job to be done", time.Hour, func() bool { return w.Done(job) })
		w.Quiet(2 * time.Hour)
		w.Check()
	})
}

func TestFiftyStartsAtALimitOfTen(t *testing.T) {
	t.Parallel()
	ten := func(a *store.Account) { a.MaxRunners = 10 } // that it is kept is looked at in every commit
	sim.Run(t, sim.Config{Account: ten}, func(w *sim.World) {
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				body := sim.Ephemeral(fmt.Sprint(i))
				body.GiveUp = 3600
				if i >= 45 {
					body.GiveUp = 300 // too short for the last ones
				}
				s := w.Start(body)
				w.Job(s.RunsOn, 5*time.Minute)
			})
		}
		wg.Wait()
		time.Sleep(4 * time.Minute)
		waiting := 0
		for _, r := range w.All() {
			if r.State == store.Accepted && r.Wait == store.WaitQuota {
				waiting++
			}
		}
		if got := len(w.Fleet.Instances()); got != 10 || waiting != 40 {
			w.Errorf("after four minutes %d machines were launched and %d requests wait for the quota, want 10 and 40", got, waiting)
		}
		w.Quiet(2 * time.Hour)
		w.Check()
		states := w.States()
		if states[store.Ready] < 45 || states[store.Ready]+states[store.Expired] != 50 {
			w.Errorf("requests came to %v, want at least 45 ready and the rest expired", states)
		}
		machines(w, states[store.Ready])
	})
}

func TestMessageThatIsAnHourLateLaunchesNothing(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.Pause(kernel.Worker)
		s := w.Start(sim.Ephemeral("a"))
		time.Sleep(time.Hour)
		if r := w.Request(s.ID); r.State != store.Expired || r.Error == nil {
			w.Errorf("request is %s, want expired with a reason", r.State)
		}
		w.Resume(kernel.Worker)
		time.Sleep(10 * time.Minute)
		w.Quiet(0)
		w.Check()
		machines(w, 0)
	})
}

func TestMessageOfAFinishedRequestLaunchesNothing(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		for range 10 {
			w.Send(queue.StartOf(w.Request(s.ID)), 0)
			w.Send(queue.Message{Kind: queue.Resume, ID: w.Request(s.ID).Runner}, 0)
			w.Send(queue.Message{Kind: queue.Next, ID: w.Request(s.ID).Runner, N: 2}, 0)
		}
		time.Sleep(10 * time.Minute)
		w.Quiet(0)
		w.Check()
		machines(w, 1)
	})
}
