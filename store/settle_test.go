package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestSettle(t *testing.T) {
	now := at(6 * time.Minute)
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*stage)
		want  store.RequestState
		why   string // the reason in the history; "" when nothing changes
	}{
		{"NewMayComeOnline", launching, func(*stage) {}, store.Waiting, ""},
		{"LaunchedMayComeOnline", launched, func(*stage) {}, store.Waiting, ""},
		{"BootingMayComeOnline", booting, func(*stage) {}, store.Waiting, ""},
		{"OnlineIsReady", online, func(*stage) {}, store.Ready, "runner online"},
		{"BusyIsReady", busy, func(*stage) {}, store.Ready, "runner online"},
		{"WasOnlineAndDrainsIsReady", online, func(s *stage) { *s = s.drained(now, store.EndSpot) }, store.Ready, "runner online"},
		{"WasOnlineAndEndedIsReady", online, func(s *stage) { *s = s.ended(now) }, store.Ready, "runner online"},
		{"WasOnlineAndTooOldIsReady", online, func(s *stage) { *s = s.drained(now, store.EndTooOld) }, store.Ready, "runner online"},
		{"FailedIsGivenUp", launching, func(s *stage) {
			s.run, s.lock, s.quota = store.Abandon(now, lim, s.run, s.lock, s.quota, "x", store.NewEnd(store.EndNoCapacity), false)
		}, store.Accepted, store.EndNoCapacity},
		{"EndedIsGivenUp", booting, func(s *stage) { *s = s.ended(now) }, store.Accepted, store.EndTerminated},
		{"EndedWithoutAReasonIsGivenUp", booting, func(s *stage) { *s = s.ended(now); s.run.End = nil }, store.Accepted, "runner_ended"},
		{"NothingIsLeftOfTheRecord", booting, func(s *stage) { s.run = store.Runner{} }, store.Accepted, "runner_ended"},
		{"RecordIsGoneIsGivenUp", booting, func(s *stage) { s.run = store.Runner{ID: "x1"} }, store.Accepted, "runner_ended"},
		{"DrainsWithoutAConfigIsGivenUp", launched, func(s *stage) { *s = s.drained(now, store.EndNoBoot) }, store.Accepted, store.EndNoBoot},
		{"EndsWithoutAConfigIsGivenUp", launched, func(s *stage) {
			*s = s.drained(now, store.EndNoBoot)
			s.run = s.run.Ending(now, "")
		}, store.Accepted, store.EndNoBoot},
		{"DrainsRegisteredIsKept", booting, func(s *stage) { *s = s.drained(now, store.EndNotOnline) }, store.Waiting, ""},
		{"EndsRegisteredIsKept", booting, func(s *stage) {
			*s = s.drained(now, store.EndNotOnline)
			s.run = s.run.Ending(now, "")
		}, store.Waiting, ""},
		{"DrainsDeregisteredIsGivenUp", booting, func(s *stage) {
			*s = s.drained(now, store.EndNotOnline)
			s.run = s.run.Deregistered(now)
		}, store.Accepted, store.EndNotOnline},
		{"DeregisteredAndUsableIsKept", booting, func(s *stage) { s.run.DeregisteredAt = now }, store.Waiting, ""},
		{"TerminalReasonFails", booting, func(s *stage) { *s = s.drained(now, store.EndTooOld) }, store.Failed, store.EndTooOld},
		{"TerminalReasonOfAUsableRunnerDoesNot", booting, func(s *stage) { s.run.End = &store.Failure{Code: "x"} }, store.Waiting, ""},
		{"LaunchRefusedFails", launching, func(s *stage) {
			s.run, s.lock, s.quota = store.Abandon(now, lim, s.run, s.lock, s.quota, "UnauthorizedOperation", store.Failure{Code: store.EndLaunchDenied, Text: "t"}, false)
		}, store.Failed, store.EndLaunchDenied},
		{"CompromisedIsTriedAgain", launched, func(s *stage) { *s = s.drained(now, store.EndCompromised) }, store.Accepted, store.EndCompromised},
		{"AnotherRunnerTellsNothing", booting, func(s *stage) { *s = s.ended(now); s.run.ID = "x2" }, store.Waiting, ""},
		{"AnotherRunnerOnlineTellsNothing", online, func(s *stage) { s.run.ID = "x2" }, store.Waiting, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			s.req = launching(t, store.Shared).req // as it waits
			c.edit(&s)
			got, changed, again := store.Settle(now, lim, s.req, s.run)
			if got.State != c.want || changed != (c.why != "") || again != (c.want == store.Accepted) {
				t.Errorf("Settle = %s, changed %v, again %v; want %s, %v, %v", got.State, changed, again, c.want, c.why != "", c.want == store.Accepted)
			}
			if !changed {
				same(t, "request", got, s.req)
				return
			}
			same(t, "story", last(got.History), store.Entry{At: now, State: string(c.want), Reason: c.why})
		})
	}
}

