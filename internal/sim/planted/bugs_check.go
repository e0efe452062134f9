package main

// checkBugs break how checks are carried out.
var checkBugs = []Bug{
	plant("CheckClaimedForEver", "the check of a worker that died is never continued",
		edit("store/checkup.go", `c.Claim.By != "" && now.Before(c.Claim.Until) {`, `c.Claim.By != "" {`)),
	plant("CheckNotSentAgain", "a check whose message was lost stays queued",
		edit("store/checkup.go", `now.Before(maxTime(c.SentAt, c.Claim.Until).Add(checkResend)) {`, `true {`)),
	plant("CheckPartTwice", "a check that is continued begins from its first part",
		edit("worker/check.go", `case c.Has(p) || c.Full():`, `case c.Full():`)),
	plant("CheckLeavesItsRunner", "the runner that a check registers stays registered",
		edit("internal/doctor/github.go", `d.GitHub.Delete(after, in, minted.RunnerID) })`, `d.GitHub.Delete(after, in, minted.RunnerID+1) })`)),
	plant("CheckUnleased", "a check registers without a lease",
		edit("internal/doctor/github.go", `if v.Lease != nil {`, `if v.Lease != nil && v.Try == 0 {`)),
	plant("CheckEndsTwice", "a check that ended is carried out once more",
		edit("store/checkup.go", `	case !c.EndedAt.IsZero():
		return CheckDone
	case !now`, `	case !c.EndedAt.IsZero() && c.Claim.By != "":
		return CheckDone
	case !now`)),
}
