package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// view is what the launch of one runner reads and writes: the items as they were
// read or committed last.
type view struct {
	runner  store.Runner
	lock    store.Lock
	quota   store.Quota
	request store.Request // the one that launched it
	pacing  store.Pacing

	heard *fleet.Error // what EC2 answered and is not recorded yet; nil: nothing
}

// load reads the view of a runner anew, in one round trip when the rest of the
// names is known from an earlier read, else in two.
func (in *invocation) load(ctx context.Context, v *view) error {
	if v.runner.Account == "" {
		run, err := store.Read[store.Runner](ctx, in.Store, v.runner.ID)
		if err != nil {
			return fmt.Errorf("read runner %s: %w", v.runner.ID, err)
		}
		v.runner = run
		if run.Version == 0 {
			return nil
		}
	}
	request := &store.Request{ID: v.runner.Request}
	lock := &store.Lock{Key: v.runner.Lock}
	quota := &store.Quota{Account: v.runner.Account}
	items, err := in.Store.Get(ctx, v.runner.Ref(), lock.Ref(), quota.Ref(), request.Ref())
	if err != nil {
		return fmt.Errorf("read runner %s: %w", v.runner.ID, err)
	}
	v.runner, v.lock = *items[0].(*store.Runner), *items[1].(*store.Lock)
	v.quota, v.request = *items[2].(*store.Quota), *items[3].(*store.Request)
	return nil
}

// apply commits what decide makes of the view, until that succeeds: decide is
// asked again about the items as they are then, and finds in them what an earlier
// try may have done. It returns no changes when nothing is left to do. After
// apply, the view is what is stored. errLater: the time is up.
func (in *invocation) apply(ctx context.Context, v *view, decide func(now time.Time) []store.Change) error {
	for try := 1; ; try++ {
		changes := decide(in.Now())
		if len(changes) == 0 {
			return nil
		}
		err := in.session.Commit(ctx, changes...)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			in.Log.Warn("commit without an answer", "runner", v.runner.ID, "trace", v.runner.Trace, "error", err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("commit runner %s: %w", v.runner.ID, err)
		}
		if in.left() < lastCommit {
			return errLater
		}
		if err := in.backoff(ctx, try); err != nil {
			return err
		}
		if err := in.load(ctx, v); err != nil {
			return err
		}
		if v.runner.Version == 0 {
			return fmt.Errorf("runner %s is no longer recorded: look whether the table was emptied or restored", v.runner.ID)
		}
	}
}

// mine reports whether this invocation holds the claim on the runner.
func (in *invocation) mine(r store.Runner) bool { return r.Claim.By == in.id }
