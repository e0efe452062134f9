package api_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestNextIsAnsweredPastExpUpToTheHardLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		m.says(store.EventJobStarted)
		time.Sleep(time.Until(w.runner(m.id).Hard) - time.Second)
		m.says(store.EventJobDone)
		if !w.lock(m.booted.Lock).Exp.Before(time.Now()) {
			t.Fatal("exp is not over")
		}
		w.sent = nil
		if a := m.post("next", apitype.Next{N: 2}); a.status != http.StatusTooEarly || len(w.sent) != 1 {
			t.Errorf("next = %d %s, sent %+v; want 425 and the message: a job may be queued for it", a.status, a.body, w.sent)
		}
	})
}

func TestRepeatedNextIsSentAgainWhenNobodyIsAtIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		w.sent = nil
		next := func() int {
			t.Helper()
			if a := m.post("next", apitype.Next{N: 2}); a.status != http.StatusTooEarly {
				t.Errorf("next = %d %s, want 425", a.status, a.body)
			}
			return len(w.sent)
		}
		if got := next(); got != 1 {
			t.Errorf("%d messages after the first call, want 1", got)
		}
		time.Sleep(9 * time.Second)
		if got := next(); got != 1 {
			t.Errorf("%d messages after 9 s, want still 1", got)
		}
		time.Sleep(time.Second)
		if got := next(); got != 2 {
			t.Errorf("%d messages after 10 s, want 2: the first may be lost", got)
		}
		run := w.runner(m.id)
		run.Claim = store.Claim{By: "worker", Until: time.Now().Add(time.Minute)}
		w.put(&run)
		time.Sleep(20 * time.Second)
		if got := next(); got != 2 {
			t.Errorf("%d messages while a worker holds the runner, want still 2", got)
		}
		w.apply(store.Case{Runner: run}.Pause(time.Now(), store.Pause{By: "worker", Wait: store.Wait{For: store.WaitGitHub, Until: time.Now().Add(time.Minute)}}))
		time.Sleep(20 * time.Second)
		if got := next(); got != 2 {
			t.Errorf("%d messages while the worker waits for GitHub, want still 2", got)
		}
		time.Sleep(40 * time.Second)
		if got := next(); got != 3 {
			t.Errorf("%d messages after that, want 3", got)
		}
	})
}

func TestNextIsCountedInCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		for _, step := range []struct {
			name, want string
			do         func()
		}{
			{"first", "get 1 commit 1 send 1", func() {}},
			{"again", "get 1", func() {}},
			{"ready", "get 1", func() { w.configured(m.id) }},
		} {
			step.do()
			if got := w.counted(func() { m.post("next", apitype.Next{N: 2}) }); got != step.want {
				t.Errorf("calls of next, %s = %s, want %s", step.name, got, step.want)
			}
		}
	})
}

func TestNextIsRefusedWhenTheMachineIsToEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		body    apitype.Start
		prepare func(w *world, m *machine)
		order   string
	}{
		"ephemeral": {apitype.Start{Mode: "ephemeral"}, func(*world, *machine) {}, "drain"},
		"at hard":   {apitype.Start{}, func(w *world, m *machine) { time.Sleep(time.Until(w.runner(m.id).Hard)) }, "stop"},
		"draining":  {apitype.Start{}, func(_ *world, m *machine) { m.says(store.EventDraining) }, "drain"},
		"ending":    {apitype.Start{}, func(w *world, m *machine) { w.end(m, false) }, "stop"},
		"ended":     {apitype.Start{}, func(w *world, m *machine) { w.end(m, true) }, "gone"},
		"replaced": {apitype.Start{}, func(w *world, m *machine) {
			lock := w.lock(m.booted.Lock)
			lock.Runner = strings.Repeat("b", 26)
			w.put(&lock)
		}, "drain"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := w.online(w.start(workflowToken, tc.body).ID)
				tc.prepare(w, m)
				w.sent = nil
				a := m.post("next", apitype.Next{N: 2})
				got := field(t, a, "order")
				if a.status == http.StatusGone {
					got = "gone"
				}
				if got != tc.order || field(t, a, "config") != "" || len(w.sent) != 0 {
					t.Errorf("next = %d %s, sent %+v; want order %s, no config, nothing sent", a.status, a.body, w.sent, tc.order)
				}
			})
		})
	}
}

func TestUnsentNextIsSentByTheRepeatedCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		w.sent, w.sendErr = nil, errDown
		if a := m.post("next", apitype.Next{N: 2}); a.status != http.StatusTooEarly || len(w.logged("message not sent")) != 1 {
			t.Errorf("next = %d %s, want 425 and a warning", a.status, a.body)
		}
		w.sendErr = nil
		time.Sleep(10 * time.Second)
		m.post("next", apitype.Next{N: 2})
		if len(w.sent) != 1 {
			t.Errorf("sent = %+v, want the message", w.sent)
		}
	})
}
