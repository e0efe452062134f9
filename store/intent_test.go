package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBeginCommitsTheIntent(t *testing.T) {
	s := intended(held("r1", t0, t0, store.WaitPaced))
	s.req.Slot = at(-time.Second) // its turn was a moment ago
	s.lock = store.Lock{Meta: store.Meta{Version: 8, TTL: 99}, Key: s.req.LockKey(), State: store.LockDraining, Runner: "x0",
		Joined: "r0", Exp: at(9 * time.Hour), Hard: at(9 * time.Hour), BootBy: at(9 * time.Hour)}
	s.quota = store.Quota{Meta: store.Meta{Version: 5}, Live: 9, Limit: 20, Next: map[string]time.Time{"eu-west-2": at(-time.Second), "eu-west-1": at(time.Hour)}}
	nextBefore := s.quota.Next["eu-west-2"]
	now := t0
	in := intent()
	d := s.c().Begin(now, lim, in)
	bootBy := at(5 * time.Minute) // boot limit after the call
	want := s
	want.lock = store.Lock{
		Meta: store.Meta{Version: 8}, Key: "123456789012/eu-west-2/42/spot/default/large,linux", State: store.LockLaunching, Runner: "x1",
		Exp: bootBy.Add(time.Hour), Hard: at(6 * time.Hour), BootBy: bootBy, SharedAt: now,
	}
	want.quota = store.Quota{
		Meta: store.Meta{Version: 5}, Account: "123456789012", Live: 10, Limit: 10,
		Next:  map[string]time.Time{"eu-west-2": at(-500 * time.Millisecond), "eu-west-1": at(time.Hour)},
		Reach: &store.Reach{Until: at(6 * time.Hour).Add(lim.NameLife)},
	}
	if got := s.quota.Next["eu-west-2"]; got != nextBefore {
		t.Errorf("Begin changed the quota that it was given: next %v", got)
	}
	want.run = store.Runner{
		Meta: store.Meta{DueAt: now}, ID: "x1", State: store.RunnerNew, CreatedAt: now, Lock: want.lock.Key, Request: "r1", Trace: "trace-r1",
		Repository: s.req.Repository, RunID: "1001", Account: "123456789012", Region: "eu-west-2", Mode: store.Shared,
		Labels: []string{"garo-own", "spot", "large", "linux"}, Plan: in.Plan, Launch: in.Launch,
		CalledAt: now, Claim: in.Claim, Wanted: 1, Hard: at(6 * time.Hour),
		Names:   []store.GitHubName{{N: 1, Name: "garo-test-x1-1"}},
		History: store.History{{At: now, State: "new", Reason: "for request r1"}},
	}
	want.req.State, want.req.Runner, want.req.Wait, want.req.DueAt = store.Waiting, "x1", "", bootBy.Add(10*time.Second)
	want.req.Slot = time.Time{}
	want.req.History = noted(s.req.History, now, "waiting", "launches runner x1")
	want.decides(t, d, outcome{changes: "put request, put runner, put lock, put quota"})
}

func TestBeginSlotIsNeverInThePast(t *testing.T) {
	d := intended(accepted("r1", store.Shared)).c().Begin(t0, lim, intent())
	if !d.Runner.CalledAt.Equal(t0) || !d.Lock.BootBy.Equal(at(5*time.Minute)) {
		t.Errorf("called at %v, boot by %v; want %v and 5m later", d.Runner.CalledAt, d.Lock.BootBy, t0)
	}
	if want := at(-1500 * time.Millisecond); !d.Quota.Next["eu-west-2"].Equal(want) {
		t.Errorf("next slot = %v, want %v: the burst is not used up", d.Quota.Next["eu-west-2"], want)
	}
}

func TestBeginExpStopsAtHard(t *testing.T) {
	in := intent()
	in.Launch.HardS = 1800
	d := intended(accepted("r1", store.Shared)).c().Begin(t0, lim, in)
	if want := at(30 * time.Minute); !d.Lock.Exp.Equal(want) || !d.Lock.Hard.Equal(want) || !d.Runner.Hard.Equal(want) {
		t.Errorf("exp %v, hard %v and %v; want %v", d.Lock.Exp, d.Lock.Hard, d.Runner.Hard, want)
	}
}

