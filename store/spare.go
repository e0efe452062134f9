package store

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// settleJob decides what becomes of the request of a workflow job that waits for run: as
// long as the job may begin there, it waits. It is ready when its job has begun, and no
// sooner. When again is true, it is accepted again.
func settleJob(now time.Time, r Request, run Runner) (_ Request, again bool) {
	why, more := "runner_ended", 0
	if run.End != nil {
		why = run.End.Code
	}
	switch {
	case why == EndIdle: // GitHub did not give it the job, though it could
		more = atOnce
	case slices.Contains(needPeople, why): // who need its words
		why, more = shortened(run.End.String(), maxLost), atOnce
	}
	over := run.Version == 0 || run.State.Final() ||
		!run.State.Usable() && (run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero() && !run.jobRuns())
	switch {
	case run.Took.Request == r.ID && run.Took.Job != "":
		return r, false // both were written together
	case run.Took.Job != "":
		return r.tried(run).again(now, "runner "+run.ID+" took another job", 0), true
	case over:
		return r.tried(run).again(now, why, more), true
	}
	return r, false
}

// needPeople are the ends that the next machine has too, until people change something.
var needPeople = []string{EndSetup, EndTooOld, EndLaunchDenied, EndMintDenied}

// NeedsPeople reports whether r is of a workflow job whose last machine could not be had for
// a reason that only people can change.
func (r Request) NeedsPeople() bool {
	code, _, _ := strings.Cut(r.Lost, ":")
	return r.OfJob() && slices.Contains(needPeople, code)
}

// maxLost bounds, in bytes, what a request keeps of why its machine could not be had: the
// beginning, which names the step, and the end, which is where programs say what failed.
// The story of a request has fifty such entries, and its record 400 KB.
const maxLost = 1000

// shortened leaves out of the middle of a text what is above so many bytes.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most/4]+" … "+s[len(s)-most*3/4:], "")
}

// orphaned reports whether nobody counts on a runner for a workflow job, and it may end:
// its program has no job, and was given none for as long as GitHub may take to hand one
// out. req is the request that it is for.
func (r Runner) orphaned(now time.Time, lim Limits, req Request) bool {
	if !r.spare(req) {
		return false
	}
	return r.Boot.At.IsZero() || r.State == RunnerOnline && now.Sub(maxTime(r.OnlineAt, r.ListeningAt)) >= lim.Grace
}

// spare reports whether r is usable and took no job, and req, which it is for, does not
// wait for it.
func (r Runner) spare(req Request) bool {
	return r.OfJob() && r.State.Usable() && r.State != RunnerBusy && r.Took.Job == "" && !r.jobRuns() &&
		req.ID == r.For && !(req.State == Waiting && req.Runner == r.ID)
}

const (
	// busyUnheard is after what time a webhook about a job that a machine runs counts as
	// lost: they come within seconds.
	busyUnheard = time.Minute
	// idleOnline is for how long a runner may be online while its job is queued: GitHub
	// hands one out within a minute, or holds it back.
	idleOnline = 2 * time.Minute
)

// puzzles reports whether GitHub is to be asked about the workflow job of req, which r is
// for: r runs a job and nobody knows which, or has none though one waits for it.
func (r Runner) puzzles(now time.Time, req Request) bool {
	if !r.OfJob() || r.Took.Job != "" || req.ID != r.For || req.Version == 0 {
		return false
	}
	return r.jobRuns() && now.Sub(r.Job.StartedAt) >= busyUnheard || r.Idles(now) && !r.spare(req)
}

// Idles reports whether r has been online for so long, without a job, that GitHub does not
// give it one.
func (r Runner) Idles(now time.Time) bool {
	return r.OfJob() && r.State == RunnerOnline && r.Took.Job == "" && !r.jobRuns() && now.Sub(maxTime(r.OnlineAt, r.ListeningAt)) >= idleOnline
}

// lookAfter is how often GitHub is asked about a job whose request waits for its machine:
// so late, a webhook that was lost is found.
const lookAfter = 5 * time.Minute

// look has a worker ask GitHub about the job of a waiting request, now and then.
func (d *Decision) look(now time.Time) {
	r := &d.Request
	if last := r.History[len(r.History)-1].At; r.OfJob() && now.Sub(maxTime(r.SentAt, last)) >= lookAfter {
		*r = r.sent(now)
		d.send(r, now)
	}
}

// GiveSpare gives an accepted request of a workflow job a runner that nobody counts on,
// if there is nothing against it: ok is false otherwise. It needs the request and the
// runner; was is the request that the runner is for. GitHub is not asked: the runner is
// there anyway.
func GiveSpare(c Case, now time.Time, lim Limits, was Request) (_ Decision, ok bool) {
	d := decide(c, func(d *Decision) {
		r, run := &d.Request, &d.Runner
		if ok = r.State == Accepted && r.OfJob() && run.spare(was) && r.fits(*run, was) && run.Hard.Sub(now) >= r.Timeout(); !ok {
			return
		}
		run.For = r.ID
		*run = run.note(now, "given to request "+r.ID)
		*r = r.await(now, lim, run.ID, now, "takes over runner "+run.ID)
	})
	return d, ok
}

// fits reports whether GitHub can give the job of r to a runner for was, and its machine
// is as r wishes.
func (r Request) fits(run Runner, was Request) bool {
	return r.Pool() == was.Pool() && run.Account == r.Account && run.Region == r.Region && labelsIn(r.Labels, run.Labels)
}

func labelsIn(wanted, has []string) bool {
	return !slices.ContainsFunc(wanted, func(l string) bool { return !slices.Contains(has, l) })
}

// Pool names what the machines of some requests have in common that can stand in for each
// other, if their labels allow it: twelve hex digits.
func (r Request) Pool() string {
	h := sha256.Sum256([]byte(strings.Join([]string{r.Account, r.Region, r.Where().Key(), r.Where().Group, r.Type, r.Spec}, "/")))
	return hex.EncodeToString(h[:6])
}

// Spares is a hint: which runners of a Pool nobody may count on. Runners of it that
// somebody does, or that are over, are in it for a while too, and others are not in it.
type Spares struct {
	Meta
	Pool    string   `json:"pool"`
	Runners []string `json:"runners,omitempty"`
}

// Ref implements Item.
func (s *Spares) Ref() Ref { return Ref{KindSpares, s.Pool} }

func (s *Spares) name(id string) { s.Pool = id }

// maxSpares bounds a hint: who looks for a runner looks at all of them, and one that is
// forgotten costs a launch.
const maxSpares = 16

// With decides that a runner is in the hint, as its newest.
func (s *Spares) With(now time.Time, lim Limits, runner string) Decision {
	s.Runners = append(slices.DeleteFunc(slices.Clone(s.Runners), func(r string) bool { return r == runner }), runner)
	s.Runners = s.Runners[max(0, len(s.Runners)-maxSpares):]
	s.expire(now, lim.Keep)
	return Decision{Case: &Case{}, Changes: []Change{Put(s)}}
}

// Without decides that some runners are in the hint no longer.
func (s *Spares) Without(now time.Time, lim Limits, gone []string) Decision {
	s.Runners = slices.DeleteFunc(slices.Clone(s.Runners), func(r string) bool { return slices.Contains(gone, r) })
	s.expire(now, lim.Keep)
	return Decision{Case: &Case{}, Changes: []Change{Put(s)}}
}
