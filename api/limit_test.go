package api_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// flood says one kind of event many times, as fast as it is answered, and returns how
// many answers had each status.
func (m *machine) flood(kind string, n int, pause time.Duration) map[int]int {
	m.Helper()
	got := map[int]int{}
	for i := range n {
		m.counter++
		a := m.post("events", apitype.Event{Event: kind, Counter: m.counter, Detail: fmt.Sprint(i), RunID: fmt.Sprint(i)})
		got[a.status]++
		if after, err := strconv.Atoi(a.header.Get("Retry-After")); a.status == http.StatusTooManyRequests && (err != nil || after < 1 || after > 60) {
			m.Errorf("429 with Retry-After %q, want seconds", a.header.Get("Retry-After"))
		}
		time.Sleep(pause)
	}
	return got
}

func TestFloodIsRefusedBeforeAnythingIsRead(t *testing.T) {
	for _, call := range []string{"events", "next", "boot"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			m := w.online(w.start(workflowToken, apitype.Start{}).ID)
			other := w.online(w.start(otherToken, apitype.Start{}).ID)
			time.Sleep(time.Minute)
			body := map[string]any{
				"events": apitype.Event{Event: store.EventIdle, Counter: 99}, "next": apitype.Next{N: 1},
				"boot": apitype.Boot{Token: w.bootToken(w.runner(m.id)), Nonce: nonce, InstanceID: instanceID},
			}[call]
			for range 40 {
				if a := m.post(call, body); a.status == http.StatusTooManyRequests {
					t.Fatalf("%s = %d among the first forty", call, a.status)
				}
			}
			if got := w.counted(func() {
				for range 300 {
					if a := m.post(call, body); a.status != http.StatusTooManyRequests || a.problem(t).Code != apitype.CodeThrottled {
						t.Fatalf("%s = %d %s, want 429", call, a.status, a.body)
					}
				}
			}); got != "" {
				t.Errorf("a flood of %s calls %q, want nothing", call, got)
			}
			if got := other.says(store.EventHeartbeat); got != "go" {
				t.Errorf("the heartbeat of another machine = %s, want go", got)
			}
			if a := w.raw("POST", "/runners/"+m.id+"/events", m.booted.Session, apitype.Event{Event: store.EventHeartbeat, Counter: 1}); call == "events" && a.status != http.StatusTooManyRequests {
				t.Errorf("heartbeat of the machine that floods = %d, want 429", a.status)
			}
			time.Sleep(2 * time.Second)
			if a := m.post(call, body); a.status == http.StatusTooManyRequests {
				t.Errorf("%s after Retry-After = %d, want it taken", call, a.status)
			}
		})
	}
}

// Anyone who knows a runner's id, which is in its name at GitHub, cannot have its machine refused.
func TestStrangerUsesUpNobodysCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		beat := apitype.Event{Event: store.EventHeartbeat, Counter: 99}
		for i := range 500 {
			token := fmt.Sprintf("garo_s_%043d", i%7)
			if a := w.raw("POST", "/runners/"+m.id+"/events", token, beat); a.status != http.StatusUnauthorized && a.status != http.StatusTooManyRequests {
				t.Fatalf("a stranger's event = %d %s, want 401 or 429", a.status, a.body)
			}
		}
		if got := m.says(store.EventHeartbeat); got != "go" {
			t.Errorf("heartbeat = %s, want go", got)
		}
	})
}

func TestWhatCannotBeAMachinesTokenIsRefusedUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		for _, token := range []string{"", "x", workflowToken, operatorToken, "garo_s_short", m.booted.Session + "A", m.booted.Session[:40]} {
			for call, body := range map[string]any{"events": apitype.Event{Event: store.EventNote, Counter: 9}, "next": apitype.Next{N: 2}} {
				if got := w.counted(func() {
					if a := w.raw("POST", "/runners/"+m.id+"/"+call, token, body); a.status != http.StatusUnauthorized {
						t.Errorf("%s with %.12q = %d, want 401", call, token, a.status)
					}
				}); got != "" {
					t.Errorf("%s with %.12q calls %q, want nothing", call, token, got)
				}
			}
		}
		for path, token := range map[string]string{"/runners/" + m.id + "/boot": "short", "/runners/none/boot": strings.Repeat("a", 43)} {
			if got := w.counted(func() {
				if a := w.raw("POST", path, "", apitype.Boot{Token: token, Nonce: nonce, InstanceID: instanceID}); a.status != http.StatusUnauthorized {
					t.Errorf("%s = %d, want 401", path, a.status)
				}
			}); got != "" {
				t.Errorf("%s calls %q, want nothing", path, got)
			}
		}
	})
}

