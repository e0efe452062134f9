package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// resume takes up a resume or next message: it names a runner.
func (in *invocation) resume(ctx context.Context, m queue.Message) error {
	v := &launching{invocation: in, Case: store.Case{Runner: store.Runner{ID: m.ID}}}
	s := &start{Message: m, err: new(error)}
	if err := v.takeOver(ctx, s); err != nil || s.drive == nil {
		return err
	}
	return v.drive(ctx)
}

// takeOver claims the runner if a step is open and no other worker may
// have a call open for it, and then hands it to s.drive.
func (v *launching) takeOver(ctx context.Context, s *start) error {
	if err := v.load(ctx); err != nil {
		return err
	}
	if v.Runner.Version == 0 {
		v.alarm(store.AlarmUnknown, "message for a runner that is not recorded", "runner", s.ID, "trace", s.Trace)
		return fmt.Errorf("runner %s is not recorded", v.Runner.ID)
	}
	account, err := v.Accounts.Account(ctx, v.Runner.Account)
	switch {
	case errors.Is(err, store.ErrUnusable) && store.NextStep(v.Now(), v.Runner, v.Lock) == store.StepLaunch:
		v.send(ctx, s.Message, v.Now().Add(v.Limits.Waits[0])) // nobody knows its pace
		return errLater
	case errors.Is(err, store.ErrUnusable):
	case err != nil && !errors.Is(err, store.ErrNoAccount):
		return fmt.Errorf("account %s: %w", v.Runner.Account, err)
	}
	if v.Runner.Admission.Pending() {
		return v.admit(ctx, account, err)
	}
	v.account, v.closed = account, account.Closed || errors.Is(err, store.ErrNoAccount)
	settles := v.Request.State == store.Waiting && (!v.Runner.OnlineAt.IsZero() || v.Runner.Took.Job != "")
	if step := store.NextStep(v.Now(), v.Runner, v.Lock); step == store.StepConfirm || settles {
		if err := v.confirm(ctx); err != nil || step == store.StepConfirm {
			return err
		}
	}
	return v.take(ctx, s)
}

// take claims the runner for its open step, if there is one, and hands it to s.drive.
func (v *launching) take(ctx context.Context, s *start) error {
	now := v.Now()
	switch {
	case v.mine(v.Runner): // the answer of our own intent was lost
		if v.first(v.Runner.ID) {
			s.drive = v
		}
		return nil
	case store.NextStep(now, v.Runner, v.Lock) == store.StepNone, v.Runner.Held(now, v.id):
		return nil
	case v.Runner.WaitUntil.After(now.Add(early)):
		v.send(ctx, s.Message, v.Runner.WaitUntil)
		return nil
	case !v.first(v.Runner.ID):
		return nil
	}
	pacing := new(v.account.Pace(v.Limits))
	if v.closed {
		pacing = nil // nothing is launched: no slot is used up
	}
	d, err := v.apply(ctx, func(now time.Time) store.Decision {
		return v.Take(now, v.claim(), v.ControlPlane, pacing)
	})
	switch {
	case errors.Is(err, errLater):
		v.sendResume(ctx, v.Now().Add(time.Second))
		return errLater
	case err != nil || !v.mine(v.Runner):
		return err
	}
	v.Log.Info("resumes", "runner", v.Runner.ID, "trace", v.Runner.Trace, "step", string(store.NextStep(v.Now(), v.Runner, v.Lock)))
	if d.Wait.For != "" && !v.closed {
		return v.later(ctx, store.Pause{Wait: d.Wait})
	}
	s.drive = v
	return nil
}

// drive takes a claimed runner through its steps.
func (v *launching) drive(ctx context.Context) error {
	err := v.steps(ctx)
	if errors.Is(err, errLater) {
		return err
	}
	if err != nil {
		return fmt.Errorf("runner %s: %w", v.Runner.ID, err)
	}
	return nil
}

func (v *launching) steps(ctx context.Context) error {
	for {
		if !v.mine(v.Runner) {
			return nil // given back: another invocation continues
		}
		step := store.NextStep(v.Now(), v.Runner, v.Lock)
		if over, err := v.barred(ctx, step); over || err != nil {
			return err
		}
		switch step {
		case store.StepLaunch:
			if err := v.launch(ctx); err != nil {
				return err
			}
		case store.StepMint:
			if err := v.mint(ctx, nil); err != nil {
				return err
			}
		default:
			return v.release(ctx)
		}
	}
}

// release gives the claim back when no step is left for this runner.
func (v *launching) release(ctx context.Context) error {
	_, err := v.step(ctx, func(now time.Time) store.Decision { return v.Release(now) })
	return err
}
