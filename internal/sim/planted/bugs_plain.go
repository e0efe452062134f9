package main

// plainBugs break what is believed of workflow jobs, who counts on which machine, and when
// one is launched.
var plainBugs = []Bug{
	// What GitHub says.
	plant("NameAloneProves", "a job is believed to be on a machine of ours by the name of its runner",
		edit("store/heard.go", `s.Registration == r.Config.RunnerID &&`, `r.Config.RunnerID != 0 &&`)),
	plant("WebhookBelieved", "a webhook alone ends a request, also one without the runner's name",
		edit("store/heard.go", `case s.Status.Begun() && !s.Read:`, `case false:`),
		edit("store/heard.go", `case s.Status == JobInProgress && s.Runner == "":`, `case false:`)),
	plant("WaitingMadeFinal", "a job that waits for its environment counts as over",
		edit("store/heard.go", `		return d.held(now, s)`, `		return d.over(now, lim, s)`)),
	plant("ElsewhereMeansOurs", "a job that any runner took counts as begun on the machine that its request waits for",
		edit("store/heard.go", `case s.Status.Begun() && on:`, `case s.Status.Begun() && d.Runner.ID != "":`),
		edit("worker/job.go", `		c.Runner = store.Runner{}`, `		_ = c`)),
	plant("LaunchedAgainByAnOldAnswer", "a job whose last machine ran it has another one, by what GitHub said before",
		edit("worker/plain.go", `	if req.Launches > 1 {`, `	if req.Launches < 1 {`)),
	plant("OverIsNotHeard", "a job that was cancelled, or that others took, keeps its request and its machine",
		edit("store/heard.go", `		return d.over(now, lim, s)`, `		return HeardNothing`)),
	plant("QueuedNotLookedFor", "a queued job whose webhook was lost is never looked for",
		edit("reaper/sweep.go", `		next = atGitHub(ec2).queued(ctx, next)
`, ``)),

	// What GitHub could not deliver.
	plant("LogNotRead", "nobody reads which webhooks GitHub could not deliver",
		edit("reaper/queued.go", `	s = s.Heard(gh.deliveries(ctx, account, s.Deliveries))
`, ``)),
	plant("OnlyTheNewestPageOfTheLog", "of the log, only the newest hundred deliveries are read",
		edit("store/deliveries.go", `slices.Clone(l.Missed), next`, `slices.Clone(l.Missed), next[:0]`)),
	plant("MissedAndForgotten", "a repository that missed a webhook is forgotten before it was looked through",
		edit("reaper/queued.go", `if !l.later() {`, `if l != nil {`)),

	// Who took which job.
	plant("ReadyWhenOnline", "the request of a job is ready when its machine is online",
		edit("store/settle.go", `if r.OfJob() {`, `if r.OfJob() && run.OnlineAt.IsZero() {`)),
	plant("StopTakesTheRequestsLock", "who stops a job's request leaves the lock of the machine that took the job",
		edit("api/status.go", `run.Version == 0 || run.Lock == lock.Key`, `run.Version == 0 || lock.Key != ""`)),
	plant("TheftOverlooked", "who waits for a machine that took another job waits on",
		edit("store/spare.go", `	case run.Took.Job != "":
		return r.tried(run)`, `	case run.Took.Job != "" && run.State.Final():
		return r.tried(run)`)),
	plant("TookNotWritten", "nobody knows which job a machine took",
		edit("store/heard.go", `run.Took = Took{Job: s.Job.ID, Request: r.ID, At: now}`, `_ = run.Took`)),
	plant("DeleteBelieved", "a machine with a job is given up since GitHub deleted its registration",
		edit("store/spare.go", ` && !run.jobRuns())`, `)`)),
	plant("OneLockForAllLaunches", "a second machine has the lock of the one that was given up",
		edit("store/heard.go", `r.Tries+1, r.Launches+1`, `r.Tries+1, r.Launches`)),

	// Machines that nobody counts on.
	plant("WaitedForCountsAsSpare", "a machine is given away that a request waits for",
		edit("store/spare.go", ` &&
		req.ID == r.For && !(req.State == Waiting && req.Runner == r.ID)`, ` &&
		req.ID == r.For`)),
	plant("ForKeptAfterGivingUp", "a machine that is given to another request stays for the one before",
		edit("store/spare.go", `		run.For = r.ID
`, ``)),
	plant("SpareWithoutTheLabels", "a request is given a machine that lacks a label of its job",
		edit("store/spare.go", ` && labelsIn(r.Labels, run.Labels)`, ``)),
	plant("IdleMachineOfAHeldJobKept", "a machine stays online for a job that GitHub gives to nobody",
		edit("worker/heal.go", `if err != nil || !run.Idles(h.Now()) {`, `if err == nil || !run.Idles(h.Now()) {`)),
	plant("OrphanKept", "a machine that nobody counts on lives until it is idle for long",
		edit("store/drain.go", ` || r.orphaned(now, lim, req)`, ``)),
	plant("OrphanDrainedAtOnce", "a machine that nobody counts on drains while GitHub may be giving it a job",
		edit("store/spare.go", ` && now.Sub(maxTime(r.OnlineAt, r.ListeningAt)) >= lim.Grace`, ``)),
	plant("BootedOrphanDrained", "a machine that booted drains before it is online, since nobody counts on it",
		edit("store/spare.go", `return r.Boot.At.IsZero() || r.State == RunnerOnline &&`, `return r.OnlineAt.IsZero() || r.State == RunnerOnline &&`)),

	// Machines that do not come.
	plant("FailedSetUpIsTriedAtOnce", "a job whose machine cannot be set up gets the next at once",
		edit("store/spare.go", `slices.Contains(needPeople, why):`, `slices.Contains(needPeople[1:], why):`)),
	plant("JobDoesNotSayWhyItPauses", "nobody reads why the machine of a job could not be set up",
		edit("store/spare.go", `shortened(run.End.String(), maxLost)`, `shortened(run.End.Code, maxLost)`)),
	plant("RunIsNotCancelledOnFailure", "a run is left whose machine cannot be had, though its account wants it cancelled",
		edit("worker/plain.go", `"repository", req.Repository.Name, "trace", req.Trace)
		r.cancel(ctx, req)`, `"repository", req.Repository.Name, "trace", req.Trace)`)),
	plant("JobStaysInItsOldScope", "a job's runner registers where the registration said when the job was queued",
		edit("worker/intend.go", `	req = new(req.Following(account))
`, ``)),

	// Launches.
	plant("LaunchedWithoutAsking", "a machine is launched for a job that GitHub was not asked about",
		edit("worker/intend.go", `if req.OfJob() && !r.wanted(`, `if req.OfJob() && r.id == "" && !r.wanted(`)),
	plant("PolicyNotAsked", "a machine is launched for a run that may have none",
		edit("worker/plain.go", `no != nil {
		r.forbid(`, `no != nil && r.id == "" {
		r.forbid(`)),
	plant("BelievedForAnHour", "a machine is launched for what GitHub said an hour ago",
		edit("worker/runs.go", `runFor = time.Minute`, `runFor = time.Hour`)),
	plant("RunsJobsTakenForQueued", "a machine is launched for a job that has begun",
		edit("worker/plain.go", `case seen.Status != store.JobQueued:`, `case seen.Status.Held():`)),
	plant("TriesOfAJobEnd", "a job that lost five machines gets no other",
		edit("store/spare.go", `		return r.tried(run).again(now, why, more), true`, `		if r.Tries > 1 {
			return r.tried(run).finish(now, DefaultLimits(), Failed, why, &Failure{Code: CodeForbidden, Text: why}), false
		}
		return r.tried(run).again(now, why, more), true`)),
}
