package contracttest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The test takes seconds by a few random calls of each operation; make schemathesis has
// the rest.
var (
	whole    = flag.Bool("whole", false, "try every bound of every field, and calls that follow from others, too")
	examples = flag.Int("examples", 10, "how many random calls of each operation Schemathesis makes, with each token")
	seed     = flag.Int("seed", 1, "what the random calls come from")
)

// patience bounds a run: far more than it takes, since other tests may have the processors.
const patience = 30 * time.Minute

// barred are the operations that no operator's token opens, or that need what a local
// system does not have: they are called, and refused as the contract says.
var barred = []string{
	"POST /github/webhook",         // wants a signature over the body
	"POST /runners/{id}/boot",      // wants a machine's token
	"POST /runners/{id}/events",    // the same
	"POST /runners/{id}/next",      // the same
	"POST /runners/{id}/admission", // the same
	"GET /agent/linux/{arch}/{sha256}",
}

// TestSchemathesisFindsNothing has Schemathesis look for answers that are not in the contract:
// as an operator, and with the token of one request.
func TestSchemathesisFindsNothing(t *testing.T) {
	program := awstest.Schemathesis(t)
	w := newWorld(t)
	there, started := w.history()
	w.run(program, "operator", w.system.Token, there)
	for _, op := range operations(t) {
		if calls, good := w.noted(op); calls == 0 || good == 0 && !slices.Contains(barred, op) {
			t.Errorf("as operator: %s was called %d times, and %d of them succeeded", op, calls, good)
		}
	}
	there.requests = []string{started.ID}
	w.run(program, "status token", client.NewToken(started.StatusToken.Reveal()), there)
	for _, op := range []string{"GET /status/{id}", "POST /stop/{id}"} {
		if calls, good := w.noted(op); good == 0 {
			t.Errorf("with its status token: %s was called %d times, and none of them succeeded", op, calls)
		}
	}
}

// world is a local system behind a real address, with notes of what it answered.
type world struct {
	*testing.T
	system *local.System
	url    string

	mu          sync.Mutex
	calls, good map[string]int // by operation; good: answered with 2xx
	failed      []string       // answered with 5xx
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, calls: map[string]int{}, good: map[string]int{}}
	server := httptest.NewUnstartedServer(nil)
	w.url = "http://" + server.Listener.Addr().String()
	s, err := local.Open(t.Context(), local.Config{Dir: t.TempDir(), URL: w.url, Limits: store.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	w.system = s
	server.Config.Handler = w.noting(s.Handler())
	server.Start()
	ctx, cancel := context.WithCancel(context.Background()) // t.Context ends before the cleanup begins
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// noting notes what h answers.
func (w *world) noting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		said := &answer{ResponseWriter: rw}
		h.ServeHTTP(said, r)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls[r.Pattern]++
		if said.status/100 == 2 {
			w.good[r.Pattern]++
		}
		if said.status >= 500 {
			w.failed = append(w.failed, fmt.Sprintf("%s %s = %d", r.Method, r.URL, said.status))
		}
	})
}

// noted returns how often an operation was called since the run began, and how often that
// succeeded.
func (w *world) noted(op string) (calls, good int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[op], w.good[op]
}

// answer remembers the status of what is written.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// present is what calls can be about.
type present struct{ requests, runners, checks []string }

// history makes what calls can be about. It returns the last request, too.
func (w *world) history() (there present, last apitype.Started) {
	w.Helper()
	c := client.Must(client.New(client.Config{URL: w.url, Token: client.Static(w.system.Token)}))
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	for range 2 {
		started, err := c.Start(ctx, apitype.Start{Repo: "acme/shop", Mode: store.Ephemeral, Labels: []string{"build"}})
		if err != nil {
			w.Fatal(err)
		}
		status, err := c.Wait(ctx, started.ID, nil)
		if err != nil {
			w.Fatal(err)
		}
		there.requests, there.runners, last = append(there.requests, started.ID), append(there.runners, status.Runner.ID), started
	}
	check, err := c.StartCheck(ctx, apitype.CheckStart{})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := w.system.Reap(ctx, false); err != nil { // which sweeps
		w.Fatal(err)
	}
	there.checks = []string{check.ID}
	return there, last
}

// config tells Schemathesis what there is, so that most of its calls are about something.
// 422 is a good answer to data that fit the schemas: it names what no schema can say, such
// as what an account allows, or that a number is written without a point.
const config = `
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422, 429]

[dictionaries]
requests = { values = [%s] }
runners = { values = [%s] }
checks = { values = [%s] }
files = { values = ["page.js", "page.css"] }
accounts = { values = ["%s"] }
regions = { values = ["%s"] }

[[operations]]
include-name = ["GET /status/{id}", "POST /stop/{id}"]
parameters = { "path.id" = { dictionary = "requests", probability = 0.9 } }

[[operations]]
include-name = ["GET /runners/{id}", "POST /runners/{id}/boot", "POST /runners/{id}/events", "POST /runners/{id}/next", "POST /runners/{id}/admission"]
parameters = { "path.id" = { dictionary = "runners", probability = 0.9 } }

[[operations]]
include-name = "GET /checks/{id}"
parameters = { "path.id" = { dictionary = "checks", probability = 0.9 } }

[[operations]]
include-name = "GET /page/{file}"
parameters = { "path.file" = { dictionary = "files", probability = 0.9 } }

[[operations]]
include-name = "GET /find"
parameters = { "query.q" = { dictionary = "runners", probability = 0.9 } }

[[operations]]
include-name = "POST /sweeps/{account}/{region}/release"
parameters = { "path.account" = { dictionary = "accounts", probability = 0.9 }, "path.region" = { dictionary = "regions", probability = 0.9 } }
`

// words writes strings of letters, digits and dots as TOML.
func words(all []string) string { return `"` + strings.Join(all, `", "`) + `"` }

// run has Schemathesis call the API with a token, and fails with what it says.
func (w *world) run(program, name string, token client.Token, there present) {
	w.Helper()
	w.mu.Lock()
	w.calls, w.good, w.failed = map[string]int{}, map[string]int{}, nil
	w.mu.Unlock()
	dir := w.TempDir()
	file := filepath.Join(dir, "schemathesis.toml")
	text := fmt.Sprintf(config, words(there.requests), words(there.runners), words(there.checks), local.BuiltIn, local.Region)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	phases := "examples,fuzzing"
	if *whole {
		phases = "examples,coverage,fuzzing,stateful"
	}
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	args := []string{
		"--config-file", file, "run", w.url + "/openapi.yaml", "--no-color", "--warnings", "off", "--header", "Authorization: Bearer " + token.Reveal(),
		"--phases", phases, "--max-examples", strconv.Itoa(*examples), "--seed", strconv.Itoa(*seed), "--generation-database", "none",
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Errorf("schemathesis as %s: %v\n%s", name, err, out)
	} else if summary := bytes.Index(out, []byte("Test Phases:")); summary >= 0 {
		w.Logf("schemathesis as %s:\n%s", name, out[summary:])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, call := range w.failed {
		w.Errorf("as %s: %s", name, call)
	}
}

// operations are those of the contract, as POST /start.
func operations(t *testing.T) (all []string) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if path == "/" {
				path = "/{$}" // net/http's pattern of that path alone
			}
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}
