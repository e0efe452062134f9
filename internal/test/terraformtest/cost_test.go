package terraformtest

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// price is a list price of us-east-1, in dollars, without the free tiers. Each is
// in the table of docs/cost.md with where it is from.
type price struct {
	name    string
	dollars float64
	per     float64 // that many units
	unit    string
	from    string
}

const million = 1e6

var (
	httpCall     = price{"API Gateway, HTTP API", 1.00, million, "requests", "https://docs.aws.amazon.com/whitepapers/latest/best-practices-api-gateway-private-apis-integration/cost-optimization.html"}
	invocation   = price{"Lambda, requests", 0.20, million, "requests", "https://aws.amazon.com/lambda/pricing/"}
	compute      = price{"Lambda, arm64", 0.0000133334, 1, "GB-seconds", "https://aws.amazon.com/lambda/pricing/"}
	writeUnit    = price{"DynamoDB on demand, writes", 0.625, million, "write units", "https://aws.amazon.com/dynamodb/pricing/on-demand/"}
	readUnit     = price{"DynamoDB on demand, reads", 0.125, million, "read units", "https://aws.amazon.com/dynamodb/pricing/on-demand/"}
	tableStorage = price{"DynamoDB storage", 0.25, 1, "GB-months", "https://aws.amazon.com/dynamodb/pricing/on-demand/"}
	recovery     = price{"DynamoDB point-in-time recovery", 0.20, 1, "GB-months", "https://aws.amazon.com/dynamodb/pricing/on-demand/"}
	queueCall    = price{"SQS, standard queue", 0.40, million, "requests", "https://aws.amazon.com/sqs/pricing/"}
	schedule     = price{"EventBridge Scheduler", 1.00, million, "invocations", "https://aws.amazon.com/eventbridge/pricing/"}
	logged       = price{"CloudWatch Logs, ingestion", 0.50, 1, "GB", "https://aws.amazon.com/cloudwatch/pricing/"}
	kept         = price{"CloudWatch Logs, storage", 0.03, 1, "GB-months", "https://aws.amazon.com/cloudwatch/pricing/"}
	alarmMetric  = price{"CloudWatch alarms", 0.10, 1, "alarms", "https://aws.amazon.com/cloudwatch/pricing/"}
	metric       = price{"CloudWatch custom metrics", 0.30, 1, "metrics", "https://aws.amazon.com/cloudwatch/pricing/"}
	dashboard    = price{"CloudWatch dashboard", 3.00, 1, "dashboards", "https://aws.amazon.com/cloudwatch/pricing/"}
	prices       = []price{httpCall, invocation, compute, writeUnit, readUnit, tableStorage, recovery, queueCall, schedule, logged, kept, alarmMetric, metric, dashboard}
)

// What is assumed, since no test can count it. docs/cost.md has the reasons.
const (
	memoryGB     = 0.25  // the modules' default of API and worker
	reaperGB     = 0.5   // and of the reaper
	apiSeconds   = 0.03  // one call
	startSeconds = 4.0   // of a worker, for one launch and its confirmation
	reapSeconds  = 1.0   // one run without a machine
	lookSeconds  = 0.2   // a run more for each live machine
	lineGB       = 1e-6  // of an invocation: our line, Lambda's, and API Gateway's
	pollers      = 5.0   // of the queue, by Lambda, each asking every 20 s
	month        = 730.0 // hours
	minutes      = month * 60
	storedGB     = 0.1 // 10,000 records of requests and runners, which stay 30 days
)

// line is one row of a bill.
type line struct {
	what    string
	price   price
	units   float64
	formula string
}

func (l line) dollars() float64 { return l.units * l.price.dollars / l.price.per }

func bill(head string, lines []line) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| what | how much | price | %s |\n|---|---|---|---|\n", head)
	sum := 0.0
	for _, l := range lines {
		sum += l.dollars()
		fmt.Fprintf(&b, "| %s | %s = %s %s | %s | $%.2f |\n", l.what, l.formula, number(l.units), l.price.unit, l.price.each(), l.dollars())
	}
	fmt.Fprintf(&b, "| **sum** | | | **$%.2f** |\n", sum)
	return b.String()
}

