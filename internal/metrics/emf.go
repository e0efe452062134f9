package metrics

import (
	"context"
	"log/slog"
	"time"
)

const (
	// Namespace is where CloudWatch has the metrics.
	Namespace = "GARO"
	// Dimension is the one that they have. Its value is the control plane's name.
	Dimension = "ControlPlane"
	// mostValues is how many values a metric may have in one line.
	mostValues = 100
)

// directive tells CloudWatch which members of a log line are metrics.
type directive struct {
	Timestamp         int64 // milliseconds since 1970
	CloudWatchMetrics []metricSet
}

type metricSet struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type definition struct{ Name, Unit string }

// Log writes figures as a line in CloudWatch's embedded metric format, which has them
// taken out of the log without a call
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
// One line has 100 values of a metric, so that more make more lines. No figures make none.
// log must write each line as a JSON object, with its attributes at the top.
func (f Figures) Log(ctx context.Context, log *slog.Logger, controlPlane string, now time.Time) {
	for len(f) > 0 {
		rest := Figures{}
		set := metricSet{Namespace: Namespace, Dimensions: [][]string{{Dimension}}}
		attrs := []slog.Attr{slog.String(Dimension, controlPlane)}
		for _, m := range All {
			values := f[m.Name]
			if len(values) == 0 {
				continue
			}
			if len(values) > mostValues {
				values, rest[m.Name] = values[:mostValues], values[mostValues:]
			}
			set.Metrics = append(set.Metrics, definition{string(m.Name), m.Unit})
			attrs = append(attrs, slog.Any(string(m.Name), values))
		}
		attrs = append(attrs, slog.Any("_aws", directive{now.UnixMilli(), []metricSet{set}}))
		log.LogAttrs(ctx, slog.LevelInfo, "metrics", attrs...)
		f = rest
	}
}
