package main

// outfitBugs break what becomes of a machine that is to be more than its image.
var outfitBugs = []Bug{
	plant("SetUpIsTriedForEver", "a request whose machine cannot be set up gets one machine after another",
		edit("store/end.go", `code != EndNoAccount && code != EndSetup}`, `code != EndNoAccount}`)),
	plant("SetUpFailsWithoutAWord", "nobody reads why a machine could not be set up",
		edit("store/drain.go", `why.Text += " " + e.Detail
`, ``)),
	plant("SetUpIsTheAgentsFault", "a machine that cannot be set up says that its agent ended",
		edit("internal/agent/program.go", `a.giveUp(store.EndSetup, out.err.Error())`, `a.giveUp(store.EndAgent, out.err.Error())`)),
	plant("ProgramDoesNotWaitForTheSetUp", "the runner program starts beside the set-up",
		edit("internal/agent/run.go", `{hasConfig && a.installed && a.program == nil, `, `{hasConfig && a.installing != nil && a.program == nil, `)),
	plant("OldAgentIsBooted", "an agent that knows no outfit leaves it out, and runs jobs",
		edit("api/machine.go", `len(lacks) > 0 {`, `len(lacks) > 9 {`)),
}
