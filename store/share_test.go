package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestShareable(t *testing.T) {
	now := at(2 * time.Hour)
	for _, c := range []struct {
		name string
		edit func(*store.Request, *store.Lock, *store.Pulse)
		want bool
	}{
		{"LiveAndHeardOf", func(*store.Request, *store.Lock, *store.Pulse) {}, true},
		{"AtGiveUp", func(r *store.Request, _ *store.Lock, _ *store.Pulse) { r.GiveUpAt = now }, true},
		{"PastGiveUp", func(r *store.Request, _ *store.Lock, _ *store.Pulse) { r.GiveUpAt = now.Add(-1) }, false},
		{"EphemeralNeverShares", func(r *store.Request, _ *store.Lock, _ *store.Pulse) { r.Mode = store.Ephemeral }, false},
		{"ExpAtTheMargin", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.Exp = now.Add(45 * time.Second) }, true},
		{"ExpWithinTheMargin", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.Exp = now.Add(45*time.Second - 1) }, false},
		{"ExpPassed", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.Exp = now }, false},
		{"HardLeavesTheTimeout", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.Hard = now.Add(time.Hour) }, true},
		{"HardCutsTheTimeout", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.Hard = now.Add(time.Hour - 1) }, false},
		{"LongerTimeoutDoesNotFit", func(r *store.Request, _ *store.Lock, _ *store.Pulse) { r.TimeoutS = 4*3600 + 1 }, false},
		{"LongTimeoutFits", func(r *store.Request, _ *store.Lock, _ *store.Pulse) { r.TimeoutS = 4 * 3600 }, true},
		{"HeardOf45sAgo", func(_ *store.Request, _ *store.Lock, p *store.Pulse) { p.Seen = now.Add(-45 * time.Second) }, true},
		{"SilentFor45s", func(_ *store.Request, _ *store.Lock, p *store.Pulse) { p.Seen = now.Add(-45*time.Second - 1) }, false},
		{"CountedOnFor10mWithoutAJob", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.CountedOn = now.Add(-10 * time.Minute) }, true},
		{"CountedOnForLongerWithoutAJob", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.CountedOn = now.Add(-10*time.Minute - 1) }, false},
		{"BusyForLonger", func(_ *store.Request, l *store.Lock, _ *store.Pulse) {
			l.Busy, l.CountedOn = true, now.Add(-10*time.Minute-1)
		}, true},
		{"PulseOfAnotherRunner", func(_ *store.Request, _ *store.Lock, p *store.Pulse) { p.Runner = "x0" }, false},
		{"NeverHeardOf", func(_ *store.Request, _ *store.Lock, p *store.Pulse) { *p = store.Pulse{} }, false},
		{"LaunchingBeforeBootBy", func(_ *store.Request, l *store.Lock, p *store.Pulse) {
			l.State, l.BootBy, *p = store.LockLaunching, now.Add(1), store.Pulse{}
		}, true},
		{"LaunchingAtBootBy", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.State, l.BootBy = store.LockLaunching, now }, false},
		{"LaunchingPastBootBy", func(_ *store.Request, l *store.Lock, _ *store.Pulse) {
			l.State, l.BootBy = store.LockLaunching, now.Add(-1)
		}, false},
		{"LaunchingWithHardRightAfterTheTimeout", func(_ *store.Request, l *store.Lock, _ *store.Pulse) {
			l.State, l.BootBy, l.Hard = store.LockLaunching, now.Add(time.Minute), now.Add(time.Minute+time.Hour)
		}, true},
		{"LaunchingUntilHardCutsTheTimeout", func(_ *store.Request, l *store.Lock, _ *store.Pulse) {
			l.State, l.BootBy, l.Hard = store.LockLaunching, now.Add(time.Minute), now.Add(time.Minute+time.Hour-1)
		}, false},
		{"LaunchingWithinTheMargin", func(_ *store.Request, l *store.Lock, _ *store.Pulse) {
			l.State, l.BootBy, l.Exp = store.LockLaunching, now.Add(time.Minute), now.Add(44*time.Second)
		}, false},
		{"LaunchingForTooShort", func(_ *store.Request, l *store.Lock, _ *store.Pulse) {
			l.State, l.BootBy, l.Hard = store.LockLaunching, now.Add(time.Minute), now.Add(time.Hour-1)
		}, false},
		{"Draining", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.State = store.LockDraining }, false},
		{"Empty", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { l.State = store.LockEmpty }, false},
		{"NeverWritten", func(_ *store.Request, l *store.Lock, _ *store.Pulse) { *l = store.Lock{} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := accepted("r2", store.Shared)
			r.GiveUpAt = now.Add(time.Minute)
			l := store.Lock{Key: "k", State: store.LockLive, Runner: "x1", Exp: now.Add(time.Hour), Hard: now.Add(4 * time.Hour), BootBy: at(5 * time.Minute)}
			p := store.Pulse{Key: "k", Runner: "x1", Seen: now}
			c.edit(&r, &l, &p)
			if got := store.Shareable(now, lim, r, l, p); got != c.want {
				t.Errorf("Shareable = %v, want %v", got, c.want)
			}
		})
	}
}

