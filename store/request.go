package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// RequestState is where a request stands.
type RequestState string

// The states of a request. The last four are final.
const (
	Accepted  RequestState = "accepted" // recorded; a worker is to find or launch a runner
	Waiting   RequestState = "waiting"  // a runner is named and not yet online
	Ready     RequestState = "ready"    // its runner has been online
	Failed    RequestState = "failed"   // no runner, and the error says why
	Expired   RequestState = "expired"  // no runner before give_up_at
	Cancelled RequestState = "cancelled"
)

// RequestStates lists every state, in the order of a request's life.
var RequestStates = []RequestState{Accepted, Waiting, Ready, Failed, Expired, Cancelled}

// Final reports whether nothing ever follows s.
func (s RequestState) Final() bool { return s != Accepted && s != Waiting }

// Failure says why something failed. Code is stable and for programs,
// Text is a sentence for people that says what to do.
type Failure struct {
	Code      string `json:"code"`
	Text      string `json:"text"`
	Retryable bool   `json:"retryable"`
}

// Request is one call of POST /start, or one workflow job.
type Request struct {
	Meta
	ID         string       `json:"id"`
	State      RequestState `json:"state"`
	CreatedAt  time.Time    `json:"created_at"`
	Caller     string       `json:"caller"`         // who asked: "operator <name>" or "github <actor>"
	Repository Repository   `json:"repository"`     // whose job it is for
	Scope      Scope        `json:"scope,omitzero"` // where its runner registers; see Where
	Origin     Origin       `json:"origin,omitzero"`
	Job        WorkflowJob  `json:"job,omitzero"`
	Trace      string       `json:"trace"` // the id that ties the log lines of all parts together
	Account    string       `json:"account"`
	Region     string       `json:"region"`            // where it is tried now, or got its runner
	Regions    []string     `json:"regions,omitempty"` // of an ephemeral one, in the order to try; empty: Region alone
	Type       string       `json:"type"`              // Spot or OnDemand
	Labels     []string     `json:"labels"`
	Mode       string       `json:"mode"` // Shared or Ephemeral
	Machine    Machine      `json:"machine,omitzero"`
	Spec       string       `json:"spec"`
	OwnLabel   string       `json:"own_label"` // what runs_on names
	// SaidHash and BodyHash tell a replay from another request with the same key: by what
	// the caller said, and by what that meant with the account's defaults of the time.
	// Either is enough. Records before SaidHash have it empty.
	SaidHash string `json:"said_hash,omitempty"`
	BodyHash string `json:"body_hash"`
	TimeoutS int    `json:"timeout_s"`

	Runner string `json:"runner,omitempty"` // the runner that it waits for, or got
	// Tries is how many runners were given up for it.
	Tries int `json:"tries"`
	// Lost is why a workflow job's request was last accepted again: what became of its
	// machine, or why it could have none. Empty: it never was, or a version before wrote it.
	Lost string `json:"lost,omitempty"`
	// Launches is the number of the launch for a workflow job that is made, or comes next,
	// from 1: each has a lock of its own.
	Launches int `json:"launches,omitempty"`
	// Sends counts start messages since the request was last accepted, up to the
	// one that a poll may add; SentAt is when the last one was.
	Sends  int       `json:"sends"`
	SentAt time.Time `json:"sent_at,omitzero"`
	// Wait says what an accepted request waits for: one of the Wait codes.
	Wait string `json:"wait,omitempty"`
	// Slot is its place in the account's line of launches: its turn, less by how much the
	// line was behind when it got it. Zero: it has none.
	Slot time.Time `json:"slot,omitzero"`
	// Ahead: Slot is a turn before the line, which is not delayed with it.
	Ahead    bool      `json:"ahead,omitempty"`
	GiveUpAt time.Time `json:"give_up_at"`
	ReadyAt  time.Time `json:"ready_at,omitzero"`
	EndedAt  time.Time `json:"ended_at,omitzero"` // when it became final
	// HeldAt is since when GitHub says that the job waits for something; QueuedAt is when
	// GitHub first called it queued though the request was over.
	HeldAt   time.Time `json:"held_at,omitzero"`
	QueuedAt time.Time `json:"queued_at,omitzero"`
	// Attempts are the launches tried on runners that were given up.
	Attempts []Attempt `json:"attempts,omitempty"`
	Error    *Failure  `json:"error,omitempty"`
	History  History   `json:"history"`
}

