package store

import "time"

// Identity is what a new request gets beside what its caller wishes for.
type Identity struct {
	ID       string
	Trace    string
	SaidHash string // see Request
	BodyHash string
	GiveUp   time.Duration // not of a workflow job
	// OwnLabel makes the label of the runner that has a lock key. A workflow job has none.
	OwnLabel func(lockKey string) string
}

// Accept makes the record of a new request, from one whose wishes are filled in. It
// counts as sent now: the message follows the record, and the reaper sends it again if
// that did not happen. The commit conflicts when the request exists already.
func (c Case) Accept(now time.Time, id Identity) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Request
		r.ID, r.Trace, r.SaidHash, r.BodyHash = id.ID, id.Trace, id.SaidHash, id.BodyHash
		if *r = r.accept(now, id.GiveUp); !r.OfJob() {
			r.OwnLabel = id.OwnLabel(r.LockKey())
		}
		d.send(r, now)
	})
}

func (r Request) accept(now time.Time, giveUp time.Duration) Request {
	r.State, r.CreatedAt = Accepted, now
	if r.OfJob() {
		giveUp, r.Launches = jobLife, 1
	}
	r.DueAt, r.GiveUpAt = now, now.Add(giveUp)
	r.Spec = r.Machine.Spec()
	r = r.sent(now)
	r.History = r.History.with(now, string(Accepted), "")
	return r
}
