package store

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Why a runner drains: the codes of Runner.End beside EC2's own.
const (
	EndExpired      = "expired"
	EndHard         = "hard_limit"
	EndNoLaunch     = "launch_timeout"
	EndNoBoot       = "boot_timeout"
	EndNotOnline    = "online_timeout"
	EndLost         = "heartbeat_lost"
	EndDone         = "job_done"
	EndIdle         = "idle"
	EndSpot         = "spot_interruption"
	EndCompromised  = "compromised"
	EndTooOld       = "runner_too_old"
	EndHandover     = "handover" // another runner of the key took over
	EndUnwanted     = "unwanted" // its request ended first
	EndStopped      = "stopped"
	EndAgent        = "agent_ended"
	EndNoCapacity   = "no_capacity"
	EndVCPULimit    = "vcpu_limit"
	EndLaunchDenied = "launch_refused"
	EndMintDenied   = "registration_refused"
	EndGitHubDown   = "github_unavailable"
	EndGitHubLimit  = "github_limited"
	EndTerminated   = "instance_terminated"
	EndUnlisted     = "registration_lost"
	EndOffline      = "offline_at_github"
)

var endTexts = map[string]string{
	EndExpired:      "Nobody counts on the runner any longer, and no job came to it.",
	EndHard:         "The machine reached its hard limit.",
	EndNoLaunch:     "EC2 gave no clear answer to the launch within the boot limit. Look at the account's API limits and at the state of EC2.",
	EndNoBoot:       "The machine did not call in within the boot limit. Look at its system log, and at its subnet's way to the API.",
	EndNotOnline:    "The machine called in, but its runner program did not connect to GitHub.",
	EndLost:         "No heartbeat came for too long: the machine died or lost its network.",
	EndDone:         "The job is done.",
	EndIdle:         "No job came within the idle limit.",
	EndSpot:         "EC2 reclaimed the spot instance.",
	EndCompromised:  "Two parties used the machine's boot token. Find out who could read its user data.",
	EndTooOld:       "GitHub refuses this version of the runner program. Update the image, then start again.",
	EndHandover:     "Another runner took over.",
	EndUnwanted:     "The request that launched the runner ended first.",
	EndStopped:      "It was stopped on request.",
	EndAgent:        "The agent ended the machine.",
	EndNoCapacity:   "No placement had capacity.",
	EndVCPULimit:    "The AWS account's vCPU limit is reached. Wait for machines to end, or have the quota raised.",
	EndLaunchDenied: "EC2 or STS refuses to launch.",
	EndMintDenied:   "GitHub refuses to register the runner.",
	EndGitHubDown:   "GitHub did not register the runner within the boot limit, though it was asked again and again. Look at https://www.githubstatus.com, then start again.",
	EndGitHubLimit:  "GitHub asked to wait until the boot limit was over. Find out what else uses the account's credential, then start again.",
	EndTerminated:   "EC2 says that the instance is terminated.",
	EndUnlisted:     "GitHub no longer has the runner's registration. Find out whether somebody deletes runners in the repository's settings.",
	EndOffline:      "GitHub shows the runner offline, though its machine runs. Look at the machine's way to GitHub.",
}

// EndCodes lists the codes, sorted.
func EndCodes() []string { return slices.Sorted(maps.Keys(endTexts)) }

// NewEnd returns the reason to drain a runner that code stands for. What a new
// machine would run into again is not retryable.
func NewEnd(code string) Failure {
	return Failure{Code: code, Text: endTexts[code], Retryable: code != EndTooOld}
}

// Drain is the only way out of a usable state but failure: nothing new happens
// on the runner. The lock is changed, to draining, only if it names r. The sealed
// config is dropped: no call of a machine that drains is answered with one, and it
// is most of the record.
func Drain(now time.Time, r Runner, l Lock, why Failure) (Runner, Lock) {
	if !r.State.Usable() {
		return r, l
	}
	if why.Code == EndNoLaunch && r.Said.Code != "" {
		why.Text += fmt.Sprintf(" EC2's last answer, %d times: %s (%s).", r.Said.Times, r.Said.Text, r.Said.Code)
	}
	if u := r.Unminted; u != nil && u.Code == why.Code && why.Text == endTexts[why.Code] {
		why.Text += " " + u.Text
	}
	r.End, r.DrainingAt, r.Wait, r.WaitUntil = &why, now, "", time.Time{}
	r.Config.Sealed = ""
	r = r.enter(now, RunnerDraining, why.Code)
	if l.Names(r.ID) {
		l.State = LockDraining
	}
	return r, l
}

