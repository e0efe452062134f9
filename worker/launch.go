package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
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
	if step := store.NextStep(now, v.runner, v.lock); step == store.StepConfirm || v.request.State == store.Waiting && !v.runner.OnlineAt.IsZero() {
		if err := in.confirm(ctx, v); err != nil || step == store.StepConfirm {
			return err
		}
	}
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
		if err := sleep.For(ctx, wait); err != nil {
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
		return in.advance(ctx, v, fe)
	case errors.Is(err, fleet.ErrUnsuited):
		log.Warn("placement refused", "code", fe.Code, "text", fe.Text)
		return in.advance(ctx, v, fe)
	case errors.Is(err, fleet.ErrImage):
		return in.reimage(ctx, v, fe)
	case errors.Is(err, fleet.ErrMismatch):
		return in.adopt(ctx, v, fe)
	case errors.Is(err, fleet.ErrGone):
		log.Info("the launched instance is terminated already", "code", fe.Code)
		return in.died(ctx, v, fe)
	case errors.Is(err, fleet.ErrRefused):
		return in.refused(ctx, v, fe, refusalText(err))
	}
	log.Warn("launch unclear", "error", err)
	if !answered {
		return in.unclear(ctx, v, nil)
	}
	if v.runner.Hear(fe.Code, fe.Text).Said.Times >= store.MaxUnfamiliar && errors.Is(err, fleet.ErrUnfamiliar) {
		in.alarmRefused(v, fe)
		v.heard = fe
		return in.abandon(ctx, v, fe.Code, store.Failure{
			Code: store.EndNoLaunch,
			Text: "EC2 answers the launch with a code that GARO does not know. Look the code up, and at the state of EC2.",
		})
	}
	return in.unclear(ctx, v, fe)
}

// refused gives the runner up, and tells people: only they can change something.
func (in *invocation) refused(ctx context.Context, v *view, fe *fleet.Error, text string) error {
	in.alarmRefused(v, fe)
	return in.abandon(ctx, v, fe.Code, store.Failure{Code: store.EndLaunchDenied, Text: text})
}

func (in *invocation) alarmRefused(v *view, fe *fleet.Error) {
	r := v.runner
	in.alarm(store.AlarmLaunchRefused, "launch refused", "runner", r.ID, "request", r.Request, "trace", r.Trace,
		"account", r.Account, "placement", r.Placement().String(), "code", fe.Code, "text", fe.Text)
}

// reimage continues with the image that the account's SSM parameter names by now, if
// that is another than the one that EC2 does not know. That is done once for a
// runner, and else the image is refused.
func (in *invocation) reimage(ctx context.Context, v *view, fe *fleet.Error) error {
	r := v.runner
	account, err := in.Accounts.Account(ctx, r.Account)
	if err != nil {
		in.Log.Warn("registration not read", "account", r.Account, "runner", r.ID, "trace", r.Trace, "error", err)
		return in.later(ctx, v, store.WaitOutage, in.Now().Add(in.Limits.SettleSlack))
	}
	name := imageOf(v.request, account.Regions[r.Region])
	text := refusalText(fe)
	if strings.HasPrefix(name, "/") {
		text += fmt.Sprintf(" SSM parameter %s named it.", name)
	}
	tried := slices.ContainsFunc(r.Attempts, func(a store.Attempt) bool { return ofImage(a.Code) })
	if tried || !strings.HasPrefix(name, "/") {
		return in.refused(ctx, v, fe, text)
	}
	ami, err := in.Fleet.Image(ctx, place(r), name)
	switch {
	case errors.Is(err, fleet.ErrRefused):
		return in.refused(ctx, v, fe, text+" "+refusalText(err))
	case err != nil:
		in.Log.Warn("image not resolved", "account", r.Account, "runner", r.ID, "trace", r.Trace, "error", err)
		return in.later(ctx, v, store.WaitOutage, in.Now().Add(in.Limits.SettleSlack))
	case ami == r.Launch.Image:
		return in.refused(ctx, v, fe, text)
	}
	in.Log.Info("the image is gone; its parameter names another", "runner", r.ID, "trace", r.Trace, "image", r.Launch.Image, "next", ami, "parameter", name)
	return in.move(ctx, v, r.Index+1, fe, func(r store.Runner) store.Runner { return r.Reimage(ami) })
}

// ofImage reports whether a code of an attempt is about the image alone. AuthFailure
// is one only if another image was tried after it: else it ends the launch.
func ofImage(code string) bool { return strings.HasPrefix(code, "InvalidAMI") || code == "AuthFailure" }

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
func (in *invocation) advance(ctx context.Context, v *view, fe *fleet.Error) error {
	next := in.hints.next(in.Now(), v.runner, fe)
	if next < len(v.runner.Plan) {
		return in.move(ctx, v, next, fe, func(r store.Runner) store.Runner { return r })
	}
	full := errors.Is(fe, fleet.ErrCapacity) || slices.ContainsFunc(v.runner.Attempts, func(a store.Attempt) bool {
		return a.Text == "" && !ofImage(a.Code) // that placement may have room later
	})
	if !full {
		return in.refused(ctx, v, fe, "EC2 refuses every placement, the last one with: "+refusalText(fe)+".")
	}
	why := store.NewEnd(store.EndNoCapacity)
	if fe.Code == "VcpuLimitExceeded" {
		why = store.NewEnd(store.EndVCPULimit)
	}
	if fe.Code != "InsufficientInstanceCapacity" { // which says no more than no_capacity does
		why.Text += " EC2's last answer: " + refusalText(fe) + "."
	}
	return in.abandon(ctx, v, fe.Code, why)
}

