package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// sweep is one account and region to be swept.
type sweep struct {
	item store.Sweep
	at   fleet.Place
	// registered: the account still offers the region, as far as is known.
	registered bool
	// first: it is the account's first region, whose item remembers what was
	// seen at GitHub: a repository is looked at once for each account.
	first bool

	found []fleet.Instance
	err   error
}

// dueSweeps returns the sweeps that are due, in the order of their keys: those of
// all registered accounts and regions, whose items are created if they are
// missing, and those among the refs, which the index listed.
func (ec2 atEC2) dueSweeps(ctx context.Context, listed []store.Ref) []*sweep {
	if ec2.isLate(ctx) {
		return nil
	}
	all, complete := ec2.registered(ctx)
	for _, ref := range listed {
		if all[ref.ID] == nil {
			all[ref.ID] = &sweep{registered: !complete}
		}
	}
	keys := slices.Sorted(maps.Keys(all))
	var due []*sweep
	for part := range slices.Chunk(keys, batch) {
		refs := make([]store.Ref, len(part))
		for i, key := range part {
			refs[i] = store.Ref{Kind: store.KindSweep, ID: key}
		}
		items, ok := read[*store.Sweep](ctx, ec2.pass, "sweep", refs...)
		if !ok {
			continue
		}
		for _, it := range items {
			s := all[it.Key]
			s.item = *it
			account, region, _ := strings.Cut(it.Key, "/")
			s.at = fleet.Place{Account: account, Region: region}
			if s.item.DueAt.IsZero() && s.registered {
				if !ec2.apply(ctx, &s.item, s.item.Schedule(ec2.cfg.Now())) {
					continue
				}
			}
			if !s.item.DueAt.IsZero() && !s.item.DueAt.After(ec2.cfg.Now()) {
				due = append(due, s)
			}
		}
	}
	ec2.report.Sweeps = len(due)
	return due
}

// registered returns a sweep for each region of each registered account, by key,
// and whether these are all.
func (ec2 atEC2) registered(ctx context.Context) (_ map[string]*sweep, complete bool) {
	all := map[string]*sweep{}
	accounts, err := ec2.cfg.Accounts.List(ctx)
	if err != nil {
		ec2.fail("account", "", fmt.Errorf("list the accounts: %w", err))
		return all, false
	}
	complete = true
	for _, id := range accounts {
		a, err := ec2.cfg.Accounts.Account(ctx, id)
		if errors.Is(err, store.ErrNoAccount) {
			continue // taken out a moment ago
		}
		if err != nil {
			complete = false
			ec2.fail("account", id, fmt.Errorf("read the registration of account %s: %w", id, err)) // an outage: a fault in it has its own alarm
			continue
		}
		for i, region := range slices.Sorted(maps.Keys(a.Regions)) {
			all[store.SweepKey(id, region)] = &sweep{registered: true, first: i == 0}
		}
	}
	return all, complete
}

// sweeps compares EC2 and GitHub with the records. EC2 is listed before the
// records are read: a launch is recorded before it is made, so a machine that is
// seen has a record by then, if it ever had one.
func (ec2 atEC2) sweeps(ctx context.Context, due []*sweep) {
	for _, s := range due {
		s.err = errLater
	}
	ec2.each(ctx, len(due), func(i int) string { return due[i].at.Account }, func(i int) {
		s := due[i]
		s.err = ec2.askEC2(ctx, s.at, listLimit, func(ctx context.Context) error {
			for in, err := range ec2.cfg.Fleet.List(ctx, s.at, ec2.cfg.ControlPlane) {
				if err != nil {
					return err
				}
				s.found = append(s.found, in)
			}
			return nil
		})
	})
	for _, s := range due {
		if ec2.isLate(ctx) {
			return
		}
		ec2.guard("sweep", s.item.Key, func() { ec2.sweep(ctx, s) })
	}
}

