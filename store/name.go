package store

import (
	"fmt"
	"slices"
	"time"
)

// GitHubName is a runner name that was, or is about to be, registered.
type GitHubName struct {
	N    int    `json:"n"` // the number of the config that it belongs to
	Name string `json:"name"`
	// RunnerID is GitHub's id for it. Zero: no answer is known.
	RunnerID int64 `json:"runner_id,omitempty"`
	// Credential registered it, as Account.CredentialName names it. Empty: that is not known.
	Credential string `json:"credential,omitempty"`
}

// MaxNames bounds the names of a runner whose registration nobody knows the outcome
// of, the next one included. Seven calls without an answer, with pauses that
// double, span some five minutes, about a boot limit; and a record of eight names
// is as small as any other.
const MaxNames = 8

// Unminted is why GitHub has registered nothing yet for the config that is wanted.
type Unminted struct {
	Code  string `json:"code"`  // what the runner ends with if it stays so until boot_by
	Text  string `json:"text"`  // what GitHub answered last, as a sentence
	Tries int    `json:"tries"` // how many registrations in a row had such an answer
}

// GitHubNameFor returns the name for registration n. GitHub takes 64
// characters; the control plane's name has at most 16 of them.
func GitHubNameFor(controlPlane, runner string, n int) string {
	return fmt.Sprintf("%s%s-%d", GitHubPrefix(controlPlane), runner, n)
}

// Ours begins the name of every registration, and every label, that GARO gives out.
const Ours = "garo-"

// GitHubPrefix returns how the names of a control plane's registrations begin. Those of
// another one, whose own name continues after ours, may begin so too.
func GitHubPrefix(controlPlane string) string { return Ours + controlPlane + "-" }

// NextName returns the name that the wanted config is to be registered under.
// It is false when that must be written ahead first.
func (r Runner) NextName() (GitHubName, bool) {
	if len(r.Names) == 0 || r.Names[len(r.Names)-1].N <= r.Config.N {
		return GitHubName{}, false
	}
	return r.Names[len(r.Names)-1], true
}

// writeAhead adds the name that the next registration will use. A name that may
// have been used is never used again, because minting is not idempotent.
func (r Runner) writeAhead(controlPlane string) Runner {
	n := max(r.Config.N+1, r.Wanted)
	if last, ok := r.NextName(); ok {
		n = max(n, last.N+1)
	}
	r.Names = append(slices.Clip(slices.Clone(r.Names)), GitHubName{N: n, Name: GitHubNameFor(controlPlane, r.ID, n)})
	return r
}

// Configure records the config that a credential registered under the last name, if that has
// number n, and gives the claim back. Only a runner before draining takes a config: what
// is registered for any other, the reaper deletes. It needs the runner.
func (c Case) Configure(now time.Time, n int, sealed string, runnerID int64, credential string) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if name, ok := r.NextName(); !ok || name.N != n || !r.State.Usable() {
			return
		}
		r.Names = slices.Clone(r.Names)
		r.Names[len(r.Names)-1].RunnerID, r.Names[len(r.Names)-1].Credential = runnerID, credential
		r.Config = Config{N: n, Sealed: sealed, RunnerID: runnerID}
		r.Wait, r.WaitUntil, r.Unminted, r.Lease = "", time.Time{}, nil, Lease{}
		r.ListeningAt, r.MissedAt = time.Time{}, time.Time{}
		text := fmt.Sprintf("registered at GitHub: config %d", n)
		if at := r.Where(); at.Kind == OrganizationScope {
			text += fmt.Sprintf(", in the runner group %s of %s", at.Group, at.Name)
		}
		*r = r.note(now, text).release(now)
	})
}

// RegisteredBy names the credential that registered a runner's current config. Empty: that
// is not known.
func (r Runner) RegisteredBy() string {
	for _, g := range r.Names {
		if g.N == r.Config.N {
			return g.Credential
		}
	}
	return ""
}

// SpendName records why GitHub did not register name n, and writes the next one ahead.
// It needs the runner.
func (c Case) SpendName(now time.Time, n int, code, text, controlPlane string) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if last, ok := r.NextName(); !r.State.Usable() || ok && last.N > n {
			return
		}
		*r = r.Unregistered(now, code, text).writeAhead(controlPlane)
	})
}

// Unregistrable drains a runner that is never registered again, and lets the request
// that launched it learn of why. It needs the runner, its lock and that request.
func (c Case) Unregistrable(now time.Time, lim Limits, why Failure) Decision {
	return decide(c, func(d *Decision) {
		if d.Runner.State.Usable() {
			d.Runner = d.Runner.release(now)
			d.drain(now, why)
			d.settle(now, lim)
		}
	})
}

// Unregistered records why a registration came to nothing: in the story once, however
// often the same is said.
func (r Runner) Unregistered(now time.Time, code, text string) Runner {
	tries := 1
	if r.Unminted != nil && r.Unminted.Code == code {
		tries += r.Unminted.Tries
	}
	if r.Unminted == nil || r.Unminted.Code != code || r.Unminted.Text != text {
		r = r.note(now, "not registered at GitHub: "+text)
	}
	r.Lease = Lease{} // it is used up
	r.Unminted = &Unminted{Code: code, Text: text, Tries: tries}
	return r
}

// Crowded reports whether r has MaxNames names without a known outcome. The next
// one is not registered then, until the reaper has asked GitHub about the others:
// so it stays one that was never used.
func (r Runner) Crowded() bool {
	n := 0
	for _, g := range r.Names {
		if g.RunnerID == 0 {
			n++
		}
	}
	return n >= MaxNames
}

// Forget drops a name that GitHub no longer has.
func (r Runner) Forget(n int) Runner {
	r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(g GitHubName) bool { return g.N == n })
	return r
}

// Unused returns the names that may be deleted at GitHub now: while the runner can
// still use them, all but the current config's and the next one, and all after its
// end.
func (r Runner) Unused() []GitHubName {
	if r.State.Final() {
		return r.Names
	}
	next, _ := r.NextName()
	var out []GitHubName
	for _, g := range r.Names {
		if g.N != r.Config.N && g.N != next.N {
			out = append(out, g)
		}
	}
	return out
}
