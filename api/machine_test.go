package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

func TestSessionOpensItsRunnerAlone(t *testing.T) {
	w := newWorld(t)
	m := w.online(w.start(workflowToken, apitype.Start{}).ID)
	other := w.intent(w.start(otherToken, apitype.Start{}).ID) // never booted
	unbound, err := w.keys.Session("k1", other.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	trace := []string{"X-Amzn-Trace-Id", "Self=1-67891233-00000000000000000000000a;Root=1-67891233-abcdef012345678912345678"}
	call := func(id, token string) answer {
		return w.raw("POST", "/runners/"+id+"/events", token, apitype.Event{Event: "draining", Counter: 99}, trace...)
	}
	want := call(strings.Repeat("a", 26), m.booted.Session)
	for name, got := range map[string]answer{
		"another runner":        call(other.ID, m.booted.Session),
		"one that never booted": call(other.ID, unbound.Reveal()),
		"no id":                 call("x", m.booted.Session),
		"boot token":            call(m.id, w.bootToken(w.runner(m.id))),
		"altered session":       call(m.id, m.booted.Session+"A"),
		"no token":              call(m.id, ""),
		"operator":              call(m.id, operatorToken),
	} {
		if got.status != http.StatusUnauthorized || string(got.body) != string(want.body) {
			t.Errorf("%s = %d %s\nwant %d %s", name, got.status, got.body, want.status, want.body)
		}
	}
	if got := w.runner(m.id).State; got != store.RunnerOnline {
		t.Errorf("runner is %s, want it untouched", got)
	}
}

func TestHeartbeatIsOneReadAndAtMostOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		time.Sleep(20 * time.Second)
		if got := w.counted(func() { m.says(store.EventHeartbeat) }); got != "get 1 commit 1" {
			t.Errorf("calls of a heartbeat = %s, want get 1 commit 1", got)
		}
		if p := w.pulse(m.booted.Lock); p.Runner != m.id || !p.Seen.Equal(time.Now()) {
			t.Errorf("pulse = %+v, want it now", p)
		}
		if got := w.counted(func() {
			for range 30 {
				m.says(store.EventHeartbeat)
			}
		}); got != "get 30" {
			t.Errorf("calls of thirty more = %s, want get 30", got)
		}
	})
}

// The lock keys of an Enterprise Server's repositories name the server.
func TestHeartbeatOfAnotherServersRunnerIsOneReadToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		account, caller := w.accounts.byID[accountID], w.github.callers[workflowToken]
		account.Server, caller.Claims.Server = "ghe.test:8443", "ghe.test:8443"
		w.accounts.byID[accountID], w.github.callers[workflowToken] = account, caller
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		time.Sleep(20 * time.Second)
		if got := w.counted(func() { m.says(store.EventHeartbeat) }); got != "get 1 commit 1" {
			t.Errorf("calls of a heartbeat with lock %s = %s, want get 1 commit 1", m.booted.Lock, got)
		}
	})
}

func TestLockHintIsOnlyAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		foreign := w.online(w.start(otherToken, apitype.Start{}).ID)
		for name, hint := range map[string]string{
			"none": "", "another's": foreign.booted.Lock, "absent": "a/b", "of no form": "Ä\x00", "too long": strings.Repeat("a", 3000), "a key with kind": "lock#" + m.booted.Lock,
		} {
			time.Sleep(20 * time.Second)
			m.booted.Lock = hint
			if got := w.counted(func() { m.says(store.EventHeartbeat) }); got != "get 2 commit 1" {
				t.Errorf("calls of a heartbeat, hint %s = %s, want get 2 commit 1", name, got)
			}
			if p := w.pulse(w.runner(m.id).Lock); !p.Seen.Equal(time.Now()) {
				t.Errorf("hint %s: pulse = %+v, want the runner's own written", name, p)
			}
		}
		if p := w.pulse(foreign.booted.Lock); p.Runner != foreign.id {
			t.Errorf("the other's pulse = %+v, want it untouched", p)
		}
	})
}

func TestJobsOfASharedMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		m := w.online(started.ID)
		m.says(store.EventBooting)
		m.says(store.EventJobStarted, func(e *apitype.Event) { e.RunID = "7001" })
		if got := w.runner(m.id); got.State != store.RunnerBusy || got.Job.RunID != "7001" {
			t.Errorf("runner = %s %+v, want it busy with run 7001", got.State, got.Job)
		}
		m.says(store.EventJobDone)
		if got := w.runner(m.id); got.State != store.RunnerOnline || got.Jobs != 1 {
			t.Errorf("runner = %s after %d jobs, want it online after one", got.State, got.Jobs)
		}
		if lock := w.lock(m.booted.Lock); lock.State != store.LockLive || !lock.ConfirmedAt.IsZero() {
			t.Errorf("lock is %s, confirmed at %v; want it live, and not to be shared before the next config", lock.State, lock.ConfirmedAt)
		}
		w.sent = nil
		if a := m.post("next", apitype.Next{N: 2}); a.status != http.StatusTooEarly {
			t.Errorf("next = %d %s, want 425", a.status, a.body)
		}
		want := sent{queue.Message{Kind: queue.Next, ID: m.id, N: 2, Trace: w.runner(m.id).Trace}, 0}
		if len(w.sent) != 1 || w.sent[0] != want || w.runner(m.id).Wanted != 2 {
			t.Errorf("sent = %+v, wanted %d; want %+v", w.sent, w.runner(m.id).Wanted, want)
		}
		w.configured(m.id)
		a := m.post("next", apitype.Next{N: 2})
		var got apitype.NextConfig
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || got.Config != configCanary+"-2" || got.N != 2 || got.Order != "go" {
			t.Errorf("next = %d %s, want config 2", a.status, a.body)
		}
	})
}

func TestOnlineIsTheMachinesWordAloneAndAsksGitHubOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.machineFor(w.start(workflowToken, apitype.Start{}).ID)
		w.sent = nil
		if got := w.counted(func() { m.says(store.EventOnline) }); got != "get 1 commit 1 send 1" {
			t.Errorf("calls of online = %s, want get 1 commit 1 send 1", got)
		}
		run, lock := w.runner(m.id), w.lock(m.booted.Lock)
		if run.State != store.RunnerBooting || !run.OnlineAt.IsZero() || !run.ListeningAt.Equal(time.Now()) || lock.State != store.LockLaunching {
			t.Errorf("runner is %s, online at %v, listening at %v, lock %s; want booting, never, now, launching", run.State, run.OnlineAt, run.ListeningAt, lock.State)
		}
		if want := (sent{queue.Message{Kind: queue.Resume, ID: m.id, Trace: run.Trace}, 0}); len(w.sent) != 1 || w.sent[0] != want {
			t.Errorf("sent = %+v, want %+v", w.sent, want)
		}
		m.post("events", apitype.Event{Event: store.EventOnline, Counter: m.counter}) // the answer was lost
		time.Sleep(time.Minute)
		m.says(store.EventOnline) // and a machine that says it again and again
		if run := w.runner(m.id); len(w.sent) != 1 || !run.ListeningAt.Equal(time.Now().Add(-time.Minute)) {
			t.Errorf("sent = %+v, listening at %v; want one message, and the first time", w.sent, run.ListeningAt)
		}
	})
}

func TestOnlineThatCannotBeSentIsTakenAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.machineFor(w.start(workflowToken, apitype.Start{}).ID)
		w.sendErr = errDown
		if got := m.says(store.EventOnline); got != "go" || len(w.logged("message not sent")) != 1 || w.runner(m.id).ListeningAt.IsZero() {
			t.Errorf("order = %s, listening at %v; want go, now, and a warning: the reaper asks GitHub", got, w.runner(m.id).ListeningAt)
		}
	})
}

