package reaper

import (
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
	// runners are those that the tags of the found name, by id; nil: they could not be
	// read.
	runners map[string]store.Runner
}

// dueSweeps returns the sweeps that are due, in the order of their keys: those of
// all registered accounts and regions, whose items are created if they are
// missing, and those among the refs, which the index listed.
func (ec2 atEC2) dueSweeps(ctx context.Context, listed []store.Ref) []*sweep {
	all, complete := ec2.registered(ctx)
	for _, ref := range listed {
		if all[ref.ID] == nil {
			all[ref.ID] = &sweep{registered: !complete}
		}
	}
	var refs []store.Ref
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if ec2.shard.has(key) {
			refs = append(refs, store.Ref{Kind: store.KindSweep, ID: key})
		}
	}
	items, _ := read[*store.Sweep](ctx, ec2.pass, "sweep", refs...)
	items = slices.DeleteFunc(items, func(it *store.Sweep) bool { return it == nil })
	ec2.report.Places = len(items)
	for _, it := range items {
		ec2.report.Orphans += len(it.Instances)
		if it.Braked() {
			ec2.report.Braked = append(ec2.report.Braked, it.Key)
		}
		version, ends, ok := it.FirstEnd()
		if first := ec2.report.ProgramEndsAt; ok && (first.IsZero() || ends.Before(first)) {
			ec2.report.Program, ec2.report.ProgramEndsAt = version, ends
		}
	}
	scheduled := make([]bool, len(items))
	ec2.each(ctx, len(items), common(commitsAtOnce), func(q *pass, i int) {
		s := all[items[i].Key]
		s.item = *items[i]
		account, region, _ := strings.Cut(s.item.Key, "/")
		s.at = fleet.Place{Account: account, Region: region}
		scheduled[i] = !s.item.DueAt.IsZero() || s.registered && q.apply(ctx, &s.item, s.item.Schedule(q.cfg.Now()))
	})
	var due []*sweep
	for i, it := range items {
		if s := all[it.Key]; scheduled[i] && !s.item.DueAt.IsZero() && !s.item.DueAt.After(ec2.cfg.Now()) {
			due = append(due, s)
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
			if err = fmt.Errorf("read the registration of account %s: %w", id, err); !ec2.isRefused(id, "account", id, err) {
				ec2.fail("account", id, err)
			}
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
// seen has a record by then, if it ever had one. All places are swept side by side.
func (ec2 atEC2) sweeps(ctx context.Context) {
	t := &ec2.todo
	if isLate(ctx) {
		return
	}
	if !t.sweeps {
		t.due, t.sweeps = ec2.dueSweeps(ctx, t.listed), true
	}
	due := take(&t.due, len(t.due))
	for _, s := range due {
		s.err = errLater
		if s.registered {
			t.swept = append(t.swept, s.at)
		}
	}
	place := accounts(ec2AtOnce, func(i int) string { return due[i].at.Account })
	ec2.each(ctx, len(due), place, func(q *pass, i int) {
		s := due[i]
		s.err = atEC2{q}.askEC2(ctx, s.at, listLimit, func(ctx context.Context) error {
			for in, err := range q.cfg.Fleet.List(ctx, s.at, q.cfg.ControlPlane) {
				if err != nil {
					return err
				}
				s.found = append(s.found, in)
			}
			return nil
		})
		if s.err == nil {
			atEC2{q}.tagged(ctx, s)
		}
	})
	ec2.readShared(ctx, due)
	ec2.each(ctx, len(due), place, func(q *pass, i int) {
		q.guard("sweep", due[i].item.Key, func() { atEC2{q}.sweep(ctx, due[i]) })
	})
	ec2.finishAll(ctx)
	ec2.flush(ctx)
}

// readShared reads what several sweeps look at, and only if one does: the live runners,
// and the repositories of a day.
func (ec2 atEC2) readShared(ctx context.Context, due []*sweep) {
	for _, s := range due {
		if ec2.inUse == nil && ec2.wouldEnd(s) {
			ec2.inUse, _ = ec2.used(ctx)
		}
		if s.err == nil && s.first && atGitHub(ec2).looks(s.item) && ec2.recent == nil {
			ec2.recent, _ = atGitHub(ec2).recentScopes(ctx)
		}
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
	if !s.registered {
		ec2.isUnregistered(ctx, s.at)
	}
	if s.runners == nil {
		return
	}
	found := s.found
	next, ok := ec2.instances(ctx, s, next)
	if !ok {
		return
	}
	if s.first {
		next = atGitHub(ec2).registrations(ctx, s.at.Account, next)
		next = atGitHub(ec2).queued(ctx, next)
	}
	if ec2.apply(ctx, &next, next.Swept(ec2.cfg.Now(), ec2.cfg.Limits, !s.registered && len(found) == 0)) {
		ec2.note(&next, Swept, fmt.Sprintf("%d instances, %d without a record", len(found), len(next.Instances)))
	}
}
