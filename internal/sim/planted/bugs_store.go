package main

// storeBugs break the rules themselves: the state machine, the claim, the names,
// the quota and the order of an end.
var storeBugs = []Bug{
	// What may share a runner.
	plant("ShareWithoutMargin", "a runner whose time is nearly up is shared",
		edit("store/share.go", ` || l.Exp.Before(now.Add(lim.ShareMargin))`, ``)),
	plant("SharePastHard", "a runner is shared by a request that may outlive it",
		edit("store/share.go", ` || l.Hard.Before(l.usable(now).Add(r.Timeout()))`, ``)),
	plant("ShareTheSilent", "a runner that was not heard of lately is shared",
		edit("store/share.go", `return now.Sub(p.SeenOf(l.Runner)) <= lim.Silent`, `return true`)),
	plant("ShareAfterBootBy", "a launch that may not boot any more is shared",
		edit("store/share.go", `return now.Before(l.BootBy)`, `return true`)),
	plant("ShareTheDraining", "a runner that drains is shared",
		edit("store/share.go", `case LockLive:`, `case LockLive, LockDraining:`),
		edit("store/share.go", `l.State == LockLive && !l.ConfirmedAt.IsZero()`, `!l.ConfirmedAt.IsZero()`)),
	plant("ShareUnchecked", "a share does not demand that the lock is as it was read",
		edit("store/share.go", `// who confirms the runner does not know of r
		}
		d.check(KindLock)`, `// who confirms the runner does not know of r
		}`)),
	plant("ExtendPastHard", "a share keeps a runner up to its hard limit, however little is asked for",
		edit("store/share.go", `exp := minTime(maxTime(`, `exp := maxTime(maxTime(`)),
	plant("ShareDoesNotExtend", "a share leaves the time until which the runner is kept as it is",
		edit("store/share.go", `l.Exp, l.SharedAt = exp, now`, `l.SharedAt = now`)),
	plant("JoinedNotSet", "nobody knows that a second request uses the runner",
		edit("store/share.go", `l.Joined = r.ID`, `l.Joined = ""`)),

	// The intent: quota, pacing, lock, name.
	plant("QuotaOffByOne", "one runner more than the limit is launched",
		edit("store/intent.go", `if d.Quota.Live >= in.MaxRunners {`, `if d.Quota.Live > in.MaxRunners {`),
		edit("store/intent.go", `if d.Quota.Live >= maxRunners {`, `if d.Quota.Live > maxRunners {`)),
	plant("QuotaNotCounted", "a new runner is not counted",
		edit("store/intent.go", `q.Account, q.Live, q.Limit = r.Account, q.Live+1, in.MaxRunners`, `q.Account, q.Limit = r.Account, in.MaxRunners`)),
	plant("SlotNotTaken", "the first call of a runner takes no slot",
		edit("store/line.go", `			return Turn{At: turn}, q.Reserve(room, r.Region, p)
`, `			return Turn{At: turn}, q
`), edit("store/line.go", `return Turn{At: call}, q.Reserve(room, r.Region, p)`, `return Turn{At: call}, q`)),
	plant("NextSlotNotTaken", "further calls of a runner take no slot",
		edit("store/line.go", `return Turn{At: room}, q.Reserve(room, region, p)`, `return Turn{At: room}, q`)),
	plant("PacingIgnored", "launches are not spaced out",
		edit("store/quota.go", `return maxTime(full, q.Next[region])`, `return full`)),
	plant("BootByRaisedTwice", "each call of a machine that waits for its config raises its boot limit",
		edit("store/boot.go", `if first && r.InstanceID != "" {`, `if _ = first; r.InstanceID != "" {`)),
	plant("BootByRaisedBeforeTheLaunch", "a machine whose launch is not recorded raises the time in which it may be launched",
		edit("store/boot.go", `if first && r.InstanceID != "" {`, `if _ = r; first {`)),
	plant("LineForgets", "each request that waits for its turn gets a new one at the end of the line",
		edit("store/line.go", `	if r.Slot.IsZero() {`, `	if true {`)),
	plant("TurnNotKept", "a request that finds no room at its turn is sent to the end of the line",
		edit("store/line.go", `	return q.First(now, r.Region, p)
`, `	return Turn{At: line.End, Slot: line.End}, q
`)),
	plant("CalledBeforeItsSlot", "a worker does not wait for the slot that it has in its hand",
		edit("worker/launch.go", `sleep.For(ctx, slot); err`, `sleep.For(ctx, 0); err`)),
	plant("LaunchedPastBootBy", "a worker that waited for its slot launches whatever became of the time to boot",
		edit("worker/launch.go", `if store.NextStep(v.Now(), r, v.Lock) != store.StepLaunch {`, `if false {`)),
	plant("LaunchingLockIsFree", "a second machine is launched for a key that one is being launched for",
		edit("store/lock.go", `return l.State == "" || l.State == LockEmpty`, `return l.State == "" || l.State == LockLaunching || l.State == LockEmpty`)),
	plant("TTLOnALiveLock", "the lock of a live runner is deleted when its last one's would have been",
		edit("store/intent.go", `l.TTL = 0`, ``)),

	// The claim, and what a successor does.
	plant("ClaimIgnored", "a second worker calls EC2 and GitHub while the first one's calls are open",
		edit("store/claim.go", `return r.Claim.By != "" && r.Claim.By != by && now.Before(r.Claim.Until)`, `return false`)),
	plant("ClaimInClientToken", "a successor's launch is another one than that which it resumes",
		edit("store/runner.go", `fmt.Sprintf("garo-%s-%d", r.ID, r.Index)`, `fmt.Sprintf("garo-%s-%d-%s", r.ID, r.Index, r.Claim.By)`)),
	plant("IndexNotInClientToken", "the next placement is asked for with the token of the last",
		edit("store/runner.go", `fmt.Sprintf("garo-%s-%d", r.ID, r.Index)`, `fmt.Sprintf("garo-%s", r.ID)`)),
	plant("NameOfADeadWorkerUsed", "after a worker died, the name that it may have used is used again",
		edit("store/claim.go", `if r.needsMint() && (lapsed && !r.Crowded() || !named) {`, `if r.needsMint() && !named {`)),
	plant("NumberUsedTwice", "a spent name is written ahead once more",
		edit("store/name.go", `n = max(n, last.N+1)`, `n = max(n, last.N)`)),
	plant("LaunchAfterBootBy", "RunInstances is called when the machine could not boot in time",
		edit("store/launch.go", ` || l.State != LockLaunching || !now.Before(l.BootBy) {`, ` || l.State != LockLaunching {`)),
	plant("IndexNotMoved", "a placement without capacity is tried for ever",
		edit("store/launch.go", `r.Index, r.Unclear, r.Said = next, false, Said{}`, `r.Unclear = false`)),
	plant("UnclearLaunchForgotten", "a runner fails though one of its calls may have launched",
		edit("store/launch.go", `r.Config.N > 0 || mayExist {`, `r.Config.N > 0 || mayExist && false {`)),
	plant("FailedKeepsItsLock", "the lock of a runner that failed is never free",
		edit("store/launch.go", `l = l.empty(now, lim)`, ``)),
	plant("FailedKeepsItsPlace", "the quota counts runners that failed",
		edit("store/launch.go", `q = q.release()`, ``)),

	// Settle, and what a request comes to.
	plant("ReadyBeforeOnline", "a request is ready when its machine has booted",
		edit("store/settle.go", `if !run.OnlineAt.IsZero() {`, `if !run.Boot.At.IsZero() {`)),
	plant("RegisteredIsGivenUp", "a second machine is launched while the first may still get the job",
		edit("store/settle.go", `!run.State.Usable() && (run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero())`, `!run.State.Usable()`)),
	plant("TerminalIsRetried", "what no other machine can fix is tried again",
		edit("store/settle.go", `case !run.State.Usable() && !why.Retryable:`, `case false:`)),
	plant("TriesNotCounted", "a request is tried more often than it may be",
		edit("store/request.go", `Accepted, "", tries+1`, `Accepted, "", tries`)),
	plant("RequestNeverExpires", "a request that nobody serves stays open",
		edit("store/request.go", `!r.State.Final() && now.After(r.GiveUpAt)`, `false`)),
	plant("PollDoesNotResend", "a poll leaves a start message lost",
		edit("store/review.go", `r.Sends == 1 && r.Wait`, `r.Sends == 0 && r.Wait`)),

	// When a runner drains.
	plant("HardLimitIgnored", "a runner lives past its hard limit",
		edit("store/drain.go", `case !now.Before(r.Hard):`, `case false:`)),
	plant("ExpiryIgnored", "a runner that nobody counts on lives on",
		edit("store/drain.go", `case !now.Before(l.Exp) && r.unused(now, lim):`, `case false && r.unused(now, lim):`)),
	plant("BootLimitsIgnored", "a machine that never calls, or never comes online, is waited for",
		edit("store/drain.go", `case r.Boot.At.IsZero() && !now.Before(l.BootBy):`, `case false:`),
		edit("store/drain.go", `case r.OnlineAt.IsZero() && !now.Before(l.BootBy.Add(lim.OnlineGrace)) && (r.ListeningAt.IsZero() || !r.MissedAt.IsZero()):`, `case false:`)),
	plant("SilenceIgnored", "a machine that died without a word is never missed",
		edit("store/drain.go", `now.Sub(r.seen(p)) > lim.Lost:`, `now.Sub(r.seen(p)) > 1000*lim.Lost:`)),
	plant("UnwantedLivesOn", "the runner of a cancelled request lives on",
		edit("store/drain.go", `if unwanted && (`, `if false && unwanted && (`)),
	plant("UnwantedThoughJoined", "a runner ends with the request that launched it, though others use it",
		edit("store/drain.go", `if unwanted && (r.Mode == Ephemeral || l.Joined == "")`, `if unwanted`)),
	plant("StopEndsTheJoined", "who launched a runner can stop it, though others use it",
		edit("store/drain.go", ` && l.Joined == "")`, `)`)),
	plant("DrainLeavesTheLock", "the lock of a draining runner still offers it",
		edit("store/drain.go", `l.State = LockDraining`, ``)),
	// It can have no effect, as the other rules are: Drain changes only what is
	// usable, and a usable runner is always the one that its lock names, since an
	// intent takes no lock but a free one (which LaunchingLockIsFree breaks).
	plant("DrainTakesAnyLock", "a draining runner takes the lock of its successor along (equivalent: a usable runner's lock always names it)",
		edit("store/drain.go", `if l.Names(r.ID) {
		l.State = LockDraining`, `if l.Runner != "" {
		l.State = LockDraining`)),

	// The order of an end.
	plant("TerminateBeforeDelete", "a machine is terminated while GitHub still hands it jobs",
		edit("store/end.go", `case r.Boot.At.IsZero(), !now.Before(r.Hard), off:`, `case !r.DrainingAt.IsZero():`)),
	plant("NoGrace", "a machine is terminated with a job that GitHub handed out a moment before",
		edit("store/end.go", `, now.Sub(r.DeregisteredAt) >= lim.Grace && !r.jobRuns():`, `, !r.DeregisteredAt.IsZero() && !r.jobRuns():`)),
	plant("HardWaitsForTheJob", "a job outlives the hard limit (equivalent: by then the machine has switched itself off, and EC2 says so)",
		edit("store/end.go", `case r.Boot.At.IsZero(), !now.Before(r.Hard), off:`, `case r.Boot.At.IsZero(), off:`)),
	plant("EarlyIdleCounts", "a machine that was idle before its registration went is ended without grace",
		edit("store/end.go", `!r.IdleAt.Before(r.DeregisteredAt)`, `!r.IdleAt.IsZero()`)),
	plant("EndedOnOneNotFound", "a runner is over when EC2 once does not find its machine",
		edit("store/end.go", `*r = r.note(now, "EC2 does not find the instance")`, `*r, gone = r.note(now, "EC2 does not find the instance"), true`)),
	plant("EndedKeepsItsPlace", "the quota counts runners that ended",
		edit("store/end.go", `return r, l, q.release()`, `return r, l, q`)),
	plant("PlaceGivenBackTwice", "the quota counts fewer runners than live",
		edit("store/quota.go", `max(0, q.Live-1)`, `max(0, q.Live-2)`)),
	plant("NamesLeftBehind", "registrations of ended runners stay at GitHub",
		edit("store/end.go", `if len(r.Names) > 0 {
		r.DueAt = now`, `if false {
		r.DueAt = now`)),
	plant("CurrentNameDeleted", "the registration that a live runner uses counts as left over",
		edit("store/name.go", `if g.N != r.Config.N && g.N != next.N {`, `if g.N != next.N {`)),

	// What machines say.
	plant("BootAfterBootBy", "a machine boots after its request had failed for its boot limit",
		edit("store/boot.go", ` || !now.Before(l.BootBy):`, `:`)),
	plant("BootWhileDraining", "a machine gets its config while its runner drains",
		edit("store/boot.go", `if r.Version == 0 || !r.State.Usable() ||`, `if r.Version == 0 || r.State.Final() ||`),
		edit("store/boot.go", ` || !l.Names(r.ID) || l.State != LockLaunching || !now.Before(l.BootBy):`, ` || l.Key == "none":`)),
	plant("OtherNonceTaken", "anyone with the boot token gets the config too",
		edit("store/boot.go", `if r.Boot.NonceHash != nonceHash || instance`, `if instance`)),
	plant("OtherInstanceTaken", "another machine than the launched one gets the config",
		edit("store/boot.go", ` || instance != r.Boot.InstanceID || r.Mismatched() {`, ` {`)),
	// It can have no effect, as the worker is: it records no config before the
	// instance (Step gives the launch first), so that without the one there is not
	// the other.
	plant("BootBeforeInstance", "a machine gets the config before EC2's answer says which it is (equivalent: no config is recorded before the instance)",
		edit("store/boot.go", `case r.InstanceID == "" || r.Config.N == 0:`, `case r.Config.N == 0:`)),
	plant("NonceNotBound", "the first machine that calls too early can be overtaken by another",
		edit("store/boot.go", `case r.InstanceID == "" || r.Config.N == 0:`, `case r.InstanceID == "" || r.Config.N == 0:
		r.Boot = bound`)),
	plant("AnyPulseCounts", "another runner of the key keeps the pulse alive",
		edit("store/event.go", `if l.Names(r.ID) && !r.Boot.At.IsZero() && fresh {`, `if fresh && l.Key != "none" {`)),
	plant("RepeatedEventTaken", "an event whose answer was lost counts twice",
		edit("store/event.go", `case e.Counter > c.Runner.Counter:`, `case e.Counter >= c.Runner.Counter:`)),
	plant("NextPastHard", "a machine gets another config though its time is up (equivalent: by then it has switched itself off)",
		edit("store/boot.go", ` || !now.Before(r.Hard) ||`, ` ||`)),
	plant("IdleThoughShared", "a runner is ended as idle a moment after it was shared",
		edit("store/event.go", `maxTime(maxTime(began, r.Job.EndedAt), l.SharedAt.Add(lim.ShareStep))`, `maxTime(began, r.Job.EndedAt)`)),
}
