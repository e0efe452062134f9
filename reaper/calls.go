package reaper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

const (
	// callLimit bounds one call, and listLimit one listing of all pages, so that
	// an account that does not answer leaves time for the others.
	callLimit = 10 * time.Second
	listLimit = 20 * time.Second
	// strikes is how many calls may stay unanswered before a run asks there no more.
	strikes = 3
)

// errLater says that something was not even tried in this run.
var errLater = errors.New("left to the next run")

// gate remembers, within one run, where it is of no use to ask again.
type gate struct {
	mu     sync.Mutex
	silent map[string]int
	shut   map[string]error
}

// err returns why none of the keys may be asked, or nil.
func (g *gate) err(keys ...string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		if err := g.shut[k]; err != nil {
			return err
		}
	}
	return nil
}

func (g *gate) close(key string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut[key] = err
}

// unanswered counts a call without an answer, and closes the gate at the third,
// or at the first that hung until its time was up: that cost the run enough.
func (g *gate) unanswered(key string, hung bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silent[key]++; hung || g.silent[key] >= strikes {
		g.shut[key] = fmt.Errorf("%s does not answer: %w", key, errLater)
	}
}

// atGitHub is what a pass does at GitHub: it removes registrations, sees which runners
// are online, and looks for what no record names.
type atGitHub struct{ *pass }

// atEC2 is what a pass does at EC2: it sees machines, and ends them.
type atEC2 struct{ *pass }

// timed returns ctx for one call: it ends early enough to record the answer.
func timed(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-recording)
	}
	return context.WithTimeout(ctx, limit)
}

// askGitHub makes one call about a scope, unless its credential has to rest.
func (gh atGitHub) askGitHub(ctx context.Context, scope github.Scope, limit time.Duration, call func(context.Context) error) error {
	account, place := "GitHub for "+scope.Account, "GitHub for "+scope.Account+" in "+scope.Name
	if err := gh.gate.err(place, account); err != nil {
		return err
	}
	if until := gh.restsUntil(scope.Account); gh.cfg.Now().Before(until) {
		return fmt.Errorf("GitHub asked to wait until %s: %w", until.UTC().Format(time.RFC3339), errLater)
	}
	ctx, cancel := timed(ctx, limit)
	defer cancel()
	err := call(ctx)
	switch {
	case err == nil, errors.Is(err, github.ErrNotFound), errors.Is(err, github.ErrBusy), errors.Is(err, github.ErrRefused):
	case errors.Is(err, github.ErrLimited):
		e, ok := errors.AsType[*github.Error](err)
		err = fmt.Errorf("%w: %w", err, errLater)
		if ok && e.Status != 0 { // GitHub itself asks: a part of our own that is spent leaves the other purposes theirs
			gh.rest(scope.Account, e.RetryAt)
			gh.gate.close(account, err)
		}
	case errors.Is(err, github.ErrDenied):
		gh.gate.close(place, err)
	default:
		gh.gate.unanswered(account, ctx.Err() != nil)
	}
	return err
}

func (r *Reaper) restsUntil(account string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limited[account]
}

func (r *Reaper) rest(account string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limited[account] = until
}

// askEC2 makes one call, unless that place throttles us or does not answer.
func (ec2 atEC2) askEC2(ctx context.Context, at fleet.Place, limit time.Duration, call func(context.Context) error) error {
	return ec2.askBehind(ctx, "EC2 in "+at.String(), limit, call)
}

// askBehind makes one call, unless calls that have the same key are throttled or have no
// answer.
func (ec2 atEC2) askBehind(ctx context.Context, key string, limit time.Duration, call func(context.Context) error) error {
	if err := ec2.gate.err(key); err != nil {
		return err
	}
	ctx, cancel := timed(ctx, limit)
	defer cancel()
	err := call(ctx)
	switch {
	case err == nil, errors.Is(err, fleet.ErrNotFound), refused(err):
	case errors.Is(err, fleet.ErrThrottled):
		ec2.gate.close(key, fmt.Errorf("%s throttles: %w", key, errLater))
	default:
		ec2.gate.unanswered(key, ctx.Err() != nil)
	}
	return err
}
