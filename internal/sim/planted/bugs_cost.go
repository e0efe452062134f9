package main

// costBugs break how what machines cost is counted.
var costBugs = []Bug{
	plant("RolledUpTwice", "a usage that a lost commit was to write is what the next one adds to",
		edit("store/cost.go", `	u.Rows = slices.Clone(u.Rows)
`, ``)),
	plant("NotRolledUp", "the usage of the day is not read before the end of a machine, and so not written",
		edit("reaper/finish.go", `o.runner.Ref(), store.UsageRef(o.at, o.runner.Repository))`, `o.runner.Ref())`)),
	plant("UnknownCostsNothing", "seconds without a price count as if they had cost nothing",
		edit("store/cost.go", `	if r.Cost.Hour == 0 {
		of.Unpriced`, `	if r.Cost.Hour < 0 {
		of.Unpriced`)),
	plant("PriceOfTheOtherMarket", "a spot machine is counted at the on-demand price",
		edit("store/prices.go", `	if p.Market == Spot {
		return spot.Hour`, `	if p.Market == "" {
		return spot.Hour`)),
	plant("BudgetPassed", "a start does not look whether the account's budget is spent",
		edit("worker/round.go", `account.OverBudget(r.now, r.Limits, c.Quota); wait.For != "" {`, `account.OverBudget(r.now, r.Limits, store.Quota{}); wait.For != "" {`)),
	plant("SpentNotCounted", "what an account has spent is that of its last machine",
		edit("store/spending.go", `	q.Spent.Cost += cost
`, `	q.Spent.Cost = cost
`)),
	plant("UsageOverwritten", "the usage of a day has the last machine alone",
		edit("store/cost.go", `of.Runners+1, of.Seconds+r.Cost.Seconds, of.Cost+r.Cost.Total`, `1, r.Cost.Seconds, r.Cost.Total`)),
}
