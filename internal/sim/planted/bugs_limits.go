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
	plant("RoomlessJobForgotten", "nobody remembers that a job found no room",
		edit("api/webhookjob.go", `err := s.intake.Open.Overflow(ctx, c.store, a, d.Repository); err`, `err := error(nil); err`),
		edit("worker/job.go", `err := h.open.Overflow(ctx, h.session, h.account, h.repo); err`, `err := error(nil); err`)),
	plant("OverflowNotRead", "sweeps do not read in which repositories jobs found no room",
		edit("store/overflow.go", `	if len(refs) > 0 {
		o.ReadTo = from
	}
	return refs, o`, `	if len(refs) > 0 {
		o.ReadTo = from
	}
	return refs[:min(1, len(refs))], o`)),
	plant("OverflowReadAtOnce", "a minute is read before it is over, and not again",
		edit("store/overflow.go", `end := now.Add(-deliveryTakes).Truncate(time.Minute)`, `end := now.Add(time.Minute).Truncate(time.Minute)`)),
	plant("WaitingForgotten", "a repository is listed once, whether it had room or not",
		edit("reaper/queued.go", `	gh.unrequested(ctx, account, ring, all)
	for`, `	gh.unrequested(ctx, account, ring, all)
	s.Overflows.Waiting = nil
	for`)),
	plant("ListedWithoutRoom", "a repository that has no room is listed with each sweep",
		edit("reaper/queued.go", `		if open < most {
			all[i]`, `		if open < most || open == most {
			all[i]`)),
	plant("EventsDenied", "the list of events that may ask is one of those that may not",
		edit("store/events.go", `ok, field = slices.Contains(usualEvents, name)`, `ok, field = !slices.Contains(usualEvents, name)`)),
}
