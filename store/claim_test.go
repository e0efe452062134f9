package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestTake(t *testing.T) {
	now := at(time.Minute)
	mine := store.Claim{By: "worker-2", Until: now.Add(30 * time.Second)}
	first := []store.GitHubName{{N: 1, Name: "garo-test-x1-1"}}
	second := append(first[:1:1], store.GitHubName{N: 2, Name: "garo-test-x1-2"})
	release := func(s *stage) { s.take(s.c().Release(t0)) }
	const launch, mint, nothing = "put runner, put quota", "put runner", ""
	for _, c := range []struct {
		name    string
		edit    func(*stage)
		names   []store.GitHubName
		unclear bool
		changes string // by which step is open
	}{
		{"GivenBackKeepsTheName", release, first, false, launch},
		{"LapsedWritesTheNextNameAhead", func(*stage) {}, second, true, launch},
		{"OnesOwnIsNoLapse", func(s *stage) { s.run.Claim.By = "worker-2" }, first, false, nothing},
		{"OnesOwnThatLapsedIsNone", func(s *stage) { s.run.Claim = store.Claim{By: "worker-2", Until: t0} }, first, false, nothing},
		{"HeldByAnotherIsNotTaken", func(s *stage) { s.run.Claim.Until = now.Add(1) }, first, false, nothing},
		{"HeldUntilNowIsTaken", func(s *stage) { s.run.Claim.Until = now }, second, true, launch},
		{"LapsedWithAnInstanceIsNotUnclear", func(s *stage) { s.run.InstanceID = "i-1" }, second, false, mint},
		{"UnclearStaysUnclear", func(s *stage) { release(s); s.run.Unclear = true }, first, true, launch},
		{"NoNameLeftWritesOneAhead", func(s *stage) {
			release(s)
			s.run.InstanceID, s.run.Config.N, s.run.Wanted, s.run.Names = "i-1", 1, 2, nil
		}, second[1:], false, mint},
		{"OldNameIsNoName", func(s *stage) { release(s); s.run.Config.N, s.run.Wanted = 1, 2 }, second, false, launch},
		{"NothingWantedWritesNothing", func(s *stage) { s.run.InstanceID, s.run.Config.N = "i-1", 1 }, first, false, nothing},
		{"AConfiguredOneThatIsLaunchedNeedsNoName", func(s *stage) { release(s); s.run.Config.N = 1 }, first, false, launch},
		{"DrainingIsNotTaken", func(s *stage) { release(s); *s = s.drained(t0, store.EndStopped) }, first, false, nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launching(t, store.Shared)
			s.run.Wait, s.run.WaitUntil = store.WaitGitHub, now
			c.edit(&s)
			want := s
			if c.changes != nothing {
				want.run.Claim, want.run.Names, want.run.Unclear, want.run.Wait, want.run.WaitUntil = mine, c.names, c.unclear, "", time.Time{}
				want.run.History = noted(s.run.History, now, "new", "claimed by worker-2")
			}
			if c.changes == launch {
				want.run.CalledAt, want.quota.Next = now, map[string]time.Time{"eu-west-2": at(58500 * time.Millisecond)}
			}
			want.decides(t, s.c().Take(now, mine, "test", &store.Pacing{}), outcome{changes: c.changes})
		})
	}
}

