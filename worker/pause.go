package worker

import (
	"context"
	"errors"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// abandon gives the runner up. code is what EC2 said of the current placement, or empty.
func (v *launching) abandon(ctx context.Context, code string, why store.Failure) error {
	var said store.Said
	if why.Code == store.EndNoLaunch {
		said = v.heard
	}
	return v.giveUp(ctx, func(now time.Time) store.Decision { return v.Abandon(now, v.Limits, code, said, why) })
}

// giveUp commits the end of the runner's launch, and logs what it means.
func (v *launching) giveUp(ctx context.Context, decide func(now time.Time) store.Decision) error {
	_, err := v.apply(ctx, decide)
	if errors.Is(err, errLater) {
		v.sendResume(ctx, v.Runner.Claim.Until.Add(time.Second))
	}
	if err != nil {
		return err
	}
	if v.Runner.End != nil {
		v.Log.Info("gives up", "runner", v.Runner.ID, "trace", v.Runner.Trace, "state", string(v.Runner.State), "reason", v.Runner.End.Code,
			"request", v.Request.ID, "request_state", string(v.Request.State))
	}
	return nil
}

// wait is later, for so long.
func (v *launching) wait(ctx context.Context, what string, d time.Duration) error {
	return v.later(ctx, store.Pause{Wait: store.Wait{For: what, Until: v.Now().Add(d)}})
}

// later gives the claim back until a time, and has a worker continue then.
func (v *launching) later(ctx context.Context, p store.Pause) error {
	p.By = v.id
	leased := p.Wait.For == store.WaitGitHub && p.Code == ""
	if p.Wait.For != store.WaitPaced && !leased { // slots and leases are apart from each other already
		p.Wait.Until = p.Wait.Until.Add(v.jitter(time.Second))
	}
	if p.Wait.For == store.WaitEC2 {
		p.Said = v.heard
	}
	d, err := v.apply(ctx, func(now time.Time) store.Decision { return v.Pause(now, p) })
	if errors.Is(err, errLater) {
		v.sendResume(ctx, v.Runner.Claim.Until.Add(time.Second))
		return errLater
	}
	if err != nil || d.Sends == nil {
		return err
	}
	v.Log.Info("waits", "runner", v.Runner.ID, "trace", v.Runner.Trace, "for", p.Wait.For, "until", p.Wait.Until)
	return errLater
}

func (v *launching) sendResume(ctx context.Context, at time.Time) {
	v.send(ctx, queue.Message{Kind: queue.Resume, ID: v.Runner.ID, Trace: v.Runner.Trace}, at)
}
