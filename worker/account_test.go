package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// other returns a ring with the key k2 alone.
func other(t *testing.T) *keys.Ring {
	t.Helper()
	long := secret.New(strings.Repeat("k", keys.MinLen))
	ring, err := keys.NewRing(long, "k2", map[string]secret.Text{"k2": secret.New(strings.Repeat("n", keys.MinLen))})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// rings answers each reading of the keys with a ring, or an error.
func rings(ring *keys.Ring, err error, read *int) func(context.Context) (*keys.Ring, error) {
	return func(context.Context) (*keys.Ring, error) { *read++; return ring, err }
}

var errAway = errors.New("away")

// crashed records the intent of a worker that died before its call, and returns it
// once its claim has lapsed.
func (w *world) crashed(r store.Request) store.Runner {
	w.Helper()
	was := w.fleet.answer
	w.fleet.answer = func(int, fleet.Launch, func()) error { panic("killed") } // nothing after this is recorded
	w.start(r)
	w.fleet.answer = was
	w.sent = nil
	time.Sleep(time.Minute)
	return w.runnerOf(r.ID)
}

func TestClosedAndRemovedAccountsLaunchNothing(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"Removed": func(w *world) { delete(w.accounts, account) },
		"Closed":  func(w *world) { a := w.accounts[account]; a.Closed = true; w.accounts[account] = a },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request()
				change(w)
				w.start(r)
				w.state(r, store.Failed)
				if got := w.requestNow(r.ID).Error; got.Code != store.EndNoAccount || got.Retryable || len(w.fleet.calls) != 0 {
					t.Errorf("error %+v and %d launches, want account_unknown, for good, and none", got, len(w.fleet.calls))
				}
			})
			inWorld(t, func(w *world) { // between two configs of a shared runner
				r := w.request(shared)
				w.start(r)
				w.online(r)
				w.job(r)
				m := w.next(r)
				change(w)
				w.handle(m)
				run := w.runnerOf(r.ID)
				if run.State != store.RunnerDraining || run.End.Code != store.EndNoAccount || len(w.github.names) != 1 {
					t.Errorf("runner is %s for %v with %d registrations, want it to drain, and no second one", run.State, run.End, len(w.github.names))
				}
				w.state(r, store.Ready)
			})
		})
	}
}

func TestIntentOfARemovedAccountIsGivenUpAndItsMachineLookedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		run := w.crashed(r)
		delete(w.accounts, account)
		w.handle(resumeOf(run))
		w.state(r, store.Failed)
		run = get[store.Runner](w, run.ID)
		if run.State != store.RunnerDraining || run.End.Code != store.EndNoAccount {
			t.Errorf("runner is %s for %v, want it to drain: its call may have launched", run.State, run.End)
		}
	})
}

// One account's mistake costs its own requests time, and no alarm each.
func TestFaultyRegistrationIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.config.Accounts = faulty{}
		w.start(r)
		w.state(r, store.Accepted)
		if got := w.requestNow(r.ID); got.Wait != store.WaitOutage || w.alarmed(store.AlarmAccess) {
			t.Errorf("waits for %q, alarmed %t; want it to wait, and nobody woken for it", got.Wait, w.alarmed(store.AlarmAccess))
		}
		w.config.Accounts = w.accounts
		time.Sleep(time.Minute)
		run := w.crashed(r)
		w.config.Accounts = faulty{}
		calls := len(w.fleet.calls)
		if failed := w.handle(resumeOf(run)); failed != 0 || len(w.fleet.calls) != calls || len(w.sent) != 1 || w.sent[0].ID != run.ID {
			t.Errorf("%d messages failed, %d calls, and %v was sent; want the launch left for later", failed, len(w.fleet.calls)-calls, w.sent)
		}
		w.config.Accounts = w.accounts
		w.follow(1)
		w.state(r, store.Waiting)
		w.config.Accounts = faulty{}
		if failed := w.handle(w.listening(r)); failed != 0 {
			t.Errorf("%d messages failed, want none", failed)
		}
	})
}

