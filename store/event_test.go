package store_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestOrderFor(t *testing.T) {
	s := busy(t, store.Shared)
	for _, c := range []struct {
		name string
		edit func(*store.Runner, *store.Lock)
		want store.Order
	}{
		{"NamedGoesOn", func(*store.Runner, *store.Lock) {}, store.OrderGo},
		{"ReplacedDrains", func(_ *store.Runner, l *store.Lock) { l.Runner = "x2" }, store.OrderDrain},
		{"WithoutALockDrains", func(_ *store.Runner, l *store.Lock) { *l = store.Lock{} }, store.OrderDrain},
		{"DrainingDrains", func(r *store.Runner, _ *store.Lock) { r.State = store.RunnerDraining }, store.OrderDrain},
		{"EndingStops", func(r *store.Runner, _ *store.Lock) { r.State = store.RunnerEnding }, store.OrderStop},
		{"EndedIsGone", func(r *store.Runner, _ *store.Lock) { r.State = store.RunnerEnded }, store.OrderGone},
		{"FailedIsGone", func(r *store.Runner, _ *store.Lock) { r.State = store.RunnerFailed }, store.OrderGone},
		{"PastItsHardLimitStops", func(r *store.Runner, _ *store.Lock) { r.Hard = at(time.Minute) }, store.OrderStop},
		{"EndedIsGoneWhenever", func(r *store.Runner, _ *store.Lock) { r.State, r.Hard = store.RunnerEnded, at(time.Second) }, store.OrderGone},
		{"AbsentIsGone", func(r *store.Runner, _ *store.Lock) { r.Version = 0 }, store.OrderGone},
	} {
		run, l := s.run, s.lock
		c.edit(&run, &l)
		if got := store.OrderFor(at(time.Minute), run, l); got != c.want {
			t.Errorf("%s: OrderFor = %s, want %s", c.name, got, c.want)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	now := at(time.Hour)
	for _, c := range []struct {
		name    string
		stage   func(*testing.T, string) stage
		edit    func(*stage)
		counter int64
		beat    bool
		order   store.Order
	}{
		{"RefreshesSeen", busy, nil, 8, true, store.OrderGo},
		{"ReplayedCounter", busy, nil, 7, false, store.OrderGo},
		{"OldCounter", busy, nil, 6, false, store.OrderGo},
		{"AFloodIsCut", busy, func(s *stage) { s.pulse.Seen = now.Add(-5*time.Second + 1) }, 8, false, store.OrderGo},
		{"AQuarterOfAPeriodIsNoFlood", busy, func(s *stage) { s.pulse.Seen = now.Add(-5 * time.Second) }, 8, true, store.OrderGo},
		{"FirstOfARunnerTakesThePulseOver", busy, func(s *stage) { s.pulse.Runner, s.pulse.Seen = "x0", now }, 1, true, store.OrderGo},
		{"NotWithoutAConfig", launched, nil, 8, false, store.OrderGo},
		{"ReplacedWritesNothing", busy, func(s *stage) { s.lock.Runner = "x2" }, 8, false, store.OrderDrain},
		{"DrainingIsStillAlive", busy, func(s *stage) { *s = s.drained(now, store.EndIdle) }, 8, true, store.OrderDrain},
		{"EndingIsStopped", busy, func(s *stage) { *s = s.drained(now, store.EndIdle); *s = s.ending(now) }, 8, false, store.OrderStop},
		{"EndedIsGone", busy, func(s *stage) { *s = s.ended(now) }, 8, false, store.OrderGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			s.pulse = store.Pulse{Meta: store.Meta{Version: 4}, Key: s.lock.Key, Runner: "x1", Seen: now.Add(-time.Minute), Counter: 7}
			if c.edit != nil {
				c.edit(&s)
			}
			want, follows := s, outcome{}
			if c.beat {
				want.pulse = store.Pulse{Meta: store.Meta{Version: 4, TTL: now.Add(lim.Keep).Unix()}, Key: s.lock.Key, Runner: "x1", Seen: now, Counter: c.counter}
				follows.changes = "put pulse"
			}
			d, order := s.c().ApplyEvent(now, lim, store.Event{Kind: store.EventHeartbeat, Counter: c.counter}, "key-1")
			if order != c.order {
				t.Errorf("the order is %s, want %s", order, c.order)
			}
			want.decides(t, d, follows)
		})
	}
}

func TestApplyEvent(t *testing.T) {
	now := at(20 * time.Minute)
	noted := func(r *store.Runner, reason string) { r.History = noted(r.History, now, string(r.State), reason) }
	confirmed := func(s *stage, h *heard, counter int64) { // by GitHub, whom a worker is to ask
		s.pulse = store.Pulse{Meta: store.Meta{TTL: now.Add(lim.Keep).Unix()}, Key: s.lock.Key, Runner: "x1", Seen: now, Counter: counter}
		h.sends = "runner x1 due 20m0s"
	}
	listens := func(counter int64) func(*stage, *heard) {
		return func(s *stage, h *heard) {
			s.run.ListeningAt = now
			noted(&s.run, "the runner program listens")
			confirmed(s, h, counter)
		}
	}
	tooOld := func(image bool) func(*stage, *heard) {
		return func(s *stage, h *heard) {
			*s = s.drained(now, store.EndTooOld)
			noted(&s.run, "v2.300")
			h.order, h.alarm = store.OrderDrain, store.AlarmRunnerTooOld
			if image { // then it never had a job
				s.quota.TooOld = []store.TooOldImage{{Image: "ami-1", Program: "key-1", Runner: "x1", At: now}}
				if s.req.State == store.Waiting {
					s.req = ended(s.req, now, store.Failed, store.EndTooOld, s.run.End)
					s.req.Attempts = s.run.Attempts
				}
			}
		}
	}
	usedUp := func(s *stage) {
		s.run.ListeningAt, s.run.Config.Used, s.lock.ConfirmedAt = time.Time{}, true, time.Time{}
		s.lock.Busy, s.lock.CountedOn = false, time.Time{}
	}
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		mode  string
		edit  func(*stage)
		event store.Event
		want  func(*stage, *heard) // what the event makes of the stage, and what else it tells
	}{
		{"BootingIsNoted", booting, store.Shared, nil, store.Event{Kind: store.EventBooting, Detail: "v2"},
			func(s *stage, _ *heard) { noted(&s.run, "agent runs: v2") }},
		{"OnlineIsTheMachinesWordAlone", booting, store.Shared, nil, store.Event{Kind: store.EventOnline}, listens(0)},
		{"OnlineKeepsTheCounterOfItsOwnPulse", booting, store.Shared, func(s *stage) { s.pulse.Runner, s.pulse.Counter = "x1", 5 }, store.Event{Kind: store.EventOnline}, listens(5)},
		{"OnlineResetsTheCounterOfAnothersPulse", booting, store.Shared, func(s *stage) { s.pulse.Runner, s.pulse.Counter = "x0", 5 }, store.Event{Kind: store.EventOnline}, listens(0)},
		{"OnlineOfAReplacedRunnerDrains", booting, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, store.Event{Kind: store.EventOnline},
			func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"OnlineBeforeTheConfigIsALie", launched, store.Shared, nil, store.Event{Kind: store.EventOnline}, func(*stage, *heard) {}},
		{"OnlineWhileDrainingChangesNothing", booting, store.Shared, func(s *stage) { *s = s.drained(at(time.Minute), store.EndStopped) }, store.Event{Kind: store.EventOnline},
			func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"OnlineAgainIsAskedNoSecondTime", listening, store.Shared, nil, store.Event{Kind: store.EventOnline}, func(*stage, *heard) {}},
		{"OnlineAgainOfAConfirmedConfigIsNot", online, store.Shared, nil, store.Event{Kind: store.EventOnline}, func(*stage, *heard) {}},
		{"OnlineWhileTheNextConfigIsWantedIsOfTheOldOne", online, store.Shared, func(s *stage) { s.run.Wanted, s.run.ListeningAt = 2, time.Time{} }, store.Event{Kind: store.EventOnline}, func(*stage, *heard) {}},
		{"OnlineOfALaterConfigIsAskedAbout", online, store.Shared, func(s *stage) { s.run.ListeningAt = time.Time{} }, store.Event{Kind: store.EventOnline}, listens(0)},
		{"OnlineAgainOfAReplacedRunnerIsNone", online, store.Shared, func(s *stage) { s.lock.Runner, s.run.ListeningAt = "x2", time.Time{} }, store.Event{Kind: store.EventOnline},
			func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"OnlineAfterItsJobStartedIsAskedAbout", busy, store.Shared, func(s *stage) { s.run.ListeningAt = time.Time{} }, store.Event{Kind: store.EventOnline}, listens(0)},

		{"AJobProvesThatTheRunnerIsOnline", listening, store.Shared, nil, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, h *heard) {
			s.run.State, s.run.OnlineAt, s.lock.State = store.RunnerOnline, now, store.LockLive
			noted(&s.run, "GitHub gave it a job")
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "1001", StartedAt: now}
			s.lock.Busy = true
			noted(&s.run, "job of run 1001")
			confirmed(s, h, 0)
		}},
		{"AJobProvesItBeforeOnlineIsSaid", booting, store.Ephemeral, nil, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, h *heard) {
			s.run.State, s.run.OnlineAt, s.run.ListeningAt, s.lock.State = store.RunnerOnline, now, now, store.LockLive
			noted(&s.run, "GitHub gave it a job")
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "1001", StartedAt: now}
			noted(&s.run, "job of run 1001")
			confirmed(s, h, 0)
		}},
		{"AJobOfAReplacedRunnerTakesNoLock", booting, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, h *heard) {
			s.run.Job = store.Job{RunID: "1001", StartedAt: now}
			noted(&s.run, "job of run 1001")
			h.order = store.OrderDrain
		}},
		{"AJobBeforeTheConfigIsALie", launched, store.Shared, nil, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, _ *heard) {
			s.run.Job = store.Job{RunID: "1001", StartedAt: now}
			s.lock.Busy = true
			noted(&s.run, "job of run 1001")
		}},
		{"JobStartedMakesBusy", online, store.Shared, nil, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "1001", StartedAt: now}
			s.lock.Busy = true
			noted(&s.run, "job of run 1001")
		}},
		{"SharedServesOtherRuns", online, store.Shared, nil, store.Event{Kind: store.EventJobStarted, RunID: "2002"}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "2002", StartedAt: now}
			s.lock.Busy = true
			noted(&s.run, "job of run 2002")
		}},
		{"EphemeralServesItsOwnRun", online, store.Ephemeral, nil, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "1001", StartedAt: now}
			noted(&s.run, "job of run 1001")
		}},
		{"EphemeralJobOfAnotherRunIsStolen", online, store.Ephemeral, nil, store.Event{Kind: store.EventJobStarted, RunID: "2002"}, func(s *stage, h *heard) {
			s.run.State, s.run.Job, s.run.Stolen = store.RunnerBusy, store.Job{RunID: "2002", StartedAt: now}, "2002"
			noted(&s.run, "job of run 2002, which did not ask for this runner")
			h.alarm = store.AlarmJobStolen
		}},
		{"AnOperatorsRequestHasNoRun", online, store.Ephemeral, func(s *stage) { s.run.RunID = "" }, store.Event{Kind: store.EventJobStarted, RunID: "2002"}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "2002", StartedAt: now}
			noted(&s.run, "job of run 2002")
		}},
		{"AJobWithoutARunIsNotStolen", online, store.Ephemeral, nil, store.Event{Kind: store.EventJobStarted}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{StartedAt: now}
			noted(&s.run, "a job")
		}},
		{"TheRunIsLearntAfterTheStart", busy, store.Ephemeral, func(s *stage) { s.run.Job.RunID = "" }, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, _ *heard) {
			s.run.Job = store.Job{RunID: "1001", StartedAt: at(2 * time.Minute)}
			noted(&s.run, "job of run 1001")
		}},
		{"TheRunIsNotForgotten", busy, store.Ephemeral, func(s *stage) { s.run.Job.RunID = "1001" }, store.Event{Kind: store.EventJobStarted}, func(*stage, *heard) {}},
		{"TheRunIsLearntOnce", busy, store.Ephemeral, func(s *stage) { s.run.Job.RunID = "1001" }, store.Event{Kind: store.EventJobStarted, RunID: "2002"}, func(*stage, *heard) {}},
		{"AUsedUpConfigHasNoSecondJob", idleAgain, store.Shared, nil, store.Event{Kind: store.EventJobStarted, RunID: "2002"}, func(*stage, *heard) {}},
		{"AJobIsDoneOnce", idleAgain, store.Shared, nil, store.Event{Kind: store.EventJobDone}, func(*stage, *heard) {}},
		{"AnotherBootingIsNone", online, store.Shared, nil, store.Event{Kind: store.EventBooting, Detail: "v2"}, func(*stage, *heard) {}},
		{"NoteIsKept", online, store.Shared, nil, store.Event{Kind: store.EventNote, Detail: "EC2 is likely to reclaim the machine"},
			func(s *stage, _ *heard) { noted(&s.run, "agent: EC2 is likely to reclaim the machine") }},
		{"NoteSaysHowManyWereLeftOut", online, store.Shared, func(s *stage) { s.run.LeftOut = 2 }, store.Event{Kind: store.EventNote, Detail: "x", LeftOut: 7}, func(s *stage, _ *heard) {
			s.run.LeftOut = 9
			noted(&s.run, "agent: x (7 before it were left out)")
		}},
		{"NotePastExpIsNone", online, store.Shared, func(s *stage) { s.lock.Exp = now }, store.Event{Kind: store.EventNote, Detail: "x"}, func(*stage, *heard) {}},
		{"NoteOfAReplacedRunnerIsNone", online, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, store.Event{Kind: store.EventNote, Detail: "x"}, func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"NoteOfADrainingRunnerIsNone", busy, store.Shared, func(s *stage) { *s = s.drained(at(19*time.Minute), store.EndExpired) }, store.Event{Kind: store.EventNote, Detail: "x"},
			func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"TheThiefIsLearntAfterTheStart", busy, store.Ephemeral, func(s *stage) { s.run.Job.RunID = "" }, store.Event{Kind: store.EventJobStarted, RunID: "2002"}, func(s *stage, h *heard) {
			s.run.Job, s.run.Stolen = store.Job{RunID: "2002", StartedAt: at(2 * time.Minute)}, "2002"
			noted(&s.run, "job of run 2002, which did not ask for this runner")
			h.alarm = store.AlarmJobStolen
		}},
		{"TheNextJobBeginsAnew", online, store.Shared, func(s *stage) {
			s.run.Job = store.Job{RunID: "900", StartedAt: at(2 * time.Minute), EndedAt: at(3 * time.Minute)}
		}, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "1001", StartedAt: now}
			s.lock.Busy = true
			noted(&s.run, "job of run 1001")
		}},
		{"AJobThatComesIsCountedOnNoMore", online, store.Shared, func(s *stage) { s.lock.CountedOn = now.Add(-time.Minute) }, store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, _ *heard) {
			s.run.State, s.run.Job = store.RunnerBusy, store.Job{RunID: "1001", StartedAt: now}
			s.lock.Busy, s.lock.CountedOn = true, time.Time{}
			noted(&s.run, "job of run 1001")
		}},
		{"JobStartedWhileDrainingIsNoted", online, store.Shared, func(s *stage) {
			*s = s.drained(at(19*time.Minute), store.EndExpired)
			s.run.IdleAt = at(19 * time.Minute)
		},
			store.Event{Kind: store.EventJobStarted, RunID: "1001"}, func(s *stage, h *heard) {
				s.run.Job, s.run.IdleAt = store.Job{RunID: "1001", StartedAt: now}, time.Time{}
				s.lock.Busy = true
				noted(&s.run, "job of run 1001")
				h.order = store.OrderDrain
			}},

		{"JobDoneFreesASharedRunner", busy, store.Shared, nil, store.Event{Kind: store.EventJobDone}, func(s *stage, _ *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names, s.run.State = 1, now, []store.GitHubName{}, store.RunnerOnline
			usedUp(s)
			noted(&s.run, "job done")
		}},
		{"JobDoneIsCountedOnNoMore", busy, store.Shared, func(s *stage) { s.lock.Busy, s.lock.CountedOn = false, at(19*time.Minute) }, store.Event{Kind: store.EventJobDone}, func(s *stage, _ *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names, s.run.State = 1, now, []store.GitHubName{}, store.RunnerOnline
			usedUp(s)
			noted(&s.run, "job done")
		}},
		{"JobThatWasCutLeavesItsRegistration", busy, store.Shared, nil, store.Event{Kind: store.EventJobDone, Detail: "the program died"}, func(s *stage, _ *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.State = 1, now, store.RunnerOnline
			usedUp(s)
			noted(&s.run, "job done: the program died")
		}},
		{"JobDoneEndsAnEphemeralOne", busy, store.Ephemeral, nil, store.Event{Kind: store.EventJobDone}, func(s *stage, h *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names = 1, now, []store.GitHubName{}
			usedUp(s)
			*s = s.drained(now, store.EndDone)
			h.order = store.OrderDrain
		}},
		{"JobDoneWhileDrainingIsNoted", busy, store.Shared, func(s *stage) { *s = s.drained(at(19*time.Minute), store.EndExpired) }, store.Event{Kind: store.EventJobDone}, func(s *stage, h *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names = 1, now, []store.GitHubName{}
			usedUp(s)
			noted(&s.run, "job done")
			h.order = store.OrderDrain
		}},
		{"JobDoneWithoutAJobEndsNothing", online, store.Ephemeral, nil, store.Event{Kind: store.EventJobDone}, func(s *stage, _ *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names = 1, now, []store.GitHubName{}
			usedUp(s)
			noted(&s.run, "job done")
		}},

		{"IdleForTenMinutesDrains", online, store.Shared, func(s *stage) { s.run.OnlineAt = now.Add(-10 * time.Minute) }, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndIdle)
			h.order = store.OrderDrain
		}},
		{"IdleForLessGoesOnByThisLock", online, store.Shared, func(s *stage) {
			s.run.OnlineAt, s.run.ListeningAt = now.Add(-10*time.Minute+1), now.Add(-10*time.Minute+1)
		}, store.Event{Kind: store.EventIdle},
			func(_ *stage, h *heard) { h.checked = store.KindLock }},
		{"IdleCountsFromWhenItListenedFirst", online, store.Shared, func(s *stage) { s.run.OnlineAt, s.run.ListeningAt = now.Add(-9*time.Minute), now.Add(-10*time.Minute) }, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndIdle)
			h.order = store.OrderDrain
		}},
		{"IdleCountsFromNoLaterListening", online, store.Shared, func(s *stage) { s.run.OnlineAt, s.run.ListeningAt = now.Add(-10*time.Minute), now.Add(-time.Minute) }, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndIdle)
			h.order = store.OrderDrain
		}},
		{"IdleCountsFromTheLastJob", online, store.Shared, func(s *stage) { s.run.Job.EndedAt = now.Add(-10*time.Minute + 1) }, store.Event{Kind: store.EventIdle},
			func(_ *stage, h *heard) { h.checked = store.KindLock }},
		{"IdleCountsFromTheLastShare", online, store.Shared, func(s *stage) { s.lock.SharedAt = now.Add(-10*time.Minute - 30*time.Second + 1) }, store.Event{Kind: store.EventIdle},
			func(_ *stage, h *heard) { h.checked = store.KindLock }},
		{"IdleSinceTheLastShareDrains", online, store.Shared, func(s *stage) { s.lock.SharedAt = now.Add(-10*time.Minute - 30*time.Second) }, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndIdle)
			h.order = store.OrderDrain
		}},
		{"BusyIsNeverIdle", busy, store.Shared, nil, store.Event{Kind: store.EventIdle}, func(_ *stage, h *heard) { h.checked = store.KindLock }},
		{"BootingIsNeverIdle", booting, store.Shared, nil, store.Event{Kind: store.EventIdle}, func(_ *stage, h *heard) { h.checked = store.KindLock }},
		{"IdleWhileDrainingIsRecorded", busy, store.Shared, func(s *stage) { *s = s.drained(at(19*time.Minute), store.EndExpired) }, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			s.run.IdleAt = now
			noted(&s.run, "no job runs")
			h.order = store.OrderDrain
		}},
		{"IdleWhileDrainingAsksGitHubAtOnce", busy, store.Shared, func(s *stage) {
			*s = s.drained(at(19*time.Minute), store.EndExpired)
			s.take(s.c().Refused(at(19*time.Minute), lim))
		}, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			s.run.IdleAt, s.run.Refusals, s.run.DeleteAfter = now, 0, time.Time{}
			noted(&s.run, "no job runs")
			h.order = store.OrderDrain
		}},
		{"JobDoneWhileDrainingAsksGitHubAtOnce", busy, store.Shared, func(s *stage) {
			*s = s.drained(at(19*time.Minute), store.EndExpired)
			s.take(s.c().Refused(at(19*time.Minute), lim))
		}, store.Event{Kind: store.EventJobDone}, func(s *stage, h *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names, s.run.Refusals, s.run.DeleteAfter = 1, now, []store.GitHubName{}, 0, time.Time{}
			usedUp(s)
			noted(&s.run, "job done")
			h.order = store.OrderDrain
		}},
		{"IdleWhileDrainingIsRecordedOnce", busy, store.Shared, func(s *stage) {
			*s = s.drained(at(19*time.Minute), store.EndExpired)
			s.run.IdleAt = at(19 * time.Minute)
		}, store.Event{Kind: store.EventIdle}, func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"IdleAfterTheDeletionCounts", busy, store.Shared, func(s *stage) {
			*s = s.drained(at(18*time.Minute), store.EndExpired)
			s.run.IdleAt, s.run.DeregisteredAt = at(18*time.Minute), at(19*time.Minute)
		}, store.Event{Kind: store.EventIdle}, func(s *stage, h *heard) {
			s.run.IdleAt = now
			noted(&s.run, "no job runs")
			h.order = store.OrderDrain
		}},
		{"JobDoneOfAReplacedRunnerSparesTheLock", busy, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, store.Event{Kind: store.EventJobDone}, func(s *stage, h *heard) {
			s.run.Jobs, s.run.Job.EndedAt, s.run.Names, s.run.ListeningAt, s.run.Config.Used, s.run.State = 1, now, []store.GitHubName{}, time.Time{}, true, store.RunnerOnline
			noted(&s.run, "job done")
			h.order = store.OrderDrain
		}},

		{"SpotNoticeDrains", busy, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndSpot}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndSpot)
			h.order = store.OrderDrain
		}},
		{"TooOldBeforeAnyJobIsTheImages", booting, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndTooOld, Detail: "v2.300"}, tooOld(true)},
		{"TooOldWhileListeningIsTheImages", online, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndTooOld, Detail: "v2.300"}, tooOld(true)},
		{"TooOldDuringAJobMayBeTheJobsDoing", busy, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndTooOld, Detail: "v2.300"}, tooOld(false)},
		{"TooOldAfterAJobMayBeTheJobsDoing", online, store.Shared, func(s *stage) {
			s.run.Job = store.Job{StartedAt: at(2 * time.Minute), EndedAt: at(3 * time.Minute)}
		}, store.Event{Kind: store.EventDraining, Reason: store.EndTooOld, Detail: "v2.300"}, tooOld(false)},
		{"TooOldWhileDrainingIsAnAlarmToo", busy, store.Ephemeral, func(s *stage) { *s = s.drained(at(19*time.Minute), store.EndDone) }, store.Event{Kind: store.EventDraining, Reason: store.EndTooOld, Detail: "v2.300"}, func(s *stage, h *heard) {
			noted(&s.run, "runner_too_old: v2.300")
			h.order, h.alarm = store.OrderDrain, store.AlarmRunnerTooOld
		}},
		{"TooOldWhileDrainingIsOneAlarm", busy, store.Ephemeral, func(s *stage) {
			*s = s.drained(at(19*time.Minute), store.EndDone)
			noted(&s.run, "runner_too_old: v2.300")
		}, store.Event{Kind: store.EventDraining, Reason: store.EndTooOld, Detail: "v2.301"}, func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"IdleReasonIsTaken", online, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndIdle}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndIdle)
			h.order = store.OrderDrain
		}},
		{"HardReasonIsTaken", online, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndHard}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndHard)
			h.order = store.OrderDrain
		}},
		{"DoneReasonIsTaken", online, store.Ephemeral, nil, store.Event{Kind: store.EventDraining, Reason: store.EndDone}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndDone)
			h.order = store.OrderDrain
		}},
		{"FailedSetUpIsToldInItsWords", busy, store.Ephemeral, nil, store.Event{Kind: store.EventDraining, Reason: store.EndSetup, Detail: "set-up: script: exit status 3"}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndSetup)
			s.run.End.Text += " set-up: script: exit status 3"
			h.order = store.OrderDrain
		}},
		{"OtherReasonsAreTheAgents", online, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndCompromised}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndAgent)
			h.order = store.OrderDrain
		}},
		{"ARunnerThatServedAJobGaveNothingUp", idleAgain, store.Shared, nil, store.Event{Kind: store.EventDraining, Reason: store.EndSpot}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndSpot)
			h.order = store.OrderDrain
		}},
		{"ARunnerThatDrainsWithoutAJobGaveUpBefore", online, store.Shared, func(s *stage) { *s = s.drained(at(19*time.Minute), store.EndSpot) }, store.Event{Kind: store.EventDraining, Reason: store.EndIdle},
			func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"DrainingOfAReplacedRunnerSparesTheLock", busy, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, store.Event{Kind: store.EventDraining, Reason: store.EndSpot}, func(s *stage, h *heard) {
			*s = s.drained(now, store.EndSpot)
			h.order = store.OrderDrain
		}},
		{"DrainingTwiceKeepsTheFirstReason", busy, store.Shared, func(s *stage) { *s = s.drained(at(19*time.Minute), store.EndSpot) }, store.Event{Kind: store.EventDraining, Reason: store.EndIdle},
			func(_ *stage, h *heard) { h.order = store.OrderDrain }},
		{"UnknownKindsChangeNothing", busy, store.Shared, nil, store.Event{Kind: "dancing"}, func(*stage, *heard) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, c.mode)
			s.pulse = store.Pulse{Key: s.lock.Key}
			if c.edit != nil {
				c.edit(&s)
			}
			c.event.Counter = 50
			want, h := s, heard{order: store.OrderGo}
			c.want(&want, &h)
			if !reflect.DeepEqual(want.run, s.run) { // else it is neither counted nor paid for
				want.run.Counter, want.run.SpentUntil = 50, now.Add(time.Second)
				if c.event.ForPeople() {
					want.run.SpentUntil = now.Add(30 * time.Second)
				}
			}
			d, order := s.c().ApplyEvent(now, lim, c.event, "key-1")
			if order != h.order {
				t.Errorf("the order is %s, want %s", order, h.order)
			}
			want.decides(t, d, outcome{changes: s.commits(want, h.checked), sends: h.sends, alarm: h.alarm})
		})
	}
}

