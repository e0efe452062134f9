package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestAccept(t *testing.T) {
	r := store.Request{Account: "123456789012", Region: "eu-west-2", Mode: store.Shared, Machine: store.Machine{Image: "ami-1"}}
	want := r
	want.ID, want.Trace, want.BodyHash = "r1", "trace-1", "hash-1"
	want.State, want.CreatedAt, want.DueAt, want.GiveUpAt = store.Accepted, t0, t0, at(10*time.Minute)
	want.Spec, want.Sends, want.SentAt = store.Machine{Image: "ami-1"}.Spec(), 1, t0
	want.OwnLabel = "label of " + want.LockKey()
	want.History = store.History{{At: t0, State: "accepted"}}
	d := store.Case{Request: r}.Accept(t0, store.Identity{
		ID: "r1", Trace: "trace-1", BodyHash: "hash-1", GiveUp: 10 * time.Minute,
		OwnLabel: func(lockKey string) string { return "label of " + lockKey },
	})
	stage{req: want}.decides(t, d, outcome{changes: "put request", sends: "request r1 due 0s"})
	if !strings.Contains(d.Request.OwnLabel, want.Spec) {
		t.Errorf("the label is %q, want it made of the key with the spec in it", d.Request.OwnLabel)
	}
}

func TestHoldTellsEachWaitOnce(t *testing.T) {
	s := stage{req: accepted("r1", store.Shared)}
	want := s
	want.req.DueAt, want.req.Wait = at(time.Minute), store.WaitPaced
	want.req.History = noted(s.req.History, at(time.Second), "accepted", "paced")
	d := s.c().Hold(at(time.Second), store.Wait{For: store.WaitPaced, Until: at(time.Minute)})
	want.decides(t, d, outcome{changes: "put request", sends: "request r1 due 1m0s"})
	want.req.DueAt = at(2 * time.Minute)
	again := d.Hold(at(time.Minute), store.Wait{For: store.WaitPaced, Until: at(2 * time.Minute)})
	want.decides(t, again, outcome{changes: "put request", sends: "request r1 due 2m0s"})
	if got := d.Hold(at(time.Minute), store.Wait{For: store.WaitGitHub, Until: at(2 * time.Minute)}).Request; len(got.History) != 3 {
		t.Errorf("history of two waits has %d entries, want 3", len(got.History))
	}
}

func TestMessageOfARequestAtTheQuotaIsTheReapers(t *testing.T) {
	for _, wait := range store.Waits {
		s := stage{req: accepted("r1", store.Shared)}
		want := outcome{changes: "put request", sends: "request r1 due 1m0s"}
		if wait == store.WaitQuota {
			want.sends = ""
		}
		d := s.c().Hold(at(time.Second), store.Wait{For: wait, Until: at(time.Minute)})
		if got := outcomeOf(d); got != want {
			t.Errorf("held for %s, the decision is %+v, want %+v", wait, got, want)
		}
		want.changes = "" // the answer to Hold was lost
		s.take(d)
		s.decides(t, s.c().Held(), want)
	}
}

func TestRequestIsHeldUntilASecondPastGiveUpAtMost(t *testing.T) {
	s := stage{req: accepted("r1", store.Shared)}
	last := s.req.GiveUpAt.Add(time.Second)
	for due, want := range map[time.Time]time.Time{
		last.Add(-1):                      last.Add(-1),
		last:                              last,
		last.Add(1):                       last,
		s.req.GiveUpAt.Add(6 * time.Hour): last,
	} {
		d := s.c().Hold(t0, store.Wait{For: store.WaitGitHub, Until: due})
		if !d.Request.DueAt.Equal(want) || !d.Sends[0].Due.Equal(want) {
			t.Errorf("held until %v, it is due at %v and sent for %v, want %v", due, d.Request.DueAt, d.Sends[0].Due, want)
		}
		if due.After(s.req.GiveUpAt) && !d.Request.Overdue(d.Request.DueAt) {
			t.Errorf("held until %v, it is not overdue when it is due", due)
		}
	}
}

func TestPollSendsAgainWhatNothingTookUp(t *testing.T) {
	now := at(5 * time.Second)
	for _, c := range []struct {
		name string
		edit func(*store.Request)
		want bool
	}{
		{"NothingTookItUp", func(*store.Request) {}, true},
		{"SentAMomentAgo", func(r *store.Request) { r.SentAt = t0.Add(1) }, false},
		{"SentTwice", func(r *store.Request) { r.Sends = 2 }, false},
		{"NeverSent", func(r *store.Request) { r.Sends = 0 }, false},
		{"Waits", func(r *store.Request) { r.Wait = store.WaitQuota }, false},
		{"HasARunner", func(r *store.Request) { r.State, r.Runner = store.Waiting, "x1" }, false},
		{"IsFinal", func(r *store.Request) { r.State = store.Cancelled }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stage{req: accepted("r1", store.Shared)}
			c.edit(&s.req)
			d, follows := s.c().Poll(now, lim), outcome{}
			if c.want {
				s.req.Sends, s.req.SentAt = 2, now // and it is sent by no further poll
				follows = outcome{changes: "put request", sends: "request r1 due 5s"}
			}
			s.decides(t, d, follows)
			if again := d.Poll(at(time.Hour), lim); c.want && again.Changes != nil {
				t.Errorf("a second poll changes %q, want nothing", told(again.Changes))
			}
		})
	}
}

