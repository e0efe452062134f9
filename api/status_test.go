package api_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

func TestAbsentAndNotYoursAreTheSameBytes(t *testing.T) {
	w := newWorld(t)
	mine := w.start(workflowToken, apitype.Start{})
	absent := strings.Repeat("a", 26)
	trace := []string{"X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678"}
	want := w.raw("GET", "/status/"+absent, otherToken, nil, trace...)
	if want.status != http.StatusNotFound {
		t.Fatalf("status of an absent request = %d, want 404", want.status)
	}
	for name, got := range map[string]answer{
		"another repository's request":    w.raw("GET", "/status/"+mine.ID, otherToken, nil, trace...),
		"stop of another repository's":    w.raw("POST", "/stop/"+mine.ID, otherToken, nil, trace...),
		"forced stop of another's":        w.raw("POST", "/stop/"+mine.ID+"?force=true", otherToken, nil, trace...),
		"absent, with a status token":     w.raw("GET", "/status/"+absent, mine.StatusToken.Reveal(), nil, trace...),
		"another's, with a status token":  w.raw("GET", "/status/"+w.start(otherToken, apitype.Start{}).ID, mine.StatusToken.Reveal(), nil, trace...),
		"no id":                           w.raw("GET", "/status/x", workflowToken, nil, trace...),
		"no id, with a status token":      w.raw("GET", "/status/x", mine.StatusToken.Reveal(), nil, trace...),
		"an altered status token":         w.raw("GET", "/status/"+mine.ID, mine.StatusToken.Reveal()+"A", nil, trace...),
		"absent, for an operator":         w.raw("GET", "/status/"+absent, operatorToken, nil, trace...),
		"an id in capitals":               w.raw("GET", "/status/"+strings.ToUpper(mine.ID), workflowToken, nil, trace...),
		"a status token of a foreign key": w.raw("GET", "/status/"+mine.ID, foreignStatusToken(t, mine.ID), nil, trace...),
	} {
		if got.status != want.status || string(got.body) != string(want.body) || !slices.Equal(headers(got), headers(want)) {
			t.Errorf("%s = %d %v %s\nwant %d %v %s", name, got.status, headers(got), got.body, want.status, headers(want), want.body)
		}
	}
	if r := w.request(mine.ID); r.State != store.Accepted {
		t.Errorf("the request is %s, want it untouched", r.State)
	}
}

func headers(a answer) []string {
	var out []string
	for name, values := range a.header {
		out = append(out, name+": "+strings.Join(values, ","))
	}
	slices.Sort(out)
	return out
}

func foreignStatusToken(t *testing.T, id string) string {
	t.Helper()
	ring, err := keys.NewRing(client.NewToken(strings.Repeat("x", 32)), "k1", map[string]client.Token{"k1": client.NewToken(strings.Repeat("y", 32))})
	if err != nil {
		t.Fatal(err)
	}
	return ring.Status(id, time.Now().Add(time.Hour)).Reveal()
}

func TestStatusTokenServesForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		c := w.client(started.StatusToken.Reveal())
		time.Sleep(24*time.Hour - time.Second)
		if _, err := c.Status(t.Context(), started.ID); err != nil {
			t.Errorf("Status within a day = %v", err)
		}
		time.Sleep(time.Second)
		if _, err := c.Status(t.Context(), started.ID); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("Status after a day = %v, want %v", err, client.ErrNotFound)
		}
	})
}

func TestWhoMaySeeARequest(t *testing.T) {
	w := newWorld(t)
	started := w.start(workflowToken, apitype.Start{})
	again := workflow
	again.Claims.RunID = "8000" // another run of the same repository
	w.github.callers["again"] = again
	for _, token := range []string{workflowToken, "again", operatorToken, started.StatusToken.Reveal()} {
		if s, err := w.client(token).Status(t.Context(), started.ID); err != nil || s.ID != started.ID {
			t.Errorf("Status with %s = %+v, %v; want the request", token, s, err)
		}
	}
	nobody := workflow
	nobody.Claims.RepositoryID = ""
	w.github.callers["nobody"] = nobody
	if _, err := w.client("nobody").Status(t.Context(), started.ID); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Status without repository_id = %v, want %v", err, client.ErrNotFound)
	}
}

func TestStatusTellsTheWholeStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{Labels: []string{"x"}})
		c := w.client(started.StatusToken.Reveal())
		s, err := c.Status(t.Context(), started.ID)
		if err != nil || s.State != "accepted" || s.Runner != nil || s.Attempts == nil || s.Repository != "alphagov/demo" || s.Trace == "" {
			t.Errorf("Status = %+v, %v; want it accepted, without a runner", s, err)
		}
		run := w.intent(started.ID)
		s, err = c.Status(t.Context(), started.ID)
		if err != nil || s.State != "waiting" || s.Runner == nil || s.Runner.State != "new" || s.Runner.Name != "" || s.Runner.Subnet != "subnet-a1" {
			t.Errorf("Status = %+v %+v, %v; want it to wait for a new runner", s, s.Runner, err)
		}
		if want := map[string]string{"root_volume": "50 GiB, gp3", "tags": "team=build"}; !maps.Equal(s.Runner.Options, want) {
			t.Errorf("options = %v, want %v", s.Runner.Options, want)
		}
		w.launched(run.ID, instanceID)
		w.configured(run.ID)
		s, err = c.Status(t.Context(), started.ID)
		if err != nil || s.Runner.InstanceID != instanceID || s.Runner.Name != "garo-test-"+run.ID+"-1" || len(s.Attempts) != 1 || s.Attempts[0].Code != "launched" {
			t.Errorf("Status = %+v %+v, %v; want the instance, its name and its launch", s, s.Runner, err)
		}
		if want := w.lock(run.Lock).Exp; !s.Runner.ExpiresAt.Equal(want) {
			t.Errorf("expires_at = %v, want %v", s.Runner.ExpiresAt, want)
		}
	})
}

func TestNameStaysKnownAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		m := w.online(started.ID)
		m.says(store.EventJobStarted)
		m.says(store.EventJobDone)
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if want := "garo-test-" + m.id + "-1"; err != nil || s.Runner.Name != want || s.Runner.Jobs != 1 {
			t.Errorf("runner = %+v, %v; want name %s and one job", s.Runner, err, want)
		}
	})
}

func TestPollsSettleARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		w.online(started.ID)
		a := w.raw("GET", "/status/"+started.ID, started.StatusToken.Reveal(), nil)
		if !strings.Contains(string(a.body), `"state":"ready"`) || a.header.Get("Retry-After") != "" {
			t.Errorf("status = %v %s, want ready without Retry-After", a.header, a.body)
		}
		if r := w.request(started.ID); r.State != store.Ready {
			t.Errorf("the record is %s, want ready", r.State)
		}
	})
}

func TestPollOfAGivenUpRunnerSendsTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		w.abandon(w.intent(started.ID))
		w.sent = nil
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if err != nil || s.State != "accepted" || s.Wait != store.WaitBackoff || s.Tries != 1 || s.Runner != nil || len(s.Attempts) != 1 {
			t.Errorf("Status = %+v, %v; want it accepted again, with the attempt", s, err)
		}
		if len(w.sent) != 1 || w.sent[0].delay != 30*time.Second || w.sent[0].ID != started.ID {
			t.Errorf("sent = %+v, want the start message with 30s of delay", w.sent)
		}
		if _, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID); err != nil || len(w.sent) != 1 {
			t.Errorf("second poll: %v, sent %+v; want nothing more", err, w.sent)
		}
	})
}