func TestBeginRefuses(t *testing.T) {
	next := func(region string, after time.Duration) func(*store.Quota) {
		return func(q *store.Quota) { q.Next = map[string]time.Time{region: at(after)} }
	}
	for _, c := range []struct {
		name string
		edit func(*store.Quota)
		want store.Wait
	}{
		{"AtTheQuota", func(q *store.Quota) { q.Live = 10 }, store.Wait{For: store.WaitQuota, Until: at(30 * time.Second)}},
		{"AboveALoweredQuota", func(q *store.Quota) { q.Live = 11 }, store.Wait{For: store.WaitQuota, Until: at(30 * time.Second)}},
		{"BelowTheQuota", func(q *store.Quota) { q.Live = 9 }, store.Wait{}},
		{"BeforeItsTurn", next("eu-west-2", -time.Second+1), store.Wait{For: store.WaitPaced, Until: at(1)}},
		{"AtItsTurn", next("eu-west-2", -time.Second), store.Wait{}},
		{"SlotsOfAnotherRegionDoNotCount", next("eu-west-1", time.Hour), store.Wait{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := intended(accepted("r1", store.Shared))
			c.edit(&s.quota)
			d := s.c().Begin(t0, lim, intent())
			if c.want != (store.Wait{}) {
				s.decides(t, d, outcome{wait: c.want})
				return
			}
			if got, want := outcomeOf(d), (outcome{changes: "put request, put runner, put lock, put quota"}); got != want {
				t.Errorf("the decision is %+v, want %+v", got, want)
			}
		})
	}
}

// lined is a request whose account has others wait until a time, and calls EC2 again from
// another on; and which has a turn, or none.
func lined(mode string, end, room time.Duration, slot time.Duration) stage {
	s := intended(accepted("r1", mode))
	if slot != 0 {
		s.req.Wait, s.req.DueAt, s.req.Slot = store.WaitPaced, at(slot), at(slot)
	}
	s.quota = store.Quota{Meta: store.Meta{Version: 5}, Account: s.req.Account, Live: 2, Limit: 10,
		Next: map[string]time.Time{"eu-west-2": at(room)}, Lines: map[string]store.Line{"eu-west-2": {End: at(end), Last: map[string]time.Time{s.req.Repository.Key(): at(end)}}}}
	return s
}

