package promise

import (
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about checks.
const (
	PartOnce  Promise = "each part of a check is done once, by one worker at a time, and a check that ended stays as it is"
	CheckEnds Promise = "a check that somebody polls is done soon after the trouble"
	Dry       Promise = "a check launches nothing"
	Clean     Promise = "a check that says that it deleted its runner did so"
)

// checkPromises are about checks.
type checkPromises struct{ *History }

// sawCheck looks at a check that was written.
func (p checkPromises) sawCheck(c *store.Checkup) {
	was := p.checks[c.ID]
	p.checks[c.ID] = *c
	if c.ID == store.LastCheck {
		p.hold(PartOnce, !c.EndedAt.IsZero() && !c.CreatedAt.Before(was.CreatedAt), "the last check began at %s and ended at %s, and the one before began at %s", c.CreatedAt, c.EndedAt, was.CreatedAt)
		return
	}
	p.hold(PartOnce, was.EndedAt.IsZero(), "check %s is written after it ended at %s", c.ID, was.EndedAt)
	done := slices.Sorted(slices.Values(c.Done))
	p.hold(PartOnce, len(slices.Compact(done)) == len(c.Done) && len(c.Done) <= len(was.Done)+1, "check %s did %q, and then %q", c.ID, was.Done, c.Done)
	if len(c.Done) > len(was.Done) {
		p.sawClean(c, c.Findings[min(len(was.Findings), len(c.Findings)):])
		p.hold(PartOnce, c.Claim.By != "" && c.Claim.By == was.Claim.By && len(c.Findings) > len(was.Findings), "check %s got a part by %q, and %q had it", c.ID, c.Claim.By, was.Claim.By)
	}
}

// sawClean looks at what the last try of a check found of a part.
func (p checkPromises) sawClean(c *store.Checkup, found []store.Finding) {
	if !slices.ContainsFunc(found, func(f store.Finding) bool { return f.Check == "registers" && f.Result == store.ResultOK }) {
		return
	}
	for _, g := range p.GitHub.Registrations() {
		p.hold(Clean, g.Name != fmt.Sprintf("garo-%s-%s-%d", setting.ControlPlane, c.ID, c.Tries), "runner %s of a check is still registered", g.Name)
	}
}

// Polled looks at a check that somebody polled until its GiveUpAt, in a world whose trouble
// ended at a time.
func (p checkPromises) Polled(id string, healed time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.checks[id]
	if c.Version == 0 || p.wiped() {
		return // the record is lost
	}
	// A worker that was killed late, and the minute after which a poll sends again.
	enough := c.GiveUpAt.Sub(latest(healed, c.CreatedAt)) > 6*time.Minute
	p.hold(CheckEnds, !enough || !c.EndedAt.IsZero(), "check %s of %s is not done at %s, and all was well since %s: it did %q", id, c.CreatedAt, c.GiveUpAt, healed, c.Done)
}

// sawDry looks at the machines that there are.
func (p checkPromises) sawDry() {
	for _, m := range p.Fleet.Instances() {
		p.hold(Dry, m.Tags[fleet.TagRunner] != setting.CheckTag, "machine %s is one of a check", m.ID)
	}
}
