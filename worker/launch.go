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
	v := &launching{Case: store.Case{Runner: store.Runner{ID: m.ID}}}
	s := &start{Message: m, err: new(error)}
	if err := in.takeOver(ctx, v, s); err != nil || s.drive == nil {
		return err
	}
	return in.drive(ctx, v)
}

// takeOver claims the runner if a step is open and no other worker may
// have a call open for it, and then hands it to s.drive.
func (in *invocation) takeOver(ctx context.Context, v *launching, s *start) error {
	if err := in.load(ctx, v); err != nil {
		return err
	}
	if v.Runner.Version == 0 {
		in.alarm(store.AlarmUnknown, "message for a runner that is not recorded", "runner", s.ID, "trace", s.Trace)
		return fmt.Errorf("runner %s is not recorded", v.Runner.ID)
	}
	account, err := in.Accounts.Account(ctx, v.Runner.Account)
	if err != nil && !errors.Is(err, store.ErrNoAccount) {
		return fmt.Errorf("account %s: %w", v.Runner.Account, err)
	}
	v.pacing = account.Pacing
	now := in.Now()
	if step := store.NextStep(now, v.Runner, v.Lock); step == store.StepConfirm || v.Request.State == store.Waiting && !v.Runner.OnlineAt.IsZero() {
		if err := in.confirm(ctx, v); err != nil || step == store.StepConfirm {
			return err
		}
	}
	switch {
	case in.mine(v.Runner): // the answer of our own intent was lost
		if in.first(v.Runner.ID) {
			s.drive = v
		}
		return nil
	case store.NextStep(now, v.Runner, v.Lock) == store.StepNone, v.Runner.Held(now, in.id):
		return nil
	case v.Runner.WaitUntil.After(now.Add(early)):
		in.send(ctx, s.Message, v.Runner.WaitUntil)
		return nil
	case !in.first(v.Runner.ID):
		return nil
	}
	d, err := in.apply(ctx, v, func(now time.Time) store.Decision {
		return v.Take(now, in.claim(), in.ControlPlane, in.slots(v))
	})
	switch {
	case errors.Is(err, errLater):
		in.sendResume(ctx, v, in.Now().Add(time.Second))
		return errLater
	case err != nil || !in.mine(v.Runner):
		return err
	}
	in.Log.Info("resumes", "runner", v.Runner.ID, "trace", v.Runner.Trace, "step", string(store.NextStep(in.Now(), v.Runner, v.Lock)))
	if d.Wait.For != "" {
		return in.later(ctx, v, store.Pause{Wait: d.Wait})
	}
	s.drive = v
	return nil
}

// slots says when this invocation may still begin a RunInstances call.
func (in *invocation) slots(v *launching) store.Slots {
	return store.Slots{Pacing: v.pacing, Latest: in.deadline.Add(-lastLaunch)}
}

// drive takes a claimed runner through its steps.
func (in *invocation) drive(ctx context.Context, v *launching) error {
	err := in.steps(ctx, v)
	if errors.Is(err, errLater) {
		return err
	}
	if err != nil {
		return fmt.Errorf("runner %s: %w", v.Runner.ID, err)
	}
	return nil
}

