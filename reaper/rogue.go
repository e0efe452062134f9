package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// recently is how far back a runner makes its scope worth a look at GitHub.
const recently = 24 * time.Hour

// listing is what GitHub shows of one scope.
type listing struct {
	scope github.Scope
	found []github.Runner
	err   error
}

// registrations looks for registrations that have our name and no record, in the
// account's scopes with a recent runner. It does so once an hour, and notes
// in s what it sees.
func (gh atGitHub) registrations(ctx context.Context, account string, s store.Sweep) store.Sweep {
	now := gh.cfg.Now()
	if !gh.looks(s) || gh.recent == nil {
		return s
	}
	scopes := slices.Collect(maps.Values(gh.recent[account]))
	slices.SortFunc(scopes, func(a, b github.Scope) int { return cmp.Compare(a.ID, b.ID) })
	var lists []*listing
	for _, scope := range scopes {
		if now.Sub(s.Checked[scope.Key()]) >= gh.cfg.Limits.RogueGap {
			lists = append(lists, &listing{scope: scope, err: errLater})
		}
	}
	gh.each(ctx, len(lists), accounts(gitHubAtOnce, func(int) string { return account }), func(q *pass, i int) {
		l := lists[i]
		l.err = atGitHub{q}.askGitHub(ctx, l.scope, listLimit, func(ctx context.Context) error {
			for g, err := range q.cfg.GitHub.List(ctx, l.scope, store.Ours) {
				if err != nil {
					return err
				}
				l.found = append(l.found, g)
			}
			return nil
		})
	})

	ids := make([]string, len(scopes))
	for i, scope := range scopes {
		ids[i] = scope.Key()
	}
	s = s.Keep(ids)
	for _, l := range lists {
		s = gh.listed(ctx, s, l)
	}
	return gh.versions(ctx, account, lists, s)
}

// looks reports whether it is time to look for registrations of the account of a sweep.
func (gh atGitHub) looks(s store.Sweep) bool {
	oldest := zero
	for _, at := range s.Checked {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return gh.cfg.Now().Sub(oldest) >= gh.cfg.Limits.RogueGap
}

// listed does what follows from the list of a scope's registrations.
func (gh atGitHub) listed(ctx context.Context, s store.Sweep, l *listing) store.Sweep {
	now := gh.cfg.Now()
	switch {
	case l.err == nil:
		if rogues, ok := gh.rogues(ctx, l); ok {
			return gh.endRogues(ctx, l.scope, s, rogues).Listed(now, l.scope.Key())
		}
	case errors.Is(l.err, errLater):
		gh.line(Line{Kind: l.scope.Kind(), ID: l.scope.Name, Action: Skip, Reason: l.err.Error()})
	case gh.isRefused(l.scope.Account, l.scope.Kind(), l.scope.Name, l.err):
		return s.Listed(now, l.scope.Key()) // and once an hour is enough to ask
	default:
		gh.fail(l.scope.Kind(), l.scope.Name, fmt.Errorf("list the runners of %s: %w", l.scope.Name, l.err))
		if errors.Is(l.err, github.ErrDenied) || errors.Is(l.err, github.ErrNotFound) || errors.Is(l.err, github.ErrRefused) {
			gh.deniedBy(l.scope, l.err)
			return s.Listed(now, l.scope.Key()) // once an hour is enough to say so
		}
	}
	return s
}

// recentScopes returns the scopes in which each account had a new runner within a day,
// by account and key.
func (gh atGitHub) recentScopes(ctx context.Context) (map[string]map[string]github.Scope, bool) {
	recent := map[string]map[string]github.Scope{}
	since := gh.cfg.Now().Add(-recently)
	for it, err := range gh.store.List(ctx, store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			gh.fail("index", "", fmt.Errorf("list the runners of a day: %w", err))
			return nil, false
		}
		run := it.(*store.Runner)
		if run.CreatedAt.Before(since) {
			break
		}
		if recent[run.Account] == nil {
			recent[run.Account] = map[string]github.Scope{}
		}
		scope := github.ScopeOf(*run).With("")
		if _, ok := recent[run.Account][scope.Key()]; !ok { // the newest knows the name
			recent[run.Account][scope.Key()] = scope
		}
	}
	return recent, true
}

