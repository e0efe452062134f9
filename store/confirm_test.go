package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestConfirm(t *testing.T) {
	now := at(20 * time.Minute)
	noted := func(r *store.Runner, reason string) { r.History = noted(r.History, now, string(r.State), reason) }
	missed := func(ago time.Duration) func(*stage) {
		return func(s *stage) { s.run.MissedAt = now.Add(-ago) }
	}
	drains := func(code string) func(*stage) {
		return func(s *stage) { *s = s.drained(now, code) }
	}
	shown, offline, absent := store.Registration{Online: true}, store.Registration{}, store.Registration{Absent: true}
	nothing := func(*stage) {}
	ready := func(s *stage) { s.req = ready(s.req, now, s.run.OnlineAt) }
	for _, c := range []struct {
		name    string
		stage   func(*testing.T, string) stage
		edit    func(*stage)
		seen    store.Registration
		want    func(*stage)
		is      store.Confirmation
		changes string
	}{
		{"TheFirstTimeTakesItIntoUse", listening, nil, shown, func(s *stage) {
			s.run.State, s.run.OnlineAt, s.lock.State, s.lock.ConfirmedAt = store.RunnerOnline, now, store.LockLive, now
			noted(&s.run, "GitHub shows it online")
			ready(s)
		}, store.Confirmed, "put request, put runner, put lock"},
		{"TheFirstTimeAfterItWasMissed", listening, missed(5 * time.Second), shown, func(s *stage) {
			s.run.State, s.run.OnlineAt, s.run.MissedAt, s.lock.State, s.lock.ConfirmedAt = store.RunnerOnline, now, time.Time{}, store.LockLive, now
			noted(&s.run, "GitHub shows it online")
			ready(s)
		}, store.Confirmed, "put request, put runner, put lock"},
		{"ItsListeningByAClockAheadIsConfirmed", listening, func(s *stage) { s.run.ListeningAt = now.Add(time.Second) }, shown, func(s *stage) {
			s.run.State, s.run.OnlineAt, s.lock.State, s.lock.ConfirmedAt = store.RunnerOnline, now, store.LockLive, now.Add(time.Second)
			noted(&s.run, "GitHub shows it online")
			ready(s)
		}, store.Confirmed, "put request, put runner, put lock"},
		{"AgainMovesTheLockAlone", online, nil, shown, func(s *stage) { s.lock.ConfirmedAt = now }, store.Confirmed, "check runner, put lock"},
		{"AgainWhileBusy", busy, nil, shown, func(s *stage) { s.lock.ConfirmedAt = now }, store.Confirmed, "check runner, put lock"},
		{"AgainAfterItWasMissed", online, missed(time.Minute), shown, func(s *stage) { s.lock.ConfirmedAt, s.run.MissedAt = now, time.Time{} }, store.Confirmed, "put runner, put lock"},
		{"AfterAJobProvedIt", func(t *testing.T, mode string) stage {
			s := listening(t, mode)
			s.hear(at(2*time.Minute), store.Event{Kind: store.EventJobStarted, Counter: 2})
			return s
		}, nil, shown, func(s *stage) { s.lock.ConfirmedAt = now; ready(s) }, store.Confirmed, "put request, check runner, put lock"},
		{"RecordsOfTheOldVersion", online, func(s *stage) { s.run.ListeningAt, s.lock.ConfirmedAt = time.Time{}, time.Time{} }, shown, func(s *stage) { s.lock.ConfirmedAt = now }, store.Confirmed, "check runner, put lock"},

		{"AbsentOnceIsMissed", listening, nil, absent, func(s *stage) { s.run.MissedAt = now; noted(&s.run, "GitHub does not have its registration") }, store.Unconfirmed, "put runner, check lock"},
		{"AbsentOnceWhileBusyIsMissed", busy, nil, absent, func(s *stage) { s.run.MissedAt = now; noted(&s.run, "GitHub does not have its registration") }, store.Unconfirmed, "put runner, check lock"},
		{"AbsentTooSoonAfterwards", online, missed(45*time.Second - 1), absent, nothing, store.Unconfirmed, ""},
		{"AbsentTwiceIsLost", online, missed(45 * time.Second), absent, drains(store.EndUnlisted), store.Lost, "put runner, put lock"},
		{"AbsentTwiceBeforeItWasOnlineIsLost", listening, missed(45 * time.Second), absent, drains(store.EndUnlisted), store.Lost, "put runner, put lock"},
		{"OfflineOnceIsMissed", online, nil, offline, func(s *stage) { s.run.MissedAt = now; noted(&s.run, "GitHub shows it offline") }, store.Unconfirmed, "put runner, check lock"},
		{"OfflineForLessThan120s", online, missed(2*time.Minute - 1), offline, nothing, store.Unconfirmed, ""},
		{"OfflineFor120sIsLost", online, missed(2 * time.Minute), offline, drains(store.EndOffline), store.Lost, "put runner, put lock"},
		{"OfflineFor120sWhileBusyIsLost", busy, missed(2 * time.Minute), offline, drains(store.EndOffline), store.Lost, "put runner, put lock"},
		{"OfflineBeforeItWasOnlineWaitsForItsBootLimit", listening, missed(time.Hour), offline, nothing, store.Unconfirmed, ""},

		{"DrainingStaysSo", online, func(s *stage) { *s = s.drained(at(time.Minute), store.EndIdle) }, shown, nothing, store.Unconfirmed, ""},
		{"EndedStaysSo", online, func(s *stage) { *s = s.ended(at(2 * time.Minute)) }, absent, nothing, store.Unconfirmed, ""},
		{"OfAnotherRunnersLock", online, func(s *stage) { s.lock.Runner = "x2" }, shown, nothing, store.Unconfirmed, ""},
		{"WithoutALock", online, func(s *stage) { s.lock = store.Lock{} }, absent, nothing, store.Unconfirmed, ""},
		{"WhoseConfigIsUsedUp", idleAgain, nil, absent, nothing, store.Unconfirmed, ""},
		{"WhoseConfigIsUsedUpAndStillShown", idleAgain, nil, shown, nothing, store.Unconfirmed, ""},
		{"WhoseNextConfigIsWanted", online, func(s *stage) { s.run.Wanted = 2 }, shown, nothing, store.Unconfirmed, ""},
		{"WithoutAConfig", launching, nil, shown, nothing, store.Unconfirmed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			s.req.GiveUpAt = at(time.Hour)
			if c.edit != nil {
				c.edit(&s)
			}
			want := s
			c.want(&want)
			d, verdict := s.c().Confirm(now, lim, c.seen)
			if verdict != c.is {
				t.Errorf("Confirm = %s, want %s", verdict, c.is)
			}
			want.decides(t, d, outcome{changes: c.changes})
		})
	}
}

