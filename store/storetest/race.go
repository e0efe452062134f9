package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// rivals is how many writers race: as many as the requests of a busy workflow.
const rivals = 50

// race runs try once for each rival, all at once, and returns who won: whose
// try returned nil. Any other result than that or a conflict fails t.
func race(t *testing.T, try func(n int) error) (winners []int) {
	t.Helper()
	var wg sync.WaitGroup
	results := make([]error, rivals)
	start := make(chan struct{})
	for n := range rivals {
		wg.Go(func() {
			<-start
			results[n] = try(n)
		})
	}
	close(start)
	wg.Wait()
	for n, err := range results {
		switch {
		case err == nil:
			winners = append(winners, n)
		case !errors.Is(err, store.ErrConflict):
			t.Errorf("rival %d: %v, want nil or ErrConflict", n, err)
		}
	}
	return winners
}

// oneWinner is race for what only one may win.
func oneWinner(t *testing.T, try func(n int) error) (winner int) {
	t.Helper()
	winners := race(t, try)
	if len(winners) != 1 {
		t.Fatalf("%d of %d rivals won, want 1", len(winners), rivals)
	}
	return winners[0]
}

func writer(n int) string { return fmt.Sprintf("rival-%d/1", n) }

var raceTests = []test{
	{"OneCreates", func(t *testing.T, s store.Store) {
		won := oneWinner(t, func(n int) error {
			return s.Commit(t.Context(), store.Put(signed(request("r"), writer(n))))
		})
		if got := reread(t, s, request("r")); got.Version != 1 || got.Writer != writer(won) {
			t.Errorf("stored is version %d of %s, want version 1 of %s", got.Version, got.Writer, writer(won))
		}
	}},
	{"OneUpdates", func(t *testing.T, s store.Store) {
		r := request("r")
		create(t, s, r)
		won := oneWinner(t, func(n int) error {
			mine := *r
			mine.Tries = n
			return s.Commit(t.Context(), store.Put(signed(&mine, writer(n))))
		})
		if got := reread(t, s, r); got.Version != 2 || got.Tries != won {
			t.Errorf("stored is version %d of rival %d, want version 2 of rival %d", got.Version, got.Tries, won)
		}
	}},
	{"OneTransactionWinsWhatAllShare", func(t *testing.T, s store.Store) {
		l, q := lock("k"), &store.Quota{Account: "1"}
		create(t, s, l, q)
		won := oneWinner(t, func(n int) error {
			mine, quota, run := *l, *q, signed(runner(fmt.Sprintf("x%d", n)), writer(n))
			mine.Runner, quota.Live = run.ID, 1
			changes := []store.Change{
				store.Put(signed(&mine, writer(n))), store.Put(signed(&quota, writer(n))), store.Put(run),
				store.Put(signed(request(fmt.Sprintf("r%d", n)), writer(n))),
			}
			for range n { // every order of the members
				changes = append(changes[1:], changes[0])
			}
			return s.Commit(t.Context(), changes...)
		})
		if got := reread(t, s, l); got.Version != 2 || got.Runner != fmt.Sprintf("x%d", won) {
			t.Errorf("lock is version %d and names %s, want version 2 and x%d", got.Version, got.Runner, won)
		}
		if got := reread(t, s, q); got.Version != 2 || got.Live != 1 {
			t.Errorf("quota is version %d, live %d; want 2, 1", got.Version, got.Live)
		}
		for n := range rivals {
			want := int64(0)
			if n == won {
				want = 1
			}
			version(t, s, runner(fmt.Sprintf("x%d", n)).Ref(), want)
			version(t, s, request(fmt.Sprintf("r%d", n)).Ref(), want)
		}
	}},
	{"NeighboursInARingNeverBothWin", func(t *testing.T, s store.Store) {
		ring := make([]*store.Lock, rivals)
		for n := range ring {
			ring[n] = lock(fmt.Sprintf("k%d", n))
			create(t, s, ring[n])
		}
		won := make([]bool, rivals)
		for _, n := range race(t, func(n int) error {
			a, b := *ring[n], *ring[(n+1)%rivals]
			a.Runner, b.Runner = writer(n), writer(n)
			return s.Commit(t.Context(), store.Put(signed(&a, writer(n))), store.Put(signed(&b, writer(n))))
		}) {
			won[n] = true
		}
		for n := range ring {
			before := (n + rivals - 1) % rivals
			if won[n] && won[before] {
				t.Errorf("rivals %d and %d both wrote %s", before, n, ring[n].Ref())
			}
			got, want := reread(t, s, ring[n]), int64(1)
			for _, w := range []int{n, before} {
				if won[w] {
					want = 2
					if got.Runner != writer(w) {
						t.Errorf("%s has the mark %q, want that of its winner %d", ring[n].Ref(), got.Runner, w)
					}
				}
			}
			if got.Version != want {
				t.Errorf("version of %s = %d, want %d", ring[n].Ref(), got.Version, want)
			}
		}
	}},
	{"CheckAndWriteCrosswiseOneWins", func(t *testing.T, s store.Store) {
		a, b := lock("a"), lock("b")
		create(t, s, a, b)
		won := oneWinner(t, func(n int) error {
			written, checked := *a, *b
			if n%2 == 1 {
				written, checked = *b, *a
			}
			written.Runner = writer(n)
			return s.Commit(t.Context(), store.Put(signed(&written, writer(n))), store.Check(&checked))
		})
		if sum := reread(t, s, a).Version + reread(t, s, b).Version; sum != 3 {
			t.Errorf("after the win of rival %d the versions add up to %d, want 3", won, sum)
		}
	}},
	{"CountersLoseNothing", func(t *testing.T, s store.Store) {
		q := &store.Quota{Account: "1"}
		if winners := race(t, func(n int) error {
			mine := *q
			for try := 1; ; try++ {
				mine.Live++
				mine.Writer = fmt.Sprintf("rival-%d/%d", n, try)
				err := s.Commit(t.Context(), store.Put(&mine))
				lost, ok := errors.AsType[*store.ConflictError](err)
				if !ok {
					return err
				}
				mine = *lost.Current[0].(*store.Quota)
			}
		}); len(winners) != rivals {
			t.Errorf("%d of %d rivals counted", len(winners), rivals)
		}
		if got := reread(t, s, q); got.Live != rivals || got.Version != rivals {
			t.Errorf("live %d, version %d; want %d of both", got.Live, got.Version, rivals)
		}
	}},
}
