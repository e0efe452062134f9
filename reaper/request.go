package reaper

import (
	"context"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// requests looks at the due requests, each with the runner that it waits for.
// It returns those that wait for their account's quota.
func (p *pass) requests(ctx context.Context, refs []store.Ref) (parked []*store.Request) {
	for part := range slices.Chunk(refs, batch) {
		if p.isLate(ctx) {
			return parked
		}
		all, ok := read[*store.Request](ctx, p, "request", part...)
		if !ok {
			continue
		}
		var due []*store.Request
		var waitedFor []store.Ref
		for _, q := range all {
			if !isDue(q.Base(), p.cfg.Now()) || q.State.Final() {
				continue
			}
			due = append(due, q)
			if ref := (store.Ref{Kind: store.KindRunner, ID: q.Runner}); q.State == store.Waiting && !slices.Contains(waitedFor, ref) {
				waitedFor = append(waitedFor, ref)
			}
		}
		p.report.Requests += len(due)
		found, ok := read[*store.Runner](ctx, p, "runner", waitedFor...)
		runners := map[string]store.Runner{}
		for _, run := range found {
			runners[run.ID] = *run
		}
		for _, q := range due {
			if q.Wakes(p.cfg.Now(), p.cfg.Limits) {
				parked = append(parked, q)
				continue
			}
			if q.State == store.Waiting && !ok {
				continue // its runner could not be read
			}
			if p.isLate(ctx) {
				return parked
			}
			p.guard("request", q.ID, func() { p.request(ctx, store.Case{Request: *q, Runner: runners[q.Runner]}) })
		}
	}
	return parked
}

// actions are what a run reports for an outcome.
var actions = map[store.Outcome]Action{
	store.Settled: Settle, store.GivenUp: Expire, store.WaitsOn: Remind, store.Resent: Resend,
}

func (p *pass) request(ctx context.Context, c store.Case) {
	d, out := c.ReviewRequest(p.cfg.Now(), p.cfg.Limits)
	if out == store.Left || !p.apply(ctx, &d.Request, d) {
		return
	}
	why := story(d.Request)
	switch out {
	case store.Resent:
		if why = "nobody took it up"; d.Request.Wait == store.WaitQuota {
			why = "waits for the quota"
		}
	case store.WaitsOn:
		why = "waits for runner " + d.Request.Runner
	}
	p.note(&d.Request, actions[out], why)
}

// story tells what a request has come to, in a few words.
func story(q store.Request) string {
	switch {
	case q.State == store.Accepted:
		return "accepted again: " + q.History[len(q.History)-1].Reason
	case q.Error != nil:
		return string(q.State) + ": " + q.Error.Code
	}
	return string(q.State)
}
