package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestNextEndStep(t *testing.T) {
	const drainedAt = 10 * time.Minute
	gone := func(after time.Duration) func(*store.Runner) {
		return func(r *store.Runner) { *r = of(*r).Deregistered(at(drainedAt + after)).Runner }
	}
	stopped := false // whether EC2 shows the machine, and not running
	off := func(*store.Runner) { stopped = true }
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		code  string
		after time.Duration // since the drain
		edit  func(*store.Runner)
		want  store.EndStep
	}{
		{"NoConfigWasAnswered", launched, store.EndNoBoot, 0, nil, store.EndBegin},
		{"NoConfigWasAnsweredToAThief", launched, store.EndCompromised, 0, nil, store.EndBegin},
		{"RegisteredIsDeleted", busy, store.EndExpired, 0, nil, store.EndDelete},
		{"RefusedDeleteIsRepeated", busy, store.EndExpired, time.Hour, func(r *store.Runner) { *r = of(*r).Deleting(at(drainedAt)).Runner }, store.EndDelete},
		{"AJobMayHaveComeAMomentBefore", idleAgain, store.EndExpired, 90*time.Second - 1, gone(0), store.EndWait},
		{"GraceIsOver", idleAgain, store.EndExpired, 90 * time.Second, gone(0), store.EndBegin},
		{"GraceIsOverOfARunnerWithoutAJob", online, store.EndExpired, 90 * time.Second, gone(0), store.EndBegin},
		{"AJobThatRunsOutlivesTheGrace", busy, store.EndExpired, 90 * time.Second, gone(0), store.EndWait},
		{"AJobThatRunsIsWaitedForUntilHard", busy, store.EndExpired, 6*time.Hour - drainedAt - 1, gone(0), store.EndWait},
		{"AJobThatRunsEndsAtHard", busy, store.EndExpired, 6*time.Hour - drainedAt, gone(0), store.EndBegin},
		{"AJobOfALostMachineIsWaitedForToo", busy, store.EndLost, time.Hour, gone(0), store.EndWait},
		{"AMachineThatIsOffRunsNoJob", busy, store.EndExpired, 0, off, store.EndBegin},
		{"AMachineThatIsOffRunsNoneAfterADeleteEither", busy, store.EndExpired, time.Second, func(r *store.Runner) { gone(0)(r); off(r) }, store.EndBegin},
		{"AMachineThatIsOffNeedsNoSecondDelete", busy, store.EndLost, time.Minute, func(r *store.Runner) { *r = of(*r).Deleting(at(drainedAt)).Refused(at(drainedAt), lim).Runner; off(r) }, store.EndBegin},
		{"BusyIsAskedAgainAfterAPause", busy, store.EndExpired, 45 * time.Second, func(r *store.Runner) { *r = of(*r).Refused(at(drainedAt), lim).Runner }, store.EndDelete},
		{"BusyIsNotAskedAgainBefore", busy, store.EndExpired, 45*time.Second - 1, func(r *store.Runner) { *r = of(*r).Refused(at(drainedAt), lim).Runner }, store.EndWait},
		{"CompromisedHasNoPause", busy, store.EndCompromised, 0, func(r *store.Runner) { *r = of(*r).Refused(at(drainedAt), lim).Runner }, store.EndDelete},
		{"IdleAfterwardsEndsTheGrace", busy, store.EndExpired, 3 * time.Second, func(r *store.Runner) { gone(time.Second)(r); r.IdleAt = at(drainedAt + 2*time.Second) }, store.EndBegin},
		{"IdleBeforehandDoesNot", busy, store.EndExpired, 3 * time.Second, func(r *store.Runner) { gone(2 * time.Second)(r); r.IdleAt = at(drainedAt + time.Second) }, store.EndWait},
		{"IdleAloneStillDeletes", busy, store.EndExpired, time.Second, func(r *store.Runner) { r.IdleAt = at(drainedAt) }, store.EndDelete},
		{"HardIsStrongerThanAJob", busy, store.EndExpired, 6*time.Hour - drainedAt, nil, store.EndBegin},
		{"JustBeforeHard", busy, store.EndExpired, 6*time.Hour - drainedAt - 1, nil, store.EndDelete},
		{"CompromisedGetsOneDelete", busy, store.EndCompromised, 0, nil, store.EndDelete},
		{"CompromisedGetsNoSecondOne", busy, store.EndCompromised, 0, func(r *store.Runner) { *r = of(*r).Deleting(at(drainedAt)).Runner }, store.EndBegin},
		{"CompromisedGetsNoGrace", busy, store.EndCompromised, time.Second, gone(0), store.EndBegin},
		{"WithoutAReasonTheGraceHolds", busy, store.EndExpired, time.Second, func(r *store.Runner) { gone(0)(r); r.End = nil }, store.EndWait},
		{"EndingTerminates", busy, store.EndExpired, 0, func(r *store.Runner) { *r = of(*r).Ending(at(drainedAt), "").Runner }, store.EndTerminate},
		{"EndedCleansUpItsNames", busy, store.EndExpired, 24*time.Hour - 1, func(r *store.Runner) { r.State, r.EndedAt = store.RunnerEnded, at(drainedAt) }, store.EndNames},
		{"EndedStopsAfterADay", busy, store.EndExpired, 24 * time.Hour, func(r *store.Runner) { r.State, r.EndedAt = store.RunnerEnded, at(drainedAt) }, store.EndNothing},
		{"EndedWithoutNames", busy, store.EndExpired, 0, func(r *store.Runner) { r.State, r.EndedAt, r.Names = store.RunnerEnded, at(drainedAt), nil }, store.EndNothing},
		{"Failed", launching, store.EndExpired, 0, func(r *store.Runner) { r.State = store.RunnerFailed }, store.EndNothing},
		{"Usable", busy, "", 0, nil, store.EndNothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.code != "" {
				s = s.drained(at(drainedAt), c.code)
			}
			stopped = false
			if c.edit != nil {
				c.edit(&s.run)
			}
			if got := store.NextEndStep(at(drainedAt+c.after), lim, s.run, stopped); got != c.want {
				t.Errorf("NextEndStep = %q, want %q", got, c.want)
			}
		})
	}
}

