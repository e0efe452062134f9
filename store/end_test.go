package store_test

import (
	"slices"
	"strings"
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
				s := online(t, store.Shared)
				s.lock = c.lock
				s.run.State, s.run.Wait, s.run.WaitUntil = state, store.WaitGitHub, now
				want, follows := s, outcome{}
				if state.Usable() {
					want.run.State, want.run.End, want.run.DrainingAt, want.run.Wait, want.run.WaitUntil = store.RunnerDraining, &why, now, "", time.Time{}
					want.run.Config.Sealed = ""
					want.run.History = noted(s.run.History, now, "draining", "idle")
					want.lock.State = c.want
					follows.changes = "put runner"
					if c.want == store.LockDraining {
						follows.changes = "put runner, put lock"
					}
				}
				t.Run(string(state), func(t *testing.T) { want.decides(t, s.c().Drain(now, why), follows) })
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
			d, ok := s.c().Finish(now, lim, c.in, "terminated")
			if !ok {
				t.Error("ok = false, want true")
			}
			want := s
			if s.run.State.Usable() {
				want = s.after(s.c().Died(now, lim, c.in))
			}
			want.run.State, want.run.EndedAt, want.run.Claim, want.run.DueAt, want.run.TTL = store.RunnerEnded, now, store.Claim{}, c.due, now.Add(lim.Keep).Unix()
			want.run.History = noted(want.run.History, now, "ended", "terminated")
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
			d, ok := c.stage.c().Finish(now, lim, c.in, "terminated")
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
	d, ok := s.c().Finish(now, lim, store.Instance{ID: "i-1", State: "terminated"}, "terminated")
	if !ok || d.Runner.InstanceID != "i-1" || d.Runner.State != store.RunnerEnded || d.Runner.Attempts[0].Code != "launched" {
		t.Errorf("ok %v, the runner is %s with instance %q and attempts %v; want it ended, and its machine recorded", ok, d.Runner.State, d.Runner.InstanceID, d.Runner.Attempts)
	}
}

func TestFinishOfARunnerThatWasNeverLaunchedTellsOfNoLaunch(t *testing.T) {
	now := at(time.Hour)
	s := launching(t, store.Shared).drained(at(time.Minute), store.EndStopped).ending(at(time.Minute))
	d, ok := s.c().Finish(now, lim, store.Instance{}, "EC2 does not know the instance")
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
			d, _ := c.stage.c().Finish(now, lim, store.Instance{ID: "i-1", State: "terminated", Code: c.code}, "terminated")
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

func TestStop(t *testing.T) {
	now := at(10 * time.Minute)
	joined := func(s *stage) { s.lock.Joined = "r2" }
	other := func(s *stage) { s.req.ID = "r2" }
	for _, c := range []struct {
		name    string
		stage   func(*testing.T, string) stage
		mode    string
		edit    func(*stage)
		force   bool
		changes string
	}{
		{"AcceptedHasNoRunner", launching, store.Shared, func(s *stage) { s.req, s.run = accepted("r1", store.Shared), store.Runner{} }, false, "put request"},
		{"WaitingLauncherTakesItsRunnerAlong", launching, store.Shared, nil, false, "put request, put runner, put lock"},
		{"WaitingLauncherLeavesAJoinedRunner", launching, store.Shared, joined, false, "put request"},
		{"WaitingSharerLeavesTheRunner", launching, store.Shared, other, false, "put request"},
		{"ReadyLauncherDrainsAnUnsharedRunner", busy, store.Shared, nil, false, "put runner, put lock"},
		{"ReadyLauncherLeavesAJoinedRunner", busy, store.Shared, joined, false, ""},
		{"ReadySharerLeavesTheRunner", busy, store.Shared, other, false, ""},
		{"ForceDrainsAJoinedRunner", busy, store.Shared, joined, true, "put runner, put lock"},
		{"ForceOfASharerDrainsToo", busy, store.Shared, other, true, "put runner, put lock"},
		{"ReplacedRunnerIsNotTheLocks", busy, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, false, ""},
		{"ForceOnAReplacedRunnerSparesTheLock", busy, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, true, "put runner"},
		{"EphemeralDrainsAlways", busy, store.Ephemeral, joined, false, "put runner, put lock"},
		{"AnotherRunnerIsSpared", busy, store.Ephemeral, func(s *stage) { s.run.ID = "x2" }, true, ""},
		{"AnAbsentRunnerIsNoRunner", busy, store.Ephemeral, func(s *stage) { s.run = store.Runner{ID: "x1", State: store.RunnerBusy} }, true, ""},
		{"ADrainingRunnerGoesOn", busy, store.Ephemeral, func(s *stage) { *s = s.drained(at(time.Minute), store.EndIdle) }, true, ""},
		{"AnEndedRunnerStaysEnded", busy, store.Ephemeral, func(s *stage) { *s = s.ended(at(time.Minute)) }, true, ""},
		{"ExpiredIsFinal", launching, store.Shared, func(s *stage) { s.take(s.c().Expire(at(time.Hour), lim)) }, false, "put runner, put lock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, c.mode)
			if c.edit != nil {
				c.edit(&s)
			}
			want := s
			if strings.Contains(c.changes, "put request") {
				why := &store.Failure{Code: "cancelled", Text: "The request was cancelled."}
				want.req = ended(s.req, now, store.Cancelled, "by github octocat", why)
			}
			if strings.Contains(c.changes, "put runner") {
				want = want.drained(now, store.EndStopped)
			}
			want.decides(t, s.c().Stop(now, lim, "github octocat", c.force), outcome{changes: c.changes})
		})
	}
}

