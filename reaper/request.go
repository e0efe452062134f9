package reaper

import (
	"context"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// requests looks at the due requests, each with the runner that it waits for.
func (r *run) requests(ctx context.Context, refs []store.Ref) {
	for part := range slices.Chunk(refs, batch) {
		if r.isLate(ctx) {
			return
		}
		all, ok := read[*store.Request](ctx, r, "request", part...)
		if !ok {
			continue
		}
		var due []*store.Request
		var waitedFor []store.Ref
		for _, q := range all {
			if !isDue(q.Base(), r.cfg.Now()) || q.State.Final() {
				continue
			}
			due = append(due, q)
			if ref := (store.Ref{Kind: store.KindRunner, ID: q.Runner}); q.State == store.Waiting && !slices.Contains(waitedFor, ref) {
				waitedFor = append(waitedFor, ref)
			}
		}
		r.report.Requests += len(due)
		found, ok := read[*store.Runner](ctx, r, "runner", waitedFor...)
		runners := map[string]*store.Runner{}
		for _, run := range found {
			runners[run.ID] = run
		}
		for _, q := range due {
			if q.State == store.Waiting && !ok {
				continue // its runner could not be read
			}
			if r.isLate(ctx) {
				return
			}
			r.guard("request", q.ID, func() { r.request(ctx, *q, runners[q.Runner]) })
		}
	}
}

func (r *run) request(ctx context.Context, q store.Request, runner *store.Runner) {
	if runner == nil {
		runner = &store.Runner{}
	}
	now := r.cfg.Now()
	next, act, sends := decideRequest(now, r.cfg.Limits, q, *runner)
	if act == "" || !r.commit(ctx, &next, store.Put(&next)) {
		return
	}
	r.note(&next, act, story(next, act))
	if sends {
		m := queue.StartOf(next)
		r.send(ctx, m, next.DueAt.Sub(now))
	}
}

// story tells a decision on a request in a few words.
func story(q store.Request, act Action) string {
	switch {
	case act == Resend && q.Parked():
		return "waits for the quota"
	case act == Resend:
		return "nobody took it up"
	case act == Remind:
		return "waits for runner " + q.Runner
	case q.State == store.Accepted:
		return "accepted again: " + q.History[len(q.History)-1].Reason
	case q.Error != nil:
		return string(q.State) + ": " + q.Error.Code
	}
	return string(q.State)
}

// decideRequest returns what a due request becomes, with "" if nothing is to be
// done, and whether a start message goes out with it. runner is the one that it
// waits for, if it does.
func decideRequest(now time.Time, lim store.Limits, q store.Request, runner store.Runner) (_ store.Request, act Action, sends bool) {
	if q.State == store.Waiting {
		if next, changed, again := store.Settle(now, lim, q, runner); changed {
			return next, Settle, again
		}
	}
	switch {
	case q.Overdue(now):
		return q.Tried(runner).Expire(now, lim), Expire, false
	case q.State == store.Waiting:
		return q.Remind(now, lim), Remind, false
	case q.Forgotten(now, lim):
		return q.Sent(now), Resend, true
	}
	return q, "", false
}
