package store

import "time"

// LockState is what a lock says of the runner that it names.
type LockState string

// The states of a lock. A lock that was never written counts as empty.
const (
	LockEmpty     LockState = "empty"     // names nobody
	LockLaunching LockState = "launching" // names a runner that is not online yet
	LockLive      LockState = "live"      // names a runner that has been online
	LockDraining  LockState = "draining"  // names a runner that must not be shared
)

// Lock is the one item per key that names the runner which may be shared now.
// While it names a runner, no other runner of its key boots, goes online or is
// shared: boot, online and share all demand that the lock names theirs.
type Lock struct {
	Meta
	Key    string    `json:"key"`
	State  LockState `json:"state"`
	Runner string    `json:"runner,omitempty"`
	// Exp is until when requests may count on the runner. It only rises, never past Hard.
	Exp time.Time `json:"exp,omitzero"`
	// Hard is the runner's hard limit.
	Hard time.Time `json:"hard,omitzero"`
	// BootBy is when the runner must have booted: past it nobody calls RunInstances and
	// no boot is answered. It moves with the index, and once more when the launched
	// machine calls and GitHub has not registered it yet.
	BootBy time.Time `json:"boot_by,omitzero"`
	// Slot is the place in the line of launches that requests of the key have while the
	// lock is free, as Request.Slot has it.
	Slot time.Time `json:"slot,omitzero"`
	// Ahead says that the place is before the line, as Request.Ahead has it.
	Ahead bool `json:"ahead,omitempty"`
	// Joined is the first request that shared the runner with the one that
	// launched it. Empty: nobody did, so the launching request may end it.
	Joined string `json:"joined,omitempty"`
	// SharedAt is when the runner was last shared, to within Limits.ShareStep.
	SharedAt time.Time `json:"shared_at,omitzero"`
	// Busy: the runner has a job, as its machine says. What is shared now queues behind it.
	Busy bool `json:"busy,omitempty"`
	// CountedOn is since when requests share the runner without a job coming to it.
	// Zero: nobody does, or it is Busy.
	CountedOn time.Time `json:"counted_on,omitzero"`
	// ConfirmedAt is when GitHub last showed the runner online with the config that
	// it has. Zero: it has not, or that config is used up.
	ConfirmedAt time.Time `json:"confirmed_at,omitzero"`
}

// Ref implements Item.
func (l *Lock) Ref() Ref { return Ref{KindLock, l.Key} }

func (l *Lock) name(id string) { l.Key = id }

// Names reports whether the lock names the runner, in whatever state.
func (l Lock) Names(runner string) bool {
	return runner != "" && l.Runner == runner && l.State != LockEmpty && l.State != ""
}

// Free reports whether an intent may take the lock.
func (l Lock) Free() bool { return l.State == "" || l.State == LockEmpty || l.State == LockDraining }

// bootBy moves boot_by, and exp along with it.
func (l Lock) bootBy(t time.Time) Lock {
	l.Exp = minTime(l.Exp.Add(t.Sub(l.BootBy)), l.Hard)
	l.BootBy = t
	return l
}

// empty frees the lock; it names nobody.
func (l Lock) empty(now time.Time, lim Limits) Lock {
	l = Lock{Meta: l.Meta, Key: l.Key, State: LockEmpty}
	l.expire(now, lim.Keep)
	return l
}

// Pulse is the last sign of life of the runner that the lock of its key names.
// Heartbeats write it alone, so that they never collide with a share.
type Pulse struct {
	Meta
	Key     string    `json:"key"`
	Runner  string    `json:"runner"`
	Seen    time.Time `json:"seen"`
	Counter int64     `json:"counter"`
}

// Ref implements Item.
func (p *Pulse) Ref() Ref { return Ref{KindPulse, p.Key} }

func (p *Pulse) name(id string) { p.Key = id }

// SeenOf returns when the runner gave its last sign of life. It counts only for
// the runner that the pulse names, and is zero for any other.
func (p Pulse) SeenOf(runner string) time.Time {
	if runner == "" || p.Runner != runner {
		return time.Time{}
	}
	return p.Seen
}

// beat records a sign of life.
func (p Pulse) beat(now time.Time, lim Limits, runner string, counter int64) Pulse {
	p.Runner, p.Seen, p.Counter = runner, now, counter
	p.expire(now, lim.Keep)
	return p
}
