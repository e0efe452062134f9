package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// listedAtOnce is in how many repositories of an account a sweep looks for queued jobs.
	// Each takes five calls of the 5,000 or more that a credential has an hour
	// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api):
	// 1,200 an hour, and the others wait their turn.
	listedAtOnce = 20
	// runsAtOnce is of how many runs such a sweep reads the jobs: 720 calls an hour.
	runsAtOnce = 60
	// missedAtOnce is the same where webhooks are known to be lost, once for each: 500 calls,
	// of which 25 go out at once, and 0.3 s each are six seconds of a run. missedRuns is of
	// how many runs the jobs are read then: as many. It is also of how many repositories
	// whose jobs found no room the requests are counted, by a query each.
	missedAtOnce, missedRuns = 100, 500
	// knownBy is how many of the newest requests tell which repositories there are.
	knownBy = 500
)

// unfinished are the statuses of runs that may have a queued job: a run has that of its
// least advanced job, and others of its jobs may be queued beside that. They are in the
// order in which a run has them, so that one that moves on meanwhile is met later.
var unfinished = []string{github.StatusRequested, github.StatusPending, github.StatusWaiting, github.StatusQueued, github.StatusInProgress}

// queued looks for workflow jobs that are queued and have no request: where GitHub says that
// it could not deliver a webhook, and else where jobs found no room and there is some now,
// and in some of the account's other repositories, in turn. A worker looks at each, and
// makes its request. It returns the sweep with what it has found out.
func (gh atGitHub) queued(ctx context.Context, s store.Sweep) store.Sweep {
	if gh.cfg.Workflows == nil || gh.cfg.DryRun {
		return s
	}
	id, _, _ := strings.Cut(s.Key, "/")
	account, err := gh.cfg.Accounts.Account(ctx, id)
	if err != nil {
		return s // who could not be read was reported
	}
	if account.Closed || len(account.RunsOn) == 0 {
		return s.Heard(store.DeliveryLog{})
	}
	ring, err := gh.cfg.Keys(ctx)
	if err != nil {
		gh.fail("account", id, fmt.Errorf("read the keys: %w", err))
		return s
	}
	s = s.Heard(gh.deliveries(ctx, account, s.Deliveries))
	s = s.Overflowed(gh.overflows(ctx, account, s.Overflows))
	var all []*repoRuns
	if missed := s.Deliveries.Missed; len(missed) > 0 {
		for _, id := range missed[:min(len(missed), missedAtOnce)] {
			all = append(all, &repoRuns{Repository: store.Repository{Server: account.Server, ID: id, Name: "repository " + id}})
		}
		gh.runs(ctx, account, all)
		gh.jobs(ctx, account, allOf(all, missedRuns))
	} else {
		all = gh.withRoom(ctx, account, s.Overflows.Waiting)
		for _, r := range turn(gh.pass, gh.repositories(ctx, account), listedAtOnce) {
			if len(all) < listedAtOnce && !slices.ContainsFunc(all, func(l *repoRuns) bool { return l.ID == r.ID }) {
				all = append(all, &repoRuns{Repository: r})
			}
		}
		gh.runs(ctx, account, all)
		for _, l := range all {
			if l.full { // it may have more runs than are read, and those with machines come first
				l.unfinished = turn(gh.pass, l.unfinished, runsAtOnce/len(all))
			}
		}
		gh.jobs(ctx, account, newestOf(all, runsAtOnce))
	}
	gh.unrequested(ctx, account, ring, all)
	for _, l := range all {
		if !l.later() {
			s = s.Heard(s.Deliveries.Listed(l.ID)).Overflowed(s.Overflows.Listed(l.ID))
		}
	}
	return s
}

// overflows reads in which repositories jobs found no room since the last sweep.
func (gh atGitHub) overflows(ctx context.Context, account store.Account, o store.Overflows) store.Overflows {
	refs, next := o.Unread(account.ID, gh.cfg.Now())
	if len(refs) == 0 {
		return o
	}
	items, ok := read[*store.Overflow](ctx, gh.pass, "overflow", refs...)
	if !ok {
		return o
	}
	for _, of := range items {
		next = next.With(*of)
	}
	return next
}

