package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// resume takes up a resume or next message: it names a runner.
func (in *invocation) resume(ctx context.Context, m queue.Message) error {
	v := &view{runner: store.Runner{ID: m.ID}}
	s := &start{Message: m, err: new(error)}
	if err := in.takeOver(ctx, v, s); err != nil || s.drive == nil {
		return err
	}
	return in.drive(ctx, v)
}

// takeOver claims the runner of the view if a step is open and nobody else may
// have a call open for it, and then hands it to s.drive.
func (in *invocation) takeOver(ctx context.Context, v *view, s *start) error {
	if err := in.load(ctx, v); err != nil {
		return err
	}
	if v.runner.Version == 0 {
		in.alarm(store.AlarmUnknown, "message for a runner that is not recorded", "runner", s.ID, "trace", s.Trace)
		return fmt.Errorf("runner %s is not recorded", v.runner.ID)
	}
	account, err := in.Accounts.Account(ctx, v.runner.Account)
	if err != nil && !errors.Is(err, store.ErrNoAccount) {
		return fmt.Errorf("account %s: %w", v.runner.Account, err)
	}
	v.pacing = account.Pacing
	now := in.Now()
	switch {
	case in.mine(v.runner): // the answer of our own intent was lost
		if in.enter(v.runner.ID) {
			s.drive = v
		}
		return nil
	case store.NextStep(now, v.runner, v.lock) == store.StepNone, v.runner.Held(now, in.id):
		return nil
	case v.runner.WaitUntil.After(now.Add(early)):
		in.send(ctx, s.Message, v.runner.WaitUntil)
		return nil
	case !in.enter(v.runner.ID):
		return nil
	}
	reserved, slot := false, time.Time{}
	err = in.apply(ctx, v, func(now time.Time) (changes []store.Change) {
		if in.mine(v.runner) || v.runner.Held(now, in.id) || store.NextStep(now, v.runner, v.lock) == store.StepNone {
			return nil
		}
		v.runner = v.runner.Take(now, in.claim(), in.ControlPlane)
		changes, slot, reserved = in.call(now, v)
		return changes
	})
	switch {
	case errors.Is(err, errLater):
		in.sendResume(ctx, v, in.Now().Add(time.Second))
		return errLater
	case err != nil || !in.mine(v.runner):
		return err
	}
	step := store.NextStep(in.Now(), v.runner, v.lock)
	in.Log.Info("resumes", "runner", v.runner.ID, "trace", v.runner.Trace, "step", string(step))
	if step == store.StepLaunch && !reserved {
		return in.later(ctx, v, store.WaitPaced, slot)
	}
	s.drive = v
	return nil
}

// call is the change of the view's runner, and the slot of a RunInstances call if
// that is the next step and the slot comes in time: then reserved is true.
func (in *invocation) call(now time.Time, v *view) (changes []store.Change, slot time.Time, reserved bool) {
	changes = []store.Change{store.Put(&v.runner)}
	if store.NextStep(now, v.runner, v.lock) == store.StepLaunch {
		v.runner, v.quota, slot, reserved = store.Call(now, v.runner, v.quota, v.pacing, in.deadline.Add(-lastLaunch))
	}
	if reserved {
		changes = append(changes, store.Put(&v.quota))
	}
	return changes, slot, reserved
}

// drive takes a claimed runner through its steps.
func (in *invocation) drive(ctx context.Context, v *view) error {
	err := in.steps(ctx, v)
	if errors.Is(err, errLater) {
		return err
	}
	if err != nil {
		return fmt.Errorf("runner %s: %w", v.runner.ID, err)
	}
	return nil
}

func (in *invocation) steps(ctx context.Context, v *view) error {
	for {
		if !in.mine(v.runner) {
			return nil // given back: another invocation goes on
		}
		switch store.NextStep(in.Now(), v.runner, v.lock) {
		case store.StepLaunch:
			if err := in.launch(ctx, v); err != nil {
				return err
			}
		case store.StepMint:
			if err := in.mint(ctx, v, nil); err != nil {
				return err
			}
		default:
			return in.release(ctx, v)
		}
	}
}

// release gives the claim back when no step is left for this runner.
func (in *invocation) release(ctx context.Context, v *view) error {
	return in.apply(ctx, v, func(now time.Time) []store.Change {
		if !in.mine(v.runner) || v.runner.State.Final() {
			return nil
		}
		v.runner = v.runner.Release(now)
		return []store.Change{store.Put(&v.runner)}
	})
}