func TestJobBeforeGitHubWasAskedTakesItsRunnerIntoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		m := w.machineFor(started.ID)
		w.sent = nil
		m.says(store.EventJobStarted, func(e *apitype.Event) { e.RunID = "7001" })
		run, lock := w.runner(m.id), w.lock(m.booted.Lock)
		if run.State != store.RunnerBusy || !run.OnlineAt.Equal(time.Now()) || lock.State != store.LockLive || !lock.ConfirmedAt.IsZero() || run.Writer != lock.Writer {
			t.Errorf("runner is %s, online at %v, lock %s, confirmed at %v; want busy, now, live and not, in one commit", run.State, run.OnlineAt, lock.State, lock.ConfirmedAt)
		}
		if len(w.sent) != 1 || w.sent[0].Kind != queue.Resume {
			t.Errorf("sent = %+v, want one message", w.sent)
		}
		if s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID); err != nil || s.State != "ready" {
			t.Errorf("Status = %s, %v; want ready", s.State, err)
		}
	})
}

func TestEachConfigOfASharedMachineIsAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		for n := 2; n <= 4; n++ {
			m.says(store.EventJobStarted)
			m.says(store.EventJobDone)
			m.post("next", apitype.Next{N: n})
			w.configured(m.id)
			m.post("next", apitype.Next{N: n})
			w.sent = nil
			if got := m.says(store.EventOnline); got != "go" || len(w.sent) != 1 {
				t.Errorf("config %d: order %s, sent %+v; want go and one message", n, got, w.sent)
			}
			w.confirmed(m.id)
			if lock := w.lock(m.booted.Lock); !lock.Confirmed(time.Now(), w.limits) {
				t.Errorf("config %d is not confirmed", n)
			}
		}
	})
}

func TestTooOldProgramMarksItsImageInTheSameCommitBeforeAnyJobAlone(t *testing.T) {
	key := store.ProgramKey(map[string]string{"amd64": runnerProgram.SHA256})
	tooOld := func(e *apitype.Event) {
		e.Reason, e.Detail = store.EndTooOld, "the runner program ended with exit code 7"
	}
	for name, tc := range map[string]struct {
		play  func(w *world, request string) *machine
		calls string
		marks bool
		state store.RequestState // of the request that launched it, in that commit
	}{
		"before it listens": {(*world).machineFor, "get 2 commit 1", true, store.Failed},
		"while it listens":  {(*world).online, "get 2 commit 1", true, store.Ready}, // it was online in time
		"in a job": {func(w *world, request string) *machine {
			m := w.online(request)
			m.says(store.EventJobStarted)
			return m
		}, "get 1 commit 1", false, ""},
		"after a job": {func(w *world, request string) *machine {
			m := w.online(request)
			m.says(store.EventJobStarted)
			m.says(store.EventJobDone)
			return m
		}, "get 1 commit 1", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := tc.play(w, w.start(workflowToken, apitype.Start{}).ID)
				if got := w.counted(func() { m.says(store.EventDraining, tooOld) }); got != tc.calls {
					t.Errorf("calls = %s, want %s", got, tc.calls)
				}
				run, quota := w.runner(m.id), read[store.Quota](w, accountID)
				if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmRunnerTooOld)}) || run.State != store.RunnerDraining {
					t.Errorf("alarms = %q, runner %s; want one, and draining", got, run.State)
				}
				if _, refused := quota.Refuses(time.Now(), run.Launch.Image, key); refused != tc.marks {
					t.Errorf("the image is refused: %v, want %v", refused, tc.marks)
				}
				if req := w.request(run.Request); tc.marks && (req.State != tc.state || req.Writer != run.Writer) {
					t.Errorf("request is %s, written by %s; want %s, in the commit of the runner, by %s", req.State, req.Writer, tc.state, run.Writer)
				}
				if tc.marks && (quota.Writer != run.Writer || quota.Live != 1) {
					t.Errorf("quota = %+v, want it written in the commit of the runner, and one runner still", quota)
				}
			})
		})
	}
}

