package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/lambdatest"
)

const token = keys.OperatorPrefix + "0123456789abcdef0123456789abcdef"

var (
	program = []byte("\x7fELF agent")
	ring    = `{"id": "` + strings.Repeat("i", 32) + `", "current": "k1", "keys": {"k1": "` + strings.Repeat("k", 32) + `"}}`
)

// unpacked returns a directory as the function's zip makes it.
func unpacked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := bundle.API([]byte("bootstrap"), map[string][]byte{"arm64": program})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// function starts garo-api.
func function(t *testing.T, aws *lambdatest.AWS) lambda.Handler {
	t.Helper()
	f, err := start(t.Context(), aws.Process(unpacked(t)))
	if err != nil {
		t.Fatal(err)
	}
	return lambda.NewHandler(f)
}

// call returns what the function answers to a call.
func call(t *testing.T, f lambda.Handler, method, path, token string) events.APIGatewayV2HTTPResponse {
	t.Helper()
	e := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: path, Headers: map[string]string{"host": "garo.test"}}
	if token != "" {
		e.Headers["authorization"] = "Bearer " + token
	}
	e.RequestContext.HTTP.Method = method
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Invoke(t.Context(), b)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	var a events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%s %s = %s: %v", method, path, out, err)
	}
	return a
}

func TestFunctionAnswers(t *testing.T) {
	aws := lambdatest.New(t)
	aws.Put("/garo/keys", ring)
	aws.Put("/garo/operators", `{"ann": "`+keys.HashToken(token)+`"}`)
	aws.Put("/garo/accounts/123456789012", "{}") // a bad registration keeps nothing else from working
	f := function(t, aws)
	want := []string{
		"GET /", "GET /issuer/.well-known/jwks", "GetItem garo-test", "GetParameter /garo/accounts/123456789012",
		"GetParameter /garo/keys", "GetParameter /garo/operators", "GetParametersByPath /garo/accounts",
	}
	if got := aws.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls at the start = %q, want %q", got, want)
	}
	if a := call(t, f, "GET", "/healthz", ""); a.StatusCode != 200 || a.Body != `{"status":"ok"}` {
		t.Errorf("GET /healthz = %+v, want ok", a)
	}
	if a := call(t, f, "GET", "/requests", ""); a.StatusCode != 401 {
		t.Errorf("GET /requests without a token = %+v, want 401", a)
	}
	if a := call(t, f, "GET", "/requests", keys.OperatorPrefix+"another"); a.StatusCode != 401 {
		t.Errorf("GET /requests with another token = %+v, want 401", a)
	}
	aws.Calls()
	if a := call(t, f, "GET", "/requests", token); a.StatusCode != 200 || a.Body != `{"requests":[]}` {
		t.Errorf("GET /requests = %+v, want an empty page", a)
	}
	if got := aws.Calls(); len(got) != 1 || got[0] != "Query garo-test" {
		t.Errorf("calls of an operator's list = %q, want one: the parameters are kept", got)
	}
	a := call(t, f, "GET", fmt.Sprintf("/agent/linux/arm64/%x", sha256.Sum256(program)), "")
	b, err := base64.StdEncoding.DecodeString(a.Body)
	if err != nil || !a.IsBase64Encoded || a.StatusCode != 200 {
		t.Fatalf("agent = %+v, %v; want it in base64", a, err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, program) {
		t.Errorf("agent = %q, %v; want the program of the zip", got, err)
	}
}

func TestFunctionWithoutKeysIsAnOutageUntilTheyAreThere(t *testing.T) {
	aws := lambdatest.New(t)
	aws.Break("GetParameter", true)
	f := function(t, aws)
	a := call(t, f, "GET", "/healthz", "")
	if a.StatusCode != 503 || a.Headers["Retry-After"] == "" || strings.Contains(a.Body, "/garo/keys") {
		t.Errorf("GET /healthz = %+v, want 503 that clients wait for", a)
	}
	if log := aws.Log(); !strings.Contains(log, `"alarm":"access"`) || !strings.Contains(log, "/garo/keys") {
		t.Errorf("log = %s, want an alarm that names the parameter", log)
	}
	aws.Put("/garo/keys", ring)
	aws.Break("GetParameter", false)
	if a := call(t, f, "GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("GET /healthz with keys = %+v, want 200 from the same process", a)
	}
}

func TestMissingKeysAreNamedInTheLog(t *testing.T) {
	aws := lambdatest.New(t)
	f := function(t, aws)
	if a := call(t, f, "GET", "/healthz", ""); a.StatusCode != 503 {
		t.Errorf("GET /healthz = %+v, want 503", a)
	}
	if log := aws.Log(); !strings.Contains(log, "read parameter /garo/keys: no such parameter") {
		t.Errorf("log = %s, want it to name the missing parameter", log)
	}
}

func TestFunctionThatCannotStartSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		dir  string
		want []string
	}{
		"Environment": {set: map[string]string{"GARO_TABLE": "", "GARO_URL": "garo.test", "GARO_TABEL": "x"}, want: []string{"GARO_TABLE is not set", "GARO_URL", "is GARO_TABLE meant?"}},
		"Issuer":      {set: map[string]string{"GARO_OIDC_ISSUERS": "https://Issuer.test"}, want: []string{"https://Issuer.test", "lower case"}},
		"NoAgents":    {dir: t.TempDir(), want: []string{"agents", "make build"}},
		"NoRegion":    {set: map[string]string{"AWS_REGION": ""}, want: []string{"AWS_REGION"}},
	} {
		t.Run(name, func(t *testing.T) {
			aws := lambdatest.New(t)
			for name, value := range c.set {
				t.Setenv(name, value)
			}
			if c.dir == "" {
				c.dir = unpacked(t)
			}
			f, err := start(context.Background(), aws.Process(c.dir))
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("start = %v, %v; want an error that says %s", f, err, want)
				}
			}
		})
	}
}
