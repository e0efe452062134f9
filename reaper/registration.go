package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// namesAtOnce bounds the left-over names that one run looks up and deletes: two
// calls each, so 200 of them take a third of a run. The rest stays due.
const namesAtOnce = 200

// outcome is how a removal ended.
type outcome int

const (
	untried outcome = iota // left to the next run
	removed                // GitHub deleted it
	absent                 // GitHub does not have it, and shows us that it would tell
	busy                   // a job runs on it
	denied                 // the credential does not serve
	unclear                // no answer
)

// removal is one registration that GitHub is to delete.
type removal struct {
	runner *store.Runner // whose it is; nil: nobody's
	scope  github.Scope
	id     int64
	name   string // looked up, exactly, when there is no id
	n      int    // the number of the config that it belongs to

	out outcome
	err error
	// judge is the scope with the credential by which GitHub said that it is absent.
	judge github.Scope
}

func (j *removal) String() string {
	if j.out == absent {
		return "GitHub does not have the registration"
	}
	return fmt.Sprintf("GitHub deleted registration %d", j.id)
}

// remove makes GitHub delete the registrations, and says how each ended. In
// a dry run it tries none.
func (gh atGitHub) remove(ctx context.Context, jobs []*removal) {
	if gh.cfg.DryRun {
		return
	}
	gh.each(ctx, len(jobs), accounts(gitHubAtOnce, func(i int) string { return jobs[i].scope.Account }), func(q *pass, i int) {
		j := jobs[i]
		j.err = atGitHub{q}.removeOne(ctx, j)
		j.out = outcomeOf(j.err)
		j.judge = j.scope.With(github.By(j.err))
	})
	gh.askWhetherAbsent(ctx, jobs)
	for _, j := range jobs {
		if _, err := gh.lists(j.judge); j.out == absent && err != nil {
			j.err = err
			if j.out = outcomeOf(err); j.out == absent {
				j.out = denied // the scope itself is not there, for this credential
			}
		}
	}
}

// outcomeOf returns what GitHub's answer to a removal means.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return removed
	case errors.Is(err, github.ErrNotFound):
		return absent
	case errors.Is(err, github.ErrBusy):
		return busy
	case errors.Is(err, errLater):
		return untried
	case errors.Is(err, github.ErrDenied), errors.Is(err, github.ErrRefused):
		return denied
	}
	return unclear
}

