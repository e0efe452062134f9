package store

import (
	"fmt"
	"time"
)

// BootVerdict is the answer to a machine's boot call.
type BootAnswer string

// The verdicts, with the statuses that they are answered with.
const (
	BootGo          BootAnswer = "go"          // 200: here is the config
	BootLater       BootAnswer = "later"       // 425: not everything is recorded yet
	BootGone        BootAnswer = "gone"        // 410: power off
	BootCompromised BootAnswer = "compromised" // 409: somebody else was here first
	BootForeign     BootAnswer = "foreign"     // 401: it comes from another instance than the launched one
)

// Boot decides a boot call whose token was verified for the runner's recorded index and,
// if its launch is vouched, for which AWS has said that it comes from that instance, unless
// its nonce is the bound one. It needs the runner and its lock, which is checked when the
// config may be answered: two runners that take turns on one lock can never both be
// answered.
//
// Nothing is bound to a vouched call before EC2's answer to the launch is recorded, so
// that another instance with the token, which a late launch can have, does no harm.
func (c Case) Boot(now time.Time, lim Limits, nonceHash, instance string) (_ Decision, verdict BootAnswer) {
	d := decide(c, func(d *Decision) {
		if verdict = d.unvouched(instance); verdict == "" {
			verdict = d.boot(now, lim, nonceHash, instance)
		}
	})
	return d, verdict
}

// unvouched returns what a call is answered that may come from another instance than the
// launched one, for whichever AWS has vouched; or "".
func (d *Decision) unvouched(instance string) BootAnswer {
	r := d.Runner
	switch {
	case !r.Launch.Vouched || !r.State.Usable() || r.InstanceID != "" && instance == r.InstanceID:
		return ""
	case r.InstanceID == "":
		return BootLater // and gone, once the boot limit drains it
	}
	d.Alarm = AlarmIdentity
	return BootForeign
}

func (d *Decision) boot(now time.Time, lim Limits, nonceHash, instance string) BootAnswer {
	r, l := &d.Runner, &d.Lock
	if r.Version == 0 || !r.State.Usable() || !now.Before(r.Hard) {
		return BootGone
	}
	bound, first := r.Boot, r.Boot.NonceHash == ""
	if r.Boot.NonceHash == "" {
		r.Boot.NonceHash, r.Boot.InstanceID = nonceHash, instance
	}
	if r.Boot.NonceHash != nonceHash || instance != r.Boot.InstanceID || r.Mismatched() {
		d.drain(now, NewEnd(EndCompromised))
		d.Alarm = AlarmCompromised
		return BootCompromised
	}
	switch {
	case r.State == RunnerOnline || r.State == RunnerBusy || !l.Names(r.ID) || l.State != LockLaunching || !now.Before(l.BootBy):
		r.Boot = bound
		return BootGone
	case r.InstanceID == "" || r.Config.N == 0:
		d.awaitConfig(now, lim, first)
		return BootLater
	case r.Boot.At.IsZero():
		r.Boot.At = now
		*r = r.transition(now, RunnerBooting, "config answered to "+instance)
	}
	d.check(KindLock)
	return BootGo
}

// awaitConfig raises boot_by for a launched machine that calls for the first time.
func (d *Decision) awaitConfig(now time.Time, lim Limits, first bool) {
	r, l := d.Runner, &d.Lock
	if first && r.InstanceID != "" { // else its launch may have to be repeated, which boot_by limits
		*l = l.bootBy(maxTime(l.BootBy, minTime(now.Add(lim.ConfigLimit), l.Hard)))
	}
}

// NextAnswer is the answer to a shared machine's call for its next config.
type NextAnswer string

// The answers.
const (
	NextReady NextAnswer = "ready" // 200: the recorded config is the one
	NextLater NextAnswer = "later" // 425: a worker is to register it
	NextDrain NextAnswer = "drain" // 200: no config any more
)

// Next decides a shared machine's call for config n. It needs the runner and its lock.
// Past the lock's exp the machine still gets configs, up to its hard limit: jobs may be
// queued for it, and DrainReason ends it when none comes.
//
// A repeated call asks a worker again, as the message may be lost: unless a worker is
// at it, or waits, and continues on its own. That is written down, so that many calls
// ask twice in a heartbeat at most.
func (c Case) Next(now time.Time, lim Limits, n int) (_ Decision, verdict NextAnswer) {
	d := decide(c, func(d *Decision) { verdict = d.next(now, lim, n) })
	return d, verdict
}

func (d *Decision) next(now time.Time, lim Limits, n int) NextAnswer {
	r, l := &d.Runner, &d.Lock
	if r.Mode != Shared || r.State != RunnerOnline || !l.Names(r.ID) || l.State != LockLive || !now.Before(r.Hard) || n > r.Config.N+1 {
		return NextDrain
	}
	if r.Config.N >= n {
		return NextReady
	}
	if r.Wanted >= n {
		if now.Sub(r.UpdatedAt) >= lim.Heartbeat/2 && !r.Held(now, "") && !now.Before(r.WaitUntil) {
			r.AskedAt = now
			d.send(r, now)
		}
		return NextLater
	}
	r.Wanted = n
	*r, *l = r.usedUp(*l)
	*r = r.note(now, fmt.Sprintf("asks for config %d", n))
	if d.pay(now, lim, priceConfig) {
		d.check(KindLock)
		d.send(&d.Runner, now)
	}
	return NextLater
}