func TestShareOnALiveLock(t *testing.T) {
	now := at(30 * time.Minute)
	base := store.Lock{Meta: store.Meta{Version: 3}, Key: "k", State: store.LockLive, Runner: "x1", Joined: "r0",
		Exp: now.Add(time.Hour), Hard: now.Add(5 * time.Hour), BootBy: now.Add(2 * time.Minute), SharedAt: now, CountedOn: at(time.Minute)}
	for _, c := range []struct {
		name  string
		edit  func(*store.Lock)
		want  func(*store.Lock)
		wrote bool
	}{
		{"NothingNewIsACheck", func(*store.Lock) {}, func(*store.Lock) {}, false},
		{"FirstToCountOnItIsWritten", func(l *store.Lock) { l.CountedOn = time.Time{} }, func(l *store.Lock) { l.CountedOn = now }, true},
		{"BusyIsCountedOnByNobody", func(l *store.Lock) { l.Busy, l.CountedOn = true, time.Time{} }, func(*store.Lock) {}, false},
		{"FirstToJoinIsWritten", func(l *store.Lock) { l.Joined = "" }, func(l *store.Lock) { l.Joined = "r2" }, true},
		{"RiseOf30sIsNotWorthAWrite", func(l *store.Lock) { l.Exp = now.Add(time.Hour - 30*time.Second) }, func(*store.Lock) {}, false},
		{"RiseOfMoreThan30s", func(l *store.Lock) { l.Exp = now.Add(time.Hour - 30*time.Second - 1) },
			func(l *store.Lock) { l.Exp = now.Add(time.Hour) }, true},
		{"SharedAtIs30sOld", func(l *store.Lock) { l.SharedAt = now.Add(-30 * time.Second) }, func(*store.Lock) {}, false},
		{"SharedAtIsOlder", func(l *store.Lock) { l.SharedAt = now.Add(-30*time.Second - 1) },
			func(l *store.Lock) { l.SharedAt = now }, true},
		{"ExpNeverFalls", func(l *store.Lock) { l.Exp, l.SharedAt = now.Add(2*time.Hour), t0 },
			func(l *store.Lock) { l.Exp, l.SharedAt = now.Add(2*time.Hour), now }, true},
		{"ExpStopsAtHard", func(l *store.Lock) { l.Exp, l.Hard = now.Add(time.Minute), now.Add(50*time.Minute) },
			func(l *store.Lock) { l.Exp = now.Add(50 * time.Minute) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := base
			c.edit(&l)
			want := l
			c.want(&want)
			r := accepted("r2", store.Shared)
			d := stage{req: r, lock: l}.c().Share(now, lim)
			r.State, r.Runner, r.DueAt, r.ReadyAt, r.EndedAt = store.Ready, "x1", time.Time{}, now, now
			r.TTL = now.Add(lim.Keep).Unix()
			r.History = append(r.History[:1:1], store.Entry{At: now, State: "ready", Reason: "shares runner x1"})
			follows := outcome{changes: "put request, check lock"}
			if c.wrote {
				follows.changes = "put request, put lock"
			}
			stage{req: r, lock: want}.decides(t, d, follows)
		})
	}
}

