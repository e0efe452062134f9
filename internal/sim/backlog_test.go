package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// backlog files n requests that nobody takes up, sixteen at a time.
func backlog(w *sim.World, n int) {
	w.Helper()
	var wg sync.WaitGroup
	for lane := range 16 {
		wg.Go(func() {
			for i := lane; i < n; i += 16 {
				body := sim.Ephemeral(fmt.Sprint("backlog-", i))
				body.GiveUp = 3600
				if _, err := w.Client.Start(w.Context(), body); err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// roomFor lets one repository have so many open requests, and another one.
func roomFor(n int) func(*store.Account) {
	return func(a *store.Account) { a.MaxOpenRequests = n + 1 }
}

// resent returns when the reaper sent each request's message again, by request.
func resent(w *sim.World) map[string][]time.Time {
	at := map[string][]time.Time{}
	for _, e := range w.Trace() {
		if e.Part == kernel.Reaper && e.Op == kernel.Send {
			for id := range strings.FieldsSeq(e.On) {
				at[id] = append(at[id], e.At)
			}
		}
	}
	return at
}

func TestBacklogOfTenThousandRequestsDelaysNoEndAndIsSentInThreePeriods(t *testing.T) {
	t.Parallel()
	const n = 10_000
	sim.Run(t, sim.Config{Account: roomFor(n)}, func(w *sim.World) {
		idle := w.Start(sim.Shared("idle"))
		w.Ready(idle, 10*time.Minute)
		w.Pause(kernel.Worker)
		w.Pause(kernel.Reaper)
		backlog(w, n)
		stop(w, idle)
		time.Sleep(w.Limits.Resend)
		w.Resume(kernel.Reaper)
		drained := time.Now()
		w.Until("the idle runner to end", time.Hour, func() bool { return w.RunnerOf(idle.ID).State.Final() })
		if took := time.Since(drained); took > w.Limits.Grace+4*w.Limits.ReaperPeriod {
			w.Errorf("the idle runner ended %s after it was stopped, want its grace and the steps of an end", took)
		}
		time.Sleep(time.Until(drained.Add(4 * w.Limits.ReaperPeriod)))
		times, late := resent(w), 0
		for _, q := range w.All() {
			if q.State == store.Accepted && (len(times[q.ID]) == 0 || times[q.ID][0].Sub(drained) > 3*w.Limits.ReaperPeriod+time.Minute) {
				late++
			}
		}
		if late > 0 || len(times) < n {
			w.Errorf("%d of %d requests were not sent again within three periods", late, n)
		}
		w.Resume(kernel.Worker)
	})
}

func TestBacklogThatNoRunGetsThroughDelaysNoEndAndRotates(t *testing.T) {
	t.Parallel()
	const n = 6000
	// A table that is slow for requests: each commit of the reaper takes two seconds more,
	// so that a run has time for 1,400 of them.
	slow := func(e kernel.Effect) kernel.Fate {
		if e.Part == kernel.Reaper && e.Op == kernel.Commit && strings.HasPrefix(e.What, "request") {
			return kernel.Pause
		}
		return kernel.Pass
	}
	span := func(kernel.Effect) time.Duration { return 2 * time.Second }
	sim.Run(t, sim.Config{Account: roomFor(n), Fate: slow, Span: span}, func(w *sim.World) {
		idle := w.Start(sim.Shared("idle"))
		w.Ready(idle, 10*time.Minute)
		w.Pause(kernel.Worker)
		w.Pause(kernel.Reaper)
		backlog(w, n)
		stop(w, idle)
		time.Sleep(w.Limits.Resend)
		w.Resume(kernel.Reaper)
		began := time.Now()
		w.Until("the idle runner to end", time.Hour, func() bool { return w.RunnerOf(idle.ID).State.Final() })
		if took := time.Since(began); took > w.Limits.Grace+4*w.Limits.ReaperPeriod {
			w.Errorf("the idle runner ended %s after the reaper began, want its grace and the steps of an end", took)
		}
		time.Sleep(time.Until(began.Add(6 * w.Limits.ReaperPeriod)))
		if times := resent(w); len(times) < n {
			w.Errorf("%d of %d requests were sent again by then, want all: a run begins where the last one stopped", len(times), n)
		}
		w.SetFate(nil)
		w.Resume(kernel.Worker)
	})
}

func TestProtectedMachineHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	// Machines that never boot do not switch themselves off: the reaper has to end them.
	sim.Run(t, sim.Config{NeverBoots: func(int) bool { return true }}, func(w *sim.World) {
		const n = 12
		for i := range n {
			w.Start(sim.Ephemeral(fmt.Sprint(i)))
		}
		w.Until("the machines", time.Minute, func() bool { return len(w.Fleet.Instances()) == n })
		all := w.Fleet.Instances()[:n]
		// One of which others are in the zone, and are ended in the same run.
		guarded := all[n-1].ID
		if err := w.Fleet.Protect(guarded, true); err != nil {
			w.Fatal(err)
		}
		over := func(id string) bool {
			f, ok := w.Fleet.Instance(id)
			return ok && f.State.Over()
		}
		w.Until("all others to end", w.Limits.BootLimit+3*w.Limits.ReaperPeriod, func() bool {
			return !slices.ContainsFunc(all, func(f simfleet.Fact) bool { return f.ID != guarded && !over(f.ID) })
		})
		if over(guarded) {
			w.Error("the protected machine is over, want it to live")
		}
	})
}

func TestMessagesThatTheQueueDoesNotTakeAreToldAndSentAgain(t *testing.T) {
	t.Parallel()
	unsent := func(e kernel.Effect) kernel.Fate {
		if e.Part == kernel.Reaper && e.Op == kernel.Send {
			return kernel.FailBefore
		}
		return kernel.Pass
	}
	sim.Run(t, sim.Config{Fate: unsent}, func(w *sim.World) {
		w.Pause(kernel.Worker)
		w.Pause(kernel.Reaper)
		for i := range 12 {
			w.Start(sim.Ephemeral(fmt.Sprint(i)))
		}
		time.Sleep(w.Limits.Resend)
		if report, err := w.Reap(); err == nil || report.Counts[reaper.Fail] != 12 {
			w.Errorf("the run reports %v, and %d failures; want one for each of 12 messages", err, report.Counts[reaper.Fail])
		}
		w.SetFate(nil)
		time.Sleep(2 * w.Limits.Resend)
		if _, err := w.Reap(); err != nil || len(resent(w)) != 12 {
			w.Errorf("the run after the next one = %v and sent %d, want all", err, len(resent(w)))
		}
		w.Resume(kernel.Reaper)
		w.Resume(kernel.Worker)
	})
}