// launch makes one RunInstances call, whose slot is reserved, and records what
// came of it.
func (in *invocation) launch(ctx context.Context, v *view) error {
	now := in.Now()
	if in.left() < lastLaunch || v.runner.CalledAt.After(in.deadline.Add(-lastLaunch)) {
		return in.later(ctx, v, store.WaitPaced, now)
	}
	if wait := v.runner.CalledAt.Sub(now); wait > 0 {
		if err := pause(ctx, wait); err != nil {
			return err
		}
		if err := in.load(ctx, v); err != nil {
			return err
		}
		if !in.mine(v.runner) || store.NextStep(in.Now(), v.runner, v.lock) != store.StepLaunch {
			return nil // it was stopped meanwhile, or boot_by passed
		}
	}
	r := v.runner
	l, err := in.render(r)
	if err != nil {
		return in.abandon(ctx, v, "", store.Failure{Code: store.EndLaunchDenied, Text: "The machine's user data cannot be made: " + err.Error() + "."})
	}
	began := in.Now()
	instance, err := in.run(ctx, r, l)
	log := in.Log.With("runner", r.ID, "request", r.Request, "trace", r.Trace, "placement", r.Placement().String(), "took", in.Now().Sub(began))
	fe, answered := errors.AsType[*fleet.Error](err)
	switch {
	case err == nil:
		log.Info("launched", "instance", instance.ID)
		return in.launched(ctx, v, instance.ID)
	case errors.Is(err, fleet.ErrCapacity):
		log.Info("no capacity", "code", fe.Code)
		in.hints.empty(in.Now(), r.Account, r.Region, r.Placement())
		return in.advance(ctx, v, fe.Code)
	case errors.Is(err, fleet.ErrMismatch):
		return in.adopt(ctx, v, fe)
	case errors.Is(err, fleet.ErrGone):
		log.Info("the launched instance is terminated already", "code", fe.Code)
		return in.abandon(ctx, v, fe.Code, store.NewEnd(store.EndTerminated))
	case errors.Is(err, fleet.ErrRefused):
		in.alarm(store.AlarmLaunchRefused, "launch refused", "runner", r.ID, "request", r.Request, "trace", r.Trace,
			"account", r.Account, "placement", r.Placement().String(), "code", fe.Code, "text", fe.Text)
		return in.abandon(ctx, v, fe.Code, store.Failure{Code: store.EndLaunchDenied, Text: refusalText(err)})
	}
	log.Warn("launch unclear", "error", err)
	return in.unclear(ctx, v, answered)
}

// run makes the call, and leaves time to record that it had no answer.
func (in *invocation) run(ctx context.Context, r store.Runner, l fleet.Launch) (fleet.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	return in.Fleet.Launch(ctx, place(r), l)
}

func place(r store.Runner) fleet.Place { return fleet.Place{Account: r.Account, Region: r.Region} }

// render makes the call from what is frozen: the same bytes for the same runner
// and index, whoever makes it.
func (in *invocation) render(r store.Runner) (fleet.Launch, error) {
	token, err := in.Keys.Boot(r.Launch.KeyID, r.ID, r.Index)
	if err != nil {
		return fleet.Launch{}, err
	}
	data, err := bootstrap.Render(r.Launch.Script, bootstrap.Document{
		API: r.Launch.APIURL, Runner: r.ID, Index: r.Index, KeyID: r.Launch.KeyID, Token: token,
		HardS: r.Launch.HardS, Agent: r.Launch.AgentSHA256,
	})
	if err != nil {
		return fleet.Launch{}, err
	}
	p := r.Placement()
	return fleet.Launch{
		ClientToken: r.ClientToken(), Market: p.Market, InstanceType: p.InstanceType, Subnet: p.Subnet,
		Image: r.Launch.Image, SecurityGroups: r.Launch.SecurityGroups, InstanceProfile: r.Launch.InstanceProfile,
		Tags: r.Launch.Tags, UserData: data,
	}, nil
}

