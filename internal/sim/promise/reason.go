package promise

import (
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what is said of ends and failures.
const (
	DrainsFor  Promise = "a runner drains for a reason that is true of it"
	TrueReason Promise = "the reason that is recorded is the true one"
	InWords    Promise = "a failure has EC2's words"
)

// reasonPromises are about why runners end.
type reasonPromises struct{ *History }

// sawDrain looks at a runner that begins to drain. l is its lock as it was; who
// drains it demands that nobody changed that.
func (p reasonPromises) sawDrain(c commit, was, r store.Runner, l store.Lock) {
	at := r.DrainingAt
	switch r.End.Code {
	case store.EndUnwanted, store.EndStopped:
		p.sawUnused(was, r, l)
	case store.EndExpired:
		p.hold(DrainsFor, at.Before(r.Hard), "runner %s drains as expired at %s, and its hard limit was at %s", r.ID, at, r.Hard)
		p.hold(DrainsFor, !at.Before(l.Exp), "runner %s drains as expired at %s, and may be counted on until %s", r.ID, at, l.Exp)
		p.hold(Served, !jobRuns(was), "runner %s drains as expired at %s, with a job since %s", r.ID, at, was.Job.StartedAt)
		since := latest(was.OnlineAt, was.Job.EndedAt, was.ListeningAt)
		p.hold(Served, was.OnlineAt.IsZero() || at.Sub(since) >= p.Limits.ShareStep, "runner %s drains as expired at %s, and had a job or a new config at %s", r.ID, at, since)
	case store.EndUnlisted:
		p.hold(DrainsFor, !was.MissedAt.IsZero() && at.Sub(was.MissedAt) >= p.Limits.Silent, "runner %s drains as forgotten at %s, and was missed at %s", r.ID, at, was.MissedAt)
		p.hold(DrainsFor, !c.minted[was.Config.RunnerID], "runner %s drains as forgotten, and GitHub has its registration %d", r.ID, was.Config.RunnerID)
	case store.EndOffline:
		p.hold(DrainsFor, !was.MissedAt.IsZero() && at.Sub(was.MissedAt) >= p.Limits.Lost, "runner %s drains as offline at %s, and was missed at %s", r.ID, at, was.MissedAt)
	case store.EndNoLaunch:
		asked := 0 // how often, in vain, for an answer that nobody knows
		for _, n := range p.answers.strange[was.ClientToken()] {
			asked = max(asked, n)
		}
		p.hold(DrainsFor, was.Boot.At.IsZero() && (asked >= store.MaxUnfamiliar || !at.Before(l.BootBy)), "runner %s drains at %s for it was not launched, and had until %s", r.ID, at, l.BootBy)
	case store.EndNoBoot, store.EndGitHubDown, store.EndGitHubLimit:
		p.hold(DrainsFor, was.Boot.At.IsZero() && !at.Before(l.BootBy), "runner %s drains at %s for it did not boot, and had until %s", r.ID, at, l.BootBy)
	case store.EndNotOnline:
		p.hold(DrainsFor, was.OnlineAt.IsZero() && !at.Before(l.BootBy.Add(p.Limits.OnlineGrace)), "runner %s drains at %s for it was not online, and was to boot by %s", r.ID, at, l.BootBy)
	case store.EndIdle:
		if c.effect.For == "event idle" { // else the machine itself says why
			p.sawIdle(was, r, l)
		}
	}
}

// sawUnused looks at a runner that drains since nobody uses it, or somebody stops it.
func (p reasonPromises) sawUnused(was, r store.Runner, l store.Lock) {
	alone := r.Mode == store.Ephemeral || l.Joined == ""
	if r.End.Code == store.EndStopped {
		forced := false
		for id := range p.heard.forced {
			forced = forced || p.requests[id].Runner == r.ID
		}
		p.hold(DrainsFor, forced || alone, "runner %s is stopped, and request %s uses it too", r.ID, l.Joined)
		return
	}
	q := p.requests[r.Request]
	p.hold(DrainsFor, l.Names(r.ID) && alone && was.State != store.RunnerBusy, "runner %s, %s, drains as unwanted, and request %s uses it too", r.ID, was.State, l.Joined)
	p.hold(DrainsFor, q.State.Final() && q.State != store.Ready, "runner %s drains as unwanted, and its request is %s", r.ID, q.State)
}

// sawIdle looks at a runner that drains since it had no job for long.
func (p reasonPromises) sawIdle(was, r store.Runner, l store.Lock) {
	began := was.OnlineAt
	if !was.ListeningAt.IsZero() && was.ListeningAt.Before(began) {
		began = was.ListeningAt
	}
	since := latest(began, was.Job.EndedAt, l.SharedAt.Add(p.Limits.ShareStep))
	p.hold(DrainsFor, was.State == store.RunnerOnline && r.DrainingAt.Sub(since) >= p.Limits.Idle,
		"runner %s, %s, drains as idle at %s, and had a job or was shared at %s", r.ID, was.State, r.DrainingAt, since)
}

// sawReason looks at why a runner begins to drain, or ends.
func (p reasonPromises) sawReason(c commit, was, r store.Runner) {
	if was.End != nil || r.End == nil {
		return
	}
	mints := p.answers.mints[r.ID]
	switch r.End.Code {
	case store.EndNoBoot:
		// Who is killed after an answer could not record it.
		p.hold(TrueReason, r.Config.N > 0 || mints[github.ErrUnknown]+mints[github.ErrLimited]+mints[github.ErrConflict] < 3,
			"runner %s drains as if its machine had not called, and GitHub registered nothing: %v", r.ID, mints)
	case store.EndGitHubDown:
		p.hold(TrueReason, mints[github.ErrUnknown]+mints[github.ErrNameTaken]+mints[github.ErrConflict] > 0, "runner %s drains for GitHub's silence, and GitHub answered %v", r.ID, mints)
	case store.EndGitHubLimit:
		p.hold(TrueReason, mints[github.ErrLimited] > 0, "runner %s drains for GitHub's limit, and GitHub answered %v", r.ID, mints)
	case store.EndMintDenied:
		p.hold(TrueReason, mints[github.ErrDenied]+mints[github.ErrNotFound]+mints[github.ErrRefused]+mints[github.ErrNameTaken]+mints[github.ErrConflict] > 0,
			"runner %s drains since GitHub refuses it, and GitHub answered %v", r.ID, mints)
	case store.EndTerminated:
		for _, m := range c.machines {
			if m.ID == r.InstanceID && m.Reason != "" {
				code, _, _ := strings.Cut(m.Reason, ":")
				p.hold(InWords, strings.Contains(r.End.Text, code), "runner %s ends with %q, and EC2 says %q", r.ID, r.End.Text, m.Reason)
			}
		}
	}
	if code := p.answers.last[r.ClientToken()]; r.End.Code == store.EndLaunchDenied && code != "" {
		p.hold(InWords, strings.Contains(r.End.Text, code), "runner %s is refused with %q, and EC2 said %s", r.ID, r.End.Text, code)
	}
}
