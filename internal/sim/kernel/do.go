package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// ErrFault is the failure that a fate brings.
var ErrFault = errors.New("injected fault")

// ErrDead is the failure of whatever a dead invocation still calls.
var ErrDead = errors.New("the invocation is dead")

// Do makes one call. It takes its time there and back, unlike that of any other
// call, so that calls overlap as they do in reality and have one order; between
// the two its fate is decided. A caller whose context ends on the way back does
// not learn that the call took effect.
func Do[T any](ctx context.Context, k *Kernel, e *Effect, call func(context.Context) (T, error)) (T, error) {
	var none T
	inv := InvocationOf(ctx)
	if inv != nil {
		e.Part, e.By, e.For = inv.Part, inv.Name, inv.call
		k.Watcher.Calls(e, inv.returned.Load())
	}
	if k.cfg.Gate.holds() {
		return gated(ctx, k, inv, e, call)
	}
	k.onWay.Add(1)
	defer k.onWay.Add(-1)
	there, back := k.latency(e)
	if err := inv.travel(ctx, there); err != nil {
		return none, fmt.Errorf("%s: %w", e.Op, err)
	}
	k.number(e)
	fate := k.fate(e)
	if e.Fated != nil {
		e.Fated()
	}
	if fate == Pause {
		k.Watcher.Stands(e, k.Span(e))
		inv.stand(k.Span(e))
	}
	if inv.Dead() { // while its fate was thought over
		return none, fmt.Errorf("%s: %w", e.Op, ErrDead)
	}
	apply := func() (T, error) { return call(context.WithoutCancel(ctx)) }
	if fate == Twice {
		_, _ = apply()
		time.Sleep(time.Nanosecond) // who waits for it gets to run now, or not: always
	}
	if fate == Pass || fate == Pause || fate == Twice || fate == Hold {
		v, err := apply()
		if lost := inv.travel(ctx, back); lost != nil {
			return none, fmt.Errorf("%s: %w", e.Op, lost)
		}
		return v, err
	}
	return none, k.fail(ctx, inv, e, fate, back, func() { _, _ = apply() })
}

// fail brings a fate that fails the call, with its effect or without, and returns
// what the caller learns. Who is no invocation cannot be killed: its call fails.
func (k *Kernel) fail(ctx context.Context, inv *Invocation, e *Effect, fate Fate, back time.Duration, apply func()) error {
	fault := fmt.Errorf("%s: %w", e.Op, ErrFault)
	switch fate {
	case KillAfter, FailAfter:
		apply()
	case FailLate:
		wait := k.Span(e)
		k.Go(func() {
			time.Sleep(wait)
			apply()
		})
	}
	if inv != nil && (fate == KillBefore || fate == KillAfter) {
		inv.kill()
		k.Watcher.Killed(e)
		return fmt.Errorf("%s: %w", e.Op, ErrDead)
	}
	lost := inv.travel(ctx, back)
	if lost == nil && (fate == Throttle || fate == Refuse) {
		return refusal(e, fate, fault)
	}
	return errors.Join(fault, lost)
}

// refusal is the answer that Throttle and Refuse bring.
func refusal(e *Effect, fate Fate, fault error) error {
	switch {
	case e.To == ToEC2 && fate == Throttle:
		return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}
	case e.To == ToEC2:
		return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized to perform this operation."}
	case e.To == ToGitHub && fate == Throttle:
		return &github.Error{Kind: github.ErrLimited, Op: e.Op, RetryAt: time.Now().Add(limited)}
	case e.To == ToGitHub:
		return &github.Error{Kind: github.ErrDenied, Op: e.Op}
	}
	return fault
}

// limited is for how long GitHub asks to wait: what it says itself when it names
// no time (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
const limited = time.Minute
