package store

import (
	"maps"
	"time"
)

// Quota counts an account's machines and paces its launches. It is part of the
// commits that it guards, so that no burst passes either.
type Quota struct {
	Meta
	Account string `json:"account"`
	// Live is how many runners are neither failed nor ended; Limit is what the
	// registration allowed when it was last written.
	Live  int `json:"live"`
	Limit int `json:"limit"`
	// Next holds, per region, the earliest slot that is not taken.
	Next map[string]time.Time `json:"next_launch,omitempty"`
}

// Ref implements Item.
func (q *Quota) Ref() Ref { return Ref{KindQuota, q.Account} }

func (q *Quota) name(id string) { q.Account = id }

// Slot returns the earliest time at which the next RunInstances call of the
// region may be made: not after now when the bucket has room.
func (q Quota) Slot(now time.Time, region string, p Pacing) time.Time {
	p = p.orDefault()
	full := now.Add(-time.Duration(p.Burst-1) * time.Duration(p.IntervalMS) * time.Millisecond)
	if next := q.Next[region]; next.After(full) {
		return next
	}
	return full
}

// Reserve takes the slot. An unused slot is never given back: time passes it.
func (q Quota) Reserve(slot time.Time, region string, p Pacing) Quota {
	q.Next = maps.Clone(q.Next)
	if q.Next == nil {
		q.Next = map[string]time.Time{}
	}
	q.Next[region] = slot.Add(time.Duration(p.orDefault().IntervalMS) * time.Millisecond)
	return q
}

// release gives back the place of one runner.
func (q Quota) release() Quota {
	q.Live = max(0, q.Live-1)
	return q
}