// ready is a request whose runner was online at a time, once somebody looks.
func ready(r store.Request, now, online time.Time) store.Request {
	r = ended(r, now, store.Ready, "runner online", nil)
	r.ReadyAt = online
	return r
}

func TestConfirmTellsTheLaunchingRequestAlone(t *testing.T) {
	now := at(20 * time.Minute)
	for _, c := range []struct {
		name    string
		edit    func(*stage)
		changes string
	}{
		{"Launcher", func(*stage) {}, "put request, put runner, put lock"},
		{"AnotherRequest", func(s *stage) { s.req.Runner = "x2" }, "put runner, put lock"},
		{"ARequestThatWaitsForNoRunner", func(s *stage) { s.req.State, s.req.Runner = store.Accepted, "" }, "put runner, put lock"},
		{"NoneThatWasRead", func(s *stage) { s.req = store.Request{} }, "put runner, put lock"},
		{"NoneThatExists", func(s *stage) { s.req = store.Request{ID: "r1"} }, "put runner, put lock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := listening(t, store.Shared)
			s.req.GiveUpAt = at(time.Hour)
			c.edit(&s)
			d, _ := s.c().Confirm(now, lim, store.Registration{Online: true})
			if got := told(d.Changes); got != c.changes {
				t.Errorf("changes %q, want %q", got, c.changes)
			}
		})
	}
}

// Whatever GitHub says, or is not asked, a job that came proves enough for the request.
func TestRequestLearnsOfItsRunnerWhateverGitHubSays(t *testing.T) {
	now := at(20 * time.Minute)
	s := listening(t, store.Shared)
	s.hear(at(2*time.Minute), store.Event{Kind: store.EventJobStarted, Counter: 2})
	s.run.MissedAt = now.Add(-time.Second)
	d, verdict := s.c().Confirm(now, lim, store.Registration{})
	if verdict != store.Unconfirmed {
		t.Errorf("Confirm = %s, want unconfirmed", verdict)
	}
	s.req = ready(s.req, now, at(2*time.Minute))
	s.decides(t, d, outcome{changes: "put request"})
}