// heard is what an event leads to beside what it makes of the items.
type heard struct {
	order   store.Order
	alarm   store.Alarm
	sends   string
	checked store.Kind // of the item that is checked if it is not written; "": none
}

// A machine that could not be set up would fail again: its request fails at once, with
// the machine's words, and no other machine is launched for it.
func TestFailedSetUpFailsTheRequestInItsWords(t *testing.T) {
	s := launched(t, store.Ephemeral)
	said := store.Event{Kind: store.EventDraining, Reason: store.EndSetup, Detail: "set-up: script: exit status 3; it printed: no space", Counter: 50}
	d, _ := s.c().ApplyEvent(at(4*time.Minute), lim, said, "key-1")
	if d.Request.State != store.Failed || d.Request.Error == nil || d.Request.Error.Code != store.EndSetup || d.Request.Error.Retryable || len(d.Sends) != 0 {
		t.Errorf("request %s with %+v, and %d messages; want it failed for %s, for good", d.Request.State, d.Request.Error, len(d.Sends), store.EndSetup)
	}
	if d.Request.Error != nil && !strings.Contains(d.Request.Error.Text, said.Detail) {
		t.Errorf("error = %q, want the machine's words in it", d.Request.Error.Text)
	}
}

func TestMachineThatGivesUpTellsItsRequest(t *testing.T) {
	now := at(4 * time.Minute)
	gaveUp := store.Event{Kind: store.EventDraining, Reason: store.EndSpot, Counter: 50}
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*stage)
		want  outcome
	}{
		{"BeforeItsConfigTheRequestIsTriedAgain", launched, nil, outcome{changes: "put request, put runner, put lock", sends: "request r1 due 4m30s"}},
		{"WithAConfigItMayHaveALiveRegistration", booting, nil, outcome{changes: "put runner, put lock"}},
		{"OnlineTheRequestMayNotHaveLearntOfIt", online, func(s *stage) { s.req = launching(t, store.Shared).req }, outcome{changes: "put request, put runner, put lock"}},
		{"TheRequestIsNotThere", launched, func(s *stage) { s.req = store.Request{ID: "r1"} }, outcome{changes: "put runner, put lock"}},
		{"AfterAJobNobodyWaitsForIt", idleAgain, func(s *stage) { s.req = launching(t, store.Shared).req }, outcome{changes: "put runner, put lock"}},
		{"DuringAJobNobodyWaitsForIt", busy, func(s *stage) { s.req = launching(t, store.Shared).req }, outcome{changes: "put runner, put lock"}},

		{"WithoutTheRequestItIsNeeded", launched, func(s *stage) { s.req = store.Request{} }, outcome{need: "request#r1"}},
		{"WithoutTheQuotaItIsNeeded", launched, func(s *stage) { s.quota = store.Quota{} }, outcome{need: "quota#123456789012"}},
		{"WithoutBothTheyAreNeeded", launched, func(s *stage) { s.req, s.quota = store.Request{}, store.Quota{} }, outcome{need: "quota#123456789012, request#r1"}},
		{"AfterAJobNeitherIsNeeded", idleAgain, func(s *stage) { s.req, s.quota = store.Request{}, store.Quota{} }, outcome{changes: "put runner, put lock"}},
		{"WhileDrainingNeitherIsNeeded", launched, func(s *stage) {
			*s = s.drained(at(time.Minute), store.EndStopped)
			s.req, s.quota = store.Request{}, store.Quota{}
		}, outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.edit != nil {
				c.edit(&s)
			}
			d, _ := s.c().ApplyEvent(now, lim, gaveUp, "key-1")
			if got := outcomeOf(d); got != c.want {
				t.Errorf("the decision is %+v,\nwant %+v", got, c.want)
			}
			if c.want.need != "" {
				s.decides(t, d, c.want) // nothing is decided yet
			}
		})
	}
}

