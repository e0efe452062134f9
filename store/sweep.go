package store

import (
	"fmt"
	"time"
)

// Sweep is the memory of the sweeps of one account and region: what was seen
// that no record names, since when, and whether the brake is on.
type Sweep struct {
	Meta
	Key       string               `json:"key"`                 // <account>/<region>
	Instances map[string]time.Time `json:"instances,omitempty"` // first sightings, by instance id
	Runners   map[string]time.Time `json:"runners,omitempty"`   // first sightings, by <repository id>/<GitHub runner id>
	// Checked is when each repository's runners were last listed, by its id.
	Checked map[string]time.Time `json:"checked,omitempty"`
	// Versions are those of the runner programs that were seen within a day.
	Versions map[string]ProgramVersion `json:"versions,omitempty"`
	// BrakeAt is when more orphans than BrakeAbove were found at once. Until an
	// operator releases the brake, none of them is ended.
	BrakeAt    time.Time `json:"brake_at,omitzero"`
	ReleasedAt time.Time `json:"released_at,omitzero"`
	ReleasedBy string    `json:"released_by,omitempty"`
	History    History   `json:"history,omitempty"`
}

// ProgramVersion is what is known of a version of the runner program.
type ProgramVersion struct {
	SeenAt  time.Time `json:"seen_at"`           // when a runner last had it
	AskedAt time.Time `json:"asked_at,omitzero"` // when GitHub last said when it ends
	EndsAt  time.Time `json:"ends_at,omitzero"`  // zero: no date is set
}

// Ref implements Item.
func (s *Sweep) Ref() Ref { return Ref{KindSweep, s.Key} }

func (s *Sweep) name(id string) { s.Key = id }

// SweepKey returns the key of the sweep of an account's region.
func SweepKey(account, region string) string { return account + "/" + region }

// Sight returns the first sightings of what is seen now: older ones are kept,
// what is not seen any more is forgotten.
func Sight(now time.Time, known map[string]time.Time, seen []string) map[string]time.Time {
	out := make(map[string]time.Time, len(seen))
	for _, id := range seen {
		at, ok := known[id]
		if !ok {
			at = now
		}
		out[id] = at
	}
	return out
}

// Terminated tells of a machine that was ended since no record counts on it.
func (s Sweep) Terminated(now time.Time, instance, why string) Sweep {
	s.History = s.History.with(now, "terminated", "instance "+instance+": "+why)
	return s
}

// Braked reports whether the brake is on and not released.
func (s Sweep) Braked() bool { return !s.BrakeAt.IsZero() && !s.ReleasedAt.After(s.BrakeAt) }

// Brake puts the brake on, unless it is, for n machines without a record.
func (s Sweep) Brake(now time.Time, n int) Sweep {
	if s.BrakeAt.IsZero() {
		s.BrakeAt = now
		s.History = s.History.with(now, "braked", fmt.Sprintf("%d machines without a record", n))
	}
	return s
}

// Unbrake takes a released brake off once so few machines without a record are
// left that it would not come on again: a release is good for all that it was
// given for.
func (s Sweep) Unbrake(now time.Time, left int) Sweep {
	if s.BrakeAt.IsZero() || s.Braked() || left > BrakeAbove {
		return s
	}
	s.BrakeAt = time.Time{}
	s.History = s.History.with(now, "brake off", "released by "+s.ReleasedBy)
	return s
}

// Release lets the next sweep end what the brake spares.
func (s Sweep) Release(now time.Time, by string) Sweep {
	s.ReleasedAt, s.ReleasedBy = now, by
	s.DueAt = now
	s.History = s.History.with(now, "released", "by "+by)
	return s
}
