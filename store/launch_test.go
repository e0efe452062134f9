package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBeginCommitsTheIntent(t *testing.T) {
	in := intent(accepted("r1", store.Shared).Hold(t0, t0, store.WaitQuota))
	in.Lock = store.Lock{Meta: store.Meta{Version: 8, TTL: 99}, Key: in.Request.LockKey(), State: store.LockDraining, Runner: "x0",
		Joined: "r0", Exp: at(9 * time.Hour), Hard: at(9 * time.Hour), BootBy: at(9 * time.Hour)}
	in.Quota = store.Quota{Meta: store.Meta{Version: 5}, Live: 9, Limit: 20, Next: map[string]time.Time{"eu-west-2": at(5 * time.Second), "eu-west-1": at(time.Hour)}}
	nextBefore := in.Quota.Next["eu-west-2"]
	now := t0
	r, l, run, q, wait, until := in.Begin(now, lim)
	if wait != "" || !until.IsZero() {
		t.Fatalf("Begin waits: %q until %v", wait, until)
	}
	bootBy := at(5*time.Minute + 5*time.Second) // boot limit after the slot
	same(t, "lock", l, store.Lock{
		Meta: store.Meta{Version: 8}, Key: "123456789012/eu-west-2/42/spot/default/large,linux", State: store.LockLaunching, Runner: "x1",
		Exp: bootBy.Add(time.Hour), Hard: at(6 * time.Hour), BootBy: bootBy, SharedAt: now,
	})
	same(t, "quota", q, store.Quota{
		Meta: store.Meta{Version: 5}, Account: "123456789012", Live: 10, Limit: 10,
		Next: map[string]time.Time{"eu-west-2": at(5500 * time.Millisecond), "eu-west-1": at(time.Hour)},
	})
	if got := in.Quota.Next["eu-west-2"]; got != nextBefore {
		t.Errorf("Begin changed the quota that it was given: next %v", got)
	}
	same(t, "runner", run, store.Runner{
		Meta: store.Meta{DueAt: now}, ID: "x1", State: store.RunnerNew, CreatedAt: now, Lock: l.Key, Request: "r1", Trace: "trace-r1",
		Repository: in.Request.Repository, RunID: "1001", Account: "123456789012", Region: "eu-west-2", Mode: store.Shared,
		Labels: []string{"garo-own", "spot", "large", "linux"}, Plan: in.Plan, Launch: in.Launch,
		CalledAt: at(5 * time.Second), Claim: in.Claim, Wanted: 1, Hard: at(6 * time.Hour),
		Names:   []store.GitHubName{{N: 1, Name: "garo-test-x1-1"}},
		History: store.History{{At: now, State: "new", Reason: "for request r1"}},
	})
	want := in.Request
	want.State, want.Runner, want.Wait, want.DueAt = store.Waiting, "x1", "", bootBy.Add(10*time.Second)
	want.History = append(want.History[:len(want.History):len(want.History)], store.Entry{At: now, State: "waiting", Reason: "launches runner x1"})
	same(t, "request", r, want)
}

func TestBeginSlotIsNeverInThePast(t *testing.T) {
	_, l, run, q, _, _ := intent(accepted("r1", store.Shared)).Begin(t0, lim)
	if !run.CalledAt.Equal(t0) || !l.BootBy.Equal(at(5*time.Minute)) {
		t.Errorf("called at %v, boot by %v; want %v and 5m later", run.CalledAt, l.BootBy, t0)
	}
	if want := at(-1500 * time.Millisecond); !q.Next["eu-west-2"].Equal(want) {
		t.Errorf("next slot = %v, want %v: the burst is not used up", q.Next["eu-west-2"], want)
	}
}

