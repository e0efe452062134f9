package perftest

import (
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore/dynamostoretest"
)

var update = flag.Bool("update", false, "write the golden files again")

// latency is what every call takes: far more than the functions need between two
// calls, even where many other programs run, and far less than they wait for one.
const latency = 500 * time.Millisecond

// relisted is how long it counts that there are no accounts, and a little more: a
// list of some has to serve for longer.
const relisted = 11 * time.Second

// pass waits until so long after a time.
func pass(from time.Time, d time.Duration) { time.Sleep(time.Until(from.Add(d))) }

// row is what one answer of a function took.
type row struct {
	what  string
	path  path
	took  time.Duration
	bound bounds
}

// bounds are what a row may take at most. Zero bounds nothing.
type bounds struct {
	aws, github int
	k           int // calls one after another, until the answer
	launched    int // until RunInstances was answered
}

// TestCallsGolden plays one story in the built functions, and counts. A count above
// its bound fails; the document has to say what was counted.
func TestCallsGolden(t *testing.T) {
	server := awstest.DynamoDB(t)
	table, empty := "garo-"+rand.Text(), "garo-"+rand.Text() // the second stays so
	for _, name := range []string{table, empty} {
		if err := dynamostoretest.Create(t.Context(), awstest.Config(t, server, "eu-west-2", "AKIDTEST"), name); err != nil {
			t.Fatal(err)
		}
	}
	w, env := newWire(t, server.URL, plain)
	env = append(env, "GARO_TABLE="+table)
	front, work, reap := function(t, program(t, api), env, nil), function(t, program(t, worker), env, nil), function(t, program(t, reaper), env, nil)
	idle := function(t, program(t, reaper), append(env, "GARO_TABLE="+empty), nil)
	w.setLatency(latency)

	var rows []row
	step := func(what string, b bounds, do func()) time.Time {
		t.Helper()
		w.counted()
		began := time.Now()
		do()
		rows = append(rows, row{what, w.counted(), time.Since(began), b})
		return time.Now()
	}
	init := func(f *runtimeapi.Function) func() {
		return func() {
			t.Helper()
			if err := f.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	invoke := func(f *runtimeapi.Function, payload []byte) []byte {
		t.Helper()
		answer, err := f.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	run := func(f *runtimeapi.Function) func() {
		return func() { t.Helper(); invoke(f, []byte("{}")) }
	}
	handle := func() { // the message that was sent last
		t.Helper()
		if got := invoke(work, batch(t, w.messages[len(w.messages)-1])); strings.Contains(string(got), "itemIdentifier") {
			t.Fatalf("worker = %s, want the message done", got)
		}
	}
	var started apitype.Started
	start := func(account, mode, key string) func() {
		return func() {
			t.Helper()
			answered(t, invoke(front, w.start(account, mode, key)), 202, &started)
		}
	}
	status := func(want string) func() {
		asked := started
		return func() {
			t.Helper()
			var status apitype.Status
			answered(t, invoke(front, event(t, "GET", "/status/"+asked.ID, asked.StatusToken.Reveal(), "", nil)), 200, &status)
			if status.State != want {
				t.Errorf("state = %s, want %s", status.State, want)
			}
		}
	}
	type machine struct {
		runner  string
		booted  apitype.Booted
		counter int64
	}
	boot := func(m *machine) func() { // it is the one that was launched last
		return func() {
			t.Helper()
			n := len(w.userData)
			document, err := bootstrap.Parse(w.userData[n-1])
			if err != nil {
				t.Fatal(err)
			}
			m.runner = document.Runner
			word := simidentity.Own().Sign(identity.Document{AccountID: account, Region: "eu-west-2", InstanceID: instance(n)})
			answered(t, invoke(front, event(t, "POST", "/runners/"+m.runner+"/boot", "", "", apitype.Boot{
				Token: document.Token.Reveal(), Nonce: rand.Text(), InstanceID: instance(n), Identity: word,
			})), 200, &m.booted)
		}
	}
	connect := func(m *machine) { // the runner program: GitHub shows it online from now on
		t.Helper()
		session, err := w.jobs.Connect(t.Context(), m.booted.Config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(session.Close)
	}
	tell := func(m *machine, kind string) func() {
		return func() {
			t.Helper()
			m.counter++
			var orders apitype.Orders
			answered(t, invoke(front, event(t, "POST", "/runners/"+m.runner+"/events", m.booted.Session, m.booted.Lock,
				apitype.Event{Event: kind, Counter: m.counter})), 200, &orders)
			if orders.Order != "go" {
				t.Errorf("order after %s = %s, want go", kind, orders.Order)
			}
		}
	}

	var shared, own machine
	init(idle)()
	init(reap)()
	listed := step("API: a process begins", bounds{}, init(front))
	step("POST /start, first in a process", bounds{aws: 2, k: 2}, start(account, store.Shared, "1"))
	step("worker: a process begins", bounds{}, init(work))
	step("launch, first in a process", bounds{aws: 9, github: 1, k: 9, launched: 7}, handle)
	boot(&shared)()
	connect(&shared)
	tell(&shared, "online")()
	handle()
	confirmed := time.Now()
	run(reap)() // the first one sweeps
	swept := time.Now()

	pass(listed, relisted)
	step("POST /start that names no account", bounds{aws: 2, k: 2}, start("", store.Ephemeral, "2"))
	handle()
	step("POST /start", bounds{aws: 2, k: 2}, start(account, store.Ephemeral, "3"))
	step("launch", bounds{aws: 6, github: 1, k: 6, launched: 4}, handle)
	step("POST /start again", bounds{aws: 2, k: 2}, start(account, store.Ephemeral, "3"))
	step("GET /status of a request that waits", bounds{aws: 2, k: 2}, status("waiting"))
	step("machine: boot", bounds{aws: 3, k: 3}, boot(&own))
	connect(&own)
	beat := step("machine: online", bounds{aws: 3, k: 3}, tell(&own, "online"))
	step("worker: confirmation of a runner that listens", bounds{aws: 3, github: 1, k: 4}, handle)
	step("GET /status of a request that is ready", bounds{aws: 2, k: 2}, status("ready"))
	pass(beat, store.DefaultLimits().Heartbeat/4) // one that comes sooner is not written
	step("machine: heartbeat", bounds{aws: 2, k: 2}, tell(&own, "heartbeat"))

	start(account, store.Shared, "4")()
	tell(&shared, "heartbeat")() // else it counts as silent where all this is slow
	step("launch that shares a live runner", bounds{aws: 2, k: 2}, handle)

	listed = step("reaper: first run, with a sweep of one account and region", bounds{}, run(idle))
	pass(swept, relisted)
	pass(confirmed, store.DefaultLimits().Confirmed/3) // when the reaper asks GitHub about it again
	tell(&shared, "heartbeat")()
	tell(&own, "heartbeat")()
	step("reaper: run over three runners and what waits for them", bounds{}, run(reap))
	pass(listed, relisted)
	step("reaper: run with nothing to do", bounds{aws: 4, k: 4}, run(idle)) // two of them record the run

	for _, r := range rows {
		k := r.path.until("")
		t.Logf("%-58s %5.2f s = %2d × %v + %v: %v", r.what, r.took.Seconds(), k, latency, (r.took - time.Duration(k)*latency).Round(time.Millisecond), r.path)
		for _, fault := range r.beyond() {
			t.Error(fault)
		}
	}
	golden(t, "calls", counts(rows))
	golden(t, "round trips", trips(rows))
}

// beyond tells of each bound that the row is above.
func (r row) beyond() (faults []string) {
	for _, b := range []struct {
		of       string
		got, max int
	}{
		{"calls of AWS", r.path.of(dynamoDB, sqs, ec2, sts, ssm), r.bound.aws},
		{"calls of GitHub", r.path.of(github), r.bound.github},
		{"calls one after another", r.path.until(""), r.bound.k},
		{"calls one after another until RunInstances", r.path.until("RunInstances"), r.bound.launched},
	} {
		if b.max > 0 && b.got > b.max {
			faults = append(faults, fmt.Sprintf("%s: %d %s, want at most %d: %v", r.what, b.got, b.of, b.max, r.path))
		}
	}
	return faults
}

// counts is what was called, by service.
func counts(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| what | %s | at most |\n|---%s|---|\n", strings.Join(services, " | "), strings.Repeat("|---", len(services)))
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s ", r.what)
		for _, s := range services {
			n := fmt.Sprint(r.path.of(s))
			if n == "0" {
				n = ""
			}
			fmt.Fprintf(&b, "| %s ", n)
		}
		var most []string
		if r.bound.aws > 0 {
			most = append(most, fmt.Sprintf("%d to AWS", r.bound.aws))
		}
		if r.bound.github > 0 {
			most = append(most, fmt.Sprintf("%d to GitHub", r.bound.github))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(most, ", "))
	}
	return b.String()
}

// trips is what waited for what.
func trips(rows []row) string {
	var b strings.Builder
	b.WriteString("| what | k | at most | what waits for what |\n|---|---|---|---|\n")
	for _, r := range rows {
		if n := r.path.until("RunInstances"); n > 0 {
			fmt.Fprintf(&b, "| %s, until launched | %d | %s | |\n", r.what, n, bound(r.bound.launched))
			r.what += ", until configured"
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %v |\n", r.what, r.path.until(""), bound(r.bound.k), r.path)
	}
	return b.String()
}

func bound(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// document is where the figures are written down.
const document = "../../../docs/performance.md"

// golden compares a part of the document with what it has to be, or writes it.
func golden(t *testing.T, part, want string) {
	t.Helper()
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+part+": written by make golden -->\n", "<!-- end of "+part+" -->\n"
	before, rest, ok := strings.Cut(string(b), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: want the lines %q and %q", document, begin, end)
	}
	if *update {
		if err := os.WriteFile(document, []byte(before+begin+"\n"+want+"\n"+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%s has\n%s\nwant\n%s(make golden writes it)", document, got, want)
	}
}
