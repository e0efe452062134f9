package store

import "time"

// Limits are the numbers that the rules depend on. Use DefaultLimits; Divided
// makes the quick ones of `garo demo`.
type Limits struct {
	// Timeout is how long a request may use its runner when it does not say.
	Timeout time.Duration
	// GiveUp is how long a request is tried when it does not say.
	GiveUp time.Duration
	// Waits are the pauses before the second, third and fourth try: a region's
	// capacity comes back in minutes. A request is tried len(Waits)+1 times.
	Waits []time.Duration

	// BootLimit is the time from the last RunInstances call to the boot call. It
	// bounds a shareable launching lock, the life of the boot token, and a
	// machine that never boots; stock images boot in well under two minutes. An account
	// can have another, and bare metal has six times this: see Account.BootLimits.
	BootLimit time.Duration
	// ConfigLimit is the time from the first call of a launched machine until its config
	// must be there. A burst's registrations take as long as GitHub's points for them: this
	// is 1,800 of one credential. With GitHub down, one machine that waits costs less than
	// two that are launched again.
	ConfigLimit time.Duration
	// LeaseAhead is how long before its registration a machine may be launched. Most boot
	// in half of that, and then wait for it; a lease that is not used is lost, which costs
	// no more than a registration in so many.
	LeaseAhead time.Duration
	// LeaseEach is the time between two registrations of a credential: see leaseEach.
	LeaseEach time.Duration
	// InHand is how long a worker waits for a time with the work in its hand, instead of
	// having a message come then. A message's delay is in whole seconds, and messages are
	// gathered for one, so that the turns and leases of two seconds come at once.
	InHand time.Duration
	// OnlineGrace is the time from boot_by until a runner that booted must have
	// gone online: it may have to download the runner program.
	OnlineGrace time.Duration

	// Heartbeat is the agent's period.
	Heartbeat time.Duration
	// Silent is the age of the last heartbeat above which nobody may share the
	// runner any more: two periods and a slow call.
	Silent time.Duration
	// Lost is the age above which the runner counts as dead.
	Lost time.Duration
	// ShareMargin is what must be left of a runner's life for it to be shared:
	// as Silent, so that a share never lands on a runner whose end is under way.
	ShareMargin time.Duration
	// Confirmed is the age above which GitHub's word that a runner is online no
	// longer counts: nobody may share the runner until GitHub says it again. A
	// registration that GitHub forgot misleads the requests of this time and no more.
	Confirmed time.Duration
	// ConfirmAgain is the least pause before GitHub is asked again about a runner
	// that it did not show online: its view follows a connection within seconds.
	ConfirmAgain time.Duration
	// ShareStep is the smallest rise of a lock's exp or shared_at worth a write:
	// 200 requests in a burst share with one write and 199 checks.
	ShareStep time.Duration

	// Idle is how long a runner without a job may live.
	Idle time.Duration
	// Hard is the longest life of a machine when its account does not say.
	Hard time.Duration
	// HardMax is the longest that an account may say.
	HardMax time.Duration

	// Grace is the time from deregistration to the end of the machine: GitHub
	// hands out a job within 60 s or queues it again.
	Grace time.Duration
	// DeleteAgain is the longest pause between two DELETEs of a registration that
	// GitHub calls busy. The first pause is ReaperPeriod, and each doubles: a job of
	// six hours costs 27 calls, not 360.
	DeleteAgain time.Duration
	// Suspicious is how long an end may wait for a job that nobody here knows of, or
	// whose machine is silent, before a person has to look. Most jobs are shorter.
	Suspicious time.Duration
	// ReaperPeriod is the time between two runs of the reaper.
	ReaperPeriod time.Duration
	// Resend is how long after its due_at an accepted request counts as forgotten,
	// unless it is parked: see Request.Forgotten.
	Resend time.Duration
	// PollResend is the same for a request that somebody polls, after its first send.
	PollResend time.Duration
	// SettleSlack is added to boot_by for the due_at of a waiting request, so
	// that a boot in the last second is seen first.
	SettleSlack time.Duration
	// GoneAge and GoneGap: an instance is gone when its launch is GoneAge old
	// and EC2 did not find it twice, GoneGap apart. DescribeInstances is
	// eventually consistent
	// (https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html).
	GoneAge, GoneGap time.Duration
	// NameRetry and NameLife: how often, and for how long after the end of its
	// machine, a left-over name is looked for at GitHub.
	NameRetry, NameLife time.Duration

	// SweepPeriod is the time between two sweeps of an account and region.
	SweepPeriod time.Duration
	// OrphanAge and OrphanGap: a machine that no record knows is ended when so
	// old, and so long after its first sighting.
	OrphanAge, OrphanGap time.Duration
	// RogueGap is the same for a GitHub runner that no record knows.
	RogueGap time.Duration

	// StatusToken is the life of a status token.
	StatusToken time.Duration
	// Keep is how long a record is kept after its end, for the people who audit.
	Keep time.Duration
}