func TestBeginExpStopsAtHard(t *testing.T) {
	in := intent(accepted("r1", store.Shared))
	in.Launch.HardS = 1800
	_, l, run, _, _, _ := in.Begin(t0, lim)
	if want := at(30 * time.Minute); !l.Exp.Equal(want) || !l.Hard.Equal(want) || !run.Hard.Equal(want) {
		t.Errorf("exp %v, hard %v and %v; want %v", l.Exp, l.Hard, run.Hard, want)
	}
}

func TestBeginRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		edit  func(*store.Intent)
		wait  string
		until time.Time
	}{
		{"AtTheQuota", func(in *store.Intent) { in.Quota.Live = 10 }, store.WaitQuota, at(30 * time.Second)},
		{"AboveALoweredQuota", func(in *store.Intent) { in.Quota.Live = 11 }, store.WaitQuota, at(30 * time.Second)},
		{"BelowTheQuota", func(in *store.Intent) { in.Quota.Live = 9 }, "", time.Time{}},
		{"SlotTooLate", func(in *store.Intent) { in.Quota.Next = map[string]time.Time{"eu-west-2": at(20*time.Second + 1)} },
			store.WaitPaced, at(20*time.Second + 1)},
		{"SlotJustInTime", func(in *store.Intent) { in.Quota.Next = map[string]time.Time{"eu-west-2": at(20 * time.Second)} }, "", time.Time{}},
		{"SlotsOfAnotherRegionDoNotCount", func(in *store.Intent) { in.Quota.Next = map[string]time.Time{"eu-west-1": at(time.Hour)} }, "", time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := intent(accepted("r1", store.Shared))
			c.edit(&in)
			r, l, run, q, wait, until := in.Begin(t0, lim)
			if wait != c.wait || !until.Equal(c.until) {
				t.Errorf("Begin = %q until %v, want %q until %v", wait, until, c.wait, c.until)
			}
			if wait != "" {
				same(t, "request", r, in.Request)
				same(t, "lock", l, in.Lock)
				same(t, "quota", q, in.Quota)
				same(t, "runner", run, store.Runner{})
			}
		})
	}
}

