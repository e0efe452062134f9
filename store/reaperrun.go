package store

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"
)

// ReaperRun is the last run of the reaper, or of one of its shards: when it was, what it
// left over, and what it found. It is for people alone, and no rule reads it but the one
// that writes it.
type ReaperRun struct {
	Meta
	ID string `json:"id"` // the shard's index, from 0
	// Of is how many shards there are. Zero, as one: the run was the whole.
	Of        int       `json:"of,omitempty"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	// LateMS is by how much more than Limits.ReaperPeriod the run began after the one before
	// it. Zero also for the first one.
	LateMS int64 `json:"late_ms,omitempty"`
	// Left counts what the run had no time for, by phase.
	Left     map[string]int `json:"left,omitempty"`
	Failures int            `json:"failures,omitempty"` // steps that failed
	// OldestMS is how long the oldest request in line has waited.
	OldestMS int64 `json:"oldest_ms,omitempty"`
	// GitHubLeft is how many hundredths of its calls of the hour the credential has left that
	// has least. Nil: nobody knows.
	GitHubLeft *int `json:"github_left,omitempty"`
	// LookedAt is when the sweeps were read that Braked and Program are of: this run, or an
	// earlier one if this had no time. Zero: never.
	LookedAt time.Time `json:"looked_at,omitzero"`
	Braked   []string  `json:"braked,omitempty"` // the keys of the sweeps whose brake is on
	// Program is the version of the runner program in use that GitHub refuses first, from
	// ProgramEndsAt on. Empty: GitHub has set no date for any.
	Program       string    `json:"program,omitempty"`
	ProgramEndsAt time.Time `json:"program_ends_at,omitzero"`
	// Alarms are those that runs raised within a day, the newest first, each code once.
	Alarms []Raised `json:"alarms,omitempty"`
}

// Raised is an alarm that was raised, once or several times.
type Raised struct {
	Code  Alarm     `json:"code"`
	Count int       `json:"count"`
	Since time.Time `json:"since"` // the first of these times
	At    time.Time `json:"at"`    // the last one
	Text  string    `json:"text"`  // of the last one, in a line
}

const (
	// raisedFor is how long an alarm stays that is raised no more: people look at what
	// happened overnight.
	raisedFor = 24 * time.Hour
	// maxRaised bounds the text of an alarm, in characters: all codes together are 8 KB of a
	// record that is written every minute.
	maxRaised = 300
)

// ReaperRunRefs names the records of all runs of as many shards. Zero counts as one.
func ReaperRunRefs(shards int) []Ref {
	refs := make([]Ref, max(1, shards))
	for i := range refs {
		refs[i] = Ref{KindReaperRun, strconv.Itoa(i)}
	}
	return refs
}

// Ref implements Item.
func (r *ReaperRun) Ref() Ref { return Ref{KindReaperRun, r.ID} }

func (r *ReaperRun) name(id string) { r.ID = id }

// Record keeps a run in place of the last one of its shard. In r.Alarms are those that it
// raised itself. A run that began before the last one changes nothing: the two overlapped.
func (r ReaperRun) Record(lim Limits, last ReaperRun) Decision {
	if last.StartedAt.After(r.StartedAt) {
		return Decision{Case: &Case{}}
	}
	r.Meta = last.Meta
	if !last.StartedAt.IsZero() {
		r.LateMS = max(0, r.StartedAt.Sub(last.StartedAt)-lim.ReaperPeriod).Milliseconds()
	}
	if r.LookedAt.IsZero() {
		r.LookedAt, r.Braked, r.Program, r.ProgramEndsAt = last.LookedAt, last.Braked, last.Program, last.ProgramEndsAt
	}
	r.Alarms = raisedOnce(r.EndedAt, slices.Concat(last.Alarms, r.Alarms))
	r.expire(r.EndedAt, lim.Keep)
	return Decision{Case: &Case{}, Changes: []Change{Put(&r)}}
}

// raisedOnce returns the alarms of the last day, each code once and the newest first. What
// is raised side by side comes in any order, and the result does not depend on it.
func raisedOnce(now time.Time, all []Raised) []Raised {
	slices.SortFunc(all, func(a, b Raised) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Text, b.Text)) })
	codes := map[Alarm]Raised{}
	for _, a := range all {
		if now.Sub(a.At) >= raisedFor {
			continue
		}
		if had, ok := codes[a.Code]; ok {
			a.Count, a.Since = a.Count+had.Count, had.Since
		}
		a.Text = short(a.Text, maxRaised)
		codes[a.Code] = a
	}
	return slices.SortedFunc(maps.Values(codes), func(a, b Raised) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Code, b.Code)) })
}

// FirstEnd returns the version of the runner program that ends first, among those of a
// sweep. ok is false if GitHub has set no date for any.
func (s Sweep) FirstEnd() (version string, at time.Time, ok bool) {
	for _, v := range slices.Sorted(maps.Keys(s.Versions)) {
		if ends := s.Versions[v].EndsAt; !ends.IsZero() && (at.IsZero() || ends.Before(at)) {
			version, at = v, ends
		}
	}
	return version, at, !at.IsZero()
}
