package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestDrain(t *testing.T) {
	now := at(2 * time.Minute)
	why := store.NewEnd(store.EndIdle)
	for _, c := range []struct {
		name string
		lock store.Lock
		want store.LockState
	}{
		{"ItsOwnLockDrains", store.Lock{Key: "k", State: store.LockLive, Runner: "x1", Exp: at(time.Hour)}, store.LockDraining},
		{"ALaunchingLockDrains", store.Lock{Key: "k", State: store.LockLaunching, Runner: "x1"}, store.LockDraining},
		{"AnotherRunnersLockDoesNot", store.Lock{Key: "k", State: store.LockLive, Runner: "x2"}, store.LockLive},
		{"AnEmptyLockStaysEmpty", store.Lock{Key: "k", State: store.LockEmpty}, store.LockEmpty},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, state := range store.RunnerStates {
				run := online(t, store.Shared).run
				run.State, run.Wait, run.WaitUntil = state, store.WaitGitHub, now
				got, l := store.Drain(now, run, c.lock, why)
				want, wantLock := run, c.lock
				if state.Usable() {
					want.State, want.End, want.DrainingAt, want.Wait, want.WaitUntil = store.RunnerDraining, &why, now, "", time.Time{}
					want.Config.Sealed = ""
					want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "draining", Reason: "idle"})
					wantLock.State = c.want
				}
				same(t, "runner that was "+string(state), got, want)
				same(t, "lock", l, wantLock)
			}
		})
	}
}

