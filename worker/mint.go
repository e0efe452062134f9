package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// minting is the outcome of one registration.
type minting struct {
	name   store.GitHubName
	minted github.Minted
	err    error
}

// beginMint registers the name that is written ahead, while its caller commits.
func (in *invocation) beginMint(ctx context.Context, r store.Runner) <-chan minting {
	name, ok := r.NextName()
	if !ok {
		return nil
	}
	out := make(chan minting, 1)
	go func() {
		var m minting
		var panicked error
		in.guard(&panicked, func() error { m = in.register(ctx, r, name); return nil })
		if panicked != nil {
			m = minting{name: name, err: panicked}
		}
		out <- m
	}()
	return out
}

// register makes one mint call, and leaves time to record that it had no answer.
func (in *invocation) register(ctx context.Context, r store.Runner, name store.GitHubName) minting {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	repo := github.Repository{ID: r.Repository.ID, Name: r.Repository.Name, Account: r.Account}
	minted, err := in.GitHub.Mint(ctx, repo, name.Name, r.Labels)
	return minting{name: name, minted: minted, err: err}
}

// mint takes the runner to a recorded config. first is the outcome of a
// registration that was begun already, or nil.
func (in *invocation) mint(ctx context.Context, v *view, first *minting) error {
	for {
		if store.NextStep(in.Now(), v.runner, v.lock) != store.StepMint || !in.mine(v.runner) {
			return nil // it drains, or somebody else goes on
		}
		m := first
		first = nil
		if m == nil {
			name, ok := v.runner.NextName()
			if !ok || in.left() < lastCommit {
				return in.later(ctx, v, store.WaitGitHub, in.Now())
			}
			out := in.register(ctx, v.runner, name)
			m = &out
		}
		log := in.Log.With("runner", v.runner.ID, "trace", v.runner.Trace, "name", m.name.Name)
		ge, _ := errors.AsType[*github.Error](m.err)
		switch {
		case m.err == nil:
			log.Info("registered", "github_runner", m.minted.RunnerID)
			return in.configure(ctx, v, m)
		case errors.Is(m.err, github.ErrLimited):
			log.Info("github asks to wait", "until", ge.RetryAt)
			return in.later(ctx, v, store.WaitGitHub, ge.RetryAt)
		case errors.Is(m.err, github.ErrDenied), errors.Is(m.err, github.ErrNotFound), errors.Is(m.err, github.ErrRefused):
			in.alarm(store.AlarmGitHub, "registration refused", "runner", v.runner.ID, "trace", v.runner.Trace, "account", v.runner.Account,
				"repository", v.runner.Repository.Name, "error", m.err)
			return in.unregistered(ctx, v, fmt.Sprintf("GitHub refuses to register a runner for %s (status %d). Check the credential of account %s.",
				v.runner.Repository.Name, ge.Status, v.runner.Account))
		}
		// The name is taken, or may be: it is never used again.
		log.Warn("name is spent", "error", m.err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := in.apply(ctx, v, func(time.Time) []store.Change {
			last, ok := v.runner.NextName()
			if !in.mine(v.runner) || !v.runner.State.Usable() || ok && last.N > m.name.N {
				return nil
			}
			v.runner = v.runner.WriteAhead(in.ControlPlane)
			return []store.Change{store.Put(&v.runner)}
		})
		if errors.Is(err, errLater) {
			in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
		}
		if err != nil {
			return err
		}
		if !errors.Is(m.err, github.ErrNameTaken) {
			return in.later(ctx, v, store.WaitGitHub, in.Now().Add(in.Limits.PollResend)) // GitHub is in trouble: leave it a moment
		}
	}
}

// configure seals the config into the record, and gives the claim back.
func (in *invocation) configure(ctx context.Context, v *view, m *minting) error {
	sealed, err := in.Keys.Seal(in.Random, v.runner.Launch.KeyID, v.runner.ID, m.name.N, m.minted.Config)
	if err != nil {
		return err
	}
	err = in.apply(ctx, v, func(now time.Time) []store.Change {
		if name, ok := v.runner.NextName(); !ok || name.N != m.name.N || !in.mine(v.runner) {
			return nil // recorded already, or somebody else goes on: the reaper deletes what is not used
		}
		r, ok := v.runner.Configure(now, sealed, m.minted.RunnerID)
		if !ok {
			return nil // it drains: the machine never gets this config
		}
		v.runner = r.Release(now)
		return []store.Change{store.Put(&v.runner)}
	})
	if errors.Is(err, errLater) {
		in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
	}
	return err
}

// unregistered ends a machine that can never be registered.
func (in *invocation) unregistered(ctx context.Context, v *view, text string) error {
	again := false
	err := in.apply(ctx, v, func(now time.Time) []store.Change {
		if !v.runner.State.Usable() {
			return nil
		}
		was := v.lock
		v.runner, v.lock = store.Drain(now, v.runner.Release(now), v.lock, store.Failure{Code: store.EndMintDenied, Text: text})
		changes := []store.Change{store.Put(&v.runner)}
		if v.lock != was {
			changes = append(changes, store.Put(&v.lock))
		}
		return append(changes, in.settle(now, v, &again)...)
	})
	return in.settled(ctx, v, again, err)
}
