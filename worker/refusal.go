package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// advance moves to the next placement, or gives the runner up.
func (v *launching) advance(ctx context.Context, fe *fleet.Error) error {
	next := v.capacity.next(v.Now(), v.Runner, fe)
	if next < len(v.Runner.Plan) {
		no := store.Refusal{Code: fe.Code}
		if errors.Is(fe, fleet.ErrUnsuited) {
			no.Text = fe.Text
		}
		return v.move(ctx, next, no)
	}
	full := errors.Is(fe, fleet.ErrCapacity) || slices.ContainsFunc(v.Runner.Attempts, func(a store.Attempt) bool {
		return a.Text == "" && !ofImage(a.Code) // that placement may have room later
	})
	if !full {
		return v.refused(ctx, fe, "EC2 refuses every placement, the last one with: "+refusalText(fe)+".")
	}
	why := store.NewEnd(store.EndNoCapacity)
	if fe.Code == "VcpuLimitExceeded" {
		why = store.NewEnd(store.EndVCPULimit)
	}
	if fe.Code != "InsufficientInstanceCapacity" { // which says no more than no_capacity does
		why.Text += " EC2's last answer: " + refusalText(fe) + "."
	}
	return v.abandon(ctx, fe.Code, why)
}

// move continues at another index of the plan, after EC2's no to the current one.
func (v *launching) move(ctx context.Context, next int, no store.Refusal) error {
	from := v.Runner.Index
	d, err := v.step(ctx, func(now time.Time) store.Decision {
		return v.Advance(now, v.Limits, from, next, no, v.account.Pace(v.Limits))
	})
	if err != nil || d.Wait.For == "" {
		return err
	}
	return v.later(ctx, store.Pause{Wait: d.Wait})
}

// unanswered deals with a call that EC2 did not answer, and which may be open still: it
// keeps the claim until that is over. Only the same call again can tell whether it
// launched.
func (v *launching) unanswered(ctx context.Context) error {
	v.sendResume(ctx, v.Runner.Claim.Until.Add(time.Second))
	return errLater
}

// unclear deals with a call that may or may not have launched, which EC2 answered
// with fe: only the same call again can tell, after a pause in which other messages
// have the worker. A throttled call was not looked at: it does not begin the count of
// another answer again.
func (v *launching) unclear(ctx context.Context, fe *fleet.Error) error {
	said := v.Runner.HearEC2(fe.Code, fe.Text).Said
	if !errors.Is(fe, fleet.ErrThrottled) || v.Runner.Said.Code == "" {
		v.heard = store.Said{Code: fe.Code, Text: fe.Text}
	}
	return v.wait(ctx, store.WaitEC2, v.patience(said.Times, fe))
}

// throttled counts a call and, when EC2 refuses many for their pace, tells people what the
// pace is and what to ask for.
func (v *launching) throttled(err error) {
	r := v.Runner
	calls, refused, tell := v.throttles.count(v.Now(), fleet.PlaceOf(r), errors.Is(err, fleet.ErrThrottled))
	if !tell {
		return
	}
	burst, perSecond := v.account.Pacing.Rate()
	v.alarm(store.AlarmThrottled, "EC2 refuses launches for their pace: set pacing to what AWS grants the account, or ask AWS Support for a RunInstances bucket as pacing has it",
		"account", r.Account, "region", r.Region, "refused", refused, "of", calls, "within", throttledFor,
		"pacing_burst", burst, "pacing_per_second", perSecond, "error", err)
}

// longestPause is the longest time between two calls of one launch: an outage of
// EC2 that ends is noticed soon enough for a machine to boot before boot_by.
const longestPause = 16 * time.Second

// patience returns how long to wait after an answer that tells nothing, which had
// the same code so many times: twice as long each time. RunInstances refills at
// two a second, so that those that were throttled only spread out.
func (in *invocation) patience(times int, fe *fleet.Error) time.Duration {
	wait := time.Second
	if !errors.Is(fe, fleet.ErrThrottled) {
		wait = min(longestPause, wait<<min(max(0, times-1), 10))
	}
	return wait + in.jitter(2*time.Second)
}

// adopt looks for the instance of a token that EC2 knows with other bytes. No new
// token is ever made up: what that one launched may be alive.
func (v *launching) adopt(ctx context.Context, cause *fleet.Error) error {
	r := v.Runner
	instance, err := v.Fleet.ByToken(ctx, fleet.PlaceOf(r), r.ID, r.ClientToken())
	if err == nil && !instance.State.Over() {
		v.Log.Info("adopts", "runner", r.ID, "trace", r.Trace, "instance", instance.ID)
		return v.launched(ctx, instance.ID)
	}
	if err == nil {
		return v.endDead(ctx, cause, instance)
	}
	v.heard = store.Said{Code: cause.Code, Text: cause.Text}
	v.alarm(store.AlarmMismatch, "EC2 knows the client token with other parameters, and shows no instance of it",
		"runner", r.ID, "trace", r.Trace, "account", r.Account, "token", r.ClientToken(), "error", err)
	return v.wait(ctx, store.WaitEC2, v.Limits.SettleSlack)
}

// died gives up a runner whose machine has ended, and asks EC2 why.
func (v *launching) died(ctx context.Context, cause *fleet.Error) error {
	instance, err := v.Fleet.ByToken(ctx, fleet.PlaceOf(v.Runner), v.Runner.ID, v.Runner.ClientToken())
	if err != nil {
		v.Log.Info("EC2 does not say why", "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
		instance = fleet.Instance{State: fleet.Terminated}
	}
	return v.endDead(ctx, cause, instance)
}

// buried is died, with what EC2 shows of the machine.
func (v *launching) endDead(ctx context.Context, cause *fleet.Error, instance fleet.Instance) error {
	code := cause.Code
	if instance.ReasonCode != "" {
		code = instance.ReasonCode
	}
	return v.abandon(ctx, code, v.Runner.Death(string(fleet.Terminated), instance.ReasonCode, instance.Reason))
}