// launched records the instance while the config is being minted: the two do not
// need each other, and the machine boots meanwhile.
func (in *invocation) launched(ctx context.Context, v *view, instance string) error {
	var begun <-chan minting
	if v.runner.State == store.RunnerNew {
		begun = in.beginMint(ctx, v.runner)
	}
	foreign := false
	err := in.apply(ctx, v, func(now time.Time) []store.Change {
		r, ok := store.Launched(now, v.runner, instance)
		if foreign = !ok; foreign || v.runner.InstanceID == instance {
			return nil
		}
		v.runner = r
		changes := []store.Change{store.Put(&v.runner)}
		if v.runner.Mismatched() && v.runner.State.Usable() {
			was := v.lock
			v.runner, v.lock = store.Drain(now, v.runner, v.lock, store.NewEnd(store.EndCompromised))
			if v.lock != was {
				changes = append(changes, store.Put(&v.lock))
			}
		}
		return changes
	})
	if v.runner.Mismatched() {
		in.alarm(store.AlarmCompromised, "another machine used the boot token", "runner", v.runner.ID, "trace", v.runner.Trace, "instance", instance)
	}
	if foreign {
		in.Log.Warn("another instance is recorded; this one is left to the sweep", "runner", v.runner.ID, "trace", v.runner.Trace, "instance", instance)
	}
	if begun == nil {
		return err
	}
	m := <-begun // no goroutine outlives this call, whatever the commit said
	if err != nil {
		return err
	}
	return in.mint(ctx, v, &m)
}

// advance moves to the next placement, or gives the runner up.
func (in *invocation) advance(ctx context.Context, v *view, code string) error {
	from := v.runner.Index
	next := in.hints.next(in.Now(), v.runner, code)
	if next >= len(v.runner.Plan) {
		why := store.NewEnd(store.EndNoCapacity)
		if code == "VcpuLimitExceeded" {
			why = store.NewEnd(store.EndVCPULimit)
		}
		return in.abandon(ctx, v, code, why)
	}
	latest := in.deadline.Add(-lastLaunch)
	if in.left() < lastLaunch {
		latest = time.Time{} // no further call here: move, and go on in another invocation
	}
	reserved, slot := true, time.Time{}
	err := in.apply(ctx, v, func(now time.Time) []store.Change {
		if v.runner.Index != from || store.NextStep(now, v.runner, v.lock) != store.StepLaunch || !in.mine(v.runner) {
			return nil // done already, or overtaken by an end
		}
		// The lock names the runner, or there would be no such step.
		v.runner, v.lock, v.quota, slot, reserved, _ = store.Advance(now, in.Limits, v.runner, v.lock, v.quota, code, next, v.pacing, latest)
		changes := []store.Change{store.Put(&v.runner), store.Put(&v.lock)}
		if reserved {
			changes = append(changes, store.Put(&v.quota))
		}
		return changes
	})
	if err != nil || !in.mine(v.runner) {
		return err
	}
	if !reserved {
		return in.later(ctx, v, store.WaitPaced, slot)
	}
	return nil
}

// unclear deals with a call that may or may not have launched: only the same call
// again can tell. It is repeated here while there is time, else by whoever is
// next. A call that is still open keeps the claim.
func (in *invocation) unclear(ctx context.Context, v *view, answered bool) error {
	wait := time.Second + in.jitter(2*time.Second) // RunInstances refills at 2 a second; those that were throttled spread out
	if answered && in.left() > lastLaunch+wait {
		if err := pause(ctx, wait); err != nil {
			return err
		}
		reserved, slot := false, time.Time{}
		err := in.apply(ctx, v, func(now time.Time) (changes []store.Change) {
			if store.NextStep(now, v.runner, v.lock) != store.StepLaunch || !in.mine(v.runner) {
				return nil
			}
			v.runner.Unclear = true
			changes, slot, reserved = in.call(now, v)
			return changes
		})
		if err != nil || reserved || store.NextStep(in.Now(), v.runner, v.lock) != store.StepLaunch {
			return err
		}
		return in.later(ctx, v, store.WaitPaced, slot)
	}
	if answered {
		return in.later(ctx, v, store.WaitEC2, in.Now().Add(wait))
	}
	in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
	return errLater
}