func TestTake(t *testing.T) {
	now := at(time.Minute)
	mine := store.Claim{By: "worker-2", Until: now.Add(30 * time.Second)}
	first := []store.GitHubName{{N: 1, Name: "garo-test-x1-1"}}
	second := append(first[:1:1], store.GitHubName{N: 2, Name: "garo-test-x1-2"})
	for _, c := range []struct {
		name    string
		edit    func(*store.Runner)
		names   []store.GitHubName
		unclear bool
	}{
		{"GivenBackKeepsTheName", func(r *store.Runner) { *r = r.Release(t0) }, first, false},
		{"LapsedWritesTheNextNameAhead", func(*store.Runner) {}, second, true},
		{"OnesOwnIsNoLapse", func(r *store.Runner) { r.Claim.By = "worker-2" }, first, false},
		{"LapsedWithAnInstanceIsNotUnclear", func(r *store.Runner) { r.InstanceID = "i-1" }, second, false},
		{"UnclearStaysUnclear", func(r *store.Runner) { *r = r.Release(t0); r.Unclear = true }, first, true},
		{"NoNameLeftWritesOneAhead", func(r *store.Runner) {
			*r = r.Release(t0)
			r.InstanceID, r.Config.N, r.Wanted, r.Names = "i-1", 1, 2, nil
		}, second[1:], false},
		{"OldNameIsNoName", func(r *store.Runner) { *r = r.Release(t0); r.Config.N, r.Wanted = 1, 2 }, second, false},
		{"NothingWantedWritesNothing", func(r *store.Runner) { r.InstanceID, r.Config.N = "i-1", 1 }, first, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := launching(t, store.Shared).run
			run.Wait, run.WaitUntil = store.WaitGitHub, now
			c.edit(&run)
			want := run
			want.Claim, want.Names, want.Unclear, want.Wait, want.WaitUntil = mine, c.names, c.unclear, "", time.Time{}
			want.History = append(want.History[:1:1], store.Entry{At: now, State: "new", Reason: "claimed by worker-2"})
			same(t, "runner", run.Take(now, mine, "test"), want)
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
		{"Released", run.Release(at(20 * time.Second)), at(20 * time.Second), "worker-2", false},
		{"ReleasedSeenByASlowerClock", run.Release(at(20 * time.Second)), at(15 * time.Second), "worker-2", false},
		{"NeverClaimed", store.Runner{}, t0, "worker-2", false},
	} {
		if got := c.run.Held(c.now, c.by); got != c.want {
			t.Errorf("%s: Held = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReleaseNamesNobody(t *testing.T) {
	same(t, "claim", launching(t, store.Shared).run.Release(at(time.Second)).Claim, store.Claim{Until: at(time.Second)})
}

func TestPauseReleasesTheClaimAndTellsWhy(t *testing.T) {
	run := launching(t, store.Shared).run
	want := run
	want.Claim, want.Wait, want.WaitUntil = store.Claim{Until: at(time.Second)}, store.WaitGitHub, at(time.Minute)
	want.History = append(want.History[:1:1], store.Entry{At: at(time.Second), State: "new", Reason: "waits: github_limited"})
	paused := run.Pause(at(time.Second), at(time.Minute), store.WaitGitHub)
	same(t, "runner", paused, want)
	if again := paused.Pause(at(2*time.Second), at(2*time.Minute), store.WaitGitHub); len(again.History) != 2 || !again.WaitUntil.Equal(at(2*time.Minute)) {
		t.Errorf("the same wait again: history of %d entries until %v; want 2, %v", len(again.History), again.WaitUntil, at(2*time.Minute))
	}
}

func TestNextStep(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		now   time.Time
		edit  func(*stage)
		want  store.Step
	}{
		{"NewLaunches", launching, at(time.Minute), func(*stage) {}, store.StepLaunch},
		{"NewJustBeforeBootByLaunches", launching, at(5*time.Minute - 1), func(*stage) {}, store.StepLaunch},
		{"AtBootByNobodyLaunches", launching, at(5 * time.Minute), func(*stage) {}, store.StepNone},
		{"AnotherRunnersLock", launching, at(time.Minute), func(s *stage) { s.lock.Runner = "x2" }, store.StepNone},
		{"EmptyLock", launching, at(time.Minute), func(s *stage) { s.lock = store.Lock{Key: "k"} }, store.StepNone},
		{"DrainingLock", launching, at(time.Minute), func(s *stage) { s.lock.State = store.LockDraining }, store.StepNone},
		{"LiveLockNeedsNoLaunch", launching, at(time.Minute), func(s *stage) { s.lock.State = store.LockLive }, store.StepNone},
		{"OnlyANewRunnerLaunches", launching, at(time.Minute), func(s *stage) { s.run.State = store.RunnerLaunched }, store.StepNone},
		{"DrainingDoesNothing", launching, at(time.Minute), func(s *stage) { *s = s.drained(at(time.Minute), store.EndStopped) }, store.StepNone},
		{"DrainingMintsNothing", launched, at(time.Minute), func(s *stage) { *s = s.drained(at(time.Minute), store.EndStopped); s.run.Wanted = 9 }, store.StepNone},
		{"LaunchedMints", launched, at(time.Minute), func(s *stage) { s.run.Config = store.Config{} }, store.StepMint},
		{"NextConfigIsMinted", online, at(time.Hour), func(s *stage) { s.run.Wanted = 2 }, store.StepMint},
		{"ConfiguredHasNothingToDo", launched, at(time.Minute), func(*stage) {}, store.StepNone},
		{"BusyHasNothingToDo", busy, at(time.Hour), func(*stage) {}, store.StepNone},
		{"FailedDoesNothing", launching, at(time.Minute), func(s *stage) { s.run.State = store.RunnerFailed }, store.StepNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			c.edit(&s)
			if got := store.NextStep(c.now, s.run, s.lock); got != c.want {
				t.Errorf("NextStep = %q, want %q", got, c.want)
			}
		})
	}
}

func TestCallReservesItsSlot(t *testing.T) {
	s := launching(t, store.Shared)
	for _, c := range []struct {
		name   string
		next   time.Time
		slot   time.Time
		ok     bool
		called time.Time
		after  time.Time
	}{
		{"RoomInTheBucket", t0, at(10 * time.Second), true, at(10 * time.Second), at(8500 * time.Millisecond)},
		{"SlotAhead", at(15 * time.Second), at(15 * time.Second), true, at(15 * time.Second), at(15500 * time.Millisecond)},
		{"JustInTime", at(20 * time.Second), at(20 * time.Second), true, at(20 * time.Second), at(20500 * time.Millisecond)},
		{"TooLate", at(20*time.Second + 1), at(20*time.Second + 1), false, t0, at(20*time.Second + 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := s.quota
			q.Next = map[string]time.Time{"eu-west-2": c.next}
			run, quota, slot, ok := store.Call(at(10*time.Second), s.run, q, store.Pacing{}, at(20*time.Second))
			if ok != c.ok || !slot.Equal(c.slot) {
				t.Errorf("Call = slot %v, %v; want %v, %v", slot, ok, c.slot, c.ok)
			}
			wantRun, wantQuota := s.run, s.quota
			wantRun.CalledAt, wantQuota.Next = c.called, map[string]time.Time{"eu-west-2": c.after}
			same(t, "runner", run, wantRun)
			same(t, "quota", quota, wantQuota)
		})
	}
}

func TestAdvance(t *testing.T) {
	now := at(10 * time.Second)
	attempt := store.Attempt{Placement: intent(accepted("r1", store.Shared)).Plan[0], Runner: "x1", At: now, Code: "InsufficientInstanceCapacity"}
	moved := func(s *stage, index int, to string) {
		s.run.Index, s.run.Unclear = index, false
		s.run.Attempts = []store.Attempt{attempt}
		s.run.History = append(s.run.History[:1:1], store.Entry{At: now, State: "new", Reason: attempt.Code + "; next: " + to})
	}
	for _, c := range []struct {
		name         string
		edit         func(*stage)
		next         int
		slot         time.Time
		reserved, ok bool
		want         func(*stage)
	}{
		{"NextPlacementAtOnce", func(*stage) {}, 1, now, true, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+10*time.Second)
		}},
		{"ASkippedPlacement", func(*stage) {}, 2, now, true, true, func(s *stage) {
			moved(s, 2, "ondemand c7i.large in subnet-a")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+10*time.Second)
		}},
		{"NoSlotInTimeMovesWithoutOne", func(s *stage) { s.quota.Next = map[string]time.Time{"eu-west-2": at(40 * time.Second)} }, 1, at(40 * time.Second), false, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+40*time.Second), at(65*time.Minute+40*time.Second)
		}},
		{"NoCallInThisInvocationMovesWithoutASlot", func(s *stage) { s.quota.Next = nil; s.run.CalledAt = at(-time.Minute) }, 1, at(8 * time.Second), false, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+8*time.Second), at(65*time.Minute+8*time.Second)
		}},
		{"ExpStopsAtHard", func(s *stage) { s.lock.Hard = s.lock.Exp.Add(time.Second) }, 1, now, true, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+time.Second)
		}},
		{"ASlowerClockLowersNothing", func(s *stage) { s.lock.BootBy, s.lock.Exp = at(6*time.Minute), at(66*time.Minute) }, 1, now, true, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
		}},
		{"UnclearEndsWithTheIndex", func(s *stage) { s.run.Unclear = true }, 1, now, true, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+10*time.Second)
		}},
		{"AnotherRunnersLockIsLeftAlone", func(s *stage) { s.lock.Runner = "x2" }, 1, now, true, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
		}},
		{"DrainingLockIsLeftAlone", func(s *stage) { s.lock.State = store.LockDraining }, 1, now, true, true, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
		}},
		{"PlanIsUsedUp", func(*stage) {}, 3, now, false, false, func(*stage) {}},
		{"SamePlacementIsNoNext", func(*stage) {}, 0, now, false, false, func(*stage) {}},
		{"NeverBack", func(s *stage) { s.run.Index = 2 }, 1, now, false, false, func(*stage) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launching(t, store.Shared)
			c.edit(&s)
			want := s
			latest := at(30 * time.Second)
			if c.name == "NoCallInThisInvocationMovesWithoutASlot" {
				latest = time.Time{}
			}
			run, l, q, slot, reserved, ok := store.Advance(now, lim, s.run, s.lock, s.quota, "InsufficientInstanceCapacity", c.next, store.Pacing{}, latest)
			c.want(&want)
			if !slot.Equal(c.slot) || reserved != c.reserved || ok != c.ok {
				t.Errorf("Advance = slot %v, reserved %v, ok %v; want %v, %v, %v", slot, reserved, ok, c.slot, c.reserved, c.ok)
			}
			same(t, "runner", run, want.run)
			same(t, "lock", l, want.lock)
			same(t, "quota", q, want.quota)
		})
	}
}

