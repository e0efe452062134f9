package reaper

import (
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var zero time.Time

// finding is what a sweep makes of an instance.
type finding string

const (
	kept       finding = "kept"       // its record counts on it, or may come to
	terminated finding = "terminated" // its runner is over without knowing it
	unrecorded finding = "unrecorded" // it is its runner's, and nobody recorded it
	stray      finding = "stray"      // its record never counts on it again
	orphan     finding = "orphan"     // there is no record
)

// judge decides over an instance with our tag that EC2 listed before r, the
// record that its tag names, was read; with Version 0 there is none. It ends a machine
// only for what cannot change any more: a final record stays final, a runner
// takes one instance id and no second, and an index only rises. Tags can be edited
// by hand, so that such an instance is held against the instance ids of all
// live records before it is ended.
func judge(now time.Time, at fleet.Place, in fleet.Instance, r store.Runner) (_ finding, why string) {
	mine := in.ID == r.InstanceID && r.Version != 0
	switch {
	case in.State.Over() && mine && !r.State.Final():
		return terminated, ""
	case in.State.Over(), in.State == fleet.ShuttingDown:
		return kept, ""
	case r.Version == 0:
		return orphan, ""
	case r.State.Final():
		return stray, "its record is " + string(r.State)
	case mine:
		return kept, ""
	case r.InstanceID != "":
		return stray, "its record names instance " + r.InstanceID
	}
	for i := range r.Index {
		if former := (store.Runner{ID: r.ID, Index: i}); in.ClientToken == former.ClientToken() {
			return stray, fmt.Sprintf("launched late, for placement %d that was given up", i)
		}
	}
	// A worker whose claim holds has the call open, and records the answer itself.
	if in.ClientToken == r.ClientToken() && r.Account == at.Account && r.Region == at.Region &&
		r.Boot.At.IsZero() && !r.Held(now, "") {
		return unrecorded, ""
	}
	return kept, ""
}

// orphans notes the instances that no record knows, and returns those of them
// that are to be ended: old enough, and seen long enough ago. More of them at once
// than BrakeAbove, of any age, put the brake on, and then it is none.
func orphans(now time.Time, lim store.Limits, s store.Sweep, found []fleet.Instance) (store.Sweep, []fleet.Instance) {
	ids := make([]string, len(found))
	for i, in := range found {
		ids[i] = in.ID
	}
	s = s.Observe(now, ids)
	if len(found) > store.BrakeAbove {
		s = s.Brake(now, len(found))
	}
	if s.Braked() {
		return s, nil
	}
	var ripe []fleet.Instance
	for _, in := range found {
		if now.Sub(in.LaunchedAt) >= lim.OrphanAge && now.Sub(s.Instances[in.ID]) >= lim.OrphanGap {
			ripe = append(ripe, in)
		}
	}
	return s, ripe
}
