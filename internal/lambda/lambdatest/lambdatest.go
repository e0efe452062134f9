// Package lambdatest is as much of AWS as a Lambda function needs to start and to
// answer its first event, for the tests of the functions' mains: SSM parameters,
// a table without items, a queue and a role that can be taken on. It keeps count
// of the calls. What the adapters do with AWS is tested with stand-ins that know
// more; this one answers in the same process, and fails by script.
package lambdatest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
)

// AWS is the stand-in. It is safe for concurrent use.
type AWS struct {
	t   testing.TB
	url string
	out log

	mu         sync.Mutex
	parameters map[string]string
	broken     map[string]bool
	calls      []string
}

// New returns a stand-in, and makes it the AWS of this process until the test ends.
func New(t testing.TB) *AWS {
	t.Helper()
	a := &AWS{t: t, parameters: map[string]string{}, broken: map[string]bool{}}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "eu-west-2", "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_MAX_ATTEMPTS": "1", // what fails by script need not fail three times
		"GARO_TABLE":       "garo-test", "GARO_QUEUE_URL": server.URL + "/123456789012/garo-test",
		"GARO_CONTROL_PLANE": "test", "GARO_URL": "https://garo.test", "GARO_OIDC_ISSUERS": server.URL + "/issuer",
		"GARO_PRICES_URL": server.URL + "/prices",
	} {
		t.Setenv(name, value)
	}
	return a
}

// Process is what a function is started with: the environment of the test, and its
// files in dir.
func (a *AWS) Process(dir string) startup.Process {
	return startup.Process{Environ: os.Environ(), Dir: dir, Out: &a.out}
}

// Log returns what the function has logged.
func (a *AWS) Log() string { return a.out.String() }

// Put writes an SSM parameter.
func (a *AWS) Put(name, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parameters[name] = value
}

// Break makes every call of an operation, such as GetParameter, fail as in an outage,
// or repairs it.
func (a *AWS) Break(operation string, broken bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken[operation] = broken
}

// Calls returns the calls since the last time, sorted: each is the operation and
// what it is about.
func (a *AWS) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := a.calls
	a.calls = nil
	slices.Sort(calls)
	return calls
}

// call is what of a call the answers need.
type call struct{ Name, Path, TableName, QueueUrl string }

// ServeHTTP implements http.Handler.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Errorf("read a call: %v", err)
		return
	}
	operation := operationOf(r, body)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken[operation] {
		a.calls = append(a.calls, operation+" broken")
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var in call
	if strings.HasPrefix(string(body), "{") {
		if err := json.Unmarshal(body, &in); err != nil {
			a.t.Errorf("%s: %v", operation, err)
		}
	}
	a.calls = append(a.calls, strings.TrimSpace(operation+" "+in.Name+in.Path+in.TableName))
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	a.answer(w, operation, in)
}

// operationOf names the operation that a request calls.
func operationOf(r *http.Request, body []byte) string {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch {
	case strings.Contains(string(body), "Action=AssumeRole"):
		return "AssumeRole"
	case operation == "":
		return r.Method + " " + r.URL.Path
	}
	return operation
}

// answer answers an operation, or reports one that it does not know.
func (a *AWS) answer(w http.ResponseWriter, operation string, in call) {
	switch operation {
	case "GetParameter":
		a.getParameter(w, in.Name)
	case "GetParametersByPath":
		found := []any{}
		for name := range a.parameters {
			if strings.HasPrefix(name, in.Path+"/") {
				found = append(found, map[string]any{"Name": name, "Version": 1})
			}
		}
		answer(w, map[string]any{"Parameters": found})
	case "AssumeRole":
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>`+
			`<AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>y</SessionToken><Expiration>%s</Expiration>`+
			`</Credentials></AssumeRoleResult></AssumeRoleResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case "GetItem", "PutItem", "TransactWriteItems":
		answer(w, map[string]any{})
	case "BatchGetItem":
		answer(w, map[string]any{"Responses": map[string]any{}, "UnprocessedKeys": map[string]any{}})
	case "Query":
		answer(w, map[string]any{"Items": []any{}, "Count": 0, "ScannedCount": 0})
	case "SendMessage":
		answer(w, map[string]any{"MessageId": "m"})
	case "GET /issuer/.well-known/jwks":
		answer(w, map[string]any{"keys": []any{}})
	case "GET /":
	default:
		a.t.Errorf("the function calls %s, which this stand-in does not know", operation)
		w.WriteHeader(http.StatusNotImplemented)
	}
}

func (a *AWS) getParameter(w http.ResponseWriter, name string) {
	value, ok := a.parameters[name]
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]any{"__type": "ParameterNotFound"})
		return
	}
	answer(w, map[string]any{"Parameter": map[string]any{"Name": name, "Value": value, "Version": 1}})
}

func answer(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err) // maps of text always encode, and the client is in this process
	}
}

// log is a log that can be read while it is written.
type log struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