func TestDeletingRecordsTheFirstTry(t *testing.T) {
	s := busy(t, store.Shared)
	want := s
	want.run.DeletedAt = at(time.Hour)
	d := s.c().Deleting(at(time.Hour))
	want.decides(t, d, outcome{changes: "put runner"})
	want.decides(t, d.Deleting(at(2*time.Hour)), outcome{})
}

func TestDeregisteredForgetsTheConfigsName(t *testing.T) {
	s := busy(t, store.Shared)
	s.run.Names = append(slices.Clone(s.run.Names), names(2)...)
	want := s
	want.run.DeregisteredAt, want.run.Names = at(time.Hour), names(2)
	want.run.History = noted(s.run.History, at(time.Hour), "busy", "deregistered")
	d := s.c().Deregistered(at(time.Hour))
	want.decides(t, d, outcome{changes: "put runner"})
	want.decides(t, d.Deregistered(at(2*time.Hour)), outcome{})
}

func TestEndingComesFromDrainingAlone(t *testing.T) {
	for _, state := range store.RunnerStates {
		t.Run(string(state), func(t *testing.T) {
			s := busy(t, store.Shared)
			s.run.State = state
			want, follows := s, outcome{}
			if state == store.RunnerDraining {
				want.run.State, want.run.EndingAt = store.RunnerEnding, at(time.Hour)
				want.run.History = noted(s.run.History, at(time.Hour), "ending", "why")
				follows.changes = "put runner"
			}
			want.decides(t, s.c().Ending(at(time.Hour), "why"), follows)
		})
	}
}

