package demo

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var timed = regexp.MustCompile(`^ *([0-9]+\.[0-9])s  `)

func TestStoryHoldsEveryPromise(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := filepath.Join(t.TempDir(), "records")
	var out bytes.Buffer
	if err := Run(t.Context(), &out, dir); err != nil {
		t.Fatalf("Run: %v\n%s", err, &out)
	}
	text := out.String()
	if got := strings.Count(text, "\n  held "); got != 6 || strings.Contains(text, "BROKEN") {
		t.Errorf("%d promises held, want 6:\n%s", got, text)
	}
	// Each scene has left its mark in the records. Long lines are broken.
	unbroken := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"is the same one", "next: spot t3a.small", "shares runner", "boot_timeout", "spot_interruption", "cancelled by operator local",
		"terminated: no record names it", "job of run 2", "asks for config 2",
		"the reaper found plain1", "job_cancelled", "both machines have the label garo", "began on runner",
	} {
		if !strings.Contains(unbroken, want) {
			t.Errorf("the story does not tell %q:\n%s", want, text)
		}
	}
	// The lines are in the order of their times.
	last, lines := 0.0, 0
	for line := range strings.Lines(text) {
		m := timed.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		lines++
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil || at < last {
			t.Errorf("%q comes after %.1fs", line, last)
		}
		last = at
	}
	if lines < 50 {
		t.Errorf("the story has %d lines with a time, want at least 50:\n%s", lines, text)
	}
	for _, name := range []string{"garo.db", "log"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the records are not left: %v", err)
		}
	}
}

