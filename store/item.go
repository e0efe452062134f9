package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is the kind of an item: the word before the # of its key.
type Kind string

// The kinds of item.
const (
	KindRequest Kind = "request"
	KindRunner  Kind = "runner"
	KindLock    Kind = "lock"
	KindPulse   Kind = "pulse"
	KindQuota   Kind = "quota"
	KindSweep   Kind = "sweep"
	KindSpares  Kind = "spare"
	KindPoints  Kind = "points"
	KindCheck   Kind = "check"
	KindPrices  Kind = "prices"
	KindUsage   Kind = "usage"

	KindReaperRun Kind = "reaperrun"
	KindOverflow  Kind = "overflow"
)

// Ref names one item, whether it exists or not.
type Ref struct {
	Kind Kind
	ID   string
}

// String returns the key of the item, such as "request#8f3a…".
func (r Ref) String() string { return string(r.Kind) + "#" + r.ID }

// ParseRef is the inverse of Ref.String. It accepts the known kinds alone.
func ParseRef(s string) (Ref, error) {
	kind, id, ok := strings.Cut(s, "#")
	r := Ref{Kind: Kind(kind), ID: id}
	if !ok || id == "" {
		return Ref{}, fmt.Errorf("item key %q: want kind#id", s)
	}
	if _, err := New(r); err != nil {
		return Ref{}, err
	}
	return r, nil
}

// Item is a *Request, *Runner, *Lock, *Pulse, *Quota, *Sweep, *Spares, *Points,
// *Prices, *Usage, *Checkup, *ReaperRun or *Overflow; no other type can be one.
type Item interface {
	// Ref returns the name under which the item is kept.
	Ref() Ref
	// Base returns the fields that every item has.
	Base() *Meta

	// name sets the identity that Ref reads.
	name(id string)
}

// Meta is what every item carries.
type Meta struct {
	// Version is the number of commits that wrote the item. Zero: the item is
	// absent. Commit alone changes it.
	Version int64 `json:"version"`
	// Writer names the commit that wrote this version, as <invocation>/<n>:
	// it is how a write whose answer was lost is recognised as one's own.
	Writer string `json:"writer"`
	// UpdatedAt is the writer's clock at that commit.
	UpdatedAt time.Time `json:"updated_at"`
	// DueAt puts the item into the due index: the reaper looks at it from then
	// on. Zero: not in the index.
	DueAt time.Time `json:"due_at,omitzero"`
	// TTL is the time, in Unix seconds because DynamoDB's time to live wants a
	// number, after which the backend may delete the item. Zero: never. The
	// deletion comes days late and no rule depends on it.
	TTL int64 `json:"ttl,omitempty"`
}

// Base implements Item.
func (m *Meta) Base() *Meta { return m }

// expire lets the backend delete the item once keep has passed.
func (m *Meta) expire(now time.Time, keep time.Duration) { m.TTL = now.Add(keep).Unix() }

// New returns an absent item of the kind and id that ref names.
func New(ref Ref) (Item, error) {
	var i Item
	switch ref.Kind {
	case KindRequest:
		i = new(Request)
	case KindRunner:
		i = new(Runner)
	case KindLock:
		i = new(Lock)
	case KindPulse:
		i = new(Pulse)
	case KindQuota:
		i = new(Quota)
	case KindSweep:
		i = new(Sweep)
	case KindSpares:
		i = new(Spares)
	case KindPoints:
		i = new(Points)
	case KindCheck:
		i = new(Checkup)
	case KindPrices:
		i = new(Prices)
	case KindUsage:
		i = new(Usage)
	case KindReaperRun:
		i = new(ReaperRun)
	case KindOverflow:
		i = new(Overflow)
	default:
		return nil, fmt.Errorf("item kind %q is not known", ref.Kind)
	}
	i.name(ref.ID)
	return i, nil
}

// Entry is one line of an item's story.
type Entry struct {
	At     time.Time `json:"at"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
}

// History keeps the first ten and the last forty entries: how it began and how
// it ended say most, and an item must stay far below DynamoDB's 400 KB.
type History []Entry

const (
	historyHead = 10
	historyTail = 40
)

// with returns h and one more entry; h itself is unchanged.
func (h History) with(now time.Time, state, reason string) History {
	out := append(slices.Clip(slices.Clone(h)), Entry{At: now, State: state, Reason: reason})
	if len(out) > historyHead+historyTail {
		out = slices.Delete(out, historyHead, len(out)-historyTail)
	}
	return out
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
