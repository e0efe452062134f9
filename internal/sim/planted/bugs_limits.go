package main

// limitBugs let somebody make us do more than he may.
var limitBugs = []Bug{
	plant("NotesWithoutEnd", "each note of a machine is written",
		edit("store/budget.go", `if d.pay(now, lim, priceNote) {`, `if true {`)),
	plant("HeardPastHard", "what a machine says past its hard limit is written",
		edit("store/event.go", `case r.State == RunnerEnding || !now.Before(r.Hard):`, `case r.State == RunnerEnding:`)),
	plant("HeardPastExp", "notes are written though nobody counts on the runner any more",
		edit("store/budget.go", ` || !l.Names(r.ID) || !now.Before(l.Exp) {
		return
	}
	text`, ` || !l.Names(r.ID) {
		return
	}
	text`)),
	plant("BudgetOfItsOwnWord", "a machine that says that it said much gets room for it",
		edit("store/budget.go", `if d.pay(now, lim, priceNote) {`, `if e.Counter-r.Counter > 1 || d.pay(now, lim, priceNote) {`)),
	plant("JobsWithoutConfigs", "a machine can have any number of jobs by one config",
		edit("store/event.go", `if r.jobRuns() || !r.Config.Used {`, `if true {`)),
	plant("FloodAlarmsForEver", "each event that is left out is an alarm",
		edit("store/budget.go", `if d.Runner.FloodAt.IsZero() {`, `if true {`)),
	plant("OpenRequestsBoundedTooLate", "a start is refused once it is recorded",
		edit("internal/intake/open.go", `	if !ok {
		return full(a, repo, most)
	}`, `	if !ok {
		if err := commit(); err != nil {
			return err
		}
		return full(a, repo, most)
	}`)),
	plant("EventsDenied", "the list of events that may ask is one of those that may not",
		edit("store/events.go", `ok, field = slices.Contains(usualEvents, name)`, `ok, field = !slices.Contains(usualEvents, name)`)),
}