func TestLookedAndNotFound(t *testing.T) {
	for _, c := range []struct {
		name    string
		first   time.Duration // of the first miss, since the call
		now     time.Duration
		gone    bool
		another bool // a second miss at all
	}{
		{"TwiceAndOldEnough", 5 * time.Minute, 6 * time.Minute, true, true},
		{"TooSoonAfterTheFirst", 5 * time.Minute, 6*time.Minute - 1, false, true},
		{"OnceIsNever", 0, 24 * time.Hour, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launched(t, store.Shared)
			if c.another {
				want := s
				want.run.MissingAt = at(c.first)
				want.run.History = noted(s.run.History, at(c.first), "launched", "EC2 does not find the instance")
				d, gone := s.c().Looked(at(c.first), lim, false, false)
				if gone {
					t.Error("gone at the first miss")
				}
				want.decides(t, d, outcome{changes: "put runner"})
				s = want
			}
			d, gone := s.c().Looked(at(c.now), lim, false, false)
			if gone != c.gone {
				t.Errorf("gone = %v, want %v", gone, c.gone)
			}
			if c.another {
				s.decides(t, d, outcome{})
			}
		})
	}
}

func TestYoungInstanceThatIsNotFoundIsNotMissing(t *testing.T) {
	s := launched(t, store.Shared)
	d, gone := s.c().Looked(at(5*time.Minute-1), lim, false, false)
	if gone {
		t.Error("gone while EC2's view may lag")
	}
	s.decides(t, d, outcome{})
	if _, gone := d.Looked(at(time.Hour), lim, false, false); gone {
		t.Error("gone at the first miss that counts")
	}
}

func TestOneSightingEndsTheSearch(t *testing.T) {
	s := launched(t, store.Shared)
	d, _ := s.c().Looked(at(5*time.Minute), lim, false, false)
	s.take(d)
	want := s
	want.run.MissingAt = time.Time{}
	d, _ = s.c().Looked(at(6*time.Minute), lim, false, true)
	want.decides(t, d, outcome{changes: "put runner"})
	if _, gone := d.Looked(at(time.Hour), lim, false, false); gone {
		t.Error("gone at the first miss after it was found")
	}
	d, _ = d.Looked(at(time.Hour), lim, false, true)
	want.decides(t, d, outcome{}) // and there is no news while EC2 shows it
}

func TestLookedRecordsTheLastCallToTerminate(t *testing.T) {
	s := busy(t, store.Shared)
	want := s
	for _, now := range []time.Time{at(time.Hour), at(2 * time.Hour)} {
		d, _ := s.c().Looked(now, lim, true, true)
		want.run.TerminatedAt = now
		want.decides(t, d, outcome{changes: "put runner"})
		s.take(d)
	}
	d, gone := s.c().Looked(at(3*time.Hour), lim, true, false) // EC2 was asked, and does not find it
	want.run.TerminatedAt, want.run.MissingAt = at(3*time.Hour), at(3*time.Hour)
	want.run.History = noted(s.run.History, at(3*time.Hour), "busy", "EC2 does not find the instance")
	want.decides(t, d, outcome{changes: "put runner"})
	if gone {
		t.Error("gone at the first miss")
	}
}

