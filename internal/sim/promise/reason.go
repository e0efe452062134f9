package promise

import (
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// sawReason looks at what is said of why a runner begins to drain, or ends.
func (p endPromises) sawReason(was, r store.Runner) {
	if was.End != nil || r.End == nil {
		return
	}
	mints := p.answers.mints[r.ID]
	switch r.End.Code {
	case store.EndNoBoot:
		// Who is killed after an answer could not record it.
		p.hold(TrueReason, r.Config.N > 0 || mints[github.ErrUnknown]+mints[github.ErrLimited]+mints[github.ErrConflict] < 3,
			"runner %s drains as if its machine had not called, and GitHub registered nothing: %v", r.ID, mints)
		p.sawConsole(r)
	case store.EndGitHubDown:
		p.hold(TrueReason, mints[kernel.ErrDead]+mints[github.ErrUnknown]+mints[github.ErrNameTaken]+mints[github.ErrConflict] > 0, "runner %s drains for GitHub's silence, and GitHub answered %v", r.ID, mints)
	case store.EndGitHubLimit:
		p.hold(TrueReason, mints[github.ErrLimited] > 0, "runner %s drains for GitHub's limit, and GitHub answered %v", r.ID, mints)
	case store.EndMintDenied:
		p.hold(TrueReason, mints[github.ErrDenied]+mints[github.ErrNotFound]+mints[github.ErrRefused]+mints[github.ErrNameTaken]+mints[github.ErrConflict] > 0,
			"runner %s drains since GitHub refuses it, and GitHub answered %v", r.ID, mints)
	case store.EndTerminated:
		for _, m := range p.Fleet.Instances() {
			// One that a person stopped has none, as long as EC2 shows it so.
			if m.ID == r.InstanceID && m.Reason != "" && !strings.HasPrefix(r.End.Text, "EC2 shows the machine as stopped") {
				code, _, _ := strings.Cut(m.Reason, ":")
				p.hold(InWords, strings.Contains(r.End.Text, code), "runner %s ends with %q, and EC2 says %q", r.ID, r.End.Text, m.Reason)
			}
		}
	}
	if code := p.answers.last[r.ClientToken()]; r.End.Code == store.EndLaunchDenied && code != "" {
		p.hold(InWords, strings.Contains(r.End.Text, code), "runner %s is refused with %q, and EC2 said %s", r.ID, r.End.Text, code)
	}
}

// sawConsole looks at what the error of a machine that did not boot says of its console:
// what that machine printed and no other one, or why that is not known.
func (p endPromises) sawConsole(r store.Runner) {
	const booted = "Linux boots instance " // as package simfleet prints it
	text := r.End.Text
	own := strings.Contains(text, booted+r.InstanceID)
	p.hold(InWords, own || !strings.Contains(text, booted), "runner %s on %s did not boot, and its error has the console of another machine: %q", r.ID, r.InstanceID, text)
	unread := strings.Contains(text, "console could not be read: ") || strings.Contains(text, "console was not read.")
	silent := strings.Contains(text, "console shows nothing.") && slices.ContainsFunc(p.Fleet.Instances(), func(m simfleet.Fact) bool {
		return m.ID == r.InstanceID && m.State == fleet.Pending
	})
	p.hold(InWords, own || unread || silent, "runner %s on %s did not boot, and its error does not say what its console shows: %q", r.ID, r.InstanceID, text)
}
