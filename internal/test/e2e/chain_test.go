//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// rendering is what Terraform makes of the control plane, as package terraformtest
// holds it.
const rendering = "../terraformtest/testdata/control-plane.golden.json"

// recursionAllowed reports whether the deployment lets a function be invoked in a
// loop.
func recursionAllowed(t *testing.T, part string) bool {
	t.Helper()
	b, err := os.ReadFile(rendering)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Runs map[string]map[string]map[string]any
	}
	if err := json.Unmarshal(b, &golden); err != nil || len(golden.Runs["rendered"]) == 0 {
		t.Fatalf("%s: %v; want what Terraform rendered", rendering, err)
	}
	for _, r := range golden.Runs["rendered"] {
		if r["function_name"] == "garo-"+part && r["recursive_loop"] == "Allow" {
			return true
		}
	}
	return false
}

// sending is the address at which the functions reach SQS: what they send there
// keeps its trace.
func (w *world) sending(address string) string {
	w.Helper()
	next, err := w.traces.Around(address)
	if err != nil {
		w.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		if w.opt.undelayed {
			hurry(w, req)
		}
		next.ServeHTTP(res, req)
	}))
	w.Cleanup(s.Close)
	return s.URL
}

// hurry takes the delay out of a message that is being sent.
func hurry(w *world, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return // the caller has gone
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		w.Errorf("call of SQS: %v", err)
	}
	delete(m, "DelaySeconds")
	if b, err = json.Marshal(m); err != nil {
		w.Errorf("call of SQS: %v", err)
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
}

// hop hands the worker the one message that is in the queue, and returns how often
// the worker was invoked before in the chain that sent it.
func (w *world) hop() int {
	w.Helper()
	batch, err := w.queue.Receive(w.Context(), batchSize, 5*time.Second)
	if err != nil || len(batch) != 1 {
		w.Fatalf("the queue has %d messages, %v; want one", len(batch), err)
	}
	hops := w.workers[0].Hops(w.traces.Of(batch[0].ID))
	w.deliver(w.workers[0], []queue.Delivery{batch[0]})
	if crashes := w.takeCrashes(); len(crashes) > 0 {
		w.Fatalf("invocation %d of one chain fails: %v", hops+1, crashes)
	}
	return hops
}

// pass lets the time pass until a request is due again.
func (w *world) pass(s apitype.Started) {
	w.Helper()
	edit(w, s.ID, func(r *store.Request) { r.DueAt, r.SentAt = time.Now(), time.Now().Add(-time.Minute) })
}

// A burst waits for its slots in the queue: a message of the worker invokes the
// worker, which sends it again. Lambda takes that for a loop at the 17th time,
// unless the deployment allows it.
func TestWaitForASlotIsNoLoopToLambda(t *testing.T) {
	w := newWorld(t, options{undelayed: true, registration: map[string]any{"pacing": map[string]any{"burst": 1, "interval_ms": 60_000}}})
	w.ask("1", apitype.Start{Mode: store.Ephemeral, IdempotencyKey: "launched"})
	w.hop()
	s := w.ask("1", apitype.Start{Mode: store.Ephemeral, IdempotencyKey: "paced"})
	const hops = 20 // at 22 s each, what an invocation can look ahead: a burst of 440 at one a second
	last := 0
	for range hops {
		last = w.hop()
		w.pass(s)
	}
	if last != hops-1 {
		t.Errorf("the last message was sent in a chain of %d invocations, want %d", last, hops-1)
	}
	if got := w.status(s); got.Wait != store.WaitPaced {
		t.Errorf("request is %s and waits for %q, want %s", got.State, got.Wait, store.WaitPaced)
	}
}

// What waits for the quota waits for minutes: it lies in no queue. Each time the
// reaper sends its message, which begins a chain.
func TestWaitForTheQuotaIsNoChainOfMessages(t *testing.T) {
	w := newWorld(t, options{undelayed: true, registration: map[string]any{"max_runners": 1}})
	w.ask("1", apitype.Start{Mode: store.Ephemeral, IdempotencyKey: "launched"})
	w.hop()
	s := w.ask("1", apitype.Start{Mode: store.Ephemeral, IdempotencyKey: "waits"})
	w.hop()
	for range 3 {
		w.pass(s)
		w.reap()
		if hops := w.hop(); hops != 0 {
			t.Errorf("the message was sent in a chain of %d invocations of the worker, want none: the reaper's", hops)
		}
		if got := w.status(s); got.Wait != store.WaitQuota {
			t.Errorf("request is %s and waits for %q, want %s", got.State, got.Wait, store.WaitQuota)
		}
	}
}
