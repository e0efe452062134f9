package githubtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// described returns a function that sends a request and holds it and its answer
// against GitHub's own description of its API.
func described(t *testing.T, w *world) func(method, path, body string, status int, undocumented ...int) {
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/github-openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc.Servers = openapi3.Servers{{URL: "https://api.github.test"}}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return func(method, path, body string, status int, undocumented ...int) {
		t.Helper()
		r := request(t.Context(), method, path, body)
		route, params, err := router.FindRoute(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}
		if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil && status < 400 {
			t.Errorf("%s %s: GitHub documents another request: %v", method, path, err)
		}
		r = request(t.Context(), method, path, body) // the first one's body is read
		got := w.send(r)
		if got.status != status {
			t.Fatalf("%s %s = %d %s, want %d", method, path, got.status, got.body, status)
		}
		if slices.Contains(undocumented, status) {
			return
		}
		err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in,
			Status:                 got.status,
			Header:                 got.header,
			Body:                   io.NopCloser(bytes.NewReader(got.body)),
			Options:                &openapi3filter.Options{IncludeResponseStatus: true},
		})
		if err != nil {
			t.Errorf("%s %s: GitHub documents another answer: %v", method, path, err)
		}
	}
}

func TestAnswersAreAsDocumented(t *testing.T) {
	w := open(t, Config{})
	call := described(t, w)
	const path = "/repos/acme/shop/actions/runners"
	const mint = path + "/generate-jitconfig"

	call("GET", path, "", 200)
	call("POST", mint, mintBody("r1", "garo-x", "big"), 201)
	call("POST", mint, mintBody("r1", "x"), 409)
	call("POST", mint, mintBody("r 1", "x"), 422)
	call("POST", mint, `{"name":"r","runner_group_id":1,"labels":[]}`, 422)
	call("POST", strings.Replace(mint, "shop", "none", 1), mintBody("r1", "x"), 404)
	one := fmt.Sprintf("%s/%d", path, w.Registrations()[0].ID)
	call("GET", one, "", 200)
	call("GET", path+"?per_page=1&page=1&name=r1", "", 200)
	call("POST", mint, mintBody("r2", "x"), 201)
	call("GET", path+"?per_page=1", "", 200)

	x := w.connect(w.Registrations()[0].Config.Reveal())
	w.queue("1", "GARO-X")
	j := take(t, x)
	call("GET", one, "", 200)
	call("DELETE", one, "", 422)
	if err := x.Done(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	// The description has no 404 for these two, GitHub does.
	call("GET", one, "", 404, http.StatusNotFound)
	call("DELETE", one, "", 404, http.StatusNotFound)
	call("DELETE", fmt.Sprintf("%s/%d", path, w.Registrations()[0].ID), "", 204)
	call("GET", path+"/downloads", "", 200)
	call("GET", "/rate_limit", "", 200)
}
