package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

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

func TestCallHasItsSlot(t *testing.T) {
	now := at(40 * time.Second) // the claim lapsed, or was given back
	const late = time.Minute    // whatever the line is, no call of a launch that is under way waits for it
	waited := func(r *store.Runner) { r.Claim, r.Wait = store.Claim{}, store.WaitPaced }
	for _, c := range []struct {
		name  string
		run   func(*store.Runner)
		room  time.Duration // from when on EC2 has room
		first time.Duration // the first turn of a call that goes first
		turn  time.Duration // after the decision; 40 s: now
		line  store.Line    // afterwards
	}{
		{"AtOnceWhenThereIsRoom", func(*store.Runner) {}, 40 * time.Second, 0, 40 * time.Second, store.Line{End: at(late)}},
		{"AtHandBeforeAllWhoWait", func(*store.Runner) {}, 42 * time.Second, 0, 42 * time.Second, store.Line{End: at(late + 500*time.Millisecond), BehindMS: 500}},
		{"BeforeAllWhoWait", func(*store.Runner) {}, 43 * time.Second, 0, 43 * time.Second, store.Line{End: at(late + 500*time.Millisecond), First: at(43500 * time.Millisecond), BehindMS: 500}},
		{"AfterThoseWhoGoFirstToo", func(*store.Runner) {}, 40 * time.Second, 43 * time.Second, 43 * time.Second, store.Line{End: at(late + 500*time.Millisecond), First: at(43500 * time.Millisecond), BehindMS: 500}},
		{"AtOnceWhenItWaited", waited, 40 * time.Second, 43 * time.Second, 40 * time.Second, store.Line{End: at(late), First: at(43 * time.Second)}},
		{"AtHandWhenItWaited", waited, 42 * time.Second, 43 * time.Second, 42 * time.Second, store.Line{End: at(late), First: at(43 * time.Second)}},
		{"AgainWhenItWaitedInVain", waited, 43 * time.Second, 43 * time.Second, 43 * time.Second, store.Line{End: at(late + 500*time.Millisecond), First: at(43500 * time.Millisecond), BehindMS: 500}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launching(t, store.Shared)
			s.quota.Next = map[string]time.Time{"eu-west-2": at(c.room)}
			s.quota.Lines = map[string]store.Line{"eu-west-2": {End: at(late)}}
			if c.first != 0 {
				s.quota.Lines["eu-west-2"] = store.Line{End: at(late), First: at(c.first)}
			}
			c.run(&s.run)
			d := s.c().Take(now, store.Claim{By: "worker-2", Until: at(70 * time.Second)}, "test", &store.Pacing{})
			if got := told(d.Changes); got != "put runner, put quota" {
				t.Errorf("changes %q, want the runner and the quota put", got)
			}
			same(t, "line", d.Quota.Lines["eu-west-2"], c.line)
			if !store.DefaultLimits().AtHand(now, at(c.turn)) {
				same(t, "wait", d.Wait, store.Wait{For: store.WaitPaced, Until: at(c.turn)})
				same(t, "slot", d.Runner.CalledAt, s.run.CalledAt)
				return
			}
			same(t, "wait", d.Wait, store.Wait{})
			same(t, "slot", d.Runner.CalledAt, at(c.turn))
			same(t, "next slot", d.Quota.Next["eu-west-2"], at(c.room+500*time.Millisecond))
		})
	}
}