// faulty is a store.Accounts whose registrations have a fault.
type faulty struct{ fakeAccounts }

func (faulty) Account(_ context.Context, id string) (store.Account, error) {
	return store.Account{}, fmt.Errorf("parameter /garo/accounts/%s: %w: hard: want seconds", id, store.ErrUnusable)
}

func TestIntentWhoseKeyIsLostIsGivenUpForTheCurrentOne(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		first := w.crashed(r)
		calls, read := len(w.fleet.calls), 0
		w.config.Keys = other(t)
		w.config.FreshKeys = rings(w.config.Keys, nil, &read)
		w.handle(resumeOf(first))
		run := get[store.Runner](w, first.ID)
		if run.State != store.RunnerDraining || run.End.Code != store.EndKeyLost || len(w.fleet.calls) != calls {
			t.Errorf("runner is %s for %v after %d more calls, want it to drain for its key, and none", run.State, run.End, len(w.fleet.calls)-calls)
		}
		w.state(r, store.Accepted)
		w.follow(1)
		w.state(r, store.Waiting)
		second := w.runnerOf(r.ID)
		last := w.fleet.calls[len(w.fleet.calls)-1]
		if second.ID == first.ID || second.Launch.KeyID != "k2" || last.ClientToken != second.ClientToken() {
			t.Errorf("runner %s of key %s was launched with token %s, want a new one of k2 with its own", second.ID, second.Launch.KeyID, last.ClientToken)
		}
		if read == 0 || w.alarmed(store.AlarmLaunchRefused) {
			t.Errorf("keys were read %d times and alarmed %t, want them read again, and no alarm", read, w.alarmed(store.AlarmLaunchRefused))
		}
	})
}

func TestMachineWhoseKeyIsLostIsNotRegistered(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared)
		w.start(r)
		w.online(r)
		w.job(r)
		m := w.next(r)
		w.config.Keys = other(t)
		w.handle(m)
		run := w.runnerOf(r.ID)
		if run.State != store.RunnerDraining || run.End.Code != store.EndKeyLost || len(w.github.names) != 1 {
			t.Errorf("runner is %s for %v with %d registrations, want it to drain, and no second one", run.State, run.End, len(w.github.names))
		}
	})
}

// A worker whose keys are old ones does not know yet with which key a launch began.
func TestKeyThatAWorkerDoesNotKnowYetIsReadAndNotGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		run := w.crashed(r)
		read := 0
		w.config.FreshKeys = rings(w.keys, nil, &read)
		w.config.Keys = other(t)
		w.handle(resumeOf(run))
		if run := w.runnerOf(r.ID); run.InstanceID == "" || run.Config.N == 0 || read != 1 {
			t.Errorf("runner %+v after %d readings, want it launched and registered after one", run.History, read)
		}
	})
	inWorld(t, func(w *world) {
		r := w.request()
		run := w.crashed(r)
		read := 0
		w.config.FreshKeys = rings(nil, errAway, &read)
		w.config.Keys = other(t)
		w.handle(resumeOf(run))
		if run := w.runnerOf(r.ID); run.State != store.RunnerNew || run.Wait != store.WaitOutage || len(w.sent) != 1 {
			t.Errorf("runner is %s and waits for %q, want it to wait until the keys can be read", run.State, run.Wait)
		}
	})
}

func TestTryAfterAFailureReadsTheKeysAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		read := 0
		w.config.FreshKeys = rings(other(t), nil, &read)
		first := w.request()
		again := w.request(func(r *store.Request) { r.Tries = 1 })
		w.start(first)
		if run := w.runnerOf(first.ID); run.Launch.KeyID != "k1" || read != 0 {
			t.Errorf("the first try has key %s after %d readings, want k1 after none", run.Launch.KeyID, read)
		}
		w.start(again)
		if run := w.runnerOf(again.ID); run.Launch.KeyID != "k2" || read != 1 {
			t.Errorf("the next try has key %s after %d readings, want k2 after one", run.Launch.KeyID, read)
		}
	})
}
