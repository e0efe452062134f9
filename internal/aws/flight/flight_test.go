package flight_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/flight"
)

// source is fetched from: each fetch takes a second and brings the next number,
// which stands for a minute, or an error.
type source struct {
	cache flight.Cache[string, int]

	mu    sync.Mutex
	n     int
	lasts []int
	err   error
	until time.Duration // of err
}

func newSource() *source {
	return &source{cache: flight.Cache[string, int]{Now: time.Now, Keep: time.Hour}}
}

func (s *source) get(ctx context.Context, key string, fresh bool) (int, error) {
	return s.cache.Get(ctx, key, fresh, func(ctx context.Context, last int) (int, time.Time, error) {
		s.mu.Lock()
		s.n++
		n, err, until := s.n, s.err, s.until
		s.lasts = append(s.lasts, last)
		s.mu.Unlock()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return 0, time.Time{}, ctx.Err()
		}
		if err != nil && until > 0 {
			return 0, time.Now().Add(until), err
		}
		if err != nil {
			return 0, time.Time{}, err
		}
		return n, time.Now().Add(time.Minute), nil
	})
}

func (s *source) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func (s *source) want(t *testing.T, key string, fresh bool, want int) {
	t.Helper()
	if got, err := s.get(t.Context(), key, fresh); err != nil || got != want {
		t.Errorf("Get(%s, fresh %v) = %d, %v; want %d", key, fresh, got, err, want)
	}
}

func TestValueIsFetchedOnceForAllUntilItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { s.want(t, "a", false, 1) })
		}
		wg.Wait()
		s.want(t, "b", false, 2)
		time.Sleep(time.Minute - 2*time.Second)
		s.want(t, "a", false, 1)
		time.Sleep(time.Second)
		s.want(t, "a", false, 3)
		if got := s.fetches(); got != 3 {
			t.Errorf("%d fetches, want 3", got)
		}
	})
}

func TestFreshAcceptsNoFetchThatBeganBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.want(t, "a", true, 1)
		s.want(t, "a", true, 2)
		s.want(t, "a", false, 2)
		var wg sync.WaitGroup
		wg.Go(func() { s.want(t, "a", true, 3) })
		synctest.Wait() // it is fetching
		for range 100 {
			wg.Go(func() { s.want(t, "a", true, 4) })
		}
		wg.Wait()
		if got := s.fetches(); got != 4 {
			t.Errorf("%d fetches, want 4", got)
		}
	})
}

func TestFailureIsSharedWithThoseWhoWaitAndThenForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.err = errors.New("away")
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := s.get(t.Context(), "a", false); !errors.Is(err, s.err) {
					t.Errorf("Get = %v, want %v", err, s.err)
				}
			})
		}
		wg.Wait()
		if got := s.fetches(); got != 1 {
			t.Errorf("%d fetches, want 1", got)
		}
		s.err = nil
		s.want(t, "a", false, 2)
	})
}

func TestFailureThatStandsIsToldWithoutAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.err, s.until = errors.New("refused"), 10*time.Second
		for range 3 {
			if _, err := s.get(t.Context(), "a", false); !errors.Is(err, s.err) {
				t.Errorf("Get = %v, want %v", err, s.err)
			}
		}
		if got := s.fetches(); got != 1 {
			t.Errorf("%d fetches, want 1", got)
		}
		s.err = nil
		time.Sleep(10 * time.Second)
		s.want(t, "a", false, 2)
	})
}

func TestFailureThatStandsIsNotLostToOtherKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.err, s.until = errors.New("refused"), 10*time.Second
		for _, key := range []string{"a", "b", "a", "b"} {
			if _, err := s.get(t.Context(), key, false); !errors.Is(err, s.err) {
				t.Errorf("Get = %v, want %v", err, s.err)
			}
		}
		if got := s.fetches(); got != 2 {
			t.Errorf("%d fetches, want 2", got)
		}
	})
}