// DrainReason returns why a usable runner has to drain, or "". req is the
// request that launched it; absent, it counts as ended well.
func DrainReason(now time.Time, lim Limits, r Runner, l Lock, p Pulse, req Request) string {
	if !r.State.Usable() {
		return ""
	}
	named := l.Names(r.ID)
	started := !r.OnlineAt.IsZero()
	seen := r.seen(p)
	unwanted := req.Version != 0 && (req.State == Cancelled || req.State == Expired || req.State == Failed)
	switch {
	case r.Mismatched():
		return EndCompromised
	case !now.Before(r.Hard):
		return EndHard
	case named && !now.Before(l.Exp) && r.unused(now, lim):
		return EndExpired
	case named && r.InstanceID == "" && !now.Before(l.BootBy):
		return EndNoLaunch
	case r.unregistered(now, l):
		return r.Unminted.Code
	case named && r.Boot.At.IsZero() && !now.Before(l.BootBy):
		return EndNoBoot
	case named && !started && !now.Before(l.BootBy.Add(lim.OnlineGrace)) && (r.ListeningAt.IsZero() || !r.MissedAt.IsZero()):
		return EndNotOnline // one that listens, and that GitHub tells nothing of, may well be online
	case named && !r.Boot.At.IsZero() && now.Sub(seen) > lim.Lost:
		return EndLost
	case !named && r.State != RunnerBusy:
		return EndHandover
	case unwanted && (r.Mode == Ephemeral || l.Joined == "") && r.State != RunnerBusy:
		return EndUnwanted
	}
	return ""
}

// unregistered reports whether a runner has to boot no more since GitHub registered
// nothing for it. Its machine may well have called: there was no config to answer with.
func (r Runner) unregistered(now time.Time, l Lock) bool {
	return l.Names(r.ID) && r.Boot.At.IsZero() && !now.Before(l.BootBy) && r.Config.N == 0 && r.Unminted != nil
}

// unused reports whether nothing is queued for a runner past its exp, as far as can
// be seen: GitHub hands out what is queued as soon as the program listens, so that
// half a minute without a job means that there is none. Before it listens, a next
// config may be on its way.
func (r Runner) unused(now time.Time, lim Limits) bool {
	switch {
	case r.OnlineAt.IsZero():
		return true
	case r.jobRuns():
		return false
	case r.ListeningAt.After(r.Job.EndedAt):
		return now.Sub(maxTime(r.ListeningAt, r.OnlineAt)) >= lim.ShareStep
	}
	return now.Sub(maxTime(r.OnlineAt, r.Job.EndedAt)) >= lim.OnlineGrace
}

// jobRuns reports whether a job is known to have begun and not to have ended.
func (r Runner) jobRuns() bool { return !r.Job.StartedAt.IsZero() && r.Job.EndedAt.IsZero() }

// seen is the last sign of life.
func (r Runner) seen(p Pulse) time.Time {
	return maxTime(r.Boot.At, maxTime(r.OnlineAt, p.SeenOf(r.ID)))
}

// EndStep is what the reaper is to do next for a runner that drains or ends.
type EndStep string

// The steps of an end, in their order and no other: the order protects a job
// that GitHub may have handed out a moment before.
const (
	EndDelete    EndStep = "delete"    // ask GitHub to delete the registration
	EndWait      EndStep = "wait"      // a job may run, or the grace period does
	EndBegin     EndStep = "end"       // commit the state ending
	EndTerminate EndStep = "terminate" // find the instance, and terminate it unless it already is
	EndNames     EndStep = "names"     // delete what is left at GitHub
	EndNothing   EndStep = ""
)

// NextEndStep returns what is to be done next on the way from draining to ended.
// off says that EC2 shows the machine, and not running: no job can be on it.
//
// That GitHub deleted a registration does not prove that no job runs: it says so of
// a runner whose job began a moment ago
// (https://github.com/github-aws-runners/terraform-aws-github-runner/issues/5228).
func NextEndStep(now time.Time, lim Limits, r Runner, off bool) EndStep {
	switch r.State {
	case RunnerDraining:
		switch {
		case r.Boot.At.IsZero(), !now.Before(r.Hard), off:
			return EndBegin // no config was ever answered, or the hard limit is stronger than a job
		case r.DeregisteredAt.IsZero() && r.compromised():
			if r.DeletedAt.IsZero() {
				return EndDelete
			}
			return EndBegin // one DELETE and no grace
		case r.DeregisteredAt.IsZero() && now.Before(r.DeleteAfter):
			return EndWait
		case r.DeregisteredAt.IsZero():
			return EndDelete
		case r.compromised(), !r.IdleAt.Before(r.DeregisteredAt), now.Sub(r.DeregisteredAt) >= lim.Grace && !r.jobRuns():
			return EndBegin
		}
		return EndWait
	case RunnerEnding:
		return EndTerminate
	case RunnerEnded:
		if len(r.Names) > 0 && now.Sub(r.EndedAt) < lim.NameLife {
			return EndNames
		}
	}
	return EndNothing
}

func (r Runner) compromised() bool { return r.End != nil && r.End.Code == EndCompromised }

// Deleting records that GitHub is being asked to delete the registration.
func (r Runner) Deleting(now time.Time) Runner {
	if r.DeletedAt.IsZero() {
		r.DeletedAt = now
	}
	return r
}

