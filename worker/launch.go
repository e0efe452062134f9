package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// launch makes one RunInstances call, whose slot is reserved, and records its outcome.
func (v *launching) launch(ctx context.Context) error {
	r := v.Runner
	slot := r.CalledAt.Sub(v.Now()) // at hand, or past
	if v.left() < lastLaunch+slot {
		return v.wait(ctx, store.WaitPaced, 0)
	}
	if err := sleep.For(ctx, slot); err != nil {
		return err
	}
	if store.NextStep(v.Now(), r, v.Lock) != store.StepLaunch {
		return nil // its time to boot ended meanwhile
	}
	l, err := v.render(r)
	if err != nil {
		return v.abandon(ctx, "", store.Failure{Code: store.EndLaunchDenied, Text: "The machine's user data cannot be made: " + err.Error() + "."})
	}
	began := v.Now()
	instance, err := v.run(ctx, r, l)
	v.throttled(err)
	log := v.Log.With("runner", r.ID, "request", r.Request, "trace", r.Trace, "placement", r.Placement().String(), "took", v.Now().Sub(began))
	if err != nil {
		return v.failed(ctx, log, err)
	}
	log.Info("launched", "instance", instance.ID)
	return v.launched(ctx, instance.ID)
}

// failed deals with a call that launched nothing, or may have.
func (v *launching) failed(ctx context.Context, log *slog.Logger, err error) error {
	r := v.Runner
	fe, answered := errors.AsType[*fleet.Error](err)
	switch {
	case errors.Is(err, fleet.ErrCapacity):
		log.Info("no capacity", "code", fe.Code)
		v.capacity.empty(v.Now(), r.Account, r.Region, r.Placement())
		return v.advance(ctx, fe)
	case errors.Is(err, fleet.ErrUnsuited):
		log.Warn("placement refused", "code", fe.Code, "text", fe.Text)
		return v.advance(ctx, fe)
	case errors.Is(err, fleet.ErrImage):
		return v.reimage(ctx, fe)
	case errors.Is(err, fleet.ErrMismatch):
		return v.adopt(ctx, fe)
	case errors.Is(err, fleet.ErrGone):
		log.Info("the launched instance is terminated already", "code", fe.Code)
		return v.died(ctx, fe)
	case errors.Is(err, fleet.ErrRefused):
		return v.refused(ctx, fe, refusalText(err))
	case errors.Is(err, store.ErrNoAccount): // it was removed a moment ago, and EC2 was not called
		return v.abandon(ctx, "", store.NewEnd(store.EndNoAccount))
	}
	log.Warn("launch unclear", "error", err)
	if !answered {
		return v.unanswered(ctx)
	}
	if v.Runner.HearEC2(fe.Code, fe.Text).Said.Times >= store.MaxUnfamiliar && errors.Is(err, fleet.ErrUnfamiliar) {
		v.alarmRefused(fe)
		v.heard = store.Said{Code: fe.Code, Text: fe.Text}
		return v.abandon(ctx, fe.Code, store.Failure{
			Code: store.EndNoLaunch,
			Text: "EC2 answers the launch with a code that GARO does not know. Look the code up, and at the state of EC2.",
		})
	}
	return v.unclear(ctx, fe)
}

// refused gives the runner up, and tells people: only they can change something.
func (v *launching) refused(ctx context.Context, fe *fleet.Error, text string) error {
	v.alarmRefused(fe)
	return v.abandon(ctx, fe.Code, store.Failure{Code: store.EndLaunchDenied, Text: text})
}

func (v *launching) alarmRefused(fe *fleet.Error) {
	r := v.Runner
	v.alarm(store.AlarmLaunchRefused, "launch refused", "runner", r.ID, "request", r.Request, "trace", r.Trace,
		"account", r.Account, "placement", r.Placement().String(), "code", fe.Code, "text", fe.Text)
}