func TestDrainReason(t *testing.T) {
	const fresh = time.Second // how long ago the machine was heard of
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		mode  string
		now   time.Time
		edit  func(*stage)
		want  string
	}{
		{"LaunchingIsLeftAlone", launching, store.Shared, at(time.Minute), nil, ""},
		{"LaunchedIsLeftAlone", launched, store.Shared, at(time.Minute), nil, ""},
		{"BootingIsLeftAlone", booting, store.Shared, at(90 * time.Second), nil, ""},
		{"OnlineIsLeftAlone", online, store.Shared, at(time.Hour), nil, ""},
		{"BusyIsLeftAlone", busy, store.Shared, at(time.Hour), nil, ""},

		{"AnotherMachineBooted", launched, store.Shared, at(time.Minute), func(s *stage) { s.run.Boot.NonceHash, s.run.Boot.InstanceID = "h", "i-2" }, store.EndCompromised},
		{"AnotherMachineBootedWhatever", launched, store.Shared, at(7 * time.Hour), func(s *stage) { s.run.Boot.NonceHash, s.run.Boot.InstanceID = "h", "i-2" }, store.EndCompromised},

		{"JustBeforeHard", busy, store.Shared, at(6*time.Hour - 1), func(s *stage) { s.lock.Exp = at(9 * time.Hour) }, ""},
		{"Hard", busy, store.Shared, at(6 * time.Hour), func(s *stage) { s.lock.Exp = at(9 * time.Hour) }, store.EndHard},
		{"HardComesBeforeExp", busy, store.Shared, at(6 * time.Hour), nil, store.EndHard},
		{"HardWithoutALock", busy, store.Shared, at(6 * time.Hour), func(s *stage) { s.lock = store.Lock{} }, store.EndHard},

		{"JustBeforeExp", busy, store.Shared, at(65*time.Minute - 1), nil, ""},
		{"ExpOfAnUnusedRunner", online, store.Shared, at(65 * time.Minute), nil, store.EndExpired},
		{"ExpOfABusyRunner", busy, store.Shared, at(65 * time.Minute), nil, ""},
		{"LongPastExpABusyRunner", busy, store.Shared, at(6*time.Hour - 1), nil, ""},
		{"ExpOfABusyEphemeralRunner", busy, store.Ephemeral, at(65 * time.Minute), nil, ""},
		{"ExpOfAnotherRunner", online, store.Shared, at(65 * time.Minute), func(s *stage) { s.lock.Runner, s.run.State = "x2", store.RunnerBusy }, ""},
		{"ExpBeforeItWasOnline", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.lock.Exp = at(time.Minute) }, store.EndExpired},
		{"ListensFor30sPastExp", online, store.Shared, at(70 * time.Minute), jobThenListens(10*time.Minute, 30*time.Second), store.EndExpired},
		{"ListensForLessPastExp", online, store.Shared, at(70 * time.Minute), jobThenListens(10*time.Minute, 30*time.Second-1), ""},
		{"ListensSinceItsFirstConfigFor30s", online, store.Shared, at(70 * time.Minute), func(s *stage) { s.run.ListeningAt = at(70*time.Minute - 30*time.Second) }, store.EndExpired},
		{"ListensSinceItsFirstConfigForLess", online, store.Shared, at(70 * time.Minute), func(s *stage) { s.run.ListeningAt = at(70*time.Minute - 30*time.Second + 1) }, ""},
		{"NextConfigIsOnItsWayFor120s", online, store.Shared, at(70 * time.Minute), jobThenListens(2*time.Minute, 0), store.EndExpired},
		{"NextConfigIsOnItsWayForLess", online, store.Shared, at(70 * time.Minute), jobThenListens(2*time.Minute-1, 0), ""},
		{"OldAgentHasItsNextConfigForLess", online, store.Shared, at(70 * time.Minute), func(s *stage) {
			jobThenListens(2*time.Minute-1, 0)(s)
			s.run.Config.N, s.run.Wanted = 2, 2
		}, ""},
		{"OldAgentHasItsNextConfigFor120s", online, store.Shared, at(70 * time.Minute), func(s *stage) {
			jobThenListens(2*time.Minute, 0)(s)
			s.run.Config.N, s.run.Wanted = 2, 2
		}, store.EndExpired},
		{"OldAgentWithoutAJobFor120s", online, store.Shared, at(70 * time.Minute), func(s *stage) {
			s.run.ListeningAt, s.run.OnlineAt = time.Time{}, at(68*time.Minute)
		}, store.EndExpired},
		{"OldAgentWithoutAJobForLess", online, store.Shared, at(70 * time.Minute), func(s *stage) {
			s.run.ListeningAt, s.run.OnlineAt = time.Time{}, at(68*time.Minute+1)
		}, ""},
		{"PastExpItsLastJobWasLongAgo", online, store.Shared, at(70 * time.Minute), jobThenListens(40*time.Minute, 30*time.Minute), store.EndExpired},

		{"JustBeforeBootByNoInstance", launching, store.Shared, at(5*time.Minute - 1), nil, ""},
		{"NoInstanceAtBootBy", launching, store.Shared, at(5 * time.Minute), nil, store.EndNoLaunch},
		{"JustBeforeBootByNoBoot", launched, store.Shared, at(5*time.Minute - 1), nil, ""},
		{"NoBootAtBootBy", launched, store.Shared, at(5 * time.Minute), nil, store.EndNoBoot},
		{"BootCallWithoutAConfigIsNoBoot", launched, store.Shared, at(5 * time.Minute), func(s *stage) { s.run.Boot.NonceHash, s.run.Boot.InstanceID = "h", "i-1" }, store.EndNoBoot},
		{"BootByOfAnotherRunner", launched, store.Shared, at(5 * time.Minute), func(s *stage) { s.lock.Runner = "x2" }, store.EndHandover},

		{"BootByOfAnotherRunnerNoInstance", launching, store.Shared, at(5 * time.Minute), func(s *stage) { s.lock.Runner = "x2" }, store.EndHandover},
		{"OnlineGraceOfAnotherRunner", booting, store.Shared, at(7 * time.Minute), func(s *stage) { s.lock.Runner = "x2" }, store.EndHandover},

		{"JustBeforeTheOnlineGraceEnds", booting, store.Shared, at(7*time.Minute - 1), nil, ""},
		{"NotOnlineInTime", booting, store.Shared, at(7 * time.Minute), nil, store.EndNotOnline},
		{"ListensAndNobodyCouldAskIsKept", listening, store.Shared, at(64 * time.Minute), nil, ""},
		{"ListensAndGitHubDoesNotShowIt", listening, store.Shared, at(7 * time.Minute), func(s *stage) { s.run.MissedAt = at(2 * time.Minute) }, store.EndNotOnline},
		{"ListensAndGitHubDoesNotShowItForLess", listening, store.Shared, at(7*time.Minute - 1), func(s *stage) { s.run.MissedAt = at(2 * time.Minute) }, ""},
		{"ListensUntilExp", listening, store.Shared, at(65 * time.Minute), nil, store.EndExpired},
		{"ListensUntilHard", listening, store.Shared, at(6 * time.Hour), nil, store.EndHard},
		{"ListensUnwanted", listening, store.Shared, at(20 * time.Minute), func(s *stage) { s.req.State = store.Expired }, store.EndUnwanted},
		{"ListensUntilItIsSilent", listening, store.Shared, at(20 * time.Minute), func(s *stage) { s.pulse.Seen = at(20*time.Minute - 120*time.Second - 1) }, store.EndLost},
		{"WasOnlineInTime", online, store.Shared, at(7 * time.Minute), nil, ""},

		{"SilentFor120s", busy, store.Shared, at(time.Hour), func(s *stage) { s.pulse.Seen = at(time.Hour - 120*time.Second) }, ""},
		{"SilentForLonger", busy, store.Shared, at(time.Hour), func(s *stage) { s.pulse.Seen = at(time.Hour - 120*time.Second - 1) }, store.EndLost},
		{"PulseOfAnotherRunner", busy, store.Shared, at(time.Hour), func(s *stage) { s.pulse.Runner = "x2" }, store.EndLost},
		{"SilenceBeginsAtTheBoot", booting, store.Shared, at(3 * time.Minute), func(s *stage) { s.pulse = store.Pulse{} }, ""},
		{"SilentSinceTheBoot", booting, store.Shared, at(3*time.Minute + 1), func(s *stage) { s.pulse = store.Pulse{} }, store.EndLost},
		{"SilenceBeginsWhenOnline", online, store.Shared, at(190 * time.Second), func(s *stage) { s.pulse = store.Pulse{} }, ""},
		{"NobodyMissesAMachineThatDidNotBoot", launched, store.Shared, at(4 * time.Minute), func(s *stage) { s.pulse = store.Pulse{} }, ""},
		{"SilenceOfABusyRunnerWithoutALock", busy, store.Shared, at(time.Hour), func(s *stage) { s.lock, s.pulse = store.Lock{}, store.Pulse{} }, ""},

		{"ReplacedWhileIdle", online, store.Shared, at(time.Hour), func(s *stage) { s.lock.Runner = "x2" }, store.EndHandover},
		{"ReplacedWhileNew", launching, store.Shared, at(time.Minute), func(s *stage) { s.lock.Runner = "x2" }, store.EndHandover},
		{"ReplacedWhileBusy", busy, store.Shared, at(time.Hour), func(s *stage) { s.lock.Runner = "x2" }, ""},

		{"LauncherCancelled", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req.State = store.Cancelled }, store.EndUnwanted},
		{"LauncherExpired", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req.State = store.Expired }, store.EndUnwanted},
		{"LauncherFailed", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req.State = store.Failed }, store.EndUnwanted},
		{"LauncherReady", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req.State = store.Ready }, ""},
		{"LauncherAcceptedAgain", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req.State = store.Accepted }, ""},
		{"LauncherIsGone", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req = store.Request{State: store.Cancelled} }, ""},
		{"LauncherCancelledButOthersJoined", booting, store.Shared, at(90 * time.Second), func(s *stage) { s.req.State, s.lock.Joined = store.Cancelled, "r2" }, ""},
		{"EphemeralHasNoOthers", booting, store.Ephemeral, at(90 * time.Second), func(s *stage) { s.req.State, s.lock.Joined = store.Cancelled, "r2" }, store.EndUnwanted},
		{"LauncherCancelledWhileBusy", busy, store.Shared, at(time.Hour), func(s *stage) { s.req.State = store.Cancelled }, ""},
		{"EphemeralCancelledWhileBusy", busy, store.Ephemeral, at(time.Hour), func(s *stage) { s.req.State = store.Cancelled }, ""},

		{"DrainingHasItsReason", busy, store.Shared, at(6 * time.Hour), func(s *stage) { *s = s.drained(at(time.Hour), store.EndIdle) }, ""},
		{"EndedHasItsReason", busy, store.Shared, at(6 * time.Hour), func(s *stage) { *s = s.ended(at(time.Hour)) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, c.mode)
			s.pulse.Runner, s.pulse.Seen = "x1", c.now.Add(-fresh)
			if c.edit != nil {
				c.edit(&s)
			}
			if got := store.DrainReason(c.now, lim, s.run, s.lock, s.pulse, s.req); got != c.want {
				t.Errorf("DrainReason = %q, want %q", got, c.want)
			}
		})
	}
}

