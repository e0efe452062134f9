package store

import (
	"maps"
	"slices"
	"time"
)

// Points is what a credential may still register at GitHub. Workers lease registrations
// from it, each of which has a time of its own, before they launch machines for them. What
// several credentials may register in one scope is an item of the same form.
type Points struct {
	Meta
	Credential string `json:"credential"` // as Account.CredentialName, or ScopePoints, names it
	// Next is the first time that is not leased; one that has passed is room for some at once.
	Next time.Time `json:"next_lease,omitzero"`
	// Reserve is the same of what is kept for machines that run already.
	Reserve time.Time `json:"next_reserved,omitzero"`
	// Leased is how many were leased in all.
	Leased int `json:"leased,omitempty"`
	// Told is when the last of those may ask again who found no lease.
	Told time.Time `json:"told_until,omitzero"`
	// RestsUntil is until when GitHub asked to be left alone.
	RestsUntil time.Time `json:"rests_until,omitzero"`
	// Small are the scopes that have leases, by Scope.Key: until when what each
	// leased is more than nothing, at a rate of smallLeases a minute.
	Small map[string]time.Time `json:"small,omitempty"`
}

// Ref implements Item.
func (p *Points) Ref() Ref { return Ref{KindPoints, p.Credential} }

func (p *Points) name(id string) { p.Credential = id }

// GitHub lets a credential spend 900 points in a minute at one endpoint, and takes 5 for
// a POST: 180 registrations
// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits).
// Leases have places in a row, one each leaseEach. A registration is made at most
// leaseEarly before the place of its lease, and (leaseBurst-1)*leaseEach and leaseLate after
// it. So those of any minute have places in 65.5 s, which are 173, and the reserve has 6.
const (
	leaseEach = time.Minute / 162
	// leaseBurst is how many can be had at once by who has leased none for a while.
	leaseBurst = 2
	// leaseEarly is how much sooner than its time a lease may be used: clocks differ, and
	// a launch can be faster.
	leaseEarly = time.Second
	// leaseLate is how much later: a launch can be slower, a message's delay is in whole
	// seconds, and messages are gathered for one.
	leaseLate = 3 * time.Second
	// reserveBurst and reserveEach are what is kept for machines that run already, each of
	// which keeps a job waiting: so many at once, and one in so many leases, which are 19 s.
	reserveBurst = 3
	reserveEach  = 50
	// scopeEach is the time between two registrations in a scope by all credentials. GitHub
	// takes 1,500 in five minutes there
	// (https://docs.github.com/en/actions/reference/limits#existing-system-limits). Those of
	// any five minutes have places in 304.2 s, which are 1,462, and the reserve has 33.
	scopeEach = time.Minute / 288
	// smallLeases is how many leases a scope may have in a minute and still count as small.
	smallLeases = 5
)

// Lease is the right to register one runner at GitHub, about its time and not long after
// it. Nobody gives one back: one that is not used expires. Its zero value is none.
type Lease struct {
	Credential string    `json:"credential"`
	At         time.Time `json:"at"`
}

// Usable reports whether a registration may be made by the lease now.
func (l Lease) Usable(now time.Time) bool {
	return !l.Soon(now) && !now.After(l.At.Add(leaseLate))
}

// From is when the lease is usable first, shortly before its time.
func (l Lease) From() time.Time { return l.At.Add(-leaseEarly) }

// Soon reports whether the time of the lease has not come yet.
func (l Lease) Soon(now time.Time) bool { return now.Before(l.From()) }

// LeaseWish is who wants a lease.
type LeaseWish struct {
	Scope string // the Key of where it registers
	// Waited: the time has come that it was given, or its machine was launched. Others do
	// not go before it.
	Waited bool
	// Runs: its machine has had jobs, and the next one waits for it.
	Runs bool
	// Launches: the registration follows a launch, which takes, with the commit before it,
	// about as long as a worker waits in place.
	Launches bool
	// From is when the lease may be for first; zero: now.
	From time.Time
}

// ScopePoints names what all credentials together may register in a scope, which is named
// by its Key.
func ScopePoints(scope string) string { return "scope " + scope }

// scopeEach is scopeEach for the limits.
func (l Limits) scopeEach() time.Duration { return l.LeaseEach * scopeEach / leaseEach }

