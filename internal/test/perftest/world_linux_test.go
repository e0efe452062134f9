package perftest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
)

// The folders of the functions' mains.
const (
	api    = "../../../cmd/garo-api"
	worker = "../../../cmd/garo-worker"
	reaper = "../../../cmd/garo-reaper"
)

var built struct {
	mu  sync.Mutex
	dir string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program returns the program of a function, unpacked as Lambda has it. It is built
// once, as make build does, but trusts the certificate of the simulation in place of
// AWS's.
func program(t testing.TB, main string) string {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "garo-perftest-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir = dir
	}
	dir := filepath.Join(built.dir, filepath.Base(main))
	path := filepath.Join(dir, "bootstrap")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	trust, err := awstest.Trusting("../../..", built.dir, simidentity.Own().PEM())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", trust, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-tags", "lambda.norpc", "-o", path, main)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", main, err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	agents := map[string][]byte{"amd64": []byte("\x7fELF agent"), "arm64": []byte("\x7fELF agent too")}
	files := bundle.Reaper(content)
	switch main {
	case api:
		files, err = bundle.API(content, agents)
	case worker:
		files, err = bundle.Worker(content, agents)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if at != path {
			if err := os.WriteFile(at, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path
}

// function returns a function that is not started yet. log may be nil: what it logs
// is then shown if the test fails.
func function(t testing.TB, program string, env []string, log io.Writer) *runtimeapi.Function {
	t.Helper()
	return runtimeapi.New(t, runtimeapi.Config{
		Program: program, Name: "garo-perf", Log: log, Timeout: time.Minute, // what is measured is no timeout
		Env: append([]string{"GARO_LOG_LEVEL=warn", "GOMAXPROCS=" + fmt.Sprint(runtime.NumCPU())}, env...),
	})
}

// event is a call of the API as API Gateway hands it on. token and lock may be
// empty; lock is what a machine sends back to save a read.
func event(t testing.TB, method, path, token, lock string, body any) []byte {
	t.Helper()
	e := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: path, Headers: map[string]string{"host": "garo.test"}}
	if token != "" {
		e.Headers["authorization"] = "Bearer " + token
	}
	if lock != "" {
		e.Headers[strings.ToLower(apitype.LockHeader)] = lock
	}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		e.Headers["content-type"], e.Body = "application/json", string(b)
	}
	e.RequestContext.HTTP.Method = method
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answered decodes the API's answer into v, which may be nil, and checks its status.
func answered(t testing.TB, answer []byte, status int, v any) {
	t.Helper()
	var a events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatalf("answer %s: %v", answer, err)
	}
	if a.StatusCode != status {
		t.Fatalf("answer = %d %s, want %d", a.StatusCode, a.Body, status)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("answer %s: %v", a.Body, err)
	}
}

// batch is an event of the queue with one message.
func batch(t testing.TB, body string) []byte {
	t.Helper()
	b, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{
		MessageId: "m", ReceiptHandle: "r", Body: body, EventSource: "aws:sqs",
		Attributes: map[string]string{"ApproximateReceiveCount": "1"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// plain serves without TLS.
func plain(h http.Handler) *httptest.Server { return httptest.NewServer(h) }

// start is a POST /start with an ID token that was just made. An empty account
// leaves it to the API to find the one that serves the repository.
func (w *wire) start(account, mode, key string) []byte {
	w.t.Helper()
	token, err := w.ids.Token(apiURL)
	if err != nil {
		w.t.Fatal(err)
	}
	return event(w.t, http.MethodPost, "/start", token, "", apitype.Start{AccountID: account, Mode: mode, IdempotencyKey: key})
}