func TestPollSettles(t *testing.T) {
	now := at(time.Minute)
	for _, c := range []struct {
		name  string
		stage stage
		want  outcome
		state store.RequestState
	}{
		{"ItsRunnerIsOnline", online(t, store.Shared), outcome{changes: "put request"}, store.Ready},
		{"ItsRunnerIsOver", launching(t, store.Shared).drained(now, store.EndNoCapacity), outcome{changes: "put request", sends: "request r1 due 1m30s"}, store.Accepted},
		{"ItsRunnerMayComeOnline", booting(t, store.Shared), outcome{}, store.Waiting},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.stage.req = launching(t, store.Shared).req // as it waits
			d := c.stage.c().Poll(now, lim)
			if got := outcomeOf(d); got != c.want || d.Request.State != c.state {
				t.Errorf("Poll = %s and %+v; want %s and %+v", d.Request.State, got, c.state, c.want)
			}
		})
	}
}

func TestReviewRequest(t *testing.T) {
	base := accepted("r1", store.Shared) // sent at t0
	held := func(wait string) stage { return stage{req: held("r1", t0, at(30*time.Second), wait)} }
	sent := held(store.WaitQuota)
	sent.req.Sends, sent.req.SentAt = 2, at(31*time.Second)
	waits := launching(t, store.Shared)
	waits.req.GiveUpAt = at(2 * time.Hour)
	ready := online(t, store.Shared)
	ready.req = launching(t, store.Shared).req
	for _, c := range []struct {
		name  string
		stage stage
		at    time.Duration
		want  store.Outcome
		sends bool
	}{
		{"NotPickedUp", stage{req: base}, 59 * time.Second, store.Left, false},
		{"NotPickedUpForAMinute", stage{req: base}, time.Minute, store.Resent, true},
		{"AtTheQuota", held(store.WaitQuota), 29 * time.Second, store.Left, false},
		{"AtTheQuotaAndDue", held(store.WaitQuota), 30 * time.Second, store.Resent, true},
		{"AtTheQuotaAndSentByAnotherRun", sent, time.Minute, store.Left, false},
		{"Paced", held(store.WaitPaced), 89 * time.Second, store.Left, false},
		{"PacedAndLost", held(store.WaitPaced), 90 * time.Second, store.Resent, true},
		{"Outage", held(store.WaitOutage), time.Minute, store.Left, false},
		{"Waiting", waits, time.Hour, store.WaitsOn, false},
		{"WaitingAndItsRunnerIsOnline", ready, time.Hour, store.Settled, false},
		{"WaitingAndItsRunnerIsOver", launching(t, store.Shared).drained(t0, store.EndNoCapacity), time.Minute, store.Settled, true},
		{"WaitingForTooLong", launching(t, store.Shared), time.Hour, store.GivenUp, false},
		{"NotPickedUpForTooLong", stage{req: base}, time.Hour, store.GivenUp, false},
		{"AtTheQuotaForTooLong", held(store.WaitQuota), time.Hour, store.GivenUp, false},
		{"Final", online(t, store.Shared), time.Hour, store.Left, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := at(c.at)
			d, out := c.stage.c().ReviewRequest(now, lim)
			if out != c.want {
				t.Errorf("the outcome is %q, want %q", out, c.want)
			}
			want, follows := c.stage, outcome{}
			if c.want != store.Left {
				follows.changes = "put request"
			}
			if c.sends {
				follows.sends = "request r1 due " + d.Request.DueAt.Sub(t0).String()
			}
			switch c.want {
			case store.Settled:
				want.req = c.stage.c().Settle(now, lim).Request
			case store.GivenUp:
				want.req = c.stage.c().Expire(now, lim).Request
			case store.WaitsOn:
				want.req.DueAt = now.Add(lim.ReaperPeriod)
			case store.Resent:
				want.req.Sends, want.req.SentAt = want.req.Sends+1, now
				if due := now.Add(-lim.Resend / 2); due.After(want.req.DueAt) {
					want.req.DueAt = due
				}
			}
			want.decides(t, d, follows)
		})
	}
}