func TestEventsAreTakenOnce(t *testing.T) {
	s := online(t, store.Ephemeral) // its counter is 1
	for _, kind := range []string{store.EventBooting, store.EventOnline, store.EventJobStarted, store.EventJobDone, store.EventIdle, store.EventDraining} {
		for _, counter := range []int64{0, 1} {
			d, order := s.c().ApplyEvent(at(time.Hour), lim, store.Event{Kind: kind, Counter: counter}, "key-1")
			if order != store.OrderGo {
				t.Errorf("%s that was taken before: the order is %s, want go", kind, order)
			}
			s.decides(t, d, outcome{})
		}
	}
}

func TestNothingIsHeardOfARunnerThatEnds(t *testing.T) {
	now := at(time.Hour)
	ending := busy(t, store.Shared).drained(now, store.EndIdle).ending(now)
	for _, kind := range []string{store.EventBooting, store.EventOnline, store.EventJobStarted, store.EventJobDone, store.EventIdle, store.EventDraining, store.EventHeartbeat} {
		for want, s := range map[store.Order]stage{store.OrderStop: ending, store.OrderGone: ending.ended(now)} {
			d, order := s.c().ApplyEvent(now, lim, store.Event{Kind: kind, Counter: 50}, "key-1")
			if order != want {
				t.Errorf("%s: the order is %s, want %s", kind, order, want)
			}
			s.decides(t, d, outcome{})
		}
	}
}

func TestPulseCountsForItsRunnerAlone(t *testing.T) {
	p := store.Pulse{Runner: "x1", Seen: t0}
	if got := p.SeenOf("x1"); !got.Equal(t0) {
		t.Errorf("SeenOf(x1) = %v, want %v", got, t0)
	}
	if got := p.SeenOf("x2"); !got.IsZero() {
		t.Errorf("SeenOf(x2) = %v, want never", got)
	}
	if got := (store.Pulse{Seen: t0}).SeenOf(""); !got.IsZero() {
		t.Errorf("SeenOf nobody = %v, want never", got)
	}
}
