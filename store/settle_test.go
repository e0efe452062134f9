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
			*s = s.abandoned(now, "x", store.NewEnd(store.EndNoCapacity))
		}, store.Accepted, store.EndNoCapacity},
		{"EndedIsGivenUp", booting, func(s *stage) { *s = s.ended(now) }, store.Accepted, store.EndTerminated},
		{"EndedWithoutAReasonIsGivenUp", booting, func(s *stage) { *s = s.ended(now); s.run.End = nil }, store.Accepted, "runner_ended"},
		{"ARunnerThatWasNotReadTellsNothing", booting, func(s *stage) { s.run = store.Runner{} }, store.Waiting, ""},
		{"RecordIsGoneIsGivenUp", booting, func(s *stage) { s.run = store.Runner{ID: "x1"} }, store.Accepted, "runner_ended"},
		{"DrainsWithoutAConfigIsGivenUp", launched, func(s *stage) { *s = s.drained(now, store.EndNoBoot) }, store.Accepted, store.EndNoBoot},
		{"EndsWithoutAConfigIsGivenUp", launched, func(s *stage) {
			*s = s.drained(now, store.EndNoBoot)
			*s = s.ending(now)
		}, store.Accepted, store.EndNoBoot},
		{"DrainsRegisteredIsKept", booting, func(s *stage) { *s = s.drained(now, store.EndNotOnline) }, store.Waiting, ""},
		{"EndsRegisteredIsKept", booting, func(s *stage) {
			*s = s.drained(now, store.EndNotOnline)
			*s = s.ending(now)
		}, store.Waiting, ""},
		{"DrainsDeregisteredIsGivenUp", booting, func(s *stage) {
			*s = s.drained(now, store.EndNotOnline)
			s.take(s.c().Deregistered(now))
		}, store.Accepted, store.EndNotOnline},
		{"DeregisteredAndUsableIsKept", booting, func(s *stage) { s.run.DeregisteredAt = now }, store.Waiting, ""},
		{"TerminalReasonFails", booting, func(s *stage) { *s = s.drained(now, store.EndTooOld) }, store.Failed, store.EndTooOld},
		{"TerminalReasonOfAUsableRunnerDoesNot", booting, func(s *stage) { s.run.End = &store.Failure{Code: "x"} }, store.Waiting, ""},
		{"LaunchRefusedFails", launching, func(s *stage) {
			*s = s.abandoned(now, "UnauthorizedOperation", store.Failure{Code: store.EndLaunchDenied, Text: "t"})
		}, store.Failed, store.EndLaunchDenied},
		{"CompromisedIsTriedAgain", launched, func(s *stage) { *s = s.drained(now, store.EndCompromised) }, store.Accepted, store.EndCompromised},
		{"AnotherRunnerTellsNothing", booting, func(s *stage) { *s = s.ended(now); s.run.ID = "x2" }, store.Waiting, ""},
		{"AnotherRunnerOnlineTellsNothing", online, func(s *stage) { s.run.ID = "x2" }, store.Waiting, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			s.req = launching(t, store.Shared).req // as it waits
			c.edit(&s)
			d := s.c().Settle(now, lim)
			if d.Request.State != c.want {
				t.Errorf("Settle = %s, want %s", d.Request.State, c.want)
			}
			if c.why == "" {
				s.decides(t, d, outcome{})
				return
			}
			same(t, "story", last(d.Request.History), store.Entry{At: now, State: string(c.want), Reason: c.why})
			follows := outcome{changes: "put request"}
			if c.want == store.Accepted {
				follows.sends = "request r1 due 6m30s"
			}
			s.req = d.Request
			s.decides(t, d, follows)
		})
	}
}

// abandoned is s after its runner was given up. Its request has not learnt of that.
func (s stage) abandoned(now time.Time, code string, why store.Failure) stage {
	waits := s.req
	s.take(s.c().Abandon(now, lim, code, store.Said{}, why))
	s.req = waits
	return s
}

func TestNothingFollowsWithoutTheRequest(t *testing.T) {
	for name, r := range map[string]store.Request{"not read": {}, "absent": {ID: "r1"}, "absent, and yet waiting": {ID: "r1", State: store.Waiting, Runner: "x1"}} {
		t.Run(name, func(t *testing.T) {
			s := online(t, store.Shared)
			s.req = r
			s.decides(t, s.c().Settle(at(time.Hour), lim), outcome{})
		})
	}
}

