package sim_test

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/explore"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var exhaustive = flag.Bool("exhaustive", false, "go through the large scopes too")

// starting is a caller that asks for a runner.
func starting(body apitype.Start) func(*sim.World) {
	return func(w *sim.World) { _, _ = w.Client.Start(w.Context(), body) }
}

// stopping is a caller that stops the first request.
func stopping(force bool) func(*sim.World) {
	return func(w *sim.World) { _, _ = w.Client.Stop(w.Context(), w.All()[0].ID, force) }
}

// when reports that so many requests are ready.
func when(ready int) func(*sim.World) bool {
	return func(w *sim.World) bool { return w.States()[store.Ready] == ready }
}

// reaped lets the reaper sweep, so that it does not in the next five minutes.
func reaped(w *sim.World) { _, _ = w.Reap() }

// leasedOut is a world in which others have leased the registrations of the next minute.
func leasedOut(w *sim.World) {
	reaped(w)
	w.LeaseOut()
}

// live is a world with a shared runner that is online.
func live(w *sim.World) {
	s := w.Start(sim.Shared("a"))
	w.Ready(s, 10*time.Minute)
	reaped(w)
}

// launched is a world with a machine that boots in a moment.
func launched(w *sim.World) {
	reaped(w)
	w.Start(sim.Ephemeral("a"))
	w.Until("the config", time.Minute, func() bool {
		r := w.All()[0].Runner
		return r != "" && w.Runner(r).Config.N > 0
	})
	time.Sleep(5 * time.Second)
}

// twoJobs is a world with two workflow jobs of one label, and two machines that boot in a
// moment. GitHub gives the older job to the machine that is online first.
func twoJobs(w *sim.World) {
	reaped(w)
	for range 2 {
		w.Plain(sim.PlainJob{Run: "77"})
	}
	w.Until("two configs", 10*time.Minute, func() bool { return registered(w) == 2 })
	time.Sleep(5 * time.Second)
}

// registered returns how many requests have a runner with a config.
func registered(w *sim.World) (n int) {
	for _, r := range w.All() {
		if r.Runner != "" && w.Runner(r.Runner).Config.N > 0 {
			n++
		}
	}
	return n
}

// online is a world with two workflow jobs that are held back, and their machines, which
// are online.
func online(w *sim.World) { twoOnline(w, 0) }

// swap gives each of the two machines the other's job.
func swap(w *sim.World) {
	first, second := w.All()[0], w.All()[1]
	if w.Runner(first.Runner).Config.RunnerID < w.Runner(second.Runner).Config.RunnerID {
		first, second = second, first // the oldest runner is given what is released first
	}
	if !w.Approve(first.Job.ID, second.Job.ID) {
		w.Errorf("job %s or %s is not held back", first.Job.ID, second.Job.ID)
	}
}

func twoOnline(w *sim.World, length time.Duration) {
	j := sim.PlainJob{Run: "77", Back: true, Length: length}
	for range 2 {
		w.Plain(j)
	}
	w.Until("two machines are online", 10*time.Minute, func() bool {
		return registered(w) == 2 && !slices.ContainsFunc(w.All(), func(r store.Request) bool { return w.Runner(r.Runner).State != store.RunnerOnline })
	})
	reaped(w)
}

// ended is how every scope ends: each request has got what it asked for, no job was
// lost, and once all are stopped nothing is left.
func ended(w *sim.World) {
	began := time.Now()
	for _, r := range w.All() {
		for !w.Request(r.ID).State.Final() && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		if s := w.Request(r.ID).State; s != store.Ready && s != store.Cancelled {
			w.Errorf("request %s is %s, want ready", r.ID, s)
		}
	}
	for _, j := range w.GitHub.Jobs() {
		for w.JobOf(j.ID).State != simgithub.Done && w.JobOf(j.ID).State != simgithub.Queued && time.Since(began) < 2*time.Hour {
			time.Sleep(time.Second)
		}
		if s := w.JobOf(j.ID).State; s != simgithub.Done && s != simgithub.Queued {
			w.Errorf("job %s is %s, want done, or queued for another runner", j.ID, s)
		}
	}
	for _, r := range w.All() {
		if _, err := w.Client.Stop(w.Context(), r.ID, true); err != nil {
			w.Errorf("stop %s: %v", r.ID, err)
		}
	}
	w.Quiet(3 * time.Hour)
}

