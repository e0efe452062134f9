package worker_test

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// points returns what the account's credential may still register.
func (w *world) points() store.Points {
	w.Helper()
	p, err := store.Read[store.Points](w.Context(), w.store.Store, w.accounts[account].CredentialNames()[0])
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// leasedUntil has others lease all registrations up to a time.
func (w *world) leasedUntil(until time.Time) {
	w.Helper()
	p := w.points()
	p.Next = until
	if err := store.NewWriter(w.store.Store, "test-"+rand.Text(), time.Now).Commit(w.Context(), store.Put(&p)); err != nil {
		w.Fatal(err)
	}
}

// watched tells of each commit before it is made.
type watched struct {
	store.Store
	commit func(changes []store.Change)
}

func (s watched) Commit(ctx context.Context, changes ...store.Change) error {
	s.commit(changes)
	return s.Store.Commit(ctx, changes...)
}

func TestLeaseIsCommittedByItselfBeforeItsIntent(t *testing.T) {
	inWorld(t, func(w *world) {
		var order []string
		w.config.Store = watched{w.store, func(changes []store.Change) {
			var kinds []string
			for _, c := range changes {
				kinds = append(kinds, string(c.Item.Ref().Kind))
			}
			slices.Sort(kinds)
			order = append(order, kinds[0])
			if len(kinds) > 1 && slices.Contains(kinds, string(store.KindPoints)) {
				t.Errorf("points are in a commit with %v", kinds)
			}
		}}
		r := w.request()
		w.start(r)
		if !slices.Equal(order[:2], []string{"points", "lock"}) {
			t.Errorf("commits of %v, want the lease first, and then the intent", order)
		}
		run := w.runnerOf(r.ID)
		if run.Config.N != 1 || run.Lease != (store.Lease{}) {
			t.Errorf("config %d with lease %+v, want it registered and the lease used", run.Config.N, run.Lease)
		}
	})
}

// Another process has written the points since this one read them.
func TestTwoWorkersLeaseFromOneCredential(t *testing.T) {
	inWorld(t, func(w *world) {
		one, other := worker.New(w.config), worker.New(w.config)
		for range 3 {
			for _, p := range []*worker.Worker{one, other} {
				if failed := w.handleBy(p, queue.StartOf(w.request())); failed != 0 {
					t.Fatalf("%d messages failed", failed)
				}
			}
			time.Sleep(5 * time.Second)
		}
		if n := len(w.github.calls); n != 6 || w.points().Version != 6 {
			t.Errorf("%d registrations and %d leases, want 6 of both", n, w.points().Version)
		}
	})
}

func TestMachineStartsAheadOfItsRegistrationAndWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		next := time.Now().Add(30 * time.Second)
		w.leasedUntil(next)
		r := w.request()
		w.start(r)
		run := w.runnerOf(r.ID)
		usable := run.Lease.From()
		due := usable.Add(-w.limits.InHand / 2)
		if run.InstanceID == "" || run.Config.N != 0 || run.Wait != store.WaitGitHub || !run.Lease.At.Equal(next) || !run.WaitUntil.Equal(due) || len(w.github.calls) != 0 {
			t.Fatalf("instance %q, config %d, waits for %q until %v; want it launched, and a message at %v for its lease of %v", run.InstanceID, run.Config.N, run.Wait, run.WaitUntil, due, next)
		}
		w.follow(1)
		if run = w.runnerOf(r.ID); run.Config.N != 1 || !time.Now().Equal(usable) || w.points().Version != 2 {
			t.Errorf("config %d at %v with %d leases, want it registered at %v by its one lease", run.Config.N, time.Now(), w.points().Version-1, usable)
		}
	})
}

func TestNoMachineStartsLongBeforeItsRegistration(t *testing.T) {
	inWorld(t, func(w *world) {
		next := time.Now().Add(5 * time.Minute)
		w.leasedUntil(next)
		r := w.request()
		w.start(r)
		got := w.requestNow(r.ID)
		if got.State != store.Accepted || len(w.fleet.byToken) != 0 || got.Wait != store.WaitGitHub || got.DueAt.Before(next.Add(-w.limits.LeaseAhead)) || got.DueAt.After(next) {
			t.Fatalf("%d machines; waits for %q until %v; want none, until a minute before %v", len(w.fleet.byToken), got.Wait, got.DueAt, next)
		}
		if until := got.WaitsUntil(); !until.Equal(got.DueAt) {
			t.Errorf("its caller learns %v, want %v", until, got.DueAt)
		}
		w.follow(1)
		if run := w.runnerOf(r.ID); run.CalledAt.Before(next.Add(-w.limits.LeaseAhead)) {
			t.Errorf("launched at %v, want at most %v before %v", run.CalledAt, w.limits.LeaseAhead, next)
		}
	})
}

// A launch that takes longer than its lease holds needs another.
func TestLeaseThatExpiredIsReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			time.Sleep(8 * time.Second)
			return nil
		}
		r := w.request()
		w.start(r)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || w.points().Version != 2 {
			t.Errorf("config %d with %d leases, want it registered by the second", run.Config.N, w.points().Version)
		}
	})
}

func TestAllWorkersLearnThatGitHubAsksToWait(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(20 * time.Minute)
		w.github.answer = func(int, string) (bool, error) {
			return false, &github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: until}
		}
		w.start(w.request())
		second := w.request()
		w.handleBy(worker.New(w.config), queue.StartOf(second))
		if got := w.requestNow(second.ID); got.State != store.Accepted || len(w.fleet.byToken) != 1 || len(w.github.calls) != 1 || got.Wait != store.WaitGitHub {
			t.Errorf("%d machines, %d registrations, the second waits for %q; want it to wait for GitHub before it is launched", len(w.fleet.byToken), len(w.github.calls), got.Wait)
		}
		if p := w.points(); !p.RestsUntil.Equal(until) {
			t.Errorf("rests until %v, want %v", p.RestsUntil, until)
		}
	})
}