// rogues returns the registrations of a listing that have our name and no record
// that names them, and tells of those of other control planes. It is false when
// the records could not be read.
func (gh atGitHub) rogues(ctx context.Context, l *listing) ([]github.Runner, bool) {
	slices.SortFunc(l.found, func(a, b github.Runner) int { return cmp.Compare(a.ID, b.ID) })
	var ours []github.Runner
	var refs []store.Ref
	seen := map[string]bool{}
	for _, g := range l.found {
		id, ok := runnerIn(gh.cfg.ControlPlane, g.Name)
		if !ok {
			gh.line(Line{Kind: "registration", ID: fmt.Sprintf("%s/%d", l.scope.Name, g.ID), Action: Notice,
				Reason: g.Name + " is not of this control plane"})
			continue
		}
		ours = append(ours, g)
		if id != "" && !seen[id] {
			seen[id] = true
			refs = append(refs, store.Ref{Kind: store.KindRunner, ID: id})
		}
	}
	records, ok := read[*store.Runner](ctx, gh.pass, "runner", refs...)
	if !ok {
		return nil, false
	}
	runners := map[string]*store.Runner{}
	for _, run := range records {
		runners[run.ID] = run
	}
	return slices.DeleteFunc(ours, func(g github.Runner) bool {
		id, _ := runnerIn(gh.cfg.ControlPlane, g.Name)
		run, ok := runners[id]
		return ok && countsOn(gh.cfg.Now(), gh.cfg.Limits, *run, g)
	}), true
}

// runnerIn returns the runner id that a registration's name has in it. It is
// false when the name is not of this control plane: that of another may begin
// with ours and a hyphen. What only begins like ours is ours to account for.
func runnerIn(controlPlane, name string) (id string, ours bool) {
	rest, ok := strings.CutPrefix(name, store.GitHubPrefix(controlPlane))
	if !ok {
		return "", false
	}
	parts := strings.Split(rest, "-")
	if n := len(parts); n > 2 && keys.ValidID(parts[n-2]) && number(parts[n-1]) {
		return "", false
	}
	return parts[0], true
}

func number(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && strconv.Itoa(n) == s
}

// countsOn reports whether the record of a runner counts on a registration, or
// still sees to its end: one of its names, or of its config while it lives. A
// name that only borrows a runner's id is no better than one without a record.
func countsOn(now time.Time, lim store.Limits, r store.Runner, g github.Runner) bool {
	switch {
	case r.Version == 0:
		return false
	case r.State.Final():
		return now.Sub(r.EndedAt) < lim.NameLife &&
			slices.ContainsFunc(r.Names, func(n store.GitHubName) bool { return n.Name == g.Name })
	}
	return g.ID == r.Config.RunnerID ||
		slices.ContainsFunc(r.Names, func(n store.GitHubName) bool { return n.Name == g.Name })
}

// endRogues deletes those that were first seen long enough ago, and returns the
// sweep with the sightings in this scope brought up to date.
func (gh atGitHub) endRogues(ctx context.Context, scope github.Scope, known store.Sweep, rogues []github.Runner) store.Sweep {
	now := gh.cfg.Now()
	ids := make([]int64, len(rogues))
	for i, g := range rogues {
		ids[i] = g.ID
	}
	next, since := known.ObserveRunners(now, scope.Key(), ids)
	var jobs []*removal
	for _, g := range rogues {
		if !known.Knows(scope.Key(), g.ID) {
			gh.line(Line{Kind: "registration", ID: fmt.Sprintf("%s/%d", scope.Name, g.ID), Action: Observe, Reason: "no record names " + g.Name})
		}
		if now.Sub(since[g.ID]) >= gh.cfg.Limits.RogueGap {
			jobs = append(jobs, &removal{scope: scope, id: g.ID, name: g.Name})
		}
	}
	gh.remove(ctx, jobs)
	for _, j := range jobs {
		id := fmt.Sprintf("%s/%d", scope.Name, j.id)
		alarm := func(what string) {
			gh.alarm(store.AlarmRogue, id, what, scope.Kind(), scope.Name, "registration", j.id, "name", j.name)
		}
		switch j.out {
		case removed, absent:
			gh.line(Line{Kind: "registration", ID: id, Action: Remove, Reason: "no record names " + j.name})
			alarm("deleted a registration that no record names")
		case busy:
			gh.line(Line{Kind: "registration", ID: id, Action: Wait, Reason: "no record names " + j.name + ", and a job runs on it"})
			alarm("a job runs on a registration that no record names")
		default:
			gh.unremoved(j)
		}
	}
	return next
}