// number prints with thousands apart, and no more digits than matter.
func number(f float64) string {
	if f != math.Trunc(f) && f < 100 {
		return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", f), "0"), ".")
	}
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (p price) each() string {
	if p.per == million {
		return fmt.Sprintf("$%.3f a million", p.dollars)
	}
	return p.text()
}

// text is the price with its cents, or with all the digits that it has.
func (p price) text() string {
	s := strings.TrimRight(fmt.Sprintf("%.10f", p.dollars), "0")
	if _, cents, _ := strings.Cut(s, "."); len(cents) < 2 {
		return fmt.Sprintf("$%.2f", p.dollars)
	}
	return "$" + s
}

// counted is what one start took, of a request of its own with a job of ten minutes.
type counted struct {
	calls  int            // of the API
	sends  int            // and deletes
	writes float64        // units
	reads  float64        // units
	effect map[string]int // by part and operation
	size   map[string]int // bytes of the largest item, by kind
	lived  time.Duration  // the machine
}

// units is how many units of a kilobyte step an item of a kind takes.
func (c counted) units(kind string, step int) float64 {
	return math.Max(1, math.Ceil(float64(c.size[kind])/float64(step)))
}

// indexed are the kinds whose items are in the indexes. A write of one is counted
// as if it changed every index: the due index loses an entry and gets one, the two
// lists get one each. That is the most that it can be.
var indexed = map[string]float64{"request": 5, "runner": 4}

// start plays the story in the simulation, where every call is counted: the real
// API, worker, reaper and agent over a store that keeps what they write.
func start(t *testing.T) counted {
	c := counted{effect: map[string]int{}, size: map[string]int{}}
	sim.Run(t, sim.Config{Seed: 1}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("cost"))
		w.Ready(s, 10*time.Minute)
		job := w.Job(s.RunsOn, 10*time.Minute)
		w.Until("the job to be done", time.Hour, func() bool { return w.Done(job) })
		w.Quiet(2 * time.Hour)
		for _, item := range []store.Item{new(w.Request(s.ID)), new(w.RunnerOf(s.ID))} {
			b, err := store.Encode(item)
			if err != nil {
				w.Fatal(err)
			}
			c.size[string(item.Ref().Kind)] = len(b)
		}
		for _, e := range w.Trace() {
			c.add(e)
		}
		c.writes += 2 // the index find: an entry of the request and one of the runner, which never change
		for _, i := range w.Fleet.Instances() {
			c.lived += i.EndedAt.Sub(i.LaunchedAt)
		}
	})
	return c
}

// add counts one effect. What the reaper does without a machine, too, is left to
// the idle cost.
func (c *counted) add(e kernel.Effect) {
	idle := e.Part == kernel.Reaper && (e.Op == kernel.Due || e.Op == kernel.List || strings.HasPrefix(e.What, "sweep") || strings.HasPrefix(e.What, "reaperrun"))
	switch {
	case e.To == kernel.ToAPI && e.Op == kernel.Call:
		c.calls++
	case e.To == kernel.ToQueue:
		c.sends++
	case e.To == kernel.ToStore && !idle && e.Op == kernel.Get:
		for kind := range strings.FieldsSeq(e.What) {
			c.reads += c.units(kind, 4096)
		}
	case e.To == kernel.ToStore && !idle && e.Op == kernel.Commit:
		members := strings.Split(e.What, ", ")
		for _, m := range members {
			kind, _, _ := strings.Cut(m, " ")
			each := c.units(kind, 1024)
			if len(members) > 1 {
				each *= 2 // a transaction prepares and commits
			}
			c.writes += each + indexed[kind]
		}
	default:
		return
	}
	c.effect[e.Part+" "+e.Op]++
}

