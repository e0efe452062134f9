package store_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBoot(t *testing.T) {
	now := at(2 * time.Minute)
	bound := func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: "i-1"} }
	answered := func(s *stage) {
		s.run.Boot.At, s.run.State = now, store.RunnerBooting
		s.run.History = append(slices.Clone(s.run.History), store.Entry{At: now, State: "booting", Reason: "config answered to i-1"})
	}
	for _, c := range []struct {
		name     string
		stage    func(*testing.T, string) stage
		edit     func(*stage)
		now      time.Time
		nonce    string
		instance string
		want     store.BootAnswer
		changes  string
		after    func(*stage) // what is written, where it is not a compromise
	}{
		{"FirstCallGetsTheConfig", launched, nil, now, "hash-1", "i-1", store.BootGo, "put runner, check lock", func(s *stage) { bound(s); answered(s) }},
		{"BoundEarlierGetsTheConfig", launched, bound, now, "hash-1", "i-1", store.BootGo, "put runner, check lock", answered},
		{"LostAnswerIsGivenAgain", booting, nil, now, "hash-1", "i-1", store.BootGo, "check lock", nil},
		{"JustBeforeBootBy", launched, nil, at(5*time.Minute - 1), "hash-1", "i-1", store.BootGo, "put runner, check lock", func(s *stage) {
			bound(s)
			s.run.Boot.At, s.run.State = at(5*time.Minute-1), store.RunnerBooting
			s.run.History = append(slices.Clone(s.run.History), store.Entry{At: at(5*time.Minute - 1), State: "booting", Reason: "config answered to i-1"})
		}},

		{"NoInstanceYet", launching, nil, now, "hash-1", "i-1", store.BootLater, "put runner", bound},
		{"NoInstanceYetAskedAgain", launching, bound, now, "hash-1", "i-1", store.BootLater, "", nil},
		{"NoInstanceYetThoughAConfig", launched, func(s *stage) { s.run.InstanceID = "" }, now, "hash-1", "i-1", store.BootLater, "put runner", bound},
		{"NoConfigYet", launched, func(s *stage) { s.run.Config = store.Config{} }, now, "hash-1", "i-1", store.BootLater, "put runner, put lock", func(s *stage) {
			bound(s)
			s.lock.BootBy, s.lock.Exp = at(12*time.Minute), at(72*time.Minute)
		}},
		{"NoConfigYetAndLittleTimeLeft", launched, func(s *stage) { s.run.Config, s.lock.Hard = store.Config{}, at(9*time.Minute) }, now, "hash-1", "i-1", store.BootLater, "put runner, put lock", func(s *stage) {
			bound(s)
			s.lock.BootBy, s.lock.Exp = at(9*time.Minute), at(9*time.Minute)
		}},
		{"NoConfigYetAskedAgain", launched, func(s *stage) { bound(s); s.run.Config = store.Config{} }, now, "hash-1", "i-1", store.BootLater, "", nil},
		{"NoConfigYetTooLate", launched, func(s *stage) { s.run.Config = store.Config{} }, at(5 * time.Minute), "hash-1", "i-1", store.BootGone, "", nil},

		{"AtBootBy", launched, nil, at(5 * time.Minute), "hash-1", "i-1", store.BootGone, "", nil},
		{"AtBootByEvenForTheSameMachine", booting, nil, at(5 * time.Minute), "hash-1", "i-1", store.BootGone, "", nil},
		{"ReplacedRunner", launched, func(s *stage) { s.lock.Runner = "x2" }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"EmptyLock", launched, func(s *stage) { s.lock.State = store.LockEmpty }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"DrainingLock", launched, func(s *stage) { s.lock.State = store.LockDraining }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"LiveLock", launched, func(s *stage) { s.lock.State = store.LockLive }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"OnlineAlready", online, func(s *stage) { s.lock.State = store.LockLaunching }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"BusyAlready", busy, func(s *stage) { s.lock.State = store.LockLaunching }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"Draining", launched, func(s *stage) { *s = s.drained(now, store.EndStopped) }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"DrainingForAThiefToo", booting, func(s *stage) { *s = s.drained(now, store.EndStopped) }, now, "hash-2", "i-2", store.BootGone, "", nil},
		{"Ended", launched, func(s *stage) { *s = s.ended(now) }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"Failed", launching, func(s *stage) { s.run.State = store.RunnerFailed }, now, "hash-1", "i-1", store.BootGone, "", nil},
		{"Absent", launched, func(s *stage) { s.run.Version = 0 }, now, "hash-1", "i-1", store.BootGone, "", nil},

		{"SecondNonceEndsTheMachine", booting, nil, now, "hash-2", "i-1", store.BootCompromised, "put runner, put lock", nil},
		{"SecondNonceBeforeTheConfig", launching, bound, now, "hash-2", "i-1", store.BootCompromised, "put runner, put lock", nil},
		{"SecondNonceWhileBusy", busy, nil, now, "hash-2", "i-1", store.BootCompromised, "put runner, put lock", nil},
		{"SecondNonceAfterBootBy", booting, nil, at(6 * time.Minute), "hash-2", "i-1", store.BootCompromised, "put runner, put lock", nil},
		{"SecondNonceOfAReplacedRunner", booting, func(s *stage) { s.lock.Runner = "x2" }, now, "hash-2", "i-1", store.BootCompromised, "put runner", nil},
		{"SameNonceOfAnotherMachine", booting, nil, now, "hash-1", "i-2", store.BootCompromised, "put runner, put lock", nil},
		{"AnotherMachineThanEC2Answered", launched, nil, now, "hash-1", "i-2", store.BootCompromised, "put runner, put lock", nil},
		{"AMachineThatNamesNoInstance", launched, nil, now, "hash-1", "", store.BootCompromised, "put runner, put lock", nil},
		{"BoundToAnotherMachineThanEC2Answered", launched, func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: "i-2"} }, now, "hash-1", "i-2", store.BootCompromised, "put runner, put lock", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.edit != nil {
				c.edit(&s)
			}
			d, verdict := s.c().Boot(c.now, lim, c.nonce, c.instance)
			if verdict != c.want {
				t.Errorf("Boot = %s, want %s", verdict, c.want)
			}
			want, follows := s, outcome{changes: c.changes}
			switch {
			case c.want == store.BootCompromised:
				if want.run.Boot.NonceHash == "" {
					want.run.Boot.NonceHash, want.run.Boot.InstanceID = c.nonce, c.instance
				}
				want, follows.alarm = want.drained(c.now, store.EndCompromised), store.AlarmCompromised
			case c.after != nil:
				c.after(&want)
			}
			want.decides(t, d, follows)
		})
	}
}