func TestLastValueIsHandedToTheNextFetchWhileItIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.want(t, "a", false, 1)
		s.err = errors.New("away")
		for range 2 {
			time.Sleep(time.Minute)
			if _, err := s.get(t.Context(), "a", false); err == nil {
				t.Error("Get = nil, want an error")
			}
		}
		s.err = nil
		s.want(t, "a", false, 4)
		time.Sleep(time.Hour)
		s.want(t, "a", false, 5)
		s.err, s.until = errors.New("gone"), time.Second
		time.Sleep(time.Minute)
		if _, err := s.get(t.Context(), "a", false); err == nil {
			t.Error("Get = nil, want an error")
		}
		s.err = nil
		time.Sleep(time.Second)
		s.want(t, "a", false, 7)
		if want := []int{0, 1, 1, 1, 0, 5, 0}; !slices.Equal(s.lasts, want) {
			t.Errorf("fetches got %v, want %v", s.lasts, want)
		}
	})
}

func TestCallerWhoRunsOutOfTimeFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.get(short, "a", false); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Get of the fetcher = %v, want that its time is up", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { s.want(t, "a", false, 2) })
		wg.Wait()

		wg.Go(func() { s.want(t, "b", false, 3) })
		synctest.Wait()
		if _, err := s.get(short, "b", false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get of one who waits = %v, want that its time is up", err)
		}
		wg.Wait()
	})
}

// A fetch that ran out of its own time says nothing to others, whatever it returns: they
// fetch, and do not look at its answer again and again until its time is up.
func TestAbandonedFetchIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := flight.Cache[string, int]{Now: time.Now}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Get(short, "a", false, func(ctx context.Context, _ int) (int, time.Time, error) {
			<-ctx.Done()
			return 0, time.Now().Add(time.Minute), ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get of the fetcher = %v, want that its time is up", err)
		}
		got, err := c.Get(t.Context(), "a", false, func(context.Context, int) (int, time.Time, error) { return 2, time.Time{}, nil })
		if got != 2 || err != nil {
			t.Errorf("the next Get = %d, %v, want what it fetched", got, err)
		}
	})
}

func TestPanicOfAFetchLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the fetcher's panic was swallowed")
				}
			}()
			_, _ = s.cache.Get(t.Context(), "a", false, func(context.Context, int) (int, time.Time, error) {
				time.Sleep(time.Second)
				panic("fetch")
			})
		})
		synctest.Wait()
		if _, err := s.get(t.Context(), "a", false); err == nil {
			t.Error("Get of one who waited = nil, want an error")
		}
		wg.Wait()
		s.want(t, "a", false, 1)
	})
}

func TestForgetDropsTheBadValueAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		is := func(bad int) func(int) bool { return func(v int) bool { return v == bad } }
		s.cache.Forget("a", is(0)) // there is nothing
		s.want(t, "a", false, 1)
		s.cache.Forget("a", is(7))
		s.want(t, "a", false, 1)
		s.cache.Forget("a", is(1))
		s.want(t, "a", false, 2)
		s.cache.Forget("a", is(1)) // somebody was faster
		s.want(t, "a", false, 2)
		if s.lasts[1] != 0 {
			t.Errorf("a forgotten value was handed on: %v", s.lasts)
		}
	})
}

func TestPeekShowsOnlyWhatStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		want := func(value int, ok bool) {
			t.Helper()
			if v, stands := s.cache.Peek("a"); v != value || stands != ok {
				t.Errorf("Peek = %d, %v; want %d, %v", v, stands, value, ok)
			}
		}
		want(0, false)
		var wg sync.WaitGroup
		wg.Go(func() { s.want(t, "a", false, 1) })
		synctest.Wait()
		want(0, false)
		wg.Wait()
		want(1, true)
		time.Sleep(time.Minute)
		want(0, false)
		s.err, s.until = errors.New("refused"), time.Minute
		_, _ = s.get(t.Context(), "a", false)
		want(0, false)
	})
}

func TestWhatIsOfNoUseAnyMoreIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.want(t, "value", false, 1)
		s.err, s.until = errors.New("refused"), 10*time.Second
		for _, key := range []string{"x", "y", "z"} {
			if _, err := s.get(t.Context(), key, false); err == nil {
				t.Error("Get = nil, want an error")
			}
		}
		s.err = nil
		time.Sleep(time.Minute)
		s.want(t, "other", false, 5)
		if got := s.cache.Len(); got != 2 {
			t.Errorf("the cache has %d keys, want 2: the refusals are over", got)
		}
		time.Sleep(time.Hour)
		s.want(t, "x", false, 6)
		if got := s.cache.Len(); got != 1 {
			t.Errorf("the cache has %d keys, want 1: the values are old", got)
		}
	})
}
