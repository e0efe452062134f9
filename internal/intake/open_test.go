package intake_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// backlog is a store whose requests never get a runner.
type backlog struct {
	*storetest.Memory
	counts int
	err    error
	mu     sync.Mutex
}

func (b *backlog) CountOpen(ctx context.Context, repo store.Repository, most int) (int, error) {
	b.mu.Lock()
	b.counts++
	err := b.err
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return b.Memory.CountOpen(ctx, repo, most)
}

// door is a process that files requests.
type door struct {
	*testing.T
	store *backlog
	gauge *intake.Gauge
	told  int
}

var shop = store.Repository{ID: "42", Name: "acme/shop"}

func bounded(most int) store.Account {
	a := *account("1", "acme/shop")
	a.MaxOpenRequests = most
	return a
}

// file files one request, and returns its id, "" if it was refused.
func (d *door) file(a store.Account, repo store.Repository, n int) (string, error) {
	r := &store.Request{ID: fmt.Sprint(repo.Key(), "-", n), Repository: repo, State: store.Accepted}
	err := d.gauge.Admit(d.Context(), a, repo, func() error { return d.store.Commit(d.Context(), store.Put(r)) }, func(error) { d.told++ })
	if err != nil {
		return "", err
	}
	return r.ID, nil
}

func newDoor(t *testing.T, b *backlog, clock *time.Time) *door {
	return &door{T: t, store: b, gauge: intake.NewGauge(b, func() time.Time { return *clock })}
}

func TestOpenRequestsAreBounded(t *testing.T) {
	for _, most := range []int{1, 5, 100, 2000} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			clock := now
			d := newDoor(t, &backlog{Memory: storetest.NewMemory()}, &clock)
			filed := 0
			var refusal *intake.Refusal
			for n := range most + 300 {
				_, err := d.file(bounded(most), shop, n)
				if err == nil {
					filed++
				} else if no, ok := errors.AsType[*intake.Refusal](err); !ok {
					t.Fatal(err)
				} else {
					refusal = no
				}
				clock = clock.Add(100 * time.Millisecond)
			}
			if filed != most {
				t.Errorf("%d requests were filed one after another, want %d", filed, most)
			}
			if refusal == nil || refusal.Full != 5*time.Second || !strings.Contains(refusal.Text, fmt.Sprint(most, " requests of acme/shop")) || !strings.Contains(refusal.Text, "max_open_requests") {
				t.Errorf("the refusal is %+v, want one with the number and the field", refusal)
			}
			if _, err := d.file(bounded(most), store.Repository{ID: "43"}, 0); err != nil {
				t.Errorf("the first request of another repository: %v, want it filed", err)
			}
		})
	}
}

func TestRepositoryWithRoomIsSeldomCounted(t *testing.T) {
	clock := now
	d := newDoor(t, &backlog{Memory: storetest.NewMemory()}, &clock)
	for n := range 7 {
		if _, err := d.file(*account("1"), shop, n); err != nil {
			t.Fatal(err)
		}
	}
	if d.store.counts != 0 {
		t.Errorf("%d counts for seven requests, want none", d.store.counts)
	}
	for n := range 93 {
		if _, err := d.file(*account("1"), shop, 7+n); err != nil {
			t.Fatal(err)
		}
	}
	if d.store.counts > 100/7+1 {
		t.Errorf("%d counts for a hundred requests, want one in seven", d.store.counts)
	}
}

