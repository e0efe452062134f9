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
	if !s.registered {
		ec2.isUnregistered(ctx, s.at)
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
		next = atGitHub(ec2).registrations(ctx, s.at.Account, next)
	}
	if ec2.apply(ctx, &next, next.Swept(ec2.cfg.Now(), ec2.cfg.Limits, !s.registered && len(found) == 0)) {
		ec2.note(&next, Swept, fmt.Sprintf("%d instances, %d without a record", len(found), len(next.Instances)))
	}
}