// Steps are recorded after the time that they carry, by as much as the machine is
// busy: what is known too late for its place comes next, and no line goes
// back in time.
func TestLinesAreInOrderHoweverLateTheyAreKnown(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	var told teller
	var got []string
	for _, look := range []struct {
		before int
		news   []entry
	}{
		{100, []entry{{at(300), "d"}, {at(50), "a"}, {at(50), "b"}}},
		{200, []entry{{at(20), "late"}, {at(150), "c"}}},
		{400, []entry{{at(250), "e"}}},
		{2000, []entry{{at(10), "very late"}, {at(2000), "f"}, {at(2001), "not yet"}}},
	} {
		for _, e := range told.tell(look.news, at(look.before)) {
			got = append(got, fmt.Sprintf("%d %s", e.at.Sub(began).Milliseconds(), e.text))
		}
	}
	want := []string{"50 a", "50 b", "50 late", "150 c", "250 e", "300 d", "300 very late", "2000 f"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// sound is evidence in which all promises held.
func sound() evidence {
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	machine := func(id, runner, request string, from, to int) simfleet.Fact {
		return simfleet.Fact{
			Instance: fleet.Instance{
				ID: id, State: fleet.Terminated, LaunchedAt: at(from),
				Tags: map[string]string{fleet.TagRunner: runner, fleet.TagRequest: request},
			},
			CredentialedAt: at(from + 1), EndedAt: at(to),
		}
	}
	runner := func(id, lock string, from, drain, end, jobs int) store.Runner {
		return store.Runner{
			ID: id, Lock: lock, State: store.RunnerEnded, CreatedAt: at(from), DrainingAt: at(drain), EndedAt: at(end), Jobs: jobs,
			End: &store.Failure{Code: "idle", Text: "No job came."},
		}
	}
	request := func(id, runner string) store.Request {
		return store.Request{ID: id, State: store.Ready, Runner: runner, History: make(store.History, 3)}
	}
	plain := func(id, runner string) store.Request {
		r := request(id, runner)
		r.Job.ID = "job of " + id
		return r
	}
	took := func(id, launchedFor, took string) store.Runner {
		r := runner(id, launchedFor+"/0", 5, 9, 12, 1)
		r.Request, r.For = launchedFor, launchedFor
		r.Took = store.Took{Job: "job of " + took, Request: took}
		return r
	}
	cancelled := plain("q6", "")
	cancelled.State, cancelled.Error = store.Cancelled, &store.Failure{Code: "job_cancelled"}
	return evidence{
		limits: limits(),
		scenes: []*scene{
			{name: "test1", id: "q1", want: store.Ready}, {name: "test1b", id: "q2", want: store.Ready}, {name: "other", id: "q3", want: store.Ready},
			{name: "plain1", id: "q4", want: store.Ready}, {name: "plain2", id: "q5", want: store.Ready}, {name: "plain3", id: "q6", want: store.Cancelled},
		},
		requests: map[string]store.Request{
			"q1": request("q1", "r1"), "q2": request("q2", "r1"), "q3": request("q3", "r3"), "q4": plain("q4", "r5"), "q5": plain("q5", "r4"), "q6": cancelled,
		},
		runners: []store.Runner{
			runner("r1", "k1", 0, 10, 12, 2), runner("r2", "k3", 0, 5, 8, 0), runner("r3", "k3", 5, 9, 12, 1), took("r4", "q4", "q5"), took("r5", "q5", "q4"),
		},
		machines: []simfleet.Fact{
			machine("i-1", "r1", "q1", 0, 12), machine("i-2", "r2", "q3", 0, 5), machine("i-3", "r3", "q3", 5, 12),
			machine("i-4", "r4", "q4", 5, 12), machine("i-5", "r5", "q5", 5, 12),
		},
		endedAt: at(20),
		texts:   map[string]string{"the log": "msg=audit", "request#q1": `{"id":"q1"}`},
		secrets: map[string]string{"the id key": "KEYKEYKEY"},
	}
}

func faults(ev evidence) (all []string) {
	for _, v := range ev.promises() {
		all = append(all, v.faults...)
	}
	return all
}

func TestEachBrokenPromiseIsFound(t *testing.T) {
	if got := faults(sound()); len(got) > 0 {
		t.Fatalf("faults of sound evidence = %q, want none", got)
	}
	for name, c := range map[string]struct {
		spoil func(ev *evidence)
		want  string
	}{
		"TwoMachinesOfOneRequest":            {func(ev *evidence) { ev.machines[2].CredentialedAt = ev.machines[1].EndedAt.Add(-1) }, "request q3 had i-2 and i-3 at once"},
		"MachineThatNeverEndedBesideAnother": {func(ev *evidence) { ev.machines[1].EndedAt = time.Time{} }, "request q3 had i-2 and i-3 at once"},
		"TwoMachinesOfOneRunner":             {func(ev *evidence) { ev.machines[2].Tags[fleet.TagRunner] = "r2" }, "runner r2 had more than one machine with credentials"},
		"RequestCameToSomethingElse":         {func(ev *evidence) { ev.scenes[2].want = store.Cancelled }, `request other is "ready", want cancelled`},
		"RequestLost":                        {func(ev *evidence) { delete(ev.requests, "q3") }, `request other is "", want ready`},
		"SecondRunHadAnotherRunner": {func(ev *evidence) {
			r := ev.requests["q2"]
			r.Runner = "r9"
			ev.requests["q2"] = r
		}, `test1 has runner "r1" and test1b "r9"`},
		"JobLost":                 {func(ev *evidence) { ev.runners[0].Jobs = 1 }, "runner r1 ran 1 jobs, want 2"},
		"TwoRunnersOfOneKey":      {func(ev *evidence) { ev.runners[2].CreatedAt = ev.runners[1].DrainingAt.Add(-1) }, "runners r2 and r3 of one key could be shared at once"},
		"RepeatedKeyMadeARequest": {func(ev *evidence) { ev.requests["q9"] = ev.requests["q3"] }, "7 requests are recorded, want 6"},
		"PlainJobRanTwice":        {func(ev *evidence) { ev.runners[3].Took.Request = "q4" }, "plain1 ran on 2 machines, want 1"},
		"CancelledJobRan":         {func(ev *evidence) { ev.runners[2].Took.Request = "q6" }, "plain3 ran on 1 machines, want 0"},
		"MachineTookTwoJobs":      {func(ev *evidence) { ev.runners[4].Jobs = 2 }, "runner r5 ran 2 jobs, want one at most"},
		"NobodySwapped": {func(ev *evidence) {
			r := ev.requests["q4"]
			r.Runner = "r4"
			ev.requests["q4"] = r
		}, "plain1 did not run on the machine of plain2"},
		"MachineStillRuns":   {func(ev *evidence) { ev.machines[0].EndedAt, ev.machines[0].State = time.Time{}, fleet.Running }, "machine i-1 is running"},
		"MachineOverItsTime": {func(ev *evidence) { ev.machines[0].EndedAt = ev.machines[0].LaunchedAt.Add(time.Hour) }, "machine i-1 ended at 01:00:00, after its hard limit"},
		"RunnerNeverEnded":   {func(ev *evidence) { ev.runners[0].State = store.RunnerDraining }, "runner r1 is draining"},
		"RegistrationLeft":   {func(ev *evidence) { ev.registrations = []string{"garo-local-r1-1"} }, "GitHub still has garo-local-r1-1"},
		"QuotaNotGivenBack":  {func(ev *evidence) { ev.quota.Live = 1 }, "the quota counts 1 machines"},
		"SecretInARecord":    {func(ev *evidence) { ev.texts["request#q1"] += "KEYKEYKEY" }, "request#q1 holds the id key"},
		"SecretInTheLog":     {func(ev *evidence) { ev.texts["the log"] = "key=KEYKEYKEY" }, "the log holds the id key"},
		"RequestWithoutReason": {func(ev *evidence) {
			r := ev.requests["q3"]
			r.State = store.Failed
			ev.requests["q3"] = r
		}, `request other does not say why it is "failed"`},
		"RunnerWithoutReason": {func(ev *evidence) { ev.runners[1].End = nil }, "runner r2 does not say why it ended"},
	} {
		t.Run(name, func(t *testing.T) {
			ev := sound()
			c.spoil(&ev)
			if got := faults(ev); !slices.Contains(got, c.want) {
				t.Errorf("faults = %q, want %q among them", got, c.want)
			}
		})
	}
}

func TestLinesFitATerminal(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"   0.1s  short  ", "   0.1s  short"},
		{"   0.1s  " + strings.Repeat("word ", 20), "   0.1s  " + strings.TrimSpace(strings.Repeat("word ", 18)) + "\n            word word"},
		{"   0.1s  " + strings.Repeat("x", 120), "   0.1s  " + strings.Repeat("x", 120)},
	} {
		if got := folded(c.line, 12); got != c.want {
			t.Errorf("folded(%q) = %q, want %q", c.line, got, c.want)
		}
	}
}
