package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
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
	minted, err := in.GitHub.Mint(ctx, repositoryOf(r), name.Name, r.Labels)
	return minting{name: name, minted: minted, err: err}
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
func (in *invocation) mint(ctx context.Context, v *launching, first *minting) error {
	for {
		if store.NextStep(in.Now(), v.Runner, v.Lock) != store.StepMint || !in.mine(v.Runner) {
			return nil // it drains, or somebody else goes on
		}
		m := first
		first = nil
		if m == nil {
			name, ok := v.Runner.NextName()
			switch {
			case v.Runner.Crowded():
				return in.wait(ctx, v, store.WaitGitHubDown, crowdedPause*in.Limits.Resend)
			case !ok || in.left() < lastCommit:
				return in.wait(ctx, v, store.WaitGitHub, 0)
			}
			out := in.register(ctx, v.Runner, name)
			m = &out
		}
		log := in.Log.With("runner", v.Runner.ID, "trace", v.Runner.Trace, "name", m.name.Name)
		if m.err == nil {
			log.Info("registered", "github_runner", m.minted.RunnerID)
			return in.configure(ctx, v, m)
		}
		ge, ok := errors.AsType[*github.Error](m.err)
		if !ok {
			ge = &github.Error{Kind: github.ErrUnknown}
		}
		code, text := unregisteredText(v.Runner, ge)
		last := code == store.EndMintDenied && v.Runner.Unregistered(in.Now(), code, text).Unminted.Tries >= maxConflicts
		switch {
		case errors.Is(m.err, github.ErrLimited):
			log.Info("github asks to wait", "until", ge.RetryAt, "error", m.err)
			return in.later(ctx, v, store.Pause{Wait: store.Wait{For: store.WaitGitHub, Until: ge.RetryAt}, Code: code, Text: text})
		case errors.Is(m.err, github.ErrDenied), errors.Is(m.err, github.ErrNotFound), errors.Is(m.err, github.ErrRefused), last:
			in.alarm(store.AlarmGitHub, "registration refused", "runner", v.Runner.ID, "trace", v.Runner.Trace, "account", v.Runner.Account,
				"repository", v.Runner.Repository.Name, "error", m.err)
			return in.unregistered(ctx, v, text)
		}
		// The name is taken, or may be, whatever words GitHub has for that: it is never
		// used again.
		log.Warn("name is spent", "error", m.err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := in.claimed(ctx, v, func(now time.Time) store.Decision {
			return v.SpendName(now, m.name.N, code, text, in.ControlPlane)
		})
		if err != nil {
			return err
		}
		if !errors.Is(m.err, github.ErrNameTaken) {
			return in.wait(ctx, v, store.WaitGitHubDown, in.pauseAfter(v.Runner)) // GitHub is in trouble: leave it a while
		}
	}
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

// unregisteredText says in a sentence why GitHub did not register r, in its own
// words, and what to do; and with which code the runner ends if that stays so.
func unregisteredText(r store.Runner, e *github.Error) (code, text string) {
	repo, account := r.Repository.Name, r.Account
	says := ""
	if e.Said != "" {
		says = fmt.Sprintf(" GitHub says: \"%s\".", strings.TrimRight(e.Said, "."))
	}
	switch {
	case e.Kind == github.ErrFull:
		return store.EndMintDenied, fmt.Sprintf("There is no room for another runner in %s (status %d).%s Remove runners that are offline from its list, or wait: GitHub removes them itself, those for one job after a day.", repo, e.Status, says)
	case errors.Is(e.Kind, github.ErrLimited):
		return store.EndGitHubLimit, "The last limit ends at " + e.RetryAt.UTC().Format(time.RFC3339) + "." + says
	case errors.Is(e.Kind, github.ErrUnknown) && e.Status == 0:
		return store.EndGitHubDown, "The last call had no answer."
	case errors.Is(e.Kind, github.ErrUnknown):
		return store.EndGitHubDown, fmt.Sprintf("The last answer had status %d.%s", e.Status, says)
	case errors.Is(e.Kind, github.ErrForbidden):
		text = fmt.Sprintf("GitHub lets %s have no runners of its own (status %d).%s Allow self-hosted runners of repositories in the Actions settings of its organization or enterprise.", repo, e.Status, says)
	case errors.Is(e.Kind, github.ErrNameTaken):
		text = fmt.Sprintf("GitHub knows a runner by each of the names that were tried in %s (status %d).%s Find out who else registers runners for this control plane.", repo, e.Status, says)
	case errors.Is(e.Kind, github.ErrConflict):
		text = fmt.Sprintf("GitHub does not register a runner in %s now (status %d).%s Look at the Actions settings of the repository.", repo, e.Status, says)
	case e.Status == http.StatusUnauthorized:
		text = fmt.Sprintf("GitHub refuses the credential of account %s for %s (status %d).%s Renew it.", account, repo, e.Status, says)
	case e.Status == http.StatusForbidden && e.Said != "" && !strings.HasPrefix(e.Said, "Resource not accessible"):
		text = fmt.Sprintf("GitHub refuses the credential of account %s in %s (status %d).%s Do as it says; if that names no cause, give the credential the permission administration: write.", account, repo, e.Status, says)
	case e.Status == http.StatusForbidden:
		text = fmt.Sprintf("The credential of account %s may not register runners in %s (status %d).%s Give it the permission administration: write.", account, repo, e.Status, says)
	case e.Status == http.StatusNotFound:
		text = fmt.Sprintf("GitHub shows repository %s (id %s) to nobody with the credential of account %s (status %d).%s If the repository is there, perhaps under another name, give the credential access to it and the permission administration: write.", repo, r.Repository.ID, account, e.Status, says)
	case e.Status == http.StatusUnprocessableEntity:
		text = fmt.Sprintf("GitHub refuses the labels or the name of the runner for %s (status %d).%s Ask for other labels.", repo, e.Status, says)
	case e.Status == 0:
		text = fmt.Sprintf("GARO cannot use the GitHub credential of account %s for %s. Look at the parameter that the account's registration names.", account, repo)
	default:
		text = fmt.Sprintf("GitHub refuses to register a runner for %s (status %d).%s Check the credential of account %s.", repo, e.Status, says, account)
	}
	return store.EndMintDenied, text
}

// configure seals the config into the record, and gives the claim back.
func (in *invocation) configure(ctx context.Context, v *launching, m *minting) error {
	sealed, err := in.Keys.Seal(in.Random, v.Runner.Launch.KeyID, v.Runner.ID, m.name.N, m.minted.Config)
	if err != nil {
		return err
	}
	_, err = in.claimed(ctx, v, func(now time.Time) store.Decision {
		return v.Configure(now, m.name.N, sealed, m.minted.RunnerID)
	})
	return err
}

// unregistered ends a machine that can never be registered.
func (in *invocation) unregistered(ctx context.Context, v *launching, text string) error {
	return in.giveUp(ctx, v, func(now time.Time) store.Decision { return v.Unregistrable(now, in.Limits, text) })
}