// A machine that gives up tells its request in the same commit; one that may still be
// given a job does not.
func TestMachineThatGivesUpTellsItsRequestAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		play   func(w *world, request string) *machine
		reason string
		state  store.RequestState
		again  bool // its next start is sent
	}{
		"too old": {(*world).machineFor, store.EndTooOld, store.Failed, false},
		"for a reason that passes, while it is registered": {(*world).machineFor, store.EndSpot, store.Waiting, false},
		"for a reason that passes, and its registration is gone": {func(w *world, request string) *machine {
			m := w.machineFor(request)
			run := w.runner(m.id)
			run.DeregisteredAt = time.Now()
			w.put(&run)
			return m
		}, store.EndSpot, store.Accepted, true},
		"after it was online": {(*world).online, store.EndSpot, store.Ready, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				id := w.start(workflowToken, apitype.Start{}).ID
				m := tc.play(w, id)
				w.sent = nil
				before := w.request(id).Version
				calls := w.counted(func() { m.says(store.EventDraining, func(e *apitype.Event) { e.Reason = tc.reason }) })
				run, req := w.runner(m.id), w.request(id)
				if run.State != store.RunnerDraining || req.State != tc.state || (req.Version == before) != (tc.state == store.Waiting) {
					t.Errorf("runner is %s, request %s, written: %v; want draining and %s", run.State, req.State, req.Version != before, tc.state)
				}
				if req.Version != before && req.Writer != run.Writer {
					t.Errorf("written by %s and %s, want one commit", run.Writer, req.Writer)
				}
				var want []sent
				wantCalls := "get 2 commit 1"
				if tc.again {
					want, wantCalls = []sent{{queue.StartOf(req), w.limits.Waits[0]}}, "get 2 commit 1 send 1"
				}
				if !slices.Equal(w.sent, want) || calls != wantCalls {
					t.Errorf("sent %+v by %s; want %+v by %s", w.sent, calls, want, wantCalls)
				}
			})
		})
	}
}

// end drains a machine, and brings it to ending, or to its end.
func (w *world) end(m *machine, all bool) {
	w.Helper()
	w.apply(w.caseOf(m.id).Drain(time.Now(), store.NewEnd(store.EndStopped)))
	w.apply(w.caseOf(m.id).Ending(time.Now(), "test"))
	if all {
		d, _ := w.caseOf(m.id).Finish(time.Now(), w.limits, store.Instance{ID: instanceID}, "test", store.Price{})
		w.apply(d)
	}
}

func TestMachinesAreToldToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for all, want := range map[bool]string{false: "stop", true: "gone"} {
			w := newWorld(t)
			m := w.online(w.start(workflowToken, apitype.Start{}).ID)
			w.end(m, all)
			for _, kind := range []string{store.EventHeartbeat, store.EventIdle, store.EventOnline} {
				if got := m.says(kind); got != want {
					t.Errorf("order after %s = %s, want %s", kind, got, want)
				}
			}
		}
	})
}

func TestOnlineOfAReplacedRunnerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.machineFor(w.start(workflowToken, apitype.Start{}).ID)
		lock := w.lock(m.booted.Lock)
		lock.Runner = strings.Repeat("b", 26)
		w.put(&lock)
		if got := m.says(store.EventOnline); got != "drain" {
			t.Errorf("order = %s, want drain", got)
		}
		if run := w.runner(m.id); !run.OnlineAt.IsZero() {
			t.Errorf("online_at = %v, want never", run.OnlineAt)
		}
	})
}

func TestIdleMachineDrainsUnlessItIsSharedMeanwhile(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			m := w.online(w.start(workflowToken, apitype.Start{}).ID)
			time.Sleep(w.limits.Idle + w.limits.ShareStep)
			w.fate = func(op string, _ int) storetest.Fate {
				if op == "commit" && shared { // a share between the idle call's read and its commit
					w.fate = nil
					lock := w.lock(m.booted.Lock)
					lock.SharedAt = time.Now()
					w.put(&lock)
				}
				return storetest.Pass
			}
			want := map[bool]string{false: "drain", true: "go"}[shared]
			if got := m.says(store.EventIdle); got != want {
				t.Errorf("order (shared %t) = %s, want %s", shared, got, want)
			}
		})
	}
}

