package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// launching is what the launch of one runner reads and writes: the items as they were
// read or committed last.
type launching struct {
	*invocation
	store.Case
	account store.Account // the registration; its zero value if it cannot be read
	closed  bool          // the account is closed, or registered no longer

	heard store.Said // what EC2 answered and is not recorded yet
}

// load reads the items of a launch again, in one round trip when the rest of the
// names is known from an earlier read, else in two.
func (v *launching) load(ctx context.Context) error {
	if v.Runner.Account == "" {
		run, err := store.Read[store.Runner](ctx, v.Store, v.Runner.ID)
		if err != nil {
			return fmt.Errorf("read runner %s: %w", v.Runner.ID, err)
		}
		v.Case = v.With(&run)
		if run.Version == 0 {
			return nil
		}
	}
	items, err := v.Store.Get(ctx, append(v.Runner.Around(store.KindLock, store.KindQuota, store.KindRequest), v.Runner.Ref())...)
	if err != nil {
		return fmt.Errorf("read runner %s: %w", v.Runner.ID, err)
	}
	v.Case = v.With(items...)
	return nil
}

// apply commits what decide makes of the items, until that succeeds, and then sends the
// messages of the decision: decide is asked again about the items as they are then, and
// finds in them what an earlier try may have done. After apply, v is what is
// stored. errLater: the time is up.
func (v *launching) apply(ctx context.Context, decide func(now time.Time) store.Decision) (store.Decision, error) {
	var wait store.Wait // of the last try, which may have been done though its answer was lost
	for try := 1; ; try++ {
		d := decide(v.Now())
		if len(d.Changes) == 0 && d.Wait == (store.Wait{}) {
			d.Wait = wait
		}
		wait = d.Wait
		var err error
		if len(d.Changes) > 0 {
			err = v.session.Commit(ctx, d.Changes...)
		}
		if err == nil {
			if d.Case != nil {
				v.Case = *d.Case
			}
			v.sendAll(ctx, d)
			return d, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			v.Log.Warn("commit without an answer", "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
		}
		if ctx.Err() != nil {
			return d, fmt.Errorf("commit runner %s: %w", v.Runner.ID, err)
		}
		if v.left() < lastCommit {
			return d, errLater
		}
		if err := v.backoff(ctx, try); err != nil {
			return d, err
		}
		if err := v.load(ctx); err != nil {
			return d, err
		}
		if v.Runner.Version == 0 {
			return d, fmt.Errorf("runner %s is no longer recorded: look whether the table was emptied or restored", v.Runner.ID)
		}
	}
}

// step is apply for as long as this invocation holds the claim on the runner: once
// another one continues, nothing is decided.
func (v *launching) step(ctx context.Context, decide func(now time.Time) store.Decision) (store.Decision, error) {
	return v.apply(ctx, func(now time.Time) store.Decision {
		if !v.mine(v.Runner) {
			return store.Decision{}
		}
		return decide(now)
	})
}

// claimed is step. If its time is up, a message for the time after the claim is sent.
func (v *launching) claimed(ctx context.Context, decide func(now time.Time) store.Decision) (store.Decision, error) {
	d, err := v.step(ctx, decide)
	if errors.Is(err, errLater) {
		v.sendResume(ctx, v.Runner.Claim.Until.Add(time.Second))
	}
	return d, err
}

// mine reports whether this invocation holds the claim on the runner.
func (in *invocation) mine(r store.Runner) bool { return r.Claim.By == in.id }
