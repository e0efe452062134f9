package local

import (
	"net/http"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
)

// promNames are the names of the metrics for Prometheus, which has units and totals in
// them (https://prometheus.io/docs/practices/naming/).
var promNames = map[metrics.Name]string{
	metrics.Accepted:     "garo_accepted_total",
	metrics.Ready:        "garo_ready_total",
	metrics.Failed:       "garo_failed_total",
	metrics.TimeToReady:  "garo_time_to_ready_seconds",
	metrics.LaunchErrors: "garo_launch_errors_total",
	metrics.Live:         "garo_live",
	metrics.Orphans:      "garo_orphans",
	metrics.GitHubLeft:   "garo_github_left_percent",
	metrics.OldestWait:   "garo_oldest_wait_seconds",
	metrics.Brake:        "garo_brake",
}

// bounds are those of the buckets of times, in seconds: simulated machines boot in three
// seconds, real ones in twenty to sixty, and a request is given up after some minutes.
var bounds = []float64{1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 300, 600, 1800}

// exporter has the metrics of this process in Prometheus' form. Counts begin at zero with
// the process, as Prometheus expects. What the reaper has not measured yet is left out.
type exporter struct {
	descs    map[metrics.Name]*prometheus.Desc
	times    prometheus.Histogram
	registry *prometheus.Registry

	mu    sync.Mutex
	count map[metrics.Name]float64
	gauge map[metrics.Name]float64
}

func newExporter() *exporter {
	e := &exporter{
		descs: map[metrics.Name]*prometheus.Desc{}, registry: prometheus.NewRegistry(),
		count: map[metrics.Name]float64{}, gauge: map[metrics.Name]float64{},
	}
	labels := prometheus.Labels{"control_plane": ControlPlane}
	for _, m := range metrics.All {
		switch name := promNames[m.Name]; m.Kind {
		case metrics.Each:
			e.times = prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: m.Help, ConstLabels: labels, Buckets: bounds})
		default:
			e.descs[m.Name] = prometheus.NewDesc(name, m.Help, nil, labels)
		}
	}
	e.registry.MustRegister(e, e.times)
	return e
}

// Describe implements prometheus.Collector.
func (e *exporter) Describe(to chan<- *prometheus.Desc) {
	for _, d := range e.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (e *exporter) Collect(to chan<- prometheus.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range metrics.All {
		if m.Kind == metrics.Count {
			to <- prometheus.MustNewConstMetric(e.descs[m.Name], prometheus.CounterValue, e.count[m.Name])
		} else if v, known := e.gauge[m.Name]; known {
			to <- prometheus.MustNewConstMetric(e.descs[m.Name], prometheus.GaugeValue, v)
		}
	}
}

// counted takes in what a commit made happen.
func (e *exporter) counted(f metrics.Figures) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range metrics.All {
		for _, v := range f[m.Name] {
			switch m.Kind {
			case metrics.Count:
				e.count[m.Name] += v
			case metrics.Each:
				e.times.Observe(v)
			default: // what waits longest, until the reaper measures again
				e.gauge[m.Name] = max(e.gauge[m.Name], v)
			}
		}
	}
}

// measured takes in what a run of the reaper measured, in place of what an earlier one did.
func (e *exporter) measured(all ...metrics.Figures) {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.gauge)
	for _, f := range all {
		for name, values := range f {
			e.gauge[name] = slices.Max(values)
		}
	}
}

// serveMetrics answers with the metrics.
func (s *System) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if s.operator(w, r) {
		w.Header().Del("Content-Type") // Prometheus says which of its forms it takes
		promhttp.HandlerFor(s.exporter.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	}
}
