package store

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

// Sweep is the memory of the sweeps of one account and region: what was seen
// that no record names, since when, and whether the brake is on.
type Sweep struct {
	Meta
	Key       string               `json:"key"`                 // <account>/<region>
	Instances map[string]time.Time `json:"instances,omitempty"` // first sightings, by instance id
	Runners   map[string]time.Time `json:"runners,omitempty"`   // first sightings, by <scope>/<GitHub runner id>
	// Checked is when the runners of each scope were last listed. A scope is a repository's id,
	// or an organization's behind an @.
	Checked map[string]time.Time `json:"checked,omitempty"`
	// Versions are those of the runner programs that were seen within a day.
	Versions map[string]ProgramVersion `json:"versions,omitempty"`
	// Deliveries is how far the log of the account's GitHub App was read.
	Deliveries DeliveryLog `json:"deliveries,omitzero"`
	// Overflows are the repositories whose queued jobs found no room.
	Overflows Overflows `json:"overflows,omitzero"`
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

// sight returns the first sightings of what is seen now: older ones are kept,
// what is not seen any more is forgotten.
func observe(now time.Time, known map[string]time.Time, seen []string) map[string]time.Time {
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

// Sighted records which instances without a record are seen now.
func (s Sweep) Observe(now time.Time, instances []string) Sweep {
	s.Instances = observe(now, s.Instances, instances)
	return s
}

// SightedAt records which registrations without a record GitHub shows now in a scope,
// by GitHub's ids, and returns since when each is seen.
func (s Sweep) ObserveRunners(now time.Time, scope string, runners []int64) (Sweep, map[int64]time.Time) {
	prefix := scope + "/"
	ids := make([]string, len(runners))
	for i, id := range runners {
		ids[i] = prefix + strconv.FormatInt(id, 10)
	}
	seen, since := observe(now, s.Runners, ids), map[int64]time.Time{}
	for i, id := range runners {
		since[id] = seen[ids[i]]
	}
	for key, at := range s.Runners {
		if !strings.HasPrefix(key, prefix) {
			seen[key] = at
		}
	}
	s.Runners = seen
	return s, since
}

// Knows reports whether a registration without a record was seen before.
func (s Sweep) Knows(scope string, runner int64) bool {
	_, ok := s.Runners[scope+"/"+strconv.FormatInt(runner, 10)]
	return ok
}

// Keep forgets what is known of scopes other than these: nobody uses them now.
func (s Sweep) Keep(scopes []string) Sweep {
	checked, runners := map[string]time.Time{}, map[string]time.Time{}
	for _, id := range scopes {
		if at, ok := s.Checked[id]; ok {
			checked[id] = at
		}
		for key, at := range s.Runners {
			if strings.HasPrefix(key, id+"/") {
				runners[key] = at
			}
		}
	}
	s.Checked, s.Runners = checked, runners
	return s
}

// Listed records that the runners of a scope were listed.
func (s Sweep) Listed(now time.Time, scope string) Sweep {
	checked := maps.Clone(s.Checked)
	if checked == nil {
		checked = map[string]time.Time{}
	}
	checked[scope] = now
	s.Checked = checked
	return s
}

// Knowing records what is known of the versions of the runner program.
func (s Sweep) Knowing(versions map[string]ProgramVersion) Sweep {
	s.Versions = nil
	if len(versions) > 0 {
		s.Versions = versions
	}
	return s
}

// Heard records how far the log of the account's GitHub App was read, and whom it names.
func (s Sweep) Heard(l DeliveryLog) Sweep {
	s.Deliveries = l
	return s
}

// Overflowed records what is known of repositories that had no room for a job.
func (s Sweep) Overflowed(o Overflows) Sweep {
	s.Overflows = o
	return s
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

// Release overrides the brake for the next sweep.
func (s *Sweep) Release(now time.Time, by string) Decision {
	s.ReleasedAt, s.ReleasedBy = now, by
	s.DueAt = now
	s.History = s.History.with(now, "released", "by "+by)
	return s.write()
}

// Schedule makes a sweep due that is not in the index yet.
func (s *Sweep) Schedule(now time.Time) Decision {
	s.DueAt = now
	return s.write()
}

// Swept makes a sweep due again after Limits.SweepPeriod, or with the next run while
// webhooks that were not delivered are still to be looked at, or overflows to be read. When
// it was the last, since nothing is left in its region and nothing new will come, it leaves
// the index.
func (s *Sweep) Swept(now time.Time, lim Limits, last bool) Decision {
	s.DueAt = now.Add(lim.SweepPeriod)
	switch {
	case last:
		s.DueAt = time.Time{}
	case s.Deliveries.Behind(), s.Overflows.Behind(now):
		s.DueAt = now
	}
	return s.write()
}

// write returns the decision to write s, which is the only item of its commit.
func (s *Sweep) write() Decision {
	return Decision{Case: &Case{}, Changes: []Change{Put(s)}}
}
