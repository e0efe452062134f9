package promise

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about the end of a world.
const (
	Nothing       Promise = "nothing is left"
	EndedInTime   Promise = "every request has an end soon after the trouble and its own limit"
	DrainedInTime Promise = "every runner has an end soon after the trouble and its drain"
	Age           Promise = "no machine outlives its hard limit and a run of the reaper"
	OneEach       Promise = "a caller who repeats his call gets one request"
	Hidden        Promise = "no secret can be read anywhere"
)

// finalPromises are about what is there when all is over.
type finalPromises struct{ *History }

// sawPace looks at the slots of all RunInstances calls: they come from a bucket
// of five that fills at two a second, unless the account says otherwise.
func (p finalPromises) sawPace() {
	for _, where := range slices.Sorted(maps.Keys(p.slots)) {
		p.sawPaceOf(slices.SortedFunc(slices.Values(p.slots[where]), time.Time.Compare))
	}
}

// sawPaceOf looks at the slots of one account in one region.
func (p finalPromises) sawPaceOf(slots []time.Time) {
	burst, interval := 5.0, 500*time.Millisecond
	if a := p.Account.Pacing; a != (store.Pacing{}) {
		burst, interval = float64(a.Burst), time.Duration(a.IntervalMS)*time.Millisecond
	}
	room := burst
	for i, at := range slots {
		if i > 0 {
			room = min(burst, room+at.Sub(slots[i-1]).Seconds()/interval.Seconds())
		}
		room--
		p.hold(Paced, room >= -0.001, "slot %d of %d, at %s, is before its time", i+1, len(slots), at)
	}
}

// sawHealed looks at what must hold when nothing is left of a world whose trouble
// ended at a time.
func (p finalPromises) sawHealed(healed time.Time) {
	forgiven := func(g simgithub.Registration) bool {
		return p.confirmations.lied[setting.RunnerIn(g.Name)] || p.unlisted(g)
	}
	left := slices.DeleteFunc(p.GitHub.Registrations(), forgiven)
	p.hold(Nothing, len(left) == 0, "%d registrations are left, and no machine", len(left))
	lim := p.Limits
	for _, r := range p.requests {
		by := latest(healed, r.GiveUpAt).Add(periods * lim.ReaperPeriod)
		if run := p.runners[r.Runner]; run.Version != 0 { // nobody polls it: it is looked at when its runner ought to have booted
			for _, tried := range run.Plan[:run.Index+1] { // boot_by is never lowered
				by = latest(by, run.CalledAt.Add(run.Launch.BootLimit(tried, *lim)+lim.SettleSlack+2*lim.ReaperPeriod))
			}
		}
		p.hold(EndedInTime, r.State.Final() && !r.EndedAt.After(by), "request %s is %s at %s, want an end by %s", r.ID, r.State, r.EndedAt, by)
	}
	p.sawDrained(healed)
	for _, m := range p.Fleet.Instances() {
		by := latest(healed, m.LaunchedAt.Add(p.Account.Hard(*lim))).Add(2*lim.ReaperPeriod + setting.Stopping + slack)
		if r := p.runners[p.tagged(m)]; r.InstanceID != m.ID {
			by = latest(healed, p.released, m.LaunchedAt.Add(lim.OrphanAge)).Add(2*lim.SweepPeriod + lim.ReaperPeriod + slack)
		}
		p.hold(Age, !m.EndsAt.IsZero() && !m.EndsAt.After(by), "machine %s ends at %s, want an end by %s", m.ID, m.EndsAt, by)
	}
}

// periods is within how many runs of the reaper whatever is due has an end.
const periods = 5

// sawDrained is sawHealed of the runners.
func (p finalPromises) sawDrained(healed time.Time) {
	jobs := map[string]time.Time{} // when the last one of a runner ended
	for _, j := range p.jobs() {
		if id := setting.RunnerIn(j.RunnerName); !j.StartedAt.IsZero() {
			jobs[id] = latest(jobs[id], j.EndedAt)
		}
	}
	lim := p.Limits
	for _, r := range p.runners {
		by := latest(healed, r.DrainingAt, r.CalledAt.Add(lim.GoneAge), earliest(jobs[r.ID], r.Hard)).Add(lim.Grace + lim.GoneGap + periods*lim.ReaperPeriod)
		if p.confirmations.busy[r.ID] { // GitHub said that a job runs, and is asked again ever more seldom
			by = by.Add(lim.DeleteAgain)
		}
		stopped, off := p.stopped[r.InstanceID]
		switch {
		case off: // no job is on it, whatever GitHub says
			by = latest(healed, stopped.Add(lim.Lost), r.DrainingAt, r.CalledAt.Add(lim.GoneAge)).Add(lim.GoneGap + periods*lim.ReaperPeriod)
		case jobRuns(r) || p.confirmations.lied[r.ID]: // the end waits for a job that it knows of
			by = latest(by, r.Hard.Add(lim.GoneGap+periods*lim.ReaperPeriod))
		}
		p.hold(DrainedInTime, r.State.Final() && !r.EndedAt.After(by), "runner %s is %s at %s, want an end by %s", r.ID, r.State, r.EndedAt, by)
	}
}