// jobThenListens has a job done so long before 13:10, and the program listen for the
// next one since so long before that; zero: it does not listen.
func jobThenListens(done, listens time.Duration) func(*stage) {
	return func(s *stage) {
		s.run.Job = store.Job{StartedAt: at(2 * time.Minute), EndedAt: at(70*time.Minute - done)}
		s.run.ListeningAt = time.Time{}
		if listens > 0 {
			s.run.ListeningAt = at(70*time.Minute - listens)
		}
	}
}

func TestNextEndStep(t *testing.T) {
	const drainedAt = 10 * time.Minute
	gone := func(after time.Duration) func(*store.Runner) {
		return func(r *store.Runner) { *r = r.Deregistered(at(drainedAt + after)) }
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
		{"RefusedDeleteIsRepeated", busy, store.EndExpired, time.Hour, func(r *store.Runner) { *r = r.Deleting(at(drainedAt)) }, store.EndDelete},
		{"AJobMayHaveComeAMomentBefore", idleAgain, store.EndExpired, 90*time.Second - 1, gone(0), store.EndWait},
		{"GraceIsOver", idleAgain, store.EndExpired, 90 * time.Second, gone(0), store.EndBegin},
		{"GraceIsOverOfARunnerWithoutAJob", online, store.EndExpired, 90 * time.Second, gone(0), store.EndBegin},
		{"AJobThatRunsOutlivesTheGrace", busy, store.EndExpired, 90 * time.Second, gone(0), store.EndWait},
		{"AJobThatRunsIsWaitedForUntilHard", busy, store.EndExpired, 6*time.Hour - drainedAt - 1, gone(0), store.EndWait},
		{"AJobThatRunsEndsAtHard", busy, store.EndExpired, 6*time.Hour - drainedAt, gone(0), store.EndBegin},
		{"AJobOfALostMachineIsWaitedForToo", busy, store.EndLost, time.Hour, gone(0), store.EndWait},
		{"AMachineThatIsOffRunsNoJob", busy, store.EndExpired, 0, off, store.EndBegin},
		{"AMachineThatIsOffRunsNoneAfterADeleteEither", busy, store.EndExpired, time.Second, func(r *store.Runner) { gone(0)(r); off(r) }, store.EndBegin},
		{"AMachineThatIsOffNeedsNoSecondDelete", busy, store.EndLost, time.Minute, func(r *store.Runner) { *r = r.Deleting(at(drainedAt)).Refused(at(drainedAt), lim); off(r) }, store.EndBegin},
		{"BusyIsAskedAgainAfterAPause", busy, store.EndExpired, 45 * time.Second, func(r *store.Runner) { *r = r.Refused(at(drainedAt), lim) }, store.EndDelete},
		{"BusyIsNotAskedAgainBefore", busy, store.EndExpired, 45*time.Second - 1, func(r *store.Runner) { *r = r.Refused(at(drainedAt), lim) }, store.EndWait},
		{"CompromisedHasNoPause", busy, store.EndCompromised, 0, func(r *store.Runner) { *r = r.Refused(at(drainedAt), lim) }, store.EndDelete},
		{"IdleAfterwardsEndsTheGrace", busy, store.EndExpired, 3 * time.Second, func(r *store.Runner) { gone(time.Second)(r); r.IdleAt = at(drainedAt + 2*time.Second) }, store.EndBegin},
		{"IdleBeforehandDoesNot", busy, store.EndExpired, 3 * time.Second, func(r *store.Runner) { gone(2 * time.Second)(r); r.IdleAt = at(drainedAt + time.Second) }, store.EndWait},
		{"IdleAloneStillDeletes", busy, store.EndExpired, time.Second, func(r *store.Runner) { r.IdleAt = at(drainedAt) }, store.EndDelete},
		{"HardIsStrongerThanAJob", busy, store.EndExpired, 6*time.Hour - drainedAt, nil, store.EndBegin},
		{"JustBeforeHard", busy, store.EndExpired, 6*time.Hour - drainedAt - 1, nil, store.EndDelete},
		{"CompromisedGetsOneDelete", busy, store.EndCompromised, 0, nil, store.EndDelete},
		{"CompromisedGetsNoSecondOne", busy, store.EndCompromised, 0, func(r *store.Runner) { *r = r.Deleting(at(drainedAt)) }, store.EndBegin},
		{"CompromisedGetsNoGrace", busy, store.EndCompromised, time.Second, gone(0), store.EndBegin},
		{"WithoutAReasonTheGraceHolds", busy, store.EndExpired, time.Second, func(r *store.Runner) { gone(0)(r); r.End = nil }, store.EndWait},
		{"EndingTerminates", busy, store.EndExpired, 0, func(r *store.Runner) { *r = r.Ending(at(drainedAt), "") }, store.EndTerminate},
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
	run := busy(t, store.Shared).run
	want := run
	want.DeletedAt = at(time.Hour)
	got := run.Deleting(at(time.Hour))
	same(t, "runner", got, want)
	same(t, "runner", got.Deleting(at(2*time.Hour)), want)
}

func TestDeregisteredForgetsTheConfigsName(t *testing.T) {
	run := busy(t, store.Shared).run.WriteAhead("test")
	want := run
	want.DeregisteredAt, want.Names = at(time.Hour), names(2)
	want.History = append(slices.Clone(want.History), store.Entry{At: at(time.Hour), State: "busy", Reason: "deregistered"})
	got := run.Deregistered(at(time.Hour))
	same(t, "runner", got, want)
	same(t, "runner", got.Deregistered(at(2*time.Hour)), want)
}

func TestEndingComesFromDrainingAlone(t *testing.T) {
	for _, state := range store.RunnerStates {
		run := busy(t, store.Shared).run
		run.State = state
		want := run
		if state == store.RunnerDraining {
			want.State, want.EndingAt = store.RunnerEnding, at(time.Hour)
			want.History = append(slices.Clone(want.History), store.Entry{At: at(time.Hour), State: "ending", Reason: "why"})
		}
		same(t, "runner that was "+string(state), run.Ending(at(time.Hour), "why"), want)
	}
}

func TestMissing(t *testing.T) {
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
			run := launched(t, store.Shared).run
			if c.another {
				var gone bool
				want := run
				want.MissingAt = at(c.first)
				want.History = append(slices.Clone(want.History), store.Entry{At: at(c.first), State: "launched", Reason: "EC2 does not find the instance"})
				if run, gone = run.Missing(at(c.first), lim); gone {
					t.Error("gone at the first miss")
				}
				same(t, "runner", run, want)
			}
			got, gone := run.Missing(at(c.now), lim)
			if gone != c.gone {
				t.Errorf("gone = %v, want %v", gone, c.gone)
			}
			if c.another {
				same(t, "runner", got, run)
			}
		})
	}
}

