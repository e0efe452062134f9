package main

// reaperBugs break the reaper's time, and what it does for many at once.
var reaperBugs = []Bug{
	plant("EndsAfterResends", "requests that are sent again have the first of the time, and all of it",
		edit("reaper/phase.go", `		{"ends", 45,`, `		{"resends", 0, func() int { return len(t.requests) + len(t.reviews) }, func(context.Context) { p.requests(ctx) }},
		{"ends", 45,`)),
	plant("ResentFromTheStart", "a request that was sent again stays where it was in the index",
		edit("store/review.go", `r.DueAt = maxTime(r.DueAt, now.Add(-lim.Resend/2))
`, `
`)),
	plant("GroupWithoutFallBack", "machines stay when EC2 refuses to end them together with another one",
		edit("reaper/terminate.go", `if len(group) > 1 && answered && e.Kind != fleet.ErrThrottled {`, `if false && answered && e.Kind != fleet.ErrThrottled {`)),
	plant("GroupedEndLosesPlaces", "ends that are committed together give back one place of the quota",
		edit("reaper/finish.go", `				next[change.Item.Ref()] = change.Item
`, `				next[store.Ref{ID: change.Item.Ref().ID}] = change.Item
`)),
	plant("RefusedBatchIsSent", "messages that the queue did not take count as sent",
		edit("reaper/commit.go", `		for n, err := range q.cfg.Queue.SendAll(ctx, all...) {
			if err != nil {`, `		for n, err := range q.cfg.Queue.SendAll(ctx, all...) {
			if err != nil && n > len(all) {`)),
	plant("ShardSkipsIDs", "no shard has the ids that fall to the last one",
		edit("reaper/run.go", `return int(h.Sum32()%uint32(s.Of)) == s.Index`, `return int(h.Sum32()%uint32(s.Of)) == s.Index+1`)),
}