func TestAdvance(t *testing.T) {
	now := at(10 * time.Second)
	attempt := store.Attempt{Placement: intent().Plan[0], Runner: "x1", At: now, Code: "InsufficientInstanceCapacity"}
	moved := func(s *stage, index int, to string) {
		s.run.Index, s.run.Unclear = index, false
		s.run.Attempts = []store.Attempt{attempt}
		s.run.History = noted(s.run.History, now, "new", attempt.Code+"; next: "+to)
	}
	const all = "put runner, put lock, put quota"
	for _, c := range []struct {
		name    string
		edit    func(*stage)
		next    int
		changes string
		wait    store.Wait
		want    func(*stage)
	}{
		{"NextPlacementAtOnce", func(*stage) {}, 1, all, store.Wait{}, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+10*time.Second)
		}},
		{"ASkippedPlacement", func(*stage) {}, 2, all, store.Wait{}, func(s *stage) {
			moved(s, 2, "ondemand c7i.large in subnet-a")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+10*time.Second)
		}},
		{"NoSlotYetMovesWithoutOne", func(s *stage) { s.quota.Next = map[string]time.Time{"eu-west-2": at(40 * time.Second)} }, 1, all, store.Wait{For: store.WaitPaced, Until: at(40 * time.Second)}, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.quota.Lines = map[string]store.Line{"eu-west-2": {First: at(40500 * time.Millisecond)}}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+40*time.Second), at(65*time.Minute+40*time.Second)
		}},
		{"ExpStopsAtHard", func(s *stage) { s.lock.Hard = s.lock.Exp.Add(time.Second) }, 1, all, store.Wait{}, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+time.Second)
		}},
		{"ASlowerClockLowersNothing", func(s *stage) { s.lock.BootBy, s.lock.Exp = at(6*time.Minute), at(66*time.Minute) }, 1, "put runner, check lock, put quota", store.Wait{}, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
		}},
		{"UnclearEndsWithTheIndex", func(s *stage) { s.run.Unclear = true }, 1, all, store.Wait{}, func(s *stage) {
			moved(s, 1, "spot c7i.large in subnet-b")
			s.run.CalledAt, s.quota.Next = now, map[string]time.Time{"eu-west-2": at(8500 * time.Millisecond)}
			s.lock.BootBy, s.lock.Exp = at(5*time.Minute+10*time.Second), at(65*time.Minute+10*time.Second)
		}},
		{"AnotherRunnersLockIsLeftAlone", func(s *stage) { s.lock.Runner = "x2" }, 1, "", store.Wait{}, func(*stage) {}},
		{"DrainingLockIsLeftAlone", func(s *stage) { s.lock.State = store.LockDraining }, 1, "", store.Wait{}, func(*stage) {}},
		{"PastBootByNobodyCalls", func(s *stage) { s.lock.BootBy = now }, 1, "", store.Wait{}, func(*stage) {}},
		{"LaunchedMovesNoMore", func(s *stage) { s.run.State, s.run.InstanceID = store.RunnerLaunched, "i-1" }, 1, "", store.Wait{}, func(*stage) {}},
		{"ElsewhereByNow", func(s *stage) { s.run.Index = 1 }, 2, "", store.Wait{}, func(*stage) {}},
		{"PlanIsUsedUp", func(*stage) {}, 3, "", store.Wait{}, func(*stage) {}},
		{"SamePlacementIsNoNext", func(*stage) {}, 0, "", store.Wait{}, func(*stage) {}},
		{"NeverBack", func(s *stage) { s.run.Index = 2 }, 1, "", store.Wait{}, func(*stage) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launching(t, store.Shared)
			c.edit(&s)
			want := s
			d := s.c().Advance(now, lim, 0, c.next, store.Refusal{Code: attempt.Code}, store.Pacing{})
			c.want(&want)
			want.decides(t, d, outcome{changes: c.changes, wait: c.wait})
		})
	}
}

func TestAdvanceTellsWhyAPlacementIsRefused(t *testing.T) {
	now := at(10 * time.Second)
	s := launching(t, store.Shared)
	d := s.c().Advance(now, lim, 0, 1, store.Refusal{Code: "Unsupported", Text: "Not there."}, store.Pacing{})
	same(t, "attempts", d.Runner.Attempts, []store.Attempt{{Placement: s.run.Plan[0], Runner: "x1", At: now, Code: "Unsupported", Text: "Not there."}})
	same(t, "plan", d.Runner.Plan, s.run.Plan)
}

func TestAdvanceTriesAnotherImageInTheSamePlace(t *testing.T) {
	now := at(10 * time.Second)
	s := launching(t, store.Shared)
	no := store.Refusal{Code: "InvalidAMIID.NotFound", Image: "ami-2", Options: store.LaunchOptions{RootDevice: "/dev/sda1"}}
	d := s.c().Advance(now, lim, 0, 1, no, store.Pacing{})
	plan := intent().Plan
	same(t, "plan", d.Runner.Plan, []store.Placement{plan[0], plan[0], plan[1], plan[2]})
	if d.Runner.Index != 1 || d.Runner.Launch.Image != "ami-2" || told(d.Changes) != "put runner, put lock, put quota" {
		t.Errorf("index %d of image %s, changes %q; want 1 of ami-2, all put", d.Runner.Index, d.Runner.Launch.Image, told(d.Changes))
	}
	same(t, "the given plan", s.run.Plan, plan)
	same(t, "options", d.Runner.Launch.Options, no.Options)
	s.take(d)
	s.decides(t, s.c().Advance(now, lim, 0, 1, no, store.Pacing{}), outcome{}) // it was committed, and the answer lost
	s = launching(t, store.Shared)
	s.run.Index = 2
	d = s.c().Advance(now, lim, 2, 3, no, store.Pacing{})
	if d.Runner.Index != 3 || d.Runner.Placement() != plan[2] {
		t.Errorf("index %d of plan %v; want the last placement once more", d.Runner.Index, d.Runner.Plan)
	}
}