// What an accepted request or a runner may wait for.
const (
	WaitBackoff = "backoff"        // the pause between two tries
	WaitQuota   = "quota_reached"  // the account has all the machines it may have
	WaitBudget  = "budget_reached" // the account has spent its budget of the day
	WaitPaced   = "paced"          // the account's launches are spaced out
	WaitRunner  = "runner_silent"  // the shared runner is neither usable nor given up yet
	WaitGitHub  = "github_limited" // GitHub asked to wait
	// WaitGitHubDown: GitHub gave no answer to a registration, or none that helps.
	WaitGitHubDown = "github_unavailable"
	WaitEC2        = "ec2_unclear" // EC2 did not say whether it launched: the same call again
	WaitOutage     = "outage"      // a registration or credential could not be read
	WaitHeld       = "job_held"    // GitHub gives the workflow job to no runner yet
)

// Waits lists them.
var Waits = []string{WaitBackoff, WaitQuota, WaitBudget, WaitPaced, WaitRunner, WaitGitHub, WaitGitHubDown, WaitEC2, WaitOutage, WaitHeld}

// Ref implements Item.
func (r *Request) Ref() Ref { return Ref{KindRequest, r.ID} }

func (r *Request) name(id string) { r.ID = id }

// Timeout is how long the request may use its runner.
func (r Request) Timeout() time.Duration { return time.Duration(r.TimeoutS) * time.Second }

// InLine reports whether the request waits for its launch, and not for GitHub to have its
// job run.
func (r Request) InLine() bool { return r.State == Accepted && r.Wait != WaitHeld }

// sent notes that a start message is being sent for an accepted request.
func (r Request) sent(now time.Time) Request {
	r.Sends, r.SentAt = r.Sends+1, now
	return r
}

// Hold keeps an accepted request accepted until a time, and sends its message for then.
// It is looked at once give_up_at has passed, however long it would wait. It needs the
// request.
func (c Case) Hold(now time.Time, w Wait) Decision {
	return decide(c, func(d *Decision) { d.hold(now, w, w.For) })
}

// hold is Hold; why is for the story, which has it once.
func (d *Decision) hold(now time.Time, w Wait, why string) {
	r := &d.Request
	if r.Wait != w.For {
		r.History = r.History.with(now, string(r.State), why)
	}
	r.DueAt, r.Wait = minTime(w.Until, r.GiveUpAt.Add(time.Second)), w.For
	d.remind()
}

// Held sends the message of a request that is held: Hold was committed, and its answer
// lost. It needs the request.
func (c Case) Held() Decision {
	return decide(c, func(d *Decision) { d.remind() })
}

// remind sends the message of a request that waits, unless the reaper is going to.
func (d *Decision) remind() {
	if !d.Request.parked() {
		d.send(&d.Request, d.Request.DueAt)
	}
}

// await ties an accepted request to a runner that is not online yet.
func (r Request) await(now time.Time, lim Limits, runner string, bootBy time.Time, reason string) Request {
	r.State, r.Runner, r.Wait, r.Slot, r.Ahead = Waiting, runner, "", time.Time{}, false
	r.DueAt = bootBy.Add(lim.SettleSlack)
	r.History = r.History.with(now, string(Waiting), reason)
	return r
}

// finish makes r final.
func (r Request) finish(now time.Time, lim Limits, state RequestState, why string, f *Failure) Request {
	r.State, r.DueAt, r.EndedAt, r.Wait, r.Error = state, time.Time{}, now, "", f
	if state == Ready {
		r.ReadyAt = now
	}
	r.History = r.History.with(now, string(state), why)
	r.expire(now, lim.Keep)
	return r
}

// ready is the good end. It is final: what happens to the runner afterwards is
// seen and told, not repaired.
func (r Request) ready(now time.Time, lim Limits, runner, reason string) Request {
	r.Runner = runner
	return r.finish(now, lim, Ready, reason, nil)
}