func TestLockOfTheOtherVersionIsRead(t *testing.T) {
	l := store.Lock{Key: "k", State: store.LockLive, Runner: "x1", Exp: at(time.Hour), Hard: at(5 * time.Hour), SharedAt: t0, Busy: true, CountedOn: t0}
	b, err := json.Marshal(&l)
	if err != nil {
		t.Fatal(err)
	}
	var older struct {
		Key    string    `json:"key"`
		State  string    `json:"state"`
		Runner string    `json:"runner"`
		Exp    time.Time `json:"exp"`
	}
	if err := json.Unmarshal(b, &older); err != nil || older.Key != "k" || older.State != "live" || older.Runner != "x1" || !older.Exp.Equal(l.Exp) {
		t.Errorf("the older version reads %+v, %v; want the lock", older, err)
	}
	var newer store.Lock
	if err := json.Unmarshal([]byte(`{"key":"k","state":"live","runner":"x1"}`), &newer); err != nil || newer.Busy || !newer.CountedOn.IsZero() {
		t.Errorf("a lock of the older version is %+v, %v; want it without the newer fields", newer, err)
	}
	if b, err := json.Marshal(&newer); err != nil || strings.Contains(string(b), "busy") || strings.Contains(string(b), "counted_on") {
		t.Errorf("a lock that has nothing new is %s, %v; want it as the older version writes it", b, err)
	}
	// Each request that shares it counts from then on: the older version may have given it a job.
	d := stage{req: accepted("r2", store.Shared), lock: newer}.c().Share(at(time.Minute), lim)
	if got := told(d.Changes); got != "put request, put lock" || !d.Lock.CountedOn.Equal(at(time.Minute)) {
		t.Errorf("shared, it is counted on since %v, changes %q; want now, and written", d.Lock.CountedOn, got)
	}
}

func TestShareOnALaunchingLockWaits(t *testing.T) {
	now := at(time.Minute)
	l := store.Lock{Key: "k", State: store.LockLaunching, Runner: "x1", Joined: "r0",
		Exp: at(50 * time.Minute), Hard: at(6 * time.Hour), BootBy: at(5 * time.Minute), SharedAt: now}
	r := held("r2", now, now, store.WaitQuota)
	d := stage{req: r, lock: l}.c().Share(now, lim)
	l.Exp = at(65 * time.Minute) // a timeout begins when the runner can be used
	history := append(r.History[:len(r.History):len(r.History)], store.Entry{At: now, State: "waiting", Reason: "shares runner x1"})
	r.State, r.Runner, r.Wait, r.DueAt, r.History = store.Waiting, "x1", "", at(2*time.Minute), history
	stage{req: r, lock: l}.decides(t, d, outcome{changes: "put request, put lock"})
}

func TestSharerOfALaunchingRunnerIsLookedAtInAMinute(t *testing.T) {
	l := store.Lock{Key: "k", State: store.LockLaunching, Runner: "x1", Exp: at(50 * time.Minute), Hard: at(6 * time.Hour), BootBy: at(5 * time.Minute), SharedAt: t0}
	for _, c := range []struct {
		now, want time.Time
	}{
		{at(time.Minute), at(2 * time.Minute)},
		{at(4*time.Minute + 10*time.Second), at(5*time.Minute + 10*time.Second)},
		{at(5*time.Minute - 1), at(5*time.Minute + 10*time.Second)}, // boot_by comes first
	} {
		if got := (stage{req: accepted("r2", store.Shared), lock: l}).c().Share(c.now, lim).Request; !got.DueAt.Equal(c.want) {
			t.Errorf("shared at %v, it is due at %v, want %v", c.now, got.DueAt, c.want)
		}
	}
}