// idle is the bill of a control plane that nobody calls.
func idle() []line {
	return []line{
		{"metrics", metric, float64(len(metrics.All)), "all of docs/operate.md"},
		{"dashboard", dashboard, 1, "one"},
		{"the reaper's schedule", schedule, minutes, "730 h × 60"},
		{"the reaper's runs", invocation, minutes, "730 h × 60"},
		{"the reaper's time", compute, minutes * reapSeconds * reaperGB, "730 h × 60 × 1 s × 0.5 GB"},
		{"the reaper's reads: overdue items, every sweep, and its last run", readUnit, minutes * 4, "730 h × 60 × 4"},
		{"the reaper's writes: two each sweep, one account and region", writeUnit, minutes / 5 * 2 * 3, "730 h × 12 × 2 × 3"},
		{"the reaper's record of each run", writeUnit, minutes, "730 h × 60"},
		// Each sweep reads what is known: a list of 22 KB, and the spot prices. AWS has a new list
		// every other day, of 300 MB in five parts; spot prices are read every hour.
		{"prices, reads: two items each sweep", readUnit, minutes / 5 * 7, "730 h × 12 × 7"},
		{"prices, writes: spot every hour, a list of five parts every other day", writeUnit, 730*3 + 15*5*22*3, "730 × 3 + 15 × 5 × 22 × 3"},
		{"prices, the reaper's time", compute, 15 * 5 * 5 * reaperGB, "15 × 5 × 5 s × 0.5 GB"},
		{"Lambda's polls of the queue", queueCall, pollers * 3 * minutes, "5 × 3 a minute × 730 h × 60"},
		{"logs", logged, minutes * lineGB, "730 h × 60 × 1 KB"},
		{"storage of the logs", kept, minutes * lineGB, "30 days of them"},
		{"storage of the records", tableStorage, storedGB, "10,000 × 10 KB"},
		{"recovery of the records", recovery, storedGB, "10,000 × 10 KB"},
	}
}

// The document's figures are those that are computed here.
func TestGoldenCost(t *testing.T) {
	if *update {
		t.Run("rendering", TestGoldenRendering) // whose alarms are counted
	}
	c := start(t)
	alarms := float64(len(controlPlane(t).ofType("aws_cloudwatch_metric_alarm")))
	idleTable := bill("a month", append([]line{{"alarms", alarmMetric, alarms, "all of alarms.tf"}}, idle()...))
	const n = 1000
	live := c.lived.Minutes()
	messages := c.effect[kernel.Source+" "+kernel.Delete] // each is an invocation of the worker
	runs := c.calls + messages
	startTable := bill("1,000 starts", []line{
		{"calls of the API", httpCall, n * float64(c.calls), fmt.Sprintf("1,000 × %d", c.calls)},
		{"runs of the API and the worker", invocation, n * float64(runs), fmt.Sprintf("1,000 × %d", runs)},
		{"the API's time", compute, n * float64(c.calls) * apiSeconds * memoryGB, fmt.Sprintf("1,000 × %d × 0.03 s × 0.25 GB", c.calls)},
		{"the worker's time", compute, n * startSeconds * memoryGB, "1,000 × 4 s × 0.25 GB"},
		{"the reaper's looks", compute, n * live * lookSeconds * reaperGB, fmt.Sprintf("1,000 × %.0f × 0.2 s × 0.5 GB", live)},
		{"writes", writeUnit, n * c.writes, fmt.Sprintf("1,000 × %.0f", c.writes)},
		{"reads", readUnit, n * c.reads, fmt.Sprintf("1,000 × %.0f", c.reads)},
		{"messages", queueCall, n * float64(c.sends+messages), fmt.Sprintf("1,000 × %d", c.sends+messages)},
		{"logs", logged, n * float64(runs) * lineGB, fmt.Sprintf("1,000 × %d × 1 KB", runs)},
	})

	var list strings.Builder
	list.WriteString("| what | price | for | from |\n|---|---|---|---|\n")
	for _, p := range prices {
		fmt.Fprintf(&list, "| %s | %s | %s %s | [%s](%s) |\n", p.name, p.text(), number(p.per), p.unit, strings.Split(p.from, "/")[2], p.from)
	}
	var counts strings.Builder
	fmt.Fprintf(&counts, "One start, whose machine lived %.0f minutes, took %d calls of the API and %d of the queue, %.0f write units and %.0f read units:\n\n| who | calls |\n|---|---|\n",
		live, c.calls, c.sends, c.writes, c.reads)
	for _, part := range []string{kernel.Client, kernel.Machine, kernel.API, kernel.Worker, kernel.Source, kernel.Reaper} {
		for _, op := range []string{kernel.Call, kernel.Get, kernel.Commit, kernel.Send, kernel.Delete} {
			if calls := c.effect[part+" "+op]; calls > 0 {
				fmt.Fprintf(&counts, "| %s: %s | %d |\n", part, op, calls)
			}
		}
	}
	fmt.Fprintf(&counts, "\nA request's record had %s bytes in the end, and a runner's %s.\n", number(float64(c.size["request"])), number(float64(c.size["runner"])))

	compare(t, "../../../docs/cost.md", "\n### A month of an idle control plane\n\n"+idleTable+
		"\n### 1,000 starts\n\n"+startTable+"\n### What was counted\n\n"+counts.String()+"\n### Prices\n\n"+list.String()+"\n")
}
