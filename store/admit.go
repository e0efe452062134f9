package store

import (
	"strconv"
	"time"
)

// Admission is what was decided about the one job that a machine for workflow jobs asks
// about before its first step. GitHub gives a job to any runner that has all of its
// labels: also one that no policy was asked about. The zero value: nothing was asked.
type Admission struct {
	// Repository, RunID and Attempt are the job's, in the machine's word. GitHub's runner
	// program tells it before a step of the job could change that.
	Repository Repository `json:"repository,omitzero"`
	RunID      string     `json:"run_id,omitempty"`
	Attempt    int        `json:"attempt,omitempty"`
	AskedAt    time.Time  `json:"asked_at,omitzero"` // when a worker was last sent for the answer
	Times      int        `json:"times,omitempty"`   // how often one was
	// Answered: Allowed, and Reason if it is not, are the answer.
	Answered bool   `json:"answered,omitempty"`
	Allowed  bool   `json:"allowed,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// Pending reports whether somebody waits for an answer.
func (a Admission) Pending() bool { return a.RunID != "" && !a.Answered }

// same reports whether two are about one run.
func (a Admission) same(other Admission) bool {
	return a.Repository.Same(other.Repository) && a.RunID == other.RunID
}

const (
	// AdmitWithin is how long a machine waits for the answer: longer than two tries of a
	// worker that has to ask GitHub, and short beside the start of a job. Without an answer
	// the job is refused.
	AdmitWithin = 10 * time.Second
	// admitAgain is when another message is sent for an answer that did not come, and
	// admitTimes is how many are in all.
	admitAgain, admitTimes = 3 * time.Second, 3
)

// Admit decides whether the machine of a runner may run the job that q is about. It needs
// the runner. A policy was asked about the run that the runner was launched for; for any
// other one a worker is, and the answer is pending until then. A machine asks about one
// run. That holds for each machine that asks, also if the record does not say any more that
// it is for a workflow job, as after an older version wrote it: others do not ask.
func Admit(c Case, now time.Time, q Admission) (Decision, Admission) {
	var answer Admission
	d := decide(c, func(d *Decision) {
		r := &d.Runner
		switch {
		case q.RunID == r.RunID && q.Repository.Same(r.Repository):
			answer = Admission{Answered: true, Allowed: true}
			return
		case r.Admission.RunID != "" && !r.Admission.same(q):
			answer = Admission{Answered: true, Reason: "This machine has asked about another run already."}
			return
		case r.Admission.RunID == "":
			q.AskedAt, q.Times, q.Answered, q.Allowed, q.Reason = now, 1, false, false, ""
			r.Admission = q
			*r = r.note(now, "asks whether it may run a job of run "+q.RunID+", attempt "+strconv.Itoa(q.Attempt)+", of "+q.Repository.Name)
			d.send(r, now)
		case r.Admission.Pending() && r.Admission.Times < admitTimes && now.Sub(r.Admission.AskedAt) >= admitAgain:
			r.Admission.AskedAt, r.Admission.Times = now, r.Admission.Times+1
			d.send(r, now)
		}
		answer = r.Admission
	})
	return d, answer
}

// Answer decides the answer to a machine that asks: no with a reason, else yes. It needs
// the runner. A question that was answered stays so.
func Answer(c Case, now time.Time, no string) Decision {
	return decide(c, func(d *Decision) {
		r := &d.Runner
		if !r.Admission.Pending() {
			return
		}
		r.Admission.Answered, r.Admission.Allowed, r.Admission.Reason = true, no == "", no
		if no == "" {
			*r = r.note(now, "may run the job")
			return
		}
		*r = r.note(now, "refuses the job: "+no)
	})
}
