package store

import (
	"maps"
	"time"
)

// Line is the requests of an account and region that wait for their turn to be launched.
// Each knows its turn and comes then; nobody keeps a list of them. What a turn gives is a
// try: the slot of the call is taken when it is made, from the same bucket for all.
type Line struct {
	// End is the first turn that nobody has.
	End time.Time `json:"end,omitzero"`
	// First is the first turn for a call that goes first.
	First time.Time `json:"first,omitzero"`
	// BehindMS is by how many milliseconds in all the turns were delayed since they were
	// given. It only rises.
	BehindMS int64 `json:"behind_ms,omitempty"`
}

func (l Line) behind() time.Duration { return time.Duration(l.BehindMS) * time.Millisecond }

// delayed returns the line with all turns later.
func (l Line) delayed(by time.Duration) Line {
	by = (by + time.Millisecond - 1).Truncate(time.Millisecond)
	l.End, l.BehindMS = l.End.Add(by), l.BehindMS+by.Milliseconds()
	return l
}

// withLine returns the quota with another line of a region.
func (q Quota) withLine(region string, l Line) Quota {
	q.Lines = maps.Clone(q.Lines)
	if q.Lines == nil {
		q.Lines = map[string]Line{}
	}
	q.Lines[region] = l
	return q
}

// spare is how many launches of a bucket the line leaves in it, if it has more: for calls
// that go first, for turns that are late, and for calls that are on their way for up to a
// second less than the first one, from which on EC2's bucket fills.
const spare = 2

// Turn returns when a request may have its RunInstances call, and the quota as it is
// then: not after now, and with the slot of the call taken; or later, with a place in the
// line. A place that lapsed is followed by a turn before all others, one by one: those
// who all come late are as far apart from each other as they were.
func (q Quota) Turn(now time.Time, r Request, p Pacing) (time.Time, Quota) {
	line, room := q.Lines[r.Region], q.Slot(now, r.Region, p)
	if r.Slot.IsZero() {
		turn := maxTime(line.End, room.Add(p.spare()))
		if !turn.After(now) {
			return turn, q.Reserve(room, r.Region, p)
		}
		line.End = turn.Add(p.interval())
		return turn, q.withLine(r.Region, line)
	}
	turn := r.Slot.Add(line.behind())
	switch {
	case turn.After(now):
		return turn, q
	case p.lapsed(now, turn):
		return q.First(now, r.Region, p)
	case room.After(now): // others went first
		return room, q.withLine(r.Region, line.delayed(room.Sub(turn)))
	}
	return turn, q.Reserve(room, r.Region, p)
}

// First is Turn of a call that goes first: one that repeats a launch which is under way,
// since its machine has to boot in time, or whose turn lapsed. It waits only for others
// that go first, and delays the line when EC2 has no room for both.
func (q Quota) First(now time.Time, region string, p Pacing) (time.Time, Quota) {
	line, room := q.Lines[region], q.Slot(now, region, p)
	if turn := maxTime(room, line.First); !turn.After(now) {
		return turn, q.Reserve(room, region, p)
	}
	turn := maxTime(room, line.First)
	line.First = turn.Add(p.interval())
	if line.End.After(now) {
		line = line.delayed(p.interval())
	}
	return turn, q.withLine(region, line)
}
