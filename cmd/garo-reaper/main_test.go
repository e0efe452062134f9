package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/lambdatest"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
)

// line is the one that tells of a run.
type line struct {
	Level, Msg, Alarm, Error  string
	Requests, Runners, Sweeps int
	TookMS                    int64 `json:"took_ms"`
	Late                      bool
	Counts, Left              map[string]int
	Shard, Of                 int
}

// told returns the lines of a log that tell of runs.
func told(t *testing.T, log string) []line {
	t.Helper()
	var all []line
	for text := range strings.Lines(log) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("log line %s: %v", text, err)
		}
		if strings.HasPrefix(l.Msg, "reaper run") {
			all = append(all, l)
		}
	}
	return all
}

func TestFunctionMakesARunWhateverTheScheduleSends(t *testing.T) {
	aws := lambdatest.New(t)
	f, err := start(t.Context(), aws.Process(""))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /", "GetItem garo-test", "GetParametersByPath /garo/accounts"}
	if got := aws.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls at the start = %q, want %q", got, want)
	}
	for _, payload := range []string{"{}", `{"source": "aws.scheduler"}`} {
		if got, err := lambda.NewHandler(f).Invoke(t.Context(), []byte(payload)); err != nil || string(got) != "null" {
			t.Errorf("Invoke with %s = %s, %v; want a run", payload, got, err)
		}
	}
	if got := told(t, aws.Log()); len(got) != 2 || got[0].Level != "INFO" || got[0].Alarm != "" {
		t.Errorf("log tells of %+v, want two good runs, a line each:\n%s", got, aws.Log())
	}
	if n := strings.Count(aws.Log(), `"CloudWatchMetrics":[{"Namespace":"GARO","Dimensions":[["ControlPlane"]]`); n != 2 || strings.Count(aws.Log(), `"Live":[0]`) != 2 {
		t.Errorf("log has %d lines of metrics, want one a run with what lives:\n%s", n, aws.Log())
	}
	if got := aws.Calls(); !slices.Contains(got, "Query garo-test") {
		t.Errorf("calls of the runs = %q, want them to look at overdue work", got)
	}
}

func TestRunThatFailsIsAnAlarmAndAFailedInvocation(t *testing.T) {
	aws := lambdatest.New(t)
	f, err := start(t.Context(), aws.Process(""))
	if err != nil {
		t.Fatal(err)
	}
	aws.Break("Query", true)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // the store keeps trying until five seconds before the end
	defer cancel()
	if got, err := lambda.NewHandler(f).Invoke(ctx, []byte("{}")); err == nil || !strings.Contains(err.Error(), "reaper run: 1 failures; the first: ") {
		t.Errorf("Invoke = %s, %v; want an error that says how many steps failed", got, err)
	}
	if got := told(t, aws.Log()); len(got) != 1 || got[0].Level != "ERROR" || got[0].Alarm != "reaper" || got[0].Counts["fail"] != 1 || !strings.Contains(got[0].Error, "due index") {
		t.Errorf("log tells of %+v, want one alarm with the cause:\n%s", got, aws.Log())
	}
}

func TestFunctionThatCannotStartSaysWhy(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, want string }{
		"Environment": {"GARO_CONTROL_PLANE", "Prod", `GARO_CONTROL_PLANE "Prod"`},
		"NoRegion":    {"AWS_REGION", "", "AWS_REGION"},
	} {
		t.Run(name, func(t *testing.T) {
			aws := lambdatest.New(t)
			t.Setenv(c.variable, c.value)
			if _, err := start(t.Context(), aws.Process("")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("start = %v, want an error that says %s", err, c.want)
			}
		})
	}
}

// reported is a reaper whose run came to this.
type reported struct {
	reaper.Report
	err error
}

func (r reported) RunShard(context.Context, reaper.Shard) (reaper.Report, error) {
	return r.Report, r.err
}

func TestReportIsOneLine(t *testing.T) {
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	report := reaper.Report{StartedAt: began, EndedAt: began.Add(1500 * time.Millisecond), Requests: 1, Runners: 2, Sweeps: 3,
		Counts: map[reaper.Action]int{reaper.Drain: 2, reaper.Fail: 2}, Lines: make([]reaper.Line, 4)}
	late := report
	late.Late, late.Left = true, map[string]int{"requests": 7}
	for name, c := range map[string]struct {
		made               reported
		level, alarm, fail string
	}{
		"Good":   {reported{report, nil}, "INFO", "", ""},
		"Late":   {reported{late, nil}, "ERROR", "reaper_late", ""},
		"Failed": {reported{report, errors.Join(errors.New("first"), errors.New("second"))}, "ERROR", "reaper", "first"},
		"Broken": {reported{reaper.Report{}, errors.New("no random numbers")}, "ERROR", "reaper", "no random numbers"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			_, err := run(t.Context(), c.made, nil, slog.New(slog.NewJSONHandler(&log, nil)))
			if (err != nil) != (c.fail != "") {
				t.Errorf("run = %v, want an error: %t", err, c.fail != "")
			}
			got := told(t, log.String())
			if len(got) != 1 {
				t.Fatalf("log = %s, want one line", log.String())
			}
			l := got[0]
			if l.Level != c.level || l.Alarm != c.alarm || l.Error != c.fail {
				t.Errorf("line = %+v, want level %s, alarm %q and error %q", l, c.level, c.alarm, c.fail)
			}
			if l.Requests != c.made.Requests || l.Runners != c.made.Runners || l.Sweeps != c.made.Sweeps || l.Late != c.made.Late || l.Counts["drain"] != c.made.Counts[reaper.Drain] {
				t.Errorf("line = %+v, want what the report says: %+v", l, c.made.Report)
			}
			if l.Left["requests"] != c.made.Left["requests"] {
				t.Errorf("line tells that %v was left, want %v", l.Left, c.made.Left)
			}
			if l.TookMS != c.made.EndedAt.Sub(c.made.StartedAt).Milliseconds() {
				t.Errorf("took_ms = %d, want %v", l.TookMS, c.made.EndedAt.Sub(c.made.StartedAt))
			}
		})
	}
}

func TestScheduleOfAShardRunsThatAlone(t *testing.T) {
	aws := lambdatest.New(t)
	f, err := start(t.Context(), aws.Process(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lambda.NewHandler(f).Invoke(t.Context(), []byte(`{"shard":1,"of":3}`)); err != nil {
		t.Errorf("Invoke of a shard: %v", err)
	}
	if _, err := lambda.NewHandler(f).Invoke(t.Context(), []byte(`{"shard":3,"of":3}`)); err == nil || !strings.Contains(err.Error(), "shard 3 of 3") {
		t.Errorf("Invoke of a shard that there is not = %v, want it refused", err)
	}
	if got := told(t, aws.Log()); len(got) != 2 || got[0].Shard != 1 || got[0].Of != 3 || got[0].Level != "INFO" || got[1].Alarm != "reaper" {
		t.Errorf("log tells of %+v, want a run of shard 1 of 3, and one that failed:\n%s", got, aws.Log())
	}
}
