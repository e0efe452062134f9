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
		if end.Code != code || end.Text == "" || end.Retryable != (code != store.EndTooOld && code != store.EndNoAccount && code != store.EndSetup) {
			t.Errorf("NewEnd(%s) = %+v, want a text, and retryable unless the runner program is too old, the account gone or the set-up wrong", code, end)
		}
	}
}
