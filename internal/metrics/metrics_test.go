package metrics_test

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

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

var t0 = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// request is one that was made at t0 and is written a minute later.
func request(state store.RequestState) *store.Request {
	return &store.Request{
		Meta: store.Meta{Version: 3, UpdatedAt: t0.Add(time.Minute)}, ID: "r1", State: state, CreatedAt: t0, ReadyAt: t0.Add(30 * time.Second),
	}
}

func waiting(what string) *store.Request {
	r := request(store.Accepted)
	r.Wait = what
	return r
}

func runner(codes ...string) *store.Runner {
	r := &store.Runner{ID: "x1"}
	for _, c := range codes {
		r.Attempts = append(r.Attempts, store.Attempt{Code: c})
	}
	return r
}

func TestWhatIsCounted(t *testing.T) {
	wait := metrics.Figures{metrics.OldestWait: {60}}
	for name, c := range map[string]struct {
		was, is store.Item
		want    metrics.Figures
	}{
		"NewRequest":           {&store.Request{ID: "r1"}, request(store.Accepted), metrics.Figures{metrics.Accepted: {1}, metrics.OldestWait: {60}}},
		"BegunBeforeItsRecord": {&store.Request{ID: "r1", State: store.Accepted}, request(store.Ready), metrics.Figures{metrics.Accepted: {1}, metrics.Ready: {1}, metrics.OldestWait: {60}}},
		"AcceptedAgain":        {request(store.Waiting), request(store.Accepted), wait},
		"Held":                 {request(store.Accepted), waiting(store.WaitQuota), wait},
		"HeldByGitHub":         {waiting(store.WaitHeld), waiting(store.WaitHeld), metrics.Figures{}},
		"Launched":             {request(store.Accepted), request(store.Waiting), wait},
		"WaitsForItsMachine":   {request(store.Waiting), request(store.Waiting), metrics.Figures{}},
		"Ready":                {request(store.Waiting), request(store.Ready), metrics.Figures{metrics.Ready: {1}, metrics.TimeToReady: {30}}},
		"SharesAtOnce":         {request(store.Accepted), request(store.Ready), metrics.Figures{metrics.Ready: {1}, metrics.TimeToReady: {30}, metrics.OldestWait: {60}}},
		"ReadyWrittenAgain":    {request(store.Ready), request(store.Ready), metrics.Figures{}},
		"Failed":               {request(store.Waiting), request(store.Failed), metrics.Figures{metrics.Failed: {1}}},
		"Expired":              {request(store.Waiting), request(store.Expired), metrics.Figures{metrics.Failed: {1}}},
		"Cancelled":            {request(store.Waiting), request(store.Cancelled), metrics.Figures{}},
		"FailedWrittenAgain":   {request(store.Failed), request(store.Failed), metrics.Figures{}},
		"JobThatGetsNoMachine": {&store.Request{ID: "r1"}, request(store.Failed), metrics.Figures{}},
		"NobodyKnowsWhatItWas": {nil, request(store.Ready), metrics.Figures{}},
		"LaunchRefused":        {runner(), runner("InsufficientInstanceCapacity"), metrics.Figures{metrics.LaunchErrors: {1}}},
		"SecondTryLaunched":    {runner("InsufficientInstanceCapacity"), runner("InsufficientInstanceCapacity", "launched"), metrics.Figures{}},
		"TwoRefusalsAtOnce":    {runner("a"), runner("a", "b", "c"), metrics.Figures{metrics.LaunchErrors: {2}}},
		"RunnerWrittenAgain":   {runner("a"), runner("a"), metrics.Figures{}},
		"Lock":                 {&store.Lock{Key: "k"}, &store.Lock{Key: "k", Runner: "x1"}, metrics.Figures{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, metrics.Of([]store.Change{{Item: c.is, Was: c.was}})); diff != "" {
				t.Errorf("figures (-want +got):\n%s", diff)
			}
			if got := metrics.Of([]store.Change{{Item: c.is, Was: c.was, CheckOnly: true}}); len(got) != 0 {
				t.Errorf("figures of what is only checked = %v, want none", got)
			}
		})
	}
}

