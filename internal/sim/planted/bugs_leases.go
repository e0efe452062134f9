package main

// leaseBugs break how registrations at GitHub are leased.
var leaseBugs = []Bug{
	plant("LeaseInTheIntent", "a lease is committed with its intent, which accounts that share a credential lose to each other",
		edit("worker/lease.go", `	if len(ws) == 0 {
		return &l
	}
`, `	p := r.points.of(account.CredentialNames()[0])
	for i, s := range without {
		d, lease := p.Lease(r.now, r.Limits, ws[i])
		p = *d.Changes[0].Item.(*store.Points)
		s.lease, s.noLease = lease, d.Wait
		r.group("account "+account.ID, s).Add(d)
	}
	if true {
		return &l
	}
`)),
	plant("LeasesOfOneGrantedTwice", "leases that are made together are of one place",
		edit("worker/lease.go", `			if c, ok := changed[name]; ok {
				return *c.Item.(*store.Points)
			}
`, ``)),
	plant("CredentialWithoutItsScopesLimit", "what several credentials register in one scope is not counted together",
		edit("worker/lease.go", `if len(names) > 1 {`, `if len(names) > 5 {`)),
	plant("RegisteredWithAnotherCredential", "a runner is registered with the account's first credential, whichever its lease is of",
		edit("worker/mint.go", `out := v.register(ctx, v.Runner, name, l.Credential)`, `l.Credential = v.account.CredentialNames()[0]
			out := v.register(ctx, v.Runner, name, l.Credential)`)),
	plant("CredentialOfARunnerForgotten", "no record has which credential registered a runner",
		edit("worker/mint.go", `m.minted.RunnerID, m.by)`, `m.minted.RunnerID, "")`)),
	plant("LeaseUsedTwice", "a registration that failed is made again by the same lease",
		edit("store/name.go", `	r.Lease = Lease{} // it is used up
`, ``)),
	plant("LeaseUsedBeforeItsTime", "a machine is registered as soon as it is launched, whenever its lease is for",
		edit("worker/lease.go", `	case l.Usable(now):`, `	case l.Usable(now) || l.Soon(now):`)),
	plant("RegisteredWithoutLease", "a machine whose lease expired is registered at once",
		edit("worker/lease.go", `	case l.Usable(now):`, `	case !l.Soon(now):`)),
	plant("LaunchedLongBefore", "a machine is launched however long it has to wait for its registration",
		edit("store/points.go", `	if small || w.Waited {
		ahead = lim.LeaseAhead
	}`, `	if small || w.Waited {
		ahead = 10 * lim.LeaseAhead
	}`),
		edit("store/intent.go", `first.After(now) {
			d.Wait = Wait{WaitGitHub, first}`, `first.After(now.Add(10*lim.LeaseAhead)) {
			d.Wait = Wait{WaitGitHub, first}`)),
}
