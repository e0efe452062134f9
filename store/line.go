package store

import (
	"cmp"
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
	// Registered is when GitHub is expected to register the last of them.
	Registered time.Time `json:"registered,omitzero"`
	// Last is the last turn of each repository that has one to come, by its Key, less
	// what the line was behind.
	Last map[string]time.Time `json:"last,omitempty"`
}

// maxLast bounds the repositories of a line that are remembered, at a hundred bytes
// each: the quota is written with every launch. Those beyond wait like all others.
const maxLast = 32

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
// that go first, and for calls that are on their way for up to a second less than the first
// one, from which on EC2's bucket fills.
const spare = 2

// live returns Last without the turns that are over.
func (l Line) live(now time.Time) map[string]time.Time {
	live := map[string]time.Time{}
	for repo, slot := range l.Last {
		if slot.Add(l.behind()).After(now) {
			live[repo] = slot
		}
	}
	return live
}

// isNew reports whether a repository has no turn to come in a line that has others'.
func (l Line) isNew(now time.Time, repo string) bool {
	live := l.live(now)
	_, waits := live[repo]
	return l.End.After(now) && !waits && len(live) < maxLast
}

// lasting returns the line with the last turn of a repository.
func (l Line) lasting(now time.Time, repo string, turn time.Time) Line {
	live := l.live(now)
	if _, waits := live[repo]; waits || len(live) < maxLast {
		live[repo] = turn.Add(-l.behind())
	}
	l.Last = live
	return l
}

// Turn is when a request may have its RunInstances call, and its place in the line.
type Turn struct {
	At    time.Time // of a turn that is taken, the slot of the call
	Slot  time.Time // as Request.Slot has it
	Ahead bool      // likewise
}

// Taken reports whether the turn has come, and the slot of the call is taken.
func (t Turn) Taken() bool { return t.Slot.IsZero() }

// inHand is Limits.InHand in a world that runs as fast as this one.
const inHand = 2 * time.Second

// atHand is Limits.AtHand.
func (p Pacing) atHand(now, at time.Time) bool {
	return !at.After(now.Add(cmp.Or(p.inHand, inHand)))
}

// at returns the turn of a place.
func (l Line) at(slot time.Time, ahead bool) time.Time {
	if ahead {
		return slot
	}
	return slot.Add(l.behind())
}

// Turn returns when a request may have its RunInstances call, and the quota as it is
// then: at hand, with the slot of the call taken; or later, with a place in the line. The
// only request of its repository goes first, so that one with a thousand is not before
// another's. So does one that came too late for its turn: others have EC2's room by then.
func (q Quota) Turn(now time.Time, r Request, p Pacing) (Turn, Quota) {
	line, room, repo := q.Lines[r.Region], q.Slot(now, r.Region, p), r.Repository.Key()
	if r.Slot.IsZero() {
		turn := maxTime(maxTime(line.End, room.Add(p.spare())), line.Registered.Add(-p.lead))
		if p.register > 0 {
			line.Registered = maxTime(line.Registered, now).Add(p.register)
			q = q.withLine(r.Region, line)
		}
		if !turn.After(now) {
			return Turn{At: turn}, q.Reserve(room, r.Region, p)
		}
		if line.isNew(now, repo) {
			first, q := q.First(now, r.Region, p)
			if !first.Taken() {
				q = q.withLine(r.Region, q.Lines[r.Region].lasting(now, repo, first.At))
			}
			return first, q
		}
		line.End = turn.Add(p.interval())
		return Turn{At: turn, Slot: turn.Add(-line.behind())}, q.withLine(r.Region, line.lasting(now, repo, turn))
	}
	turn, call := line.at(r.Slot, r.Ahead), room.Add(p.spare())
	if r.Ahead {
		call = room
	}
	switch {
	case turn.After(now) && (r.Slot.After(now) || call.After(now)): // else what moved it back is over
		return Turn{turn, r.Slot, r.Ahead}, q
	case p.atHand(now, call):
		return Turn{At: call}, q.Reserve(room, r.Region, p)
	}
	return q.First(now, r.Region, p)
}

// First is Turn of a call that goes first: one that repeats a launch which is under way,
// since its machine has to boot in time, or whose turn lapsed. It waits only for others
// that go first, and delays the line when EC2 has no room for both.
func (q Quota) First(now time.Time, region string, p Pacing) (Turn, Quota) {
	line, room := q.Lines[region], q.Slot(now, region, p)
	turn := maxTime(room, line.First)
	if turn.After(now) && line.End.After(now) {
		line = line.delayed(p.interval())
		q = q.withLine(region, line)
	}
	if p.atHand(now, turn) {
		return Turn{At: room}, q.Reserve(room, region, p)
	}
	line.First = turn.Add(p.interval())
	return Turn{turn, turn, true}, q.withLine(region, line)
}