// Two decisions of one batch count as two, and a request that goes through two states in
// it as what it was and is.
func TestBatchCountsWhatItMakesHappen(t *testing.T) {
	lim := store.DefaultLimits()
	q := store.Request{Meta: store.Meta{Version: 3}, ID: "r1", State: store.Accepted, CreatedAt: t0, GiveUpAt: t0.Add(time.Hour)}
	held := store.Case{Request: q}.Hold(t0.Add(time.Minute), store.Wait{For: store.WaitQuota, Until: t0.Add(time.Hour)})
	failed := store.Case{Request: held.Request}.Fail(t0.Add(time.Minute), lim, store.Failure{Code: "no"})
	var b store.Batch
	b.Add(held)
	b.Add(failed)
	got := metrics.Of(b.Changes)
	if len(b.Changes) != 1 || !cmp.Equal(got[metrics.Failed], []float64{1}) {
		t.Errorf("%d changes count %v, want one that fails one request", len(b.Changes), got)
	}
}

// A commit that lost, or has no answer, counts nothing; who repeats it finds it done.
func TestOnlyWhatTheStoreConfirmsIsCounted(t *testing.T) {
	real := storetest.NewMemory()
	faulty := &lossy{Memory: real}
	var tally metrics.Tally
	w := store.NewWriter(metrics.Counted(faulty, tally.Add), "test", func() time.Time { return t0 })
	accept := func() error {
		d := store.Case{}.Accept(t0, store.Identity{ID: "r1", GiveUp: time.Minute, OwnLabel: func(string) string { return "garo-x" }})
		return w.Commit(t.Context(), d.Changes...)
	}
	faulty.lose = true
	if err := accept(); !errors.Is(err, errLost) {
		t.Fatalf("commit = %v, want its answer lost", err)
	}
	faulty.lose = false
	if err := accept(); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("the same start = %v, want it to find the record", err)
	}
	if got := tally.Take(); got != nil {
		t.Errorf("counted %v, want nothing: no commit was confirmed", got)
	}
	d := store.Case{}.Accept(t0, store.Identity{ID: "r2", GiveUp: time.Minute, OwnLabel: func(string) string { return "garo-x" }})
	if err := w.Commit(t.Context(), d.Changes...); err != nil {
		t.Fatal(err)
	}
	if got := tally.Take(); !cmp.Equal(got[metrics.Accepted], []float64{1}) {
		t.Errorf("counted %v, want one accepted request", got)
	}
	if got := tally.Take(); got != nil {
		t.Errorf("taken again: %v, want nothing", got)
	}
}

var errLost = errors.New("no answer")

// lossy is a store whose answers get lost.
type lossy struct {
	*storetest.Memory
	lose bool
}

func (l *lossy) Commit(ctx context.Context, changes ...store.Change) error {
	if err := l.Memory.Commit(ctx, changes...); err != nil || !l.lose {
		return err
	}
	return errLost
}

func TestFiguresJoinByTheirKind(t *testing.T) {
	var tally metrics.Tally
	for _, v := range []float64{3, 1, 2} {
		f := metrics.Figures{}
		for _, m := range metrics.All {
			f[m.Name] = []float64{v}
		}
		tally.Add(f)
	}
	want := map[metrics.Kind][]float64{metrics.Count: {6}, metrics.Each: {3, 1, 2}, metrics.Most: {3}, metrics.Least: {1}, metrics.Last: {2}}
	got := tally.Take()
	for _, m := range metrics.All {
		if !cmp.Equal(got[m.Name], want[m.Kind]) {
			t.Errorf("%s = %v, want %v", m.Name, got[m.Name], want[m.Kind])
		}
	}
}