// withRoom returns those repositories, for half of what a sweep lists at most, that have
// room for another request now.
func (gh atGitHub) withRoom(ctx context.Context, account store.Account, waiting []string) []*repoRuns {
	most := account.OpenRequests()
	waiting = turn(gh.pass, waiting, missedAtOnce)
	all := make([]*repoRuns, min(len(waiting), missedAtOnce))
	gh.each(ctx, len(all), common(commitsAtOnce), func(q *pass, i int) {
		r := store.Repository{Server: account.Server, ID: waiting[i], Name: "repository " + waiting[i]}
		open, err := q.store.CountOpen(ctx, r, most)
		if err != nil {
			q.fail("repository", r.Name, err)
			return
		}
		if open < most {
			all[i] = &repoRuns{Repository: r, full: true, room: most - open}
		}
	})
	all = slices.DeleteFunc(all, func(l *repoRuns) bool { return l == nil })
	return all[:min(len(all), listedAtOnce/2)]
}

// turn returns the list from another place in each sweep, so that sweeps which take so
// many of it come to all.
func turn[T any](p *pass, all []T, most int) []T {
	if len(all) <= most {
		return all
	}
	at := int(p.cfg.Now().UnixNano() / int64(p.cfg.Limits.SweepPeriod) * int64(most) % int64(len(all)))
	return append(slices.Clone(all[at:]), all[:at]...)
}

// unrequested sends messages about the queued jobs of the account's that have no request,
// or one that is over.
func (gh atGitHub) unrequested(ctx context.Context, account store.Account, ring *keys.Ring, all []*repoRuns) {
	var jobs []store.Send
	var refs []store.Ref
	var in []*repoRuns
	for _, l := range all {
		for _, r := range l.unfinished {
			repo := store.Repository{Server: account.Server, ID: l.ID, Name: r.Repository, OwnerID: strconv.FormatInt(r.OwnerID, 10)}
			for _, j := range r.jobs {
				if j.Status != github.StatusQueued || !account.Serves(repo) || account.Match(repo, j.Labels).Offer == nil {
					continue
				}
				number := strconv.FormatInt(j.ID, 10)
				q := &store.Request{ // as its own would be
					ID: ring.JobRequestID(repo.Key(), number), Account: account.ID, Repository: repo,
					Job: store.WorkflowJob{ID: number, RunID: strconv.FormatInt(j.RunID, 10)},
				}
				jobs, refs, in = append(jobs, store.Send{Due: gh.cfg.Now(), Item: q}), append(refs, q.Ref()), append(in, l)
			}
		}
	}
	known, _ := read[*store.Request](ctx, gh.pass, "request", refs...)
	for i, q := range known {
		switch l := in[i]; {
		case q == nil:
			l.cut = true // it could not be read
		case q.Version == 0 || q.State.Final():
			l.found = append(l.found, jobs[i])
		}
	}
	for _, l := range all {
		if l.full && len(l.found) > l.room { // in turns, since some may be of jobs that no machine can be had for
			l.found, l.cut = turn(gh.pass, l.found, l.room)[:l.room], true
		}
		for _, s := range l.found {
			gh.sends = append(gh.sends, s)
			gh.note(s.Item, Resend, "its job is queued, and nobody counts on a machine for it")
		}
	}
}

