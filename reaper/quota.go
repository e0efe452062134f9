package reaper

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// woken returns the requests to look at: of those that wait for their account's quota as
// many as it has room for, since what this run has ended has given its place back by now.
// One more is woken when there is no room, as the quota knows no limit that was raised
// since it was written. The others are left as they are, without a message.
func woken(ctx context.Context, p *pass, all []store.Case) []store.Case {
	var out []store.Case
	parked := map[string][]store.Case{}
	for _, c := range all {
		if c.Request.Wakes(p.cfg.Now(), p.cfg.Limits) {
			parked[c.Request.Account] = append(parked[c.Request.Account], c)
		} else {
			out = append(out, c)
		}
	}
	var refs []store.Ref
	for _, account := range slices.Sorted(maps.Keys(parked)) {
		refs = append(refs, store.Ref{Kind: store.KindQuota, ID: account})
	}
	quotas, _ := read[*store.Quota](ctx, p, "quota", refs...)
	for i, quota := range quotas {
		if quota != nil {
			out = append(out, inTurn(parked[refs[i].ID], max(1, quota.Limit-quota.Live))...)
		}
	}
	return out
}

// inTurn returns at most n of the requests: of each repository the oldest first, and of
// all repositories one after another.
func inTurn(all []store.Case, n int) []store.Case {
	slices.SortFunc(all, func(a, b store.Case) int {
		return cmp.Or(a.Request.CreatedAt.Compare(b.Request.CreatedAt), cmp.Compare(a.Request.ID, b.Request.ID))
	})
	return inTurns(all)[:min(n, len(all))]
}