func TestLaunched(t *testing.T) {
	now := at(5 * time.Second)
	attempt := func(s stage) store.Attempt {
		return store.Attempt{Placement: s.run.Plan[0], Runner: "x1", At: now, Code: "launched"}
	}
	t.Run("NewBecomesLaunched", func(t *testing.T) {
		s := launching(t, store.Shared)
		s.run.Wait, s.run.WaitUntil = store.WaitEC2, now
		want := s.run
		want.State, want.InstanceID, want.LaunchedAt, want.Wait, want.WaitUntil = store.RunnerLaunched, "i-1", now, "", time.Time{}
		want.Attempts = []store.Attempt{attempt(s)}
		want.History = append(want.History[:1:1], store.Entry{At: now, State: "launched", Reason: "instance i-1"})
		got, ok := store.Launched(now, s.run, "i-1")
		if !ok {
			t.Error("ok = false, want true")
		}
		same(t, "runner", got, want)
	})
	t.Run("DrainingKeepsItsStateAndLearnsTheID", func(t *testing.T) {
		s := launching(t, store.Shared).drained(at(time.Second), store.EndStopped)
		want := s.run
		want.InstanceID, want.LaunchedAt = "i-1", now
		want.Attempts = []store.Attempt{attempt(s)}
		want.History = append(want.History[:2:2], store.Entry{At: now, State: "draining", Reason: "instance i-1"})
		got, ok := store.Launched(now, s.run, "i-1")
		if !ok {
			t.Error("ok = false, want true")
		}
		same(t, "runner", got, want)
	})
	for _, c := range []struct {
		name     string
		run      store.Runner
		instance string
		ok       bool
	}{
		{"TheSameIDAgainChangesNothing", launched(t, store.Shared).run, "i-1", true},
		{"ASecondIDIsNotTaken", launched(t, store.Shared).run, "i-2", false},
		{"EndedTakesNone", launching(t, store.Shared).ended(at(time.Second)).run, "i-1", false},
		{"EndedKnowsItsOwn", launched(t, store.Shared).ended(at(time.Second)).run, "i-1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := store.Launched(now, c.run, c.instance)
			if ok != c.ok {
				t.Errorf("ok = %v, want %v", ok, c.ok)
			}
			same(t, "runner", got, c.run)
		})
	}
}