// sweep does one place, and commits when that is done: a run that dies before
// then leaves it due, and whatever it did is as good when it is done twice.
func (ec2 atEC2) sweep(ctx context.Context, s *sweep) {
	next := s.item
	if s.err != nil {
		ec2.unreachable(s.at, fmt.Errorf("list the instances in %s: %w", s.at, s.err))
		if errors.Is(s.err, store.ErrNoAccount) && !s.registered {
			ec2.apply(ctx, &next, next.Swept(ec2.cfg.Now(), ec2.cfg.Limits, true))
		}
		return // nothing follows from a part of the list
	}
	// Whatever the listing says, only what has our tag is ours.
	found := slices.DeleteFunc(s.found, func(in fleet.Instance) bool {
		return in.Tags[fleet.TagControlPlane] != ec2.cfg.ControlPlane
	})
	slices.SortFunc(found, func(a, b fleet.Instance) int { return cmp.Compare(a.ID, b.ID) })
	next, ok := ec2.instances(ctx, s.at, next, found)
	if !ok {
		return
	}
	if s.first {
		next = atGitHub{ec2.pass}.registrations(ctx, s.at.Account, next)
	}
	if ec2.apply(ctx, &next, next.Swept(ec2.cfg.Now(), ec2.cfg.Limits, !s.registered && len(found) == 0)) {
		ec2.note(&next, Swept, fmt.Sprintf("%d instances, %d without a record", len(found), len(next.Instances)))
	}
}

// instances compares the instances of a place with their records and ends what
// is to be ended. It is false when the records could not be read.
func (ec2 atEC2) instances(ctx context.Context, at fleet.Place, s store.Sweep, found []fleet.Instance) (store.Sweep, bool) {
	var refs []store.Ref
	for _, in := range found {
		ref := store.Ref{Kind: store.KindRunner, ID: in.Tags[fleet.TagRunner]}
		if ref.ID != "" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	records, ok := read[*store.Runner](ctx, ec2.pass, "runner", refs...)
	if !ok {
		return s, false
	}
	runners := map[string]store.Runner{}
	for _, run := range records {
		runners[run.ID] = *run
	}

	var unknown []fleet.Instance
	var ends []termination
	for _, in := range found {
		run := runners[in.Tags[fleet.TagRunner]]
		what, why := judge(ec2.cfg.Now(), at, in, run)
		if what == stray || what == orphan {
			used, ok := ec2.used(ctx)
			if !ok {
				return s, false
			}
			if owner, mine := used[in.ID]; mine && placeOf(&owner) == at {
				ec2.edited(owner, in)
				continue
			}
		}
		switch what {
		case terminated:
			ec2.guard("runner", run.ID, func() { ec2.finish(ctx, &run, in, over(in)) })
		case unrecorded:
			ec2.guard("runner", run.ID, func() { ec2.adopt(ctx, run, in) })
		case stray:
			ends = append(ends, termination{in.ID, "runner " + run.ID + ": " + why})
		case orphan:
			unknown = append(unknown, in)
		}
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

// used returns the live runners by the instance that each names on record,
// whatever the instances' own tags say; false: they cannot be read, or the time is
// up. They are read once in a run, when a first machine would be ended, and so only
// while there is one: as many records as machines live. The index lists them all;
// those that it lists for later are among them.
func (ec2 atEC2) used(ctx context.Context) (map[string]store.Runner, bool) {
	if ec2.inUse != nil {
		return ec2.inUse, true
	}
	var refs []store.Ref
	for ref, err := range ec2.store.Due(ctx, ec2.cfg.Now().Add(ec2.cfg.Limits.HardMax)) {
		if err != nil {
			ec2.fail("index", "", fmt.Errorf("read the index of live runners: %w", err))
			return nil, false
		}
		if ref.Kind == store.KindRunner && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	used := map[string]store.Runner{}
	for part := range slices.Chunk(refs, 4*batch) {
		if ec2.isLate(ctx) {
			return nil, false
		}
		runners, ok := read[*store.Runner](ctx, ec2.pass, "runner", part...)
		if !ok {
			return nil, false
		}
		for _, run := range runners {
			if run.InstanceID != "" && !run.State.Final() {
				used[run.InstanceID] = *run
			}
		}
	}
	ec2.inUse = used
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

// adopt records the instance that a launch left unrecorded, and has a worker go on
// with it.
func (ec2 atEC2) adopt(ctx context.Context, run store.Runner, in fleet.Instance) {
	if ec2.advance(ctx, &run, store.Case{Runner: run}.Adopt(ec2.cfg.Now(), in.ID)) {
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
		for i := range errs {
			errs[i] = errLater
		}
		ec2.each(ctx, len(ends), func(int) string { return at.Account }, func(i int) {
			errs[i] = ec2.askEC2(ctx, at, callLimit, func(ctx context.Context) error {
				return ec2.cfg.Fleet.Terminate(ctx, at, ends[i].id)
			})
		})
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
