package promise

import (
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what an account wants of its machines.
const (
	FitFirst Promise = "no runner program starts on a machine that is not yet what its account wants"
	FitWords Promise = "a machine that could not be set up says so in its words, and its request does"
	FitOnce  Promise = "a request whose machine could not be set up gets no other"
	FitPause Promise = "a job whose machine could not be set up gets the next after a pause, and its request says why"
)

// outfits is what became of the machines' outfits, by instance.
type outfits struct {
	done  map[string]bool
	words map[string]string // of those that failed
}

// outfitPromises are about what an account wants of its machines.
type outfitPromises struct{ *History }

// Wants reports whether an account wants anything of its machines.
func Wants(o store.Outfit) bool {
	return o.Setup != (store.Setup{}) || o.JobUser.Sudo || len(o.JobUser.Groups)+len(o.Packages) > 0 || o.Hooks != (store.Hooks{}) || o.InstanceStore != "" || o.JobsRole
}

// FitOut notes that a machine is what its account wants, or in its words why not.
func (p outfitPromises) FitOut(instance, fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fault != "" {
		p.outfits.words[instance] = fault
		return
	}
	p.outfits.done[instance] = true
}

// IsFit reports whether a machine is what its account wants.
func (p outfitPromises) IsFit(instance string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outfits.done[instance]
}

// Connects looks at a runner whose program connects to GitHub.
func (p outfitPromises) Connects(runner string) {
	if !Wants(p.Account.Outfit) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.runners[runner]; r.Version != 0 {
		p.hold(FitFirst, p.outfits.done[r.Boot.InstanceID], "the program of runner %s starts, and machine %s is not set up", r.ID, r.Boot.InstanceID)
	}
}

// sawUnfit looks at why a runner begins to drain, and at one that is added.
func (p outfitPromises) sawUnfit(was, r store.Runner) {
	if was.Version == 0 {
		if at, ok := p.pausing[r.Request]; ok {
			p.hold(FitPause, time.Since(at) >= pauses, "runner %s is launched %s after request %s learnt that its machine could not be set up", r.ID, time.Since(at), r.Request)
		}
		p.hold(FitOnce, !p.unfit[r.Request] || r.OfJob(), "runner %s is launched for request %s, whose machine could not be set up", r.ID, r.Request)
	}
	if was.End != nil || r.End == nil || p.confirmations.lied[r.ID] {
		return
	}
	words, failed := p.outfits.words[r.Boot.InstanceID]
	switch r.End.Code {
	case store.EndSetup:
		p.unfit[r.Request] = true
		p.hold(FitWords, failed && strings.Contains(r.End.Text, words), "runner %s ends with %q, and its machine said %q", r.ID, r.End.Text, words)
	case store.EndAgent:
		p.hold(FitWords, !failed, "runner %s ends as if for no reason, and its machine said %q", r.ID, words)
	}
}

// pauses is how long a job's request pauses at least whose machine could not be set up: 30
// s, less by how much clocks differ and by how much earlier a request may be taken up.
const pauses = 30*time.Second - slack - 2*time.Second

// sawPause looks at the request of a workflow job that gives its machine up, after all of
// its commit was noted.
func (p outfitPromises) sawPause(was, r store.Request) {
	run := p.runners[was.Runner]
	if !r.OfJob() || was.State != store.Waiting || r.State != store.Accepted || run.End == nil || run.End.Code != store.EndSetup || run.Took.Job != "" {
		return
	}
	p.pausing[r.ID] = time.Now()
	if words := p.outfits.words[run.Boot.InstanceID]; !p.confirmations.lied[run.ID] {
		p.hold(FitPause, words != "" && strings.Contains(r.Lost, words), "request %s was accepted again for %q, and its machine said %q", r.ID, r.Lost, words)
	}
}

// sawUnfitRequest looks at a request that fails for its machine.
func (p outfitPromises) sawUnfitRequest(r store.Request) {
	run := p.runners[r.Runner]
	if r.Error == nil || r.Error.Code != store.EndSetup || run.Version == 0 || p.confirmations.lied[run.ID] {
		return
	}
	words := p.outfits.words[run.Boot.InstanceID]
	p.hold(FitWords, words != "" && strings.Contains(r.Error.Text, words), "request %s failed with %q, and machine %s said %q", r.ID, r.Error.Text, run.Boot.InstanceID, words)
}
