package store

import (
	"cmp"
	"reflect"
	"slices"
	"time"
)

// Case is what a rule decides over: a request, a runner and what is around them, as
// they were read. Each rule says which items it needs; an item that was not read is
// its zero value, and one that does not exist has Version 0 and its name.
type Case struct {
	Request Request // in the rules about a runner: the one that launched it, or that it was given to since
	Runner  Runner
	Lock    Lock  // that the runner, or the request, is found under
	Pulse   Pulse // of that lock's key
	Quota   Quota // of the account
	Usage   Usage // of the repository of the runner, on the day of its end
}

// With returns c with further items, as Store.Get returned them.
func (c Case) With(items ...Item) Case {
	for _, i := range items {
		switch i := i.(type) {
		case *Request:
			c.Request = *i
		case *Runner:
			c.Runner = *i
		case *Lock:
			c.Lock = *i
		case *Pulse:
			c.Pulse = *i
		case *Quota:
			c.Quota = *i
		case *Usage:
			c.Usage = *i
		}
	}
	return c
}

// itemsOf returns the items of a case, always in one order.
func itemsOf(c *Case) []Item {
	return []Item{&c.Request, &c.Runner, &c.Lock, &c.Pulse, &c.Quota, &c.Usage}
}

// Around names the items of some kinds around the runner: its lock and the pulse of that,
// its account's quota, and the request that launched it, or that it was given to since.
func (r Runner) Around(kinds ...Kind) []Ref {
	ids := map[Kind]string{KindLock: r.Lock, KindPulse: r.Lock, KindQuota: r.Account, KindRequest: cmp.Or(r.For, r.Request)}
	refs := make([]Ref, len(kinds))
	for i, k := range kinds {
		refs[i] = Ref{k, ids[k]}
	}
	return refs
}

// Decision is what a rule decides, whole. Its maker loads a Case, asks the rule,
// commits Changes if there are any, and after that sends Sends and raises Alarm. A
// commit that loses, or has no answer, is followed by none of these: the Case is
// loaded and decided again.
type Decision struct {
	// Case has the items as they are once the decision is committed.
	*Case
	// Changes are the members of one commit. None: nothing is to be written.
	Changes []Change
	// Sends are messages for workers. One that is lost is sent again by the reaper.
	Sends []Send
	// Alarm is what an operator must look at; "": nothing.
	Alarm Alarm
	// Wait says what the next step has to wait for; its zero value: nothing.
	Wait Wait
	// Need are items that the rule needs and the Case does not have. Nothing is
	// decided until it has them.
	Need []Ref

	was    Case
	checks []Kind
}

// Send asks a worker to take up a request, a runner or a check.
type Send struct {
	Item Item      // a *Request, a *Runner or a *Checkup
	Due  time.Time // when the worker is to get it
}

// Wait is a Wait code, and when it may be over.
type Wait struct {
	For   string
	Until time.Time
}

// decisionOf returns the decision that changes nothing, for a rule to work on.
func decisionOf(c Case) *Decision {
	next := c
	return &Decision{Case: &next, was: c}
}

// check demands that an item is still as it was read, if it is not written anyway.
func (d *Decision) check(k Kind) { d.checks = append(d.checks, k) }

// send adds a message.
func (d *Decision) send(i Item, due time.Time) { d.Sends = append(d.Sends, Send{i, due}) }

// need reports whether the items around the runner that c does not have are needed,
// and asks for them.
func (d *Decision) need(kinds ...Kind) bool {
	for _, ref := range d.Runner.Around(kinds...) {
		if lacks(d.was, ref.Kind) {
			d.Need = append(d.Need, ref)
		}
	}
	return d.Need != nil
}

func lacks(c Case, k Kind) bool {
	switch k {
	case KindRequest:
		return c.Request.ID == ""
	case KindLock:
		return c.Lock.Key == ""
	case KindPulse:
		return c.Pulse.Key == ""
	case KindQuota:
		return c.Quota.Account == ""
	}
	return c.Runner.ID == ""
}

// wrote reports whether the rule has changed an item of the Case.
func (d *Decision) wrote(k Kind) bool {
	switch k { // by pointers: an item in an interface would be copied
	case KindRequest:
		return !reflect.DeepEqual(&d.was.Request, &d.Request)
	case KindRunner:
		return !reflect.DeepEqual(&d.was.Runner, &d.Runner)
	case KindLock:
		return d.was.Lock != d.Lock
	case KindPulse:
		return d.was.Pulse != d.Pulse
	}
	return k == KindQuota && !reflect.DeepEqual(&d.was.Quota, &d.Quota) || k == KindUsage && !reflect.DeepEqual(&d.was.Usage, &d.Usage)
}

// done completes the decision: what differs is written, and what the rule demands is
// checked, so that no rule can forget an item that it changed.
func (d *Decision) done() Decision {
	if d.Need != nil {
		was := d.was
		return Decision{Case: &was, Need: d.Need}
	}
	for n, i := range itemsOf(d.Case) {
		switch kind := i.Ref().Kind; {
		case d.wrote(kind):
			d.Changes = append(d.Changes, Change{Item: i, Was: itemsOf(&d.was)[n]})
		case slices.Contains(d.checks, kind):
			d.Changes = append(d.Changes, Check(i))
		}
	}
	return *d
}

// decide returns what rule makes of c.
func decide(c Case, rule func(*Decision)) Decision {
	d := decisionOf(c)
	rule(d)
	return d.done()
}

// settle lets the request of the case come to what its runner means for it. Without
// the request nothing follows.
func (d *Decision) settle(now time.Time, lim Limits) {
	if d.Request.Version == 0 || d.Runner.ID == "" || d.Request.Runner != d.Runner.ID {
		return
	}
	again := false
	if d.Request, again = settle(now, lim, d.Request, d.Runner); again {
		d.remind()
	}
}

// drain drains the runner, as drain does.
func (d *Decision) drain(now time.Time, why Failure) {
	d.Runner, d.Lock = drain(now, d.Runner, d.Lock, why)
}

// Batch is decisions that are committed together, each of which was made as if those
// before it were committed already. Its zero value is empty.
type Batch struct {
	Changes []Change
}

// Add adds a decision. An item that is in the batch already is replaced; one that was
// to be checked is written if either decision writes it.
func (b *Batch) Add(d Decision) {
	for _, c := range d.Changes {
		i := slices.IndexFunc(b.Changes, func(old Change) bool { return old.Item.Ref() == c.Item.Ref() })
		if i < 0 {
			b.Changes = append(b.Changes, c)
			continue
		}
		was := b.Changes[i].Was // before any of them
		if was == nil {
			was = c.Was
		}
		b.Changes[i] = Change{Item: c.Item, CheckOnly: b.Changes[i].CheckOnly && c.CheckOnly, Was: was}
	}
}
