package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBootCall(t *testing.T) {
	now := at(2 * time.Minute)
	bound := func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: "i-1"} }
	answered := func(s *stage) {
		s.run.Boot.At, s.run.State = now, store.RunnerBooting
		s.run.History = append(slices.Clone(s.run.History), store.Entry{At: now, State: "booting", Reason: "config answered to i-1"})
	}
	for _, c := range []struct {
		name         string
		stage        func(*testing.T, string) stage
		edit         func(*stage)
		now          time.Time
		nonce        string
		instance     string
		want         store.BootVerdict
		runner, lock bool
		after        func(*stage) // what is written, where it is not a compromise
	}{
		{"FirstCallGetsTheConfig", launched, nil, now, "hash-1", "i-1", store.BootGo, true, false, func(s *stage) { bound(s); answered(s) }},
		{"BoundEarlierGetsTheConfig", launched, bound, now, "hash-1", "i-1", store.BootGo, true, false, answered},
		{"LostAnswerIsGivenAgain", booting, nil, now, "hash-1", "i-1", store.BootGo, false, false, nil},
		{"JustBeforeBootBy", launched, nil, at(5*time.Minute - 1), "hash-1", "i-1", store.BootGo, true, false, func(s *stage) {
			bound(s)
			s.run.Boot.At, s.run.State = at(5*time.Minute-1), store.RunnerBooting
			s.run.History = append(slices.Clone(s.run.History), store.Entry{At: at(5*time.Minute - 1), State: "booting", Reason: "config answered to i-1"})
		}},

		{"NoInstanceYet", launching, nil, now, "hash-1", "i-1", store.BootLater, true, false, bound},
		{"NoInstanceYetAskedAgain", launching, bound, now, "hash-1", "i-1", store.BootLater, false, false, nil},
		{"NoInstanceYetThoughAConfig", launched, func(s *stage) { s.run.InstanceID = "" }, now, "hash-1", "i-1", store.BootLater, true, false, bound},
		{"NoConfigYet", launched, func(s *stage) { s.run.Config = store.Config{} }, now, "hash-1", "i-1", store.BootLater, true, false, bound},

		{"AtBootBy", launched, nil, at(5 * time.Minute), "hash-1", "i-1", store.BootGone, false, false, nil},
		{"AtBootByEvenForTheSameMachine", booting, nil, at(5 * time.Minute), "hash-1", "i-1", store.BootGone, false, false, nil},
		{"ReplacedRunner", launched, func(s *stage) { s.lock.Runner = "x2" }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"EmptyLock", launched, func(s *stage) { s.lock.State = store.LockEmpty }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"DrainingLock", launched, func(s *stage) { s.lock.State = store.LockDraining }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"LiveLock", launched, func(s *stage) { s.lock.State = store.LockLive }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"OnlineAlready", online, func(s *stage) { s.lock.State = store.LockLaunching }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"BusyAlready", busy, func(s *stage) { s.lock.State = store.LockLaunching }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"Draining", launched, func(s *stage) { *s = s.drained(now, store.EndStopped) }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"DrainingForAThiefToo", booting, func(s *stage) { *s = s.drained(now, store.EndStopped) }, now, "hash-2", "i-2", store.BootGone, false, false, nil},
		{"Ended", launched, func(s *stage) { *s = s.ended(now) }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"Failed", launching, func(s *stage) { s.run.State = store.RunnerFailed }, now, "hash-1", "i-1", store.BootGone, false, false, nil},
		{"Absent", launched, func(s *stage) { s.run.Version = 0 }, now, "hash-1", "i-1", store.BootGone, false, false, nil},

		{"SecondNonceEndsTheMachine", booting, nil, now, "hash-2", "i-1", store.BootCompromised, true, true, nil},
		{"SecondNonceBeforeTheConfig", launching, bound, now, "hash-2", "i-1", store.BootCompromised, true, true, nil},
		{"SecondNonceWhileBusy", busy, nil, now, "hash-2", "i-1", store.BootCompromised, true, true, nil},
		{"SecondNonceAfterBootBy", booting, nil, at(6 * time.Minute), "hash-2", "i-1", store.BootCompromised, true, true, nil},
		{"SecondNonceOfAReplacedRunner", booting, func(s *stage) { s.lock.Runner = "x2" }, now, "hash-2", "i-1", store.BootCompromised, true, false, nil},
		{"SameNonceOfAnotherMachine", booting, nil, now, "hash-1", "i-2", store.BootCompromised, true, true, nil},
		{"AnotherMachineThanEC2Answered", launched, nil, now, "hash-1", "i-2", store.BootCompromised, true, true, nil},
		{"AMachineThatNamesNoInstance", launched, nil, now, "hash-1", "", store.BootCompromised, true, true, nil},
		{"BoundToAnotherMachineThanEC2Answered", launched, func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: "i-2"} }, now, "hash-1", "i-2", store.BootCompromised, true, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.edit != nil {
				c.edit(&s)
			}
			run, l, verdict, runner, lock := store.BootCall(c.now, s.run, s.lock, c.nonce, c.instance)
			if verdict != c.want || runner != c.runner || lock != c.lock {
				t.Errorf("BootCall = %s, writes runner %v, lock %v; want %s, %v, %v", verdict, runner, lock, c.want, c.runner, c.lock)
			}
			want := s
			switch {
			case c.want == store.BootCompromised:
				if want.run.Boot.NonceHash == "" {
					want.run.Boot.NonceHash, want.run.Boot.InstanceID = c.nonce, c.instance
				}
				want = want.drained(c.now, store.EndCompromised)
			case c.after != nil:
				c.after(&want)
			}
			if runner {
				same(t, "runner", run, want.run)
			}
			same(t, "lock", l, want.lock)
		})
	}
}

