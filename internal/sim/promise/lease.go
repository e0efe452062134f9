package promise

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about leases of registrations.
const (
	Leased  Promise = "each registration has a lease of its own, whose time has come"
	Alone   Promise = "a lease is committed before its intent, and on its own"
	Minute  Promise = "GitHub sees no more registrations in a minute than it lets a credential make"
	NotLong Promise = "a machine starts at most a minute before its registration"
)

// leases is what a world has seen of leases.
type leases struct {
	points map[string]store.Points // by credential
	left   map[string]int          // leased and not used, by credential
	made   map[string][]time.Time  // registrations of the last minute, by credential
}

func newLeases() leases {
	return leases{points: map[string]store.Points{}, left: map[string]int{}, made: map[string][]time.Time{}}
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
			if p.runners[i.ID].Version == 0 {
				intent = true
				by := p.now(kernel.Worker) // the launch follows the commit
				p.hold(NotLong, !i.Lease.At.IsZero() && i.Lease.At.Sub(by) <= p.Limits.LeaseAhead+slack,
					"runner %s is intended at %s, and registered at %s", i.ID, by, i.Lease.At)
			}
		}
	}
	p.hold(Alone, !points || len(c.items) == 1 && !intent, "a lease is in a commit with %d items", len(c.items))
}

// sawMint looks at a registration with a credential before it is made.
func (p leasePromises) sawMint(r store.Runner, credential string) {
	now := p.now(kernel.Worker)
	p.hold(Leased, !now.Before(r.Lease.At.Add(-slack)), "runner %s is registered at %s, and its lease is for %s", r.ID, now, r.Lease.At)
	p.sawUsed(credential)
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
