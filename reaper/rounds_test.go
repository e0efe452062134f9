package reaper_test

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// clock notes when each call of a run begins and ends, and lets each take its time.
type clock struct {
	takes time.Duration // zero: oneCall

	mu    sync.Mutex
	spans []span
}

type span struct {
	what       string
	began, end time.Time
}

// oneCall is how long every call takes: all the same, so that what could have gone out
// together ends together.
const oneCall = 25 * time.Millisecond

func (c *clock) call(what string) {
	began := time.Now()
	time.Sleep(cmp.Or(c.takes, oneCall))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, span{what, began, time.Now()})
}

// rounds is the longest chain of calls in which each began when the one before it had
// been answered.
func (c *clock) rounds() int {
	slices.SortFunc(c.spans, func(a, b span) int { return a.end.Compare(b.end) })
	n, last := 0, time.Time{}
	for _, s := range c.spans {
		if !s.began.Before(last) {
			n, last = n+1, s.end
		}
	}
	return n
}

// count returns how many calls there were, of each kind.
func (c *clock) count() map[string]int {
	n := map[string]int{}
	for _, s := range c.spans {
		n[s.what]++
	}
	return n
}

// timedStore, timedFleet, timedHub and timedQueue take their time for each call.
type timedStore struct {
	store.Store
	*clock
}

func (s timedStore) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	s.call("get")
	return s.Store.Get(ctx, refs...)
}

func (s timedStore) Commit(ctx context.Context, changes ...store.Change) error {
	s.call("commit")
	return s.Store.Commit(ctx, changes...)
}

func (s timedStore) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	s.call("due")
	return s.Store.Due(ctx, before)
}

func (s timedStore) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	s.call("list")
	return s.Store.List(ctx, f)
}

type timedFleet struct {
	*ec2
	*clock
}

func (f timedFleet) Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	f.clock.call("describe")
	return f.ec2.Get(ctx, at, ids...)
}

func (f timedFleet) List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
	f.clock.call("describe all")
	return f.ec2.List(ctx, at, controlPlane)
}

func (f timedFleet) Terminate(ctx context.Context, at fleet.Place, ids ...string) error {
	f.clock.call("terminate")
	return f.ec2.Terminate(ctx, at, ids...)
}

type timedHub struct {
	*hub
	*clock
}

func (h timedHub) Delete(ctx context.Context, repo github.Scope, id int64) error {
	h.clock.call("delete")
	return h.hub.Delete(ctx, repo, id)
}

func (h timedHub) List(ctx context.Context, repo github.Scope, prefix string) iter.Seq2[github.Runner, error] {
	h.clock.call("registrations")
	return h.hub.List(ctx, repo, prefix)
}

type timedQueue struct {
	*recorder
	*clock
}

func (q timedQueue) SendAll(ctx context.Context, all ...queue.Outgoing) []error {
	q.call("send")
	return q.recorder.SendAll(ctx, all...)
}

// timed makes a run in which every call takes its time.
func (w *world) timed() *clock {
	w.t.Helper()
	c, was := &clock{}, w.config
	w.config.Store, w.config.Fleet, w.config.GitHub, w.config.Queue = timedStore{w.store, c}, timedFleet{w.fleet, c}, timedHub{w.hub, c}, timedQueue{w.queue, c}
	w.run()
	w.config = was
	return c
}

// numbered names the i-th of many.
func numbered(i int) string {
	return fmt.Sprintf("n%c%c%c%c", 'a'+i/26/26/26, 'a'+i/26/26%26, 'a'+i/26%26, 'a'+i%26)
}

func TestEndsTakeAsManyRoundsForAHundredAsForOne(t *testing.T) {
	const most = 12 + 2 // the record of the run comes after the ends
	for _, n := range []int{1, 10, 100} {
		inWorld(t, func(w *world) {
			w.run0()
			for i := range n {
				w.draining(numbered(i))
			}
			for _, what := range []string{"deregister", "wait", "begin the end and terminate", "finish"} {
				c := w.timed()
				t.Logf("%d idle runners, %s: %d rounds, %v", n, what, c.rounds(), c.count())
				if k := c.rounds(); k > most {
					t.Errorf("%d idle runners, %s: %d rounds, want at most %d", n, what, k, most)
				}
				time.Sleep(time.Minute)
				w.fleet.settle()
			}
			if live := w.live(); live != 0 {
				t.Errorf("%d of %d runners live, want all ended", live, n)
			}
		})
	}
}

func TestResendsOfAThousandRequestsTakeFewRounds(t *testing.T) {
	const n, most = 1000, 40
	inWorld(t, func(w *world) {
		w.run0()
		for i := range n {
			w.accept(numbered(i))
		}
		time.Sleep(w.lim.Resend)
		c := w.timed()
		t.Logf("%d requests: %d rounds, %v", n, c.rounds(), c.count())
		if k := c.rounds(); k > most {
			t.Errorf("%d requests are sent again in %d rounds, want at most %d", n, k, most)
		}
		if sent := len(w.queue.take()); sent != n {
			t.Errorf("%d messages were sent, want %d", sent, n)
		}
	})
}

func TestSweepOfFiveThousandInstancesTakesFewRounds(t *testing.T) {
	const n, most = 5000, 20
	inWorld(t, func(w *world) {
		for i := range n {
			run := w.launch(w.begin(w.accept(numbered(i))))
			run.DueAt = time.Now().Add(time.Hour) // the sweep alone is counted
			q := w.request(run.Request)
			q.DueAt = run.DueAt
			w.put(&run, &q)
		}
		w.ghosts(1) // so that it has to know all machines in use
		time.Sleep(2 * time.Second)
		w.fleet.page = 1000
		c := w.timed()
		t.Logf("%d instances: %d rounds, %v", n, c.rounds(), c.count())
		if k := c.rounds(); k > most {
			t.Errorf("%d instances are swept in %d rounds, want at most %d", n, k, most)
		}
	})
}