func TestLaunched(t *testing.T) {
	now := at(5 * time.Second)
	recorded := func(s *stage) {
		s.run.InstanceID, s.run.LaunchedAt, s.run.Wait, s.run.WaitUntil = "i-1", now, "", time.Time{}
		s.run.Attempts = []store.Attempt{{Placement: s.run.Plan[0], Runner: "x1", At: now, Code: "launched"}}
		if s.run.State == store.RunnerNew {
			s.run.State = store.RunnerLaunched
		}
		s.run.History = noted(s.run.History, now, string(s.run.State), "instance i-1")
	}
	boots := func(instance string) func(*stage) {
		return func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: instance} }
	}
	for _, c := range []struct {
		name     string
		stage    stage
		edit     func(*stage)
		instance string
		ok       bool
		want     func(*stage)
		out      outcome
	}{
		{"NewBecomesLaunched", launching(t, store.Shared), func(s *stage) { s.run.Wait, s.run.WaitUntil = store.WaitEC2, now }, "i-1", true,
			recorded, outcome{changes: "put runner"}},
		{"DrainingKeepsItsStateAndLearnsTheID", launching(t, store.Shared).drained(at(time.Second), store.EndStopped), nil, "i-1", true,
			recorded, outcome{changes: "put runner"}},
		{"TheSameIDAgainChangesNothing", launched(t, store.Shared), nil, "i-1", true, nil, outcome{}},
		{"ASecondIDIsNotTaken", launched(t, store.Shared), nil, "i-2", false, nil, outcome{}},
		{"EndedTakesNone", launching(t, store.Shared).ended(at(time.Second)), nil, "i-1", false, nil, outcome{}},
		{"EndedKnowsItsOwn", launched(t, store.Shared).ended(at(time.Second)), nil, "i-1", true, nil, outcome{}},
		{"ItsMachineBootedBefore", launching(t, store.Shared), boots("i-1"), "i-1", true, recorded, outcome{changes: "put runner"}},
		{"AnotherMachineBootedBefore", launching(t, store.Shared), boots("i-2"), "i-1", true, func(s *stage) {
			recorded(s)
			*s = s.drained(now, store.EndCompromised)
		}, outcome{changes: "put runner, put lock", alarm: store.AlarmCompromised}},
		{"AnotherMachineBootedBeforeItDrained", launching(t, store.Shared).drained(at(time.Second), store.EndStopped), boots("i-2"), "i-1", true,
			recorded, outcome{changes: "put runner", alarm: store.AlarmCompromised}},
		{"AnotherMachineBootedAndALockThatIsNotItsOwnIsSpared", launching(t, store.Shared), func(s *stage) {
			boots("i-2")(s)
			s.lock.Runner = "x2"
		}, "i-1", true, func(s *stage) {
			recorded(s)
			*s = s.drained(now, store.EndCompromised)
		}, outcome{changes: "put runner", alarm: store.AlarmCompromised}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage
			if c.edit != nil {
				c.edit(&s)
			}
			want := s
			if c.want != nil {
				c.want(&want)
			}
			d, ok := s.c().Launched(now, c.instance)
			if ok != c.ok {
				t.Errorf("ok = %v, want %v", ok, c.ok)
			}
			want.decides(t, d, c.out)
		})
	}
}

