package store

import (
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
	EndUnwanted     = "unwanted" // nobody counts on it
	EndStopped      = "stopped"
	EndSetup        = "setup_failed"
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
	EndKeyLost      = "key_lost"
	EndNoAccount    = "account_unknown"
)

var endTexts = map[string]string{
	EndExpired:      "Nobody counts on the runner any longer, and no job came to it.",
	EndHard:         "The machine reached its hard limit.",
	EndNoLaunch:     "EC2 gave no clear answer to the launch within the boot limit. Look at the account's API limits and at the state of EC2.",
	EndNoBoot:       "The machine did not call in within the boot limit. Look at its console, and at its subnet's way to the API.",
	EndNotOnline:    "The machine called in, but its runner program did not connect to GitHub.",
	EndLost:         "No heartbeat came for too long: the machine died or lost its network.",
	EndDone:         "The job is done.",
	EndIdle:         "No job came within the idle limit.",
	EndSpot:         "EC2 reclaimed the spot instance.",
	EndCompromised:  "Two parties used the machine's boot token. Find out who could read its user data.",
	EndTooOld:       "GitHub refuses this version of the runner program. Update the image, then start again.",
	EndHandover:     "Another runner took over.",
	EndUnwanted:     "No request waits for the runner any longer.",
	EndStopped:      "It was stopped on request.",
	EndSetup:        "The machine could not be made what the account's registration wants it to be.",
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
	EndKeyLost:      "The key that the machine was to prove itself with was taken away before it booted.",
	EndNoAccount:    "The account is no longer registered, or closed. Ask its owner which account to use.",
}

// EndCodes lists the codes, sorted.
func EndCodes() []string { return slices.Sorted(maps.Keys(endTexts)) }

// NewEnd returns the reason to drain a runner that code stands for. What a new
// machine would run into again is not retryable.
func NewEnd(code string) Failure {
	return Failure{Code: code, Text: endTexts[code], Retryable: code != EndTooOld && code != EndNoAccount && code != EndSetup}
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

// NextEndStep returns what to do next on the way from draining to ended.
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

// Deleting records that GitHub is being asked to delete the registration. It needs
// the runner.
func (c Case) Deleting(now time.Time) Decision {
	return decide(c, func(d *Decision) {
		if d.Runner.DeletedAt.IsZero() {
			d.Runner.DeletedAt = now
		}
	})
}

// Refused records that GitHub did not delete the registration, for a job that runs,
// and when to ask again: after a period of the reaper, and twice as long each time,
// up to DeleteAgain. What the machine says of its job brings that forward. It needs
// the runner.
func (c Case) Refused(now time.Time, lim Limits) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		r.DeleteAfter = now.Add(min(lim.ReaperPeriod<<min(r.Refusals, 10), lim.DeleteAgain) - lim.ReaperPeriod/4) // runs of the reaper are not to the second
		r.Refusals++
	})
}

// Suspect decides whether a person has to look at a runner whose end waits for a
// job: for long, and though GitHub alone speaks of one, or its machine is silent. It
// raises the alarm once. It needs the runner, and the pulse of its key, which tells
// of it for as long as the lock names it.
func (c Case) Suspect(now time.Time, lim Limits) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if r.State != RunnerDraining || !r.SuspectAt.IsZero() || now.Sub(maxTime(r.DrainingAt, r.Job.EndedAt)) < lim.Suspicious {
			return
		}
		if d.need(KindPulse) || !r.suspicious(now, lim, d.Pulse) {
			return
		}
		r.SuspectAt = now
		*r = r.note(now, "waits for a job that nobody knows of, or whose machine is silent")
		d.Alarm = AlarmBusy
	})
}

// suspicious reports whether nobody here knows of the job that the end of r waits for,
// or its machine is silent.
func (r Runner) suspicious(now time.Time, lim Limits, p Pulse) bool {
	ghost := !r.jobRuns() && r.Refusals > 0 && r.DeregisteredAt.IsZero()
	lost := r.End != nil && r.End.Code == EndLost || p.Runner == r.ID && now.Sub(r.seen(p)) > lim.Lost
	return ghost || r.jobRuns() && lost
}

