package api_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestHealthIsWhatTheReaperRecorded(t *testing.T) {
	w := newWorld(t)
	c := w.client(operatorToken)
	if got, err := c.Health(t.Context()); err != nil || len(got.Runs) != 0 || got.Shards != 0 {
		t.Errorf("health beside a reaper that records nothing = %+v, %v; want no run of no shard", got, err)
	}
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	raised := store.Raised{Code: store.AlarmBrake, Count: 3, Since: at.Add(-time.Hour), At: at, Text: "5 machines"}
	run := store.ReaperRun{
		ID: "0", StartedAt: at, EndedAt: at.Add(time.Second), LateMS: 1500, Left: map[string]int{"ends": 4}, Failures: 2, OldestMS: 90_000, GitHubLeft: new(0),
		LookedAt: at, Braked: []string{"1/eu-west-2"}, Program: "2.330.0", ProgramEndsAt: at.Add(time.Hour), Alarms: []store.Raised{raised},
	}
	w.put(&run)
	want := apitype.ReaperRun{
		StartedAt: at, EndedAt: at.Add(time.Second), LateS: 1.5, Left: map[string]int{"ends": 4}, Failures: 2, OldestWaitS: 90, GitHubLeft: new(0),
		LookedAt: at, Brakes: []string{"1/eu-west-2"}, RunnerVersion: "2.330.0", RunnerVersionEndsAt: at.Add(time.Hour),
		Alarms: []apitype.RaisedAlarm{{Code: "brake", Count: 3, Since: at.Add(-time.Hour), At: at, Text: "5 machines"}},
	}
	got, err := c.Health(t.Context())
	if d := cmp.Diff(apitype.ReaperHealth{Runs: []apitype.ReaperRun{want}, Shards: 1}, got); d != "" || err != nil {
		t.Errorf("health, %v (-want +got):\n%s", err, d)
	}
	a := w.raw("GET", "/health", operatorToken, nil)
	if again := w.raw("GET", "/health", operatorToken, nil, "If-None-Match", a.header.Get("ETag")); again.status != http.StatusNotModified {
		t.Errorf("unchanged health = %d, want 304", again.status)
	}
	if a := w.raw("GET", "/health?x=1", operatorToken, nil); a.status != http.StatusUnprocessableEntity {
		t.Errorf("health with a query = %d, want 422", a.status)
	}
	if _, err := w.client(workflowToken).Health(t.Context()); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("health for a workflow = %v, want %v", err, client.ErrForbidden)
	}
}

// The first shard says how many there are. What others recorded when they were as many is
// shown, and nothing of before.
func TestHealthIsOfEveryShardThatIsThere(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	run := func(id string, of int) *store.ReaperRun {
		return &store.ReaperRun{ID: id, Of: of, StartedAt: at, EndedAt: at}
	}
	w.put(run("0", 3), run("2", 3), run("1", 4), run("3", 4))
	got, err := w.client(operatorToken).Health(t.Context())
	if err != nil || got.Shards != 3 || len(got.Runs) != 2 || got.Runs[0].Shard != 0 || got.Runs[1].Shard != 2 {
		t.Errorf("health = %+v, %v; want runs of the shards 0 and 2 of three", got, err)
	}
}