// repositories returns those of the account that are named or have had a request lately,
// by their id.
func (gh atGitHub) repositories(ctx context.Context, account store.Account) []store.Repository {
	var repos []store.Repository
	for _, n := range account.Repositories {
		r := store.Repository{Server: account.Server, ID: n.ID, Name: n.Name}
		if account.Scope.Kind == store.OrganizationScope {
			r.OwnerID = account.Scope.ID // else the account does not serve it
		}
		repos = append(repos, r)
	}
	for it, err := range gh.store.List(ctx, store.Filter{Kind: store.KindRequest, Limit: knownBy, Look: knownBy}) {
		if _, more := errors.AsType[*store.MoreError](err); err != nil && !more {
			gh.fail("index", "", fmt.Errorf("list the newest requests: %w", err))
		}
		if err != nil {
			break
		}
		r := it.(*store.Request)
		if r.Account == account.ID && account.Serves(r.Repository) {
			repos = append([]store.Repository{r.Repository}, repos...) // with its owner
		}
	}
	slices.SortStableFunc(repos, func(a, b store.Repository) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(repos, func(a, b store.Repository) bool { return a.ID == b.ID })
}

// repoRuns is a repository whose unfinished runs are looked for.
type repoRuns struct {
	store.Repository
	unfinished []*unfinishedRun // the newest first, unless it has turns
	found      []store.Send     // about its queued jobs that have no request
	err        error            // of its runs; nil: these are all
	cut        bool             // some of its jobs are left to another sweep
	full       bool             // jobs of it found no room, and there is some now
	room       int              // for how many requests; of one that is full
}

// unfinishedRun is a run that is not over.
type unfinishedRun struct {
	github.Run
	jobs []github.Job
	err  error // why they are not all; nil: they are
}

// later reports whether a later run looks at the repository again: not all of it was, for a
// reason that passes.
func (l *repoRuns) later() bool {
	passes := func(err error) bool { return errors.Is(err, errLater) || errors.Is(err, github.ErrUnknown) }
	return l.cut || passes(l.err) || slices.ContainsFunc(l.unfinished, func(r *unfinishedRun) bool { return passes(r.err) })
}

// allOf returns the runs of as many repositories as have at most so many together, and of
// one at least.
func allOf(all []*repoRuns, most int) []toRead {
	var out []toRead
	for i, l := range all {
		if l.cut = i > 0 && len(out)+len(l.unfinished) > most; l.cut {
			continue
		}
		for _, r := range l.unfinished {
			out = append(out, toRead{l, r})
		}
	}
	return out
}

// newestOf returns at most so many runs: the first of each repository, then the next of each.
func newestOf(all []*repoRuns, most int) []toRead {
	var out []toRead
	for n, more := 0, true; more && len(out) < most; n++ {
		more = false
		for _, l := range all {
			if n < len(l.unfinished) && len(out) < most {
				out, more = append(out, toRead{l, l.unfinished[n]}), true
				l.cut = n+1 < len(l.unfinished)
			}
		}
	}
	return out
}

// toRead is a run whose jobs are to be read.
type toRead struct {
	in *repoRuns
	*unfinishedRun
}

// runs reads which runs of the repositories are not over. What GitHub does not tell now is
// left to a later sweep.
func (gh atGitHub) runs(ctx context.Context, account store.Account, all []*repoRuns) {
	for _, l := range all {
		l.err = errLater // until it is looked at
	}
	gh.each(ctx, len(all), accounts(gitHubAtOnce, func(int) string { return account.ID }), func(q *pass, i int) {
		l := all[i]
		l.err = nil
		seen := map[int64]bool{}
		for _, status := range unfinished {
			l.err = atGitHub{q}.askWorkflows(ctx, account.ID, l.Repository, func(ctx context.Context, at github.Repository) error {
				for r, err := range q.cfg.Workflows.Runs(ctx, at, status) {
					if err != nil {
						return err
					}
					if !seen[r.ID] {
						seen[r.ID] = true
						l.unfinished = append(l.unfinished, &unfinishedRun{Run: r})
					}
				}
				return nil
			})
			if l.err != nil {
				return
			}
		}
	})
}

// jobs reads the jobs of runs.
func (gh atGitHub) jobs(ctx context.Context, account store.Account, all []toRead) {
	for _, r := range all {
		r.err = errLater
	}
	gh.each(ctx, len(all), accounts(gitHubAtOnce, func(int) string { return account.ID }), func(q *pass, i int) {
		r := all[i]
		r.err = atGitHub{q}.askWorkflows(ctx, account.ID, r.in.Repository, func(ctx context.Context, at github.Repository) (err error) {
			r.jobs, err = q.cfg.Workflows.RunJobs(ctx, at, r.ID)
			return err
		})
	})
}

// askWorkflows makes one call about the workflow runs of a repository, and tells of its
// failure.
func (gh atGitHub) askWorkflows(ctx context.Context, account string, repo store.Repository, call func(context.Context, github.Repository) error) error {
	scope := github.Scope{ID: repo.ID, Name: repo.Name, Account: account}
	err := gh.askGitHub(ctx, scope, listLimit, func(ctx context.Context) error {
		return call(ctx, github.Repository{ID: repo.ID, Name: repo.Name, Account: account})
	})
	switch {
	case err == nil, errors.Is(err, github.ErrNotFound):
	case errors.Is(err, errLater):
		gh.line(Line{Kind: scope.Kind(), ID: repo.Name, Action: Skip, Reason: err.Error()})
	case !gh.isRefused(account, scope.Kind(), repo.Name, err):
		gh.fail(scope.Kind(), repo.Name, fmt.Errorf("look for queued jobs in %s: %w", repo.Name, err))
	}
	return err
}
