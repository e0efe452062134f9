package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// confirmCalls is how many calls a run makes for one account to see which runners are
// online, as far as the reaper's part of the GitHub budget goes: it bounds how long a
// run takes. At most three are lists, whose further pages are not counted, so that
// what a list leaves out can be asked for by its id.
const confirmCalls = 4

// unconfirmed reports whether GitHub is to be asked about the runner: no worker has
// done so for a while though the machine says that it listens, or it is idle and
// could be shared, and GitHub's word about it gets old.
func unconfirmed(now time.Time, lim store.Limits, a store.Case) bool {
	if store.NextStep(now, a.Runner, a.Lock) == store.StepConfirm {
		return now.Sub(a.Runner.ListeningAt) >= lim.Heartbeat
	}
	if a.Runner.ListeningAt.IsZero() && now.Sub(a.Runner.UpdatedAt) < lim.Lost {
		return false // its program is about to be started, and says so itself; that of an old agent does not
	}
	return a.Runner.Mode == store.Shared && a.Runner.State == store.RunnerOnline && a.Runner.Registered() &&
		a.Lock.Names(a.Runner.ID) && a.Lock.State == store.LockLive && now.Sub(a.Lock.ConfirmedAt) >= lim.Confirmed/3
}

// asked returns when GitHub last said something of the runner.
func asked(a store.Case) time.Time {
	if a.Runner.MissedAt.After(a.Lock.ConfirmedAt) {
		return a.Runner.MissedAt
	}
	return a.Lock.ConfirmedAt
}

// sight is what GitHub showed of the registrations of a scope.
type sight struct {
	scope  github.Scope
	wanted []store.Case
	online map[int64]bool // by id; absent: not in the list
	err    error
}

// confirm asks GitHub which of the runners it shows online: one list for each
// scope, and by its id for each that the list leaves out, which proves nothing.
// Those that have waited longest come first; what a run cannot ask, the next one
// does, or a worker: for one that waits to come into use it is reminded.
func (gh atGitHub) confirm(ctx context.Context) {
	wanted := take(&gh.todo.asked, len(gh.todo.asked))
	if gh.cfg.DryRun {
		return
	}
	slices.SortStableFunc(wanted, func(a, b store.Case) int { return asked(a).Compare(asked(b)) })
	made := map[string]int{} // calls, by account
	sights, rest := gh.choose(wanted, made)
	gh.each(ctx, len(sights), accounts(gitHubAtOnce, func(i int) string { return sights[i].scope.Account }), func(q *pass, i int) {
		s := sights[i]
		s.err = atGitHub{q}.askGitHub(ctx, s.scope, listLimit, func(ctx context.Context) error {
			for g, err := range q.cfg.GitHub.List(ctx, s.scope, store.GitHubPrefix(q.cfg.ControlPlane)) {
				if err != nil {
					return err
				}
				s.online[g.ID] = g.Online
			}
			return nil
		})
	})
	slices.SortStableFunc(sights, func(a, b *sight) int { return cmp.Compare(a.scope.Key(), b.scope.Key()) })
	var follow []func(gh atGitHub)
	for _, a := range rest {
		follow = append(follow, func(gh atGitHub) { gh.remind(ctx, a) })
	}
	for _, s := range sights {
		if s.err != nil {
			gh.unseen(s.scope, s.err)
			continue
		}
		for _, a := range s.wanted {
			follow = append(follow, gh.next(ctx, s, a, made))
		}
	}
	gh.record(len(follow), func(q *pass, i int) { follow[i](atGitHub{q}) })
	gh.flush(ctx)
}

