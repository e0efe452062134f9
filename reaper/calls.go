package reaper

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

const (
	// parallel is how many calls a run makes at once for one account: 200
	// deletions of 300 ms take 8 s, and GitHub allows 100 at once
	// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
	parallel = 8
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

// timed returns ctx for one call: it ends early enough to record the answer.
func timed(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-recording)
	}
	return context.WithTimeout(ctx, limit)
}

// askGitHub makes one call about repo, unless its credential has to rest.
func (r *run) askGitHub(ctx context.Context, repo github.Repository, limit time.Duration, call func(context.Context) error) error {
	account, repository := "GitHub for "+repo.Account, "GitHub for "+repo.Account+" in "+repo.Name
	if err := r.gate.err(repository, account); err != nil {
		return err
	}
	if until := r.restsUntil(repo.Account); r.cfg.Now().Before(until) {
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
			r.rest(repo.Account, e.RetryAt)
			r.gate.close(account, err)
		}
	case errors.Is(err, github.ErrDenied):
		r.gate.close(repository, err)
	default:
		r.gate.unanswered(account, ctx.Err() != nil)
	}
	return err
}

func (p *Reaper) restsUntil(account string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limited[account]
}

func (p *Reaper) rest(account string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limited[account] = until
}

// askEC2 makes one call, unless that place throttles us or does not answer.
func (r *run) askEC2(ctx context.Context, at fleet.Place, limit time.Duration, call func(context.Context) error) error {
	key := "EC2 in " + at.String()
	if err := r.gate.err(key); err != nil {
		return err
	}
	ctx, cancel := timed(ctx, limit)
	defer cancel()
	err := call(ctx)
	switch {
	case err == nil, errors.Is(err, fleet.ErrNotFound), refused(err):
	case errors.Is(err, fleet.ErrThrottled):
		r.gate.close(key, fmt.Errorf("%s throttles: %w", key, errLater))
	default:
		r.gate.unanswered(key, ctx.Err() != nil)
	}
	return err
}

// each calls f for every i below n and returns when all calls have. At most
// parallel are under way for one account, which start in order; once the run is
// late no more do.
func (r *run) each(ctx context.Context, n int, account func(i int) string, f func(i int)) {
	type thrown struct {
		value any
		stack []byte
	}
	panics := make([]thrown, n)
	guarded := func(i int) {
		defer func() {
			if p := recover(); p != nil {
				panics[i] = thrown{p, debug.Stack()}
			}
		}()
		f(i)
	}
	byAccount := map[string][]int{}
	for i := range n {
		byAccount[account(i)] = append(byAccount[account(i)], i)
	}
	var wg sync.WaitGroup
	for _, mine := range byAccount {
		var next atomic.Int64
		for range min(parallel, len(mine)) {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= len(mine) || r.isLate(ctx) {
						return
					}
					guarded(mine[i])
				}
			})
		}
	}
	wg.Wait()
	for i, p := range panics {
		if p.value != nil {
			r.panicked("account", account(i), p.value, p.stack)
		}
	}
}
