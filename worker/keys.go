package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// freshFor is how long keys count as fresh: many launches that are tried again at once
// read them once, and SSM gives 40 reads a second to all.
const freshFor = 10 * time.Second

// ring is the keys as this worker knows them. They may be minutes old.
type ring struct {
	mu     sync.Mutex // never held during a call
	keys   *keys.Ring
	readAt time.Time // zero: when the worker was made
}

// keys returns the keys as they are known.
func (w *Worker) keys() *keys.Ring {
	w.ring.mu.Lock()
	defer w.ring.mu.Unlock()
	return w.ring.keys
}

// freshKeys reads the keys again, unless that was done a moment ago.
func (w *Worker) freshKeys(ctx context.Context) (*keys.Ring, error) {
	w.ring.mu.Lock()
	known, readAt := w.ring.keys, w.ring.readAt
	w.ring.mu.Unlock()
	if w.FreshKeys == nil || !readAt.IsZero() && w.Now().Sub(readAt) < freshFor {
		return known, nil
	}
	fresh, err := w.FreshKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the keys again: %w", err)
	}
	w.ring.mu.Lock()
	defer w.ring.mu.Unlock()
	w.ring.keys, w.ring.readAt = fresh, w.Now()
	return fresh, nil
}

// barred gives a runner up whose next step can lead to nothing: its account is
// closed, or the key that its machine proves itself with is taken away. It is true when
// no further step is to be taken.
//
// A launch is never continued with another key: its client token stands for the same
// bytes for ever. What it may have launched is found and ended by the reaper.
func (v *launching) barred(ctx context.Context, step store.Step) (over bool, err error) {
	var why store.Failure
	switch {
	case step != store.StepLaunch && step != store.StepMint:
		return false, nil
	case v.closed:
		why = store.NewEnd(store.EndNoAccount)
	case v.keys().Has(v.Runner.Launch.KeyID):
		return false, nil
	default:
		fresh, err := v.freshKeys(ctx)
		if err != nil {
			v.Log.Warn("a key is not known", "key", v.Runner.Launch.KeyID, "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
			return true, v.wait(ctx, store.WaitOutage, v.Limits.SettleSlack)
		}
		if fresh.Has(v.Runner.Launch.KeyID) {
			return false, nil
		}
		why = store.NewEnd(store.EndKeyLost)
	}
	if step == store.StepLaunch {
		return true, v.abandon(ctx, "", why)
	}
	return true, v.giveUp(ctx, func(now time.Time) store.Decision { return v.Unregistrable(now, v.Limits, why) })
}