// The lock goes to another runner between the read of a call and its commit.
func TestMachineThatLosesItsLockMeanwhileDrains(t *testing.T) {
	for call, body := range map[string]any{"next": apitype.Next{N: 2}, "events": apitype.Event{Event: store.EventIdle, Counter: 99}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			m := w.online(w.start(workflowToken, apitype.Start{}).ID)
			w.sent = nil
			w.fate = func(op string, _ int) storetest.Fate {
				if op == "commit" {
					w.fate = nil
					lock := w.lock(m.booted.Lock)
					lock.Runner = strings.Repeat("b", 26)
					w.put(&lock)
				}
				return storetest.Pass
			}
			if a := m.post(call, body); field(t, a, "order") != "drain" || len(w.sent) != 0 {
				t.Errorf("%s = %d %s, sent %+v; want order drain and nothing sent", call, a.status, a.body, w.sent)
			}
		})
	}
}

func TestForgedEventsNeverLengthenALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		m.says(store.EventJobStarted)
		before, hard := w.lock(m.booted.Lock), w.runner(m.id).Hard
		for i := range 50 {
			time.Sleep(time.Second)
			m.says([]string{store.EventHeartbeat, store.EventOnline, store.EventIdle, store.EventJobDone, store.EventJobStarted}[i%5])
		}
		if got := w.lock(m.booted.Lock); !got.Exp.Equal(before.Exp) || !got.Hard.Equal(before.Hard) || !w.runner(m.id).Hard.Equal(hard) {
			t.Errorf("lock = %+v, want exp and hard of %+v", got, before)
		}
	})
}

func TestReplayedEventChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		e := apitype.Event{Event: store.EventJobStarted, Counter: 10}
		m.post("events", e)
		was := w.runner(m.id)
		if got := w.counted(func() { m.post("events", e) }); got != "get 1" {
			t.Errorf("calls of a replay = %s, want get 1", got)
		}
		if got := w.runner(m.id); got.Version != was.Version {
			t.Errorf("version = %d, want %d", got.Version, was.Version)
		}
	})
}

func TestStolenJobIsAlarmedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
		m := w.online(started.ID)
		m.says(store.EventJobStarted, func(e *apitype.Event) { e.RunID = "6666" })
		if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmJobStolen)}) {
			t.Errorf("alarms = %q, want %s", got, store.AlarmJobStolen)
		}
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if err != nil || s.Runner.Stolen != "6666" {
			t.Errorf("Status = %+v, %v; want the thief's run", s.Runner, err)
		}
	})
}

func TestTooOldRunnerProgramFailsItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		m := w.machineFor(started.ID)
		m.says(store.EventDraining, func(e *apitype.Event) { e.Reason = store.EndTooOld })
		if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmRunnerTooOld)}) {
			t.Errorf("alarms = %q, want %s", got, store.AlarmRunnerTooOld)
		}
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if err != nil || s.State != "failed" || s.Error == nil || s.Error.Code != store.EndTooOld || s.Error.Retryable {
			t.Errorf("Status = %s %+v, %v; want it failed for good", s.State, s.Error, err)
		}
	})
}

func TestSpotNoticeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		m := w.online(started.ID)
		m.says(store.EventDraining, func(e *apitype.Event) { e.Reason, e.Detail = store.EndSpot, "at 12:00\x1b[2J \u202e日本" })
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if err != nil || s.Runner.End == nil || s.Runner.End.Code != store.EndSpot {
			t.Fatalf("Status = %+v, %v; want the spot interruption", s.Runner, err)
		}
		if got, want := s.Runner.History[len(s.Runner.History)-1].Reason, "at 12:00?[2J ?日本"; got != want {
			t.Errorf("detail = %q, want %q", got, want)
		}
	})
}

