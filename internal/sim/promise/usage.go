package promise

import (
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what machines cost.
const (
	RolledUp Promise = "a machine that ended is in the usage of its day once, by the commit that ends it"
	Unpriced Promise = "a machine whose price is not known is counted as such"
	RealCost Promise = "a machine costs what AWS asks for it"
)

// usagePromises are about what machines cost.
type usagePromises struct{ *History }

// amount is a part of a usage, or a difference of two.
type amount struct {
	runners           int
	seconds, unpriced int64
	cost              store.MicroUSD
}

// amountOf sums up a usage.
func amountOf(u store.Usage) (a amount) {
	for _, r := range u.Rows {
		a.runners, a.seconds, a.unpriced, a.cost = a.runners+r.Runners, a.seconds+r.Seconds, a.unpriced+r.Unpriced, a.cost+r.Cost
	}
	return a
}

// sawUsage looks at what a commit is about to change: it ends machines, or writes usage, or
// both, of the same repositories.
func (p usagePromises) sawUsage(c commit) {
	want, got := map[string]amount{}, map[string]amount{}
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Runner:
			was := p.runners[i.ID]
			if i.State != store.RunnerEnded || was.State == store.RunnerEnded || i.InstanceID == "" {
				continue
			}
			a := want[i.Repository.Key()]
			want[i.Repository.Key()] = a.plus(p.costOf(*i, c.before))
		case *store.Prices:
			if _, ok := p.priced[i.Key]; !ok && len(i.Hour) > 0 {
				p.priced[i.Key] = i.UpdatedAt
			}
		case *store.Usage:
			a, was := amountOf(*i), amountOf(p.usages[i.ID])
			p.usages[i.ID] = *i
			got[i.Repository.Key()] = amount{a.runners - was.runners, a.seconds - was.seconds, a.unpriced - was.unpriced, a.cost - was.cost}
			day := i.UpdatedAt.UTC().Format(time.DateOnly)
			before := i.UpdatedAt.Add(-c.before - slack).UTC().Format(time.DateOnly)
			p.hold(RolledUp, i.Day() == day || i.Day() == before, "usage %s is written on %s", i.ID, day)
		}
	}
	for key, a := range got {
		w := want[key]
		p.hold(RolledUp, a.runners == w.runners && a.seconds == w.seconds, "the usage of %s has %d machines and %d seconds more, and %d with %d seconds ended", key, a.runners, a.seconds, w.runners, w.seconds)
		p.hold(Unpriced, a.unpriced == w.unpriced, "the usage of %s has %d seconds more without a price, want %d", key, a.unpriced, w.unpriced)
		p.hold(RealCost, a.cost == w.cost, "the usage of %s costs %s more, want %s", key, a.cost, w.cost)
	}
	for key, w := range want {
		_, ok := got[key]
		p.hold(RolledUp, ok, "%d machines of %s ended, and are in no usage", w.runners, key)
	}
}

// pricedIn returns since when a price of a runner's market is recorded. The zero time: none is.
func (p usagePromises) pricedIn(r store.Runner) time.Time {
	refs := store.PriceRefs(r.Account, r.Region)
	if r.Plan[r.Index].Market == store.Spot {
		return p.priced[refs[0].ID]
	}
	return p.priced[refs[1].ID]
}

func (a amount) plus(b amount) amount {
	return amount{a.runners + b.runners, a.seconds + b.seconds, a.unpriced + b.unpriced, a.cost + b.cost}
}

// costOf restates what a machine that ended has cost, from its times and the prices of the
// simulated AWS.
func (p usagePromises) costOf(r store.Runner, before time.Duration) amount {
	from, to := r.LaunchedAt, r.EndedAt
	if from.IsZero() {
		from = r.CalledAt
	}
	if !r.TerminatedAt.IsZero() {
		to = r.TerminatedAt
	}
	a := amount{runners: 1, seconds: max(0, int64(to.Sub(from)/time.Second))}
	at := r.Plan[r.Index]
	hour := simprices.Hour(at.InstanceType)
	if at.Market == store.Spot {
		hour = simprices.SpotHour(at.InstanceType, at.Subnet) // a subnet is a zone of its own
	}
	known := r.Cost.Hour != 0
	since := p.pricedIn(r)
	// Spot prices are read of the types that the registration names, not of those it chooses.
	unread := at.Market == store.Spot && !slices.Contains(p.Account.InstanceTypes, at.InstanceType)
	p.hold(RealCost, !known || r.Cost.Hour == hour && hour > 0, "runner %s is said to cost %s an hour, and costs %s", r.ID, r.Cost.Hour, hour)
	p.hold(Unpriced, known || unread || hour == 0 || since.IsZero() || r.UpdatedAt.Sub(since) <= before+slack, "runner %s has no price, which is recorded since %s", r.ID, since)
	if !known {
		a.unpriced = a.seconds
		return a
	}
	a.cost = (hour*store.MicroUSD(max(60, a.seconds)) + 1800) / 3600
	return a
}
