package main

// leaseBugs break how registrations at GitHub are leased.
var leaseBugs = []Bug{
	plant("LeaseInTheIntent", "a lease is committed with its intent, which accounts that share a credential lose to each other",
		edit("worker/lease.go", `			s.lease, l.wait, err = r.lease(ctx, r.now, account, w)
			return err
`, `			d, lease := r.points.of(account.Credential()).Lease(r.now, r.Limits, w)
			s.lease, l.wait = lease, d.Wait
			if d.Wait.For == "" {
				r.group("account "+req.Account, s).Add(d)
			}
			return nil
`)),
	plant("LeaseUsedTwice", "a registration that failed is made again by the same lease",
		edit("store/name.go", `	r.Lease = Lease{} // it is used up
`, ``)),
	plant("LeaseUsedBeforeItsTime", "a machine is registered as soon as it is launched, whenever its lease is for",
		edit("worker/lease.go", `case l.Usable(now) || v.account.ID == "":`, `case l.Usable(now) || l.Soon(now) || v.account.ID == "":`)),
	plant("RegisteredWithoutLease", "a machine whose lease expired is registered at once",
		edit("worker/lease.go", `case l.Usable(now) || v.account.ID == "":`, `case !l.Soon(now) || v.account.ID == "":`)),
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
