// Package store holds GARO's nouns (Request, Runner, Lock, Pulse, Quota, Sweep,
// Account), the rules that change them, and the contract of what keeps them.
//
// The rules live here once, as pure functions on values: they read no clock, draw no
// random number and do no I/O. api, worker and reaper load a Case, ask one of its rules,
// and do what the Decision says: commit its changes, send its messages. Store promises
// that a commit changes nothing if any of its items has changed meanwhile. Who loses
// loads and asks again, so that a rule never has to think about two writers.
//
// # Requests
//
//	from      to         when                                              by      rule
//	-         accepted   POST /start                                       api     Accept
//	accepted  accepted   quota, pacing, back-off                           worker  Hold
//	accepted  ready      its key's lock is live, shareable and confirmed   worker  Share
//	accepted  waiting    its key's lock is launching and shareable         worker  Share
//	accepted  waiting    the lock is free, quota and pacing allow          worker  Begin
//	waiting   ready      its runner has been online                        any     Settle
//	waiting   accepted   its runner is over, and a try is left             any     Settle
//	waiting   failed     its runner is over: no try left, or no use        any     Settle
//	accepted  failed     nothing can be planned for it                     worker  Fail
//	waiting   expired    its runner was online after give_up_at            any     Settle
//	open      expired    give_up_at has passed                             reaper  ReviewRequest
//	open      cancelled  POST /stop                                        api     Stop
//
// A request of a workflow job has these in their place:
//
//	accepted  waiting    a runner that nobody counts on fits               worker  GiveSpare
//	any       ready      its job began on a runner of ours                 worker  Heard
//	open      cancelled  GitHub says that its job is over, or elsewhere    worker  Heard
//	final     accepted   GitHub calls its job queued, twice                worker  Heard
//	waiting   accepted   its runner took another job, or is over           any     Settle
//	open      failed     its job may have no machine                       worker  Fail
//
// open stands for accepted or waiting; ready, failed, expired and cancelled are
// final. A runner is over when it has failed or ended, or when it drains or ends
// and either never had a config or is deregistered: one that may still hold a
// live registration is never given up for a second one.
//
// # Runners
//
//	from      to         when                                              by      rule
//	-         new        with the intent of a request                      worker  Begin
//	new       launched   RunInstances answered                             worker  Launched
//	new       failed     no placement is left, or EC2 refuses              worker  Abandon
//	launched  booting    first boot, the lock names it, before boot_by     api     Boot
//	booting   online     GitHub shows it online, the lock names it         any     Confirm
//	booting   busy       a job started, the lock names it                  api     ApplyEvent
//	online    busy       a job started                                     api     ApplyEvent
//	busy      online     the job is done (shared mode)                     api     ApplyEvent
//	usable    draining   time is up, lost, idle, done, stopped, …          any     Drain, ReviewRunner
//	draining  ending     deregistered and no job can run, or hard          reaper  Ending
//	open      ended      EC2 says that the instance is gone                reaper  Finish
//
// usable stands for the five states before draining; open for all but failed and
// ended. A runner for workflow jobs that nobody counts on drains too. What Drain needs is in DrainReason (time), ApplyEvent (what the machine says),
// Boot (a stolen token), Confirm (what GitHub shows) and Stop (the caller);
// NextEndStep orders the end.
//
// # Locks
//
//	from       to         when                                             by      rule
//	free       launching  with the intent; names the new runner            worker  Begin
//	launching  live       its runner is online, or busy                    any     Confirm, ApplyEvent
//	names r    draining   r drains                                         any     Drain
//	names r    empty      r failed or ended                                any     Abandon, Finish
//
// free stands for empty (or never written) and draining. A lock that names
// another runner than r is never changed on r's behalf. A live one is shared while
// GitHub's word about its runner is fresh: Lock.Confirmed.
package store