// A launch that is vouched binds nobody before EC2's answer is recorded, and hears of no
// other machine than that one.
func TestBootOfAVouchedLaunch(t *testing.T) {
	now := at(2 * time.Minute)
	bound := func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: "i-1"} }
	for _, c := range []struct {
		name     string
		stage    func(*testing.T, string) stage
		edit     func(*stage)
		nonce    string
		instance string
		want     store.BootAnswer
		changes  string
		alarm    store.Alarm
	}{
		{"FirstCallGetsTheConfig", launched, nil, "hash-1", "i-1", store.BootGo, "put runner, check lock", ""},
		{"LostAnswerIsGivenAgain", booting, nil, "hash-1", "i-1", store.BootGo, "check lock", ""},
		{"NoConfigYetIsBound", launched, func(s *stage) { s.run.Config = store.Config{} }, "hash-1", "i-1", store.BootLater, "put runner, put lock", ""},
		{"NoInstanceYetIsNotBound", launching, nil, "hash-1", "i-1", store.BootLater, "", ""},
		{"AnotherInstance", launched, nil, "hash-1", "i-2", store.BootForeign, "", store.AlarmIdentity},
		{"AnotherInstanceOfABoundRunner", launched, bound, "hash-2", "i-2", store.BootForeign, "", store.AlarmIdentity},
		{"AnotherInstanceOfABusyRunner", busy, nil, "hash-2", "i-2", store.BootForeign, "", store.AlarmIdentity},
		{"AnotherInstanceWithTheNonce", booting, nil, "hash-1", "i-2", store.BootForeign, "", store.AlarmIdentity},
		{"NoInstanceNamed", launched, nil, "hash-1", "", store.BootForeign, "", store.AlarmIdentity},
		{"SecondNonceEndsTheMachine", booting, nil, "hash-2", "i-1", store.BootCompromised, "put runner, put lock", store.AlarmCompromised},
		{"Draining", launched, func(s *stage) { *s = s.drained(now, store.EndStopped) }, "hash-1", "i-2", store.BootGone, "", ""},
		{"ReplacedRunner", launched, func(s *stage) { s.lock.Runner = "x2" }, "hash-1", "i-1", store.BootGone, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			s.run.Launch.Vouched = true
			if c.edit != nil {
				c.edit(&s)
			}
			d, verdict := s.c().Boot(now, lim, c.nonce, c.instance)
			if verdict != c.want {
				t.Errorf("Boot = %s, want %s", verdict, c.want)
			}
			if got, want := outcomeOf(d), (outcome{changes: c.changes, alarm: c.alarm}); got != want {
				t.Errorf("the decision is %+v, want %+v", got, want)
			}
			if c.changes == "" && d.Runner.Boot != s.run.Boot {
				t.Errorf("boot = %+v, want it as it was: %+v", d.Runner.Boot, s.run.Boot)
			}
		})
	}
}

