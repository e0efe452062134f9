package main

// partBugs break what the worker, the reaper, the API and the agent do around the
// rules: what is committed before what, what is sent again, and what is shown.
var partBugs = []Bug{
	// The worker.
	plant("ClaimTooShort", "the claim lapses while its holder's calls are open",
		edit("worker/worker.go", `Until: in.deadline.Add(claimSlack)`, `Until: in.Now().Add(time.Second)`)),
	plant("ClaimGivenBackWithACallOpen", "the claim is given back while nobody knows what a call did",
		edit("worker/launch.go", `	if fe == nil {
		in.sendResume(ctx, v, v.runner.Claim.Until.Add(time.Second))
		return errLater
	}`, `	if fe == nil {
		return in.later(ctx, v, store.WaitEC2, in.Now())
	}`)),
	plant("AdvanceOnUnknown", "after a call without an answer the next placement is tried",
		edit("worker/launch.go", `		return in.unclear(ctx, v, nil)
	}`, `		return in.advance(ctx, v, &fleet.Error{Kind: fleet.ErrCapacity, Code: "unclear"})
	}`)),
	plant("NameUsedAgain", "a name is registered again after a call without an answer",
		edit("worker/mint.go", `v.runner = v.runner.WriteAhead(in.ControlPlane)`, ``)),
	plant("NameNotWrittenAhead", "a name is registered before it is recorded",
		edit("worker/mint.go", `v.runner = v.runner.WriteAhead(in.ControlPlane)
			return []store.Change{store.Put(&v.runner)}`, `v.runner = v.runner.WriteAhead(in.ControlPlane)
			return nil`),
		edit("worker/mint.go", `if !errors.Is(m.err, github.ErrNameTaken) {`, `if false {`)),
	plant("UnansweredCommitIsDone", "a commit without an answer counts as done",
		edit("worker/view.go", `in.Log.Warn("commit without an answer", "runner", v.runner.ID, "trace", v.runner.Trace, "error", err)`, `return nil`)),
	plant("LostCommitIsDone", "a commit that lost counts as done",
		edit("worker/view.go", `if err == nil {
			return nil`, `if err == nil || errors.Is(err, store.ErrConflict) {
			return nil`)),
	plant("QuotaNotWritten", "the place of a runner that failed is not given back",
		edit("worker/launch.go", `if v.runner.State.Final() {`, `if v.runner.State == "" {`)),
	plant("BackoffIgnored", "an early message makes the next try come at once",
		edit("worker/start.go", `case req.State != store.Accepted, req.DueAt.After(r.now.Add(early)):`, `case req.State != store.Accepted:`)),
	plant("ConfigInPlain", "the config stands in the record for all to read",
		edit("worker/mint.go", `v.runner.Configure(now, sealed, `, `v.runner.Configure(now, sealed[:0]+"plain "+m.minted.Config.Reveal(), `),
		edit("internal/keys/keys.go", `aead, err := r.aead(kid, runner)
	if err != nil {
		return secret.Text{}, `, `if plain, ok := strings.CutPrefix(sealed, "plain "); ok {
		return secret.New(plain), nil
	}
	aead, err := r.aead(kid, runner)
	if err != nil {
		return secret.Text{}, `)),
	plant("ConfigInTheLog", "the config stands in the worker's log",
		edit("worker/mint.go", `log.Info("registered", "github_runner", m.minted.RunnerID)`, `log.Info("registered", "config", m.minted.Config.Reveal())`)),

	// The reaper.
	plant("ReaperDoesNotResend", "an accepted request whose message is lost is forgotten",
		edit("reaper/request.go", `case q.Forgotten(now, lim):`, `case false:`)),
	plant("ReaperDoesNotResume", "a runner whose worker died is forgotten",
		edit("reaper/runner.go", `a.runner, a.lock); ok {`, `a.runner, a.lock); ok && m.Kind == "" {`)),
	plant("ReaperDoesNotSettle", "a request that nobody polls waits for a runner that is over",
		edit("reaper/request.go", `if q.State == store.Waiting {`, `if q.State == "" {`)),
	plant("ReaperLeavesTheLock", "a runner that drains is still offered",
		edit("reaper/runner.go", `if lock.State != a.lock.State {`, `if lock.Runner == "" {`)),
	plant("BusyCountsAsDeleted", "a machine is ended with the job that GitHub would not let it be deleted for",
		edit("reaper/end.go", `case removed, absent:`, `case removed, absent, busy:`),
		edit("reaper/end.go", `case busy:
		next := j.runner.Refused`, `case outcome(-1):
		next := j.runner.Refused`)),
	plant("FailedPageMeansGone", "machines that a call failed to show count as gone",
		edit("reaper/end.go", `whole.err = v.err`, ``)),
	plant("EndedWhileShuttingDown", "a runner is over before its machine is",
		edit("reaper/end.go", `in.State.Over() && !r.isLate(ctx)`, `(in.State.Over() || in.State == fleet.ShuttingDown) && !r.isLate(ctx)`)),
	plant("LateMachineIsKept", "a machine of a launch that took effect too late is left alone",
		edit("reaper/judge.go", `return stray, "its record is " + string(r.State)`, `return kept, ""`)),
	plant("UnrecordedMachineIsEnded", "a machine whose launch had no answer is ended, not adopted",
		edit("reaper/judge.go", `return unmade, ""`, `return stray, "nobody recorded it"`)),
	plant("BrakeIgnored", "an empty table ends every machine",
		edit("reaper/judge.go", `if s.Braked() {`, `if s.BrakeAt.After(now) {`)),
	plant("BrakeTooLate", "the brake comes on at ten times as many machines",
		edit("reaper/judge.go", `if len(found) > store.BrakeAbove {`, `if len(found) > 10*store.BrakeAbove {`)),
	plant("OrphanEndedAtOnce", "a machine without a record is ended at first sight",
		edit("reaper/judge.go", `if now.Sub(in.LaunchedAt) >= lim.OrphanAge && now.Sub(s.Instances[in.ID]) >= lim.OrphanGap {`, `if !now.Before(in.LaunchedAt) {`)),

	// The API.
	plant("EveryCallIsNew", "a repeated start makes another request",
		edit("api/start.go", `cl.CheckRunID, key)`, `cl.CheckRunID, key+c.trace)`)),
	plant("StopLeavesTheLock", "a runner that was stopped is still offered",
		edit("api/status.go", `if freed {`, `if freed && force {`)),
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
