package contracttest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
)

// The test takes seconds by a few random calls of each operation; make schemathesis has
// the rest.
var (
	whole    = flag.Bool("whole", false, "try every bound of every field, calls that follow from others, and every operation with every token")
	examples = flag.Int("examples", 10, "how many random calls of each operation Schemathesis makes, with each token")
	seed     = flag.Int("seed", 1, "what the random calls come from")
)

// machines are the operations that a machine's session opens, and no other token.
var machines = []string{"POST /runners/{id}/events", "POST /runners/{id}/next", "POST /runners/{id}/admission"}

// barred are the operations that no operator's token opens, or that need what a local
// system does not have: they are called, and refused as the contract says.
var barred = append([]string{
	"POST /github/webhook",    // wants a signature over the body
	"POST /runners/{id}/boot", // wants the token of the user data in it
	"GET /agent/linux/{arch}/{sha256}",
}, machines...)

// TestSchemathesisFindsNothing has Schemathesis look for answers that are not in the contract:
// as an operator, with the token of one request, and as a machine.
func TestSchemathesisFindsNothing(t *testing.T) {
	program := awstest.Schemathesis(t)
	w := newWorld(t)
	there, started := w.history()
	w.run(program, "operator", w.system.Token, "", there)
	for _, op := range operations(t) {
		if calls, good := w.noted(op); calls == 0 || good == 0 && !slices.Contains(barred, op) {
			t.Errorf("as operator: %s was called %d times, and %d of them succeeded", op, calls, good)
		}
	}
	there.requests = []string{started.ID}
	w.run(program, "status token", client.NewToken(started.StatusToken.Reveal()), "requests", there)
	for _, op := range []string{"GET /status/{id}", "POST /stop/{id}"} {
		if calls, good := w.noted(op); good == 0 {
			t.Errorf("with its status token: %s was called %d times, and none of them succeeded", op, calls)
		}
	}
	// The last call of a machine may be its last word: it drains, and then it is gone.
	w.run(program, "machine", w.session(there.machine), "machines", present{there.requests, []string{there.machine}, there.checks, ""})
	for _, op := range machines {
		if calls, good := w.noted(op); calls == 0 || good == 0 && op == machines[0] {
			t.Errorf("as a machine: %s was called %d times, and %d of them succeeded", op, calls, good)
		}
	}
}

// config tells Schemathesis what there is, so that most of its calls are about something.
// 422 is a good answer to data that fit the schemas: it names what no schema can say, such
// as what an account allows, or that a number is written without a point. So are 410 and
// 425, to a machine that is not wanted any more or whose answer is not recorded yet.
const config = `
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 422, 425, 429]

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

// run has Schemathesis call the API with a token, and fails with what it says. Without
// -whole, it calls the operations of a tag alone; empty: all.
func (w *world) run(program, name string, token client.Token, tag string, there present) {
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
	if tag != "" && !*whole {
		args = append(args, "--include-tag", tag)
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