// The record of a request that ended with its runner has the runner's attempts,
// too: each is answered once, in the order in which they were made.
func TestEachAttemptIsListedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		first := w.intent(started.ID)
		w.abandon(first)
		c := w.client(started.StatusToken.Reveal())
		if _, err := c.Status(t.Context(), started.ID); err != nil { // accepts it again
			t.Fatal(err)
		}
		r := w.request(started.ID)
		r.Tries = len(w.limits.Waits) // no further one is left
		w.put(&r)
		last := w.intent(started.ID)
		w.abandon(last)
		s, err := c.Status(t.Context(), started.ID)
		if err != nil || s.State != "failed" || s.Runner == nil || s.Runner.ID != last.ID {
			t.Fatalf("Status = %+v, %v; want it failed, with its last runner", s, err)
		}
		var got []string
		for _, a := range s.Attempts {
			got = append(got, a.Runner)
		}
		if want := []string{first.ID, last.ID}; !slices.Equal(got, want) {
			t.Errorf("attempts of the runners %q, want one each of %q", got, want)
		}
		// What became known only after the request had ended is in it as well.
		run := w.runner(last.ID)
		run.Attempts = append(run.Attempts, store.Attempt{Runner: run.ID, Code: "launched"})
		w.put(&run)
		if s, err = c.Status(t.Context(), started.ID); err != nil || len(s.Attempts) != 3 || s.Attempts[2].Code != "launched" {
			t.Errorf("Status = %+v, %v; want three attempts, the newest last", s.Attempts, err)
		}
	})
}

// A machine takes 27 s: a request that gives up after one second never gets it,
// even if nobody looked in between.
func TestRequestIsNotReadyAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		r := w.request(started.ID)
		r.GiveUpAt = time.Now().Add(time.Second)
		w.put(&r)
		m := w.machineFor(started.ID)
		time.Sleep(27 * time.Second)
		m.says(store.EventOnline)
		w.confirmed(m.id)
		time.Sleep(time.Second)
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if err != nil || s.State != "expired" || s.Error == nil || s.Error.Code != "expired" || !s.ReadyAt.IsZero() {
			t.Errorf("Status = %+v, %v; want it expired", s, err)
		}
	})
}

// abandon ends a runner that found no capacity.
func (w *world) abandon(run store.Runner) {
	w.Helper()
	c := w.caseOf(run.ID)
	c.Request = store.Request{} // which is left to the next look
	w.apply(c.Abandon(time.Now(), w.limits, "InsufficientInstanceCapacity", store.Said{}, store.NewEnd(store.EndNoCapacity)))
}

func TestOnlyWhoCommitsTheNextTrySendsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		w.abandon(w.intent(started.ID))
		w.sent = nil
		w.fate = func(op string, _ int) storetest.Fate {
			if op == "commit" { // the reaper settles it between the poll's reads and its commit
				w.fate = nil
				w.apply(w.caseOf(w.request(started.ID).Runner).Settle(time.Now(), w.limits))
			}
			return storetest.Pass
		}
		s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID)
		if err != nil || s.State != "accepted" || s.Tries != 1 || len(w.sent) != 0 {
			t.Errorf("Status = %+v, %v, sent %+v; want it accepted again, and nothing sent", s, err, w.sent)
		}
	})
}

func TestSettledStateIsAnsweredThoughItIsNotCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		w.online(started.ID)
		w.fate = func(op string, _ int) storetest.Fate {
			if op == "commit" {
				return storetest.FailBefore
			}
			return storetest.Pass
		}
		if s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID); err != nil || s.State != "ready" {
			t.Errorf("Status = %s, %v; want ready", s.State, err)
		}
		if r := w.request(started.ID); r.State != store.Waiting {
			t.Errorf("the record is %s, want it as it was", r.State)
		}
	})
}

// Another writer commits between the poll's reads and its commit.
func TestPollThatLosesAnswersWhatTheWinnerMeans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		w.online(started.ID)
		w.fate = func(op string, _ int) storetest.Fate {
			if op == "commit" {
				w.fate = nil
				w.apply(store.Case{Request: w.request(started.ID)}.Stop(time.Now(), w.limits, "another", false))
			}
			return storetest.Pass
		}
		if s, err := w.client(started.StatusToken.Reveal()).Status(t.Context(), started.ID); err != nil || s.State != "cancelled" {
			t.Errorf("Status = %s, %v; want what the other one made of it: cancelled", s.State, err)
		}
	})
}

