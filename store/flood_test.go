package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A machine with root says whatever it wants, hundreds of times a second.
func TestFloodIsBoundedByTheRecordAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		say  func(i int) store.Event
		most int // writes of the first hour
	}{
		{"Notes", func(i int) store.Event { return store.Event{Kind: store.EventNote, Detail: fmt.Sprint(i)} }, 4 + 120},
		{"Booting", func(i int) store.Event { return store.Event{Kind: store.EventBooting, Detail: fmt.Sprint(i)} }, 0},
		{"Everything", func(i int) store.Event {
			return store.Event{Kind: store.EventKinds[1+i%(len(store.EventKinds)-1)], RunID: fmt.Sprint(i), Detail: "x"}
		}, 10},
		{"CountersThatNobodyHas", func(int) store.Event { return store.Event{Kind: store.EventNote, Counter: 1 << 62} }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := online(t, store.Shared)
			s.lock.Exp = s.run.Hard
			began, writes, alarms := at(3*time.Minute), 0, 0
			for i := range 5 * 3600 {
				e := c.say(i)
				if e.Counter == 0 {
					e.Counter = int64(i) + 10
				}
				d, _ := s.c().ApplyEvent(began.Add(time.Duration(i)*200*time.Millisecond), lim, e, "key-1")
				if d.Alarm == store.AlarmFlood {
					alarms++
				}
				if len(d.Changes) > 0 && !d.Changes[0].CheckOnly {
					writes++
					s.take(d)
				}
			}
			if writes > c.most+1 || alarms > 1 {
				t.Errorf("%d writes and %d alarms, want at most %d and the one of the alarm", writes, alarms, c.most)
			}
			if c.name == "Notes" && (alarms != 1 || s.run.FloodAt.IsZero()) {
				t.Errorf("%d alarms, want one", alarms)
			}
		})
	}
}

// Each config of a shared machine allows a few events, and what it asks for is paid for too.
func TestFloodOfConfigsIsBounded(t *testing.T) {
	s := online(t, store.Shared)
	s.lock.Exp = s.run.Hard
	asked, refused := 0, 0
	for i := range 36000 { // an hour of ten calls a second, and a worker that registers at once
		now := at(3*time.Minute + time.Duration(i)*100*time.Millisecond)
		d, verdict := s.c().Next(now, lim, s.run.Config.N+1)
		if verdict != store.NextLater {
			t.Fatalf("the answer is %s at %s, want later", verdict, now)
		}
		if d.Wait.For == store.OverBudget {
			refused++
			if len(d.Sends) > 0 || refused > 1 && len(d.Changes) > 0 {
				t.Fatalf("%d changes and %d messages beyond the budget, want none", len(d.Changes), len(d.Sends))
			}
		}
		s.take(d)
		if len(d.Sends) > 0 {
			asked++
			s.run.Config.N, s.run.Config.Used = s.run.Wanted, false
		}
	}
	if want := 900 + 60; asked > want || asked < want-10 || refused == 0 {
		t.Errorf("%d configs in an hour and %d refusals, want %d", asked, refused, want)
	}
}

// As fast as GitHub, the runner program and a new config allow.
func TestNormalLifeIsFarFromTheBudget(t *testing.T) {
	for name, period := range map[string]time.Duration{"AJobEachTwentySeconds": 20 * time.Second, "AJobAnHour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := online(t, store.Shared)
			s.lock.Exp = s.run.Hard
			counter := int64(10)
			for now := at(3 * time.Minute); now.Before(s.run.Hard.Add(-period)); now = now.Add(period) {
				for i, e := range []store.Event{
					{Kind: store.EventOnline}, {Kind: store.EventJobStarted}, {Kind: store.EventJobStarted, RunID: "1001"}, {Kind: store.EventJobDone},
				} {
					counter++
					e.Counter = counter
					d, order := s.c().ApplyEvent(now.Add(time.Duration(i)*time.Second), lim, e, "key-1")
					if d.Wait.For != "" || d.Alarm != "" || order != store.OrderGo {
						t.Fatalf("%s at %s: wait %+v, alarm %q, order %s", e.Kind, now, d.Wait, d.Alarm, order)
					}
					s.take(d)
				}
				d, verdict := s.c().Next(now.Add(5*time.Second), lim, s.run.Config.N+1)
				if verdict != store.NextLater || d.Wait.For != "" {
					t.Fatalf("next at %s: %s, wait %+v", now, verdict, d.Wait)
				}
				s.take(d)
				n := s.run.Wanted
				s.run.Names = append(s.run.Names, store.GitHubName{N: n, RunnerID: int64(n)})
				s.run.Config = store.Config{N: n, RunnerID: int64(n), Sealed: "sealed"}
				if spent := s.run.SpentUntil.Sub(now); spent > lim.Heartbeat {
					t.Fatalf("%s of the budget are spent at %s, want hardly any", spent, now)
				}
			}
		})
	}
}

func TestWhatTheBudgetDoesNotTakeIsSaidAgain(t *testing.T) {
	now := at(20 * time.Minute)
	s := online(t, store.Shared)
	s.run.SpentUntil = now.Add(240*time.Second - time.Second/2)
	started := store.Event{Kind: store.EventJobStarted, RunID: "1001", Counter: 50}
	d, order := s.c().ApplyEvent(now, lim, started, "key-1")
	if want := now.Add(time.Second / 2); d.Wait.For != store.OverBudget || !d.Wait.Until.Equal(want) || order != store.OrderGo || d.Alarm != store.AlarmFlood {
		t.Errorf("wait %+v, order %s, alarm %q; want it to wait until %s, and an alarm", d.Wait, order, d.Alarm, want)
	}
	s.take(d)
	if s.run.Counter == 50 || s.run.State != store.RunnerOnline || s.lock.Busy {
		t.Errorf("the runner is %s with counter %d, want it as it was", s.run.State, s.run.Counter)
	}
	d, _ = s.c().ApplyEvent(now.Add(time.Second/2), lim, started, "key-1")
	s.take(d)
	if s.run.State != store.RunnerBusy || s.run.Counter != 50 {
		t.Errorf("the runner is %s when it is said again, want busy", s.run.State)
	}
}

func TestPastItsHardLimitNothingIsWritten(t *testing.T) {
	for name, s := range map[string]stage{
		"online": online(t, store.Shared), "busy": busy(t, store.Shared), "ephemeral": busy(t, store.Ephemeral),
		"draining": busy(t, store.Shared).drained(at(time.Hour), store.EndExpired), "booting": booting(t, store.Shared),
	} {
		for _, kind := range store.EventKinds {
			d, order := s.c().ApplyEvent(s.run.Hard, lim, store.Event{Kind: kind, Counter: 50, RunID: "1", Detail: "x"}, "key-1")
			if order != store.OrderStop {
				t.Errorf("%s of a runner that is %s: the order is %s, want stop", kind, name, order)
			}
			s.decides(t, d, outcome{})
		}
		d, verdict := s.c().Next(s.run.Hard, lim, 2)
		if verdict != store.NextDrain {
			t.Errorf("next of a runner that is %s: %s, want drain", name, verdict)
		}
		s.decides(t, d, outcome{})
		boot, answer := s.c().Boot(s.run.Hard, lim, "another nonce", "i-2")
		if answer != store.BootGone {
			t.Errorf("boot of a runner that is %s: %s, want gone", name, answer)
		}
		s.decides(t, boot, outcome{})
	}
}