func TestYoungInstanceThatIsNotFoundIsNotMissing(t *testing.T) {
	want := launched(t, store.Shared).run
	run, gone := want.Missing(at(5*time.Minute-1), lim)
	if gone {
		t.Error("gone while EC2's view may lag")
	}
	same(t, "runner", run, want)
	if _, gone := run.Missing(at(time.Hour), lim); gone {
		t.Error("gone at the first miss that counts")
	}
}

func TestOneSightingEndsTheSearch(t *testing.T) {
	run, _ := launched(t, store.Shared).run.Missing(at(5*time.Minute), lim)
	want := run
	want.MissingAt = time.Time{}
	run = run.Found()
	same(t, "runner", run, want)
	if _, gone := run.Missing(at(time.Hour), lim); gone {
		t.Error("gone at the first miss after it was found")
	}
}

func TestTerminatingRecordsTheLastCall(t *testing.T) {
	want := busy(t, store.Shared).run
	run := want.Terminating(at(time.Hour)).Terminating(at(2 * time.Hour))
	want.TerminatedAt = at(2 * time.Hour)
	same(t, "runner", run, want)
}

func TestEnded(t *testing.T) {
	now := at(time.Hour)
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*stage)
		end   string
		lock  store.LockState
		live  int
		due   time.Time
	}{
		{"DrainedByUs", busy, func(s *stage) { *s = s.drained(at(time.Minute), store.EndIdle); s.run = s.run.Ending(now, "") }, store.EndIdle, store.LockEmpty, 0, now},
		{"ByItself", busy, func(*stage) {}, store.EndTerminated, store.LockEmpty, 0, now},
		{"BeforeItWasLaunched", launching, func(*stage) {}, store.EndTerminated, store.LockEmpty, 0, now},
		{"NoNamesLeft", busy, func(s *stage) { s.run.Names = nil }, store.EndTerminated, store.LockEmpty, 0, time.Time{}},
		{"AnotherRunnersLock", busy, func(s *stage) { s.lock.Runner = "x2" }, store.EndTerminated, store.LockLive, 0, now},
		{"OthersLive", busy, func(s *stage) { s.quota.Live = 4 }, store.EndTerminated, store.LockEmpty, 3, now},
		{"CounterNeverBelowZero", busy, func(s *stage) { s.quota.Live = 0 }, store.EndTerminated, store.LockEmpty, 0, now},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			c.edit(&s)
			run, l, q := store.Ended(now, lim, s.run, s.lock, s.quota, "terminated")
			want := s.run
			if s.run.State.Usable() {
				want, _ = store.Drain(now, s.run, s.lock, store.NewEnd(store.EndTerminated))
			}
			want.State, want.EndedAt, want.Claim, want.DueAt, want.TTL = store.RunnerEnded, now, store.Claim{}, c.due, now.Add(lim.Keep).Unix()
			want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "ended", Reason: "terminated"})
			same(t, "runner", run, want)
			if run.End.Code != c.end || l.State != c.lock {
				t.Errorf("end %s, lock %s; want %s, %s", run.End.Code, l.State, c.end, c.lock)
			}
			if c.lock == store.LockEmpty {
				same(t, "lock", l, store.Lock{Meta: store.Meta{Version: 1, TTL: now.Add(lim.Keep).Unix()}, Key: s.lock.Key, State: store.LockEmpty})
			}
			s.quota.Live = c.live
			same(t, "quota", q, s.quota)
		})
	}
	t.Run("FinalChangesNothing", func(t *testing.T) {
		failed := launching(t, store.Shared)
		failed.run.State = store.RunnerFailed
		for _, s := range []stage{failed, busy(t, store.Shared).ended(at(time.Minute))} {
			got := s.ended(now)
			same(t, "runner", got.run, s.run)
			same(t, "lock", got.lock, s.lock)
			same(t, "quota", got.quota, s.quota)
		}
	})
}