func TestSettleLeavesAllButWaitingRequestsAlone(t *testing.T) {
	s := online(t, store.Shared)
	for _, state := range []store.RequestState{store.Accepted, store.Ready, store.Failed, store.Expired, store.Cancelled} {
		r := s.req
		r.State = state
		got, changed, again := store.Settle(at(time.Hour), lim, r, s.run)
		if changed || again {
			t.Errorf("Settle of a request that is %s: changed %v, again %v; want nothing", state, changed, again)
		}
		same(t, "request", got, r)
	}
}

func TestReadyAtIsWhenTheRunnerWasOnlineWheneverSomebodyLooks(t *testing.T) {
	s := online(t, store.Shared)
	got, changed, _ := store.Settle(at(7*time.Minute), lim, launching(t, store.Shared).req, s.run)
	if !changed || !got.ReadyAt.Equal(at(70*time.Second)) || !got.EndedAt.Equal(at(7*time.Minute)) {
		t.Errorf("ready at %v, ended at %v, changed %v; want 12:01:10, 12:07 and a change", got.ReadyAt, got.EndedAt, changed)
	}
}

// The runner of a request that gives up at 12:01:30 is online before, at or after that.
func TestOnlineAfterGiveUpIsExpiredAndNotReady(t *testing.T) {
	giveUp := at(90 * time.Second)
	for _, c := range []struct {
		name        string
		online, now time.Time
		want        store.RequestState
	}{
		{"OnlineBeforeAndSettledBefore", giveUp.Add(-time.Second), giveUp, store.Ready},
		{"OnlineBeforeAndSettledAfter", giveUp.Add(-time.Second), giveUp.Add(time.Hour), store.Ready},
		{"OnlineAtTheLastMoment", giveUp, giveUp.Add(time.Second), store.Ready},
		{"OnlineAMomentTooLate", giveUp.Add(1), giveUp.Add(time.Second), store.Expired},
		{"OnlineTooLateByAFasterClock", giveUp.Add(1), giveUp, store.Waiting},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := online(t, store.Shared)
			s.req = launching(t, store.Shared).req // as it waits
			s.req.GiveUpAt, s.run.OnlineAt = giveUp, c.online
			got, changed, again := store.Settle(c.now, lim, s.req, s.run)
			if got.State != c.want || changed != (c.want != store.Waiting) || again {
				t.Fatalf("Settle = %s, changed %v, again %v; want %s", got.State, changed, again, c.want)
			}
			switch c.want {
			case store.Expired:
				if got.Error == nil || got.Error.Code != "expired" || !strings.Contains(got.Error.Text, "x1 was online only at 12:01:30 UTC") || len(got.Attempts) != 1 || !got.ReadyAt.IsZero() {
					t.Errorf("error %+v, attempts %v, ready at %v; want expired, with the time, the attempt and no ready_at", got.Error, got.Attempts, got.ReadyAt)
				}
			case store.Waiting:
				same(t, "request", got, s.req)
			}
		})
	}
}

func TestSettledReadyIsFinal(t *testing.T) {
	s := online(t, store.Shared)
	want := launching(t, store.Shared).req
	now := at(71 * time.Second)
	want.State, want.DueAt, want.ReadyAt, want.EndedAt, want.TTL = store.Ready, time.Time{}, at(70*time.Second), now, now.Add(lim.Keep).Unix()
	want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "ready", Reason: "runner online"})
	same(t, "request", s.req, want)
}

func TestGivenUpRequestIsAcceptedAgain(t *testing.T) {
	now := at(time.Minute)
	s := launching(t, store.Shared).drained(now, store.EndNoCapacity)
	s.run.Attempts = []store.Attempt{{Code: "a"}, {Code: "b"}}
	s.req.Attempts = []store.Attempt{{Code: "earlier"}}
	s.req.Sends = 2
	want := s.req
	want.State, want.Runner, want.Tries, want.Wait, want.DueAt = store.Accepted, "", 1, store.WaitBackoff, now.Add(30*time.Second)
	want.Sends, want.SentAt = 1, now
	want.Attempts = []store.Attempt{{Code: "earlier"}, {Code: "a"}, {Code: "b"}}
	want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "accepted", Reason: "no_capacity"})
	got, _, _ := store.Settle(now, lim, s.req, s.run)
	same(t, "request", got, want)
}

func TestRequestThatEndsWithItsRunnerTellsWhatWasTried(t *testing.T) {
	now := at(time.Minute)
	refused := launching(t, store.Shared).drained(now, store.EndTooOld)
	refused.run.Attempts = []store.Attempt{{Code: "a"}}
	if got, _, _ := store.Settle(now, lim, refused.req, refused.run); got.State != store.Failed || len(got.Attempts) != 1 {
		t.Errorf("request is %s with attempts %v, want failed with one", got.State, got.Attempts)
	}
	if got := refused.req.Tried(refused.run).Expire(at(time.Hour), lim); got.State != store.Expired || len(got.Attempts) != 1 {
		t.Errorf("request is %s with attempts %v, want expired with one", got.State, got.Attempts)
	}
}

