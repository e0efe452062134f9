package reaper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

var (
	_ reaper.Fleet  = fleet.Fleet(nil)
	_ reaper.GitHub = github.API(nil)
)

// counted counts what is asked of a store.
type counted struct {
	store.Store
	gets, commits, dues, lists atomic.Int64
}

func (c *counted) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	c.gets.Add(1)
	if len(refs) > 100 {
		return nil, fmt.Errorf("%d items in one read, want at most 100", len(refs))
	}
	return c.Store.Get(ctx, refs...)
}

func (c *counted) Commit(ctx context.Context, changes ...store.Change) error {
	c.commits.Add(1)
	return c.Store.Commit(ctx, changes...)
}

func (c *counted) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	c.dues.Add(1)
	return c.Store.Due(ctx, before)
}

func (c *counted) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	c.lists.Add(1)
	return c.Store.List(ctx, f)
}

// ahead is a store whose index lists work that is due within an hour.
type ahead struct{ store.Store }

func (a ahead) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return a.Store.Due(ctx, before.Add(time.Hour))
}

// twice is a store whose index lists everything twice.
type twice struct{ store.Store }

func (d twice) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return func(yield func(store.Ref, error) bool) {
		for ref, err := range d.Store.Due(ctx, before) {
			for range 2 {
				if !yield(ref, err) {
					return
				}
			}
		}
	}
}

func TestItemListedTwiceIsLookedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.accept("lost")
		time.Sleep(time.Minute)
		w.config.Store = twice{w.store}
		if r := w.run(); r.Requests != 1 || len(lines(r, reaper.Resend)) != 1 {
			t.Errorf("looked at %d requests, want 1\n%s", r.Requests, r)
		}
	})
}

func TestItemDecidesWhetherItIsDue(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("waits", shared)
		w.begin(q)
		held := w.accept("held")
		w.hold(held, store.WaitQuota, time.Now().Add(time.Minute))
		ended := w.ended(w.configure(w.launch(w.begin(w.accept("ended"))))) // the sweep is made too
		ended.DueAt = time.Now().Add(time.Hour)
		w.put(&ended)
		w.config.Store = ahead{w.store}
		time.Sleep(time.Second)
		if r := w.run(); len(r.Lines) != 0 || r.Requests != 0 || r.Runners != 1 || r.Sweeps != 0 || w.hub.count("delete") != 0 {
			t.Errorf("looked at what is not due:\n%s", r)
		}
	})
}

func TestRunWithNothingToDoWritesItsRecordAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 100 {
			w.online(fmt.Sprintf("m%c%c", 'a'+i/10, 'a'+i%10))
		}
		w.run()
		time.Sleep(time.Minute)
		c := &counted{Store: w.store}
		w.config.Store = c
		calls, asked := len(w.fleet.calls), len(w.hub.calls)
		r := w.run()
		if r.Runners != 100 || len(r.Lines) != 0 {
			t.Errorf("looked at %d runners and did %v, want 100 and nothing", r.Runners, r.Lines)
		}
		// 100 runners, what is around them, three items each, the sweep, and the record of the last run, which is written.
		if c.dues.Load() != 1 || c.gets.Load() != 6 || c.commits.Load() != 1 || c.lists.Load() != 0 {
			t.Errorf("%d index reads, %d gets, %d commits, %d lists; want 1, 6, 1, 0",
				c.dues.Load(), c.gets.Load(), c.commits.Load(), c.lists.Load())
		}
		if len(w.fleet.calls) != calls || len(w.hub.calls) != asked || len(w.queue.take()) != 0 {
			t.Errorf("asked EC2 %v, GitHub %v; want nothing asked or sent", w.fleet.calls[calls:], w.hub.calls[asked:])
		}
	})
}

