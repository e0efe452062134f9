package worker

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// giveSpare gives the request of a workflow job a runner that nobody counts on, if the
// hint knows of one. That is not worth an error: else a machine is launched.
func (r *round) giveSpare(ctx context.Context, s *start, req *store.Request) bool {
	spares, err := store.Read[store.Spares](ctx, r.Store, req.Pool())
	if err != nil || len(spares.Runners) == 0 {
		return false
	}
	runners, err := getAll[*store.Runner](ctx, r.Store, store.KindRunner, spares.Runners)
	if err != nil {
		return false
	}
	var owners []string
	for _, run := range runners {
		if run.For != "" {
			owners = append(owners, run.For)
		}
	}
	slices.Sort(owners)
	requests, err := getAll[*store.Request](ctx, r.Store, store.KindRequest, slices.Compact(owners))
	if err != nil {
		return false
	}
	for _, run := range runners {
		i := slices.IndexFunc(requests, func(q *store.Request) bool { return q.ID == run.For })
		if i < 0 || r.given[run.ID] {
			continue
		}
		d, ok := store.GiveSpare(store.Case{Request: *req, Runner: *run}, r.now, r.Limits, *requests[i])
		if !ok {
			continue
		}
		r.given[run.ID] = true
		g := r.put("request "+req.ID, s, d)
		g.after = append(g.after, func() {
			r.Log.Info("takes over", "request", req.ID, "runner", run.ID, "trace", req.Trace)
			if err := r.session.Commit(ctx, spares.Without(r.Now(), r.Limits, []string{run.ID}).Changes...); err != nil {
				r.Log.Debug("spare runner not taken out of the hint", "runner", run.ID, "error", err)
			}
		})
		return true
	}
	return false
}

// getAll reads the items of some ids.
func getAll[T store.Item](ctx context.Context, s store.Store, kind store.Kind, ids []string) ([]T, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	refs := make([]store.Ref, len(ids))
	for i, id := range ids {
		refs[i] = store.Ref{Kind: kind, ID: id}
	}
	items, err := s.Get(ctx, refs...)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(items))
	for i, it := range items {
		out[i] = it.(T)
	}
	return out, nil
}

// wanted reports whether a machine is to be launched for a workflow job: GitHub calls it
// queued, and its run may have one. If not, what GitHub says of it is decided, or the
// request waits.
func (r *round) wanted(ctx context.Context, s *start, account store.Account, req *store.Request) bool {
	within := runFor
	if req.Launches > 1 { // what GitHub said before it was accepted again tells nothing of the job on its last machine
		within = min(runFor, r.Now().Sub(req.SentAt))
	}
	seen, run, _, err := r.read(ctx, req.Account, req.Repository, req.Job, within)
	switch {
	case err != nil:
		r.untold(ctx, s, req, err)
		return false
	case seen.Status != store.JobQueued:
		r.hears(ctx, s, req, seen)
		return false
	}
	offer := account.Match(req.Repository, req.Job.Labels).Offer
	if offer == nil {
		r.forbid(ctx, s, account, req, &intake.Refusal{Reason: "no offer", Text: "The account's registration offers no machine for the job any more (runs_on)."})
		return false
	}
	if no := intake.RunAllowed(r.Limits, account, *offer, *req, workflowRun(run.run)); no != nil {
		r.forbid(ctx, s, account, req, no)
		return false
	}
	return true
}

// untold keeps a request waiting whose job GitHub does not tell of. That GitHub does not
// have it is no proof that it is gone: the credential may not see it.
func (r *round) untold(ctx context.Context, s *start, req *store.Request, err error) {
	r.Log.Warn("GitHub does not tell of the job", "request", req.ID, "job", req.Job.ID, "repository", req.Repository.Name, "trace", req.Trace, "error", err)
	w := store.Wait{For: store.WaitGitHubDown, Until: r.now.Add(r.Limits.Waits[0])}
	ge, ok := errors.AsType[*github.Error](err)
	switch {
	case ok && errors.Is(err, github.ErrLimited):
		w.For = store.WaitGitHub
		if ge.RetryAt.After(w.Until) {
			w.Until = ge.RetryAt
		}
	case ok && !errors.Is(err, github.ErrUnknown):
		r.alarm(store.AlarmGitHub, "GitHub does not tell of a job", "account", req.Account, "repository", req.Repository.Name, "request", req.ID, "trace", req.Trace, "error", err)
		w.Until = r.now.Add(10 * time.Minute) // until people have changed something
	}
	r.hold(ctx, s, req, w)
}

