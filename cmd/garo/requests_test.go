package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestListContinuesBehindPagesOfFewRequests(t *testing.T) {
	var asked []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/healthz" {
			_, _ = fmt.Fprint(w, `{"status":"ok"}`)
			return
		}
		after := r.URL.Query().Get("after")
		asked = append(asked, after)
		_, _ = fmt.Fprint(w, map[string]string{
			"":  `{"requests":[],"after":"b"}`,
			"b": `{"requests":[{"id":"one","state":"failed"}],"after":"a"}`,
			"a": `{"requests":[{"id":"two","state":"failed"}]}`,
		}[after])
	}))
	defer api.Close()
	t.Setenv("GARO_TOKEN", "garo_op_test")
	var out strings.Builder
	c := root()
	c.SetArgs([]string{"list", "--url", api.URL, "--state", "failed"})
	c.SetOut(&out)
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(asked, ","); got != ",b,a" || !strings.Contains(out.String(), "one") || !strings.Contains(out.String(), "two") {
		t.Errorf("garo list asked after %q and printed\n%swant pages after nothing, b and a, and requests one and two", got, out.String())
	}
}