func TestAbandon(t *testing.T) {
	now := at(10 * time.Second)
	unclear := func(s *stage) { s.run.Unclear = true }
	const failed, drained = "put request, put runner, put lock, put quota", "put request, put runner, put lock"
	for _, c := range []struct {
		name    string
		stage   func(*testing.T, string) stage
		edit    func(*stage)
		code    string
		why     string
		want    store.RunnerState
		lock    store.LockState
		live    int
		changes string
	}{
		{"NewWithoutAMachineFails", launching, nil, "InsufficientInstanceCapacity", store.EndNoCapacity, store.RunnerFailed, store.LockEmpty, 0, failed},
		{"NoCodeIsNoAttempt", launching, nil, "", store.EndNoCapacity, store.RunnerFailed, store.LockEmpty, 0, failed},
		{"AMachineMayExist", launching, unclear, "RequestLimitExceeded", store.EndNoCapacity, store.RunnerDraining, store.LockDraining, 1, drained},
		{"AMachineMayExistThatHasEnded", launching, nil, "x", store.EndTerminated, store.RunnerDraining, store.LockDraining, 1, drained},
		{"AMachineMayExistThatWasReclaimed", launching, nil, "x", store.EndSpot, store.RunnerDraining, store.LockDraining, 1, drained},
		{"AMachineMayExistAfterNoClearAnswer", launching, nil, "x", store.EndNoLaunch, store.RunnerDraining, store.LockDraining, 1, drained},
		{"AConfigWasMinted", launching, func(s *stage) { s.run.Config.N = 1 }, "", store.EndNoCapacity, store.RunnerDraining, store.LockDraining, 1, drained},
		{"LaunchedDrains", launched, func(s *stage) { s.run.InstanceID, s.run.Config = "", store.Config{} }, "", store.EndNoCapacity, store.RunnerDraining, store.LockDraining, 1, drained},
		{"AnotherRunnersLockIsLeftAlone", launching, func(s *stage) { s.lock.Runner = "x2" }, "", store.EndNoCapacity, store.RunnerFailed, store.LockLaunching, 0, "put request, put runner, put quota"},
		{"AnotherRunnersLockIsNotDrained", launching, func(s *stage) { unclear(s); s.lock.Runner = "x2" }, "", store.EndNoCapacity, store.RunnerDraining, store.LockLaunching, 1, "put request, put runner"},
		{"ARequestThatIsNotThereLearnsNothing", launching, func(s *stage) { s.req = store.Request{ID: "r1"} }, "", store.EndNoCapacity, store.RunnerFailed, store.LockEmpty, 0, "put runner, put lock, put quota"},
		{"AnotherRunnersRequestLearnsNothing", launching, func(s *stage) { s.req.Runner = "x2" }, "", store.EndNoCapacity, store.RunnerFailed, store.LockEmpty, 0, "put runner, put lock, put quota"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.edit != nil {
				c.edit(&s)
			}
			why := store.NewEnd(c.why)
			attempts := len(s.run.Attempts)
			d := s.c().Abandon(now, lim, c.code, store.Said{}, why)
			run, l, q := d.Runner, d.Lock, d.Quota
			if run.State != c.want || l.State != c.lock || q.Live != c.live {
				t.Errorf("Abandon = runner %s, lock %s, live %d; want %s, %s, %d", run.State, l.State, q.Live, c.want, c.lock, c.live)
			}
			follows := outcome{changes: c.changes}
			if strings.Contains(c.changes, "put request") {
				follows.sends = "request r1 due 40s"
				same(t, "request", d.Request, s.after(store.Case{Request: s.req, Runner: run}.Settle(now, lim)).req)
			}
			if got := outcomeOf(d); got != follows {
				t.Errorf("the decision is %+v, want %+v", got, follows)
			}
			same(t, "end", run.End, &why)
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
	failedNew := launching(t, store.Shared)
	failedNew.run.State = store.RunnerFailed
	withMachine := launching(t, store.Shared)
	withMachine.run.InstanceID = "i-1"
	for name, s := range map[string]stage{
		"EndedChangesNothing":         launched(t, store.Shared).ended(at(time.Second)),
		"FailedChangesNothing":        failedNew,
		"AMachineExists":              withMachine,
		"DrainingGoesOnDraining":      launching(t, store.Shared).drained(at(time.Second), store.EndStopped),
		"LaunchedInTheMeantimeGoesOn": launched(t, store.Shared),
	} {
		t.Run(name, func(t *testing.T) {
			s.decides(t, s.c().Abandon(now, lim, "x", store.Said{Code: "x"}, store.NewEnd(store.EndNoCapacity)), outcome{})
		})
	}
}

func TestAbandonKeepsWhatEC2SaidLast(t *testing.T) {
	s := launching(t, store.Shared)
	s.run.Said = store.Said{Code: "InternalError", Text: "It broke.", Times: 4}
	d := s.c().Abandon(at(10*time.Second), lim, "InternalError", store.Said{Code: "InternalError", Text: "It broke again."}, store.NewEnd(store.EndNoLaunch))
	same(t, "said", d.Runner.Said, store.Said{Code: "InternalError", Text: "It broke again.", Times: 5})
	if want := "EC2's last answer, 5 times: It broke again. (InternalError)."; !strings.HasSuffix(d.Runner.End.Text, want) {
		t.Errorf("the end is %q, want it to end with %q", d.Runner.End.Text, want)
	}
}

func TestUnregistrableDrainsAndTellsItsRequest(t *testing.T) {
	now := at(10 * time.Second)
	s := launched(t, store.Shared)
	s.run.Claim = store.Claim{By: "worker-1", Until: at(time.Minute)}
	d := s.c().Unregistrable(now, lim, store.Failure{Code: store.EndMintDenied, Text: "GitHub says no."})
	want := s
	want.run.Claim = store.Claim{Until: now}
	why := store.Failure{Code: store.EndMintDenied, Text: "GitHub says no."}
	want.take(want.c().Drain(now, why))
	want.req = ended(s.req, now, store.Failed, store.EndMintDenied, &why)
	want.req.Attempts = s.run.Attempts
	want.decides(t, d, outcome{changes: "put request, put runner, put lock"})
	s = s.drained(now, store.EndStopped)
	s.decides(t, s.c().Unregistrable(now, lim, store.Failure{Code: store.EndMintDenied, Text: "GitHub says no."}), outcome{})
}