func TestRetryAfterTellsWhenToPoll(t *testing.T) {
	w := newWorld(t)
	started := w.start(workflowToken, apitype.Start{})
	if a := w.raw("GET", "/status/"+started.ID, workflowToken, nil); a.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After = %q, want 2", a.header.Get("Retry-After"))
	}
	if started.RetryAfter != 2 {
		t.Errorf("retry_after = %d, want 2", started.RetryAfter)
	}
}

func TestCallsOfAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		for _, step := range []struct {
			name, want string
			do         func()
		}{
			{"accepted", "get 1", func() {}},
			{"not taken up", "get 1 commit 1 send 1", func() { time.Sleep(5 * time.Second) }},
			{"not taken up, again", "get 1", func() { time.Sleep(5 * time.Second) }},
			{"waiting", "get 2", func() { w.intent(started.ID) }},
			{"settled", "get 2 commit 1", func() {
				run := w.request(started.ID).Runner
				w.launched(run, instanceID)
				w.configured(run)
				m := &machine{world: w, id: run}
				a := w.boot(w.runner(run), nonce, instanceID)
				m.booted.Session = field(t, a, "session")
				m.says(store.EventOnline)
				w.confirmed(run)
			}},
			{"ready", "get 2", func() {}},
			{"absent", "get 1", func() { started.ID = strings.Repeat("a", 26) }},
		} {
			step.do()
			if got := w.counted(func() { w.raw("GET", "/status/"+started.ID, operatorToken, nil) }); got != step.want {
				t.Errorf("calls of a poll, %s = %s, want %s", step.name, got, step.want)
			}
		}
	})
}

func TestStopCancelsWhatIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, prepare := range map[string]func(w *world, id string){
			"accepted": func(*world, string) {},
			"waiting":  func(w *world, id string) { w.intent(id) },
		} {
			w := newWorld(t)
			started := w.start(workflowToken, apitype.Start{})
			prepare(w, started.ID)
			got, err := w.client(started.StatusToken.Reveal()).Stop(t.Context(), started.ID, false)
			if err != nil || got.State != "cancelled" || got.Draining != (name == "waiting") {
				t.Errorf("Stop of %s = %+v, %v; want it cancelled, and its own runner drained", name, got, err)
			}
			r := w.request(started.ID)
			if r.State != store.Cancelled || !strings.Contains(r.History[len(r.History)-1].Reason, "status token") {
				t.Errorf("record = %s %+v, want it cancelled by the status token", r.State, r.History)
			}
			if name == "waiting" && (w.runner(r.Runner).State != store.RunnerDraining || w.lock(r.LockKey()).State != store.LockDraining) {
				t.Errorf("runner %s, lock %s; want both draining", w.runner(r.Runner).State, w.lock(r.LockKey()).State)
			}
			again, err := w.client(started.StatusToken.Reveal()).Stop(t.Context(), started.ID, false)
			if err != nil || again != got {
				t.Errorf("Stop again = %+v, %v; want %+v", again, err, got)
			}
		}
	})
}