// scopes are gone through in every order. Each has two workers if a message comes
// once more or two requests are there, and one machine if none is lost.
var scopes = []struct {
	large bool
	explore.Scope
}{
	// One request, from its call to a machine that is online.
	{false, explore.Scope{Name: "LaunchTwice", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Duplicates: 1}},
	{false, explore.Scope{Name: "LaunchWithADeath", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Deaths: 1}},
	{true, explore.Scope{Name: "LaunchWithALostAnswer", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Losses: 1, Duplicates: 1}},
	{true, explore.Scope{Name: "LaunchTwiceWithADeath", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Deaths: 1, Duplicates: 1}},
	{true, explore.Scope{Name: "LaunchTwiceAndTheReaper", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Duplicates: 1, Runs: 1}},
	{true, explore.Scope{Name: "LaunchWithADeathAndTheReaper", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Deaths: 1, Runs: 1}},
	{true, explore.Scope{Name: "LaunchTwiceWithADeathAndTheReaper", Before: reaped, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Deaths: 1, Duplicates: 1, Runs: 1}},

	// The same, launched a minute before GitHub registers it: the registration has a message
	// of its own, which a worker that is late, or comes a second time, has to leave alone.
	{true, explore.Scope{Name: "RegisteredLater", Before: leasedOut, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Duplicates: 1}},
	{true, explore.Scope{Name: "RegisteredLaterWithADeath", Before: leasedOut, Calls: []func(*sim.World){starting(sim.Ephemeral("a"))},
		Over: when(1), Deaths: 1, Duplicates: 1}},

	// Two requests of one key.
	{false, explore.Scope{Name: "TwoStartsOfOneKey", Before: reaped, Calls: []func(*sim.World){starting(sim.Shared("a")), starting(sim.Shared("b"))},
		Over: when(2)}},
	{false, explore.Scope{Name: "ShareAndStop", Before: live, Calls: []func(*sim.World){starting(sim.Shared("b")), stopping(false)},
		Over: when(2)}},
	{false, explore.Scope{Name: "ThirdShareAndForcedStop", Before: func(w *sim.World) {
		live(w)
		w.Ready(w.Start(sim.Shared("b")), time.Minute) // so that the next share only checks the lock
	}, Calls: []func(*sim.World){starting(sim.Shared("c")), stopping(true)}, Over: when(3)}},
	{true, explore.Scope{Name: "ShareAndForcedStopAndTheReaper", Before: live, Calls: []func(*sim.World){starting(sim.Shared("b")), stopping(true)},
		Over: when(2), Runs: 1}},
	{true, explore.Scope{Name: "ShareAndIdle", Before: func(w *sim.World) {
		live(w)
		for time.Since(w.RunnerOf(w.All()[0].ID).OnlineAt) < w.Limits.Idle-2*time.Second {
			time.Sleep(time.Second)
		}
	}, Calls: []func(*sim.World){starting(sim.Shared("b"))}, Over: when(2), Pauses: 1}},

	// The end.
	{false, explore.Scope{Name: "CancelAndBoot", Before: launched, Calls: []func(*sim.World){func(w *sim.World) {
		time.Sleep(time.Until(w.Fleet.Instances()[0].RunsAt.Add(20 * time.Second)))
		stopping(false)(w)
	}}, Over: func(w *sim.World) bool {
		return w.All()[0].State.Final() && time.Since(w.Fleet.Instances()[0].RunsAt) > 25*time.Second
	}}},
	{true, explore.Scope{Name: "StopAndJob", Before: live, Calls: []func(*sim.World){stopping(true), func(w *sim.World) {
		w.Job([]string{w.All()[0].OwnLabel}, 5*time.Second)
	}}, Over: func(w *sim.World) bool { return !w.RunnerOf(w.All()[0].ID).State.Usable() }, Runs: 1, Pauses: 1}},
	{true, explore.Scope{Name: "NextConfig", Before: live, Calls: []func(*sim.World){func(w *sim.World) {
		w.Job([]string{w.All()[0].OwnLabel}, 0)
	}}, Over: func(w *sim.World) bool {
		all := w.GitHub.Registrations()
		return len(all) == 1 && all[0].Online && w.RunnerOf(w.All()[0].ID).Config.N > 1
	}, Deaths: 1, Duplicates: 1}},

	// Two workflow jobs with the same label and two machines.
	{false, explore.Scope{Name: "TwoJobsSwapped", Config: sim.Config{Plain: true}, Before: online, Calls: []func(*sim.World){swap}, Over: when(2)}},
	{true, explore.Scope{Name: "TwoJobs", Config: sim.Config{Plain: true}, Before: twoJobs, Over: when(2)}},
	{true, explore.Scope{Name: "TwoJobsSwappedWithADeath", Config: sim.Config{Plain: true}, Before: online, Calls: []func(*sim.World){swap}, Over: when(2), Deaths: 1}},
	{true, explore.Scope{Name: "TwoJobsWithADeath", Config: sim.Config{Plain: true}, Before: twoJobs, Over: when(2), Deaths: 1}},
}

func TestExhaustive(t *testing.T) {
	for _, s := range scopes {
		if s.large && !*exhaustive {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			s.Limit, s.After = 3*time.Minute, ended
			began := time.Now()
			out := explore.Explore(t, s.Scope)
			t.Logf("%s: %s, in %s", s.Name, out, time.Since(began).Round(time.Millisecond))
			for _, what := range out.Wrong {
				t.Error(what)
			}
			for _, choice := range out.Course {
				t.Log(choice)
			}
		})
	}
}

// twoStarts is a scope in which nothing happens but that two starts are recorded. It ends
// in end, which learns whose record came first.
func twoStarts(end func(w *sim.World, first string)) explore.Scope {
	return explore.Scope{
		Before: func(w *sim.World) { w.Pause(kernel.Worker) },
		Calls:  []func(*sim.World){starting(sim.Ephemeral("a")), starting(sim.Ephemeral("b"))},
		Over:   func(w *sim.World) bool { return len(w.All()) == 2 }, Limit: time.Minute,
		After: func(w *sim.World) {
			for _, e := range w.Trace() {
				if e.Op == kernel.Commit {
					end(w, e.On)
					return
				}
			}
		},
	}
}

func TestExhaustiveModeFindsTheOrderThatIsWrong(t *testing.T) {
	t.Parallel()
	first := map[string]bool{}
	out := explore.Explore(t, twoStarts(func(w *sim.World, id string) {
		if first[id] = true; len(first) == 2 {
			w.Errorf("there are two orders")
		}
	}))
	if len(out.Wrong) != 1 || len(out.Course) == 0 {
		t.Errorf("Explore found %q by way of %q, want that there are two orders, and the way", out.Wrong, out.Course)
	}
}

func TestExhaustiveModeGoesThroughTheSameEachTime(t *testing.T) {
	t.Parallel()
	nothing := func(*sim.World, string) {}
	first, again := explore.Explore(t, twoStarts(nothing)), explore.Explore(t, twoStarts(nothing))
	if first.String() != again.String() || first.Ends < 2 {
		t.Errorf("Explore = %s, and then %s; want the same, with two ends or more", first, again)
	}
}