// LeaseOf leases a registration for a scope from the one of the credentials that can make it
// first, which is the one that has most left. scope is what all credentials may register in
// the scope together; nil: there is no other than the one given, which alone cannot exceed
// that. Otherwise it is as Points.Lease, but that there is no change where the scope has no room.
func LeaseOf(now time.Time, lim Limits, credentials []Points, scope *Points, w LeaseWish) (best Decision, l Lease) {
	var row time.Time // of the best
	for _, p := range credentials {
		d, of := p.Lease(now, lim, w)
		better := of != (Lease{}) && (l == (Lease{}) || of.At.Before(l.At) || of.At.Equal(l.At) && p.Next.Before(row))
		if of == (Lease{}) && l == (Lease{}) {
			better = best.Case == nil || d.Wait.Until.Before(best.Wait.Until)
		}
		if better {
			best, l, row = d, of, p.Next
		}
	}
	if l == (Lease{}) || scope == nil {
		return best, l
	}
	all := lim
	all.LeaseEach = lim.scopeEach()
	// Who goes before whom, the credential's points decide.
	d, place := scope.Lease(now, all, LeaseWish{Scope: w.Scope, Waited: true, Runs: w.Runs, From: l.At})
	if place == (Lease{}) {
		return Decision{Case: &Case{}, Wait: d.Wait}, Lease{}
	}
	if place.At.After(l.At) {
		i := slices.IndexFunc(credentials, func(p Points) bool { return p.Credential == l.Credential })
		w.From, w.Waited = place.At, true
		best, l = credentials[i].Lease(now, lim, w)
	}
	best.Changes = append(best.Changes, d.Changes...)
	return best, l
}

// Lease leases a registration for a scope, for at most Limits.LeaseAhead from now. The
// last quarter of that time is for those who Waited, and for scopes with fewer than five
// leases in a minute, so that a single start is not behind a thousand. Who Runs has one at
// once, while the reserve lasts.
//
// It refuses with a Wait until it makes sense to ask again: each who is refused has
// another time, in the order in which they asked. The Decision has a change in either case.
func (p Points) Lease(now time.Time, lim Limits, w LeaseWish) (Decision, Lease) {
	d := Decision{Case: &Case{}}
	from := maxTime(maxTime(now, p.RestsUntil), w.From)
	if w.Launches {
		from = maxTime(from, now.Add(lim.InHand))
	}
	slot := maxTime(from.Add(-(leaseBurst-1)*lim.LeaseEach), p.Next)
	at := maxTime(slot, from)
	small, ahead := p.small(now, w.Scope), lim.LeaseAhead*3/4
	if small || w.Waited {
		ahead = lim.LeaseAhead
	}
	p.expire(now, lim.Keep)
	var l Lease
	reserved := maxTime(now.Add(-(reserveBurst-1)*reserveEach*lim.LeaseEach), p.Reserve)
	switch first := at.Add(-ahead); {
	case w.Runs && at.After(now) && !maxTime(reserved, from).After(now):
		l = Lease{Credential: p.Credential, At: now}
		p.Reserve = reserved.Add(reserveEach * lim.LeaseEach)
	case !first.After(now) && (small || w.Waited || !p.Told.After(now)):
		l = Lease{Credential: p.Credential, At: at}
		p.Next = slot.Add(lim.LeaseEach)
		p.Small = p.counted(now, w.Scope)
	case small:
		d.Wait = Wait{WaitGitHub, first}
	default:
		p.Told = maxTime(maxTime(p.Told, first), now).Add(lim.LeaseEach)
		d.Wait = Wait{WaitGitHub, p.Told}
	}
	if l != (Lease{}) {
		p.Leased++
	}
	d.Changes = []Change{Put(&p)}
	return d, l
}

// small reports whether a scope has fewer than smallLeases in a minute.
func (p Points) small(now time.Time, scope string) bool {
	return p.Small[scope].Sub(now) <= (smallLeases-1)*time.Minute/smallLeases
}

// counted returns Small with one more lease of a scope, and without those that are over.
func (p Points) counted(now time.Time, scope string) map[string]time.Time {
	all := maps.Clone(p.Small)
	if all == nil {
		all = map[string]time.Time{}
	}
	all[scope] = minTime(maxTime(all[scope], now).Add(time.Minute/smallLeases), now.Add(time.Minute))
	maps.DeleteFunc(all, func(_ string, until time.Time) bool { return !until.After(now) })
	return all
}

// Rest leases nothing until GitHub has been left alone for as long as it asked for. No
// change: that is known already.
func (p Points) Rest(now time.Time, lim Limits, until time.Time) Decision {
	d := Decision{Case: &Case{}}
	if until.After(p.RestsUntil) {
		p.RestsUntil = until
		p.expire(now, lim.Keep)
		d.Changes = []Change{Put(&p)}
	}
	return d
}
