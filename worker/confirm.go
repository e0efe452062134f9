package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// look asks GitHub about the current registration of a runner. That GitHub does not
// have it is an answer; any error means that there was none. 404 is also what GitHub
// says to a credential that may not see the repository: where it would end the
// runner, it counts if the same credential can list that repository's runners.
func (in *invocation) look(ctx context.Context, r store.Runner) (store.Registration, error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, in.left()-lastCommit))
	defer cancel()
	seen, err := in.GitHub.Get(ctx, github.ScopeOf(r), r.Config.RunnerID)
	if errors.Is(err, github.ErrNotFound) {
		if !r.MissedAt.IsZero() {
			for _, err := range in.GitHub.List(ctx, github.ScopeOf(r).With(github.By(err)), store.GitHubNameFor(in.ControlPlane, r.ID, r.Config.N)) {
				if err != nil {
					return store.Registration{}, err
				}
				break
			}
		}
		return store.Registration{Absent: true}, nil
	}
	return store.Registration{Online: seen.Online}, err
}

// confirm asks GitHub whether it shows the runner online, and records the
// answer together with what it means for the request that launched the runner.
// It needs no claim: two that ask at once do no harm. While the answer is no, the
// message comes again.
func (v *launching) confirm(ctx context.Context) error {
	log := v.Log.With("runner", v.Runner.ID, "trace", v.Runner.Trace)
	config := v.Runner.Config.N
	var seen store.Registration
	var unheard error
	asked := store.NextStep(v.Now(), v.Runner, v.Lock) == store.StepConfirm
	if asked {
		seen, unheard = v.look(ctx, v.Runner)
	}
	verdict := store.Unconfirmed
	_, err := v.apply(ctx, func(now time.Time) (d store.Decision) {
		if asked && unheard == nil && store.NextStep(now, v.Runner, v.Lock) == store.StepConfirm && v.Runner.Config.N == config {
			d, verdict = v.Confirm(now, v.Limits, seen)
			return d
		}
		verdict = store.Unconfirmed
		return v.Settle(now, v.Limits) // a job that came proves enough, whatever GitHub says
	})
	if errors.Is(err, errLater) {
		v.sendResume(ctx, v.Now().Add(time.Second))
	}
	if err != nil {
		return err
	}
	if unheard != nil {
		at := v.Runner.ConfirmAfter(v.Now(), v.Limits)
		if ge, ok := errors.AsType[*github.Error](unheard); ok && ge.RetryAt.After(at) {
			at = ge.RetryAt
		}
		log.Warn("GitHub did not say whether the runner is online", "error", unheard, "again", at)
		v.sendResume(ctx, at)
		return errLater
	}
	switch {
	case store.NextStep(v.Now(), v.Runner, v.Lock) == store.StepConfirm:
		v.sendResume(ctx, v.Runner.ConfirmAfter(v.Now(), v.Limits))
		return errLater
	case verdict == store.Lost:
		log.Info("drains", "reason", v.Runner.End.Code)
	case verdict == store.Confirmed:
		log.Info("GitHub shows the runner online", "request", v.Request.ID, "request_state", string(v.Request.State))
	}
	return nil
}

// reconfirm asks GitHub about a live runner that a request wants to share and that
// GitHub has not confirmed lately. It is true when the request may share it now.
// Otherwise the request waits a little, or the runner drained and the message is
// decided again.
func (r *round) reconfirm(ctx context.Context, s *start, req *store.Request, lock *store.Lock) bool {
	run, err := store.Read[store.Runner](ctx, r.Store, lock.Runner)
	if err != nil {
		*s.err, s.done = fmt.Errorf("read runner %s: %w", lock.Runner, err), true
		return false
	}
	soon := r.now.Add(r.Limits.PollResend)
	if !run.Registered() {
		r.hold(ctx, s, req, store.Wait{For: store.WaitRunner, Until: soon}) // its next config is on the way
		return false
	}
	seen, err := r.asked.answer(r.now, r.Limits.PollResend, run.ID, run.Config.N, func() (store.Registration, error) { return r.look(ctx, run) })
	if err != nil {
		wait, at := store.WaitGitHubDown, r.now.Add(r.Limits.Waits[0])
		if ge, ok := errors.AsType[*github.Error](err); ok && errors.Is(err, github.ErrLimited) {
			wait = store.WaitGitHub
			if ge.RetryAt.After(at) {
				at = r.now.Add(r.Limits.ReaperPeriod) // the reaper may learn it meanwhile, or the runner drain
			}
		}
		r.Log.Warn("GitHub did not say whether the runner is online", "runner", run.ID, "request", req.ID, "trace", req.Trace, "error", err)
		r.hold(ctx, s, req, store.Wait{For: wait, Until: at})
		return false
	}
	d, verdict := store.Case{Runner: run, Lock: *lock}.Confirm(r.now, r.Limits, seen)
	switch verdict {
	case store.Confirmed:
		r.put("lock "+lock.Key, s, d) // what this round decides next builds on it
		return true
	case store.Lost:
		r.drained(ctx, req, d)
		return false
	}
	r.put("request "+req.ID, s, d)
	r.hold(ctx, s, req, store.Wait{For: store.WaitRunner, Until: r.now.Add(r.Limits.SettleSlack)})
	return false
}

// asked remembers, for this process alone, what GitHub last said of registrations,
// or that it did not answer: a hundred requests that wait for one runner need one
// answer.
type asked struct {
	mu      sync.Mutex
	answers map[registered]answered
}

// registered is the registration of a runner's config: GitHub's own ids may be given
// out twice, by two owners.
type registered struct {
	runner string
	n      int
}

type answered struct {
	at   time.Time
	seen store.Registration
	err  error
}

// answer returns what was said of a registration at most so long ago, or asks.
func (a *asked) answer(now time.Time, within time.Duration, runner string, n int, ask func() (store.Registration, error)) (store.Registration, error) {
	a.mu.Lock()
	for id, known := range a.answers {
		if now.Sub(known.at) >= within {
			delete(a.answers, id)
		}
	}
	known, ok := a.answers[registered{runner, n}]
	a.mu.Unlock()
	if ok {
		return known.seen, known.err
	}
	seen, err := ask()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answers == nil {
		a.answers = map[registered]answered{}
	}
	a.answers[registered{runner, n}] = answered{now, seen, err}
	return seen, err
}