func TestFinish(t *testing.T) {
	now := at(time.Hour)
	over := store.Instance{ID: "i-1", State: "terminated"}
	const all = "put runner, put lock, put quota"
	for _, c := range []struct {
		name    string
		stage   func(*testing.T, string) stage
		edit    func(*stage)
		in      store.Instance
		end     string
		lock    store.LockState
		live    int
		due     time.Time
		changes string
	}{
		{"DrainedByUs", busy, func(s *stage) { *s = s.drained(at(time.Minute), store.EndIdle).ending(now) }, over, store.EndIdle, store.LockEmpty, 0, now, all},
		{"ByItself", busy, func(*stage) {}, over, store.EndTerminated, store.LockEmpty, 0, now, all},
		{"BeforeItWasLaunched", launching, func(s *stage) { s.req = store.Request{ID: "r1"} }, store.Instance{}, store.EndTerminated, store.LockEmpty, 0, now, all},
		{"NoNamesLeft", busy, func(s *stage) { s.run.Names = nil }, over, store.EndTerminated, store.LockEmpty, 0, time.Time{}, all},
		{"AnotherRunnersLock", busy, func(s *stage) { s.lock.Runner = "x2" }, over, store.EndTerminated, store.LockLive, 0, now, "put runner, put quota"},
		{"OthersLive", busy, func(s *stage) { s.quota.Live = 4 }, over, store.EndTerminated, store.LockEmpty, 3, now, all},
		{"CounterNeverBelowZero", busy, func(s *stage) { s.quota.Live = 0 }, over, store.EndTerminated, store.LockEmpty, 0, now, "put runner, put lock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			c.edit(&s)
			d, ok := s.c().Finish(now, lim, c.in, "terminated", store.Price{})
			if !ok {
				t.Error("ok = false, want true")
			}
			want := s
			if s.run.State.Usable() {
				want = s.after(s.c().Died(now, lim, c.in))
			}
			want.run.State, want.run.EndedAt, want.run.Claim, want.run.DueAt, want.run.TTL = store.RunnerEnded, now, store.Claim{}, c.due, now.Add(lim.Keep).Unix()
			want.run.History = noted(want.run.History, now, "ended", "terminated")
			if want.run.InstanceID != "" {
				want.run.Cost = store.Cost{From: want.run.LaunchedAt, To: now, Seconds: int64(now.Sub(want.run.LaunchedAt).Seconds())}
			}
			if d.Runner.End.Code != c.end || d.Lock.State != c.lock {
				t.Errorf("end %s, lock %s; want %s, %s", d.Runner.End.Code, d.Lock.State, c.end, c.lock)
			}
			if c.lock == store.LockEmpty {
				want.lock = store.Lock{Meta: store.Meta{Version: 1, TTL: now.Add(lim.Keep).Unix()}, Key: s.lock.Key, State: store.LockEmpty}
			}
			want.quota.Live = c.live
			want.decides(t, d, outcome{changes: c.changes})
		})
	}

	another := busy(t, store.Shared)
	another.run.InstanceID = "i-2"
	failed := launching(t, store.Shared)
	failed.run.State = store.RunnerFailed
	deleted := busy(t, store.Shared)
	deleted.run.Version = 0
	absent := busy(t, store.Shared)
	absent.run = store.Runner{ID: "x1"}
	for name, c := range map[string]struct {
		stage stage
		in    store.Instance
	}{
		"FailedChangesNothing":                    {failed, store.Instance{}},
		"FailedHasNoMachine":                      {failed, over},
		"EndedChangesNothing":                     {busy(t, store.Shared).ended(at(time.Minute)), over},
		"ADeletedRecordChangesNothing":            {deleted, over},
		"AnAbsentRecordChangesNothing":            {absent, over},
		"AnAbsentRecordWithoutAMachineNeither":    {absent, store.Instance{}},
		"AnotherMachineIsNotItsOwn":               {another, over},
		"AMachineThatWasFoundMeanwhileMayWellRun": {busy(t, store.Shared), store.Instance{}},
	} {
		t.Run(name, func(t *testing.T) {
			d, ok := c.stage.c().Finish(now, lim, c.in, "terminated", store.Price{})
			if ok {
				t.Error("ok = true, want false")
			}
			c.stage.decides(t, d, outcome{})
		})
	}
}

func TestFinishRecordsTheMachineThatALaunchLeftUnrecorded(t *testing.T) {
	now := at(time.Hour)
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndStopped).ending(at(time.Minute))
	d, ok := s.c().Finish(now, lim, store.Instance{ID: "i-1", State: "terminated"}, "terminated", store.Price{})
	if !ok || d.Runner.InstanceID != "i-1" || d.Runner.State != store.RunnerEnded || d.Runner.Attempts[0].Code != "launched" {
		t.Errorf("ok %v, the runner is %s with instance %q and attempts %v; want it ended, and its machine recorded", ok, d.Runner.State, d.Runner.InstanceID, d.Runner.Attempts)
	}
}

