package terraformtest

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// throttles returns how many calls a second each route of http.tf lets through.
func throttles(t *testing.T) map[string]float64 {
	t.Helper()
	b, err := os.ReadFile(root + "/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	rates := map[string]float64{}
	for _, m := range regexp.MustCompile(`"((?:GET|POST) [^"]+)"\s*= \{ rate = (\d+), burst = (\d+) \}`).FindAllStringSubmatch(string(b), -1) {
		rate, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		rates[m[1]] = rate
		if burst, err := strconv.ParseFloat(m[3], 64); err != nil || burst < rate {
			t.Errorf("%s: a burst of %s is less than a second's %s", m[1], m[3], m[2])
		}
	}
	return rates
}

// may is what somebody can make us do, at the most.
type may struct {
	who, sends, bound string
	perSecond         float64 // calls
	reads             float64 // units of each call
	// A day's, whatever the calls are.
	writes, sent float64
	costs        string // of one call, in words
}

const day = 24 * 3600

func (m may) dollars() float64 {
	calls := m.perSecond * day
	lines := []line{
		{price: httpCall, units: calls}, {price: invocation, units: calls}, {price: compute, units: calls * apiSeconds * memoryGB},
		{price: logged, units: calls * lineGB}, {price: readUnit, units: calls * m.reads}, {price: writeUnit, units: m.writes}, {price: queueCall, units: m.sent},
	}
	sum := 0.0
	for _, l := range lines {
		sum += l.dollars()
	}
	return sum
}

// Heartbeats of all machines have room beside floods of two.
func TestHeartbeatsHaveRoomBesideFloods(t *testing.T) {
	rates := throttles(t)
	const machines, perJob, jobs, flood = 6000.0, 5.0, 20.0, 300.0
	lim := store.DefaultLimits()
	need := machines/lim.Heartbeat.Seconds() + perJob*jobs + 2*flood
	if got := rates["POST /runners/{id}/events"]; got < need {
		t.Errorf("events are throttled at %.0f a second, and %.0f machines beside two floods need %.0f", got, machines, need)
	}
	if got, need := rates["POST /runners/{id}/next"], 3*jobs+240; got < need {
		t.Errorf("next is throttled at %.0f a second, want %.0f", got, need)
	}
}

// One delivery is a call of 0.03 s, as all of the API's: what all routes let through at
// once needs fewer executions than the variable's description advises to reserve, so that
// a flood of one route takes none from the others.
func TestAllThrottlesTogetherFitIntoTheReservedConcurrency(t *testing.T) {
	b, err := os.ReadFile(root + "/variables.tf")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`([0-9]+) for the API serve all that its throttles let through`).FindSubmatch(b)
	if m == nil {
		t.Fatal("variables.tf does not say how much concurrency serves all throttles")
	}
	reserved, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	all := 0.0
	for _, rate := range throttles(t) {
		all += rate * apiSeconds
	}
	if all >= reserved || reserved > 2*all {
		t.Errorf("all throttles together need %.1f executions at once, want less than the %.0f of variables.tf, and at least half of them", all, reserved)
	}
}