func TestMismatched(t *testing.T) {
	for _, c := range []struct {
		name, nonce, claimed, answered string
		want                           bool
	}{
		{"SameMachine", "hash-1", "i-1", "i-1", false},
		{"AnotherMachine", "hash-1", "i-2", "i-1", true},
		{"AMachineThatNamedNoInstance", "hash-1", "", "i-1", true},
		{"EC2HasNotAnswered", "hash-1", "i-2", "", false},
		{"NobodyHasBooted", "", "", "i-1", false},
	} {
		run := store.Runner{InstanceID: c.answered, Boot: store.Boot{NonceHash: c.nonce, InstanceID: c.claimed}}
		if got := run.Mismatched(); got != c.want {
			t.Errorf("%s: Mismatched = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestNextCall(t *testing.T) {
	now := at(10 * time.Minute)
	for _, c := range []struct {
		name                   string
		stage                  func(*testing.T, string) stage
		mode                   string
		edit                   func(*stage)
		n                      int
		ready, wanted, changed bool
	}{
		{"AsksForTheNext", online, store.Shared, nil, 2, false, true, true},
		{"IsBusyAndCountedOnNoMore", online, store.Shared, func(s *stage) { s.lock.Busy, s.lock.CountedOn = true, now }, 2, false, true, true},
		{"AsksForOneTooFar", online, store.Shared, nil, 3, false, false, false},
		{"AsksAgain", online, store.Shared, func(s *stage) { s.run.Wanted = 2 }, 2, false, true, false},
		{"ALaterOneIsOnItsWay", online, store.Shared, func(s *stage) { s.run.Wanted = 3 }, 2, false, true, false},
		{"IsThere", online, store.Shared, func(s *stage) { s.run.Config.N = 2 }, 2, true, false, false},
		{"ALaterOneIsThere", online, store.Shared, func(s *stage) { s.run.Config.N = 3 }, 2, true, false, false},
		{"EphemeralHasOneJob", online, store.Ephemeral, nil, 2, false, false, false},
		{"BootingHasItsFirst", booting, store.Shared, func(s *stage) { s.lock.State = store.LockLive }, 2, false, false, false},
		{"BusyHasAJob", busy, store.Shared, nil, 2, false, false, false},
		{"Draining", online, store.Shared, func(s *stage) { *s = s.drained(now, store.EndIdle); s.lock.State = store.LockLive }, 2, false, false, false},
		{"Replaced", online, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, 2, false, false, false},
		{"LockIsNotLive", online, store.Shared, func(s *stage) { s.lock.State = store.LockDraining }, 2, false, false, false},
		{"JustBeforeExp", online, store.Shared, func(s *stage) { s.lock.Exp = now.Add(1) }, 2, false, true, true},
		{"PastExpJobsMayBeQueued", online, store.Shared, func(s *stage) { s.lock.Exp = at(2 * time.Minute) }, 2, false, true, true},
		{"PastExpItIsThere", online, store.Shared, func(s *stage) { s.lock.Exp, s.run.Config.N = at(2*time.Minute), 2 }, 2, true, false, false},
		{"JustBeforeHard", online, store.Shared, func(s *stage) { s.lock.Exp, s.run.Hard = at(2*time.Minute), now.Add(1) }, 2, false, true, true},
		{"AtHard", online, store.Shared, func(s *stage) { s.run.Hard = now }, 2, false, false, false},
		{"AtHardEvenIfItIsThere", online, store.Shared, func(s *stage) { s.run.Hard, s.run.Config.N = now, 2 }, 2, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, c.mode)
			if c.edit != nil {
				c.edit(&s)
			}
			got, lock, ready, wanted, changed := store.NextCall(now, s.run, s.lock, c.n)
			if ready != c.ready || wanted != c.wanted || changed != c.changed {
				t.Errorf("NextCall = ready %v, wanted %v, changed %v; want %v, %v, %v", ready, wanted, changed, c.ready, c.wanted, c.changed)
			}
			want, wantLock := s.run, s.lock
			if c.changed { // and no job can come by the config that it had
				want.Wanted, want.ListeningAt, want.Config.Used, wantLock.ConfirmedAt = c.n, time.Time{}, true, time.Time{}
				wantLock.Busy, wantLock.CountedOn = false, time.Time{}
				want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "online", Reason: "asks for config 2"})
			}
			same(t, "runner", got, want)
			same(t, "lock", lock, wantLock)
		})
	}
}
