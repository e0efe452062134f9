package reaper

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// wake has as many of the requests that wait for their account's quota looked at as it
// has room for: what this run has ended has given its place back by now. One more
// is woken when there is no room, as the quota knows no limit that was raised since
// it was written. The others are left as they are, without a message.
func (p *pass) wake(ctx context.Context, parked []*store.Request) {
	byAccount := map[string][]*store.Request{}
	for _, q := range parked {
		byAccount[q.Account] = append(byAccount[q.Account], q)
	}
	var refs []store.Ref
	for _, account := range slices.Sorted(maps.Keys(byAccount)) {
		refs = append(refs, store.Ref{Kind: store.KindQuota, ID: account})
	}
	quotas, _ := read[*store.Quota](ctx, p, "quota", refs...)
	for _, quota := range quotas {
		for _, q := range inTurn(byAccount[quota.Account], max(1, quota.Limit-quota.Live)) {
			if p.isLate(ctx) {
				return
			}
			p.guard("request", q.ID, func() { p.request(ctx, store.Case{Request: *q}) })
		}
	}
}

// inTurn returns at most n of the requests: of each repository the oldest first, and of
// all repositories one after another.
func inTurn(all []*store.Request, n int) []*store.Request {
	slices.SortFunc(all, func(a, b *store.Request) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	rank, seen := map[string]int{}, map[string]int{} // how many of its repository are before a request
	for _, q := range all {
		repo := q.Repository.Server + "/" + q.Repository.ID
		rank[q.ID] = seen[repo]
		seen[repo]++
	}
	slices.SortStableFunc(all, func(a, b *store.Request) int { return rank[a.ID] - rank[b.ID] })
	return all[:min(n, len(all))]
}
