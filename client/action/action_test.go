package action_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/action"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
)

var update = flag.Bool("update", false, "write golden files")

// api answers as the API does. Each key has its request, which takes a while.
type api struct {
	mu      sync.Mutex
	asked   map[string]time.Time // when each request was made
	stopped []string
	refuse  map[string]bool // keys
	// fails says what becomes of a request in place of ready.
	fails map[string]string
	away  time.Time // until then it does not answer
	takes time.Duration
	slow  time.Duration // before each answer
	polls []time.Time
	// attempts are tried for each request, if not zero.
	attempts int
	idPrefix string
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(a.slow)
	a.mu.Lock()
	defer a.mu.Unlock()
	problem := func(code string) {
		k, _ := apitype.ProblemOf(code)
		w.Header().Set("Content-Type", apitype.ProblemMedia)
		w.WriteHeader(k.Status)
		_ = json.NewEncoder(w).Encode(apitype.Problem{Code: code, Detail: "It is so."})
	}
	if time.Now().Before(a.away) {
		problem(apitype.CodeUnavailable)
		return
	}
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	var answer any
	switch {
	case r.URL.Path == "/start":
		var body apitype.Start
		_ = json.NewDecoder(r.Body).Decode(&body)
		if a.refuse[body.IdempotencyKey] {
			problem(apitype.CodeForbidden)
			return
		}
		id = a.idPrefix + strings.ReplaceAll(body.IdempotencyKey, "/", "-")
		if _, ok := a.asked[id]; !ok {
			a.asked[id] = time.Now()
		}
		answer = apitype.Started{ID: id, State: "accepted", RunsOn: []string{"garo-" + id}, StatusToken: apitype.Token("garo_st_canary" + id)}
	case a.asked[id].IsZero():
		problem(apitype.CodeNotFound)
		return
	case strings.HasPrefix(r.URL.Path, "/stop/"):
		a.stopped = append(a.stopped, id)
		answer = apitype.Stopped{ID: id, State: "cancelled", Draining: true}
	default:
		a.polls = append(a.polls, time.Now())
		answer = a.status(id)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *api) status(id string) apitype.Status {
	at := a.asked[id]
	s := apitype.Status{
		ID: id, State: "waiting", CreatedAt: at, RunsOn: []string{"garo-" + id},
		History: []apitype.Entry{{At: at, State: "accepted"}, {At: at.Add(time.Second), State: "waiting", Reason: "launches runner r|1"}},
		Attempts: []apitype.Attempt{
			{At: at.Add(time.Second), Market: "spot", InstanceType: "t3a.micro", Subnet: "subnet-a", Code: "InsufficientInstanceCapacity"},
			{At: at.Add(2 * time.Second), Market: "ondemand", InstanceType: "t3a.micro", Subnet: "subnet-a", Code: "launched"},
		},
		Runner: &apitype.Runner{
			ID: "r1", Name: "garo-prod-r1-1", InstanceID: "i-1", State: "booting", Market: "ondemand", InstanceType: "t3a.micro", Subnet: "subnet-a",
			ExpiresAt: at.Add(time.Hour), Options: map[string]string{"tags": "team=build", "root_volume": "100 GiB, gp3"},
			History: []apitype.Entry{{At: at.Add(time.Second), State: "new"}, {At: at.Add(2 * time.Second), State: "launched", Reason: "instance i-1"}},
		},
	}
	if a.attempts > 0 {
		s.Attempts = attemptsOf(at, a.attempts)
	}
	end := at.Add(a.takes)
	if time.Now().Before(end) {
		return s
	}
	if code := a.fails[id]; code != "" {
		s.State, s.EndedAt, s.Error = "failed", end, &apitype.Error{Code: code, Text: "EC2 has *none*.\n::error::x"}
		s.History = append(s.History, apitype.Entry{At: end, State: "failed", Reason: code})
		return s
	}
	s.State, s.ReadyAt, s.Runner.State = "ready", end, "online"
	s.History = append(s.History, apitype.Entry{At: end, State: "ready", Reason: "runner online"})
	return s
}

// step is a step of the action against an api.
type step struct {
	t     *testing.T
	api   *api
	files string
	vars  map[string]string
	log   bytes.Buffer
}

func newStep(t *testing.T, inputs map[string]string) *step {
	s := &step{
		t: t, files: t.TempDir(), api: &api{asked: map[string]time.Time{}, takes: 30 * time.Second, refuse: map[string]bool{}, fails: map[string]string{}},
		vars: map[string]string{
			"INPUT_URL": "https://garo.example.org", "GITHUB_ACTION": "garo", "GITHUB_RUN_ID": "7", "GITHUB_WORKFLOW": "Build | test",
			"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "acme/shop",
		},
	}
	for name, v := range inputs {
		s.vars["INPUT_"+strings.ToUpper(name)] = v
	}
	for _, name := range []string{"GITHUB_STATE", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"} {
		s.vars[name] = filepath.Join(s.files, name)
	}
	return s
}

func (s *step) env() action.Env {
	return action.Env{
		Getenv: func(name string) string { return s.vars[name] }, Stdout: &s.log,
		Connect: func(url string, _ func(client.Token)) *client.Client {
			return client.Must(client.New(client.Config{URL: url, HTTP: memhttp.Client(s.api), Token: client.Static(client.NewToken("idtoken"))}))
		},
	}
}

func (s *step) file(name string) string {
	b, err := os.ReadFile(s.vars[name])
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(b)
}

// outputs returns what the step has set: the last value counts.
func (s *step) outputs() map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(s.file("GITHUB_OUTPUT")) {
		name, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		all[name] = v
	}
	return all
}

