package main

// scopeBugs break where runners register, and where they are asked about.
var scopeBugs = []Bug{
	plant("ScopeNotCopied", "a runner registers in the repository, though its request says the organization",
		edit("store/intent.go", `Scope: r.Scope, `, ``)),
	plant("RunnerInTheDefaultGroup", "a runner registers in the group that everybody's runners are in",
		edit("internal/github/calls.go", `RunnerGroupID: group,`, `RunnerGroupID: min(group, runnerGroup),`)),
	plant("DeletedInTheRepository", "the registration of an organization is deleted where it is not",
		edit("reaper/end.go", `scope: github.ScopeOf(*run), `, `scope: github.Scope{ID: run.Repository.ID, Name: run.Repository.Name, Account: run.Account}, `)),
	plant("ConfirmedInTheRepository", "the registration of an organization is asked about where it is not",
		edit("worker/confirm.go", `in.GitHub.Get(ctx, github.ScopeOf(r), `, `in.GitHub.Get(ctx, github.Scope{ID: r.Repository.ID, Name: r.Repository.Name, Account: r.Account}, `)),
}
