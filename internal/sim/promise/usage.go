package promise

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what machines cost.
const (
	RolledUp Promise = "a machine that ended is in the usage of its day once, by the commit that ends it"
	Unpriced Promise = "a machine whose price is not known is counted as such"
	RealCost Promise = "a machine costs what AWS asks for it"
	InBudget Promise = "no machine is launched once the budget of the day is spent"
	Spending Promise = "an account has spent what its usage of the day says"
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
			want[i.Repository.Key()] = a.plus(p.costOf(*i))
		case *store.Usage:
			a, was := amountOf(*i), amountOf(p.usages[i.ID])
			p.usages[i.ID] = *i
			got[i.Repository.Key()] = amount{a.runners - was.runners, a.seconds - was.seconds, a.unpriced - was.unpriced, a.cost - was.cost}
			day := i.UpdatedAt.UTC().Format(time.DateOnly)
			before := i.UpdatedAt.Add(-c.before - slack).UTC().Format(time.DateOnly)
			p.hold(RolledUp, i.Day() == day || i.Day() == before, "usage %s is written on %s", i.ID, day)
		}
	}
	p.sawSpent(c)
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

func (a amount) plus(b amount) amount {
	return amount{a.runners + b.runners, a.seconds + b.seconds, a.unpriced + b.unpriced, a.cost + b.cost}
}

// sawSpent looks at what an account has spent, and at the intents that it allows.
func (p usagePromises) sawSpent(c commit) {
	for _, i := range c.items {
		q, ok := i.(*store.Quota)
		if !ok || q.Account != p.Account.ID {
			continue
		}
		day, sum := q.UpdatedAt.UTC().Format(time.DateOnly), store.MicroUSD(0)
		for _, u := range p.usages {
			for _, r := range u.Rows {
				if r.Account == q.Account && u.Day() == day {
					sum += r.Cost
				}
			}
		}
		if q.Spent.Day == day {
			p.hold(Spending, q.Spent.Cost == sum, "account %s has spent %s, and its usage of %s says %s", q.Account, q.Spent.Cost, day, sum)
		}
		budget, _ := store.ParseUSD(p.Account.DailyBudget.USD)
		for _, i := range c.items {
			if r, ok := i.(*store.Runner); ok && r.Account == q.Account && p.runners[r.ID].Version == 0 && p.Account.DailyBudget.Wait {
				p.hold(InBudget, sum < budget, "runner %s is intended, and %s of %s are spent", r.ID, sum, budget)
			}
		}
	}
}

// costOf restates what a machine that ended has cost, from its times and the prices of the
// simulated AWS.
func (p usagePromises) costOf(r store.Runner) amount {
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
	p.hold(RealCost, !known || r.Cost.Hour == hour && hour > 0, "runner %s is said to cost %s an hour, and costs %s", r.ID, r.Cost.Hour, hour)
	if !known {
		a.unpriced = a.seconds
		return a
	}
	a.cost = (hour*store.MicroUSD(max(60, a.seconds)) + 1800) / 3600
	return a
}