func TestSettleLeavesAllButWaitingRequestsAlone(t *testing.T) {
	s := online(t, store.Shared)
	for _, state := range []store.RequestState{store.Accepted, store.Ready, store.Failed, store.Expired, store.Cancelled} {
		s.req.State = state
		s.decides(t, s.c().Settle(at(time.Hour), lim), outcome{})
	}
}

func TestReadyAtIsWhenTheRunnerWasOnlineWheneverSomebodyLooks(t *testing.T) {
	s := online(t, store.Shared)
	s.req = launching(t, store.Shared).req
	d := s.c().Settle(at(7*time.Minute), lim)
	got, changed := d.Request, told(d.Changes)
	if changed != "put request" || !got.ReadyAt.Equal(at(70*time.Second)) || !got.EndedAt.Equal(at(7*time.Minute)) {
		t.Errorf("ready at %v, ended at %v, changes %q; want 12:01:10, 12:07 and the request put", got.ReadyAt, got.EndedAt, changed)
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
			d := s.c().Settle(c.now, lim)
			got, follows := d.Request, outcome{changes: "put request"}
			if c.want == store.Waiting {
				follows = outcome{}
			}
			if got.State != c.want || outcomeOf(d) != follows {
				t.Fatalf("Settle = %s and %+v; want %s and %+v", got.State, outcomeOf(d), c.want, follows)
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
	d := s.c().Settle(now, lim)
	s.req = want
	s.decides(t, d, outcome{changes: "put request", sends: "request r1 due 1m30s"})
}

func TestRequestThatEndsWithItsRunnerTellsWhatWasTried(t *testing.T) {
	now := at(time.Minute)
	refused := launching(t, store.Shared).drained(now, store.EndTooOld)
	refused.run.Attempts = []store.Attempt{{Code: "a"}}
	if got := refused.c().Settle(now, lim).Request; got.State != store.Failed || len(got.Attempts) != 1 {
		t.Errorf("request is %s with attempts %v, want failed with one", got.State, got.Attempts)
	}
	if got := refused.c().Expire(at(time.Hour), lim).Request; got.State != store.Expired || len(got.Attempts) != 1 {
		t.Errorf("request is %s with attempts %v, want expired with one", got.State, got.Attempts)
	}
}

func TestRequestThatFailsForWantOfVCPUsKeepsCount(t *testing.T) {
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndVCPULimit)
	s.req.Tries, s.req.GiveUpAt = 3, at(time.Minute)
	if got := s.c().Settle(at(time.Minute), lim).Request; got.State != store.Failed || got.Tries != 3 {
		t.Errorf("request is %s after %d tries, want failed after 3", got.State, got.Tries)
	}
}

func TestRequestOfAVCPULimitIsTriedOnceWhenThereAreNoWaits(t *testing.T) {
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndVCPULimit)
	once := lim
	once.Waits = nil
	if got := s.c().Settle(at(time.Minute), once).Request; got.State != store.Failed {
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
			d := s.c().Settle(now, lim)
			got, follows := d.Request, outcome{changes: "put request"}
			if c.want == store.Accepted {
				follows.sends = "request r1 due " + (time.Minute + c.wait).String()
			}
			if got.State != c.want || outcomeOf(d) != follows {
				t.Fatalf("Settle = %s and %+v; want %s and %+v", got.State, outcomeOf(d), c.want, follows)
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
	got := s.c().Settle(at(time.Minute), lim).Request
	if len(got.Attempts) != 2*store.MaxPlacements || got.Attempts[0].Runner != "old" || got.Attempts[store.MaxPlacements].Runner != "new" {
		t.Errorf("%d attempts kept, want %d, half of them old", len(got.Attempts), 2*store.MaxPlacements)
	}
	if last := got.Attempts[len(got.Attempts)-1]; !last.At.Equal(at(store.MaxPlacements - 1)) {
		t.Errorf("the last attempt is of %v, want the newest", last.At)
	}
}

func TestReviewOfAWaitingRequestMovesDueAtAlone(t *testing.T) {
	s := launching(t, store.Shared)
	d, out := s.c().ReviewRequest(at(7*time.Minute), lim)
	if out != store.WaitsOn {
		t.Errorf("the outcome is %q, want %q", out, store.WaitsOn)
	}
	s.req.DueAt = at(8 * time.Minute)
	s.decides(t, d, outcome{changes: "put request"})
}