func TestFullRepositoryIsCountedOnceInFiveSeconds(t *testing.T) {
	clock := now
	d := newDoor(t, &backlog{Memory: storetest.NewMemory()}, &clock)
	var ids []string
	for n := range 5 {
		id, err := d.file(bounded(5), shop, n)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	d.store.counts = 0
	for n := range 600 { // a minute of ten calls a second
		if _, err := d.file(bounded(5), shop, 100+n); err == nil {
			t.Fatal("a request beyond the bound was filed")
		}
		clock = clock.Add(100 * time.Millisecond)
	}
	if d.store.counts > 12 {
		t.Errorf("%d counts in a minute, want one in five seconds", d.store.counts)
	}
	r, err := store.Read[store.Request](t.Context(), d.store, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	r.State = store.Ready
	if err := d.store.Commit(t.Context(), store.Put(&r)); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(5 * time.Second)
	if _, err := d.file(bounded(5), shop, 1000); err != nil {
		t.Errorf("a request after another one was ready: %v, want it filed", err)
	}
	if _, err := d.file(bounded(5), shop, 1001); err == nil {
		t.Error("the next one was filed too, want it refused")
	}
}

// Processes know nothing of each other but by the counts.
func TestManyProcessesPassTheBoundByWhatIsUnderWayAlone(t *testing.T) {
	const processes, most = 10, 200
	clock := now
	b := &backlog{Memory: storetest.NewMemory()}
	filed := 0
	doors := make([]*door, processes)
	for i := range doors {
		doors[i] = newDoor(t, b, &clock)
	}
	for n := range 1000 {
		if _, err := doors[n%processes].file(bounded(most), shop, n); err == nil {
			filed++
		}
		clock = clock.Add(20 * time.Millisecond)
	}
	if limit := most + processes*6; filed < most || filed > limit { // 200/32 is the step far from the bound
		t.Errorf("%d requests were filed, want %d to %d", filed, most, limit)
	}
}

func TestSideBySideTheBoundHolds(t *testing.T) {
	clock := now
	d := newDoor(t, &backlog{Memory: storetest.NewMemory()}, &clock)
	var wg sync.WaitGroup
	var mu sync.Mutex
	filed := 0
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				if _, err := d.file(bounded(100), shop, i*1000+n); err == nil {
					mu.Lock()
					filed++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if filed < 92 || filed > 100 {
		t.Errorf("%d requests were filed by eight at once, want 100, or eight less", filed)
	}
}

func TestCountThatFailsRefusesNothingUntilItWasFull(t *testing.T) {
	clock := now
	d := newDoor(t, &backlog{Memory: storetest.NewMemory(), err: errAway}, &clock)
	for n := range 20 {
		if _, err := d.file(bounded(100), shop, n); err != nil {
			t.Fatalf("request %d: %v, want it filed though nothing can be counted", n, err)
		}
	}
	if d.told == 0 {
		t.Error("no log line says that nothing can be counted")
	}
	d.store.err = nil
	for n := range 100 {
		_, _ = d.file(bounded(100), shop, 100+n)
	}
	d.store.err = errAway
	clock = clock.Add(time.Minute)
	if _, err := d.file(bounded(100), shop, 999); !errors.Is(err, errAway) {
		t.Errorf("a request while a full repository cannot be counted: %v, want the outage", err)
	}
}

// overflowing is a store that counts its commits, and fails or is overtaken by others on demand.
type overflowing struct {
	*storetest.Memory
	commits int
	before  func() error
}

func (o *overflowing) Commit(ctx context.Context, changes ...store.Change) error {
	o.commits++
	if o.before != nil {
		if err := o.before(); err != nil {
			return err
		}
	}
	return o.Memory.Commit(ctx, changes...)
}

func TestAnOverflowIsRecordedOnceAMinute(t *testing.T) {
	clock := now.Truncate(time.Minute)
	s := &overflowing{Memory: storetest.NewMemory()}
	w := store.NewWriter(s, "a", func() time.Time { return clock })
	one := intake.NewGauge(s, func() time.Time { return clock })
	two := intake.NewGauge(s, func() time.Time { return clock })
	other := store.Repository{ID: "43", Name: "acme/other"}
	of := func() string {
		o := store.OverflowOf("1", clock)
		got, err := store.Read[store.Overflow](t.Context(), s, o.Key)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(got.Repositories, " ")
	}
	for _, c := range []struct {
		name    string
		gauge   *intake.Gauge
		repo    store.Repository
		later   time.Duration
		commits int
		want    string
	}{
		{"the first", one, shop, 0, 1, "42"},
		{"the same again", one, shop, 59 * time.Second, 0, "42"},
		{"of another repository", one, other, 0, 2, "42 43"}, // the first try finds the record there
		{"by another process", two, shop, 0, 1, "42 43"},
		{"in the next minute", one, shop, time.Second, 1, "42"},
	} {
		clock, s.commits = clock.Add(c.later), 0
		if err := c.gauge.Overflow(t.Context(), w, bounded(1), c.repo); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := of(); got != c.want || s.commits != c.commits {
			t.Errorf("%s: %q by %d commits, want %q by %d", c.name, got, s.commits, c.want, c.commits)
		}
	}
}

func TestAnOverflowThatIsNotRecordedIsSaidAndTriedWithTheNextJob(t *testing.T) {
	s := &overflowing{Memory: storetest.NewMemory()}
	clock := func() time.Time { return now }
	w, g := store.NewWriter(s, "a", clock), intake.NewGauge(s, clock)
	s.before = func() error { return errors.New("no answer") }
	if err := g.Overflow(t.Context(), w, bounded(1), shop); err == nil || !strings.Contains(err.Error(), "acme/shop") || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("without an answer: %v, want the repository and the cause", err)
	}
	n := 0
	s.before = func() error { // others are faster each time
		n++
		o, err := store.Read[store.Overflow](t.Context(), s.Memory, store.OverflowOf("1", now).Key)
		if err != nil {
			return err
		}
		return s.Memory.Commit(t.Context(), o.Full(now, fmt.Sprint("r", n)).Changes...)
	}
	if err := g.Overflow(t.Context(), w, bounded(1), shop); !errors.Is(err, store.ErrConflict) || n != 5 {
		t.Errorf("overtaken %d times: %v, want a conflict after five", n, err)
	}
	s.before = nil
	if err := g.Overflow(t.Context(), w, bounded(1), shop); err != nil {
		t.Error(err)
	}
	o, err := store.Read[store.Overflow](t.Context(), s, store.OverflowOf("1", now).Key)
	if err != nil || len(o.Repositories) != 6 || o.Repositories[5] != "42" {
		t.Errorf("%q, %v; want that of the others, and 42", o.Repositories, err)
	}
}