func TestFloodOfNotesIsOneAlarmAndIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		time.Sleep(time.Minute)
		var got map[int]int
		commits := w.counted(func() { got = m.flood(store.EventNote, 120, time.Second) })
		if got[http.StatusOK] != 120 {
			t.Errorf("answers = %v, want 200 for each note: what is left out is not said again", got)
		}
		if commits != "get 120 commit 8" { // four at once, four in two minutes less one, and the alarm
			t.Errorf("calls = %s, want get 120 commit 8", commits)
		}
		if a := w.alarms(); len(a) != 1 || a[0] != string(store.AlarmFlood) {
			t.Errorf("alarms = %v, want %s once", a, store.AlarmFlood)
		}
		r := w.runner(m.id)
		if last := r.History[len(r.History)-1].Reason; !strings.Contains(last, "before it were left out") || r.LeftOut < 70 {
			t.Errorf("the last line is %q, and %d were left out; want it to say so", last, r.LeftOut)
		}
	})
}

// Each process counts for itself: the record holds whatever they let through.
func TestBudgetHoldsOverProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		commits := w.counted(func() {
			for i := range 600 {
				if i%30 == 0 {
					w.handler = api.New(w.config()) // another process
				}
				m.counter++
				if a := m.post("events", apitype.Event{Event: store.EventNote, Counter: m.counter, Detail: fmt.Sprint(i)}); a.status != http.StatusOK {
					t.Fatalf("note = %d %s", a.status, a.body)
				}
			}
		})
		if commits != "get 600 commit 4" {
			t.Errorf("calls = %s, want get 600 commit 4: three notes after what it said before, and the alarm", commits)
		}
	})
}

func TestPastItsHardLimitAMachineIsStoppedAndNothingIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		time.Sleep(time.Until(w.runner(m.id).Hard))
		for _, kind := range store.EventKinds {
			if got := w.counted(func() {
				if order := m.says(kind); order != "stop" {
					t.Errorf("%s = %s, want stop", kind, order)
				}
			}); got != "get 1" {
				t.Errorf("calls of %s = %s, want get 1", kind, got)
			}
		}
		if got := w.counted(func() { m.post("next", apitype.Next{N: 2}) }); got != "get 1" {
			t.Errorf("calls of next = %s, want get 1", got)
		}
	})
}

func TestPastExpNoteAndBootingWriteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		m.says(store.EventJobStarted)
		time.Sleep(time.Until(w.lock(m.booted.Lock).Exp) + time.Second)
		before := w.runner(m.id).Version
		for _, kind := range []string{store.EventNote, store.EventBooting, store.EventOnline, store.EventJobStarted, store.EventIdle} {
			m.says(kind, func(e *apitype.Event) { e.Detail = "x" })
		}
		if got := w.runner(m.id); got.Version != before {
			t.Errorf("the runner has version %d past its exp, want %d", got.Version, before)
		}
		for range 20 {
			m.says(store.EventJobDone)
		}
		if got := w.runner(m.id); got.Version != before+1 || got.Jobs != 1 {
			t.Errorf("the runner has version %d and %d jobs, want one write for the end of its job", got.Version-before, got.Jobs)
		}
	})
}

func TestOrdinaryCallsAreNeverTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		for range 30 { // of a quarter of an hour of jobs of seconds
			m.says(store.EventOnline)
			m.says(store.EventJobStarted)
			m.says(store.EventJobStarted, func(e *apitype.Event) { e.RunID = "7001" })
			m.says(store.EventHeartbeat)
			time.Sleep(20 * time.Second)
			m.says(store.EventJobDone)
			n := w.runner(m.id).Config.N + 1
			for range 3 {
				if a := m.post("next", apitype.Next{N: n}); a.status != http.StatusTooEarly {
					t.Fatalf("next = %d %s, want 425", a.status, a.body)
				}
				time.Sleep(2 * time.Second)
			}
			w.configured(m.id)
			if a := m.post("next", apitype.Next{N: n}); a.status != http.StatusOK {
				t.Fatalf("next = %d %s, want the config", a.status, a.body)
			}
		}
		if a := w.alarms(); len(a) != 0 {
			t.Errorf("alarms = %v, want none", a)
		}
	})
}
