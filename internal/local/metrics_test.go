package local_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// scrape returns the metrics as Prometheus reads them, by name.
func scrape(t *testing.T, s *local.System) map[string]*dto.MetricFamily {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://test.localhost/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Token.Reveal())
	resp, err := memhttp.Client(s.Handler()).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Fatalf("status %d, type %s; want Prometheus' text", resp.StatusCode, got)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value is what a counter or a gauge shows; for a histogram, how many values it has.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string) float64 {
	t.Helper()
	f := families[name]
	if f == nil || len(f.GetMetric()) != 1 {
		t.Fatalf("%s = %v, want one metric", name, f)
	}
	m := f.GetMetric()[0]
	if l := m.GetLabel(); len(l) != 1 || l[0].GetName() != "control_plane" || l[0].GetValue() != local.ControlPlane {
		t.Errorf("%s has the labels %v, want the control plane alone", name, l)
	}
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		return m.GetCounter().GetValue()
	case dto.MetricType_GAUGE:
		return m.GetGauge().GetValue()
	}
	return float64(m.GetHistogram().GetSampleCount())
}

func TestMetricsAreServedForPrometheus(t *testing.T) {
	s := run(t, local.Config{})
	until(t, "a run of the reaper", func() bool { return scrape(t, s.System)["garo_live"] != nil })
	began := time.Now()
	started, err := s.Start(t.Context(), apitype.Start{Repo: repository, Mode: store.Ephemeral})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a runner", func() bool { // which is counted a moment after it is recorded
		q, err := s.Status(t.Context(), started.ID)
		return err == nil && q.State == string(store.Ready) && value(t, scrape(t, s.System), "garo_ready_total") > 0
	})
	families := scrape(t, s.System)
	for name, want := range map[string]float64{
		"garo_accepted_total": 1, "garo_ready_total": 1, "garo_failed_total": 0, "garo_launch_errors_total": 0,
		"garo_time_to_ready_seconds": 1, "garo_orphans": 0, "garo_brake": 0,
	} {
		if got := value(t, families, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if sum, most := families["garo_time_to_ready_seconds"].GetMetric()[0].GetHistogram().GetSampleSum(), time.Since(began).Seconds(); sum <= 0 || sum > most {
		t.Errorf("the time to ready = %v s, want above 0 and at most the %v s that it took", sum, most)
	}
	if oldest := value(t, families, "garo_oldest_wait_seconds"); oldest < 0 || oldest > time.Since(began).Seconds() {
		t.Errorf("the oldest wait = %v s, want no more than the test has run", oldest)
	}
	if families["garo_github_left_percent"] != nil {
		t.Error("the simulated GitHub has an hour, want it unknown")
	}
	if n := len(families); n != len(metrics.All)-1 {
		t.Errorf("%d metrics, want all but GitHub's", n)
	}
}

func TestMetricsAreForTheOperator(t *testing.T) {
	s := open(t, t.TempDir(), local.Config{})
	defer s.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://test.localhost/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := memhttp.Client(s.Handler()).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d without a token, want 401", resp.StatusCode)
	}
	for name := range scrape(t, s) {
		if strings.HasPrefix(name, "garo_live") || strings.HasPrefix(name, "garo_oldest") {
			t.Errorf("%s is shown before the reaper has measured it", name)
		}
	}
}
