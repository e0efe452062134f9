package store

import (
	"fmt"
	"time"
)

// The budget of a runner is what its machine may have written into its record: a bucket
// that fills on its own, and from which each write is paid. It is one time in the record,
// written with what it pays for, so that it costs no write and holds over any number of
// processes, and nothing that the machine says goes into it.
//
// A shared runner with a job every 20 s, which is as fast as GitHub, the runner program
// and a new config allow, is online, starts a job, knows its run, ends it and asks for
// the next config 180 times an hour: 180 × (4 × 1 s + 4 s) = 1,440 s of an hour's 3,600.
// A machine with one job of an hour pays 8 s and a note. So a machine that does what it
// is for never sees the end of its budget, and one that floods has at most
// 3,600 + 240 events written in its first hour, 3,600 in each later one.
const (
	// budgetBucket is how much may be spent at once, in heartbeats: 240 s. What a
	// machine kept to itself in an outage is said in one go, and is a few dozen events.
	budgetBucket = 12
	// priceEvent is that of an event, in parts of a heartbeat: 1 s. The reaper reads,
	// decides and writes in a tenth of that.
	priceEvent = 1.0 / 20
	// priceConfig is that of a call for the next config: 4 s. Each makes a worker call
	// GitHub, and GitHub grants 5,000 calls an hour to all: 900 is what one machine gets.
	priceConfig = 4.0 / 20
	// priceNote is that of what people alone read: 30 s. Half of the bucket is not for
	// notes, so that they leave room for what matters: four at once, and two a minute.
	priceNote = 30.0 / 20
)

// OverBudget is what a machine waits for whose event the budget has no room for.
const OverBudget = "budget"

// pay pays for what the decision writes. If the budget has no room for it the decision
// is taken back, which is an alarm, and a write, once in a runner's life. Then it waits
// until there is room, unless it is for people alone: that is left out.
func (d *Decision) pay(now time.Time, lim Limits, price float64) bool {
	cost, room := times(lim.Heartbeat, price), times(lim.Heartbeat, budgetBucket)
	if price == priceNote {
		room /= 2
	}
	spent := maxTime(now, d.was.Runner.SpentUntil).Add(cost)
	if !spent.After(now.Add(room)) {
		d.Runner.SpentUntil = spent
		return true
	}
	next := d.was
	*d = Decision{Case: &next, was: d.was}
	if d.Runner.FloodAt.IsZero() {
		d.Runner.FloodAt = now
		d.Runner = d.Runner.note(now, "the machine says more than is written down")
		d.Alarm = AlarmFlood
	}
	if price != priceNote {
		d.Wait = Wait{OverBudget, spent.Add(-room)}
	}
	return false
}

func times(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

// remark adds what is for people alone to the story of a runner that is in its time, if
// the budget has room for it, and how much was left out before.
func (d *Decision) remark(now time.Time, lim Limits, e Event) {
	r, l := &d.Runner, d.Lock
	what := "agent"
	if e.Kind == EventBooting {
		what = "agent runs"
	}
	again := e.Counter <= r.Counter || e.Kind == EventBooting && r.Counter > 0
	if again || !r.State.Usable() || !l.Names(r.ID) || !now.Before(l.Exp) {
		return
	}
	text := withDetail(what, e.Detail)
	if e.LeftOut > 0 {
		text = fmt.Sprintf("%s (%d before it were left out)", text, e.LeftOut)
	}
	*r = r.note(now, text)
	if d.pay(now, lim, priceNote) {
		r.Counter, r.LeftOut = e.Counter, r.LeftOut+e.LeftOut
	}
}

// ForPeople reports whether an event only adds to the history: it may be left out.
func (e Event) ForPeople() bool { return e.Kind == EventNote || e.Kind == EventBooting }