// CloudWatch takes money for each metric.
func TestThereAreTenMetricsAtMost(t *testing.T) {
	var names []metrics.Name
	for _, m := range metrics.All {
		names = append(names, m.Name)
		if m.Help == "" || !slices.Contains([]string{"Count", "Seconds", "Percent"}, m.Unit) {
			t.Errorf("%+v: want a unit of CloudWatch and what it says", m)
		}
	}
	slices.Sort(names)
	if len(names) > 10 || len(slices.Compact(names)) != len(metrics.All) {
		t.Errorf("metrics %q, want ten at most, each once", names)
	}
}

// document is a line in the embedded metric format, as CloudWatch's specification
// describes it.
type document struct {
	AWS struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	} `json:"_aws"`
	Timestamp    time.Time
	Level        string
	ControlPlane string
}

// logged returns the lines that figures make, as what CloudWatch reads and as all that
// stands at their top.
func logged(t *testing.T, f metrics.Figures) (docs []document, tops []map[string]json.RawMessage) {
	t.Helper()
	var b bytes.Buffer
	f.Log(t.Context(), slog.New(slog.NewJSONHandler(&b, nil)), "prod", t0)
	for line := range strings.Lines(b.String()) {
		var d document
		var top map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal([]byte(line), &d), json.Unmarshal([]byte(line), &top)); err != nil {
			t.Fatalf("line %s: %v", line, err)
		}
		docs, tops = append(docs, d), append(tops, top)
	}
	return docs, tops
}

func TestLineIsInTheEmbeddedMetricFormat(t *testing.T) {
	f := metrics.Figures{metrics.Accepted: {2}, metrics.Live: {0}, metrics.TimeToReady: {20.5, 31}}
	docs, tops := logged(t, f)
	if len(docs) != 1 {
		t.Fatalf("%d lines, want one", len(docs))
	}
	d, top := docs[0], tops[0]
	if d.Level != "INFO" || d.ControlPlane != "prod" || d.AWS.Timestamp != t0.UnixMilli() || len(d.AWS.CloudWatchMetrics) != 1 {
		t.Fatalf("line = %+v, want a line of the control plane's with one set of metrics", d)
	}
	set := d.AWS.CloudWatchMetrics[0]
	if set.Namespace != "GARO" || !cmp.Equal(set.Dimensions, [][]string{{"ControlPlane"}}) {
		t.Errorf("namespace %s, dimensions %v; want GARO and one dimension", set.Namespace, set.Dimensions)
	}
	got := metrics.Figures{}
	for _, m := range set.Metrics { // each is a member at the top, of at most 100 numbers
		var values []float64
		if err := json.Unmarshal(top[m.Name], &values); err != nil {
			t.Errorf("member %s: %v", m.Name, err)
		}
		got[metrics.Name(m.Name)] = values
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestMoreThanAHundredValuesMakeMoreLines(t *testing.T) {
	f := metrics.Figures{metrics.Ready: {250}}
	for i := range 250 {
		f[metrics.TimeToReady] = append(f[metrics.TimeToReady], float64(i))
	}
	docs, tops := logged(t, f)
	var all []float64
	ready := 0
	for i, d := range docs {
		for _, m := range d.AWS.CloudWatchMetrics[0].Metrics {
			var values []float64
			if err := json.Unmarshal(tops[i][m.Name], &values); err != nil || len(values) > 100 {
				t.Errorf("line %d has %d values of %s, %v; want 100 at most", i, len(values), m.Name, err)
			}
			if m.Name == "TimeToReady" {
				all = append(all, values...)
			} else {
				ready++
			}
		}
	}
	if len(docs) != 3 || ready != 1 || !cmp.Equal(all, f[metrics.TimeToReady]) {
		t.Errorf("%d lines have %d values and Ready %d times, want three with all 250, and Ready once", len(docs), len(all), ready)
	}
}

func TestNothingCountedIsNoLine(t *testing.T) {
	if docs, _ := logged(t, nil); len(docs) != 0 {
		t.Errorf("%d lines, want none", len(docs))
	}
}
