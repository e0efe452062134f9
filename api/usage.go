package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// usageDays is how many days an answer is about when the caller does not say: a week.
	usageDays = 7
	// mostUsageDays is how many it may be about: a quarter.
	mostUsageDays = 92
	// mostUsage is how many days of repositories an answer is made of: 30 reads of a hundred
	// items, which is a second or two of the ten that a call may take.
	mostUsage = 3000
)

// groups are what rows can be told apart by, in the words of the API.
var groups = []string{"day", "repository", "workflow", "account", "type", "market"}

// usage answers what machines did and cost in some days.
func usage(ctx context.Context, s *server, c *call) (apitype.Usage, error) {
	v, err := c.onlooker(ctx)
	if err != nil {
		return apitype.Usage{}, err
	}
	from, to, err := days(c, s.Now().UTC())
	if err != nil {
		return apitype.Usage{}, err
	}
	by := []string{"repository"}
	if c.query.Has("by") {
		by = strings.Split(c.query.Get("by"), ",")
	}
	for i, g := range by {
		if !slices.Contains(groups, g) || slices.Contains(by[:i], g) {
			return apitype.Usage{}, invalid("by", "Want some of %s, each once, with commas between them.", strings.Join(groups, ", "))
		}
	}
	f := store.Filter{Kind: store.KindUsage, Since: from, Repository: c.query.Get("repository")}
	if c.query.Has("repository") && !isRepository(f.Repository) {
		return apitype.Usage{}, invalid("repository", "Want owner/name, or the repository's numeric id.")
	}
	if f, err = s.ofRepository(ctx, c, v, f); err != nil {
		return apitype.Usage{}, err
	}
	out := apitype.Usage{From: from.Format(time.DateOnly), To: to.Format(time.DateOnly), By: by, Rows: []apitype.UsageRow{}}
	sums, n := map[apitype.UsageRow]*sum{}, 0
	var total sum
	for i, err := range c.store.List(ctx, f) {
		if err != nil {
			return apitype.Usage{}, outage(err)
		}
		u, ok := i.(*store.Usage)
		if !ok {
			return apitype.Usage{}, errors.New("list of usage yields " + i.Ref().String())
		}
		if u.Day() > out.To || !v.sees(u.Repository) {
			continue
		}
		if n++; n > mostUsage {
			return apitype.Usage{}, invalid("from", "These days have more than %d repositories with machines. Ask for fewer days, or for one repository.", mostUsage)
		}
		for _, r := range u.Rows {
			key := groupOf(u, r, by)
			if sums[key] == nil {
				sums[key] = new(sum)
			}
			sums[key].add(r)
			total.add(r)
		}
	}
	for key, s := range sums {
		out.Rows = append(out.Rows, s.row(key))
	}
	slices.SortFunc(out.Rows, dearest)
	out.Total = total.row(apitype.UsageRow{})
	return out, nil
}

// days returns the first and the last day that a caller asks about. now is in UTC.
func days(c *call, now time.Time) (from, to time.Time, err error) {
	to = now.Truncate(24 * time.Hour)
	for name, into := range map[string]*time.Time{"to": &to, "from": &from} {
		if !c.query.Has(name) {
			continue
		}
		if *into, err = time.Parse(time.DateOnly, c.query.Get(name)); err != nil {
			return from, to, invalid(name, "Want a day such as 2026-03-01.")
		}
	}
	if !c.query.Has("from") {
		from = to.AddDate(0, 0, 1-usageDays)
	}
	switch length := to.Sub(from); {
	case length < 0:
		return from, to, invalid("from", "Want a day that is not after to.")
	case length >= mostUsageDays*24*time.Hour:
		return from, to, invalid("from", "Want at most %d days.", mostUsageDays)
	}
	return from, to, nil
}

// groupOf returns what a row has in common with others.
func groupOf(u *store.Usage, r store.UsageRow, by []string) (key apitype.UsageRow) {
	for _, g := range by {
		switch g {
		case "day":
			key.Day = u.Day()
		case "repository":
			key.Repository = cmp.Or(u.Repository.Name, u.Repository.ID)
		case "workflow":
			key.Workflow = cmp.Or(r.Workflow, "(none)")
		case "account":
			key.Account = r.Account
		case "type":
			key.InstanceType = r.InstanceType
		case "market":
			key.Market = r.Market
		}
	}
	return key
}

// sum adds up rows.
type sum struct {
	runners           int
	seconds, unpriced int64
	cost              store.MicroUSD
}

func (s *sum) add(r store.UsageRow) {
	s.runners, s.seconds, s.unpriced, s.cost = s.runners+r.Runners, s.seconds+r.Seconds, s.unpriced+r.Unpriced, s.cost+r.Cost
}

// row returns what was added up. Where no price is known, there is no cost.
func (s *sum) row(key apitype.UsageRow) apitype.UsageRow {
	key.Runners, key.Seconds, key.UnpricedSeconds = s.runners, s.seconds, s.unpriced
	if s.cost > 0 || s.unpriced == 0 {
		key.USD = new(dollars(s.cost))
	}
	return key
}

func dollars(m store.MicroUSD) float64 { return float64(m) / 1e6 }

// dearest orders rows: by day, and then the dearest first, those without a cost last.
func dearest(a, b apitype.UsageRow) int {
	cost := func(r apitype.UsageRow) float64 {
		if r.USD == nil {
			return -1
		}
		return *r.USD
	}
	name := func(r apitype.UsageRow) string {
		return strings.Join([]string{r.Repository, r.Workflow, r.Account, r.InstanceType, r.Market}, "\x00")
	}
	return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(cost(b), cost(a)), cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(name(a), name(b)))
}

// pricing puts into what is seen of runners what an hour of those costs that have not ended.
// What they have cost so far is for the caller to say: it changes all the time, and the
// answer's ETag with it.
func (c *call) pricing(ctx context.Context, runs []store.Runner, seen []apitype.Runner) error {
	var refs []store.Ref
	for _, r := range runs {
		for _, ref := range store.PriceRefs(r.Account, r.Region) {
			if !r.State.Final() && r.InstanceID != "" && !slices.Contains(refs, ref) {
				refs = append(refs, ref)
			}
		}
	}
	if len(refs) == 0 {
		return nil
	}
	items, err := c.get(ctx, refs...)
	if err != nil {
		return err
	}
	known := map[store.Ref]store.Prices{}
	for i, it := range items {
		known[refs[i]] = *it.(*store.Prices)
	}
	for i, r := range runs {
		if r.State.Final() || r.InstanceID == "" || r.Index >= len(r.Plan) {
			continue
		}
		of := store.PriceRefs(r.Account, r.Region)
		if p := r.PriceOf(known[of[0]], known[of[1]]); p.Hour > 0 {
			seen[i].Cost = &apitype.Cost{Zone: p.Zone, HourUSD: new(dollars(p.Hour))}
		}
	}
	return nil
}

// costOf returns what a runner cost that has ended; nil: it has not, or had no machine.
func costOf(run store.Runner) *apitype.Cost {
	if run.Cost == (store.Cost{}) {
		return nil
	}
	out := &apitype.Cost{Zone: run.Cost.Zone, Seconds: run.Cost.Seconds}
	if run.Cost.Hour > 0 {
		out.HourUSD, out.USD = new(dollars(run.Cost.Hour)), new(dollars(run.Cost.Total))
	}
	return out
}
