package promise

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about an account that is gone, and a key that is lost.
const (
	NotBefore Promise = "a runner counts as over unseen when its own timer must have ended it, and not before"
	OldKey    Promise = "nobody boots, and nothing is registered, by a key that is lost"
)

// Unreached notes that the account is removed, or begins to refuse us.
func (h *History) Unreached() { h.note(func() { h.unreached = time.Now() }) }

// KeyLost notes that a key is taken away.
func (h *History) KeyLost(kid string) { h.note(func() { h.keyLost[kid] = time.Now() }) }

// sawKey looks at a runner that boots: by an API that has its key. One that was asked
// before may still answer.
func (p endPromises) sawKey(was, r store.Runner) {
	at, lost := p.keyLost[r.Launch.KeyID]
	if lost && begins(was.Boot.At, r.Boot.At) {
		p.hold(OldKey, !r.Boot.At.After(at.Add(slack)), "runner %s boots at %s by key %s, which was lost at %s", r.ID, r.Boot.At, r.Launch.KeyID, at)
	}
}

// sawGone looks at a runner that drains since its account is gone, or its key is lost.
func (p endPromises) sawGone(was, r store.Runner) {
	if r.End.Code == store.EndNoAccount {
		p.hold(DrainsFor, !p.unreached.IsZero(), "runner %s drains since its account is gone, and it never was", r.ID)
		return
	}
	_, lost := p.keyLost[r.Launch.KeyID]
	p.hold(DrainsFor, lost && was.Boot.At.IsZero() || lost && r.Mode == store.Shared, "runner %s drains since key %s is lost, and it booted at %s", r.ID, r.Launch.KeyID, was.Boot.At)
}

// sawUnreached looks at a runner that counts as over though nobody saw the end of its
// machine.
func (p endPromises) sawUnreached(r store.Runner) {
	now := p.now(kernel.Reaper)
	p.hold(NotBefore, now.After(r.Hard.Add(p.Limits.BootLimit-slack)), "runner %s is over unseen at %s, and its hard limit is %s", r.ID, now, r.Hard)
}
