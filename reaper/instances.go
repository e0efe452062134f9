package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// instances compares the instances of a place with their records and ends what
// is to be ended. It is false when the records could not be read.
func (ec2 atEC2) instances(ctx context.Context, swept *sweep, s store.Sweep) (store.Sweep, bool) {
	at := swept.at
	unknown, ends, ok := ec2.compare(ctx, swept)
	if !ok {
		return s, false
	}
	now := ec2.cfg.Now()
	for _, in := range unknown {
		if _, known := s.Instances[in.ID]; !known {
			ec2.line(Line{Kind: "instance", ID: in.ID, Action: Observe, Reason: noRecord(in)})
		}
	}
	s, ripe := orphans(now, ec2.cfg.Limits, s, unknown)
	if s.Braked() {
		why := fmt.Sprintf("%d machines without a record: none is ended until an operator releases the brake", len(unknown))
		ec2.note(&s, Brake, why)
		ec2.alarm(store.AlarmBrake, s.Key, why, "account", at.Account, "region", at.Region)
	}
	for _, in := range ripe {
		ends = append(ends, termination{in.ID, noRecord(in)})
	}
	gone := ec2.endInstances(ctx, at, ends)
	for _, c := range ends {
		if gone[c.id] {
			s = s.Terminated(now, c.id, c.why)
		}
	}
	left := 0
	for _, in := range unknown {
		if !gone[in.ID] {
			left++
		}
	}
	return s.Unbrake(now, left), true
}

// wouldEnd reports whether a sweep would end a machine, and so has to know which are in
// use, whatever their tags say.
func (ec2 atEC2) wouldEnd(s *sweep) bool {
	return slices.ContainsFunc(s.found, func(in fleet.Instance) bool {
		what, _ := judge(ec2.cfg.Now(), s.at, in, s.runners[in.Tags[fleet.TagRunner]])
		return s.runners != nil && (what == stray || what == orphan)
	})
}

// compare finishes and adopts the runners that the instances belong to, and returns the
// instances without a record, and those that are to be ended for what their record says.
func (ec2 atEC2) compare(ctx context.Context, s *sweep) (unknown []fleet.Instance, ends []termination, ok bool) {
	var adopts []func(atEC2)
	for _, in := range s.found {
		run := s.runners[in.Tags[fleet.TagRunner]]
		what, why := judge(ec2.cfg.Now(), s.at, in, run)
		if what == stray || what == orphan {
			if ec2.inUse == nil {
				return nil, nil, false
			}
			if owner, mine := ec2.inUse[in.ID]; mine && fleet.PlaceOf(owner) == s.at {
				ec2.edited(owner, in)
				continue
			}
		}
		switch what {
		case terminated:
			ec2.finish(&run, in, whyOver(in))
		case unrecorded:
			adopts = append(adopts, func(ec2 atEC2) {
				ec2.guard("runner", run.ID, func() { ec2.adopt(ctx, run, in) })
			})
		case stray:
			ends = append(ends, termination{in.ID, "runner " + run.ID + ": " + why})
		case orphan:
			unknown = append(unknown, in)
		}
	}
	ec2.each(ctx, len(adopts), common(commitsAtOnce), func(q *pass, i int) { adopts[i](atEC2{q}) })
	return unknown, ends, true
}

// tagged reads the runners that the tags of the instances of a sweep name.
func (ec2 atEC2) tagged(ctx context.Context, s *sweep) {
	// Whatever the listing says, only what has our tag is ours.
	s.found = slices.DeleteFunc(s.found, func(in fleet.Instance) bool {
		return in.Tags[fleet.TagControlPlane] != ec2.cfg.ControlPlane
	})
	slices.SortFunc(s.found, func(a, b fleet.Instance) int { return cmp.Compare(a.ID, b.ID) })
	var refs []store.Ref
	seen := map[string]bool{}
	for _, in := range s.found {
		if id := in.Tags[fleet.TagRunner]; id != "" && !seen[id] {
			seen[id] = true
			refs = append(refs, store.Ref{Kind: store.KindRunner, ID: id})
		}
	}
	records, ok := read[*store.Runner](ctx, ec2.pass, "runner", refs...)
	if !ok {
		return
	}
	s.runners = map[string]store.Runner{}
	for _, run := range records {
		s.runners[run.ID] = *run
	}
}