func TestResentRequestMovesBehindAllThatWaitLonger(t *testing.T) {
	q := accepted("r1", store.Shared) // due at t0
	first, out := stage{req: q}.c().ReviewRequest(at(10*time.Minute), lim)
	q = first.Request
	if out != store.Resent || !q.DueAt.After(t0) || !q.DueAt.Before(at(10*time.Minute)) {
		t.Fatalf("ReviewRequest = %s, due at %s; want resent, due after what waits since t0, and before now", out, q.DueAt)
	}
	for _, c := range []struct {
		after time.Duration
		want  store.Outcome
	}{{2*lim.Resend - 1, store.Left}, {2 * lim.Resend, store.Resent}} {
		if _, out := (stage{req: q}).c().ReviewRequest(at(10*time.Minute+c.after), lim); out != c.want {
			t.Errorf("ReviewRequest %s later = %q, want %q: behind a backlog, more messages only add to it", c.after, out, c.want)
		}
	}
}

func TestFinalRequestsNeverChange(t *testing.T) {
	late := at(time.Hour)
	for _, state := range store.RequestStates {
		if !state.Final() {
			continue
		}
		s := launched(t, store.Shared).drained(late, store.EndIdle) // and attempts to tell of
		s.req.State = state
		reviewed, _ := s.c().ReviewRequest(late, lim)
		for name, d := range map[string]store.Decision{
			"Fail":          s.c().Fail(late, lim, store.Failure{Code: "x"}),
			"Expire":        s.c().Expire(late, lim),
			"Stop":          s.c().Stop(late, lim, "x", true),
			"Settle":        s.c().Settle(late, lim),
			"Poll":          s.c().Poll(late, lim),
			"ReviewRequest": reviewed,
		} {
			t.Run(name+" of one that is "+string(state), func(t *testing.T) { s.decides(t, d, outcome{}) })
		}
		if s.req.Overdue(late) {
			t.Errorf("a request that is %s is overdue", state)
		}
	}
}

// ended is r in a final state, with all that this changes.
func ended(r store.Request, now time.Time, state store.RequestState, reason string, f *store.Failure) store.Request {
	r.State, r.DueAt, r.EndedAt, r.Wait, r.Error, r.TTL = state, time.Time{}, now, "", f, now.Add(lim.Keep).Unix()
	r.History = append(slices.Clone(r.History), store.Entry{At: now, State: string(state), Reason: reason})
	return r
}

// openRequests are the stages of requests that are not final.
func openRequests(t *testing.T) []stage {
	t.Helper()
	return []stage{{req: held("r1", t0, t0, store.WaitQuota)}, launching(t, store.Shared)}
}

func TestFail(t *testing.T) {
	f := store.Failure{Code: "access", Text: "The role cannot be assumed."}
	for _, s := range openRequests(t) {
		d := s.c().Fail(at(time.Minute), lim, f)
		s.req = ended(s.req, at(time.Minute), store.Failed, "access", &f)
		s.decides(t, d, outcome{changes: "put request"})
	}
}

func TestStopCancelsARequestThatIsOpen(t *testing.T) {
	now := at(time.Minute)
	f := store.Failure{Code: "cancelled", Text: "The request was cancelled."}
	for _, s := range openRequests(t) {
		d := s.c().Stop(now, lim, "github octocat", false)
		same(t, "request", d.Request, ended(s.req, now, store.Cancelled, "by github octocat", &f))
	}
}

func TestExpire(t *testing.T) {
	giveUp := at(15 * time.Minute)
	tried := launched(t, store.Shared)
	tried.req.Attempts = []store.Attempt{{Code: "earlier"}}
	for _, c := range []struct {
		name     string
		stage    stage
		why      string
		attempts []store.Attempt
	}{
		{"NeverPickedUp", stage{req: accepted("r1", store.Shared)}, "", nil},
		{"HeldAtTheQuota", stage{req: held("r1", t0, t0, store.WaitQuota)}, "quota_reached", nil},
		{"Waiting", launching(t, store.Shared), "runner x1 is not online", nil},
		{"WaitingItTellsWhatWasTried", tried, "runner x1 is not online", append(slices.Clone(tried.req.Attempts), tried.run.Attempts...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage
			s.decides(t, s.c().Expire(giveUp, lim), outcome{})
			now := giveUp.Add(1)
			d := s.c().Expire(now, lim)
			got := d.Request
			if got.Error == nil || got.Error.Code != "expired" || !got.Error.Retryable ||
				!strings.Contains(got.Error.Text, "give_up_at") || !strings.Contains(got.Error.Text, c.why) {
				t.Errorf("error = %v, want expired, retryable, with %q", got.Error, c.why)
			}
			if got.Error != nil && strings.Contains(got.Error.Text, "last:") != (c.why != "") {
				t.Errorf("error = %q: a last reason only if there is one", got.Error.Text)
			}
			s.req = ended(s.req, now, store.Expired, c.why, got.Error)
			s.req.Attempts = c.attempts
			s.decides(t, d, outcome{changes: "put request"})
		})
	}
}
