package main

// credentialBugs break what is done about a credential that GitHub refuses.
var credentialBugs = []Bug{
	plant("RefusedCredentialTriedEachTime", "nobody remembers that a credential was refused, and each registration tries it first",
		edit("worker/lease.go", `	p.refused[of] = now.Add(passFor)`, `	p.refused[of] = now`)),
	plant("RefusedCredentialEndsTheMachine", "a machine ends when the first of two credentials is refused",
		edit("worker/mint.go", `	return others
}`, `	return others && false
}`)),
	plant("DeletionWithTheRegisteringCredentialAlone", "a registration is deleted with the credential that made it, and stays when that is refused",
		edit("internal/github/several.go", `	case e.op.strict() && named != "":`, `	case (e.op.strict() || e.op == remove) && named != "":`)),
	plant("RefusalSilent", "no alarm says that GitHub refuses one of several credentials",
		edit("internal/github/several.go", `	if c.refused.add(e.access, c.now()) {`, `	if c.refused.add(e.access, c.now()) && e.access.Credential == "" {`)),
}