func TestAbandon(t *testing.T) {
	now := at(10 * time.Second)
	why := store.Failure{Code: store.EndNoCapacity, Text: "none", Retryable: true}
	for _, c := range []struct {
		name     string
		stage    func(*testing.T, string) stage
		edit     func(*stage)
		code     string
		mayExist bool
		want     store.RunnerState
		lock     store.LockState
		live     int
	}{
		{"NewWithoutAMachineFails", launching, func(*stage) {}, "InsufficientInstanceCapacity", false, store.RunnerFailed, store.LockEmpty, 0},
		{"NoCodeIsNoAttempt", launching, func(*stage) {}, "", false, store.RunnerFailed, store.LockEmpty, 0},
		{"AMachineMayExist", launching, func(*stage) {}, "RequestLimitExceeded", true, store.RunnerDraining, store.LockDraining, 1},
		{"AMachineExists", launching, func(s *stage) { s.run.InstanceID = "i-1" }, "", false, store.RunnerDraining, store.LockDraining, 1},
		{"AConfigWasMinted", launching, func(s *stage) { s.run.Config.N = 1 }, "", false, store.RunnerDraining, store.LockDraining, 1},
		{"LaunchedDrains", launched, func(s *stage) { s.run.InstanceID, s.run.Config = "", store.Config{} }, "", false, store.RunnerDraining, store.LockDraining, 1},
		{"AnotherRunnersLockIsLeftAlone", launching, func(s *stage) { s.lock.Runner = "x2" }, "", false, store.RunnerFailed, store.LockLaunching, 0},
		{"AnotherRunnersLockIsNotDrained", launching, func(s *stage) { s.lock.Runner = "x2" }, "", true, store.RunnerDraining, store.LockLaunching, 1},
		{"DrainingGoesOnDraining", launching, func(s *stage) { *s = s.drained(at(time.Second), store.EndStopped) }, "x", false, store.RunnerDraining, store.LockDraining, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			c.edit(&s)
			attempts, end := len(s.run.Attempts), s.run.End
			run, l, q := store.Abandon(now, lim, s.run, s.lock, s.quota, c.code, why, c.mayExist)
			if run.State != c.want || l.State != c.lock || q.Live != c.live {
				t.Errorf("Abandon = runner %s, lock %s, live %d; want %s, %s, %d", run.State, l.State, q.Live, c.want, c.lock, c.live)
			}
			if end == nil {
				end = &why
			}
			same(t, "end", run.End, end)
			same(t, "claim", run.Claim, store.Claim{Until: now})
			if c.code != "" {
				attempts++
				same(t, "attempt", run.Attempts[len(run.Attempts)-1], store.Attempt{Placement: s.run.Plan[0], Runner: "x1", At: now, Code: c.code})
			}
			if len(run.Attempts) != attempts {
				t.Errorf("%d attempts, want %d", len(run.Attempts), attempts)
			}
			if run.State == store.RunnerFailed {
				if !run.EndedAt.Equal(now) || !run.DueAt.IsZero() || run.TTL != now.Add(lim.Keep).Unix() {
					t.Errorf("failed: ended at %v, due at %v, TTL %d; want now, never, in 30 days", run.EndedAt, run.DueAt, run.TTL)
				}
				same(t, "story", last(run.History), store.Entry{At: now, State: "failed", Reason: store.EndNoCapacity})
			}
			if l.State == store.LockEmpty {
				same(t, "lock", l, store.Lock{Meta: store.Meta{Version: 1, TTL: now.Add(lim.Keep).Unix()}, Key: s.lock.Key, State: store.LockEmpty})
			}
		})
	}
	t.Run("FinalChangesNothing", func(t *testing.T) {
		for _, s := range []stage{launched(t, store.Shared).ended(at(time.Second)), launching(t, store.Shared)} {
			if !s.run.State.Final() {
				s.run.State = store.RunnerFailed
			}
			run, l, q := store.Abandon(now, lim, s.run, s.lock, s.quota, "x", why, false)
			same(t, "runner", run, s.run)
			same(t, "lock", l, s.lock)
			same(t, "quota", q, s.quota)
		}
	})
}
