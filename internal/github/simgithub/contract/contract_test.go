package contract

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
)

// recorder is a testing.TB that keeps what is reported to it.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestExchangesAreHeldAgainstTheDescription(t *testing.T) {
	const (
		mint    = "POST /repos/acme/shop/actions/runners/generate-jitconfig"
		get     = "GET /repos/acme/shop/actions/runners/1"
		good    = `{"name":"r","runner_group_id":1,"labels":["x"]}`
		runner  = `{"id":1,"name":"r","os":"linux","status":"online","busy":false,"labels":[]}`
		problem = `{"message":"m","documentation_url":"d"}`
	)
	for name, c := range map[string]struct {
		call, body string
		status     int
		answer     string
		want       string // part of the one report; empty: none
	}{
		"Right":                  {mint, good, 201, `{"runner":` + runner + `,"encoded_jit_config":"x"}`, ""},
		"RightById":              {"GET /repositories/7/actions/runners/1", "", 200, runner, ""},
		"RightOnAServer":         {"GET /api/v3/repos/acme/shop/actions/runners/1", "", 200, runner, ""},
		"NoLabels":               {mint, `{"name":"r","runner_group_id":1,"labels":[]}`, 201, `{"runner":` + runner + `,"encoded_jit_config":"x"}`, "another request"},
		"NoLabelsAreRefused":     {mint, `{"name":"r","runner_group_id":1,"labels":[]}`, 422, problem, ""},
		"NameIsANumber":          {mint, `{"name":1,"runner_group_id":1,"labels":["x"]}`, 409, problem, "another request"},
		"PageIsAWord":            {"GET /repos/acme/shop/actions/runners?page=x", "", 200, `{"total_count":0,"runners":[]}`, "another request"},
		"IDIsAWord":              {"GET /repos/acme/shop/actions/runners/r", "", 200, runner, "another request"},
		"RepositoriesAreStrings": {"POST /app/installations/1/access_tokens", `{"repository_ids":["1"]}`, 201, `{"token":"t","expires_at":"x"}`, "another request"},
		"NoConfig":               {mint, good, 201, `{"runner":` + runner + `}`, "another answer"},
		"IDIsText":               {get, "", 200, strings.Replace(runner, "1", `"1"`, 1), "another answer"},
		"NoJSON":                 {get, "", 200, `<html>`, "another answer"},
		"StrangeStatus":          {get, "", 202, runner, "another answer"},
		"TeapotIsNoError":        {get, "", 418, problem, "another answer"},
		"LimitIsAllowed":         {get, "", 429, problem, ""},
		"DeniedIsAllowed":        {mint, good, 401, `whatever`, ""},
		"DeniedIsDescribed":      {"POST /app/installations/1/access_tokens", `{}`, 401, `[]`, "another answer"},
		"UnknownCall":            {"GET /repos/acme/shop/actions/secrets", "", 200, `{}`, "no such call"},
		"UnknownMethod":          {"PUT /repos/acme/shop/actions/runners/1", "", 200, `{}`, "no such call"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Load(t, "../testdata/github-openapi.json")
			r := &recorder{TB: t}
			h := d.Handler(r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != c.body {
					t.Errorf("the handler got %q, %v; want the body that was sent", b, err)
				}
				w.Header().Set("Content-Type", "application/json; charset=utf-8")
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			}))
			method, path, _ := strings.Cut(c.call, " ")
			q, err := http.NewRequestWithContext(t.Context(), method, "http://any.test"+path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.body != "" {
				q.Header.Set("Content-Type", "application/json")
			}
			resp, err := memhttp.Client(h).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != c.status || string(b) != c.answer {
				t.Errorf("the client got %d %s, %v; want what was answered", resp.StatusCode, b, err)
			}
			if c.want == "" && len(r.errors) > 0 || c.want != "" && (len(r.errors) != 1 || !strings.Contains(r.errors[0], c.want)) {
				t.Errorf("reported %q, want %q", r.errors, c.want)
			}
		})
	}
}

func TestSeenNamesOperations(t *testing.T) {
	d := Load(t, "../testdata/github-openapi.json")
	if len(d.Operations()) != 22 || len(d.Seen()) != 0 {
		t.Fatalf("operations = %v, seen = %v; want 22, none seen", d.Operations(), d.Seen())
	}
	h := d.Handler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	q, err := http.NewRequestWithContext(t.Context(), "DELETE", "http://any.test/repos/acme/shop/actions/runners/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := memhttp.Client(h).Do(q); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Seen(), []string{"actions/delete-self-hosted-runner-from-repo"}; !slices.Equal(got, want) {
		t.Errorf("seen = %v, want %v", got, want)
	}
}