// askWhetherAbsent finds out which scopes with an absent registration the
// credential can list at all.
func (gh atGitHub) askWhetherAbsent(ctx context.Context, jobs []*removal) {
	// 404 is also what GitHub answers to a credential that may not see the
	// scope. It proves something only if the same credential sees the rest.
	var scopes []github.Scope
	for _, j := range jobs {
		if known, _ := gh.lists(j.judge); j.out == absent && !known && !slices.Contains(scopes, j.judge) {
			scopes = append(scopes, j.judge)
		}
	}
	errs := queue.Each(len(scopes), errLater)
	gh.each(ctx, len(scopes), accounts(gitHubAtOnce, func(i int) string { return scopes[i].Account }), func(q *pass, i int) {
		errs[i] = atGitHub{q}.askGitHub(ctx, scopes[i], listLimit, func(ctx context.Context) error {
			for _, err := range q.cfg.GitHub.List(ctx, scopes[i], store.GitHubPrefix(gh.cfg.ControlPlane)) {
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	gh.lock.Lock()
	defer gh.lock.Unlock()
	for i, scope := range scopes {
		gh.canList[scope] = errs[i]
	}
}

// lists returns whether it is known if the credential can list a scope, and why not.
func (gh atGitHub) lists(scope github.Scope) (known bool, why error) {
	gh.lock.Lock()
	defer gh.lock.Unlock()
	why, known = gh.canList[scope]
	return known, why
}

func (gh atGitHub) removeOne(ctx context.Context, j *removal) error {
	if j.id == 0 && j.name != "" {
		err := gh.askGitHub(ctx, j.scope, callLimit, func(ctx context.Context) error {
			found, err := gh.cfg.GitHub.Find(ctx, j.scope, j.name)
			j.id = found.ID
			return err
		})
		if err != nil {
			return err
		}
	}
	return gh.askGitHub(ctx, j.scope, callLimit, func(ctx context.Context) error {
		return gh.cfg.GitHub.Delete(ctx, j.scope, j.id)
	})
}

// unremoved reports a removal that did not come about, for other reasons than a job.
func (gh atGitHub) unremoved(j *removal) {
	kind, id := "registration", fmt.Sprintf("%s/%d", j.scope.Name, j.id)
	if j.runner != nil {
		kind, id = "runner", j.runner.ID
	}
	switch {
	case j.out == untried && gh.cfg.DryRun:
		gh.line(Line{Kind: kind, ID: id, Action: Deregister, Reason: "ask GitHub to delete the registration"})
	case j.out == untried && j.err == nil:
		gh.line(Line{Kind: kind, ID: id, Action: Skip, Reason: "time ran out"})
	case j.out == untried:
		gh.line(Line{Kind: kind, ID: id, Action: Skip, Reason: j.err.Error()})
	case gh.isRefused(j.scope.Account, kind, id, j.err):
	default:
		gh.fail(kind, id, fmt.Errorf("delete a registration in %s: %w", j.scope.Name, j.err))
		if j.out == denied {
			gh.deniedBy(j.scope, j.err)
		}
	}
}

// deniedBy raises the alarm for a credential that does not serve a scope.
func (gh atGitHub) deniedBy(scope github.Scope, err error) {
	gh.alarm(store.AlarmGitHub, scope.Account+" "+scope.Key(), "GitHub refuses the account's credential: "+err.Error(),
		"account", scope.Account, scope.Kind(), scope.Name)
}

// names deletes at GitHub what ended runners left there, and what usable ones no
// longer need. Nothing waits for it.
func (gh atGitHub) names(ctx context.Context) {
	runners := take(&gh.todo.naming, len(gh.todo.naming))
	var jobs []*removal
	var mine [][]*removal
	for _, run := range runners {
		var todo []*removal
		for _, g := range deletable(gh.cfg.Now(), gh.cfg.Limits, *run) {
			todo = append(todo, &removal{runner: run, scope: github.ScopeOf(*run).With(g.Credential), id: g.RunnerID, name: g.Name, n: g.N})
		}
		todo = todo[:min(len(todo), namesAtOnce-len(jobs))]
		jobs = append(jobs, todo...)
		mine = append(mine, todo)
	}
	gh.remove(ctx, jobs)
	gh.record(len(runners), func(q *pass, i int) {
		q.guard("runner", runners[i].ID, func() { atGitHub{q}.named(ctx, runners[i], mine[i]) })
	})
}

// deletable returns the names of r that may be deleted now. One whose id is not
// known may still be on its way from a worker that was ended, to a GitHub that
// is slow: that it is not found means something only after a while.
func deletable(now time.Time, lim store.Limits, r store.Runner) []store.GitHubName {
	if r.State.Final() && store.NextEndStep(now, lim, r, false) != store.EndNames {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.Unused()), func(g store.GitHubName) bool {
		return g.RunnerID == 0 && now.Sub(r.UpdatedAt) < lim.Resend
	})
}

// named records which names of a runner are gone. An ended one is looked at
// again in an hour if some are left, or at once if some were not yet tried.
func (gh atGitHub) named(ctx context.Context, run *store.Runner, jobs []*removal) {
	var gone []int
	tried := len(jobs)
	for _, j := range jobs {
		switch j.out {
		case removed, absent:
			gone = append(gone, j.n)
			gh.note(run, Forget, j.name+": "+j.String())
		case busy:
			gh.note(run, Wait, j.name+": a job runs")
		case untried:
			tried--
			gh.unremoved(j)
		default:
			gh.unremoved(j)
		}
	}
	now := gh.cfg.Now()
	all := tried == len(run.Names) || store.NextEndStep(now, gh.cfg.Limits, *run, false) == store.EndNothing
	gh.advance(ctx, run, func(c store.Case) store.Decision { return c.Forgotten(gh.cfg.Now(), gh.cfg.Limits, gone, all) })
}