// move continues at another index of the plan that edit leaves, after EC2 said fe of
// the current one.
func (in *invocation) move(ctx context.Context, v *view, next int, fe *fleet.Error, edit func(store.Runner) store.Runner) error {
	from := v.runner.Index
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
		v.runner, v.lock, v.quota, slot, reserved, _ = store.Advance(now, in.Limits, edit(v.runner), v.lock, v.quota, fe.Code, next, v.pacing, latest)
		if errors.Is(fe, fleet.ErrUnsuited) {
			v.runner = v.runner.Explain(fe.Text)
		}
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

// unclear deals with a call that may or may not have launched, which EC2 answered
// with fe, or not at all: only the same call again can tell. It is repeated here
// while there is time, else by the next one. A call that is still open keeps the
// claim.
func (in *invocation) unclear(ctx context.Context, v *view, fe *fleet.Error) error {
	if fe == nil {
		in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
		return errLater
	}
	v.heard = fe
	said := v.runner.Hear(fe.Code, fe.Text).Said // one answer, however often it takes to record it
	wait := in.patience(said.Times, fe)
	if in.left() <= lastLaunch+wait {
		return in.later(ctx, v, store.WaitEC2, in.Now().Add(wait))
	}
	if err := sleep.For(ctx, wait); err != nil {
		return err
	}
	reserved, slot := false, time.Time{}
	err := in.apply(ctx, v, func(now time.Time) (changes []store.Change) {
		if store.NextStep(now, v.runner, v.lock) != store.StepLaunch || !in.mine(v.runner) {
			return nil
		}
		v.runner.Said, v.runner.Unclear = said, true
		changes, slot, reserved = in.call(now, v)
		return changes
	})
	if err != nil || reserved || store.NextStep(in.Now(), v.runner, v.lock) != store.StepLaunch {
		return err
	}
	return in.later(ctx, v, store.WaitPaced, slot)
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
func (in *invocation) adopt(ctx context.Context, v *view, cause *fleet.Error) error {
	r := v.runner
	instance, err := in.Fleet.ByToken(ctx, place(r), r.ID, r.ClientToken())
	if err == nil && !instance.State.Over() {
		in.Log.Info("adopts", "runner", r.ID, "trace", r.Trace, "instance", instance.ID)
		return in.launched(ctx, v, instance.ID)
	}
	if err == nil {
		return in.buried(ctx, v, cause, instance)
	}
	v.heard = cause
	in.alarm(store.AlarmMismatch, "EC2 knows the client token with other parameters, and shows no instance of it",
		"runner", r.ID, "trace", r.Trace, "account", r.Account, "token", r.ClientToken(), "error", err)
	return in.later(ctx, v, store.WaitEC2, in.Now().Add(in.Limits.SettleSlack))
}

// died gives up a runner whose machine has ended, and asks EC2 why.
func (in *invocation) died(ctx context.Context, v *view, cause *fleet.Error) error {
	instance, err := in.Fleet.ByToken(ctx, place(v.runner), v.runner.ID, v.runner.ClientToken())
	if err != nil {
		in.Log.Info("EC2 does not say why", "runner", v.runner.ID, "trace", v.runner.Trace, "error", err)
		instance = fleet.Instance{State: fleet.Terminated}
	}
	return in.buried(ctx, v, cause, instance)
}

// buried is died, with what EC2 shows of the machine.
func (in *invocation) buried(ctx context.Context, v *view, cause *fleet.Error, instance fleet.Instance) error {
	code := cause.Code
	if instance.ReasonCode != "" {
		code = instance.ReasonCode
	}
	return in.abandon(ctx, v, code, v.runner.Death(string(fleet.Terminated), instance.ReasonCode, instance.Reason))
}

// abandon gives the runner up, and tells the request that launched it in the same
// commit; others that wait for the runner settle by themselves.
func (in *invocation) abandon(ctx context.Context, v *view, code string, why store.Failure) error {
	again := false
	err := in.apply(ctx, v, func(now time.Time) []store.Change {
		if !v.runner.State.Usable() || v.runner.InstanceID != "" {
			return nil
		}
		mayExist := v.runner.Unclear || why.Code == store.EndTerminated || why.Code == store.EndSpot || why.Code == store.EndNoLaunch
		if why.Code == store.EndNoLaunch && v.heard != nil {
			v.runner = v.runner.Hear(v.heard.Code, v.heard.Text)
		}
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
			if v.heard != nil {
				v.runner = v.runner.Hear(v.heard.Code, v.heard.Text)
			}
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
