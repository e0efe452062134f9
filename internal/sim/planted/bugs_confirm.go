package main

// confirmBugs break what is believed of GitHub, of the runner program and of a job
// that runs.
var confirmBugs = []Bug{
	// Who is ready.
	plant("ReadyOnTheProgramsWord", "a runner is online when its program says that it listens",
		edit("store/event.go", `if listening(now, r, *l) {`, `if hasJob(now, r, l) {`)),
	plant("MissingIsOnline", "a registration that GitHub does not have counts as online",
		edit("worker/confirm.go", `return store.Registration{Absent: true}, nil`, `return store.Registration{Online: true}, nil`)),
	plant("OfflineIsOnline", "a registration that GitHub shows offline counts as online",
		edit("worker/confirm.go", `return store.Registration{Online: seen.Online}, err`, `_ = seen
	return store.Registration{Online: true}, err`)),
	plant("ReadyWhenSomebodyLooks", "who launched a runner is ready when somebody looks",
		edit("worker/confirm.go", `return v.Settle(now, v.Limits)`, `return store.Decision{}`),
		edit("store/confirm.go", `		d.settle(now, lim)
`, ``)),
	plant("ReadyAtTheLook", "a request is ready from when somebody looked",
		edit("store/settle.go", `r.ReadyAt = run.OnlineAt // whenever somebody looks`, ``)),
	plant("OnlineWithoutItsLock", "a runner comes into use, and its lock is left as it was",
		edit("store/confirm.go", `d.Runner, d.Lock, verdict = confirm(`, `d.Runner, _, verdict = confirm(`),
		edit("store/confirm.go", `d.check(KindLock)`, ``)),
	plant("NobodyAsksAgain", "a runner whose message was lost is never asked for at GitHub",
		edit("reaper/confirm.go", `return now.Sub(a.Runner.ListeningAt) >= lim.Heartbeat`, `return false`)),
	plant("NoConfirmStep", "nobody is sent to ask GitHub about a runner that listens",
		edit("store/launch.go", `case r.ListeningAt.After(l.ConfirmedAt) && l.Names(r.ID) && r.Registered():`, `case false:`)),

	// Who may share.
	plant("ShareUnconfirmed", "a runner is shared though GitHub has not confirmed it",
		edit("worker/start.go", `!r.locks[s.Lock].Confirmed(r.now, r.Limits) && `, `false && `)),
	plant("ConfirmedForEver", "GitHub's word about a runner never gets old",
		edit("store/share.go", ` && now.Sub(l.ConfirmedAt) <= lim.Confirmed`, ``)),
	plant("UsedUpIsConfirmed", "a runner whose config is used up counts as confirmed",
		edit("store/confirm.go", `l.ConfirmedAt, l.Busy, l.CountedOn = time.Time{}, false, time.Time{}`, `l.Busy, l.CountedOn = false, time.Time{}`)),
	plant("SharedInVainForEver", "a runner to which no job comes is shared again and again",
		edit("store/share.go", ` && !l.vain(now, lim)`, ``)),
	plant("SharedWhileGitHubIsAway", "a runner is shared when GitHub does not say whether it has it",
		edit("worker/confirm.go", `r.hold(ctx, s, req, store.Wait{For: wait, Until: at})
		return false`, `_ = wait
		return true`)),
	plant("MissedOnceIsLost", "a runner drains as soon as GitHub has its registration no more",
		edit("store/confirm.go", `case seen.Absent && now.Sub(r.MissedAt) >= lim.Silent:`, `case seen.Absent:`)),
	plant("OfflineIsLost", "a runner drains as soon as GitHub shows it offline",
		edit("store/confirm.go", `case !seen.Absent && !r.OnlineAt.IsZero() && now.Sub(r.MissedAt) >= lim.Lost:`, `case !seen.Absent && !r.OnlineAt.IsZero():`)),

	// Programs that GitHub refuses.
	plant("TooOldAfterAJobIgnored", "a program that GitHub refuses after a job gets another config",
		edit("internal/agent/program.go", `case code == ExitTooOld:`, `case code == ExitTooOld && !hadJob:`)),
	plant("TooOldImageLaunchedAgain", "an image whose program GitHub refused is launched again",
		edit("worker/intend.go", `; refused {
		r.refuse`, `; refused && r.id == "" {
		r.refuse`)),
	plant("TooOldImageForgotten", "nobody remembers the image whose program GitHub refused",
		edit("store/event.go", `if gaveUp {
			d.Quota`, `if gaveUp && false {
			d.Quota`)),
	plant("ImageBlamedAfterAJob", "a job can have its image refused",
		edit("store/event.go", `gaveUp := r.Job.StartedAt.IsZero() && r.Jobs == 0`, `gaveUp := true`)),

	// Jobs, and ends.
	plant("ExpiredInItsJob", "a runner whose time is up drains with a job",
		edit("store/drain.go", `case r.jobRuns():
		return false`, `case r.jobRuns():
		return true`)),
	plant("ExpiredBeforeTheNextJob", "a runner whose time is up drains before a queued job can come",
		edit("store/drain.go", `return now.Sub(maxTime(r.ListeningAt, r.OnlineAt)) >= lim.ShareStep`, `return true`)),
	plant("NeverExpired", "a runner whose time is up never drains for it",
		edit("store/drain.go", ` && r.unused(now, lim):`, ` && r.jobRuns():`)),
	plant("JobForgottenAtTheEnd", "a machine ends with its job, since GitHub deleted its registration",
		edit("store/end.go", ` && !r.jobRuns():
			return EndBegin`, `:
			return EndBegin`)),
	plant("BusyAskedEachMinute", "GitHub is asked every minute to delete what it calls busy",
		edit("store/end.go", `case r.DeregisteredAt.IsZero() && now.Before(r.DeleteAfter):`, `case r.DeregisteredAt.IsZero() && now.Before(r.DeletedAt):`)),
	plant("StoppedMachineIsBusy", "a machine that does not run is waited for",
		edit("reaper/end.go", `return shown && run.InstanceID != "" && in.State`, `return false && shown && run.InstanceID != "" && in.State`)),
}