// Refused records that GitHub did not delete the registration, for a job that runs,
// and when to ask again: after a period of the reaper, and twice as long each time,
// up to DeleteAgain. What the machine says of its job brings that forward.
func (r Runner) Refused(now time.Time, lim Limits) Runner {
	r.DeleteAfter = now.Add(min(lim.ReaperPeriod<<min(r.Refusals, 10), lim.DeleteAgain) - lim.ReaperPeriod/4) // runs of the reaper are not to the second
	r.Refusals++
	return r
}

// Suspect reports whether a person has to look at a runner whose end waits for a
// job: for long, and though GitHub alone speaks of one, or its machine is silent. It
// is true once; the runner is to be written then.
//
// p is the pulse of the runner's key. It tells of r for as long as the lock names it.
func (r Runner) Suspect(now time.Time, lim Limits, p Pulse) (_ Runner, suspect bool) {
	ghost := !r.jobRuns() && r.Refusals > 0 && r.DeregisteredAt.IsZero()
	lost := r.End != nil && r.End.Code == EndLost || p.Runner == r.ID && now.Sub(r.seen(p)) > lim.Lost
	silent := r.jobRuns() && lost
	if r.State != RunnerDraining || !r.SuspectAt.IsZero() || !ghost && !silent ||
		now.Sub(maxTime(r.DrainingAt, r.Job.EndedAt)) < lim.Suspicious {
		return r, false
	}
	r.SuspectAt = now
	return r.note(now, "waits for a job that nobody knows of, or whose machine is silent"), true
}

// Deregistered records that GitHub no longer has the registration.
func (r Runner) Deregistered(now time.Time) Runner {
	if r.DeregisteredAt.IsZero() {
		r.DeregisteredAt = now
		r = r.Forget(r.Config.N).note(now, "deregistered")
	}
	return r
}

// Ending records that the machine may be terminated. Nothing leaves this state but Ended.
func (r Runner) Ending(now time.Time, reason string) Runner {
	if r.State == RunnerDraining {
		r.EndingAt = now
		r = r.enter(now, RunnerEnding, reason)
	}
	return r
}

// Terminating records that EC2 was asked to end the instance.
func (r Runner) Terminating(now time.Time) Runner {
	r.TerminatedAt = now
	return r
}

// Found records that EC2 shows the instance.
func (r Runner) Found() Runner {
	r.MissingAt = time.Time{}
	return r
}

// Missing records that EC2 did not find the instance. gone is true when that is
// final: it was missing before, long enough ago. While the launch is young nothing
// counts, since EC2's view lags behind.
func (r Runner) Missing(now time.Time, lim Limits) (_ Runner, gone bool) {
	switch {
	case now.Sub(r.CalledAt) < lim.GoneAge:
		return r, false
	case r.MissingAt.IsZero():
		r.MissingAt = now
		return r.note(now, "EC2 does not find the instance"), false
	}
	return r, now.Sub(r.MissingAt) >= lim.GoneGap
}

// Ended records that EC2 has terminated the instance, and gives back its place
// and its lock, if that still names it: three items in one commit. A runner
// whose machine ended by itself, without the reaper's doing, ends from any state.
func Ended(now time.Time, lim Limits, r Runner, l Lock, q Quota, reason string) (Runner, Lock, Quota) {
	if r.State.Final() {
		return r, l, q
	}
	if r.State.Usable() {
		r, l = Drain(now, r, l, NewEnd(EndTerminated))
	}
	r.EndedAt, r.Claim = now, Claim{}
	r = r.enter(now, RunnerEnded, reason)
	r.DueAt = time.Time{}
	if len(r.Names) > 0 {
		r.DueAt = now
	}
	r.expire(now, lim.Keep)
	if l.Names(r.ID) {
		l = l.empty(now, lim)
	}
	return r, l, q.release()
}

// NamesLeft moves the due_at of an ended runner after a look at its names at
// GitHub: to the next look, or out of the index.
func (r Runner) NamesLeft(now time.Time, lim Limits) Runner {
	r.DueAt = time.Time{}
	if len(r.Names) > 0 && now.Sub(r.EndedAt) < lim.NameLife {
		r.DueAt = now.Add(lim.NameRetry)
	}
	return r
}

// Stop ends what request r uses, because its caller said so: r itself unless it
// is final, and its runner when that is nobody else's, or force is set. Of the
// runner and the lock, those with a true flag are to be written.
func Stop(now time.Time, lim Limits, r Request, run Runner, l Lock, by string, force bool) (_ Request, _ Runner, _ Lock, request, runner, lock bool) {
	mine := run.Version != 0 && run.ID == r.Runner && run.State.Usable() &&
		(force || r.Mode == Ephemeral || run.Request == r.ID && l.Names(run.ID) && l.Joined == "")
	if mine {
		state := l.State
		run, l = Drain(now, run, l, NewEnd(EndStopped))
		runner, lock = true, l.State != state
	}
	if !r.State.Final() {
		r, request = r.Cancel(now, lim, by), true
	}
	return r, run, l, request, runner, lock
}

// String tells which launch an attempt was, for logs.
func (a Attempt) String() string { return fmt.Sprintf("%s: %s", a.Placement, a.Code) }
