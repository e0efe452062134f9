package reaper_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// inRepository files a request in another repository than the others.
func inRepository(id string) func(*store.Request) {
	return func(q *store.Request) {
		q.Repository = store.Repository{ID: id, Name: "octo/" + id, OwnerID: "7", Owner: "octo"}
	}
}

// slow lets every call of the world take its time, as AWS does on a bad day, in a run of
// the whole time that a run has.
func (w *world) slow() reaper.Report {
	w.t.Helper()
	c, was := &clock{}, w.config
	w.config.Store, w.config.Fleet, w.config.GitHub, w.config.Queue = timedStore{w.store, c}, timedFleet{w.fleet, c}, timedHub{w.hub, c}, timedQueue{w.queue, c}
	c.takes = 2 * time.Second
	r, err := w.try()
	if err != nil {
		w.t.Errorf("Run = %v, want no error", err)
	}
	w.config = was
	return r
}

func TestBacklogOfRequestsKeepsNoEndAndNoSweepWaiting(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 3000
		for i := range n {
			w.accept(numbered(i))
		}
		time.Sleep(w.lim.Resend)
		idle := w.draining("zidle")
		r := w.slow()
		if !r.Late || r.Left["requests"] < n/2 {
			t.Errorf("late %v, left %v; want it late, with most requests left", r.Late, r.Left)
		}
		if w.runner(idle.ID).DeregisteredAt.IsZero() || len(lines(r, reaper.Swept)) != 1 {
			t.Errorf("deregistered at %s, swept %v; want both done first", w.runner(idle.ID).DeregisteredAt, lines(r, reaper.Swept))
		}
		if r.Left["ends"]+r.Left["sweeps"] != 0 {
			t.Errorf("left %v, want requests alone", r.Left)
		}
	})
}

func TestRequestsThatWereLeftComeFirstInTheNextRun(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 3000
		for i := range n {
			w.accept(numbered(i))
		}
		sent, runs := map[string]int{}, 0
		for len(sent) < n && runs < 20 {
			time.Sleep(w.lim.ReaperPeriod)
			runs++
			r := w.slow()
			for _, m := range w.queue.take() {
				sent[m.ID]++
			}
			if !r.Late {
				break
			}
		}
		twice := 0
		for _, k := range sent {
			if k > 1 {
				twice++
			}
		}
		if len(sent) < n || twice > n/20 {
			t.Errorf("after %d runs %d of %d requests were sent, %d of them twice; want each once before any comes again", runs, len(sent), n, twice)
		}
	})
}

func TestRepositoriesTakeTurns(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 2000 {
			w.accept(numbered(i))
		}
		time.Sleep(time.Second)
		var others []string
		for i := range 20 {
			others = append(others, w.accept("z"+numbered(i), inRepository(fmt.Sprint(100+i))).ID)
		}
		time.Sleep(w.lim.Resend)
		w.run()
		all := w.queue.take()
		for _, id := range others {
			// A round of 500 goes out side by side, in any order; in order of age they would be last.
			if at := slices.IndexFunc(all, func(m sent) bool { return m.ID == id }); at < 0 || at >= 500 {
				t.Errorf("the only request %s of a repository was sent as number %d of %d, want it among the first", id, at, len(all))
			}
		}
	})
}

// partial is a queue that refuses every other message of a batch.
type partial struct{ *recorder }

func (q partial) SendAll(ctx context.Context, all ...queue.Outgoing) []error {
	errs := make([]error, len(all))
	for i, m := range all {
		if i%2 == 1 {
			errs[i] = errors.New("InternalError: try again")
			continue
		}
		q.recorder.SendAll(ctx, m)
	}
	return errs
}

func TestMessageThatABatchDidNotTakeIsToldAndSentAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run0()
		for i := range 20 {
			w.accept(numbered(i))
		}
		time.Sleep(w.lim.Resend)
		w.config.Queue = partial{w.queue}
		r, err := w.try()
		if err == nil || len(lines(r, reaper.Fail)) != 10 || len(w.queue.take()) != 10 {
			t.Errorf("Run = %v with %d failures, want ten told, and ten sent", err, len(lines(r, reaper.Fail)))
		}
		w.config.Queue = w.queue
		time.Sleep(2 * w.lim.Resend)
		w.run()
		if n := len(w.queue.take()); n != 20 {
			t.Errorf("the run after the next one sent %d, want all 20", n)
		}
	})
}

// flooded is a store in which somebody writes a runner before each of the first commits
// that write it, as a machine may that sends notes without end.
type flooded struct {
	store.Store
	w    *world
	id   string
	left int
}

func (f *flooded) Commit(ctx context.Context, changes ...store.Change) error {
	for _, c := range changes {
		if c.Item.Ref() == (store.Ref{Kind: store.KindRunner, ID: f.id}) && f.left > 0 {
			f.left--
			run := f.w.runner(f.id)
			run.Counter++
			f.w.put(&run)
		}
	}
	return f.Store.Commit(ctx, changes...)
}

