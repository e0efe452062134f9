package api_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestCheckIsRecordedSentAndPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.client(operatorToken)
		if _, err := c.Check(t.Context(), client.LastCheck); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("the last check of none = %v, want %v", err, client.ErrNotFound)
		}
		started, err := c.StartCheck(t.Context(), apitype.CheckStart{AccountID: accountID, Region: region})
		if err != nil || started.State != apitype.CheckQueued || started.Caller != "operator ann" || started.AccountID != accountID || started.Result != apitype.ResultOK {
			t.Fatalf("StartCheck = %+v, %v; want it queued for operator ann", started, err)
		}
		sent := w.checks()
		if len(sent) != 1 || sent[0].ID != started.ID {
			t.Fatalf("sent %+v, want the check", sent)
		}
		got, err := c.Check(t.Context(), started.ID)
		if err != nil || got.ID != started.ID || len(w.checks()) != 1 {
			t.Errorf("Check = %+v, %v, and sent %d messages; want the same, and no second one", got, err, len(w.checks()))
		}
		time.Sleep(time.Minute)
		if _, err := c.Check(t.Context(), started.ID); err != nil || len(w.checks()) != 2 {
			t.Errorf("a check that nobody took for a minute was sent %d times, %v; want twice", len(w.checks()), err)
		}
		check := read[store.Checkup](w, started.ID)
		taken, _ := check.Take(time.Now(), store.Claim{By: "w1", Until: time.Now().Add(time.Minute)})
		w.put(taken.Changes[0].Item)
		running := read[store.Checkup](w, started.ID)
		w.put(running.Found(store.Part{Account: accountID}, []store.Finding{{Check: "role", Result: store.ResultFailed, Evidence: "no", Remedy: "do"}}).Changes[0].Item)
		found := read[store.Checkup](w, started.ID)
		for _, change := range found.End(time.Now(), store.Checkup{ID: store.LastCheck}).Changes {
			w.put(change.Item)
		}
		for _, id := range []string{started.ID, client.LastCheck} {
			got, err := c.Check(t.Context(), id)
			if err != nil || got.State != apitype.CheckDone || got.Result != apitype.ResultFailed || len(got.Findings) != 1 || got.Findings[0].Remedy != "do" || got.Findings[0].AccountID != accountID {
				t.Errorf("Check(%s) = %+v, %v; want it done, with its finding", id, got, err)
			}
		}
		a := w.raw("GET", "/checks/"+started.ID, operatorToken, nil)
		if again := w.raw("GET", "/checks/"+started.ID, operatorToken, nil, "If-None-Match", a.header.Get("ETag")); again.status != http.StatusNotModified {
			t.Errorf("an unchanged check = %d, want 304", again.status)
		}
	})
}

func TestCheckThatWasNotDoneInTimeIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started, err := w.client(operatorToken).StartCheck(t.Context(), apitype.CheckStart{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.client(operatorToken).WaitCheck(t.Context(), started.ID, nil)
		if took := time.Since(started.CreatedAt); err != nil || got.State != apitype.CheckUnknown || took < 10*time.Minute || took > 11*time.Minute {
			t.Errorf("WaitCheck = %s, %v after %s; want unknown after ten minutes", got.State, err, took)
		}
	})
}

func TestChecksThatCannotBeMeantAreRefused(t *testing.T) {
	w := newWorld(t)
	for field, body := range map[string]apitype.CheckStart{
		"runner_id": {RunnerID: "x"}, "runner_id ": {RunnerID: strings.Repeat("a", 26)}, "account_id ": {RunnerID: strings.Repeat("a", 26), AccountID: accountID},
		"account_id": {AccountID: "12"}, "region": {Region: region}, "region ": {AccountID: accountID, Region: "../x"},
	} {
		if a := w.raw("POST", "/checks", operatorToken, body); a.status != http.StatusUnprocessableEntity {
			t.Errorf("a check with a wrong %s = %d %s, want 422", field, a.status, a.body)
		}
	}
	for _, id := range []string{"x", "LAST", "last%2f"} {
		if a := w.raw("GET", "/checks/"+id, operatorToken, nil); a.status != http.StatusNotFound {
			t.Errorf("check %s = %d, want 404", id, a.status)
		}
	}
	if len(w.checks()) != 0 {
		t.Errorf("%d messages were sent, want none", len(w.checks()))
	}
}

// checks returns the messages of checks that were sent.
func (w *world) checks() (all []queue.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.sent {
		if m.Kind == queue.Check {
			all = append(all, m.Message)
		}
	}
	return all
}

func TestConsoleOfARunnerIsAskedForAndShown(t *testing.T) {
	w := newWorld(t)
	id := strings.Repeat("r", 25) + "a"
	w.put(&store.Runner{ID: id, State: store.RunnerOnline})
	started, err := w.client(operatorToken).StartCheck(t.Context(), apitype.CheckStart{RunnerID: id})
	if err != nil || started.RunnerID != id || started.Console != "" {
		t.Fatalf("StartCheck = %+v, %v; want it about the runner", started, err)
	}
	w.put(read[store.Checkup](w, started.ID).Printed("hello\n", store.Finding{Check: "console", Result: store.ResultOK, Evidence: "6 bytes"}).Changes[0].Item)
	got, err := w.client(operatorToken).Check(t.Context(), started.ID)
	if err != nil || got.Console != "hello\n" || got.Findings[0].AccountID != "" {
		t.Errorf("Check = %+v, %v; want what the machine printed", got, err)
	}
}
