package perftest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// asked is what a part of a runner's life asked of GitHub.
type asked struct {
	what  string
	calls []string // the operations, in their order
	most  int
}

// TestGitHubCallsGolden counts what a runner's life asks of GitHub where it takes
// hours: in the simulation, whose worker and reaper are the real ones.
func TestGitHubCallsGolden(t *testing.T) {
	var rows []asked
	// life are the operations for one runner; lists are of all in a repository.
	life := []string{kernel.Mint, kernel.Get, kernel.Find, kernel.Delete}
	// during counts what is asked while do runs, of the operations; none: of all.
	during := func(w *sim.World, what string, most int, do func(), ops ...string) {
		before := len(w.Trace())
		do()
		row := asked{what: what, most: most}
		for _, e := range w.Trace()[before:] {
			if e.To == kernel.ToGitHub && (len(ops) == 0 || slices.Contains(ops, e.Op)) {
				row.calls = append(row.calls, e.Op)
			}
		}
		rows = append(rows, row)
	}
	ended := func(w *sim.World, id string) {
		w.Until("the runner to be over", time.Hour, func() bool { return w.RunnerOf(id).State.Final() })
	}
	share := func(w *sim.World, key string) {
		w.Ready(w.Start(sim.Shared(key)), time.Minute)
	}

	sim.Run(t, sim.Config{Seed: 1}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("own"))
		during(w, "launch, until its request is ready", 2, func() { w.Ready(s, 10*time.Minute) })
		job := w.Job(s.RunsOn, 10*time.Minute)
		during(w, "a job, and the end of a machine that powers itself off", 0, func() {
			w.Until("the job to be done", time.Hour, func() bool { return w.Done(job) })
			ended(w, s.ID)
		}, life...)
	})
	sim.Run(t, sim.Config{Seed: 1}, func(w *sim.World) {
		s := w.Start(sim.Shared("first"))
		w.Ready(s, 10*time.Minute)
		w.Pause(kernel.Reaper)
		during(w, "share within two minutes of GitHub's word", 0, func() { share(w, "soon") })
		time.Sleep(w.Limits.Confirmed + time.Second)
		during(w, "share later, if the reaper did not ask meanwhile", 1, func() { share(w, "late") })
		w.Resume(kernel.Reaper)
		during(w, "idle shared runner, nine minutes", 9+1, func() { // just less than the idle limit: a list a minute, and maybe the hourly one
			time.Sleep(9 * time.Minute)
		})
		during(w, "end of a runner that waits for jobs", 2, func() {
			if _, err := w.Client.Stop(w.Context(), s.ID, true); err != nil {
				w.Fatal(err)
			}
			ended(w, s.ID)
		}, life...)
	})
	sim.Run(t, sim.Config{Seed: 1}, func(w *sim.World) {
		s := w.Start(sim.Shared("busy"))
		w.Ready(s, 10*time.Minute)
		w.Job(s.RunsOn, time.Hour)
		w.Until("the job to run", time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerBusy })
		during(w, "end of a runner whose job still takes an hour", 10, func() {
			if _, err := w.Client.Stop(w.Context(), s.ID, true); err != nil {
				w.Fatal(err)
			}
			w.Until("the runner to be over", 2*time.Hour, func() bool { return w.RunnerOf(s.ID).State.Final() })
		}, life...)
	})

	var b strings.Builder
	b.WriteString("| what | calls of GitHub | at most |\n|---|---|---|\n")
	for _, r := range rows {
		t.Logf("%s: %v", r.what, r.calls)
		if len(r.calls) > r.most {
			t.Errorf("%s: %d calls of GitHub, want at most %d: %v", r.what, len(r.calls), r.most, r.calls)
		}
		fmt.Fprintf(&b, "| %s | %s | %d |\n", r.what, r.list(), r.most)
	}
	golden(t, "calls of GitHub", b.String())
}

// list tells how often each operation was asked for.
func (a asked) list() string {
	var words []string
	for _, op := range []string{kernel.Mint, kernel.Get, kernel.Find, kernel.List, kernel.Delete} {
		n := 0
		for _, c := range a.calls {
			if c == op {
				n++
			}
		}
		if n > 0 {
			words = append(words, fmt.Sprintf("%d × %s", n, op))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