// realBugs break what is said of failures, and whom calls reach.
var realBugs = []Bug{
	plant("ByName", "calls go to whatever repository has the name by now",
		edit("internal/github/access.go", `root := "repositories/" + in.ID`, `root := "repos/" + in.Name`)),
	plant("RefusalWithoutWords", "the error leaves out the words of EC2's refusal",
		edit("worker/launch.go", `return fe.Text + " (" + fe.Code + ")"`, `_ = fe
		return "EC2 or STS refuses."`)),
	plant("DeathWithoutWords", "the record of a machine that EC2 ends leaves out EC2's reason",
		edit("store/death.go", `why.Text += fmt.Sprintf(": %s (%s).", words, code)`, `why.Text += "."`)),
	plant("UnknownAnswerAskedAgain", "an answer of EC2 that nobody knows is asked for until the boot limit",
		edit("worker/launch.go", `.Said.Times >= store.MaxUnfamiliar &&`, `.Said.Times >= 1000*store.MaxUnfamiliar &&`)),
	plant("SubnetBlamed", "the network is blamed for a machine that GitHub gave no config",
		edit("store/drain.go", ` && r.Config.N == 0 && r.Unminted != nil`, ` && r.Config.N == 0 && r.Unminted != nil && r.State == RunnerOnline`)),
	plant("NamesWithoutEnd", "names are written ahead for as long as GitHub is away",
		edit("store/name.go", `return n >= MaxNames`, `return n >= 100*MaxNames`)),
	plant("TagsBeforeRecords", "a machine is ended for a tag, whatever record names it",
		edit("reaper/instances.go", `if run.InstanceID != "" && !run.State.Final() {`, `if run.InstanceID == "" && !run.State.Final() {`)),
}