// everything sets up one of everything that a run can have to do.
func (w *world) everything() {
	w.t.Helper()
	w.accept("forgotten")
	w.begin(w.accept("unlaunched"))
	w.machine(w.begin(w.accept("unrecorded")), store.Runner{ID: id("unrecorded")}.ClientToken())
	w.launch(w.begin(w.accept("unbooted")))
	idle := w.draining("idle")
	w.hear(idle.ID, store.Event{Kind: store.EventIdle})
	w.draining("graced")
	w.online("lost")
	dead := w.online("dead")
	w.fleet.set(here, dead.InstanceID, fleet.Terminated)
	named := writtenAhead(w.configure(w.launch(w.begin(w.accept("named")))))
	w.put(&named)
	w.hub.register("42", nameOf(named, 2))
	w.cancel(named.Request)
	w.ghosts(2)
	time.Sleep(10 * time.Minute)
}

// settled reports what is left when everything is done: the machines, the
// registrations, the quota, and the states of all records.
func (w *world) settled() string {
	w.t.Helper()
	states := map[string]int{}
	for _, kind := range []store.Kind{store.KindRequest, store.KindRunner} {
		for it, err := range w.store.List(w.t.Context(), store.Filter{Kind: kind}) {
			if err != nil {
				w.t.Fatal(err)
			}
			switch it := it.(type) {
			case *store.Request:
				states["request "+string(it.State)]++
			case *store.Runner:
				states["runner "+string(it.State)]++
				if it.State.Final() && len(it.Names) > 0 {
					states["names left"]++
				}
			}
		}
	}
	return fmt.Sprintf("machines %d, registered %v, live %d, %v", w.fleet.running(), w.hub.names("42"), w.live(), states)
}

// done is what everything comes to: all runners end, and whose runner came to
// nothing is accepted again until it expires.
const done = "machines 0, registered [], live 0, map[request cancelled:1 request expired:4 request ready:4 runner ended:8]"

func TestEverythingComesToItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.everything()
		w.minutes(20)
		if got := w.settled(); got != done {
			t.Errorf("in the end: %s\nwant %s", got, done)
		}
	})
}

func TestTenMissedRunsAreMadeUpFor(t *testing.T) {
	inWorld(t, func(w *world) {
		w.everything()
		w.minutes(2)
		time.Sleep(10 * time.Minute)
		w.minutes(8)
		if got := w.settled(); got != done {
			t.Errorf("in the end: %s\nwant %s", got, done)
		}
	})
}

func TestOverlappingRunsHaveNoDoubleEffect(t *testing.T) {
	inWorld(t, func(w *world) {
		w.everything()
		w.hub.latency = 100 * time.Millisecond
		starts := 0
		for range 25 {
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() { w.run() })
			}
			wg.Wait()
			w.fleet.settle()
			for _, m := range w.queue.take() {
				if m.ID == id("forgotten") {
					starts++
				}
			}
			time.Sleep(time.Minute)
		}
		if got := w.settled(); got != done {
			t.Errorf("in the end: %s\nwant %s", got, done)
		}
		if starts > 7 {
			t.Errorf("sent the start of one request %d times in the 5 minutes until it expired, want at most once a run", starts)
		}
		for it, err := range w.store.List(w.t.Context(), store.Filter{Kind: store.KindRunner}) {
			if err != nil {
				w.t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, e := range it.(*store.Runner).History {
				line := e.State + " " + e.Reason
				if seen[line] {
					t.Errorf("runner %s tells %q twice", it.Ref().ID, line)
				}
				seen[line] = true
			}
		}
	})
}

func TestRunThatDiesAtAnyCallIsContinuedByTheNext(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.FailBefore, storetest.FailAfter} {
		for at := 1; ; at++ {
			var died atomic.Bool
			inWorld(t, func(w *world) {
				w.everything()
				ctx, kill := context.WithCancel(w.t.Context())
				defer kill()
				w.config.Store = storetest.NewFaulty(w.store, func(_ string, n int) storetest.Fate {
					if n < at {
						return storetest.Pass
					}
					died.Store(true)
					kill() // the process is gone: nothing of it happens any more
					return fate
				})
				_, err := reaper.New(w.config).Run(ctx)
				if died.Load() && err == nil && !strings.Contains(w.log.String(), "is not recorded") { // its record alone is no failure
					t.Errorf("call %d: Run = nil, want its death", at)
				}
				w.config.Store = w.store
				w.minutes(25)
				if got := w.settled(); got != done {
					t.Errorf("after a death at call %d: %s\nwant %s", at, got, done)
				}
			})
			if !died.Load() {
				if at < 30 {
					t.Errorf("a run makes %d calls, want it to have much to do", at-1)
				}
				break
			}
		}
	}
}

