package main

// partBugs break what the worker, the reaper, the API and the agent do around the
// rules: what is committed before what, what is sent again, and what is shown.
var partBugs = []Bug{
	// The worker.
	plant("ClaimTooShort", "the claim lapses while its holder's calls are open",
		edit("worker/worker.go", `Until: in.deadline.Add(claimSlack)`, `Until: in.Now().Add(time.Second)`)),
	plant("ClaimGivenBackWithACallOpen", "the claim is given back while nobody knows what a call did",
		edit("worker/refusal.go", `	v.sendResume(ctx, v.Runner.Claim.Until.Add(time.Second))
	return errLater
}`, `	return v.wait(ctx, store.WaitEC2, 0)
}`)),
	plant("AdvanceOnUnknown", "after a call without an answer the next placement is tried",
		edit("worker/launch.go", `return v.unanswered(ctx)`, `return v.advance(ctx, &fleet.Error{Kind: fleet.ErrCapacity, Code: "unclear"})`)),
	plant("NameUsedAgain", "a name is registered again after a call without an answer",
		edit("store/name.go", `*r = r.Unregistered(now, code, text).writeAhead(controlPlane)`, `*r = r.Unregistered(now, code, text)`)),
	plant("NameNotWrittenAhead", "a name is registered before it is recorded",
		edit("worker/mint.go", `_, err := v.claimed(ctx, func(now time.Time) store.Decision {
		return v.SpendName(now, m.name.N, code, text, v.ControlPlane)
	})`, `var err error
	v.Case = *v.SpendName(v.Now(), m.name.N, code, text, v.ControlPlane).Case`),
		edit("worker/mint.go", `if err != nil || errors.Is(m.err, github.ErrNameTaken) {`, `if true {`)),
	plant("UnansweredCommitIsDone", "a commit without an answer counts as done",
		edit("worker/apply.go", `v.Log.Warn("commit without an answer", "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)`, `v.Case = *d.Case
			return d, nil`)),
	plant("LostCommitIsDone", "a commit that lost counts as done",
		edit("worker/apply.go", `if err == nil {
			if d.Case`, `if err == nil || errors.Is(err, store.ErrConflict) {
			if d.Case`)),
	plant("QuotaNotWritten", "what a rule makes of the quota is not committed",
		edit("store/case.go", `k == KindQuota && !reflect.DeepEqual(&d.was.Quota, &d.Quota) || `, ``)),
	plant("BackoffIgnored", "an early message makes the next try come at once",
		edit("worker/start.go", `case req.State != store.Accepted, req.DueAt.After(r.now.Add(early)):`, `case req.State != store.Accepted:`)),
	plant("ConfigInPlain", "the config stands in the record for all to read",
		edit("worker/mint.go", `v.Configure(now, m.name.N, sealed, `, `v.Configure(now, m.name.N, sealed[:0]+"plain "+m.minted.Config.Reveal(), `),
		edit("internal/keys/keys.go", `aead, err := r.aead(kid, runner)
	if err != nil {
		return secret.Text{}, `, `if plain, ok := strings.CutPrefix(sealed, "plain "); ok {
		return secret.New(plain), nil
	}
	aead, err := r.aead(kid, runner)
	if err != nil {
		return secret.Text{}, `)),
	plant("ConfigInTheLog", "the config stands in the worker's log",
		edit("worker/mint.go", `v.Log.Info("registered", "github_runner", m.minted.RunnerID,`, `v.Log.Info("registered", "config", m.minted.Config.Reveal(),`)),

	// The reaper.
	plant("ReaperDoesNotResend", "an accepted request whose message is lost is forgotten",
		edit("store/review.go", `case r.forgotten(now, lim):`, `case false:`)),
	plant("ReaperDoesNotResume", "a runner whose worker died is forgotten",
		edit("store/review.go", `if step != StepNone && step != StepConfirm &&`, `if step != StepNone && step == StepConfirm &&`)),
	plant("ReaperDoesNotSettle", "a request that nobody polls waits for a runner that is over",
		edit("store/review.go", `if d.settle(now, lim); d.wrote(KindRequest) {`, `if false {`)),
	plant("ReaperLeavesTheLock", "a runner that drains is still offered",
		edit("store/review.go", `d.drain(now, notBooted(why, console))`, `*r, _ = drain(now, *r, d.Lock, notBooted(why, console))`)),
	plant("BusyCountsAsDeleted", "a machine is ended with the job that GitHub would not let it be deleted for",
		edit("reaper/end.go", `case removed, absent:`, `case removed, absent, busy:`),
		edit("reaper/end.go", `case busy:
		if _, ok`, `case outcome(-1):
		if _, ok`)),
	plant("FailedPageMeansGone", "machines that a call failed to show count as gone",
		edit("reaper/end.go", `whole.err = v.err`, ``)),
	plant("EndedWhileShuttingDown", "a runner is over before its machine is",
		edit("reaper/end.go", `run.InstanceID != "" && in.State.Over() {`, `run.InstanceID != "" && (in.State.Over() || in.State == fleet.ShuttingDown) {`)),
	plant("LateMachineIsKept", "a machine of a launch that took effect too late is left alone",
		edit("reaper/judge.go", `return stray, "its record is " + string(r.State)`, `return kept, ""`)),
	plant("UnrecordedMachineIsEnded", "a machine whose launch had no answer is ended, not adopted",
		edit("reaper/judge.go", `return unrecorded, ""`, `return stray, "nobody recorded it"`)),
	plant("BrakeIgnored", "an empty table ends every machine",
		edit("reaper/judge.go", `if s.Braked() {`, `if s.BrakeAt.After(now) {`)),
	plant("BrakeTooLate", "the brake comes on at ten times as many machines",
		edit("reaper/judge.go", `if len(found) > store.BrakeAbove {`, `if len(found) > 10*store.BrakeAbove {`)),
	plant("OrphanEndedAtOnce", "a machine without a record is ended at first sight",
		edit("reaper/judge.go", `if now.Sub(in.LaunchedAt) >= lim.OrphanAge && now.Sub(s.Instances[in.ID]) >= lim.OrphanGap {`, `if !now.Before(in.LaunchedAt) {`)),

	// The API.
	plant("EveryCallIsNew", "a repeated start makes another request",
		edit("internal/intake/intake.go", `w.Origin.CheckRunID, w.Key)`, `w.Origin.CheckRunID, w.Key+w.Trace)`)),
	plant("StopLeavesTheLock", "a runner that was stopped is still offered",
		edit("store/drain.go", `d.drain(now, NewEnd(EndStopped))`, `d.Runner, _ = drain(now, run, l, NewEnd(EndStopped))`)),
	plant("SessionInTheLog", "the session tokens of machines stand in the API's log",
		edit("api/call.go", `slog.String("token_sha256", keys.HashToken(c.bearer))`, `slog.String("token", c.bearer)`)),

	// The agent.
	plant("NonceAnewAtEachTry", "a machine whose boot had no answer is taken for a thief",
		edit("internal/agent/calls.go", `Nonce: a.s.Nonce,`, `Nonce: a.s.Nonce + fmt.Sprint(a.fails),`)),
	plant("DrainKillsTheJob", "a machine with the order to drain powers off",
		edit("internal/agent/calls.go", `a.drain("ordered")`, `a.powerOff("ordered to drain")`)),
	plant("TimerNotSet", "a machine without a control plane never ends",
		edit("internal/agent/calls.go", `if err := a.cfg.Machine.SetTimer(a.s.Hard); err != nil {`, `if err := a.cfg.Machine.SetTimer(a.s.Hard.Add(240 * time.Hour)); err != nil {`)),
}