func TestRegistered(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*store.Runner)
		want  bool
	}{
		{"WithoutAConfig", launching, func(*store.Runner) {}, false},
		{"WithItsFirst", launched, func(*store.Runner) {}, true},
		{"Online", online, func(*store.Runner) {}, true},
		{"Busy", busy, func(*store.Runner) {}, true},
		{"AfterItsJob", idleAgain, func(*store.Runner) {}, false},
		{"AfterAJobThatWasCut", func(t *testing.T, mode string) stage {
			s := busy(t, mode)
			s.hear(at(5*time.Minute), store.Event{Kind: store.EventJobDone, Counter: 3, Detail: "the program died"})
			return s
		}, func(*store.Runner) {}, false},
		{"WantsAnother", online, func(r *store.Runner) { r.Wanted = 2 }, false},
		{"HasAnother", idleAgain, func(r *store.Runner) {
			r.Wanted = 2
			*r = of(*r).SpendName(at(6*time.Minute), 1, "x", "x", "test").Runner
			*r = of(*r).Configure(at(6*time.Minute), 2, "sealed-2", 502, "").Runner
		}, true},
		{"HasOnlyAnOlderName", online, func(r *store.Runner) { r.Config.N, r.Wanted = 2, 2 }, false},
		{"WhoseIDIsNotKnown", online, func(r *store.Runner) { r.Config.RunnerID = 0 }, false},
	} {
		run := c.stage(t, store.Shared).run
		c.edit(&run)
		if got := run.Registered(); got != c.want {
			t.Errorf("%s: Registered = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestConfirmAfterGrowsToAHeartbeat(t *testing.T) {
	run := listening(t, store.Shared).run // since 12:01:10
	for _, c := range []struct{ since, want time.Duration }{
		{-time.Second, 2 * time.Second}, // by a clock that is behind
		{0, 2 * time.Second},
		{4 * time.Second, 2 * time.Second},
		{6 * time.Second, 3 * time.Second},
		{40 * time.Second, 20 * time.Second},
		{time.Hour, 20 * time.Second},
	} {
		now := at(70*time.Second + c.since)
		if got := run.ConfirmAfter(now, lim).Sub(now); got != c.want {
			t.Errorf("%v after it listens, it is asked about in %v, want %v", c.since, got, c.want)
		}
	}
}

func TestListeningRunnerIsConfirmedOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*stage)
		want  store.Step
	}{
		{"BeforeItListens", booting, func(*stage) {}, store.StepNone},
		{"Listening", listening, func(*stage) {}, store.StepConfirm},
		{"Confirmed", online, func(*stage) {}, store.StepNone},
		{"ListeningAfterThat", online, func(s *stage) { s.run.ListeningAt = s.lock.ConfirmedAt.Add(1) }, store.StepConfirm},
		{"AfterItsJob", idleAgain, func(*stage) {}, store.StepNone},
		{"OfTheOldVersion", online, func(s *stage) { s.run.ListeningAt, s.lock.ConfirmedAt = time.Time{}, time.Time{} }, store.StepNone},
		{"OfAnotherRunnersLock", listening, func(s *stage) { s.lock.Runner = "x2" }, store.StepNone},
		{"WantingAnotherConfig", listening, func(s *stage) { s.run.Wanted = 2 }, store.StepMint},
		{"Draining", listening, func(s *stage) { *s = s.drained(at(2*time.Minute), store.EndIdle) }, store.StepNone},
	} {
		s := c.stage(t, store.Shared)
		c.edit(&s)
		if got := store.NextStep(at(2*time.Minute), s.run, s.lock); got != c.want {
			t.Errorf("%s: NextStep = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestANewConfigIsNotConfirmedByTheOldOnesWord(t *testing.T) {
	s := idleAgain(t, store.Shared)
	if !s.lock.ConfirmedAt.IsZero() || !s.run.ListeningAt.IsZero() {
		t.Errorf("after its job, confirmed at %v and listening since %v; want neither", s.lock.ConfirmedAt, s.run.ListeningAt)
	}
	d, verdict := s.c().Next(at(5*time.Minute), lim, 2)
	if verdict != store.NextLater {
		t.Fatalf("Next = %s, want later", verdict)
	}
	s.take(d)
	s.run.MissedAt = at(5 * time.Minute)
	s.take(s.c().Take(at(6*time.Minute), store.Claim{By: "worker-2", Until: at(7 * time.Minute)}, "test", &store.Pacing{}))
	s.take(s.c().Configure(at(6*time.Minute), 2, "sealed-2", 502, ""))
	if s.lock.Confirmed(at(6*time.Minute), lim) || !s.run.ListeningAt.IsZero() || !s.run.MissedAt.IsZero() || s.run.Config.N != 2 {
		t.Errorf("with its next config %d: confirmed %v, listening since %v, missed since %v; want none", s.run.Config.N, s.lock.Confirmed(at(6*time.Minute), lim), s.run.ListeningAt, s.run.MissedAt)
	}
	d = s.hear(at(7*time.Minute), store.Event{Kind: store.EventOnline, Counter: 4})
	if got := outcomeOf(d); got.sends != "runner x1 due 7m0s" {
		t.Errorf("after its program listens, the decision is %+v; want GitHub asked", got)
	}
	if verdict := s.confirm(at(8*time.Minute), store.Registration{Online: true}); verdict != store.Confirmed || !s.lock.Confirmed(at(10*time.Minute), lim) || !s.run.OnlineAt.Equal(at(70*time.Second)) {
		t.Errorf("Confirm = %s, confirmed at %v, online at %v; want confirmed, and online as before", verdict, s.lock.ConfirmedAt, s.run.OnlineAt)
	}
}