func TestClaimIsHeldByOthersUntilItLapsesOrIsReleased(t *testing.T) {
	run := launching(t, store.Shared).run // claimed by worker-1 until 12:00:30
	for _, c := range []struct {
		name string
		run  store.Runner
		now  time.Time
		by   string
		want bool
	}{
		{"Others", run, at(29 * time.Second), "worker-2", true},
		{"OnesOwn", run, at(29 * time.Second), "worker-1", false},
		{"Lapsed", run, at(30 * time.Second), "worker-2", false},
		{"Released", of(run).Release(at(20 * time.Second)).Runner, at(20 * time.Second), "worker-2", false},
		{"ReleasedSeenByASlowerClock", of(run).Release(at(20 * time.Second)).Runner, at(15 * time.Second), "worker-2", false},
		{"NeverClaimed", store.Runner{}, t0, "worker-2", false},
	} {
		if got := c.run.Held(c.now, c.by); got != c.want {
			t.Errorf("%s: Held = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReleaseNamesNobody(t *testing.T) {
	s := launching(t, store.Shared)
	want := s
	want.run.Claim = store.Claim{Until: at(time.Second)}
	want.decides(t, s.c().Release(at(time.Second)), outcome{changes: "put runner"})
	s.run.State = store.RunnerFailed // and its claim matters no more
	s.decides(t, s.c().Release(at(time.Second)), outcome{})
}

func TestPauseReleasesTheClaimAndTellsWhy(t *testing.T) {
	s := launching(t, store.Shared)
	now, wait := at(time.Second), store.Wait{For: store.WaitGitHub, Until: at(time.Minute)}
	paused := func(s *stage, wait string) {
		s.run.Claim, s.run.Wait, s.run.WaitUntil = store.Claim{Until: now}, wait, at(time.Minute)
		s.run.History = noted(s.run.History, now, "new", "waits: "+wait)
	}
	sent := outcome{changes: "put runner", sends: "runner x1 due 1m0s"}
	for _, c := range []struct {
		name  string
		edit  func(*stage)
		pause store.Pause
		want  func(*stage)
		out   outcome
	}{
		{"WaitsForGitHub", nil, store.Pause{Wait: wait, By: "worker-1"}, func(s *stage) { paused(s, store.WaitGitHub) }, sent},
		{"WaitsForGitHubThatRegisteredNothing", nil, store.Pause{Wait: wait, By: "worker-1", Code: store.EndGitHubLimit, Text: "It said so."}, func(s *stage) {
			paused(s, store.WaitGitHub)
			s.run.Unminted = &store.Unminted{Code: store.EndGitHubLimit, Text: "It said so.", Tries: 1}
			s.run.History = noted(s.run.History, now, "new", "not registered at GitHub: It said so.")
		}, sent},
		{"WaitsForEC2ThatDidNotSayWhetherItLaunched", nil, store.Pause{Wait: store.Wait{For: store.WaitEC2, Until: wait.Until}, By: "worker-1", Said: store.Said{Code: "InternalError", Text: "It broke."}}, func(s *stage) {
			paused(s, store.WaitEC2)
			s.run.Unclear, s.run.Said = true, store.Said{Code: "InternalError", Text: "It broke.", Times: 1}
		}, sent},
		{"StaysUnclear", func(s *stage) { s.run.Unclear = true }, store.Pause{Wait: wait, By: "worker-1"}, func(s *stage) { paused(s, store.WaitGitHub) }, sent},
		{"TellsTheSameWaitOnce", func(s *stage) { s.run.Wait = store.WaitGitHub }, store.Pause{Wait: wait, By: "worker-1"}, func(s *stage) {
			story := s.run.History
			paused(s, store.WaitGitHub)
			s.run.History = story
		}, sent},
		{"AnotherHoldsTheClaim", nil, store.Pause{Wait: wait, By: "worker-2"}, func(*stage) {}, outcome{}},
		{"ItWasCommittedAndTheAnswerLost", func(s *stage) { paused(s, store.WaitGitHub) }, store.Pause{Wait: wait, By: "worker-1"}, func(*stage) {}, outcome{sends: sent.sends}},
		{"AnotherPauseWasCommitted", func(s *stage) { paused(s, store.WaitEC2) }, store.Pause{Wait: wait, By: "worker-1"}, func(*stage) {}, outcome{}},
		{"AnotherTimeWasCommitted", func(s *stage) { paused(s, store.WaitGitHub); s.run.WaitUntil = at(2 * time.Minute) }, store.Pause{Wait: wait, By: "worker-1"}, func(*stage) {}, outcome{}},
		{"DrainingWaitsForNothing", func(s *stage) { *s = s.drained(t0, store.EndStopped) }, store.Pause{Wait: wait, By: "worker-1"}, func(*stage) {}, outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s
			if c.edit != nil {
				c.edit(&s)
			}
			want := s
			c.want(&want)
			want.decides(t, s.c().Pause(now, c.pause), c.out)
		})
	}
}
