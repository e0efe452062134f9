// Package sleep waits for a time that a context can cut short. It depends on
// nothing, so that the client may have it too.
package sleep

import (
	"context"
	"time"
)

// For returns nil once d has passed, or the cause of ctx's end if that comes first.
// With no time to wait, a context that has ended always counts.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