// used returns the live runners by the instance that each names on record,
// whatever the instances' own tags say; false: they cannot be read, or the time is
// up. They are read once in a run, when a first machine would be ended, and so only
// while there is one: as many records as machines live. The index lists them all, of
// every shard; those that it lists for later are among them.
func (ec2 atEC2) used(ctx context.Context) (map[string]store.Runner, bool) {
	var refs []store.Ref
	seen := map[store.Ref]bool{}
	for ref, err := range ec2.store.Due(ctx, ec2.cfg.Now().Add(ec2.cfg.Limits.HardMax)) {
		if err != nil {
			ec2.fail("index", "", fmt.Errorf("read the index of live runners: %w", err))
			return nil, false
		}
		if ref.Kind == store.KindRunner && !seen[ref] {
			seen[ref] = true
			refs = append(refs, ref)
		}
	}
	used := map[string]store.Runner{}
	for len(refs) > 0 {
		if isLate(ctx) {
			return nil, false
		}
		runners, ok := read[*store.Runner](ctx, ec2.pass, "runner", take(&refs, mostKeys*readsAtOnce)...)
		if !ok {
			return nil, false
		}
		for _, run := range runners {
			if run.InstanceID != "" && !run.State.Final() {
				used[run.InstanceID] = *run
			}
		}
	}
	return used, true
}

// edited tells people of a machine that a live record names and whose tags say
// otherwise. It is not ended for that: the record counts more than a tag.
func (ec2 atEC2) edited(owner store.Runner, in fleet.Instance) {
	why := fmt.Sprintf("runner %s has this machine on record, and its tag %s is %.100q: somebody edited it", owner.ID, fleet.TagRunner, in.Tags[fleet.TagRunner])
	ec2.line(Line{Kind: "instance", ID: in.ID, Action: Notice, Reason: why})
	ec2.alarm(store.AlarmTags, in.ID, why, "instance", in.ID, "runner", owner.ID, "request", owner.Request, "trace", owner.Trace,
		"account", owner.Account, "region", owner.Region)
}

func noRecord(in fleet.Instance) string {
	return fmt.Sprintf("there is no record of runner %q", in.Tags[fleet.TagRunner])
}

// adopt records the instance that a launch left unrecorded, and has a worker continue
// with it.
func (ec2 atEC2) adopt(ctx context.Context, run store.Runner, in fleet.Instance) {
	if _, ok := ec2.advance(ctx, &run, func(c store.Case) store.Decision { return c.Adopt(ec2.cfg.Now(), in.ID) }); ok {
		ec2.note(&run, Adopt, "instance "+in.ID)
	}
}

// termination is the end of an instance that no record counts on, and why.
type termination struct{ id, why string }

// endInstances terminates instances, and returns the ids of those that EC2 agreed
// to end. Each that EC2 refuses to end raises an alarm.
func (ec2 atEC2) endInstances(ctx context.Context, at fleet.Place, ends []termination) map[string]bool {
	errs := make([]error, len(ends))
	if !ec2.cfg.DryRun {
		all := make([]end, len(ends))
		for i, c := range ends {
			all[i] = end{at, c.id}
		}
		errs = ec2.terminateAll(ctx, all)
	}
	gone := map[string]bool{}
	for i, c := range ends {
		switch err := errs[i]; {
		case err == nil, errors.Is(err, fleet.ErrNotFound):
			gone[c.id] = true
			ec2.line(Line{Kind: "instance", ID: c.id, Action: Terminate, Reason: c.why})
		case errors.Is(err, errLater):
			ec2.line(Line{Kind: "instance", ID: c.id, Action: Skip, Reason: err.Error()})
		default:
			ec2.fail("instance", c.id, fmt.Errorf("terminate instance %s in %s: %w", c.id, at, err))
			if refused(err) {
				ec2.alarm(store.AlarmTerminate, c.id, "a machine cannot be terminated; its own timer ends it at its hard limit",
					"instance", c.id, "account", at.Account, "region", at.Region)
			}
		}
	}
	return gone
}