// table is a store that may be emptied while it is in use.
type table struct {
	real atomic.Pointer[storetest.Memory]
}

func (t *table) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	return t.real.Load().Get(ctx, refs...)
}

func (t *table) Commit(ctx context.Context, changes ...store.Change) error {
	return t.real.Load().Commit(ctx, changes...)
}

func (t *table) CountOpen(ctx context.Context, repo store.Repository, most int) (int, error) {
	return t.real.Load().CountOpen(ctx, repo, most)
}

func (t *table) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return t.real.Load().Due(ctx, before)
}

func (t *table) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return t.real.Load().List(ctx, f)
}

func TestRunSurvivesATableThatIsEmptiedAtAnyCall(t *testing.T) {
	for at := 1; ; at++ {
		var emptied atomic.Bool
		inWorld(t, func(w *world) {
			w.everything()
			all := &table{}
			all.real.Store(w.store)
			w.config.Store = storetest.NewFaulty(all, func(_ string, n int) storetest.Fate {
				if n == at {
					emptied.Store(true)
					all.real.Store(storetest.NewMemory())
				}
				return storetest.Pass
			})
			r, _ := w.try()
			if strings.Contains(w.log.String(), `"alarm":"`+string(store.AlarmPanic)+`"`) {
				t.Errorf("call %d: the run panicked\n%s\n%s", at, r, w.log.String())
			}
		})
		if !emptied.Load() {
			if at < 30 {
				t.Errorf("a run makes %d calls, want it to have much to do", at-1)
			}
			break
		}
	}
}

func TestOneFailureStopsNothingElse(t *testing.T) {
	for at := 1; ; at++ {
		var failed atomic.Bool
		inWorld(t, func(w *world) {
			w.everything()
			w.config.Store = storetest.NewFaulty(w.store, func(_ string, n int) storetest.Fate {
				if n == at {
					failed.Store(true)
					return storetest.FailBefore
				}
				return storetest.Pass
			})
			r, err := w.try()
			if !failed.Load() {
				return
			}
			if strings.Contains(w.log.String(), "is not recorded") { // which is no part of the run
				if err != nil {
					t.Errorf("call %d: Run = %v, want none for the lack of its record", at, err)
				}
				return
			}
			if !errors.Is(err, storetest.ErrFault) || len(lines(r, reaper.Fail)) == 0 {
				t.Errorf("call %d: Run = %v, want the fault, told in the report\n%s", at, err, r)
			}
			if n := len(r.Lines); n < 4 {
				t.Errorf("call %d: the run told of %d things, want the rest done\n%s", at, n, r)
			}
		})
		if !failed.Load() {
			break
		}
	}
}

// untouchable is a store that cannot be written.
type untouchable struct{ store.Store }

func (untouchable) Commit(context.Context, ...store.Change) error {
	return errors.New("a dry run commits")
}

func TestDryRunChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.everything()
		w.config.Store = untouchable{w.store}
		w.config.DryRun = true
		w.queue.err = errors.New("a dry run sends")
		before := w.settled()
		dry := w.run()
		if got := w.settled(); got != before || w.fleet.count("terminate") != 0 || w.hub.count("delete") != 0 {
			t.Errorf("after a dry run: %s, %d terminations, %d DELETEs; want %s, none, none",
				got, w.fleet.count("terminate"), w.hub.count("delete"), before)
		}
		if !dry.DryRun || !strings.Contains(dry.String(), "nothing was changed") {
			t.Errorf("the report does not say that it is of a dry run:\n%s", dry)
		}

		w.config.Store, w.config.DryRun, w.queue.err = w.store, false, nil
		real := w.run()
		for _, act := range []reaper.Action{reaper.Resend, reaper.Drain, reaper.Deregister, reaper.Ended, reaper.Observe, reaper.Swept} {
			if got, want := lines(dry, act), lines(real, act); !slices.Equal(got, want) {
				t.Errorf("the dry run would %s %v, a run does it to %v", act, got, want)
			}
		}
	})
}