// post runs the end of the job with what was saved last.
func (s *step) post(ctx context.Context) error {
	saved := strings.Split(strings.TrimSpace(s.file("GITHUB_STATE")), "\n")
	s.vars["STATE_garo"] = strings.TrimPrefix(saved[len(saved)-1], "garo=")
	return action.Post(ctx, s.env())
}

func (s *step) said(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if !strings.Contains(s.log.String(), text) {
			s.t.Errorf("the log does not say %q:\n%s", text, &s.log)
		}
	}
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestGoldenLogAndSummaryOfARunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"labels": "build"})
		if err := action.Main(t.Context(), s.env()); err != nil {
			t.Fatalf("Main = %v\n%s", err, &s.log)
		}
		want := map[string]string{
			"id": "garo-1", "runs-on": `["garo-garo-1"]`, "name": "garo-prod-r1-1", "state": "ready", "instance-id": "i-1", "expires-at": "2000-01-01T01:00:00Z",
		}
		if got := s.outputs(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("outputs = %v, want %v", got, want)
		}
		golden(t, "ready.log.golden", s.log.String())
		golden(t, "ready.md.golden", s.file("GITHUB_STEP_SUMMARY"))
		if err := s.post(t.Context()); err != nil || len(s.api.stopped) != 0 {
			t.Errorf("Post = %v, stopped %q; want nothing", err, s.api.stopped)
		}
	})
}

func TestGoldenLogAndSummaryOfAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, nil)
		s.api.fails["garo-1"] = "no_capacity"
		if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
			t.Fatalf("Main = %v, want %v", err, action.ErrTold)
		}
		golden(t, "failed.log.golden", s.log.String())
		golden(t, "failed.md.golden", s.file("GITHUB_STEP_SUMMARY"))
	})
}

func TestSeveralRunnersComeAsLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"count": "3"})
		if err := action.Main(t.Context(), s.env()); err != nil {
			t.Fatalf("Main = %v\n%s", err, &s.log)
		}
		got := s.outputs()
		if got["id"] != `["garo-1","garo-2","garo-3"]` || got["runs-on"] != `["garo-garo-1","garo-garo-2","garo-garo-3"]` || got["state"] != `["ready","ready","ready"]` {
			t.Errorf("outputs = %v, want lists of three in one order", got)
		}
		s.said("[2/3] request garo-2 is ready after 30s")
	})
}

func TestOneThatFailsEndsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"count": "3"})
		s.api.fails["garo-2"] = "no_capacity"
		if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
			t.Errorf("Main = %v, want %v", err, action.ErrTold)
		}
		s.said("::error title=GARO%3A no_capacity::Request garo-2 ended as failed")
		slices.Sort(s.api.stopped)
		if want := []string{"garo-1", "garo-2", "garo-3"}; !slices.Equal(s.api.stopped, want) {
			t.Errorf("stopped %q, want %q", s.api.stopped, want)
		}
	})
}

func TestOneThatIsRefusedEndsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"count": "2"})
		s.api.refuse["garo/2"] = true
		s.api.slow = time.Second // so that both are asked for
		if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
			t.Errorf("Main = %v, want %v", err, action.ErrTold)
		}
		s.said("::error title=GARO%3A forbidden::start: forbidden: It is so.", "docs/action.md#forbidden")
		if !slices.Equal(s.api.stopped, []string{"garo-1"}) {
			t.Errorf("stopped %q, want garo-1", s.api.stopped)
		}
		if err := s.post(t.Context()); err != nil || len(s.api.stopped) != 1 {
			t.Errorf("Post = %v, stopped %q; want nothing more", err, s.api.stopped)
		}
	})
}

func TestWaitingEndsAfterWaitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"wait-timeout": "5m"})
		s.api.takes = time.Hour
		began := time.Now()
		if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
			t.Errorf("Main = %v, want %v", err, action.ErrTold)
		}
		if took := time.Since(began); took < 5*time.Minute || took > 6*time.Minute {
			t.Errorf("Main took %s, want a little over 5m", took)
		}
		s.said("::error title=GARO%3A wait_timeout::Request garo-1 is still waiting after 5m0s.")
		if !slices.Equal(s.api.stopped, []string{"garo-1"}) {
			t.Errorf("stopped %q, want garo-1", s.api.stopped)
		}
	})
}

func TestLongOutageIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, nil)
		time.AfterFunc(10*time.Second, func() {
			s.api.mu.Lock()
			defer s.api.mu.Unlock()
			s.api.away = time.Now().Add(5 * time.Minute)
		})
		if err := action.Main(t.Context(), s.env()); err != nil {
			t.Errorf("Main = %v\n%s", err, &s.log)
		}
		s.said("the API does not answer, and is asked again", "request garo-1 is ready")
	})
}

func TestOutageAtTheStartIsTheEndsToCleanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, nil)
		s.api.away = time.Now().Add(5 * time.Minute)
		if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
			t.Errorf("Main = %v, want %v", err, action.ErrTold)
		}
		s.said("::error title=GARO%3A unavailable::", "the end of the job does the rest")
		s.api.away = time.Time{}
		if err := s.post(t.Context()); err != nil || !slices.Equal(s.api.stopped, []string{"garo-1"}) {
			t.Errorf("Post = %v, stopped %q; want garo-1, which may have been recorded", err, s.api.stopped)
		}
	})
}

func TestPostThatCannotCancelSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, func() {
			s.api.mu.Lock()
			s.api.away = time.Now().Add(time.Hour)
			s.api.mu.Unlock()
			cancel()
		})
		began := time.Now()
		if err := action.Main(ctx, s.env()); !errors.Is(err, action.ErrCancelled) {
			t.Errorf("Main = %v, want %v", err, action.ErrCancelled)
		}
		// GitHub kills a step ten seconds after it told it to end.
		if took := time.Since(began); took > 17*time.Second {
			t.Errorf("a cancelled Main continued for %s, want less than 7s", took-10*time.Second)
		}
		if err := s.post(t.Context()); !errors.Is(err, action.ErrTold) {
			t.Errorf("Post = %v, want %v", err, action.ErrTold)
		}
		s.said("::error title=GARO%3A unavailable::Not everything could be cancelled")
	})
}

func TestRepeatedStepWaitsForWhatTheFirstOneAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"idempotency-key": "mine", "wait": "false"})
		began := time.Now()
		if err := action.Main(t.Context(), s.env()); err != nil || time.Since(began) > time.Second || s.outputs()["runs-on"] != `["garo-mine-1"]` {
			t.Errorf("Main = %v after %s with outputs %v, want it to end at once", err, time.Since(began), s.outputs())
		}
		s.vars["INPUT_WAIT"], s.vars["GITHUB_ACTION"] = "true", "another"
		if err := action.Main(t.Context(), s.env()); err != nil || len(s.api.asked) != 1 || s.outputs()["state"] != "ready" {
			t.Errorf("Main = %v with %d requests and outputs %v, want the one request to be ready", err, len(s.api.asked), s.outputs())
		}
	})
}

func TestStatusShowsAndStopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"command": "status", "id": "a"})
		s.api.asked["a"], s.api.asked["b"] = time.Now().Add(-time.Hour), time.Now()
		if err := action.Main(t.Context(), s.env()); err != nil || s.outputs()["state"] != "ready" || s.outputs()["instance-id"] != "i-1" {
			t.Errorf("status = %v with outputs %v, want ready", err, s.outputs())
		}
		s.said("::group::request a is ready", "instance i-1")
		s.vars["INPUT_COMMAND"], s.vars["INPUT_ID"] = "stop", `["a","b"]`
		if err := action.Main(t.Context(), s.env()); err != nil || s.outputs()["state"] != `["cancelled","cancelled"]` || len(s.api.stopped) != 2 {
			t.Errorf("stop = %v with outputs %v, want both stopped", err, s.outputs())
		}
		s.vars["INPUT_ID"] = "c"
		for _, command := range []string{"status", "stop"} {
			s.vars["INPUT_COMMAND"] = command
			if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
				t.Errorf("%s of nothing = %v, want %v", command, err, action.ErrTold)
			}
		}
		s.said("::error title=GARO%3A not_found::")
	})
}

func TestStepThatAskedForNothingHasNothingToCancel(t *testing.T) {
	s := newStep(t, map[string]string{"count": "0"})
	if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
		t.Errorf("Main = %v, want %v", err, action.ErrTold)
	}
	s.said("::error title=GARO%3A bad_input::input count: want 1 to 256")
	if err := s.post(t.Context()); err != nil {
		t.Errorf("Post = %v, want nothing to do", err)
	}
	s.vars["STATE_garo"] = "{"
	if err := action.Post(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
		t.Errorf("Post of half a record = %v, want %v", err, action.ErrTold)
	}
}

func TestFileThatCannotBeWrittenStopsBeforeAnythingIsAsked(t *testing.T) {
	s := newStep(t, nil)
	s.vars["GITHUB_STATE"] = filepath.Join(s.files, "no", "such", "folder")
	if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) || len(s.api.asked) != 0 {
		t.Errorf("Main = %v after %d requests, want %v before any", err, len(s.api.asked), action.ErrTold)
	}
	s.said("::error title=GARO%3A not_recorded::")
}