// choose returns the lists that are to be asked for, as far as an account's calls go, and
// the runners that are not in them.
func (gh atGitHub) choose(wanted []store.Case, made map[string]int) (sights []*sight, rest []store.Case) {
	at := map[github.Scope]*sight{}
	for _, a := range wanted {
		scope := github.ScopeOf(a.Runner).With("") // one list is for all, whatever registered them
		if at[scope] == nil {
			if made[scope.Account] == confirmCalls-1 {
				rest = append(rest, a)
				continue
			}
			made[scope.Account]++
			at[scope] = &sight{scope: scope, online: map[int64]bool{}, err: errLater}
			sights = append(sights, at[scope])
		}
		at[scope].wanted = append(at[scope].wanted, a)
	}
	return sights, rest
}

// next returns what follows for a runner from the list of its scope.
func (gh atGitHub) next(ctx context.Context, s *sight, a store.Case, made map[string]int) func(atGitHub) {
	online, listed := s.online[a.Runner.Config.RunnerID]
	switch {
	case listed:
		return func(gh atGitHub) {
			gh.guard("runner", a.Runner.ID, func() { gh.seen(ctx, a, store.Registration{Online: online}) })
		}
	case made[s.scope.Account] == confirmCalls || isLate(ctx):
		return func(gh atGitHub) { gh.remind(ctx, a) }
	}
	made[s.scope.Account]++
	return func(gh atGitHub) { gh.confirmOne(ctx, github.ScopeOf(a.Runner), a) }
}

// confirmOne asks GitHub about a runner by its id.
func (gh atGitHub) confirmOne(ctx context.Context, scope github.Scope, a store.Case) {
	var seen store.Registration
	err := gh.askGitHub(ctx, scope, callLimit, func(ctx context.Context) error {
		g, err := gh.cfg.GitHub.Get(ctx, scope, a.Runner.Config.RunnerID)
		seen.Online = g.Online
		return err
	})
	if seen.Absent = errors.Is(err, github.ErrNotFound); err != nil && !seen.Absent {
		gh.unseen(scope, err)
		return
	}
	gh.guard("runner", a.Runner.ID, func() { gh.seen(ctx, a, seen) })
}

// remind has a worker ask GitHub about a runner that waits to come into use, and
// that no worker has asked about: its own message comes again on its own.
func (gh atGitHub) remind(ctx context.Context, a store.Case) {
	_, d, ok := gh.decide(ctx, &a.Runner, a, func(c store.Case) store.Decision { return c.Remind(gh.cfg.Now()) })
	if ok && d.Sends != nil {
		gh.note(&d.Runner, Resend, "no worker asked GitHub whether it is online")
	}
}

// seen commits what GitHub's word makes of a runner, together with what that means
// for the request that launched it.
func (gh atGitHub) seen(ctx context.Context, a store.Case, seen store.Registration) {
	var verdict store.Confirmation
	_, d, ok := gh.decide(ctx, &a.Runner, a, func(c store.Case) (d store.Decision) {
		d, verdict = c.Confirm(gh.cfg.Now(), gh.cfg.Limits, seen)
		return d
	})
	if !ok || len(d.Changes) == 0 {
		return
	}
	switch verdict {
	case store.Lost:
		gh.note(&d.Runner, Drain, d.Runner.End.Code)
	case store.Confirmed:
		gh.note(&d.Runner, Confirm, "GitHub shows it online")
	default:
		gh.note(&d.Runner, Confirm, "GitHub does not show it online")
	}
}

// unseen reports that GitHub did not show a scope's runners.
func (gh atGitHub) unseen(scope github.Scope, err error) {
	if errors.Is(err, errLater) {
		gh.line(Line{Kind: scope.Kind(), ID: scope.Name, Action: Skip, Reason: err.Error()})
		return
	}
	if gh.isRefused(scope.Account, scope.Kind(), scope.Name, err) {
		return
	}
	gh.fail(scope.Kind(), scope.Name, fmt.Errorf("see which runners of %s are online: %w", scope.Name, err))
	if errors.Is(err, github.ErrDenied) || errors.Is(err, github.ErrNotFound) || errors.Is(err, github.ErrRefused) {
		gh.deniedBy(scope, err)
	}
}