func TestLine(t *testing.T) {
	const s = time.Second
	behind := func(ms int64) func(*stage) {
		return func(s *stage) {
			s.quota.Lines = map[string]store.Line{"eu-west-2": {End: at(40 * time.Second), BehindMS: ms, Last: map[string]time.Time{s.req.Repository.Key(): at(30 * time.Second)}}}
		}
	}
	alone := func(s *stage) { // of another repository than those who wait
		s.quota.Lines = map[string]store.Line{"eu-west-2": {End: at(40 * time.Second), Last: map[string]time.Time{"other": at(39 * time.Second)}}}
	}
	ahead := func(s *stage) {
		alone(s)
		s.req.Ahead = true
		line := s.quota.Lines["eu-west-2"]
		line.BehindMS = 3000
		s.quota.Lines["eu-west-2"] = line
	}
	for _, c := range []struct {
		name      string
		mode      string
		end, room time.Duration
		slot      time.Duration // 0: none
		edit      func(*stage)
		turn      time.Duration // 0: now
		has       time.Duration // the slot of the record afterwards
		after     time.Duration // the end of the line
		changes   string
	}{
		{"ThereIsRoom", store.Ephemeral, 0, -s, 0, nil, 0, 0, 0, ""},
		{"WhatIsSparedIsForOthers", store.Ephemeral, 0, -s + 1, 0, nil, 1, 1, 500*time.Millisecond + 1, "put request, put quota"},
		{"AtTheEnd", store.Ephemeral, 40 * s, -s, 0, nil, 40 * s, 40 * s, 40500 * time.Millisecond, "put request, put quota"},
		{"AtTheEndOfALineThatIsBehind", store.Ephemeral, 40 * s, -s, 0, behind(3000), 40 * s, 37 * s, 40500 * time.Millisecond, "put request, put quota"},
		{"ItsTurnHasCome", store.Ephemeral, 40 * s, -s, -s, nil, 0, 0, 0, ""},
		{"ItsTurnIsToCome", store.Ephemeral, 40 * s, -s, s, nil, s, s, 40 * s, ""},
		{"ItsTurnMovedBack", store.Ephemeral, 40 * s, -s + 1, -s, behind(3000), 2 * s, -s, 40 * s, "put request"},
		{"ItsTurnMovedBackAndThereIsRoom", store.Ephemeral, 40 * s, -s, -s, behind(3000), 0, 0, 0, ""},
		{"ItsTurnMovedBackAndItComesEarly", store.Ephemeral, 40 * s, -s, 1, behind(3000), 3*s + 1, 1, 40 * s, "put request"},
		{"ItsTurnHasComeAndItsSlotIsAtHand", store.Ephemeral, 40 * s, s, -s, nil, 0, 0, 0, ""},
		{"ItsTurnHasComeAndOthersWentFirst", store.Ephemeral, 40 * s, s + 1, -s, nil, 0, 0, 0, ""},
		{"ItsTurnHasComeAndManyWentFirst", store.Ephemeral, 40 * s, 2*s + 1, -s, nil, 2*s + 1, 2*s + 1, 40500 * time.Millisecond, "put request, put quota"},
		{"ItsTurnIsLongOver", store.Ephemeral, 40 * s, 2*s + 1, -3 * s, nil, 2*s + 1, 2*s + 1, 40500 * time.Millisecond, "put request, put quota"},
		{"SharersHaveOneTurn", store.Shared, 40 * s, -s, 0, func(st *stage) {
			st.lock = store.Lock{Meta: store.Meta{Version: 1}, Key: st.req.LockKey(), State: store.LockEmpty, Slot: at(9 * s)}
		}, 9 * s, 9 * s, 40 * s, "put request, put lock"},
		{"TheFirstSharerLeavesItsTurn", store.Shared, 40 * s, -s, 0, nil, 40 * s, 40 * s, 40500 * time.Millisecond, "put request, put lock, put quota"},
		{"TheOnlyOneOfItsRepositoryGoesFirst", store.Ephemeral, 40 * s, 3 * s, 0, alone, 3 * s, 3 * s, 40500 * time.Millisecond, "put request, put quota"},
		{"TheOnlyOneOfItsRepositoryHasRoom", store.Ephemeral, 40 * s, -s, 0, alone, 0, 0, 0, ""},
		{"WhoGoesFirstIsNotDelayedWithTheLine", store.Ephemeral, 40 * s, -s, s, ahead, s, s, 40 * s, ""},
		{"WhoGoesFirstHasItsSlotAtHand", store.Ephemeral, 40 * s, 2 * s, -s, ahead, 0, 0, 0, ""},
		{"WhoGoesFirstHasTheLineMakeRoom", store.Ephemeral, 40 * s, 3 * s, -s, ahead, 3 * s, 3 * s, 40500 * time.Millisecond, "put request, put quota"},
		{"SharersGoFirstTogether", store.Shared, 40 * s, 3 * s, 0, func(st *stage) {
			alone(st)
			st.lock = store.Lock{Meta: store.Meta{Version: 1}, Key: st.req.LockKey(), State: store.LockEmpty, Slot: at(9 * s), Ahead: true}
		}, 9 * s, 9 * s, 40 * s, "put request"},
		{"AfterGiveUpNobodysPlaceIsTaken", store.Ephemeral, 16 * time.Minute, -s, 0, nil, 16 * time.Minute, 16 * time.Minute, 16 * time.Minute, "put request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := lined(c.mode, c.end, c.room, c.slot)
			if c.edit != nil {
				c.edit(&s)
			}
			d := s.c().Line(t0, lim, 10, store.Pacing{})
			if got := told(d.Changes); got != c.changes && c.name != "SharersHaveOneTurn" {
				t.Errorf("changes %q, want %q", got, c.changes)
			}
			if c.turn == 0 {
				same(t, "wait", d.Wait, store.Wait{})
				return
			}
			same(t, "wait", d.Wait, store.Wait{For: store.WaitPaced, Until: at(c.turn)})
			same(t, "slot", d.Request.Slot, at(c.has))
			same(t, "end of the line", d.Quota.Lines["eu-west-2"].End, at(c.after))
			due := at(min(c.turn, 15*time.Minute+time.Second))
			if !d.Request.DueAt.Equal(due) || d.Request.Wait != store.WaitPaced || len(d.Sends) != 1 || !d.Sends[0].Due.Equal(due) {
				t.Errorf("due %v, waits for %q, sends %v; want it held and sent for %v", d.Request.DueAt, d.Request.Wait, d.Sends, due)
			}
		})
	}
}

func TestLineIsNotJoinedAtTheQuota(t *testing.T) {
	s := lined(store.Ephemeral, time.Minute, 0, 0)
	s.quota.Live = 10
	s.decides(t, s.c().Line(t0, lim, 10, store.Pacing{}), outcome{wait: store.Wait{For: store.WaitQuota, Until: at(30 * time.Second)}})
}

