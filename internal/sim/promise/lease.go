package promise

import (
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about leases of registrations.
const (
	Leased  Promise = "each registration has a lease of its own, whose time has come"
	Alone   Promise = "a lease is committed before its intent, and on its own"
	Scoped  Promise = "what several credentials register is counted in its scope too"
	Known   Promise = "a runner's record has the credential that registered it"
	Minute  Promise = "GitHub sees no more registrations in a minute than it lets a credential make"
	NotLong Promise = "a machine starts at most a minute before its registration"
)

// leases is what a world has seen of leases.
type leases struct {
	points map[string]store.Points // by credential
	left   map[string]int          // leased and not used, by credential
	made   map[string][]time.Time  // registrations of the last minute, by credential
	by     map[string]string       // the credential of a registration, by its name
}

func newLeases() leases {
	return leases{points: map[string]store.Points{}, left: map[string]int{}, made: map[string][]time.Time{}, by: map[string]string{}}
}

// leasePromises are about leases of registrations.
type leasePromises struct{ *History }

// perMinute is how many registrations GitHub lets a credential make in a minute: 900 points
// of 5 each.
const perMinute = 900 / 5

// sawLeases looks at what a commit is about to change.
func (p leasePromises) sawLeases(c commit) {
	points, intent := false, false
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Points:
			points = true
			was := p.leases.points[i.Credential].Leased
			if i.Version == 1 || i.Leased < was {
				was = 0 // its record was deleted, and counts from the beginning
			}
			p.leases.left[i.Credential] += i.Leased - was
			p.leases.points[i.Credential] = *i
		case *store.Runner:
			for _, g := range i.Names {
				if by, ok := p.leases.by[g.Name]; ok && g.RunnerID != 0 {
					p.hold(Known, g.Credential == by, "the record has %q as what registered %s, and it was %q", g.Credential, g.Name, by)
				}
			}
			if p.runners[i.ID].Version == 0 {
				intent = true
				by := p.now(kernel.Worker) // the launch follows the commit
				p.hold(NotLong, !i.Lease.At.IsZero() && i.Lease.At.Sub(by) <= p.Limits.LeaseAhead+slack,
					"runner %s is intended at %s, and registered at %s", i.ID, by, i.Lease.At)
			}
		}
	}
	all := !slices.ContainsFunc(c.items, func(i store.Item) bool { return i.Ref().Kind != store.KindPoints })
	p.hold(Alone, !points || all && !intent, "a lease is in a commit with %d items", len(c.items))
}

// sawMint looks at a registration of a name with a credential before it is made.
func (p leasePromises) sawMint(r store.Runner, name, credential string) {
	p.leases.by[name] = credential
	now := p.now(kernel.Worker)
	p.hold(Leased, !now.Before(r.Lease.At.Add(-slack)), "runner %s is registered at %s, and its lease is for %s", r.ID, now, r.Lease.At)
	p.sawUsed(credential)
	if r.Account == p.Account.ID && len(p.Account.GitHub) > 1 {
		scope := "scope " + placeOf(r)
		p.hold(Scoped, p.leases.left[scope] > 0, "runner %s is registered without a lease of %s", r.ID, scope)
		p.leases.left[scope]--
	}
}

// sawUsed looks at a lease of a credential that is used.
func (p leasePromises) sawUsed(credential string) {
	p.hold(Leased, p.leases.left[credential] > 0, "a runner is registered without a lease of %s", credential)
	p.leases.left[credential]--
	made := p.leases.made[credential]
	for len(made) > 0 && time.Since(made[0]) >= time.Minute {
		made = made[1:]
	}
	p.leases.made[credential] = append(made, time.Now())
	p.hold(Minute, len(made) < perMinute, "%d registrations with %s within a minute", len(made)+1, credential)
}
