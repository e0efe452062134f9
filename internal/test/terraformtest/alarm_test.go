package terraformtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// alarm is a CloudWatch alarm, as far as its state depends on it.
type alarm struct {
	Threshold  float64
	Comparison string   `json:"comparison_operator"`
	Periods    int      `json:"evaluation_periods"`
	Datapoints int      `json:"datapoints_to_alarm"`
	Missing    string   `json:"treat_missing_data"`
	Actions    []string `json:"alarm_actions"`
	NoData     []string `json:"insufficient_data_actions"`
}

// none is a period without a datapoint.
const none = -1.0

// state is what CloudWatch makes of the last datapoints, one a period
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html).
// CloudWatch looks a little further back than the alarm's periods; here it does not.
func (a alarm) state(t *testing.T, points ...float64) string {
	t.Helper()
	for len(points) < a.Periods {
		points = append([]float64{none}, points...)
	}
	points = points[len(points)-a.Periods:]
	missing, bad := 0, 0
	for _, p := range points {
		switch {
		case p == none:
			missing++
		case a.Comparison == "GreaterThanThreshold" && p > a.Threshold, a.Comparison == "LessThanThreshold" && p < a.Threshold:
			bad++
		case a.Comparison != "GreaterThanThreshold" && a.Comparison != "LessThanThreshold":
			t.Fatalf("comparison %s is not known here", a.Comparison)
		}
	}
	switch a.Missing {
	case "breaching":
		bad += missing
	case "missing":
		if missing == len(points) {
			return "INSUFFICIENT_DATA"
		}
	case "notBreaching":
	default:
		t.Fatalf("missing data as %s is not known here", a.Missing)
	}
	if bad >= a.Datapoints {
		return "ALARM"
	}
	return "OK"
}

func alarmOf(t *testing.T, name string) alarm {
	t.Helper()
	values, ok := controlPlane(t)[`aws_cloudwatch_metric_alarm.this["`+name+`"]`]
	if !ok {
		t.Fatalf("there is no alarm %s", name)
	}
	return into[alarm](t, values)
}

// A run of the reaper that EC2 throttled, or to which GitHub answered 502, is made
// again a minute later: people hear of it when it lasts.
func TestPassingFaultOfTheReaperAlarmsOnlyIfItLasts(t *testing.T) {
	for _, name := range []string{"alarm-reaper", "reaper-errors"} {
		a := alarmOf(t, name)
		quiet := 0.0
		if name == "alarm-reaper" {
			quiet = none // a filter that finds nothing counts nothing
		}
		for _, c := range []struct {
			what   string
			points []float64
			want   string
		}{
			{"one run failed", []float64{quiet, quiet, quiet, quiet, 1}, "OK"},
			{"two runs of five failed", []float64{1, quiet, quiet, 1, quiet}, "OK"},
			{"two failures in one minute", []float64{quiet, quiet, quiet, 2, quiet}, "OK"},
			{"three runs of five failed", []float64{1, quiet, 1, quiet, 1}, "ALARM"},
			{"every run fails", []float64{1, 1, 1, 1, 1}, "ALARM"},
			{"good again", []float64{1, 1, quiet, quiet, quiet}, "OK"},
		} {
			if got := a.state(t, c.points...); got != c.want {
				t.Errorf("%s: %s is %s, want %s", c.what, name, got, c.want)
			}
		}
	}
}

// All other codes are facts that one line proves: waiting for a second one would
// only hide the first.
func TestFactsAlarmAtOnce(t *testing.T) {
	for _, code := range store.Alarms {
		if code == store.AlarmReaper || code == store.AlarmLate {
			continue
		}
		if a := alarmOf(t, "alarm-"+string(code)); a.state(t, 1) != "ALARM" || a.state(t, none, none) != "OK" {
			t.Errorf("%s: one line is %s and none is %s, want ALARM and OK", code, a.state(t, 1), a.state(t, none))
		}
	}
}

// Nothing has happened yet: no alarm may say that something is wrong, or the first
// e-mail that an operator gets is a false one.
func TestNoAlarmAtTheFirstDeploy(t *testing.T) {
	r := controlPlane(t)
	for _, address := range r.ofType("aws_cloudwatch_metric_alarm") {
		if got := into[alarm](t, r[address]).state(t); got == "ALARM" {
			t.Errorf("%s is in ALARM before there is any datapoint", address)
		}
	}
}

func TestReaperThatStopsIsTold(t *testing.T) {
	a := alarmOf(t, "reaper-not-run")
	topic := a.Actions
	if len(topic) != 1 || !strings.HasPrefix(topic[0], "arn:aws:sns:") {
		t.Fatalf("actions = %q, want the topic", topic)
	}
	if got := a.state(t, 5); got != "OK" {
		t.Errorf("five runs in five minutes are %s, want OK", got)
	}
	// Lambda counts no invocation as no datapoint, not as zero.
	switch got := a.state(t, 5, none); {
	case got == "ALARM":
	case got == "INSUFFICIENT_DATA" && slices.Equal(a.NoData, topic):
	default:
		t.Errorf("five minutes without a run are %s, with the actions %q; want the topic to hear of it", got, a.NoData)
	}
}

// An operator who gets an alarm finds what it means, how to look and what to do.
func TestEveryAlarmIsInTheGuide(t *testing.T) {
	_, guide, _ := strings.Cut(text(t, operation), "\n## Alarms\n")
	guide, _, _ = strings.Cut(guide, "\n## ")
	explained := map[string]string{}
	for _, section := range strings.Split(guide, "\n### ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		for _, name := range named(t, title, "`([^`]+)`") {
			explained[name] = body
		}
	}
	there := map[string]bool{}
	for _, address := range controlPlane(t).ofType("aws_cloudwatch_metric_alarm") {
		name := strings.TrimPrefix(named(t, address, `\["(.+)"\]`)[0], "alarm-")
		there[name] = true
		if body := explained[name]; !strings.Contains(body, "**Look**") || !strings.Contains(body, "**Do**") {
			t.Errorf("%s does not say how to look and what to do when the alarm %s comes", operation, name)
		}
	}
	for name := range explained {
		if !there[name] {
			t.Errorf("%s explains the alarm %s, which Terraform does not have", operation, name)
		}
	}
}