// adopt looks for the instance of a token that EC2 knows with other bytes. No new
// token is ever made up: what that one launched may be alive.
func (in *invocation) adopt(ctx context.Context, v *view, cause *fleet.Error) error {
	r := v.runner
	instance, err := in.Fleet.ByToken(ctx, place(r), r.ID, r.ClientToken())
	if err == nil && !instance.State.Over() {
		in.Log.Info("adopts", "runner", r.ID, "trace", r.Trace, "instance", instance.ID)
		return in.launched(ctx, v, instance.ID)
	}
	if err == nil {
		return in.abandon(ctx, v, cause.Code, store.NewEnd(store.EndTerminated))
	}
	in.alarm(store.AlarmMismatch, "EC2 knows the client token with other parameters, and shows no instance of it",
		"runner", r.ID, "trace", r.Trace, "account", r.Account, "token", r.ClientToken(), "error", err)
	return in.later(ctx, v, store.WaitEC2, in.Now().Add(in.Limits.SettleSlack))
}

// abandon gives the runner up, and tells the request that launched it in the same
// commit; others that wait for the runner settle by themselves.
func (in *invocation) abandon(ctx context.Context, v *view, code string, why store.Failure) error {
	again := false
	err := in.apply(ctx, v, func(now time.Time) []store.Change {
		if !v.runner.State.Usable() || v.runner.InstanceID != "" {
			return nil
		}
		mayExist := v.runner.Unclear || why.Code == store.EndTerminated
		was := v.lock
		v.runner, v.lock, v.quota = store.Abandon(now, in.Limits, v.runner, v.lock, v.quota, code, why, mayExist)
		changes := []store.Change{store.Put(&v.runner)}
		if v.lock != was {
			changes = append(changes, store.Put(&v.lock))
		}
		if v.runner.State.Final() {
			changes = append(changes, store.Put(&v.quota))
		}
		return append(changes, in.settle(now, v, &again)...)
	})
	return in.settled(ctx, v, again, err)
}

// settle adds the launching request, if the runner's end changes it.
func (in *invocation) settle(now time.Time, v *view, again *bool) []store.Change {
	var changed bool
	run := v.runner
	run.Version = max(run.Version, 1) // as it will be once this is committed
	v.request, changed, *again = store.Settle(now, in.Limits, v.request, run)
	if !changed {
		return nil
	}
	return []store.Change{store.Put(&v.request)}
}

// settled tells what came of settle, and sends the request's next try.
func (in *invocation) settled(ctx context.Context, v *view, again bool, err error) error {
	if errors.Is(err, errLater) {
		in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
	}
	if err != nil {
		return err
	}
	if v.runner.End != nil {
		in.Log.Info("gives up", "runner", v.runner.ID, "trace", v.runner.Trace, "state", string(v.runner.State), "reason", v.runner.End.Code,
			"request", v.request.ID, "request_state", string(v.request.State))
	}
	if again {
		in.send(ctx, queue.StartOf(v.request), v.request.DueAt)
	}
	return nil
}

// later gives the claim back until a time, and sends the message that goes on.
func (in *invocation) later(ctx context.Context, v *view, wait string, until time.Time, also ...func(store.Runner) store.Runner) error {
	until = until.Add(in.jitter(time.Second))
	send := false
	err := in.apply(ctx, v, func(now time.Time) []store.Change {
		if !in.mine(v.runner) { // our own commit, if its answer was lost
			send = v.runner.Wait == wait && v.runner.WaitUntil.Equal(until)
			return nil
		}
		if send = v.runner.State.Usable(); !send {
			return nil
		}
		if wait == store.WaitEC2 {
			v.runner.Unclear = true
		}
		v.runner = v.runner.Pause(now, until, wait)
		for _, f := range also {
			v.runner = f(v.runner)
		}
		return []store.Change{store.Put(&v.runner)}
	})
	if errors.Is(err, errLater) {
		in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
		return errLater
	}
	if err != nil || !send {
		return err
	}
	in.Log.Info("waits", "runner", v.runner.ID, "trace", v.runner.Trace, "for", wait, "until", until)
	in.sendResume(ctx, v, until)
	return errLater
}

func (in *invocation) sendResume(ctx context.Context, v *view, at time.Time) {
	in.send(ctx, queue.Message{Kind: queue.Resume, ID: v.runner.ID, Trace: v.runner.Trace}, at)
}

// refusalText is what a request says when EC2 or STS refuses.
func refusalText(err error) string {
	if fe, ok := errors.AsType[*fleet.Error](err); ok {
		return fe.Text + " (" + fe.Code + ")"
	}
	return err.Error()
}
