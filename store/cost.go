package store

import (
	"slices"
	"strings"
	"time"
)

// Price is what an hour of one machine costs, and where it is. Each is its zero value where
// nobody knows it.
type Price struct {
	Hour MicroUSD
	Zone string
}

// PriceOf returns the price of r's machine, as it is known now. That of dedicated tenancy is
// not known: it has other prices, and one for each region beside them.
func (r Runner) PriceOf(spot, list Prices) Price {
	hour, zone := PriceOf(r.Placement(), spot, list)
	if r.Launch.Options.Tenancy == Dedicated {
		hour = 0
	}
	return Price{hour, zone}
}

// Cost is what a machine cost. Its zero value is that of a runner that has none, or that
// ended before there was such a thing.
type Cost struct {
	Zone string `json:"zone,omitempty"` // empty: not known
	// Hour is the price of an hour when the machine ended. Zero: not known, and Total neither.
	Hour MicroUSD `json:"hour,omitempty"`
	// From is when it was launched, To when EC2 was asked to end it, or showed that it had.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Seconds are the whole ones between them.
	Seconds int64    `json:"seconds,omitempty"`
	Total   MicroUSD `json:"total,omitempty"`
}

// leastCharged is for how long EC2 charges a machine at least: it counts by the second, from
// a minute on (https://aws.amazon.com/ec2/pricing/on-demand/).
const leastCharged = 60

// CostAt returns what the machine of r has cost by now at a price, or in all if r has ended.
func (r Runner) CostAt(now time.Time, p Price) Cost {
	switch {
	case r.State == RunnerEnded:
		return r.Cost
	case r.InstanceID == "":
		return Cost{}
	}
	return r.costAt(now, p)
}

// costAt is CostAt of a machine that there is, whatever its runner's state.
func (r Runner) costAt(now time.Time, p Price) Cost {
	c := Cost{Zone: p.Zone, Hour: p.Hour, From: r.LaunchedAt, To: now}
	if c.From.IsZero() { // its launch was never answered
		c.From = r.CalledAt
	}
	if !r.TerminatedAt.IsZero() {
		c.To = r.TerminatedAt
	}
	c.To = maxTime(c.From, c.To) // clocks differ
	c.Seconds = int64(c.To.Sub(c.From) / time.Second)
	c.Total = (c.Hour*MicroUSD(max(c.Seconds, leastCharged)) + 1800) / 3600
	return c
}

// Usage is what the machines of one repository did that ended on one day, in UTC: the whole
// of each, also if it was launched the day before.
type Usage struct {
	Meta
	ID         string     `json:"id"` // <day>#<Repository.Key>
	Repository Repository `json:"repository"`
	Rows       []UsageRow `json:"rows,omitempty"`
}

// UsageRow is the part of it that has this in common.
type UsageRow struct {
	Account string `json:"account"`
	// Workflow is the name of the one whose run the machine was launched for. Empty: it was
	// for none, or none is known.
	Workflow     string `json:"workflow,omitempty"`
	InstanceType string `json:"instance_type"`
	Market       string `json:"market"`

	Runners int   `json:"runners"`
	Seconds int64 `json:"seconds"`
	// Cost is that of the seconds whose price is known. Unpriced are the others.
	Cost     MicroUSD `json:"cost"`
	Unpriced int64    `json:"unpriced_seconds,omitempty"`
}

// OtherWorkflows is where what a day's item has no room for is counted: beside maxUsageRows
// rows, for each account, instance type and market.
const OtherWorkflows = "(others)"

const (
	// maxUsageRows bounds an item: with 200 bytes each, it stays below half of what DynamoDB
	// takes.
	maxUsageRows = 500
	// maxWorkflow bounds a workflow's name in a row, in bytes: it is anybody's text.
	maxWorkflow = 100
	// usageKeep is how long the usage of a day is kept: a year and a month, so that a month
	// can be compared with that of the year before.
	usageKeep = 396 * 24 * time.Hour
)

const dayForm = time.DateOnly

// UsageRef names the usage of a repository on the day of a time.
func UsageRef(at time.Time, repo Repository) Ref {
	return Ref{KindUsage, at.UTC().Format(dayForm) + "#" + repo.Key()}
}

// Day returns the day that u is about, as 2006-01-02.
func (u *Usage) Day() string {
	day, _, _ := strings.Cut(u.ID, "#")
	return day
}

// begins returns when that day begins; the zero time for an item that has none.
func (u *Usage) begins() time.Time {
	at, err := time.Parse(dayForm, u.Day())
	if err != nil {
		return time.Time{}
	}
	return at
}

// Ref implements Item.
func (u *Usage) Ref() Ref { return Ref{KindUsage, u.ID} }

func (u *Usage) name(id string) { u.ID = id }

// add returns u with what a runner cost, which was launched for a run of a workflow.
func (u Usage) add(now time.Time, r Runner, workflow string) Usage {
	u.Repository = r.Repository
	u.expire(now, usageKeep)
	p := r.Placement()
	row := UsageRow{Account: r.Account, Workflow: workflow[:min(len(workflow), maxWorkflow)], InstanceType: p.InstanceType, Market: p.Market}
	row.Workflow = strings.ToValidUTF8(row.Workflow, "")
	u.Rows = slices.Clone(u.Rows)
	i := u.row(row)
	if i < 0 && len(u.Rows) >= maxUsageRows {
		row.Workflow = OtherWorkflows
		i = u.row(row)
	}
	if i < 0 {
		i, u.Rows = len(u.Rows), append(u.Rows, row)
	}
	of := &u.Rows[i]
	of.Runners, of.Seconds, of.Cost = of.Runners+1, of.Seconds+r.Cost.Seconds, of.Cost+r.Cost.Total
	if r.Cost.Hour == 0 {
		of.Unpriced += r.Cost.Seconds
	}
	return u
}

// row returns the index of the row that has the same in common; -1: there is none.
func (u Usage) row(like UsageRow) int {
	return slices.IndexFunc(u.Rows, func(r UsageRow) bool {
		return r.Account == like.Account && r.Workflow == like.Workflow && r.InstanceType == like.InstanceType && r.Market == like.Market
	})
}

// rollUp has the runner of the case, whose machine is over, tell what it cost, and adds that
// to the usage of the day, if that was read. Both are in the commit that ends the runner, so
// that no runner is counted twice, and none is left out.
func (d *Decision) rollUp(now time.Time, p Price) {
	r := &d.Runner
	if r.InstanceID == "" {
		return // nothing was launched
	}
	r.Cost = r.costAt(now, p)
	if d.Usage.ID != "" {
		d.Usage = d.Usage.add(now, *r, d.Request.Origin.Workflow)
		d.Quota = d.Quota.spend(d.Usage.Day(), r.Cost.Total)
	}
}