// BrakeAbove is how many machines a sweep may end for lack of a record: more at
// once is rather a wrong table than so many orphans, and none is ended.
const BrakeAbove = 3

// MaxPlacements bounds a plan: at a second a call, 24 tries still fit in the
// boot limit of a request's first worker and its successor.
const MaxPlacements = 24

// DefaultLimits returns the numbers of production.
func DefaultLimits() Limits {
	return Limits{
		Timeout:      time.Hour,
		GiveUp:       15 * time.Minute,
		Waits:        []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute},
		BootLimit:    5 * time.Minute,
		ConfigLimit:  10 * time.Minute,
		LeaseAhead:   time.Minute,
		LeaseEach:    leaseEach,
		InHand:       inHand,
		OnlineGrace:  2 * time.Minute,
		Heartbeat:    20 * time.Second,
		Silent:       45 * time.Second,
		Lost:         120 * time.Second,
		ShareMargin:  45 * time.Second,
		Confirmed:    2 * time.Minute,
		ConfirmAgain: 2 * time.Second,
		ShareStep:    30 * time.Second,
		Idle:         10 * time.Minute,
		Hard:         6 * time.Hour,
		HardMax:      24 * time.Hour,
		Grace:        90 * time.Second,
		DeleteAgain:  15 * time.Minute,
		Suspicious:   15 * time.Minute,
		ReaperPeriod: time.Minute,
		Resend:       time.Minute,
		PollResend:   5 * time.Second,
		SettleSlack:  10 * time.Second,
		GoneAge:      5 * time.Minute,
		GoneGap:      time.Minute,
		NameRetry:    time.Hour,
		NameLife:     24 * time.Hour,
		SweepPeriod:  5 * time.Minute,
		OrphanAge:    10 * time.Minute,
		OrphanGap:    time.Minute,
		RogueGap:     time.Hour,
		StatusToken:  24 * time.Hour,
		Keep:         30 * 24 * time.Hour,
	}
}

// AtHand reports whether a worker waits for a time in place: it has passed, or comes in
// InHand at most.
func (l Limits) AtHand(now, at time.Time) bool { return !at.After(now.Add(l.InHand)) }

// Divided returns the limits of a world that runs by times faster. What people see
// afterwards (StatusToken, Keep), what GitHub's own minute bounds (LeaseAhead) and what one
// second already bounds is as before.
func (l Limits) Divided(by int) Limits {
	d := time.Duration(by)
	for _, p := range []*time.Duration{
		&l.Timeout, &l.GiveUp, &l.BootLimit, &l.ConfigLimit, &l.LeaseEach, &l.InHand, &l.OnlineGrace, &l.Heartbeat, &l.Silent, &l.Lost,
		&l.ShareMargin, &l.Confirmed, &l.ConfirmAgain, &l.ShareStep, &l.Idle, &l.Hard, &l.HardMax, &l.Grace,
		&l.DeleteAgain, &l.Suspicious, &l.ReaperPeriod,
		&l.Resend, &l.PollResend, &l.SettleSlack, &l.GoneAge, &l.GoneGap, &l.NameRetry, &l.NameLife,
		&l.SweepPeriod, &l.OrphanAge, &l.OrphanGap, &l.RogueGap,
	} {
		*p /= d
	}
	waits := make([]time.Duration, len(l.Waits))
	for i, w := range l.Waits {
		waits[i] = w / d
	}
	l.Waits = waits
	return l
}