func TestNamesLeft(t *testing.T) {
	run := busy(t, store.Shared).ended(at(time.Hour)).run
	for _, c := range []struct {
		name string
		now  time.Time
		edit func(*store.Runner)
		want time.Time
	}{
		{"LooksAgainInAnHour", at(2 * time.Hour), func(*store.Runner) {}, at(3 * time.Hour)},
		{"JustBeforeADay", at(25*time.Hour - 1), func(*store.Runner) {}, at(26*time.Hour - 1)},
		{"StopsAfterADay", at(25 * time.Hour), func(*store.Runner) {}, time.Time{}},
		{"NothingIsLeft", at(2 * time.Hour), func(r *store.Runner) { *r = r.Forget(1) }, time.Time{}},
	} {
		run := run
		c.edit(&run)
		want := run
		want.DueAt = c.want
		same(t, c.name, run.NamesLeft(c.now, lim), want)
	}
}

func TestStop(t *testing.T) {
	now := at(10 * time.Minute)
	joined := func(s *stage) { s.lock.Joined = "r2" }
	other := func(s *stage) { s.req.ID = "r2" }
	for _, c := range []struct {
		name                  string
		stage                 func(*testing.T, string) stage
		mode                  string
		edit                  func(*stage)
		force                 bool
		request, runner, lock bool
	}{
		{"AcceptedHasNoRunner", launching, store.Shared, func(s *stage) { s.req, s.run = accepted("r1", store.Shared), store.Runner{} }, false, true, false, false},
		{"WaitingLauncherTakesItsRunnerAlong", launching, store.Shared, nil, false, true, true, true},
		{"WaitingLauncherLeavesAJoinedRunner", launching, store.Shared, joined, false, true, false, false},
		{"WaitingSharerLeavesTheRunner", launching, store.Shared, other, false, true, false, false},
		{"ReadyLauncherDrainsAnUnsharedRunner", busy, store.Shared, nil, false, false, true, true},
		{"ReadyLauncherLeavesAJoinedRunner", busy, store.Shared, joined, false, false, false, false},
		{"ReadySharerLeavesTheRunner", busy, store.Shared, other, false, false, false, false},
		{"ForceDrainsAJoinedRunner", busy, store.Shared, joined, true, false, true, true},
		{"ForceOfASharerDrainsToo", busy, store.Shared, other, true, false, true, true},
		{"ReplacedRunnerIsNotTheLocks", busy, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, false, false, false, false},
		{"ForceOnAReplacedRunnerSparesTheLock", busy, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, true, false, true, false},
		{"EphemeralDrainsAlways", busy, store.Ephemeral, joined, false, false, true, true},
		{"AnotherRunnerIsSpared", busy, store.Ephemeral, func(s *stage) { s.run.ID = "x2" }, true, false, false, false},
		{"AnAbsentRunnerIsNoRunner", busy, store.Ephemeral, func(s *stage) { s.run = store.Runner{ID: "x1", State: store.RunnerBusy} }, true, false, false, false},
		{"ADrainingRunnerGoesOn", busy, store.Ephemeral, func(s *stage) { *s = s.drained(at(time.Minute), store.EndIdle) }, true, false, false, false},
		{"AnEndedRunnerStaysEnded", busy, store.Ephemeral, func(s *stage) { *s = s.ended(at(time.Minute)) }, true, false, false, false},
		{"ExpiredIsFinal", launching, store.Shared, func(s *stage) { s.req = s.req.Expire(at(time.Hour), lim) }, false, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, c.mode)
			if c.edit != nil {
				c.edit(&s)
			}
			r, run, l, request, runner, lock := store.Stop(now, lim, s.req, s.run, s.lock, "github octocat", c.force)
			if request != c.request || runner != c.runner || lock != c.lock {
				t.Errorf("Stop writes request %v, runner %v, lock %v; want %v, %v, %v", request, runner, lock, c.request, c.runner, c.lock)
			}
			want := s
			if c.request {
				want.req = s.req.Cancel(now, lim, "github octocat")
			}
			if c.runner {
				want = want.drained(now, store.EndStopped)
			}
			same(t, "request", r, want.req)
			same(t, "runner", run, want.run)
			same(t, "lock", l, want.lock)
		})
	}
}

