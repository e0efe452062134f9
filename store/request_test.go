package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestAccept(t *testing.T) {
	r := store.Request{ID: "r1", Machine: store.Machine{Image: "ami-1"}}
	want := r
	want.State, want.CreatedAt, want.DueAt, want.GiveUpAt = store.Accepted, t0, t0, at(10*time.Minute)
	want.Spec, want.Sends, want.SentAt = store.Machine{Image: "ami-1"}.Spec(), 1, t0
	want.History = store.History{{At: t0, State: "accepted"}}
	same(t, "request", r.Accept(t0, 10*time.Minute), want)
}

func TestHoldTellsEachWaitOnce(t *testing.T) {
	r := accepted("r1", store.Shared)
	want := r
	want.DueAt, want.Wait = at(time.Minute), store.WaitQuota
	want.History = append(slices.Clone(r.History), store.Entry{At: at(time.Second), State: "accepted", Reason: "quota_reached"})
	held := r.Hold(at(time.Second), at(time.Minute), store.WaitQuota)
	same(t, "request", held, want)
	want.DueAt = at(2 * time.Minute)
	same(t, "request held again", held.Hold(at(time.Minute), at(2*time.Minute), store.WaitQuota), want)
	if got := held.Hold(at(time.Minute), at(2*time.Minute), store.WaitPaced); len(got.History) != 3 {
		t.Errorf("history of two waits has %d entries, want 3", len(got.History))
	}
}

func TestRequestIsHeldUntilASecondPastGiveUpAtMost(t *testing.T) {
	r := accepted("r1", store.Shared)
	last := r.GiveUpAt.Add(time.Second)
	for due, want := range map[time.Time]time.Time{
		last.Add(-1):                  last.Add(-1),
		last:                          last,
		last.Add(1):                   last,
		r.GiveUpAt.Add(6 * time.Hour): last,
	} {
		held := r.Hold(t0, due, store.WaitGitHub)
		if !held.DueAt.Equal(want) {
			t.Errorf("held until %v, it is due at %v, want %v", due, held.DueAt, want)
		}
		if due.After(r.GiveUpAt) && !held.Overdue(held.DueAt) {
			t.Errorf("held until %v, it is not overdue when it is due", due)
		}
	}
}

func TestUnpicked(t *testing.T) {
	now := at(5 * time.Second)
	for _, c := range []struct {
		name string
		edit func(*store.Request)
		want bool
	}{
		{"NothingTookItUp", func(*store.Request) {}, true},
		{"SentAMomentAgo", func(r *store.Request) { r.SentAt = t0.Add(1) }, false},
		{"SentTwice", func(r *store.Request) { *r = r.Sent(t0) }, false},
		{"NeverSent", func(r *store.Request) { r.Sends = 0 }, false},
		{"Waits", func(r *store.Request) { r.Wait = store.WaitQuota }, false},
		{"HasARunner", func(r *store.Request) { r.State = store.Waiting }, false},
		{"IsFinal", func(r *store.Request) { r.State = store.Cancelled }, false},
	} {
		r := accepted("r1", store.Shared)
		c.edit(&r)
		if got := r.Unpicked(now, lim); got != c.want {
			t.Errorf("%s: Unpicked = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSentCounts(t *testing.T) {
	r := accepted("r1", store.Shared)
	want := r
	want.Sends, want.SentAt = 2, at(time.Minute)
	same(t, "request", r.Sent(at(time.Minute)), want)
}

func TestForgotten(t *testing.T) {
	base := accepted("r1", store.Shared) // sent at t0
	held := func(wait string) store.Request { return base.Hold(t0, at(30*time.Second), wait) }
	for _, c := range []struct {
		name string
		req  store.Request
		at   time.Duration
		want bool
	}{
		{"NotPickedUp", base, 59 * time.Second, false},
		{"NotPickedUpForAMinute", base, time.Minute, true},
		{"AtTheQuota", held(store.WaitQuota), 29 * time.Second, false},
		{"AtTheQuotaAndDue", held(store.WaitQuota), 30 * time.Second, true},
		{"AtTheQuotaAndSentByAnotherRun", held(store.WaitQuota).Sent(at(31 * time.Second)), time.Minute, false},
		{"Paced", held(store.WaitPaced), 89 * time.Second, false},
		{"PacedAndLost", held(store.WaitPaced), 90 * time.Second, true},
		{"Outage", held(store.WaitOutage), time.Minute, false},
		{"Waiting", launching(t, store.Shared).req, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.req.Forgotten(at(c.at), lim); got != c.want {
				t.Errorf("Forgotten after %s = %t, want %t", c.at, got, c.want)
			}
			if want := c.req.Wait == store.WaitQuota; c.req.Parked() != want {
				t.Errorf("Parked = %t, want %t", !want, want)
			}
		})
	}
}

func TestFinalRequestsNeverChange(t *testing.T) {
	late := at(time.Hour)
	for _, state := range store.RequestStates {
		if !state.Final() {
			continue
		}
		r := accepted("r1", store.Shared)
		r.State = state
		same(t, string(state)+" after Fail", r.Fail(late, lim, store.Failure{Code: "x"}), r)
		same(t, string(state)+" after Expire", r.Expire(late, lim), r)
		same(t, string(state)+" after Cancel", r.Cancel(late, lim, "x"), r)
		if r.Overdue(late) {
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

func TestFail(t *testing.T) {
	f := store.Failure{Code: "access", Text: "The role cannot be assumed."}
	for _, r := range []store.Request{accepted("r1", store.Shared).Hold(t0, t0, store.WaitQuota), launching(t, store.Shared).req} {
		same(t, "request", r.Fail(at(time.Minute), lim, f), ended(r, at(time.Minute), store.Failed, "access", &f))
	}
}

func TestCancel(t *testing.T) {
	f := store.Failure{Code: "cancelled", Text: "The request was cancelled."}
	for _, r := range []store.Request{accepted("r1", store.Shared).Hold(t0, t0, store.WaitQuota), launching(t, store.Shared).req} {
		same(t, "request", r.Cancel(at(time.Minute), lim, "github octocat"), ended(r, at(time.Minute), store.Cancelled, "by github octocat", &f))
	}
}

func TestExpire(t *testing.T) {
	giveUp := at(15 * time.Minute)
	for _, c := range []struct {
		name string
		req  store.Request
		why  string
	}{
		{"NeverPickedUp", accepted("r1", store.Shared), ""},
		{"HeldAtTheQuota", accepted("r1", store.Shared).Hold(t0, t0, store.WaitQuota), "quota_reached"},
		{"Waiting", launching(t, store.Shared).req, "runner x1 is not online"},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, "request at give_up_at", c.req.Expire(giveUp, lim), c.req)
			now := giveUp.Add(1)
			got := c.req.Expire(now, lim)
			if got.Error == nil || got.Error.Code != "expired" || !got.Error.Retryable ||
				!strings.Contains(got.Error.Text, "give_up_at") || !strings.Contains(got.Error.Text, c.why) {
				t.Errorf("error = %v, want expired, retryable, with %q", got.Error, c.why)
			}
			if got.Error != nil && strings.Contains(got.Error.Text, "last:") != (c.why != "") {
				t.Errorf("error = %q: a last reason only if there is one", got.Error.Text)
			}
			same(t, "request", got, ended(c.req, now, store.Expired, c.why, got.Error))
		})
	}
}