func TestFloodedRecordEndsAllTheSame(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("flood")
		w.run0()
		for range 3 { // drain and deregister; begin and terminate; finish
			time.Sleep(time.Until(run.Hard) + time.Second)
			w.config.Store = &flooded{w.store, w, run.ID, 4}
			r := w.run()
			if len(lines(r, reaper.Skip)) > 0 {
				t.Errorf("skipped %v, want nothing", lines(r, reaper.Skip))
			}
			w.fleet.settle()
		}
		w.wantRunner(run.ID, store.RunnerEnded)
	})
}

func TestGroupThatEC2RefusesEndsOneByOne(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run0()
		var all []store.Runner
		for i := range 10 {
			run := w.draining(numbered(i))
			all = append(all, w.hear(run.ID, store.Event{Kind: store.EventIdle}))
		}
		time.Sleep(time.Second)
		w.run()
		time.Sleep(w.lim.Grace)
		w.fleet.protected[all[3].InstanceID] = true
		if _, err := w.try(); !errors.Is(err, fleet.ErrRefused) {
			t.Errorf("Run = %v, want that one is protected", err)
		}
		if n := w.fleet.count("terminate"); n != 1+10 || w.fleet.running() != 1 {
			t.Errorf("%d calls, and %d machines run; want one for all and ten for each, and the protected one", n, w.fleet.running())
		}
		w.wantAlarms(store.AlarmTerminate)
		w.fleet.settle()
		w.fleet.protected = map[string]bool{}
		w.minutes(3)
		if w.live() != 0 {
			t.Errorf("%d live, want none", w.live())
		}
	})
}

func TestEndsOfAnAccountShareTheirCommits(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run0()
		const n = 70
		for i := range n {
			run := w.online(numbered(i))
			w.fleet.set(here, run.InstanceID, fleet.Terminated)
		}
		for i := range n {
			w.cancel(id(numbered(i)))
			w.hear(id(numbered(i)), store.Event{Kind: store.EventDraining})
		}
		contested := id(numbered(5))
		w.config.Store = &flooded{w.store, w, contested, 2}
		c := &counted{Store: w.config.Store}
		w.config.Store = c
		r := w.run()
		if got := len(lines(r, reaper.Ended)); got != n || w.live() != 0 {
			t.Errorf("%d ended and %d live, want all ended, and the quota to count none", got, w.live())
		}
		// Three groups of 33, 33 and 4, of which the first loses once; the contested one
		// alone, of which the first try loses too. And the record of the run.
		if got := c.commits.Load(); got != 3+1+2+1 {
			t.Errorf("%d commits, want 7", got)
		}
	})
}

func TestShardsLookAtEachItemOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		const n, shards = 60, 4
		for i := range n {
			w.accept(numbered(i))
			w.online("z" + numbered(i))
		}
		for i := range 5 {
			w.accounts[fmt.Sprint(222222222220+i)] = store.Account{Regions: map[string]store.Region{region: {}, "eu-west-1": {}}}
		}
		time.Sleep(w.lim.Resend)
		requests, runners, sweeps := 0, 0, map[string]int{}
		for i := range shards {
			ctx, cancel := context.WithTimeout(w.t.Context(), 50*time.Second)
			r, err := reaper.New(w.config).RunShard(ctx, reaper.Shard{Index: i, Of: shards})
			cancel()
			if err != nil || r.Requests == 0 || r.Runners == 0 {
				t.Errorf("shard %d: %v, looked at %d requests and %d runners; want some of each", i, err, r.Requests, r.Runners)
			}
			requests, runners = requests+r.Requests, runners+r.Runners
			for _, key := range lines(r, reaper.Swept) {
				sweeps[key]++
			}
		}
		if requests != n || runners != n || len(sweeps) != 11 {
			t.Errorf("all shards looked at %d requests and %d runners and swept %v; want %d, %d and 11 places", requests, runners, sweeps, n, n)
		}
		for key, times := range sweeps {
			if times != 1 {
				t.Errorf("%s was swept %d times, want once", key, times)
			}
		}
		for _, s := range []reaper.Shard{{Index: 4, Of: 4}, {Index: -1, Of: 4}, {Index: 1}, {Of: -1}} {
			if _, err := reaper.New(w.config).RunShard(w.t.Context(), s); err == nil || !strings.Contains(err.Error(), "shard") {
				t.Errorf("RunShard %+v = %v, want it refused", s, err)
			}
		}
	})
}

func TestRunsThatAreTooShortComeToEveryRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 2000
		w.run0()
		for i := range n {
			w.online(numbered(i))
		}
		time.Sleep(w.lim.Lost + time.Second) // all have to drain
		drained, runs := 0, 0
		for ; drained < n && runs < 12; runs++ {
			c, was := &clock{takes: time.Second}, w.config
			w.config.Store = timedStore{w.store, c}
			w.hub.fail = func(string, github.Scope, int64) error { return refusal(github.ErrLimited, 429) }
			ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
			r, _ := reaper.New(w.config).Run(ctx) // a new process each time
			cancel()
			w.config = was
			if runs == 0 && !r.Late {
				t.Error("the first run is not late, want it too short")
			}
			drained += len(lines(r, reaper.Drain))
			time.Sleep(w.lim.ReaperPeriod)
		}
		if drained != n {
			t.Errorf("%d of %d runners were drained in %d runs, want all", drained, n, runs)
		}
	})
}