// hears decides what follows for a request whose job is not queued.
func (r *round) hears(ctx context.Context, s *start, req *store.Request, seen store.Sighting) {
	c, on := store.Case{Request: *req}, false
	if id, named := store.RunnerNamed(r.ControlPlane, seen.Runner); named {
		run, err := store.Read[store.Runner](ctx, r.Store, id)
		if err != nil {
			*s.err, s.done = err, true
			return
		}
		if on = seen.Proves(r.ControlPlane, run) && run.Account == req.Account && serves(run, req.Repository); on {
			c.Runner = run
		}
	}
	d, heard := store.Heard(c, r.now, r.Limits, seen, on)
	if heard == store.HeardNothing {
		r.hold(ctx, s, req, store.Wait{For: store.WaitGitHubDown, Until: r.now.Add(r.Limits.Waits[0])}) // it does not say yet on which runner it is
		return
	}
	s.until = d.Request.DueAt
	g := r.put("request "+req.ID, s, d)
	g.after = append(g.after, func() {
		r.Log.Info("job heard", "request", req.ID, "job", req.Job.ID, "trace", req.Trace, "what", string(heard), "state", string(d.Request.State))
		r.sendAll(ctx, d)
	})
}

// forbid ends a request whose job may have no machine, and cancels the run if the account
// wants that: else the job stays queued, and people see why.
func (r *round) forbid(ctx context.Context, s *start, account store.Account, req *store.Request, no *intake.Refusal) {
	g := r.put("request "+req.ID, s, store.Case{Request: *req}.Fail(r.now, r.Limits, store.Failure{Code: store.CodeForbidden, Text: no.Text}))
	g.after = append(g.after, func() {
		r.alarm(store.AlarmJobForbidden, "a job may have no machine", "request", req.ID, "job", req.Job.ID, "url", req.Job.URL, "account", req.Account,
			"repository", req.Repository.Name, "trace", req.Trace, "reason", no.Reason, "text", no.Text)
		if account.OnForbidden == store.CancelRun {
			r.cancel(ctx, req)
		}
	})
}

// giveUp has the run of a job cancelled whose machine only people can make possible, since the
// account wants that. The request is over when GitHub says so.
func (r *round) giveUp(ctx context.Context, s *start, req *store.Request) {
	r.hold(ctx, s, req, store.Wait{For: store.WaitBackoff, Until: r.now.Add(r.Limits.Waits[0])})
	g := r.group("request "+req.ID, s)
	g.after = append(g.after, func() {
		r.alarm(store.AlarmJobWaits, "a job can have no machine, and its run is cancelled: "+req.Lost, "request", req.ID, "job", req.Job.ID, "url", req.Job.URL,
			"repository", req.Repository.Name, "trace", req.Trace)
		r.cancel(ctx, req)
	})
}

// cancel has GitHub cancel the run of a job. If it does not, the job stays queued, as in
// an account that does not want it cancelled.
func (r *round) cancel(ctx context.Context, req *store.Request) {
	run, err := strconv.ParseInt(req.Job.RunID, 10, 64)
	if err == nil {
		err = r.Workflows.Cancel(ctx, github.Repository{ID: req.Repository.ID, Name: req.Repository.Name, Account: req.Account}, run)
	}
	if err != nil && !errors.Is(err, github.ErrConflict) { // it is over
		r.Log.Warn("run not cancelled", "run", req.Job.RunID, "request", req.ID, "trace", req.Trace, "error", err)
	}
}