func TestRequestThatFailsForWantOfVCPUsKeepsCount(t *testing.T) {
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndVCPULimit)
	s.req.Tries, s.req.GiveUpAt = 3, at(time.Minute)
	if got, _, _ := store.Settle(at(time.Minute), lim, s.req, s.run); got.State != store.Failed || got.Tries != 3 {
		t.Errorf("request is %s after %d tries, want failed after 3", got.State, got.Tries)
	}
}

func TestRequestOfAVCPULimitIsTriedOnceWhenThereAreNoWaits(t *testing.T) {
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndVCPULimit)
	once := lim
	once.Waits = nil
	if got, _, _ := store.Settle(at(time.Minute), once, s.req, s.run); got.State != store.Failed {
		t.Errorf("request is %s, want failed", got.State)
	}
}

func TestTriesAreLimited(t *testing.T) {
	now := at(time.Minute)
	for _, c := range []struct {
		name   string
		tries  int
		code   string
		giveUp time.Time
		want   store.RequestState
		wait   time.Duration
	}{
		{"FirstWait", 0, store.EndNoBoot, at(time.Hour), store.Accepted, 30 * time.Second},
		{"SecondWait", 1, store.EndNoBoot, at(time.Hour), store.Accepted, time.Minute},
		{"ThirdWait", 2, store.EndNoBoot, at(time.Hour), store.Accepted, 2 * time.Minute},
		{"NoTryLeft", 3, store.EndNoBoot, at(time.Hour), store.Failed, 0},
		{"NextTryAtGiveUp", 1, store.EndNoBoot, now.Add(time.Minute), store.Accepted, time.Minute},
		{"NextTryAfterGiveUp", 1, store.EndNoBoot, now.Add(time.Minute - 1), store.Failed, 0},
		{"VCPULimitIsTriedUntilGiveUp", 3, store.EndVCPULimit, at(time.Hour), store.Accepted, 2 * time.Minute},
		{"VCPULimitBeginsGently", 0, store.EndVCPULimit, at(time.Hour), store.Accepted, 30 * time.Second},
		{"VCPULimitEndsAtGiveUp", 3, store.EndVCPULimit, now.Add(2*time.Minute - 1), store.Failed, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launching(t, store.Shared).drained(now, c.code)
			s.req.Tries, s.req.GiveUpAt = c.tries, c.giveUp
			got, changed, again := store.Settle(now, lim, s.req, s.run)
			if got.State != c.want || !changed || again != (c.want == store.Accepted) {
				t.Fatalf("Settle = %s, changed %v, again %v; want %s", got.State, changed, again, c.want)
			}
			if c.want == store.Accepted {
				if !got.DueAt.Equal(now.Add(c.wait)) || got.Error != nil {
					t.Errorf("due %v, error %v; want %v, none", got.DueAt, got.Error, now.Add(c.wait))
				}
				return
			}
			want := store.NewEnd(c.code)
			want.Text += " No further try is left; see the attempts."
			same(t, "error", got.Error, &want)
			if !got.DueAt.IsZero() || !got.EndedAt.Equal(now) || got.TTL == 0 || got.Runner != "x1" {
				t.Errorf("failed: due %v, ended %v, TTL %d, runner %q; want none, now, some, x1", got.DueAt, got.EndedAt, got.TTL, got.Runner)
			}
			if s.run.End.Text != store.NewEnd(c.code).Text {
				t.Error("Settle changed the runner's reason")
			}
		})
	}
}

func TestAttemptsOfTwoPlansAreKept(t *testing.T) {
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndNoCapacity)
	for n := range store.MaxPlacements {
		s.run.Attempts = append(s.run.Attempts, store.Attempt{Runner: "new", At: at(time.Duration(n))})
		for range 2 {
			s.req.Attempts = append(s.req.Attempts, store.Attempt{Runner: "old", At: at(time.Duration(n))})
		}
	}
	got, _, _ := store.Settle(at(time.Minute), lim, s.req, s.run)
	if len(got.Attempts) != 2*store.MaxPlacements || got.Attempts[0].Runner != "old" || got.Attempts[store.MaxPlacements].Runner != "new" {
		t.Errorf("%d attempts kept, want %d, half of them old", len(got.Attempts), 2*store.MaxPlacements)
	}
	if last := got.Attempts[len(got.Attempts)-1]; !last.At.Equal(at(store.MaxPlacements - 1)) {
		t.Errorf("the last attempt is of %v, want the newest", last.At)
	}
}

func TestRemindMovesDueAtAlone(t *testing.T) {
	r := launching(t, store.Shared).req
	want := r
	want.DueAt = at(8 * time.Minute)
	same(t, "request", r.Remind(at(7*time.Minute), lim), want)
}