func TestRunnerOfTheVersionBeforeIsNotVouched(t *testing.T) {
	const before = `{"id":"x1","state":"launched","launch":{"image":"ami-1","security_groups":["sg-1"],"tags":{},"script":2,"api_url":"https://garo.test","agent_sha256":{},"hard_s":3600,"key_id":"k1"}}`
	var r store.Runner
	if err := json.Unmarshal([]byte(before), &r); err != nil || r.Launch.Vouched {
		t.Errorf("launch = %+v, %v; want it not vouched", r.Launch, err)
	}
	r.Launch.Vouched = true
	b, err := json.Marshal(r.Launch)
	if err != nil {
		t.Fatal(err)
	}
	var old struct { // what the version before reads of a launch: it passes over what it does not know
		KeyID string `json:"key_id"`
	}
	if err := json.Unmarshal(b, &old); err != nil || old.KeyID != "k1" || !strings.Contains(string(b), `"vouched":true`) {
		t.Errorf("launch is written as %s, %v", b, err)
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

func TestNext(t *testing.T) {
	now := at(10 * time.Minute)
	for _, c := range []struct {
		name    string
		stage   func(*testing.T, string) stage
		mode    string
		edit    func(*stage)
		n       int
		want    store.NextAnswer
		changed bool // the next config is wanted from now on
	}{
		{"AsksForTheNext", online, store.Shared, nil, 2, store.NextLater, true},
		{"IsBusyAndCountedOnNoMore", online, store.Shared, func(s *stage) { s.lock.Busy, s.lock.CountedOn = true, now }, 2, store.NextLater, true},
		{"AsksForOneTooFar", online, store.Shared, nil, 3, store.NextDrain, false},
		{"AsksAgain", online, store.Shared, func(s *stage) { s.run.Wanted = 2 }, 2, store.NextLater, false},
		{"ALaterOneIsOnItsWay", online, store.Shared, func(s *stage) { s.run.Wanted = 3 }, 2, store.NextLater, false},
		{"IsThere", online, store.Shared, func(s *stage) { s.run.Config.N = 2 }, 2, store.NextReady, false},
		{"ALaterOneIsThere", online, store.Shared, func(s *stage) { s.run.Config.N = 3 }, 2, store.NextReady, false},
		{"EphemeralHasOneJob", online, store.Ephemeral, nil, 2, store.NextDrain, false},
		{"BootingHasItsFirst", booting, store.Shared, func(s *stage) { s.lock.State = store.LockLive }, 2, store.NextDrain, false},
		{"BusyHasAJob", busy, store.Shared, nil, 2, store.NextDrain, false},
		{"Draining", online, store.Shared, func(s *stage) { *s = s.drained(now, store.EndIdle); s.lock.State = store.LockLive }, 2, store.NextDrain, false},
		{"Replaced", online, store.Shared, func(s *stage) { s.lock.Runner = "x2" }, 2, store.NextDrain, false},
		{"LockIsNotLive", online, store.Shared, func(s *stage) { s.lock.State = store.LockDraining }, 2, store.NextDrain, false},
		{"JustBeforeExp", online, store.Shared, func(s *stage) { s.lock.Exp = now.Add(1) }, 2, store.NextLater, true},
		{"PastExpJobsMayBeQueued", online, store.Shared, func(s *stage) { s.lock.Exp = at(2 * time.Minute) }, 2, store.NextLater, true},
		{"PastExpItIsThere", online, store.Shared, func(s *stage) { s.lock.Exp, s.run.Config.N = at(2*time.Minute), 2 }, 2, store.NextReady, false},
		{"JustBeforeHard", online, store.Shared, func(s *stage) { s.lock.Exp, s.run.Hard = at(2*time.Minute), now.Add(1) }, 2, store.NextLater, true},
		{"AtHard", online, store.Shared, func(s *stage) { s.run.Hard = now }, 2, store.NextDrain, false},
		{"AtHardEvenIfItIsThere", online, store.Shared, func(s *stage) { s.run.Hard, s.run.Config.N = now, 2 }, 2, store.NextDrain, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, c.mode)
			if c.edit != nil {
				c.edit(&s)
			}
			s.run.UpdatedAt = now.Add(-time.Second) // so that no message is sent again
			d, verdict := s.c().Next(now, lim, c.n)
			if verdict != c.want {
				t.Errorf("Next = %s, want %s", verdict, c.want)
			}
			want, follows := s, outcome{}
			if c.changed { // and no job can come by the config that it had
				want.run.Wanted, want.run.ListeningAt, want.run.Config.Used, want.lock.ConfirmedAt = c.n, time.Time{}, true, time.Time{}
				want.lock.Busy, want.lock.CountedOn = false, time.Time{}
				want.run.History = noted(want.run.History, now, "online", "asks for config 2")
				want.run.SpentUntil = now.Add(4 * time.Second)
				follows = outcome{changes: "put runner, put lock", sends: "runner x1 due 10m0s"}
			}
			want.decides(t, d, follows)
		})
	}
}

