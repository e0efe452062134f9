package dynamostore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// cost is what it took many requests to share one runner.
type cost struct {
	commits   int // tried
	conflicts int // lost to another's version
	met       int // reasons TransactionConflict, which the store tried again
	calls     map[string]int
	took      time.Duration
}

func (c cost) String() string {
	return fmt.Sprintf("%d commits, %d conflicts, %d times transactions met, calls %v, in %v", c.commits, c.conflicts, c.met, c.calls, c.took.Round(time.Millisecond))
}

// share takes one accepted request to a runner that it shares, as a worker does: it
// reads, asks the rules, commits, and after a conflict begins again.
func share(ctx context.Context, s store.Store, id, lock string, now time.Time) (commits, conflicts int, err error) {
	session := store.NewWriter(s, "worker-"+id, func() time.Time { return now })
	for {
		items, err := session.Get(ctx, store.Ref{Kind: store.KindRequest, ID: id}, store.Ref{Kind: store.KindLock, ID: lock}, store.Ref{Kind: store.KindPulse, ID: lock})
		if err != nil {
			return commits, conflicts, err
		}
		r, l, p := *items[0].(*store.Request), *items[1].(*store.Lock), *items[2].(*store.Pulse)
		if !store.Shareable(now, lim, r, l, p) {
			return commits, conflicts, fmt.Errorf("request %s cannot share: lock %+v, pulse %+v", id, l, p)
		}
		commits++
		err = session.Commit(ctx, store.Case{Request: r, Lock: l}.Share(now, lim).Changes...)
		if !errors.Is(err, store.ErrConflict) {
			return commits, conflicts, err
		}
		conflicts++
		time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond)))) // the losers do not all meet again
	}
}

// sharers has n requests share one live runner at once.
func sharers(t testing.TB, server *awstest.Server, h harming, n int) cost {
	t.Helper()
	st, p := tapped(t, server, h)
	world := online(t, "first", noon)
	if err := st.Commit(t.Context(), store.Put(&world.request), store.Put(&world.runner), store.Put(&world.lock), store.Put(&world.pulse), store.Put(&world.quota)); err != nil {
		t.Fatal(err)
	}
	now := noon.Add(70 * time.Second)
	for i := range n {
		r := accepted(fmt.Sprint("crowd-", i), now)
		if err := st.Commit(t.Context(), store.Put(&r)); err != nil {
			t.Fatal(err)
		}
	}
	p.forget()
	var c cost
	var commits, conflicts atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			tried, lost, err := share(t.Context(), st, fmt.Sprint("crowd-", i), world.lock.Key, now)
			if err != nil {
				t.Errorf("sharer %d: %v", i, err)
			}
			commits.Add(int64(tried))
			conflicts.Add(int64(lost))
		})
	}
	wg.Wait()
	c.took = time.Since(began)
	p.mu.Lock()
	c.commits, c.conflicts, c.met, c.calls = int(commits.Load()), int(conflicts.Load()), p.codes["TransactionConflict"], maps.Clone(p.calls)
	p.mu.Unlock()
	shared(t, st, world, n)
	return c
}

// shared checks that all n requests got the runner, and that the lock says so.
func shared(t testing.TB, st *dynamostore.Store, world *stage, n int) {
	t.Helper()
	ready := 0
	for i, err := range st.List(t.Context(), store.Filter{States: []string{string(store.Ready)}}) {
		if err != nil {
			t.Fatal(err)
		}
		if r := i.(*store.Request); r.Runner != world.runner.ID {
			t.Errorf("request %s has runner %q, want %s", r.ID, r.Runner, world.runner.ID)
		}
		ready++
	}
	if ready != n+1 {
		t.Errorf("%d requests are ready, want %d", ready, n+1)
	}
	l, err := store.Read[store.Lock](t.Context(), st, world.lock.Key)
	if err != nil {
		t.Fatal(err)
	}
	if l.Joined == "" || l.Version != 2 || !l.Exp.After(world.lock.Exp.Add(-time.Second)) {
		t.Errorf("the lock is version %d, joined by %q, until %v; want it written once", l.Version, l.Joined, l.Exp)
	}
}

// crowds are the ways in which transactions on one item may meet. The stand-ins
// do one after another; DynamoDB cancels one that comes while another is under way
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-conflict-handling),
// so in the last one every transaction that is not alone meets another.
var crowds = []struct {
	name  string
	start func(testing.TB) *awstest.Server
	size  int // how many share: what a large matrix of jobs starts
	harm  harming
}{
	{"DynamoDBLocal", awstest.DynamoDB, 100, nil},
	{"Ministack", awstest.Ministack, 100, nil},
	{"WhereTransactionsMeet", awstest.DynamoDB, 50, alone},
}

// alone lets one transaction at a time take effect.
func alone(op string, _, open int) harm {
	if op == "TransactWriteItems" && open > 0 {
		return met
	}
	return fine
}

func TestCrowdSharesOneRunner(t *testing.T) {
	for _, s := range crowds {
		t.Run(s.name, func(t *testing.T) {
			c := sharers(t, s.start(t), s.harm, s.size)
			t.Logf("%d sharers of one lock: %v", s.size, c)
			// Those who read the lock before the first one has written it lose to that
			// once; from then on all only check it, and checks do not change it.
			if c.commits > 3*s.size {
				t.Errorf("%d sharers took %d commits, want at most %d", s.size, c.commits, 3*s.size)
			}
		})
	}
}

func BenchmarkCrowdOfSharers(b *testing.B) {
	for _, s := range crowds {
		b.Run(s.name, func(b *testing.B) {
			server := s.start(b)
			var total cost
			for b.Loop() {
				c := sharers(b, server, s.harm, s.size)
				total.commits, total.conflicts, total.met, total.took = total.commits+c.commits, total.conflicts+c.conflicts, total.met+c.met, total.took+c.took
			}
			each := float64(b.N * s.size)
			b.ReportMetric(float64(total.commits)/each, "commits/sharer")
			b.ReportMetric(float64(total.conflicts)/each, "conflicts/sharer")
			b.ReportMetric(float64(total.met)/each, "retries/sharer")
			b.ReportMetric(total.took.Seconds()*1000/float64(b.N), "ms/crowd")
		})
	}
}