func TestLateRunLeavesTheRestToTheNext(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 100 {
			w.draining(numbered(i))
		}
		w.run0()
		w.hub.latency = 3 * time.Second
		began := time.Now()
		ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
		defer cancel()
		r, err := reaper.New(w.config).Run(ctx)
		if err != nil || !r.Late {
			t.Errorf("Run = %v, late %v; want it late and without an error", err, r.Late)
		}
		if took := time.Since(began); took > 13*time.Second {
			t.Errorf("the run took %s of 15 s, want it to start nothing in the last 5 s", took)
		}
		if n := len(lines(r, reaper.Deregister)); n != 75 || r.Left["ends"] != 25 { // three rounds of 25
			t.Errorf("deregistered %d and left %v, want 75, and 25 left", n, r.Left)
		}
		if !strings.Contains(r.String(), "time ran out") {
			t.Errorf("the report does not tell that time ran out:\n%s", r)
		}
		w.hub.latency = 0
		if n := len(lines(w.run(), reaper.Deregister)); n != 25 {
			t.Errorf("the next run deregistered %d, want the other 25", n)
		}
	})
}

func TestHungCallLeavesTimeToRecordTheRest(t *testing.T) {
	inWorld(t, func(w *world) {
		quick, hung := w.draining("quick"), w.draining("slow")
		w.run0()
		w.hub.hang = hung.Config.RunnerID
		began := time.Now()
		ctx, cancel := context.WithTimeout(w.t.Context(), 8*time.Second)
		defer cancel()
		r, err := reaper.New(w.config).Run(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run = %v, want the hung call's end\n%s", err, r)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the run took %s of 8 s, want at most 6 s", took)
		}
		if w.runner(quick.ID).DeregisteredAt.IsZero() {
			t.Error("the other runner's deregistration is not recorded, want it so")
		}
	})
}

func TestRunWithoutTimeDoesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.everything()
		before := w.settled()
		ctx, cancel := context.WithTimeout(w.t.Context(), 4*time.Second)
		defer cancel()
		r, err := reaper.New(w.config).Run(ctx)
		if err != nil || !r.Late || len(r.Lines) != 0 || w.settled() != before {
			t.Errorf("Run = %v\n%s\nwant nothing done", err, r)
		}
	})
}

func TestPoisonedRecordStopsNothingElse(t *testing.T) {
	inWorld(t, func(w *world) {
		bad := w.begin(w.accept("bad"))
		w.machine(bad, bad.ClientToken())
		bad.Plan = nil // anyone who asks for its placement panics
		w.put(&bad)
		good := w.launch(w.begin(w.accept("good")))
		w.run0()
		time.Sleep(w.lim.BootLimit)
		r, err := w.try()
		if err == nil {
			t.Errorf("Run = nil, want the panic told\n%s", r)
		}
		w.wantRunner(good.ID, store.RunnerEnding)
		w.wantAlarms(store.AlarmPanic)
	})
}

func TestPanicInACallStopsNothingElse(t *testing.T) {
	inWorld(t, func(w *world) {
		w.draining("a")
		b := w.draining("b")
		w.run0()
		w.hub.fail = func(op string, _ github.Scope, id int64) error {
			if id != b.Config.RunnerID {
				panic("no such thing")
			}
			return nil
		}
		if r, err := w.try(); err == nil {
			t.Errorf("Run = nil, want the panic told\n%s", r)
		}
		if w.runner(b.ID).DeregisteredAt.IsZero() {
			t.Error("the other runner is not deregistered, want it so")
		}
		w.wantAlarms(store.AlarmPanic)
	})
}

func TestRunWithoutRandomnessIsNotMade(t *testing.T) {
	inWorld(t, func(w *world) {
		w.everything()
		w.config.Random = strings.NewReader("short")
		before := w.settled()
		if _, err := w.try(); !errors.Is(err, io.ErrUnexpectedEOF) || w.settled() != before {
			t.Errorf("Run = %v, want %v and nothing done", err, io.ErrUnexpectedEOF)
		}
	})
}
