package main

// standingBugs break what becomes of an account that is gone, and of a key that is lost.
var standingBugs = []Bug{
	plant("EndNeedsTheRegistration", "the runners of a removed account cannot be ended",
		edit("store/reach.go", `if q.Reach == nil || !now.Before(q.Reach.Until) {`, `if q.Reach == nil || now.Before(q.Reach.Until) {`)),
	plant("AlarmEachRun", "people are woken every minute for an account that refuses us",
		edit("store/reach.go", `now.Sub(q.ToldAt) < tellAgain {`, `now.Before(q.ToldAt) {`)),
	plant("GoneAccountIsNeverTold", "nobody hears that an account was removed under its runners",
		edit("reaper/sweep.go", `	if !s.registered {
		ec2.isUnregistered(ctx, s.at)
	}
`, ``)),
	plant("QuotaOfTheUnseenIsKept", "the runners of an account that refuses us are ending for ever",
		edit("store/reach.go", `if r.State != RunnerEnding || now.Before(by) {`, `if r.State != RunnerEnding || by.After(r.Hard) {`)),
	plant("UnseenIsOverAtOnce", "a runner is over as soon as its account refuses to show its machine",
		edit("store/reach.go", `if r.State != RunnerEnding || now.Before(by) {`, `if r.State != RunnerEnding {`)),
	plant("LostKeyEndsTheRequest", "a request fails since the key of its launch was taken away",
		edit("store/end.go", `code != EndNoAccount && code != EndSetup}`, `code != EndNoAccount && code != EndSetup && code != EndKeyLost}`)),
	plant("LostKeyIsWaitedFor", "a launch whose key was taken away is tried again and again",
		edit("worker/keys.go", `why = store.NewEnd(store.EndKeyLost)`, `return true, v.wait(ctx, store.WaitOutage, v.Limits.SettleSlack)`)),
	plant("MachineOfALostKeyIsForgotten", "a machine that may have been launched with a lost key is not looked for",
		edit("store/launch.go", `mayExist := r.Unclear || `, `mayExist := r.Unclear && why.Code != EndKeyLost || `)),
	plant("OldKeysForEver", "a worker launches with the keys that it began with",
		edit("worker/keys.go", `w.ring.keys, w.ring.readAt = fresh, w.Now()`, `w.ring.readAt = w.Now()`)),
	plant("ClosedAccountLaunches", "what waits for a machine of a removed account gets one",
		edit("worker/keys.go", `	case v.closed:
		why = store.NewEnd(store.EndNoAccount)
`, ``)),
}