func TestNextChecksALockThatItLeavesAsItIs(t *testing.T) {
	s := online(t, store.Shared)
	s.lock.ConfirmedAt = time.Time{}
	d, verdict := s.c().Next(at(10*time.Minute), lim, 2)
	if got := told(d.Changes); verdict != store.NextLater || got != "put runner, check lock" {
		t.Errorf("Next = %s and changes %q; want later, and the lock checked", verdict, got)
	}
}

// A message to the worker may be lost: a machine that asks again has it sent again.
func TestNextThatIsAskedAgainIsSentAgain(t *testing.T) {
	now := at(10 * time.Minute)
	for _, c := range []struct {
		name string
		edit func(*store.Runner)
		want bool
	}{
		{"HalfAHeartbeatAfterTheLastWrite", func(*store.Runner) {}, true},
		{"Sooner", func(r *store.Runner) { r.UpdatedAt = now.Add(-lim.Heartbeat/2 + 1) }, false},
		{"WhileAWorkerIsAtIt", func(r *store.Runner) { r.Claim = store.Claim{By: "worker-1", Until: now.Add(1)} }, false},
		{"AfterTheWorkersClaimLapsed", func(r *store.Runner) { r.Claim = store.Claim{By: "worker-1", Until: now} }, true},
		{"WhileItWaits", func(r *store.Runner) { r.WaitUntil = now.Add(1) }, false},
		{"AfterItWaited", func(r *store.Runner) { r.WaitUntil = now }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := online(t, store.Shared)
			s.run.Wanted, s.run.UpdatedAt = 2, now.Add(-lim.Heartbeat/2)
			c.edit(&s.run)
			d, verdict := s.c().Next(now, lim, 2)
			if verdict != store.NextLater {
				t.Errorf("Next = %s, want later", verdict)
			}
			want := outcome{}
			if c.want { // and it is written, so that it happens twice in a heartbeat at most
				s.run.AskedAt = now
				want = outcome{changes: "put runner", sends: "runner x1 due 10m0s"}
			}
			s.decides(t, d, want)
		})
	}
}
