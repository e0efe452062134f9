package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Doctor is what the worker asks of a doctor.Doctor.
type Doctor interface {
	Parts(ctx context.Context, account, region string) []store.Part
	Examine(ctx context.Context, v doctor.Visit) []store.Finding
}

// partTime is how long a part of a check may take: eight dry runs at EC2's pace, and a slow
// answer.
const partTime = 12 * time.Second

// check carries out a check, or continues it, part by part. What does not fit into this
// invocation is left to the next.
func (in *invocation) check(ctx context.Context, m queue.Message) error {
	c, err := store.Read[store.Checkup](ctx, in.Store, m.ID)
	if err != nil {
		return fmt.Errorf("check %s: %w", m.ID, err)
	}
	if c.Version == 0 {
		in.alarm(store.AlarmUnknown, "message for a check that is not recorded", "check", m.ID, "trace", m.Trace)
		return fmt.Errorf("check %s is not recorded", m.ID)
	}
	now := in.Now()
	d, ok := c.Take(now, in.claim())
	if !ok {
		if c.State(now) == store.CheckRunning { // another worker may have died with it
			in.send(ctx, m, c.Claim.Until)
		}
		return nil
	}
	if c, err = in.keepCheck(ctx, d); err != nil {
		return err
	}
	if c.Runner != "" {
		return in.readConsole(ctx, c)
	}
	for _, p := range in.Doctor.Parts(ctx, c.Account, c.Region) {
		switch {
		case c.Has(p) || c.Full():
			continue
		case in.left() < partTime+lastCommit:
			_, err := in.keepCheck(ctx, c.HandOn(in.Now()))
			return err
		}
		if c, err = in.keepCheck(ctx, c.Found(p, in.examine(ctx, c, p))); err != nil {
			return err
		}
	}
	return in.endCheck(ctx, c)
}

// examine examines a part within its time.
func (in *invocation) examine(ctx context.Context, c store.Checkup, p store.Part) []store.Finding {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	return in.Doctor.Examine(ctx, doctor.Visit{Part: p, Check: c.ID, Try: c.Tries, Lease: func(ctx context.Context, a store.Account, scope string) (time.Time, bool, error) {
		grants, err := in.lease(ctx, in.Now(), a, store.LeaseWish{Scope: scope})
		if wait := grants[0].wait; wait.For != "" {
			return wait.Until, false, err
		}
		return grants[0].At, true, err
	}})
}

// keepCheck commits what was decided of a check and sends its message. One that lost was
// changed by another worker, who has it now.
func (in *invocation) keepCheck(ctx context.Context, d store.Decision) (store.Checkup, error) {
	c := d.Changes[0].Item.(*store.Checkup)
	if err := in.session.Commit(ctx, d.Changes...); err != nil {
		return *c, fmt.Errorf("check %s: %w", c.ID, err)
	}
	in.sendAll(ctx, d)
	return *c, nil
}

// endCheck ends a check, and keeps it as the last one.
func (in *invocation) endCheck(ctx context.Context, c store.Checkup) error {
	for n := 1; ; n++ {
		last, err := store.Read[store.Checkup](ctx, in.Store, store.LastCheck)
		if err != nil {
			return fmt.Errorf("check %s: %w", c.ID, err)
		}
		_, err = in.keepCheck(ctx, c.End(in.Now(), last))
		if !errors.Is(err, store.ErrConflict) || n == maxConflicts {
			if err == nil {
				in.Log.Info("checked", "check", c.ID, "trace", c.Trace, "result", string(c.Result()), "findings", len(c.Findings))
			}
			return err
		}
		if err := in.backoff(ctx, n); err != nil { // another check ended just now
			return err
		}
	}
}
