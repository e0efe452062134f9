package store_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestRecordsWithAndWithoutJobsAreRead holds what a deploy under live runners needs, and
// going back from one: a version that knows no workflow jobs reads what this one writes of
// them, this one reads what that one writes, and who has no job has no field more.
func TestRecordsWithAndWithoutJobsAreRead(t *testing.T) {
	request := plain("r1", "21")
	request.State, request.Runner, request.Launches, request.HeldAt, request.QueuedAt = store.Waiting, "x1", 2, t0, t0
	runner := launchedAt(0, store.Placement{Market: store.Spot, InstanceType: "a", Subnet: "s"})
	runner.For, runner.Took = "r1", store.Took{Job: "21", Request: "r1", At: t0}
	runner.Admission = store.Admission{RunID: "8", Repository: request.Repository, AskedAt: t0, Times: 1}
	newer := []string{`"for"`, `"took"`, `"admission"`, `"launches"`, `"held_at"`, `"queued_at"`, `"run_id":"20"`}
	encode := func(v any) string {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	var older struct {
		ID, State, Mode, Runner string
		Labels                  []string
	}
	if err := json.Unmarshal([]byte(encode(request)), &older); err != nil || older.ID != "r1" || older.State != "waiting" || older.Mode != store.Ephemeral || older.Runner != "x1" || len(older.Labels) != 1 {
		t.Errorf("a version without jobs reads %+v, %v; want an ephemeral request that waits for x1", older, err)
	}
	if err := json.Unmarshal([]byte(encode(runner)), &older); err != nil || older.ID != "x1" {
		t.Errorf("a version without jobs reads %+v, %v; want the runner", older, err)
	}

	// What that version leaves out when it writes is nobody's job, and no machine of anybody.
	var r store.Request
	if err := json.Unmarshal([]byte(`{"id":"r1","state":"waiting","mode":"ephemeral","runner":"x1"}`), &r); err != nil || r.OfJob() || r.LockKey() != "r1" {
		t.Errorf("the request of a version without jobs is %+v with lock %q, %v; want one of POST /start", r, r.LockKey(), err)
	}
	var x store.Runner
	if err := json.Unmarshal([]byte(`{"id":"x1","state":"online"}`), &x); err != nil || x.OfJob() || x.Took != (store.Took{}) || x.Admission.Pending() {
		t.Errorf("the runner of a version without jobs is %+v, %v; want one that is for no job", x, err)
	}

	text := encode(store.Request{ID: "r2", State: store.Accepted, Mode: store.Ephemeral}) + encode(launchedAt(0, runner.Plan...))
	for _, field := range newer {
		if strings.Contains(text, field) {
			t.Errorf("records without a job have the field %s: %s", field, text)
		}
	}
}
