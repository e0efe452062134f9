package sim

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what is said of failures, and about whom calls reach.
const (
	TrueReason Promise = "the reason that is recorded is the true one"
	InWords    Promise = "a failure has EC2's words"
	Bounded    Promise = "an answer that nobody knows is not asked for without end"
	Reaches    Promise = "every call about a repository reaches the repository of that id"
	FewNames   Promise = "few names of unknown outcome are written in a record"
	SameTags   Promise = "a machine of a live record is not ended for its tags"
)

// answers is what the outside answered to the calls for a runner.
type answers struct {
	mints   map[string]map[error]int  // of registrations, by runner and kind; nil: the good ones
	strange map[string]map[string]int // of RunInstances, by client token and code that nobody knows
	last    map[string]string         // the last code of RunInstances, by client token
}

func newAnswers() answers {
	return answers{mints: map[string]map[error]int{}, strange: map[string]map[string]int{}, last: map[string]string{}}
}

// minted notes the outcome of a registration.
func (w *World) minted(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := runnerIn(name)
	if w.watch.answers.mints[id] == nil {
		w.watch.answers.mints[id] = map[error]int{}
	}
	kind := github.ErrUnknown
	for _, k := range []error{github.ErrLimited, github.ErrDenied, github.ErrNotFound, github.ErrRefused, github.ErrNameTaken, github.ErrConflict} {
		if errors.Is(err, k) {
			kind = k
			break
		}
	}
	if err == nil {
		kind = nil
	}
	w.watch.answers.mints[id][kind]++
}

// refusedBy notes what EC2 answered in place of a launch. For an answer that nobody
// knows it is not asked again and again.
func (w *World) refusedBy(token string, err error) {
	fe, ok := errors.AsType[*fleet.Error](err)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.answers.last[token] = fe.Code
	if fe.Case != fleet.ErrUnfamiliar {
		return
	}
	if w.watch.answers.strange[token] == nil {
		w.watch.answers.strange[token] = map[string]int{}
	}
	w.watch.answers.strange[token][fe.Code]++
	n := w.watch.answers.strange[token][fe.Code]
	// Who is killed after the answer could not count it.
	w.hold(Bounded, n <= 2*store.MaxUnfamiliar, "EC2 was asked %d times with token %s, and answers %s", n, token, fe.Code)
}

// sawReason looks at why a runner begins to drain, or ends.
func (w *World) sawReason(o outside, was, r store.Runner) {
	if was.End != nil || r.End == nil {
		return
	}
	mints := w.watch.answers.mints[r.ID]
	switch r.End.Code {
	case store.EndNoBoot:
		// Who is killed after an answer could not record it.
		w.hold(TrueReason, r.Config.N > 0 || mints[github.ErrUnknown]+mints[github.ErrLimited]+mints[github.ErrConflict] < 3,
			"runner %s drains as if its machine had not called, and GitHub registered nothing: %v", r.ID, mints)
	case store.EndGitHubDown:
		w.hold(TrueReason, mints[github.ErrUnknown]+mints[github.ErrNameTaken]+mints[github.ErrConflict] > 0, "runner %s drains for GitHub's silence, and GitHub answered %v", r.ID, mints)
	case store.EndGitHubLimit:
		w.hold(TrueReason, mints[github.ErrLimited] > 0, "runner %s drains for GitHub's limit, and GitHub answered %v", r.ID, mints)
	case store.EndMintDenied:
		w.hold(TrueReason, mints[github.ErrDenied]+mints[github.ErrNotFound]+mints[github.ErrRefused]+mints[github.ErrNameTaken]+mints[github.ErrConflict] > 0,
			"runner %s drains since GitHub refuses it, and GitHub answered %v", r.ID, mints)
	case store.EndTerminated:
		for _, m := range o.machines {
			if m.ID == r.InstanceID && m.Reason != "" {
				code, _, _ := strings.Cut(m.Reason, ":")
				w.hold(InWords, strings.Contains(r.End.Text, code), "runner %s ends with %q, and EC2 says %q", r.ID, r.End.Text, m.Reason)
			}
		}
	}
	if code := w.watch.answers.last[r.ClientToken()]; r.End.Code == store.EndLaunchDenied && code != "" {
		w.hold(InWords, strings.Contains(r.End.Text, code), "runner %s is refused with %q, and EC2 said %s", r.ID, r.End.Text, code)
	}
}

// sawNames looks at the names that are written in a record.
func (w *World) sawNames(r store.Runner) {
	n := 0
	for _, g := range r.Names {
		if g.RunnerID == 0 {
			n++
		}
	}
	w.hold(FewNames, n <= store.MaxNames+1, "runner %s has %d names of which nobody knows whether they are registered", r.ID, n)
}

// checkReaches looks at all registrations that were made.
func (w *World) checkReaches() {
	minted := w.GitHub.Minted()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range minted {
		w.hold(Reaches, g.RepositoryID == repositoryID, "registration %s was made in repository %s, %s", g.Name, g.RepositoryID, g.Repository)
	}
}

// sawTags looks at a TerminateInstances call of a machine that a live record names:
// its runner is at its end, whatever its tags say.
func (w *World) sawTags(inv *invocation, instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outdated(inv) {
		return
	}
	for _, r := range w.watch.runners {
		if r.InstanceID == instance && !r.State.Final() {
			w.hold(SameTags, !r.State.Usable(), "machine %s is terminated, and its runner %s is %s", instance, r.ID, r.State)
		}
	}
}

// reasons are why EC2 ends machines as they begin.
var reasons = []string{
	"Client.InternalError: Client error on launch", "Client.InvalidSnapshot.NotFound: The specified snapshot was not found.",
	"Client.VolumeLimitExceeded: Volume limit exceeded", "Server.InternalError: Internal error on launch",
	"Server.SpotInstanceTermination: Spot instance termination",
}

// dies says which machines EC2 ends as soon as they would run.
func (p *plan) dies(heals time.Time) func(n int, l fleet.Launch) string {
	some := p.chance(150, "EC2 ends machines")
	return func(n int, _ fleet.Launch) string {
		name := strconv.Itoa(n)
		if !some || !time.Now().Before(heals) || !p.chance(300, "EC2 ends machine", name) || !p.happens(endedByEC2, name) {
			return ""
		}
		return oneOf(p, reasons, "reason of", name)
	}
}