func TestEndsTellPeopleWhatToDo(t *testing.T) {
	codes := store.EndCodes()
	if len(codes) < 20 || !slices.IsSorted(codes) || !slices.Contains(codes, store.EndMintDenied) {
		t.Errorf("EndCodes = %v, want all of them, sorted", codes)
	}
	for _, code := range codes {
		end := store.NewEnd(code)
		if end.Code != code || end.Text == "" || end.Retryable != (code != store.EndTooOld) {
			t.Errorf("NewEnd(%s) = %+v, want a text, and retryable unless the runner program is too old", code, end)
		}
	}
}

func TestBusyRegistrationCosts27DeletesInSixHours(t *testing.T) {
	run := online(t, store.Shared).drained(t0, store.EndIdle).run
	var pauses []time.Duration
	deletes, lastly := 0, t0
	for now := t0; now.Before(run.Hard); now = now.Add(lim.ReaperPeriod) { // by a reaper that runs every minute
		if store.NextEndStep(now, lim, run, false) != store.EndDelete {
			continue
		}
		if deletes++; deletes > 1 {
			pauses = append(pauses, now.Sub(lastly))
		}
		lastly = now
		run = run.Deleting(now).Refused(now, lim)
	}
	if want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute}; !slices.Equal(pauses[:6], want) {
		t.Errorf("the first pauses are %v, want %v", pauses[:6], want)
	}
	if deletes != 27 || run.Refusals != 27 {
		t.Errorf("%d DELETEs in six hours, %d refusals; want 27, as at Limits.DeleteAgain", deletes, run.Refusals)
	}
}

