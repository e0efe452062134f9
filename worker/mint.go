package worker

import (
	"context"
	"errors"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// minting is the outcome of one registration.
type minting struct {
	name   store.GitHubName
	by     string // the credential
	minted github.Minted
	err    error
}

// beginMint registers the name that is written ahead by the runner's lease, while its
// caller commits.
func (in *invocation) beginMint(ctx context.Context, r store.Runner) <-chan minting {
	name, ok := r.NextName()
	if !ok {
		return nil
	}
	out := make(chan minting, 1)
	go func() {
		var m minting
		var panicked error
		in.guard(&panicked, func() error { m = in.register(ctx, r, name, r.Lease.Credential); return nil })
		if panicked != nil {
			m = minting{name: name, by: r.Lease.Credential, err: panicked}
		}
		out <- m
	}()
	return out
}

// register makes one mint call with a credential, and leaves time to record that it had no
// answer. A credential that GitHub refuses is passed over from now on, whatever becomes of
// the runner meanwhile.
func (in *invocation) register(ctx context.Context, r store.Runner, name store.GitHubName, by string) minting {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	minted, err := in.GitHub.Mint(ctx, github.ScopeOf(r).With(by), name.Name, r.Labels)
	if refused(err) {
		in.points.refuse(in.Now(), leaser{by, r.Where().Key()})
	}
	return minting{name: name, by: by, minted: minted, err: err}
}

const (
	// maxConflicts is how often in a row GitHub may answer 409 before it is taken at
	// its word. One follows a lost answer, a second one a worker that died. If it says
	// that the name exists, another one is tried at once; else after pauses that
	// double, so that five take a minute and a quarter.
	maxConflicts = 5
	// maxPause is the longest pause between two registrations that had no answer:
	// short against the boot limit, and no load for a GitHub that is coming back.
	maxPause = 2 * time.Minute
	// crowdedPause is how many times Limits.Resend a crowded runner is left alone:
	// the reaper looks at its names once a minute, and only at a record that was
	// not written for as long as Resend.
	crowdedPause = 3
)

// mint takes the runner to a recorded config. first is the outcome of a
// registration that was begun already, or nil.
func (v *launching) mint(ctx context.Context, first *minting) error {
	for {
		if store.NextStep(v.Now(), v.Runner, v.Lock) != store.StepMint || !v.mine(v.Runner) {
			return nil // it drains, or another invocation continues
		}
		m := first
		first = nil
		if m == nil {
			name, ok := v.Runner.NextName()
			switch {
			case v.Runner.Crowded():
				return v.wait(ctx, store.WaitGitHubDown, crowdedPause*v.Limits.Resend)
			case !ok || v.left() < lastCommit:
				return v.wait(ctx, store.WaitGitHub, 0)
			}
			l, ok, err := v.permitted(ctx)
			if !ok {
				return err
			}
			out := v.register(ctx, v.Runner, name, l.Credential)
			m = &out
		}
		if m.err == nil {
			v.Log.Info("registered", "github_runner", m.minted.RunnerID, "runner", v.Runner.ID, "trace", v.Runner.Trace, "name", m.name.Name)
			return v.configure(ctx, m)
		}
		if err := v.unminted(ctx, m); err != nil {
			return err
		}
	}
}

// unminted deals with a registration that failed: the next name is tried, at once or
// later, or the runner ends.
func (v *launching) unminted(ctx context.Context, m *minting) error {
	log := v.Log.With("runner", v.Runner.ID, "trace", v.Runner.Trace, "name", m.name.Name)
	ge, ok := errors.AsType[*github.Error](m.err)
	if !ok {
		ge = &github.Error{Kind: github.ErrUnknown}
	}
	code, text := unregisteredText(v.Runner, ge)
	last := code == store.EndMintDenied && v.Runner.Unregistered(v.Now(), code, text).Unminted.Tries >= maxConflicts
	switch {
	case errors.Is(m.err, github.ErrLimited):
		log.Info("github asks to wait", "until", ge.RetryAt, "credential", m.by, "error", m.err)
		return v.limited(ctx, m, ge, store.Pause{Wait: store.Wait{For: store.WaitGitHub, Until: ge.RetryAt}, Code: code, Text: text})
	case refused(m.err) && v.others(v.account, v.Runner):
		log.Warn("a credential is refused, and another one stands in", "credential", m.by, "error", m.err)
		_, err := v.claimed(ctx, func(now time.Time) store.Decision {
			return v.SpendName(now, m.name.N, code, text, v.ControlPlane)
		})
		return err
	case refused(m.err), errors.Is(m.err, github.ErrRefused), last:
		v.alarm(store.AlarmGitHub, "registration refused", "runner", v.Runner.ID, "trace", v.Runner.Trace, "account", v.Runner.Account,
			"repository", v.Runner.Repository.Name, "registers_in", v.Runner.Where().Name, "credential", m.by, "error", m.err)
		return v.unregistered(ctx, text)
	}
	// The name is taken, or may be, whatever words GitHub has for that: it is never
	// used again.
	log.Warn("name is spent", "error", m.err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := v.claimed(ctx, func(now time.Time) store.Decision {
		return v.SpendName(now, m.name.N, code, text, v.ControlPlane)
	})
	if err != nil || errors.Is(m.err, github.ErrNameTaken) {
		return err
	}
	return v.wait(ctx, store.WaitGitHubDown, v.pauseAfter(v.Runner)) // GitHub is in trouble: leave it a while
}

// limited has the runner wait while GitHub asks for that. If the account has another
// credential, it is asked for a lease at once.
func (v *launching) limited(ctx context.Context, m *minting, ge *github.Error, p store.Pause) error {
	several := len(v.account.GitHub) > 1
	if (ge.Status != 0 || several) && v.account.ID != "" && !errors.Is(m.err, github.ErrFull) {
		v.rest(ctx, m.by, ge.RetryAt)
		if several {
			p.Wait.Until = v.Now()
		}
	}
	return v.later(ctx, p)
}

// refused reports whether GitHub's answer to a registration is about its credential: it may
// not, or does not see the place.
func refused(err error) bool {
	return errors.Is(err, github.ErrDenied) || errors.Is(err, github.ErrNotFound)
}

// others reports whether the account has a credential that GitHub did not refuse lately where
// the runner registers.
func (in *invocation) others(account store.Account, r store.Runner) bool {
	_, others := in.points.serving(in.Now(), account.CredentialNames(), r.Where().Key())
	return others
}

// pauseAfter returns how long to leave GitHub alone after so many answers that did
// not help: it doubles.
func (in *invocation) pauseAfter(r store.Runner) time.Duration {
	d := in.Limits.PollResend
	for n := 1; r.Unminted != nil && n < r.Unminted.Tries && d < maxPause; n++ {
		d *= 2
	}
	return min(d, maxPause)
}

// configure seals the config into the record, and gives the claim back.
func (v *launching) configure(ctx context.Context, m *minting) error {
	sealed, err := v.keys().Seal(v.Random, v.Runner.Launch.KeyID, v.Runner.ID, m.name.N, m.minted.Config)
	if err != nil {
		return err
	}
	_, err = v.claimed(ctx, func(now time.Time) store.Decision {
		return v.Configure(now, m.name.N, sealed, m.minted.RunnerID, m.by)
	})
	return err
}

// unregistered ends a machine that can never be registered.
func (v *launching) unregistered(ctx context.Context, text string) error {
	why := store.Failure{Code: store.EndMintDenied, Text: text}
	return v.giveUp(ctx, func(now time.Time) store.Decision { return v.Unregistrable(now, v.Limits, why) })
}