func TestFinishOfARunnerThatWasNeverLaunchedTellsOfNoLaunch(t *testing.T) {
	now := at(time.Hour)
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndStopped).ending(at(time.Minute))
	d, ok := s.c().Finish(now, lim, store.Instance{}, "EC2 does not know the instance", store.Price{})
	if !ok || d.Runner.InstanceID != "" || d.Runner.Attempts != nil || !d.Runner.LaunchedAt.IsZero() || len(d.Runner.History) != len(s.run.History)+1 {
		t.Errorf("ok %v, attempts %v, launched at %v, story %v; want it ended, and no launch in it", ok, d.Runner.Attempts, d.Runner.LaunchedAt, d.Runner.History)
	}
}

func TestFinishTellsTheRequestOfAMachineThatEndedBeforeItWasOnline(t *testing.T) {
	now := at(2 * time.Minute)
	for _, c := range []struct {
		name  string
		stage stage
		code  string
		want  store.RequestState
		out   outcome
	}{
		{"ItIsTriedAgain", booting(t, store.Shared), "Server.InternalError", store.Accepted, outcome{changes: "put request, put runner, put lock, put quota", sends: "request r1 due 2m30s"}},
		{"ItFails", booting(t, store.Shared), "Client.InvalidSnapshot.NotFound", store.Failed, outcome{changes: "put request, put runner, put lock, put quota"}},
		{"ItIsReady", online(t, store.Shared), "Server.InternalError", store.Ready, outcome{changes: "put runner, put lock, put quota"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := c.stage.c().Finish(now, lim, store.Instance{ID: "i-1", State: "terminated", Code: c.code}, "terminated", store.Price{})
			if got := outcomeOf(d); got != c.out || d.Request.State != c.want {
				t.Errorf("the request is %s and the decision %+v; want %s and %+v", d.Request.State, got, c.want, c.out)
			}
		})
	}
}

func TestForgottenNamesMoveTheNextLook(t *testing.T) {
	s := busy(t, store.Shared)
	s.run.Names = append(slices.Clone(s.run.Names), names(2, 3)...)
	s = s.ended(at(time.Hour))
	for _, c := range []struct {
		name    string
		now     time.Time
		gone    []int
		all     bool
		due     time.Time
		left    []int
		changes string
	}{
		{"LooksAgainInAnHour", at(2 * time.Hour), nil, true, at(3 * time.Hour), []int{1, 2, 3}, "put runner"},
		{"JustBeforeADay", at(25*time.Hour - 1), nil, true, at(26*time.Hour - 1), []int{1, 2, 3}, "put runner"},
		{"StopsAfterADay", at(25 * time.Hour), nil, true, time.Time{}, []int{1, 2, 3}, "put runner"},
		{"SomeAreLeft", at(2 * time.Hour), []int{1, 3}, true, at(3 * time.Hour), []int{2}, "put runner"},
		{"NothingIsLeft", at(2 * time.Hour), []int{1, 2, 3}, true, time.Time{}, nil, "put runner"},
		{"SomeWereNotLookedAt", at(2 * time.Hour), []int{1}, false, at(time.Hour), []int{2, 3}, "put runner"},
		{"NoneWasLookedAt", at(2 * time.Hour), nil, false, at(time.Hour), []int{1, 2, 3}, ""},
		{"NobodyKnowsThatName", at(2 * time.Hour), []int{9}, false, at(time.Hour), []int{1, 2, 3}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := s.c().Forgotten(c.now, lim, c.gone, c.all)
			want := s
			want.run.DueAt = c.due
			want.run.Names = slices.DeleteFunc(slices.Clone(s.run.Names), func(g store.GitHubName) bool { return !slices.Contains(c.left, g.N) })
			want.decides(t, d, outcome{changes: c.changes})
		})
	}
	t.Run("ARunnerThatLivesIsLookedAtInEveryRun", func(t *testing.T) {
		s := busy(t, store.Shared)
		want := s
		want.run.Names = []store.GitHubName{}
		want.decides(t, s.c().Forgotten(at(2*time.Hour), lim, []int{1}, true), outcome{changes: "put runner"})
	})
}