func TestRefusedDoesNotOverflow(t *testing.T) {
	run := busy(t, store.Shared).run
	run.Refusals = 1000
	if got := run.Refused(t0, lim).DeleteAfter.Sub(t0); got != 15*time.Minute-15*time.Second {
		t.Errorf("after a thousand refusals, GitHub is asked again in %v, want 14m45s", got)
	}
}

func TestSilentMachineWhoseJobIsKnownIsSuspect(t *testing.T) {
	const drainedAt = 10 * time.Minute
	now := at(drainedAt + 15*time.Minute)
	for _, c := range []struct {
		name   string
		stage  func(*testing.T, string) stage
		runner string // whose pulse it is
		silent time.Duration
		now    time.Time
		want   bool
	}{
		{"HeardOf120sAgo", busy, "x1", 2 * time.Minute, now, false},
		{"SilentForLonger", busy, "x1", 2*time.Minute + 1, now, true},
		{"SilentForLongerButDrainsForLess", busy, "x1", 2*time.Minute + 1, now.Add(-1), false},
		{"PulseOfAnotherRunner", busy, "x2", time.Hour, now, false},
		{"NoPulse", busy, "", 0, now, false},
		{"WithoutAJob", online, "x1", time.Hour, now, false},
		{"AfterItsJob", idleAgain, "x1", time.Hour, now, false},
	} {
		s := c.stage(t, store.Shared).drained(at(drainedAt), store.EndExpired)
		p := store.Pulse{Runner: c.runner, Seen: c.now.Add(-c.silent)}
		if got, suspect := s.run.Suspect(c.now, lim, p); suspect != c.want || got.SuspectAt.Equal(c.now) != c.want {
			t.Errorf("%s: Suspect = %v, suspected at %v; want %v", c.name, suspect, got.SuspectAt, c.want)
		}
	}
}

