package actiontest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// one is a workflow with one job, which asks for a runner.
const one = `on: push
jobs:
  runner:
    runs-on: ubuntu-latest
    steps:
      - id: garo
        uses: alphagov/github-actions-runner-orchestration/client/action@v1
        with:
          url: ${{ vars.GARO_URL }}
          mode: ephemeral
          %s
      - run: echo 'outputs ${{ toJSON(steps.garo.outputs) }}'
`

func TestJobsShareTheRunnerThatTheyWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	label := s.sharedLabel("build")
	r := start(t, s, "shared.yml", []string{label}, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1, "build": 1, "test": 1})
	r.says(t, "runs-on "+label, "built on ", "tested on ", "is ready after", "The job has what it asked for")
	all := s.requests(t)
	if len(all) != 1 || all[0].State != "ready" || all[0].Caller != "github octocat" || all[0].Runner.InstanceID == "" {
		t.Errorf("requests = %+v, want one that is ready", all)
	}
}

// What the guide begins with is all that the common case needs.
func TestFirstWorkflowOfTheGuideRuns(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile(filepath.Join(root, "docs", "action.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, workflow, _ := strings.Cut(string(guide), "```yaml\n")
	workflow, _, _ = strings.Cut(workflow, "```")
	if n := strings.Count(workflow, "\n"); n > 25 {
		t.Errorf("it has %d lines, want at most 25", n)
	}
	workflow = strings.Replace(workflow, "make build", "echo it was built", 1)
	s := newSystem(t, "--boot-time", "1s")
	r := start(t, s, workflow, []string{s.sharedLabel()}, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1, "build": 1})
	r.says(t, "it was built")
}

func TestEachEntryOfTheMatrixHasItsOwnMachine(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	var labels []string
	for n := range 5 {
		labels = append(labels, s.ephemeralLabel(fmt.Sprintf("garo/%d", n+1)))
	}
	r := start(t, s, "matrix.yml", labels, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runners": 1, "test": 5})
	for n := range 5 {
		r.says(t, fmt.Sprintf("part %d tested on", n))
	}
	machines := map[string]bool{}
	for _, q := range s.requests(t) {
		if q.State != "ready" || q.Mode != "ephemeral" {
			t.Errorf("request %s is %s, %s; want ready, ephemeral", q.ID, q.State, q.Mode)
		}
		machines[q.Runner.InstanceID] = true
	}
	if len(machines) != 5 {
		t.Errorf("%d machines, want 5", len(machines))
	}
}

func TestJobOfAnOrganizationGetsARunnerOfItsGroup(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	s.reregister(t, `"repositories": [{"id": "1001", "name": "acme/shop"}]`, `"owners": [{"id": "1", "name": "acme"}],
		"scope": {"kind": "organization", "id": "1", "name": "acme", "runner_group": "garo"}`)
	s.reregister(t, `["shared", "ephemeral"]`, `["ephemeral"]`)
	r := start(t, s, "spot.yml", []string{s.ephemeralLabel("garo/1")}, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1, "build": 1})
	q := s.requests(t)[0]
	story := fmt.Sprint(q.Runner.History)
	if q.Repository != "acme/shop" || q.State != "ready" || !strings.Contains(story, "in the runner group garo of acme") {
		t.Errorf("request = %+v of %s, want it ready, with a runner in the group: %s", q.State, q.Repository, story)
	}
}

func TestSpotWithoutCapacityFallsBackToOnDemand(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s", "--no-capacity", "spot/*/*")
	r := start(t, s, "spot.yml", []string{s.ephemeralLabel("garo/1")}, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1, "build": 1})
	r.says(t, "ondemand t3a.micro", "built on ")
	if q := s.requests(t)[0]; q.Runner.Market != "ondemand" || q.Type != "spot" {
		t.Errorf("the runner of a %s request is %s, want ondemand", q.Type, q.Runner.Market)
	}
}

func TestStatusAndStopFindTheRequestOfAnotherJob(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	r := start(t, s, "stop.yml", []string{s.sharedLabel("build")}, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1, "build": 1, "stop": 1})
	q := s.requests(t)[0]
	r.says(t, "the request was ready", "request "+q.ID+" is ready; its runner ends")
	if q.Runner.End == nil || q.Runner.End.Code != "stopped" {
		t.Errorf("the runner's end = %+v, want stopped", q.Runner.End)
	}
}

func TestRepeatedJobFindsItsRequestAndANewAttemptDoesNot(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	workflow := fmt.Sprintf(one, "")
	for attempt, want := range map[string]int{"1": 1, "2": 1} {
		before := len(s.requests(t))
		s.issuer.Set("run_attempt", attempt)
		for range 2 {
			start(t, s, workflow, nil, s.environment()...).wait(t).ran(t, "success", map[string]int{"runner": 1})
		}
		if got := len(s.requests(t)) - before; got != want {
			t.Errorf("attempt %s made %d requests, want %d", attempt, got, want)
		}
	}
}

func TestDeniedRepositoryIsToldWhy(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.issuer.Set("repository_id", "1002")
	r := start(t, s, fmt.Sprintf(one, ""), nil, s.environment()...).wait(t)
	r.ran(t, "failure", map[string]int{"runner": 1})
	r.says(t, "::error title=GARO%3A forbidden::", "No such account is registered for this repository", "docs/action.md#forbidden")
	if all := s.requests(t); len(all) != 0 {
		t.Errorf("requests = %+v, want none", all)
	}
}

func TestMissingPermissionShowsTheTwoLines(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	r := start(t, s, fmt.Sprintf(one, ""), nil, s.environment()[:1]...).wait(t)
	r.ran(t, "failure", map[string]int{"runner": 1})
	r.says(t, "::error title=GARO%3A no_id_token::", "%0Apermissions:%0A  id-token: write%0A", "docs/action.md#no_id_token")
}

func TestOutageOfTheAPIIsRiddenOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "6s")
	s.stop() // away when the job asks
	r := start(t, s, fmt.Sprintf(one, ""), nil, s.environment()...)
	until(t, "the job to ask", func() bool { return strings.Contains(r.out.String(), "::endgroup::") })
	s.begin(t)
	until(t, "the request", func() bool { return strings.Contains(r.out.String(), "runs-on garo-") })
	s.stop() // away while it waits
	time.Sleep(3 * time.Second)
	s.begin(t)
	r.wait(t).ran(t, "success", map[string]int{"runner": 1})
	if all := s.requests(t); len(all) != 1 || all[0].State != "ready" {
		t.Errorf("requests = %+v, want one that is ready", all)
	}
}

// What stands before the API answers some calls itself, in words of its own.
func TestThrottlingAndTroubleBeforeTheAPIAreRiddenOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	s.issuer.Set("aud", s.url) // the address of the API itself, which is not that of the proxy
	api, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(api)
	var mu sync.Mutex
	calls, early := map[string]int{}, 0
	var throttled time.Time
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, _, _ := strings.Cut(r.URL.Path[1:], "/")
		mu.Lock()
		n := calls[call]
		calls[call]++
		if n == 1 && time.Since(throttled) < 2*time.Second {
			early++
		}
		if n == 0 {
			throttled = time.Now()
		}
		mu.Unlock()
		switch n {
		case 0:
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"message":"Too Many Requests"}`))
		case 1, 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3: // the API does it, and nobody hears of it
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusGatewayTimeout)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	defer front.Close()
	r := start(t, s, strings.Replace(fmt.Sprintf(one, ""), "${{ vars.GARO_URL }}", front.URL, 1), nil, s.environment()...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1})
	if all := s.requests(t); len(all) != 1 || all[0].State != "ready" {
		t.Errorf("requests = %+v, want one that is ready", all)
	}
	mu.Lock()
	defer mu.Unlock()
	if early > 0 || calls["start"] != 5 || calls["status"] < 5 {
		t.Errorf("calls = %v, %d of them sooner than Retry-After says; want five of start, and five or more of status", calls, early)
	}
}

func TestNoCapacityTellsWhatWasTried(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--no-capacity", "*/*/*", "--speed", "60")
	r := start(t, s, fmt.Sprintf(one, ""), nil, s.environment()...).wait(t)
	r.ran(t, "failure", map[string]int{"runner": 1})
	r.says(t, "::error title=GARO%3A no_capacity::", "Tried spot t3a.micro in subnet-a: InsufficientInstanceCapacity", "docs/action.md#no_capacity")
}

// act kills a step whose job is cancelled, as GitHub does with one that does not
// end: the step at the end of the job has to do it all.
func TestCancelledJobLeavesNoMachine(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1h", "--speed", "20")
	r := start(t, s, fmt.Sprintf(one, ""), nil, s.environment()...)
	until(t, "the machine", func() bool {
		all := s.requests(t)
		return len(all) == 1 && all[0].Runner != nil && all[0].Runner.InstanceID != ""
	})
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	id := s.requests(t)[0].ID
	r.says(t, "request "+id+" is cancelled; its runner ends")
	if q := s.request(t, id); q.State != "cancelled" {
		t.Errorf("request = %s, want cancelled", q.State)
	}
	until(t, "the machine to end", func() bool { return s.request(t, id).Runner.State == "ended" })
}
