package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// idle looks at the machine that a queued job waits for: one that is online for long
// though GitHub does not give it the job is drained, since it costs money, or since its
// registration was used up.
func (h *hearing) idle(ctx context.Context, r store.Request, s store.Sighting) error {
	if r.State != store.Waiting || s.Status.Begun() {
		return nil
	}
	run, err := store.Read[store.Runner](ctx, h.Store, r.Runner)
	if err != nil || !run.Idles(h.Now()) {
		return err
	}
	seen, err := h.GitHub.Get(ctx, github.ScopeOf(run), run.Config.RunnerID)
	why := store.EndIdle
	switch {
	case errors.Is(err, github.ErrNotFound):
		why = store.EndUnlisted
	case err != nil:
		h.Log.Warn("GitHub does not tell of the runner", "runner", run.ID, "trace", h.Trace, "error", err)
		return nil
	case seen.Busy || !seen.Online:
		return nil
	}
	lock, err := store.Read[store.Lock](ctx, h.Store, run.Lock)
	if err != nil {
		return fmt.Errorf("read lock %s: %w", run.Lock, err)
	}
	d := store.Case{Runner: run, Lock: lock}.Drain(h.Now(), store.NewEnd(why))
	if err := h.session.Commit(ctx, d.Changes...); err == nil {
		h.alarm(store.AlarmJobWaits, "a job is queued and its machine idle: GitHub holds the job back, or gave it to nobody", "runner", run.ID, "request", r.ID,
			"job", r.Job.ID, "url", r.Job.URL, "repository", h.repo.Name, "trace", h.Trace, "reason", why)
	}
	return nil // the reaper has it looked at again
}

// others sends what a run's jobs show that the records do not: jobs of ours that have no
// request, and jobs that began on runners of ours. Whatever is forgotten here is found by
// the next look.
func (h *hearing) others(ctx context.Context, run knownRun) {
	var found []queue.Message
	var refs []store.Ref
	for _, j := range run.jobs {
		s := sightingOf(j)
		id := h.keys().JobRequestID(h.repo.Key(), s.Job.ID)
		runner, named := store.RunnerNamed(h.ControlPlane, s.Runner)
		switch {
		case id == h.ID:
			continue
		case s.Status.Begun() && named:
			refs = append(refs, store.Ref{Kind: store.KindRunner, ID: runner})
		case s.Status == store.JobQueued && h.account.Match(h.repo, s.Job.Labels).Offer != nil:
			refs = append(refs, store.Ref{Kind: store.KindRequest, ID: id})
			s.Status = ""
		default:
			continue
		}
		found = append(found, queue.JobOf(id, h.account.ID, h.repo, s, h.Trace))
	}
	for len(refs) > 0 {
		n := min(len(refs), store.MaxChanges) // BatchGetItem takes as many, too
		items, err := h.Store.Get(ctx, compact(refs[:n])...)
		if err != nil {
			h.Log.Warn("other jobs of the run not looked at", "run", run.run.ID, "trace", h.Trace, "error", err)
			return
		}
		for i, m := range found[:n] {
			if lacks(items, refs[i]) {
				h.send(ctx, m, h.Now())
			}
		}
		refs, found = refs[n:], found[n:]
	}
}

func compact(refs []store.Ref) []store.Ref {
	refs = slices.Clone(refs)
	slices.SortFunc(refs, func(a, b store.Ref) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(refs)
}

// lacks reports whether an item does not know of its job: a runner of ours that took
// none, or a request that is not there.
func lacks(items []store.Item, ref store.Ref) bool {
	for _, i := range items {
		if i.Ref() != ref {
			continue
		}
		if r, ok := i.(*store.Runner); ok {
			return r.Version != 0 && r.Took.Job == ""
		}
		return i.Base().Version == 0
	}
	return false
}

// spared remembers that nobody counts on the runner any more that a request waited for.
// That is a hint, and may be lost.
func (h *hearing) spared(ctx context.Context, r store.Request) {
	spares, err := store.Read[store.Spares](ctx, h.Store, r.Pool())
	if err == nil {
		err = h.session.Commit(ctx, spares.With(h.Now(), h.Limits, r.Runner).Changes...)
	}
	if err != nil {
		h.Log.Info("spare runner not remembered", "runner", r.Runner, "pool", r.Pool(), "error", err)
	}
}