// Fail ends a request that is not final for a reason that trying again cannot change. That
// of a workflow job is accepted again, for later: it is over when its job is, and people
// may change what stands in its way, but for a job that may have no machine and an account
// that is gone. It needs the request.
func (c Case) Fail(now time.Time, lim Limits, f Failure) Decision {
	return decide(c, func(d *Decision) {
		if r := &d.Request; r.OfJob() && !r.State.Final() && f.Code != CodeForbidden && f.Code != EndNoAccount {
			*r = r.again(now, f.String(), atOnce)
			return
		}
		d.Request = d.Request.fail(now, lim, f)
	})
}

func (r Request) fail(now time.Time, lim Limits, f Failure) Request {
	if r.State.Final() {
		return r
	}
	return r.finish(now, lim, Failed, f.Code, &f)
}

// Overdue reports whether r ought to be given up.
func (r Request) Overdue(now time.Time) bool { return !r.State.Final() && now.After(r.GiveUpAt) }

// Expire gives up a request that is Overdue. It needs the request, and the runner that it
// waits for.
func (c Case) Expire(now time.Time, lim Limits) Decision {
	return decide(c, func(d *Decision) {
		if d.Request.Overdue(now) {
			d.Request = d.Request.tried(d.Runner).giveUp(now, lim, d.Runner)
		}
	})
}

// giveUp gives up a request that is Overdue, and the runner that it waits for, if any.
func (r Request) giveUp(now time.Time, lim Limits, run Runner) Request {
	why := r.Wait
	if r.State == Waiting {
		why = "runner " + r.Runner + " is not online"
	}
	if r.State == Waiting && run.Unminted != nil {
		why += "; GitHub has not registered it. " + strings.TrimSuffix(run.Unminted.Text, ".")
	}
	return r.expireFor(now, lim, why)
}

// expireFor is giveUp, and says what the request waited for.
func (r Request) expireFor(now time.Time, lim Limits, why string) Request {
	if !r.Overdue(now) {
		return r
	}
	text := "No runner was ready before give_up_at. Start again, with a longer give_up if the account is busy."
	switch {
	case r.Wait == WaitPaced && r.Slot.After(r.GiveUpAt):
		text = "No runner was ready before give_up_at: the account's launches are spaced out by its pacing, and the turn of this one was to come at " +
			r.Slot.UTC().Format(time.RFC3339) + ". Start again, with a longer give_up, or have the account's pacing raised."
	case why != "":
		text = "No runner was ready before give_up_at (last: " + why + "). Start again, with a longer give_up if the account is busy."
	}
	return r.finish(now, lim, Expired, why, &Failure{Code: "expired", Text: text, Retryable: true})
}

// cancel ends a request that is not final because its caller said so.
func (r Request) cancel(now time.Time, lim Limits, by string) Request {
	if r.State.Final() {
		return r
	}
	return r.finish(now, lim, Cancelled, "by "+by, &Failure{Code: "cancelled", Text: "The request was cancelled."})
}

// tried keeps what the runner that r gives up was launched with, or was not.
func (r Request) tried(run Runner) Request {
	r.Attempts = append(slices.Clip(slices.Clone(r.Attempts)), run.Attempts...)
	r.Attempts = r.Attempts[max(0, len(r.Attempts)-2*MaxPlacements):] // two full plans: what the last tries say matters
	return r
}

// retry gives up the runner of a waiting request and accepts it again after the
// next pause, or fails it when there is no further try or no time for one.
func (r Request) retry(now time.Time, lim Limits, why Failure) Request {
	if next, ok := r.elsewhere(now, why); ok {
		return next
	}
	tries := r.Tries
	if why.Code == EndVCPULimit || why.Code == EndKeyLost {
		tries = max(0, min(tries, len(lim.Waits)-1)) // not the request's fault: only time helps, up to give_up_at
	}
	if tries >= len(lim.Waits) || now.Add(lim.Waits[tries]).After(r.GiveUpAt) {
		why.Text += " No further try is left; see the attempts."
		why.Retryable = true
		return r.finish(now, lim, Failed, why.Code, &why)
	}
	wait := lim.Waits[tries]
	r.State, r.Runner, r.Tries = Accepted, "", tries+1
	r.Region = slices.Concat(r.Regions, []string{r.Region})[0] // capacity comes back
	r.DueAt, r.Wait = now.Add(wait), WaitBackoff
	r.Sends = 0
	r = r.sent(now)
	r.History = r.History.with(now, string(Accepted), why.Code)
	return r
}

func (f Failure) String() string { return fmt.Sprintf("%s: %s", f.Code, f.Text) }
