package reaper_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/reaper"
)

func TestReportIsTheSameForTheSameRecords(t *testing.T) {
	var reports []string
	for range 3 {
		inWorld(t, func(w *world) {
			w.everything()
			w.hub.latency = 10 * time.Millisecond
			r := w.run()
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			reports = append(reports, string(b)+r.String())
		})
	}
	if reports[0] != reports[1] || reports[1] != reports[2] {
		t.Errorf("three runs over the same records tell\n%s\n%s\n%s", reports[0], reports[1], reports[2])
	}
}

func TestReportReadsWell(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	r := reaper.Report{
		StartedAt: at, EndedAt: at.Add(1500 * time.Millisecond), Requests: 1, Runners: 2, Sweeps: 1,
		Counts: map[reaper.Action]int{reaper.Drain: 1, reaper.Ended: 1},
		Lines: []reaper.Line{
			{Kind: "runner", ID: "r1", Action: reaper.Drain, Reason: "expired"},
			{Kind: "runner", ID: "r2", Action: reaper.Ended, Reason: "EC2: terminated"},
		},
	}
	want := "reaper run of 2026-11-23T12:00:00Z, 1.5s: 1 requests, 2 runners and 1 sweeps were due; 1 drain, 1 ended\n" +
		"runner       r1                           drain      expired\n" +
		"runner       r2                           ended      EC2: terminated\n"
	if got := r.String(); got != want {
		t.Errorf("String() =\n%swant\n%s", got, want)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	wantJSON := `{"started_at":"2026-11-23T12:00:00Z","ended_at":"2026-11-23T12:00:01.5Z","requests":1,"runners":2,"sweeps":1,` +
		`"counts":{"drain":1,"ended":1},"lines":[{"kind":"runner","id":"r1","action":"drain","reason":"expired"},` +
		`{"kind":"runner","id":"r2","action":"ended","reason":"EC2: terminated"}]}`
	if string(b) != wantJSON {
		t.Errorf("JSON = %s\nwant %s", b, wantJSON)
	}
}
