package worker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// group is what is committed together: everything that is decided from one lock,
// or all the intents of one account.
type group struct {
	store.Batch
	members []*start
	// after is called once the commit is done.
	after []func()
	// held are the requests of it that wait, whose messages are sent then.
	held []store.Decision
}

// round is one pass over the messages that are not settled yet: a copy of the
// items, on which each message is decided in turn, as if those before it were
// committed already.
type round struct {
	*invocation
	now      time.Time
	requests map[string]*store.Request
	locks    map[string]*store.Lock
	pulses   map[string]*store.Pulse
	quotas   map[string]*store.Quota
	accounts map[string]store.Account // the registrations that were read, each once
	images   map[wanted]resolved      // likewise of images
	groups   []*group
	byName   map[string]*group
	given    map[string]bool // the runners that were given to another request
}

// get adds the items of refs to the round.
func (r *round) get(ctx context.Context, refs []store.Ref) error {
	slices.SortFunc(refs, func(a, b store.Ref) int { return strings.Compare(a.String(), b.String()) })
	items, err := r.Store.Get(ctx, slices.Compact(refs)...)
	if err != nil {
		return err
	}
	for _, i := range items {
		r.set(i)
	}
	return nil
}

// account returns a registration, which is read once in a round.
func (r *round) account(ctx context.Context, id string) (store.Account, error) {
	if a, ok := r.accounts[id]; ok {
		return a, nil
	}
	a, err := r.Accounts.Account(ctx, id)
	if err == nil {
		r.accounts[id] = a
	}
	return a, err
}

// set makes i what is decided from next.
func (r *round) set(i store.Item) {
	switch i := i.(type) {
	case *store.Request:
		r.requests[i.ID] = i
	case *store.Lock:
		r.locks[i.Key] = i
	case *store.Pulse:
		r.pulses[i.Key] = i
	case *store.Quota:
		r.quotas[i.Account] = i
	}
}

// put adds what was decided for s to the group of that name, and makes it what is
// decided from next.
func (r *round) put(name string, s *start, d store.Decision) *group {
	g := r.group(name, s)
	g.Add(d)
	for _, c := range d.Changes {
		r.set(c.Item)
	}
	return g
}

// group returns the group of that name, with s as a member.
func (r *round) group(name string, s *start) *group {
	g := r.byName[name]
	if g == nil {
		g = &group{}
		r.byName[name] = g
		r.groups = append(r.groups, g)
	}
	g.members = append(g.members, s)
	return g
}

// lines reports whether the request has to wait for its launch, and has it wait.
func (r *round) lines(ctx context.Context, s *start, account store.Account, c store.Case) bool {
	if wait := account.OverBudget(r.now, r.Limits, c.Quota); wait.For != "" {
		r.hold(ctx, s, &c.Request, wait)
		return true
	}
	d := c.Line(r.now, r.Limits, account.MaxRunners, account.Pace(r.Limits))
	switch d.Wait.For {
	case "":
		return false
	case store.WaitPaced:
		s.until = d.Request.DueAt
		g := r.put("account "+c.Request.Account, s, d)
		g.held = append(g.held, d)
	default:
		r.hold(ctx, s, &c.Request, d.Wait)
	}
	return true
}

// writes reports whether this round has decided to write an item.
func (r *round) writes(i store.Item) bool {
	for _, g := range r.groups {
		for _, c := range g.Changes {
			if c.Item.Ref() == i.Ref() && !c.CheckOnly {
				return true
			}
		}
	}
	return false
}

// launches reports whether this round has an intent on the lock.
func (r *round) launches(l *store.Lock) bool {
	for _, g := range r.groups {
		for _, c := range g.Changes {
			if run, ok := c.Item.(*store.Runner); ok && run.ID == l.Runner && run.Version == 0 {
				return true
			}
		}
	}
	return false
}