func TestSuspect(t *testing.T) {
	const drainedAt = 10 * time.Minute
	refused := func(r *store.Runner) { *r = r.Deleting(at(drainedAt)).Refused(at(drainedAt), lim) }
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		code  string
		after time.Duration // since the drain
		edit  func(*store.Runner)
		want  bool
	}{
		{"GitHubAloneSpeaksOfAJob", online, store.EndIdle, 15 * time.Minute, refused, true},
		{"GitHubAloneSpeaksOfAJobForLess", online, store.EndIdle, 15*time.Minute - 1, refused, false},
		{"GitHubAloneSpeaksOfAJobAfterTheOneThatEnded", idleAgain, store.EndIdle, 15 * time.Minute, refused, true},
		{"AJobThatRunsIsNoSuspect", busy, store.EndExpired, 5 * time.Hour, refused, false},
		{"AJobOnALostMachineIs", busy, store.EndLost, 15 * time.Minute, refused, true},
		{"AJobOnALostMachineForLess", busy, store.EndLost, 15*time.Minute - 1, refused, false},
		{"AJobOnALostMachineThatGitHubForgotIs", busy, store.EndLost, 15 * time.Minute, func(r *store.Runner) { *r = r.Deregistered(at(drainedAt)) }, true},
		{"ALongJobThatJustEnded", busy, store.EndExpired, time.Hour, func(r *store.Runner) { refused(r); r.Job.EndedAt = at(drainedAt + 46*time.Minute) }, false},
		{"ALongJobThatEndedLongAgo", busy, store.EndExpired, time.Hour, func(r *store.Runner) { refused(r); r.Job.EndedAt = at(drainedAt + 45*time.Minute) }, true},
		{"GoneAtGitHubWaitsForItsGraceAlone", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); *r = r.Deregistered(at(drainedAt + time.Hour)) }, false},
		{"NotAskedYetSinceTheReaperWasAway", online, store.EndIdle, time.Hour, func(*store.Runner) {}, false},
		{"OnceIsEnough", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); r.SuspectAt = at(drainedAt + 15*time.Minute) }, false},
		{"WithoutAReason", busy, store.EndLost, time.Hour, func(r *store.Runner) { refused(r); r.End = nil }, false},
		{"EndingIsOver", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); *r = r.Ending(at(drainedAt), "") }, false},
		{"UsableIsNotEnded", online, "", time.Hour, refused, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.code != "" {
				s = s.drained(at(drainedAt), c.code)
			}
			c.edit(&s.run)
			now := at(drainedAt + c.after)
			want := s.run
			if c.want {
				want.SuspectAt = now
				want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "draining", Reason: "waits for a job that nobody knows of, or whose machine is silent"})
			}
			got, suspect := s.run.Suspect(now, lim, store.Pulse{})
			if suspect != c.want {
				t.Errorf("Suspect = %v, want %v", suspect, c.want)
			}
			same(t, "runner", got, want)
			if _, again := got.Suspect(now.Add(time.Hour), lim, store.Pulse{}); suspect && again {
				t.Error("Suspect a second time")
			}
		})
	}
}
