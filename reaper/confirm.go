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

// sight is what GitHub showed of the registrations of a repository.
type sight struct {
	repo   github.Repository
	wanted []store.Case
	online map[int64]bool // by id; absent: not in the list
	err    error
}

// confirm asks GitHub which of the runners it shows online: one list for each
// repository, and by its id for each that the list leaves out, which proves nothing.
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
	gh.each(ctx, len(sights), accounts(gitHubAtOnce, func(i int) string { return sights[i].repo.Account }), func(q *pass, i int) {
		s := sights[i]
		s.err = atGitHub{q}.askGitHub(ctx, s.repo, listLimit, func(ctx context.Context) error {
			for g, err := range q.cfg.GitHub.List(ctx, s.repo, store.GitHubPrefix(q.cfg.ControlPlane)) {
				if err != nil {
					return err
				}
				s.online[g.ID] = g.Online
			}
			return nil
		})
	})
	slices.SortStableFunc(sights, func(a, b *sight) int { return cmp.Compare(a.repo.ID, b.repo.ID) })
	var follow []func(gh atGitHub)
	for _, a := range rest {
		follow = append(follow, func(gh atGitHub) { gh.remind(ctx, a) })
	}
	for _, s := range sights {
		if s.err != nil {
			gh.unseen(s.repo, s.err)
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
	at := map[github.Repository]*sight{}
	for _, a := range wanted {
		repo := github.RepositoryOf(a.Runner)
		if at[repo] == nil {
			if made[repo.Account] == confirmCalls-1 {
				rest = append(rest, a)
				continue
			}
			made[repo.Account]++
			at[repo] = &sight{repo: repo, online: map[int64]bool{}, err: errLater}
			sights = append(sights, at[repo])
		}
		at[repo].wanted = append(at[repo].wanted, a)
	}
	return sights, rest
}

// next returns what follows for a runner from the list of its repository.
func (gh atGitHub) next(ctx context.Context, s *sight, a store.Case, made map[string]int) func(atGitHub) {
	online, listed := s.online[a.Runner.Config.RunnerID]
	switch {
	case listed:
		return func(gh atGitHub) {
			gh.guard("runner", a.Runner.ID, func() { gh.seen(ctx, a, store.Registration{Online: online}) })
		}
	case made[s.repo.Account] == confirmCalls || isLate(ctx):
		return func(gh atGitHub) { gh.remind(ctx, a) }
	}
	made[s.repo.Account]++
	return func(gh atGitHub) { gh.confirmOne(ctx, s.repo, a) }
}

// confirmOne asks GitHub about a runner by its id.
func (gh atGitHub) confirmOne(ctx context.Context, repo github.Repository, a store.Case) {
	var seen store.Registration
	err := gh.askGitHub(ctx, repo, callLimit, func(ctx context.Context) error {
		g, err := gh.cfg.GitHub.Get(ctx, repo, a.Runner.Config.RunnerID)
		seen.Online = g.Online
		return err
	})
	if seen.Absent = errors.Is(err, github.ErrNotFound); err != nil && !seen.Absent {
		gh.unseen(repo, err)
		return
	}
	gh.guard("runner", a.Runner.ID, func() { gh.seen(ctx, a, seen) })
}

// remind has a worker ask GitHub about a runner that waits to come into use, and
// that no worker has asked about: its own message comes again by itself.
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

// unseen reports that GitHub did not show a repository's runners.
func (gh atGitHub) unseen(repo github.Repository, err error) {
	if errors.Is(err, errLater) {
		gh.line(Line{Kind: "repository", ID: repo.Name, Action: Skip, Reason: err.Error()})
		return
	}
	if gh.isRefused(repo.Account, "repository", repo.Name, err) {
		return
	}
	gh.fail("repository", repo.Name, fmt.Errorf("see which runners of %s are online: %w", repo.Name, err))
	if errors.Is(err, github.ErrDenied) || errors.Is(err, github.ErrNotFound) || errors.Is(err, github.ErrRefused) {
		gh.deniedBy(repo, err)
	}
}
