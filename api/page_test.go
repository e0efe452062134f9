package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestPageIsServedWithAPolicyThatLetsNothingIn(t *testing.T) {
	w := newWorld(t)
	for path, media := range map[string]string{"/": "text/html", "/page/page.js": "text/javascript", "/page/page.css": "text/css"} {
		a := w.raw("GET", path, "", nil)
		policy := a.header.Get("Content-Security-Policy")
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), media) || len(a.body) == 0 {
			t.Errorf("%s = %d %s, %d bytes; want %s", path, a.status, a.header.Get("Content-Type"), len(a.body), media)
		}
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s has the policy %q, want %s in it", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || a.header.Get("Set-Cookie") != "" || a.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s has the headers %v, want nothing unsafe, no cookie and no referrer", path, a.header)
		}
		if path == "/" && strings.Contains(string(a.body), "://") {
			t.Error("the page names another site")
		}
	}
	for _, path := range []string{"/page/", "/page/none.js", "/page/..%2fopenapi.yaml", "/page/%2e%2e", "/index.html"} {
		if a := w.raw("GET", path, "", nil); a.status != http.StatusNotFound {
			t.Errorf("%s = %d, want 404", path, a.status)
		}
	}
}

func TestListThatIsTheSameIsNotSentAgain(t *testing.T) {
	w := newWorld(t)
	started := w.start(workflowToken, apitype.Start{})
	for _, path := range []string{"/requests", "/runners", "/find?q=" + started.ID} {
		first := w.raw("GET", path, operatorToken, nil)
		tag := first.header.Get("ETag")
		again := w.raw("GET", path, operatorToken, nil, "If-None-Match", tag)
		if tag == "" || again.status != http.StatusNotModified || len(again.body) != 0 || again.header.Get("ETag") != tag {
			t.Errorf("%s with its ETag %s = %d %s, want 304 and nothing", path, tag, again.status, again.body)
		}
	}
	before := w.raw("GET", "/requests", operatorToken, nil).header.Get("ETag")
	r := w.request(started.ID)
	w.apply(store.Case{Request: r}.Fail(time.Now(), w.limits, store.Failure{Code: "no_capacity", Text: "None."}))
	if a := w.raw("GET", "/requests", operatorToken, nil, "If-None-Match", before); a.status != http.StatusOK || a.header.Get("ETag") == before {
		t.Errorf("a list that changed = %d, want 200 and another ETag", a.status)
	}
	if a := w.raw("GET", "/requests", "a.b.c", nil, "If-None-Match", before); a.status != http.StatusUnauthorized {
		t.Errorf("the ETag with a token that is none = %d, want 401", a.status)
	}
}