// SECURITY.md says what everybody can make us do, and what that costs.
func TestGoldenLimits(t *testing.T) {
	c, rate := start(t), throttles(t)
	all := 0.0
	for _, r := range rate {
		all += r
	}
	runner, request := c.units("runner", 4096), c.units("request", 4096)
	// A transaction costs double, and every index counts.
	runnerWrite, requestWrite := 2*c.units("runner", 1024)+indexed["runner"], c.units("request", 1024)+indexed["request"]
	const events, pulses, configs = 3600.0, 720.0, 900.0 // an hour of one machine: internal/sim and package store hold these
	starts := rate["POST /start"]
	rows := []may{
		{"anybody, without a token or with one of another form", "any call", fmt.Sprintf("the routes' throttles, %s a second together", number(all)), all, 0, 0, 0, "an invocation; nothing is read"},
		{"anybody, with a machine's token that is made up", "`events`", fmt.Sprintf("%s a second", number(rate["POST /runners/{id}/events"])), rate["POST /runners/{id}/events"], runner + 2, 0, 0, "one read of three records"},
		{"anybody, with a made-up signature", "`POST /github/webhook`", fmt.Sprintf("%s a second", number(rate["POST /github/webhook"])), rate["POST /github/webhook"], 0, 0, 0, "1 MiB is hashed once for each secret; nothing is read"},
		{"GitHub, for a repository's workflows", "`POST /github/webhook`", fmt.Sprintf("%s a second, and %s jobs open at once unless the registration says otherwise", number(rate["POST /github/webhook"]), number(store.DefaultOpenRequests)), rate["POST /github/webhook"], 1, rate["POST /github/webhook"] * day / 3 * 4 * requestWrite, rate["POST /github/webhook"] * day * 2,
			"a job is three deliveries: one write and one message, then two messages"},
		{"anybody, with a made-up ID token", "`POST /start`", fmt.Sprintf("%s a second", number(starts)), starts, 0, 0, 0, "its signature is checked; nothing is read"},
		{"a repository's workflow", "`POST /start`, new requests", fmt.Sprintf("%s a second, and %s open at once unless its registration says otherwise", number(starts), number(store.DefaultOpenRequests)), starts, 1, starts * day * 4 * requestWrite, starts * day * 2,
			"one write and one message, and later at most three writes until it is over; an eighth of a count of 2,000 index entries"},
		{"the same beyond its bound", "`POST /start`", fmt.Sprintf("%s a second", number(starts)), starts, request, 0, 0, "one read; a count in five seconds for each process"},
		{"the same", "`GET /status` of its request", fmt.Sprintf("%s a second", number(rate["GET /status/{id}"])), rate["GET /status/{id}"], request + runner + 1, 0, 0, "three records read; what it settles is written once"},
		{"a machine before its boot", "`boot`", fmt.Sprintf("%s a second; 40 at once and one a second for each process", number(rate["POST /runners/{id}/boot"])), rate["POST /runners/{id}/boot"], runner + 1, 3 * runnerWrite, 0, "two records read; three writes in its life"},
		{"a machine with its session", "`events` and `next` that count", "40 at once and one a second for each process; 3,600 events, 900 configs and 720 heartbeats an hour are written, none past its hard limit", 5, runner + 2, day / 3600 * (events*runnerWrite + pulses), day / 3600 * 2 * configs,
			"one read of three records, and a write of one or two"},
		{"the same, as a flood", "`events`", fmt.Sprintf("%s a second", number(rate["POST /runners/{id}/events"])), rate["POST /runners/{id}/events"], 0, 0, 0, "an invocation; 429 before anything is read, and one alarm"},
		{"a repository's workflow, or an operator", "`GET /requests` and `GET /runners`", fmt.Sprintf("%s a second each", number(rate["GET /requests"])), rate["GET /requests"] + rate["GET /runners"], 500*runner + 4, 0, 0, "500 records, where a page is narrowed by account or region; else 100"},
		{"the same", "`GET /find`", fmt.Sprintf("%s a second", number(rate["GET /find"])), rate["GET /find"], 200*runner + 2, 0, 0, "200 records, for what is not there; else few"},
		{"the same", "`GET /usage`", fmt.Sprintf("%s a second", number(rate["GET /usage"])), rate["GET /usage"], 3000*4 + 2, 0, 0, "3,000 records of 10 KB; of a repository, at most 92"},
		{"the same", "`GET /runners/{id}`", fmt.Sprintf("%s a second", number(rate["GET /runners/{id}"])), rate["GET /runners/{id}"], runner + 2, 0, 0, "three records"},
	}
	var b strings.Builder
	b.WriteString("| who | can send | how often at most | what each call costs us | dollars a day at most |\n|---|---|---|---|---|\n")
	for _, m := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | $%.2f |\n", m.who, m.sends, m.bound, m.costs, m.dollars())
	}
	compare(t, "../../../SECURITY.md", "\n"+b.String()+"\n")
}
