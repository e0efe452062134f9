package sim

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// text is something that people or programs without rights can read.
type text struct {
	where string
	b     []byte
}

func (w *World) said(where string, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text{where, b})
}

// before reports whether a was of no use any more when b got its credentials: it
// shut down, or GitHub had forgotten all that it ever registered.
func (w *World) before(a, b simfleet.Fact, powerless map[string]time.Time) bool {
	at := powerless[w.tagged(a)]
	return !a.EndsAt.IsZero() && !b.CredentialedAt.Before(a.EndsAt) || !at.IsZero() && !b.CredentialedAt.Before(at)
}

// powerless returns when the last registration of each runner was removed whose
// config was recorded, so that a machine may have it; runners with one that is
// there are not in it.
func (w *World) powerless() map[string]time.Time {
	at := map[string]time.Time{}
	minted, left := w.GitHub.Minted(), w.GitHub.Registrations()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range minted {
		if id := runnerIn(g.Name); w.watch.configs[g.ID] && g.RemovedAt.After(at[id]) {
			at[id] = g.RemovedAt
		}
	}
	for _, g := range left {
		if w.watch.configs[g.ID] {
			delete(at, runnerIn(g.Name))
		}
	}
	return at
}

// runnerIn returns the id of the runner that a registration's name names.
func runnerIn(name string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(name, "garo-"+ControlPlane+"-"), "-")
	return id
}

// Orphans returns the machines that no live record counts on, and the
// registrations at GitHub without a live runner that no record remembers either.
func (w *World) Orphans() (left []string) {
	machines := w.Fleet.Instances()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range machines {
		r := w.watch.runners[w.tagged(m)]
		if !m.State.Over() && (r.Version == 0 || r.State.Final() || r.InstanceID != m.ID) {
			left = append(left, fmt.Sprintf("machine %s of runner %s, which is %q and has instance %q", m.ID, r.ID, r.State, r.InstanceID))
		}
	}
	for _, g := range w.GitHub.Registrations() {
		r := w.watch.runners[runnerIn(g.Name)]
		known := slices.ContainsFunc(r.Names, func(n store.GitHubName) bool { return n.Name == g.Name })
		if w.watch.confirmations.lied[r.ID] {
			continue // what said that its job is done may be deleted by GitHub, a day later
		}
		if r.Version == 0 || r.State.Final() && !known {
			left = append(left, fmt.Sprintf("registration %s of a runner that is %q", g.Name, r.State))
		}
	}
	slices.Sort(left)
	return left
}

// Left returns everything that is not over: open requests, runners and machines
// that live, registrations, and names that may still be at GitHub.
func (w *World) Left() []string {
	left := w.Orphans()
	machines := w.Fleet.Instances()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.watch.requests {
		if !r.State.Final() {
			left = append(left, fmt.Sprintf("request %s, %s %s", r.ID, r.State, r.Wait))
		}
	}
	for _, r := range w.watch.runners {
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

// Quiet waits until nothing is left. It fails the test if
// something still is after the limit, and returns how long it took.
func (w *World) Quiet(limit time.Duration) time.Duration {
	w.Helper()
	began := time.Now()
	for len(w.Left()) > 0 && time.Since(began) < limit {
		time.Sleep(10 * look)
	}
	for _, what := range w.Left() {
		w.Errorf("left after %s: %s", limit, what)
	}
	return time.Since(began)
}

// canary is a secret, or as much of it as nobody could guess.
type canary struct{ what, text string }

// canaries returns all secrets of the world.
func (w *World) canaries() []canary {
	out := []canary{
		{"the operator's token", operatorToken}, {"the GitHub credential", pat}, {"the external id", externalID},
		{"the id key", idKey}, {"a key", firstKey}, {"the other key", secondKey},
	}
	for _, g := range w.GitHub.Minted() {
		c := g.Config.Reveal()
		out = append(out, canary{"the config of " + g.Name, c[len(c)/2 : len(c)/2+64]}) // all begin alike
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.watch.runners {
		for i := range r.Index + 1 {
			if t, err := w.Keys.Boot(r.Launch.KeyID, r.ID, i); err == nil {
				out = append(out, canary{fmt.Sprintf("boot token %d of runner %s", i, r.ID), t.Reveal()})
			}
		}
		if s, err := w.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash); err == nil {
			out = append(out, canary{"the session token of runner " + r.ID, s.Reveal()})
		}
	}
	return out
}

// secrets returns the places where a secret can be read.
func (w *World) secrets() (found []string) {
	canaries := w.canaries()
	var begins [1 << 16]bool
	by := map[string][]canary{}
	for _, c := range canaries {
		begins[int(c.text[0])<<8|int(c.text[1])] = true
		by[c.text[:4]] = append(by[c.text[:4]], c)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range append(w.texts, text{"the log", w.log.Bytes()}) {
		for i := 0; i+4 <= len(t.b); i++ {
			if !begins[int(t.b[i])<<8|int(t.b[i+1])] {
				continue
			}
			for _, c := range by[string(t.b[i:i+4])] {
				if bytes.HasPrefix(t.b[i:], []byte(c.text)) {
					found = append(found, t.where+" shows "+c.what)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// Alarms returns the alarms that were raised, in order.
func (w *World) Alarms() []store.Alarm {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.alarms)
}

// Trace returns the effects so far.
func (w *World) Trace() []Effect {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Effect, len(w.trace))
	for i, e := range w.trace {
		out[i] = *e
	}
	return out
}

// tagged returns the id of the runner that a machine was launched for, whatever its
// tags say by now.
func (w *World) tagged(f simfleet.Fact) string {
	if was, ok := w.retagged.Load(f.ID); ok {
		return was.(string)
	}
	return f.Tags[fleet.TagRunner]
}