func TestLiveLockIsConfirmedForTwoMinutes(t *testing.T) {
	now := at(2 * time.Hour)
	for _, c := range []struct {
		name string
		lock store.Lock
		want bool
	}{
		{"JustNow", store.Lock{State: store.LockLive, ConfirmedAt: now}, true},
		{"TwoMinutesAgo", store.Lock{State: store.LockLive, ConfirmedAt: now.Add(-2 * time.Minute)}, true},
		{"Longer", store.Lock{State: store.LockLive, ConfirmedAt: now.Add(-2*time.Minute - 1)}, false},
		{"ByAClockAhead", store.Lock{State: store.LockLive, ConfirmedAt: now.Add(time.Second)}, true},
		{"NeverOrByAnOldVersion", store.Lock{State: store.LockLive}, false},
		{"LaunchingIsWaitedFor", store.Lock{State: store.LockLaunching}, true},
		{"Draining", store.Lock{State: store.LockDraining, ConfirmedAt: now}, false},
		{"Empty", store.Lock{State: store.LockEmpty, ConfirmedAt: now}, false},
		{"NeverWritten", store.Lock{}, false},
	} {
		if got := c.lock.Confirmed(now, lim); got != c.want {
			t.Errorf("%s: Confirmed = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUnblock(t *testing.T) {
	now := at(10 * time.Minute)
	for _, c := range []struct {
		name  string
		stage func(*testing.T) stage
		edit  func(*stage)
		end   string
		until time.Time
	}{
		{"RecordIsGone", onlineShared, func(s *stage) { s.run = store.Runner{ID: "x1"} }, "", now.Add(10 * time.Second)},
		{"RunnerHasFailed", onlineShared, func(s *stage) { s.run.State = store.RunnerFailed }, "", now.Add(10 * time.Second)},
		{"RunnerHasEnded", onlineShared, func(s *stage) { s.run.State = store.RunnerEnded }, "", now.Add(10 * time.Second)},
		{"RunnerHasToDrain", onlineShared, func(s *stage) { s.lock.Exp = now }, store.EndExpired, time.Time{}},
		{"RunnerIsLost", onlineShared, func(s *stage) { s.pulse.Seen = now.Add(-121 * time.Second) }, store.EndLost, time.Time{}},
		{"WellAndLiveHandsOver", onlineShared, func(*stage) {}, store.EndHandover, time.Time{}},
		{"HeardOf45sAgoHandsOver", onlineShared, func(s *stage) { s.pulse.Seen = now.Add(-45 * time.Second) }, store.EndHandover, time.Time{}},
		{"SilentIsWaitedFor", onlineShared, func(s *stage) { s.pulse.Seen = now.Add(-46 * time.Second) }, "", now.Add(75 * time.Second)},
		{"PulseOfAnotherIsNoReasonForAPastTime", onlineShared, func(s *stage) {
			s.pulse.Runner, s.run.OnlineAt = "x0", now.Add(-46*time.Second)
		}, "", now.Add(75 * time.Second)},
		{"BootingIsWaitedFor", bootingShared, func(s *stage) { s.pulse.Runner, s.lock.BootBy = "x1", now.Add(-time.Minute) }, "", now.Add(10 * time.Second)},
		{"LaunchingIsWaitedFor", launchedShared, func(s *stage) { s.lock.BootBy = now.Add(time.Second) }, "", now.Add(10 * time.Second)},
		{"LaunchingTooLongHasToDrain", launchedShared, func(s *stage) { s.lock.BootBy = now }, store.EndNoBoot, time.Time{}},
		{"LauncherWasCancelled", launchedShared, func(s *stage) {
			s.lock.BootBy, s.req.State = now.Add(time.Second), store.Cancelled
		}, store.EndUnwanted, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t)
			s.pulse.Seen = now
			c.edit(&s)
			d := s.c().Unblock(now, lim, noConsole)
			if c.end == "" {
				s.decides(t, d, outcome{wait: store.Wait{For: store.WaitRunner, Until: c.until}})
				return
			}
			after := s.drained(now, c.end)
			if c.end == store.EndNoBoot {
				after.run.End.Text += " " + noConsole
			}
			after.decides(t, d, outcome{changes: "put runner, put lock"})
		})
	}
}

func bootingShared(t *testing.T) stage  { return booting(t, store.Shared) }
func onlineShared(t *testing.T) stage   { return online(t, store.Shared) }
func launchedShared(t *testing.T) stage { return launched(t, store.Shared) }
