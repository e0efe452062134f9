package reaper

import (
	"cmp"
	"context"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// mostReviews is how many requests are read before any is reviewed: they take their
// turns by repository, and are held in memory until then, 5 KB each with its runner.
const mostReviews = 10_000

// requests looks at the due requests, each with the runner that it waits for. Those of
// different repositories take turns, so that one with thousands of them delays another's
// by as many as there are repositories. The index has them by due_at, which moves when
// one is sent again: a run begins where the one before it stopped.
func (p *pass) requests(ctx context.Context) {
	t := &p.todo
	var due []store.Case
	for len(t.requests) > 0 && len(t.reviews)+len(due) < mostReviews && !isLate(ctx) {
		due = append(due, p.readRequests(ctx, take(&t.requests, mostKeys*readsAtOnce))...)
	}
	t.reviews = inTurns(append(t.reviews, woken(ctx, p, due)...))
	for len(t.reviews) > 0 && !isLate(ctx) {
		some := take(&t.reviews, round)
		p.each(ctx, len(some), common(commitsAtOnce), func(q *pass, i int) {
			q.guard("request", some[i].Request.ID, func() { q.request(ctx, some[i]) })
		})
		p.flush(ctx)
	}
}

// readRequests reads the requests that are due, and the runners that they wait for.
func (p *pass) readRequests(ctx context.Context, refs []store.Ref) []store.Case {
	all, _ := read[*store.Request](ctx, p, "request", refs...)
	var due []*store.Request
	var waitedFor []store.Ref
	at := map[string]int{}
	for _, q := range all {
		if q == nil || !isDue(q.Base(), p.cfg.Now()) || q.State.Final() {
			continue
		}
		due = append(due, q)
		if q.InLine() {
			p.report.OldestMS = max(p.report.OldestMS, p.cfg.Now().Sub(q.CreatedAt).Milliseconds())
		}
		if _, known := at[q.Runner]; q.State == store.Waiting && !known {
			at[q.Runner] = len(waitedFor)
			waitedFor = append(waitedFor, store.Ref{Kind: store.KindRunner, ID: q.Runner})
		}
	}
	p.report.Requests += len(due)
	runners, _ := read[*store.Runner](ctx, p, "runner", waitedFor...)
	var out []store.Case
	for _, q := range due {
		c := store.Case{Request: *q}
		if q.State == store.Waiting {
			run := runners[at[q.Runner]]
			if run == nil {
				continue // its runner could not be read
			}
			c.Runner = *run
		}
		out = append(out, c)
	}
	return out
}

// inTurns orders requests so that their repositories take turns. Those of one repository
// stay in order.
func inTurns(all []store.Case) []store.Case {
	nth := map[string]int{}
	turn := make(map[string]int, len(all)) // by request
	for _, c := range all {
		turn[c.Request.ID] = nth[c.Request.Repository.Key()]
		nth[c.Request.Repository.Key()]++
	}
	slices.SortStableFunc(all, func(a, b store.Case) int { return cmp.Compare(turn[a.Request.ID], turn[b.Request.ID]) })
	return all
}

// actions are what a run reports for an outcome.
var actions = map[store.Outcome]Action{
	store.Settled: Settle, store.GivenUp: Expire, store.WaitsOn: Remind, store.Resent: Resend,
}

func (p *pass) request(ctx context.Context, c store.Case) {
	var out store.Outcome
	_, d, ok := p.decide(ctx, &c.Request, c, func(c store.Case) (d store.Decision) {
		d, out = c.ReviewRequest(p.cfg.Now(), p.cfg.Limits)
		return d
	})
	if !ok || out == store.Left {
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