func TestStopComesAfterWhatTheRunnerMeansForTheRequest(t *testing.T) {
	now := at(10 * time.Minute)
	for _, c := range []struct {
		name    string
		stage   stage
		want    store.RequestState
		changes string
	}{
		{"OnlineItIsReadyAndNotCancelled", online(t, store.Shared), store.Ready, "put request, put runner, put lock"},
		{"OverItIsNotTriedAgain", launching(t, store.Shared).drained(at(time.Minute), store.EndNoCapacity), store.Cancelled, "put request"},
		{"OverForGoodItHasFailed", booting(t, store.Shared).drained(at(time.Minute), store.EndTooOld), store.Failed, "put request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.stage.req = launching(t, store.Shared).req // as it waits
			d := c.stage.c().Stop(now, lim, "github octocat", false)
			if got, want := outcomeOf(d), (outcome{changes: c.changes}); got != want || d.Request.State != c.want {
				t.Errorf("the request is %s and the decision %+v; want %s and %+v", d.Request.State, got, c.want, want)
			}
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
		run = of(run).Deleting(now).Refused(now, lim).Runner
	}
	if want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute}; !slices.Equal(pauses[:6], want) {
		t.Errorf("the first pauses are %v, want %v", pauses[:6], want)
	}
	if deletes != 27 || run.Refusals != 27 {
		t.Errorf("%d DELETEs in six hours, %d refusals; want 27, as at Limits.DeleteAgain", deletes, run.Refusals)
	}
}

func TestRefusedDoesNotOverflow(t *testing.T) {
	s := busy(t, store.Shared)
	s.run.Refusals = 1000
	d := s.c().Refused(t0, lim)
	s.run.Refusals, s.run.DeleteAfter = 1001, t0.Add(15*time.Minute-15*time.Second)
	s.decides(t, d, outcome{changes: "put runner"})
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
		s.pulse = store.Pulse{Key: s.lock.Key, Runner: c.runner, Seen: c.now.Add(-c.silent)}
		want := outcome{}
		if c.want {
			want = outcome{changes: "put runner", alarm: store.AlarmBusy}
		}
		if d := s.c().Suspect(c.now, lim); outcomeOf(d) != want || d.Runner.SuspectAt.Equal(c.now) != c.want {
			t.Errorf("%s: the decision is %+v, suspected at %v; want %+v", c.name, outcomeOf(d), d.Runner.SuspectAt, want)
		}
	}
}

func TestSuspect(t *testing.T) {
	const drainedAt = 10 * time.Minute
	refused := func(r *store.Runner) { *r = of(*r).Deleting(at(drainedAt)).Refused(at(drainedAt), lim).Runner }
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
		{"AJobOnALostMachineThatGitHubForgotIs", busy, store.EndLost, 15 * time.Minute, func(r *store.Runner) { *r = of(*r).Deregistered(at(drainedAt)).Runner }, true},
		{"ALongJobThatJustEnded", busy, store.EndExpired, time.Hour, func(r *store.Runner) { refused(r); r.Job.EndedAt = at(drainedAt + 46*time.Minute) }, false},
		{"ALongJobThatEndedLongAgo", busy, store.EndExpired, time.Hour, func(r *store.Runner) { refused(r); r.Job.EndedAt = at(drainedAt + 45*time.Minute) }, true},
		{"GoneAtGitHubWaitsForItsGraceAlone", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); *r = of(*r).Deregistered(at(drainedAt + time.Hour)).Runner }, false},
		{"NotAskedYetSinceTheReaperWasAway", online, store.EndIdle, time.Hour, func(*store.Runner) {}, false},
		{"OnceIsEnough", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); r.SuspectAt = at(drainedAt + 15*time.Minute) }, false},
		{"WithoutAReason", busy, store.EndLost, time.Hour, func(r *store.Runner) { refused(r); r.End = nil }, false},
		{"EndingIsOver", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); *r = of(*r).Ending(at(drainedAt), "").Runner }, false},
		{"UsableIsNotEnded", online, "", time.Hour, refused, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.code != "" {
				s = s.drained(at(drainedAt), c.code)
			}
			c.edit(&s.run)
			s.pulse = store.Pulse{Key: s.lock.Key}
			now := at(drainedAt + c.after)
			want, follows := s, outcome{}
			if c.want {
				want.run.SuspectAt = now
				want.run.History = noted(s.run.History, now, "draining", "waits for a job that nobody knows of, or whose machine is silent")
				follows = outcome{changes: "put runner", alarm: store.AlarmBusy}
			}
			d := s.c().Suspect(now, lim)
			want.decides(t, d, follows)
			if c.want {
				want.decides(t, d.Suspect(now.Add(time.Hour), lim), outcome{}) // a person is alarmed once
			}
		})
	}
}

func TestSuspectNeedsThePulseOfARunnerThatDrainsForLong(t *testing.T) {
	const drainedAt = 10 * time.Minute
	for _, c := range []struct {
		name  string
		after time.Duration
		edit  func(*stage)
		need  string
	}{
		{"ForLong", 15 * time.Minute, func(*stage) {}, "pulse#123456789012/eu-west-2/42/spot/default/large,linux"},
		{"ForLess", 15*time.Minute - 1, func(*stage) {}, ""},
		{"APersonKnows", 15 * time.Minute, func(s *stage) { s.run.SuspectAt = at(drainedAt) }, ""},
		{"ItEnds", 15 * time.Minute, func(s *stage) { *s = s.ending(at(drainedAt)) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := busy(t, store.Shared).drained(at(drainedAt), store.EndLost)
			s.pulse = store.Pulse{}
			c.edit(&s)
			s.decides(t, s.c().Suspect(at(drainedAt+c.after), lim), outcome{need: c.need})
		})
	}
}
