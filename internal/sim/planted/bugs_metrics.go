package main

// metricBugs break how what happens is counted.
var metricBugs = []Bug{
	plant("CountedWhenWrittenAgain", "a request that is over counts again each time that it is written",
		edit("internal/metrics/metrics.go", `	case made || was.State.Final():`, `	case made:`)),
	plant("CountedWhenAcceptedAgain", "a request that is tried on another machine counts as another one",
		edit("internal/metrics/metrics.go", `	if made && (is`, `	if was.State != store.Accepted && (is`)),
	plant("CountedBeforeTheAnswer", "a commit that loses is counted as if it had won",
		edit("internal/metrics/metrics.go", `	if err := c.Store.Commit(ctx, changes...); err != nil {
		return err
	}
	if f := Of(changes); len(f) > 0 {
		c.to(f)
	}
	return nil
`, `	if f := Of(changes); len(f) > 0 {
		c.to(f)
	}
	return c.Store.Commit(ctx, changes...)
`)),
	plant("NobodyKnowsWhatItWas", "a decision does not say what the items were, so that nothing is counted",
		edit("store/case.go", `Change{Item: i, Was: itemsOf(&d.was)[n]}`, `Change{Item: i, Was: itemsOf(d.Case)[n]}`)),
}