// TestLapsedTurnsDoNotClump has fifty whose turns passed together ask at once: a few are
// launched in the hand of the worker, and the others one by one, before those who come
// later, whose turns move back.
func TestLapsedTurnsDoNotClump(t *testing.T) {
	s := lined(store.Ephemeral, 100*time.Second, 0, -time.Minute)
	taken := 0
	var last time.Time
	for n := range 50 {
		s.req.Slot = at(-time.Minute)
		turn, q := s.quota.Turn(t0, s.req, store.Pacing{})
		if n > 0 && turn.At.Sub(last) != 500*time.Millisecond && turn.At.Sub(last) != -500*time.Millisecond {
			t.Fatalf("turn %d is %+v, %s after the one before; want EC2's pace", n, turn, turn.At.Sub(last))
		}
		if turn.Taken() {
			taken++
		}
		s.quota, last = q, turn.At
	}
	if taken != 5 {
		t.Errorf("%d have their launch at once, want those of the two seconds in which a worker waits for it", taken)
	}
	s.req.Slot = at(50 * time.Second)
	if turn, _ := s.quota.Turn(at(50*time.Second), s.req, store.Pacing{}); !turn.Taken() {
		t.Errorf("who had its turn at 50 s has it at %v, want then: the bucket has room again", turn.At.Sub(t0))
	}
	s.quota = s.quota.Reserve(at(50*time.Second), "eu-west-2", store.Pacing{})
	if turn, _ := s.quota.Turn(at(50*time.Second), s.req, store.Pacing{}); !turn.At.Equal(at(73500 * time.Millisecond)) {
		t.Errorf("who had its turn at 50 s has it at %v when there is no room, want 73.5 s", turn.At.Sub(t0))
	}
}

// TestRepositoriesWaitForTheirFirstLaunchAlone has one repository file a thousand starts,
// and forty others one or two each: these wait for each other and for nobody else, those
// of one repository stay in order, and all together keep EC2's pace.
func TestRepositoriesWaitForTheirFirstLaunchAlone(t *testing.T) {
	s := lined(store.Ephemeral, 0, -time.Hour, 0)
	s.quota.Lines = nil
	ask := func(repo string, now time.Time) store.Request {
		r := s.req
		r.Repository.ID = repo
		turn, q := s.quota.Turn(now, r, store.Pacing{})
		s.quota = q
		r.Slot, r.Ahead = turn.Slot, turn.Ahead
		return r
	}
	var big []store.Request
	for range 1000 {
		if r := ask("big", t0); !r.Slot.IsZero() {
			big = append(big, r)
		}
	}
	now := at(5 * time.Second)
	s.quota = s.quota.Reserve(now.Add(2*time.Second), "eu-west-2", store.Pacing{}) // and no slot is at hand
	turn := func(r store.Request) time.Time {
		if r.Ahead {
			return r.Slot
		}
		return r.Slot.Add(time.Duration(s.quota.Lines["eu-west-2"].BehindMS) * time.Millisecond)
	}
	var first, second []store.Request
	for n := range 20 {
		first = append(first, ask(fmt.Sprint("small", n), now))
		second = append(second, ask(fmt.Sprint("small", n), now))
	}
	for n, r := range first {
		if want := now.Add(time.Duration(n+5) * 500 * time.Millisecond); !turn(r).Equal(want) {
			t.Errorf("the first start of small repository %d has its turn after %s, want %s", n, turn(r).Sub(now), want.Sub(now))
		}
	}
	if again := ask("big", now); again.Ahead || turn(again).Before(turn(big[len(big)-1])) {
		t.Errorf("another start of the big repository has its turn after %s, want it behind its others", turn(again).Sub(now))
	}
	for n, r := range second {
		if r.Ahead || turn(r).Before(turn(big[len(big)-1])) {
			t.Errorf("the second start of small repository %d goes first, while its first one waits", n)
		}
	}
	if delay := turn(big[500]).Sub(big[500].Slot); delay != 10*time.Second {
		t.Errorf("the big repository is delayed by %s, want 10 s for 20 launches", delay)
	}
	for n := range 40 {
		ask(fmt.Sprint("more", n), now)
	}
	if n := len(s.quota.Lines["eu-west-2"].Last); n > 32 {
		t.Errorf("the quota remembers %d repositories, want 32 at most", n)
	}
}