func (in *invocation) steps(ctx context.Context, v *launching) error {
	for {
		if !in.mine(v.Runner) {
			return nil // given back: another invocation goes on
		}
		switch store.NextStep(in.Now(), v.Runner, v.Lock) {
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
func (in *invocation) release(ctx context.Context, v *launching) error {
	_, err := in.step(ctx, v, func(now time.Time) store.Decision { return v.Release(now) })
	return err
}

// launch makes one RunInstances call, whose slot is reserved, and records what
// came of it.
func (in *invocation) launch(ctx context.Context, v *launching) error {
	now := in.Now()
	if in.left() < lastLaunch || v.Runner.CalledAt.After(in.deadline.Add(-lastLaunch)) {
		return in.later(ctx, v, store.Pause{Wait: store.Wait{For: store.WaitPaced, Until: now}})
	}
	if wait := v.Runner.CalledAt.Sub(now); wait > 0 {
		if err := sleep.For(ctx, wait); err != nil {
			return err
		}
		if err := in.load(ctx, v); err != nil {
			return err
		}
		if !in.mine(v.Runner) || store.NextStep(in.Now(), v.Runner, v.Lock) != store.StepLaunch {
			return nil // it was stopped meanwhile, or boot_by passed
		}
	}
	r := v.Runner
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
		in.capacity.empty(in.Now(), r.Account, r.Region, r.Placement())
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
		return in.unanswered(ctx, v)
	}
	if v.Runner.Hear(fe.Code, fe.Text).Said.Times >= store.MaxUnfamiliar && errors.Is(err, fleet.ErrUnfamiliar) {
		in.alarmRefused(v, fe)
		v.heard = store.Said{Code: fe.Code, Text: fe.Text}
		return in.abandon(ctx, v, fe.Code, store.Failure{
			Code: store.EndNoLaunch,
			Text: "EC2 answers the launch with a code that GARO does not know. Look the code up, and at the state of EC2.",
		})
	}
	return in.unclear(ctx, v, fe)
}

// refused gives the runner up, and tells people: only they can change something.
func (in *invocation) refused(ctx context.Context, v *launching, fe *fleet.Error, text string) error {
	in.alarmRefused(v, fe)
	return in.abandon(ctx, v, fe.Code, store.Failure{Code: store.EndLaunchDenied, Text: text})
}

func (in *invocation) alarmRefused(v *launching, fe *fleet.Error) {
	r := v.Runner
	in.alarm(store.AlarmLaunchRefused, "launch refused", "runner", r.ID, "request", r.Request, "trace", r.Trace,
		"account", r.Account, "placement", r.Placement().String(), "code", fe.Code, "text", fe.Text)
}

// reimage continues with the image that the account's SSM parameter names by now, if
// that is another than the one that EC2 does not know. That is done once for a
// runner, and else the image is refused.
func (in *invocation) reimage(ctx context.Context, v *launching, fe *fleet.Error) error {
	r := v.Runner
	account, err := in.Accounts.Account(ctx, r.Account)
	if err != nil {
		in.Log.Warn("registration not read", "account", r.Account, "runner", r.ID, "trace", r.Trace, "error", err)
		return in.wait(ctx, v, store.WaitOutage, in.Limits.SettleSlack)
	}
	name := imageOf(v.Request, account.Regions[r.Region])
	text := refusalText(fe)
	if strings.HasPrefix(name, "/") {
		text += fmt.Sprintf(" SSM parameter %s named it.", name)
	}
	tried := slices.ContainsFunc(r.Attempts, func(a store.Attempt) bool { return ofImage(a.Code) })
	if tried || !strings.HasPrefix(name, "/") {
		return in.refused(ctx, v, fe, text)
	}
	ami, err := in.Fleet.Image(ctx, placeOf(r), name)
	switch {
	case errors.Is(err, fleet.ErrRefused):
		return in.refused(ctx, v, fe, text+" "+refusalText(err))
	case err != nil:
		in.Log.Warn("image not resolved", "account", r.Account, "runner", r.ID, "trace", r.Trace, "error", err)
		return in.wait(ctx, v, store.WaitOutage, in.Limits.SettleSlack)
	case ami == r.Launch.Image:
		return in.refused(ctx, v, fe, text)
	}
	in.Log.Info("the image is gone; its parameter names another", "runner", r.ID, "trace", r.Trace, "image", r.Launch.Image, "next", ami, "parameter", name)
	return in.move(ctx, v, r.Index+1, store.Refusal{Code: fe.Code, Image: ami})
}

// ofImage reports whether a code of an attempt is about the image alone. AuthFailure
// is one only if another image was tried after it: else it ends the launch.
func ofImage(code string) bool { return strings.HasPrefix(code, "InvalidAMI") || code == "AuthFailure" }

// run makes the call, and leaves time to record that it had no answer.
func (in *invocation) run(ctx context.Context, r store.Runner, l fleet.Launch) (fleet.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	return in.Fleet.Launch(ctx, placeOf(r), l)
}

func placeOf(r store.Runner) fleet.Place { return fleet.Place{Account: r.Account, Region: r.Region} }

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
func (in *invocation) launched(ctx context.Context, v *launching, instance string) error {
	var begun <-chan minting
	if v.Runner.State == store.RunnerNew {
		begun = in.beginMint(ctx, v.Runner)
	}
	foreign := false
	d, err := in.apply(ctx, v, func(now time.Time) store.Decision {
		d, ok := v.Launched(now, instance)
		foreign = !ok
		return d
	})
	if d.Alarm != "" {
		in.alarm(d.Alarm, "another machine used the boot token", "runner", v.Runner.ID, "trace", v.Runner.Trace, "instance", instance)
	}
	if foreign {
		in.Log.Warn("another instance is recorded; this one is left to the sweep", "runner", v.Runner.ID, "trace", v.Runner.Trace, "instance", instance)
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
func (in *invocation) advance(ctx context.Context, v *launching, fe *fleet.Error) error {
	next := in.capacity.next(in.Now(), v.Runner, fe)
	if next < len(v.Runner.Plan) {
		no := store.Refusal{Code: fe.Code}
		if errors.Is(fe, fleet.ErrUnsuited) {
			no.Text = fe.Text
		}
		return in.move(ctx, v, next, no)
	}
	full := errors.Is(fe, fleet.ErrCapacity) || slices.ContainsFunc(v.Runner.Attempts, func(a store.Attempt) bool {
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

// move continues at another index of the plan, after EC2's no to the current one.
func (in *invocation) move(ctx context.Context, v *launching, next int, no store.Refusal) error {
	from, slots := v.Runner.Index, in.slots(v)
	if in.left() < lastLaunch {
		slots.Latest = time.Time{} // no further call here: move, and go on in another invocation
	}
	d, err := in.step(ctx, v, func(now time.Time) store.Decision {
		return v.Advance(now, in.Limits, from, next, no, slots)
	})
	if err != nil || d.Wait.For == "" {
		return err
	}
	return in.later(ctx, v, store.Pause{Wait: d.Wait})
}

// unanswered deals with a call that EC2 did not answer, and which may be open still: it
// keeps the claim until that is over. Only the same call again can tell whether it
// launched.
func (in *invocation) unanswered(ctx context.Context, v *launching) error {
	in.sendResume(ctx, v, v.Runner.Claim.Until.Add(time.Second))
	return errLater
}

// unclear deals with a call that may or may not have launched, which EC2 answered
// with fe: only the same call again can tell. It is repeated here while there is time,
// else by the next one.
func (in *invocation) unclear(ctx context.Context, v *launching, fe *fleet.Error) error {
	v.heard = store.Said{Code: fe.Code, Text: fe.Text}
	said := v.Runner.Hear(fe.Code, fe.Text).Said // one answer, however often it takes to record it
	wait := in.patience(said.Times, fe)
	if in.left() <= lastLaunch+wait {
		return in.wait(ctx, v, store.WaitEC2, wait)
	}
	if err := sleep.For(ctx, wait); err != nil {
		return err
	}
	d, err := in.step(ctx, v, func(now time.Time) store.Decision { return v.Again(now, said, in.slots(v)) })
	if err != nil || d.Wait.For == "" {
		return err
	}
	return in.later(ctx, v, store.Pause{Wait: d.Wait})
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
func (in *invocation) adopt(ctx context.Context, v *launching, cause *fleet.Error) error {
	r := v.Runner
	instance, err := in.Fleet.ByToken(ctx, placeOf(r), r.ID, r.ClientToken())
	if err == nil && !instance.State.Over() {
		in.Log.Info("adopts", "runner", r.ID, "trace", r.Trace, "instance", instance.ID)
		return in.launched(ctx, v, instance.ID)
	}
	if err == nil {
		return in.endDead(ctx, v, cause, instance)
	}
	v.heard = store.Said{Code: cause.Code, Text: cause.Text}
	in.alarm(store.AlarmMismatch, "EC2 knows the client token with other parameters, and shows no instance of it",
		"runner", r.ID, "trace", r.Trace, "account", r.Account, "token", r.ClientToken(), "error", err)
	return in.wait(ctx, v, store.WaitEC2, in.Limits.SettleSlack)
}

// died gives up a runner whose machine has ended, and asks EC2 why.
func (in *invocation) died(ctx context.Context, v *launching, cause *fleet.Error) error {
	instance, err := in.Fleet.ByToken(ctx, placeOf(v.Runner), v.Runner.ID, v.Runner.ClientToken())
	if err != nil {
		in.Log.Info("EC2 does not say why", "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
		instance = fleet.Instance{State: fleet.Terminated}
	}
	return in.endDead(ctx, v, cause, instance)
}

// buried is died, with what EC2 shows of the machine.
func (in *invocation) endDead(ctx context.Context, v *launching, cause *fleet.Error, instance fleet.Instance) error {
	code := cause.Code
	if instance.ReasonCode != "" {
		code = instance.ReasonCode
	}
	return in.abandon(ctx, v, code, v.Runner.Death(string(fleet.Terminated), instance.ReasonCode, instance.Reason))
}

// abandon gives the runner up. code is what EC2 said of the current placement, or empty.
func (in *invocation) abandon(ctx context.Context, v *launching, code string, why store.Failure) error {
	var said store.Said
	if why.Code == store.EndNoLaunch {
		said = v.heard
	}
	return in.giveUp(ctx, v, func(now time.Time) store.Decision { return v.Abandon(now, in.Limits, code, said, why) })
}

// giveUp commits the end of the runner's launch, and logs what it means.
func (in *invocation) giveUp(ctx context.Context, v *launching, decide func(now time.Time) store.Decision) error {
	_, err := in.apply(ctx, v, decide)
	if errors.Is(err, errLater) {
		in.sendResume(ctx, v, v.Runner.Claim.Until.Add(time.Second))
	}
	if err != nil {
		return err
	}
	if v.Runner.End != nil {
		in.Log.Info("gives up", "runner", v.Runner.ID, "trace", v.Runner.Trace, "state", string(v.Runner.State), "reason", v.Runner.End.Code,
			"request", v.Request.ID, "request_state", string(v.Request.State))
	}
	return nil
}

// wait is later, for so long.
func (in *invocation) wait(ctx context.Context, v *launching, what string, d time.Duration) error {
	return in.later(ctx, v, store.Pause{Wait: store.Wait{For: what, Until: in.Now().Add(d)}})
}

// later gives the claim back until a time, and has a worker go on then.
func (in *invocation) later(ctx context.Context, v *launching, p store.Pause) error {
	p.By = in.id
	p.Wait.Until = p.Wait.Until.Add(in.jitter(time.Second))
	if p.Wait.For == store.WaitEC2 {
		p.Said = v.heard
	}
	d, err := in.apply(ctx, v, func(now time.Time) store.Decision { return v.Pause(now, p) })
	if errors.Is(err, errLater) {
		in.sendResume(ctx, v, v.Runner.Claim.Until.Add(time.Second))
		return errLater
	}
	if err != nil || d.Sends == nil {
		return err
	}
	in.Log.Info("waits", "runner", v.Runner.ID, "trace", v.Runner.Trace, "for", p.Wait.For, "until", p.Wait.Until)
	return errLater
}

func (in *invocation) sendResume(ctx context.Context, v *launching, at time.Time) {
	in.send(ctx, queue.Message{Kind: queue.Resume, ID: v.Runner.ID, Trace: v.Runner.Trace}, at)
}

// refusalText is what a request says when EC2 or STS refuses.
func refusalText(err error) string {
	if fe, ok := errors.AsType[*fleet.Error](err); ok {
		return fe.Text + " (" + fe.Code + ")"
	}
	return err.Error()
}
