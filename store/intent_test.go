package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBeginCommitsTheIntent(t *testing.T) {
	s := intended(held("r1", t0, t0, store.WaitQuota))
	s.lock = store.Lock{Meta: store.Meta{Version: 8, TTL: 99}, Key: s.req.LockKey(), State: store.LockDraining, Runner: "x0",
		Joined: "r0", Exp: at(9 * time.Hour), Hard: at(9 * time.Hour), BootBy: at(9 * time.Hour)}
	s.quota = store.Quota{Meta: store.Meta{Version: 5}, Live: 9, Limit: 20, Next: map[string]time.Time{"eu-west-2": at(5 * time.Second), "eu-west-1": at(time.Hour)}}
	nextBefore := s.quota.Next["eu-west-2"]
	now := t0
	in := intent()
	d := s.c().Begin(now, lim, in)
	bootBy := at(5*time.Minute + 5*time.Second) // boot limit after the slot
	want := s
	want.lock = store.Lock{
		Meta: store.Meta{Version: 8}, Key: "123456789012/eu-west-2/42/spot/default/large,linux", State: store.LockLaunching, Runner: "x1",
		Exp: bootBy.Add(time.Hour), Hard: at(6 * time.Hour), BootBy: bootBy, SharedAt: now,
	}
	want.quota = store.Quota{
		Meta: store.Meta{Version: 5}, Account: "123456789012", Live: 10, Limit: 10,
		Next:  map[string]time.Time{"eu-west-2": at(5500 * time.Millisecond), "eu-west-1": at(time.Hour)},
		Reach: &store.Reach{Until: at(6 * time.Hour).Add(lim.NameLife)},
	}
	if got := s.quota.Next["eu-west-2"]; got != nextBefore {
		t.Errorf("Begin changed the quota that it was given: next %v", got)
	}
	want.run = store.Runner{
		Meta: store.Meta{DueAt: now}, ID: "x1", State: store.RunnerNew, CreatedAt: now, Lock: want.lock.Key, Request: "r1", Trace: "trace-r1",
		Repository: s.req.Repository, RunID: "1001", Account: "123456789012", Region: "eu-west-2", Mode: store.Shared,
		Labels: []string{"garo-own", "spot", "large", "linux"}, Plan: in.Plan, Launch: in.Launch,
		CalledAt: at(5 * time.Second), Claim: in.Claim, Wanted: 1, Hard: at(6 * time.Hour),
		Names:   []store.GitHubName{{N: 1, Name: "garo-test-x1-1"}},
		History: store.History{{At: now, State: "new", Reason: "for request r1"}},
	}
	want.req.State, want.req.Runner, want.req.Wait, want.req.DueAt = store.Waiting, "x1", "", bootBy.Add(10*time.Second)
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
		{"SlotTooLate", next("eu-west-2", 20*time.Second+1), store.Wait{For: store.WaitPaced, Until: at(20*time.Second + 1)}},
		{"SlotJustInTime", next("eu-west-2", 20*time.Second), store.Wait{}},
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