// Deregistered records that GitHub no longer has the registration. It needs the runner.
func (c Case) Deregistered(now time.Time) Decision {
	return decide(c, func(d *Decision) {
		if r := &d.Runner; r.DeregisteredAt.IsZero() {
			r.DeregisteredAt = now
			*r = r.Forget(r.Config.N).note(now, "deregistered")
		}
	})
}

// Ending records that the machine may be terminated. Nothing leaves this state but
// Finish. It needs the runner.
func (c Case) Ending(now time.Time, reason string) Decision {
	return decide(c, func(d *Decision) {
		if r := &d.Runner; r.State == RunnerDraining {
			r.EndingAt = now
			*r = r.transition(now, RunnerEnding, reason)
		}
	})
}

// Looked records a look at the machine of a runner that is ending: that EC2 was asked
// to terminate it, and whether EC2 shows it. gone is true when it is finally not found:
// it was missing before, long enough ago. While the launch is young nothing counts,
// since EC2's view lags behind. It needs the runner.
func (c Case) Looked(now time.Time, lim Limits, asked, shown bool) (_ Decision, gone bool) {
	d := decide(c, func(d *Decision) {
		r := &d.Runner
		if asked {
			r.TerminatedAt = now
		}
		switch {
		case shown:
			r.MissingAt = time.Time{}
		case now.Sub(r.CalledAt) < lim.GoneAge:
		case r.MissingAt.IsZero():
			r.MissingAt = now
			*r = r.note(now, "EC2 does not find the instance")
		default:
			gone = now.Sub(r.MissingAt) >= lim.GoneGap
		}
	})
	return d, gone
}

// ended records that EC2 has terminated the instance, and gives back its place
// and its lock, if that still names it: three items in one commit. A runner
// whose machine ended on its own, without the reaper's doing, ends from any state.
func ended(now time.Time, lim Limits, r Runner, l Lock, q Quota, reason string) (Runner, Lock, Quota) {
	if r.State.Final() {
		return r, l, q
	}
	if r.State.Usable() {
		r, l = drain(now, r, l, NewEnd(EndTerminated))
	}
	r.EndedAt, r.Claim = now, Claim{}
	r = r.transition(now, RunnerEnded, reason)
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

// Instance is what EC2 shows of a machine. The zero value stands for none: it was never
// launched.
type Instance struct {
	ID     string
	State  string // in EC2's word, such as terminated; empty: EC2 does not know the machine
	Code   string // of the reason for its end, such as Client.InternalError; may be empty
	Reason string // in EC2's words; may be empty
}

// Finish ends a runner whose machine EC2 has terminated, or no longer knows: the
// runner, its account's quota and its lock. The request that launched it learns of a
// machine that ended before it was online. What the machine cost, at a price, is added to the
// usage of its day. It needs all but the pulse. ok is false, and nothing is decided, for a
// runner that is over already, or has another machine.
func (c Case) Finish(now time.Time, lim Limits, in Instance, reason string, price Price) (_ Decision, ok bool) {
	d := decide(c, func(d *Decision) {
		r := d.Runner
		if r.Version != 0 && in.ID != "" {
			r, _ = launched(now, r, in.ID)
		}
		if r.Version == 0 || r.State.Final() || r.InstanceID != in.ID {
			return
		}
		ok = true
		l := d.Lock
		if r.State.Usable() {
			r, l = died(now, r, l, in)
		}
		d.Runner, d.Lock, d.Quota = ended(now, lim, r, l, d.Quota, reason)
		d.rollUp(now, price)
		d.settle(now, lim)
	})
	return d, ok
}

// Forgotten records which names GitHub no longer has, by the number of their config,
// after a look at some of the runner's names. Of an ended runner, the next look is in
// Limits.NameRetry when all were looked at, and else in the next run. It needs the
// runner.
func (c Case) Forgotten(now time.Time, lim Limits, gone []int, all bool) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		for _, n := range gone {
			*r = r.Forget(n)
		}
		if !r.State.Final() || !all {
			return
		}
		r.DueAt = time.Time{}
		if len(r.Names) > 0 && now.Sub(r.EndedAt) < lim.NameLife {
			r.DueAt = now.Add(lim.NameRetry)
		}
	})
}
