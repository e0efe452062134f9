package store

import "time"

// CodeNotOffered is the code of a request whose job looks as if it wanted a machine of
// ours, and gets none: no offer is for it.
const CodeNotOffered = "not_offered"

// Ignore makes the record of a workflow job that gets no machine, so that people can see
// why. r is the request as Accept would take it. The commit conflicts when the job has a
// record.
func Ignore(now time.Time, lim Limits, r Request, id Identity, why Failure) Decision {
	return decide(Case{Request: r}, func(d *Decision) {
		r := &d.Request
		r.ID, r.Trace, r.SaidHash, r.BodyHash = id.ID, id.Trace, id.SaidHash, id.BodyHash
		*r = r.accept(now, id.GiveUp).fail(now, lim, why)
	})
}