func TestMachinesBodiesThatCannotBeMeantAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		was := w.runner(m.id).Version
		for _, tc := range []struct {
			call, field string
			body        any
		}{
			{"events", "event", apitype.Event{Event: "rebooted", Counter: 9}},
			{"events", "event", apitype.Event{Counter: 9}},
			{"events", "counter", apitype.Event{Event: "idle", Counter: -1}},
			{"events", "run_id", apitype.Event{Event: "job_started", Counter: 9, RunID: "7001; rm"}},
			{"events", "reason", apitype.Event{Event: "draining", Counter: 9, Reason: strings.Repeat("x", 33)}},
			{"events", "detail", apitype.Event{Event: "draining", Counter: 9, Detail: strings.Repeat("x", 4097)}},
			{"next", "n", apitype.Next{}},
			{"next", "n", apitype.Next{N: -1}},
			{"next", "n", apitype.Next{N: 3}},
			{"next", "n", apitype.Next{N: 1 << 62}},
			{"boot", "token", apitype.Boot{Nonce: nonce, InstanceID: instanceID}},
			{"boot", "token", apitype.Boot{Token: "a b", Nonce: nonce, InstanceID: instanceID}},
			{"boot", "nonce", apitype.Boot{Token: "x", Nonce: "short", InstanceID: instanceID}},
			{"boot", "nonce", apitype.Boot{Token: "x", Nonce: strings.Repeat("é", 26), InstanceID: instanceID}},
			{"boot", "instance_id", apitype.Boot{Token: "x", Nonce: nonce}},
			{"boot", "instance_id", apitype.Boot{Token: "x", Nonce: nonce, InstanceID: "i-0abc\n"}},
		} {
			a := m.post(tc.call, tc.body)
			if p := a.problem(t); a.status != http.StatusUnprocessableEntity || p.Field != tc.field {
				t.Errorf("%s with %+v = %d %+v, want 422 of %s", tc.call, tc.body, a.status, p, tc.field)
			}
		}
		if got := w.runner(m.id).Version; got != was {
			t.Errorf("version = %d, want %d: nothing was written", got, was)
		}
	})
}

// What a body has to be is for those who may call.
func TestMachinesBodiesAreReadBehindTheSession(t *testing.T) {
	w := newWorld(t)
	id := w.start(workflowToken, apitype.Start{}).ID
	for call, body := range map[string]any{
		"events":    apitype.Event{Event: "rebooted", Counter: -1},
		"next":      apitype.Next{N: -1},
		"admission": apitype.Admission{Repository: "demo"},
	} {
		for what, token := range map[string]string{"no token": "", "an operator's token": operatorToken} {
			if a := w.raw("POST", "/runners/"+id+"/"+call, token, body); a.status != http.StatusUnauthorized {
				t.Errorf("%s with %+v and %s = %d %s, want 401", call, body, what, a.status, a.body)
			}
		}
	}
}

func TestMachinesCallsDuringAnOutageAreUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		run := w.runner(m.id)
		w.fate = down
		for name, a := range map[string]answer{
			"boot": w.boot(run, nonce, instanceID), "events": m.post("events", apitype.Event{Event: "idle", Counter: 9}), "next": m.post("next", apitype.Next{N: 2}),
		} {
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("%s = %d %v, want 503 with Retry-After", name, a.status, a.header)
			}
		}
	})
}

func FuzzMachine(f *testing.F) {
	for _, body := range []string{`{}`, `{"event":"idle","counter":5}`, `{"n":2}`, `{"n":9e9}`, `{"event":"draining","counter":9223372036854775807,"detail":"\u0000"}`, `{"token":"x"}`} {
		f.Add("events", body)
		f.Add("next", body)
		f.Add("boot", body)
	}
	f.Fuzz(func(t *testing.T, call, body string) {
		if call != "events" && call != "next" && call != "boot" {
			return
		}
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		hard := w.runner(m.id).Hard
		a := m.post(call, body)
		if a.status >= 500 || !json.Valid(a.body) {
			t.Errorf("%s with %q = %d %s", call, body, a.status, a.body)
		}
		if got := w.runner(m.id); !got.Hard.Equal(hard) {
			t.Errorf("hard = %v, want %v", got.Hard, hard)
		}
	})
}