func TestStopOfASharedRunnerEndsItOnlyForItsOnlyUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tc := range map[string]struct {
			joined, force, draining bool
		}{
			"alone":            {false, false, true},
			"joined":           {true, false, false},
			"joined, by force": {true, true, true},
		} {
			w := newWorld(t)
			first := w.start(workflowToken, apitype.Start{})
			w.online(first.ID)
			if tc.joined {
				second := w.start(workflowToken, apitype.Start{})
				w.apply(store.Case{Request: w.request(second.ID), Lock: w.lock(w.request(first.ID).LockKey())}.Share(time.Now(), w.limits))
			}
			got, err := w.client(workflowToken).Stop(t.Context(), first.ID, tc.force)
			if err != nil || got.State != "ready" || got.Draining != tc.draining {
				t.Errorf("%s: Stop = %+v, %v; want ready, draining %t", name, got, err, tc.draining)
			}
			r := w.request(first.ID)
			if r.State != store.Ready {
				t.Errorf("%s: the record is %s, want the settled state", name, r.State)
			}
			if run := w.runner(r.Runner); (run.State == store.RunnerDraining) != tc.draining {
				t.Errorf("%s: the runner is %s, want draining %t", name, run.State, tc.draining)
			}
		}
	})
}

func TestStopOfAReadyEphemeralRequestDrainsItsRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
		m := w.online(started.ID)
		if got, err := w.client(operatorToken).Stop(t.Context(), started.ID, false); err != nil || !got.Draining || got.State != "ready" {
			t.Errorf("Stop = %+v, %v; want ready and draining", got, err)
		}
		if order := m.says(store.EventHeartbeat); order != "drain" {
			t.Errorf("order = %s, want drain", order)
		}
	})
}

// A workflow job is given the machine of another one: the lock of that launch names it.
func TestStopDrainsTheLockOfAMachineThatWasTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
		second := w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
		w.online(first.ID)
		run := w.runner(w.request(first.ID).Runner)
		taker := w.request(second.ID)
		taker.State, taker.Runner = store.Waiting, run.ID
		w.put(&taker)
		if got, err := w.client(operatorToken).Stop(t.Context(), second.ID, true); err != nil || !got.Draining {
			t.Errorf("Stop = %+v, %v; want the machine to drain", got, err)
		}
		if lock := w.lock(run.Lock); lock.State != store.LockDraining || w.runner(run.ID).State != store.RunnerDraining {
			t.Errorf("lock %s is %s, its runner %s; want both draining", lock.Key, lock.State, w.runner(run.ID).State)
		}
	})
}

func TestStopAndStartOfTheRunnerCannotBothWin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		w.fate = func(op string, _ int) storetest.Fate {
			if op == "commit" { // a worker begins between the read and the commit of the stop
				w.fate = nil
				w.intent(started.ID)
			}
			return storetest.Pass
		}
		got, err := w.client(workflowToken).Stop(t.Context(), started.ID, false)
		if err != nil || got.State != "cancelled" || !got.Draining {
			t.Errorf("Stop = %+v, %v; want it cancelled and the new runner drained", got, err)
		}
	})
}

func TestStopGivesUpAgainstEndlessConflicts(t *testing.T) {
	w := newWorld(t)
	started := w.start(workflowToken, apitype.Start{})
	w.fate = func(op string, _ int) storetest.Fate {
		if op == "commit" {
			r := w.request(started.ID)
			w.put(&r)
		}
		return storetest.Pass
	}
	var a answer
	calls := w.counted(func() { a = w.raw("POST", "/stop/"+started.ID, workflowToken, nil) })
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || calls != "get 5 commit 5" {
		t.Errorf("stop = %d %v after %s, want 503 with Retry-After after five tries", a.status, a.header, calls)
	}
}

func TestWaitFollowsARequestToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{})
		go func() {
			time.Sleep(3 * time.Second)
			w.intent(started.ID)
			time.Sleep(3 * time.Second)
			if _, err := w.client(operatorToken).Stop(context.WithoutCancel(t.Context()), started.ID, false); err != nil {
				t.Error(err)
			}
		}()
		var seen []string
		got, err := w.client(started.StatusToken.Reveal()).Wait(t.Context(), started.ID, func(s apitype.Status) { seen = append(seen, s.State) })
		if want := []string{"accepted", "waiting", "cancelled"}; err == nil || got.State != "cancelled" || !slices.Equal(seen, want) {
			t.Errorf("Wait = %s, %v, after %q; want %q", got.State, err, seen, want)
		}
	})
}