// reimage continues with the image that the account's SSM parameter names by now, if
// that is another than the one that EC2 does not know. That is done once for a
// runner, and else the image is refused.
func (v *launching) reimage(ctx context.Context, fe *fleet.Error) error {
	r := v.Runner
	account, err := v.Accounts.Account(ctx, r.Account)
	if err != nil {
		v.Log.Warn("registration not read", "account", r.Account, "runner", r.ID, "trace", r.Trace, "error", err)
		return v.wait(ctx, store.WaitOutage, v.Limits.SettleSlack)
	}
	images := imagesOf(v.Request, account)
	text := refusalText(fe)
	if images.byPath() {
		text += fmt.Sprintf(" SSM parameter %s named it.", images)
	}
	tried := slices.ContainsFunc(r.Attempts, func(a store.Attempt) bool { return ofImage(a.Code) })
	if tried || !images.byPath() {
		return v.refused(ctx, fe, text)
	}
	on, err := suited(ctx, fleet.PlaceOf(r), images, r.Launch.Options, v.resolve)
	switch {
	case errors.Is(err, fleet.ErrRefused):
		return v.refused(ctx, fe, text+" "+refusalText(err))
	case err != nil:
		v.Log.Warn("image not resolved", "account", r.Account, "runner", r.ID, "trace", r.Trace, "error", err)
		return v.wait(ctx, store.WaitOutage, v.Limits.SettleSlack)
	case on.ami == r.Launch.Image:
		return v.refused(ctx, fe, text)
	}
	v.Log.Info("the image is gone; its parameter names another", "runner", r.ID, "trace", r.Trace, "image", r.Launch.Image, "next", on.ami, "parameter", images.String())
	return v.move(ctx, r.Index+1, store.Refusal{Code: fe.Code, Image: on.ami, Options: on.options(r.Launch.Options)})
}

// ofImage reports whether a code of an attempt is about the image alone. AuthFailure
// is one only if another image was tried after it: else it ends the launch.
func ofImage(code string) bool { return strings.HasPrefix(code, "InvalidAMI") || code == "AuthFailure" }

// run makes the call, and leaves time to record that it had no answer.
func (in *invocation) run(ctx context.Context, r store.Runner, l fleet.Launch) (fleet.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	return in.Fleet.Launch(ctx, fleet.PlaceOf(r), l)
}

// render makes the call from what is frozen: the same bytes for the same runner
// and index, no matter who makes it.
func (in *invocation) render(r store.Runner) (fleet.Launch, error) {
	token, err := in.keys().Boot(r.Launch.KeyID, r.ID, r.Index)
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
		Tags: r.Launch.Tags, UserData: data, Options: r.Launch.Options,
	}, nil
}

// launched records the instance while the config is being minted: the two do not
// need each other, and the machine boots meanwhile.
func (v *launching) launched(ctx context.Context, instance string) error {
	var begun <-chan minting
	if v.Runner.State == store.RunnerNew && v.Runner.Lease.Usable(v.Now()) && v.serves(v.account, v.Runner) {
		begun = v.beginMint(ctx, v.Runner)
	}
	foreign := false
	d, err := v.apply(ctx, func(now time.Time) store.Decision {
		d, ok := v.Launched(now, instance)
		foreign = !ok
		return d
	})
	if d.Alarm != "" {
		v.alarm(d.Alarm, "another machine used the boot token", "runner", v.Runner.ID, "trace", v.Runner.Trace, "instance", instance)
	}
	if foreign {
		v.Log.Warn("another instance is recorded; this one is left to the sweep", "runner", v.Runner.ID, "trace", v.Runner.Trace, "instance", instance)
	}
	if begun == nil {
		return err
	}
	m := <-begun // no goroutine outlives this call, whatever the commit said
	if err != nil {
		return err
	}
	return v.mint(ctx, &m)
}

// refusalText is what a request says when EC2 or STS refuses.
func refusalText(err error) string {
	if fe, ok := errors.AsType[*fleet.Error](err); ok {
		return fe.Text + " (" + fe.Code + ")"
	}
	return err.Error()
}