// Orphans returns the machines that no live record counts on, and the
// registrations at GitHub without a live runner that no record remembers either.
func (p finalPromises) Orphans() (left []string) {
	machines := p.Fleet.Instances()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range machines {
		r := p.runners[p.tagged(m)]
		if !m.State.Over() && (r.Version == 0 || r.State.Final() || r.InstanceID != m.ID) {
			left = append(left, fmt.Sprintf("machine %s of runner %s, which is %q and has instance %q", m.ID, r.ID, r.State, r.InstanceID))
		}
	}
	for _, g := range p.GitHub.Registrations() {
		r := p.runners[setting.RunnerIn(g.Name)]
		known := slices.ContainsFunc(r.Names, func(n store.GitHubName) bool { return n.Name == g.Name })
		if p.confirmations.lied[r.ID] || p.unlisted(g) {
			continue // what said that its job is done may be deleted by GitHub, a day later
		}
		if r.Version == 0 || r.State.Final() && !known {
			left = append(left, fmt.Sprintf("registration %s of a runner that is %q", g.Name, r.State))
		}
	}
	slices.Sort(left)
	return left
}

// unlisted reports whether the reaper does not look where a registration is, since no
// record of a runner is of there: a check made it, or the record was deleted early. GitHub
// deletes it when it has not connected for a day
// (https://docs.github.com/en/actions/reference/runners/self-hosted-runners).
func (p finalPromises) unlisted(g simgithub.Registration) bool {
	for _, r := range p.runners {
		if at := placeOf(r); p.kept(store.Ref{Kind: store.KindRunner, ID: r.ID}) && (at == g.RepositoryID || at == "@"+g.OrganizationID) {
			return false
		}
	}
	return !g.Online
}

// Left returns everything that is not over: open requests, runners and machines
// that live, registrations, and names that may still be at GitHub.
func (p finalPromises) Left() []string {
	left := p.Orphans()
	machines := p.Fleet.Instances()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if !r.State.Final() {
			left = append(left, fmt.Sprintf("request %s, %s %s", r.ID, r.State, r.Wait))
		}
	}
	for _, r := range p.runners {
		if !r.State.Final() || !r.DueAt.IsZero() {
			left = append(left, fmt.Sprintf("runner %s, %s, with names %v", r.ID, r.State, r.Names))
		}
	}
	for _, m := range machines {
		if !m.State.Over() {
			left = append(left, fmt.Sprintf("machine %s, %s", m.ID, m.State))
		}
	}
	slices.Sort(left)
	return left
}

// Secret is a secret, or as much of it as nobody could guess.
type Secret struct{ What, Text string }

// secrets returns all secrets of the world.
func (p finalPromises) secrets() []Secret {
	out := slices.Clone(p.Secrets)
	for _, g := range p.GitHub.Minted() {
		c := g.Config.Reveal()
		out = append(out, Secret{"the config of " + g.Name, c[len(c)/2 : len(c)/2+64]}) // all begin alike
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.runners {
		for i := range r.Index + 1 {
			if t, err := p.Keys.Boot(r.Launch.KeyID, r.ID, i); err == nil {
				out = append(out, Secret{fmt.Sprintf("boot token %d of runner %s", i, r.ID), t.Reveal()})
			}
		}
		if s, err := p.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash); err == nil {
			out = append(out, Secret{"the session token of runner " + r.ID, s.Reveal()})
		}
	}
	return out
}

// readable returns the places where a secret can be read, of which one is the log.
func (p finalPromises) readable(log []byte) (found []string) {
	secrets := p.secrets()
	var begins [1 << 16]bool
	by := map[string][]Secret{}
	for _, c := range secrets {
		begins[int(c.Text[0])<<8|int(c.Text[1])] = true
		by[c.Text[:4]] = append(by[c.Text[:4]], c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range append(p.texts, text{"the log", log}) {
		for i := 0; i+4 <= len(t.b); i++ {
			if !begins[int(t.b[i])<<8|int(t.b[i+1])] {
				continue
			}
			for _, c := range by[string(t.b[i:i+4])] {
				if bytes.HasPrefix(t.b[i:], []byte(c.Text)) {
					found = append(found, t.where+" shows "+c.What)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
