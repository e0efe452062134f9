package main

// doorBugs break what is asked about workflow jobs before they get a machine, and before
// they run on one.
var doorBugs = []Bug{
	plant("AnyRunIsLetIn", "a machine runs whatever job it is given, since it was launched for some run",
		edit("store/admit.go", `q.RunID == r.RunID && q.Repository.Same(r.Repository)`, `q.Repository.Same(r.Repository)`)),
	plant("NoMachineAsks", "machines are not told to ask before a job",
		edit("api/machine.go", `Asks: run.OfJob()`, `Asks: false`)),
	plant("RefusalIsForgotten", "a worker finds out that a job may not run, and lets it in",
		edit("worker/admit.go", `return store.Answer(v.Case, now, no)`, `return store.Answer(v.Case, now, "")`)),
	plant("EventIsNotAsked", "a run of any event gets machines",
		edit("internal/intake/run.go", `EventAllowed(a, run.Event); no != nil`, `EventAllowed(a, run.Event); no != nil && run.Event == ""`)),
	plant("AnotherRunOfTheMachineIsLetIn", "the answer about one run counts for every later question",
		edit("store/admit.go", `r.Admission.RunID != "" && !r.Admission.same(q)`, `r.Admission.RunID == "never"`)),
}
