// Package contract holds what a client and a GitHub say to each other against
// GitHub's own description of its API, as far as GARO calls it. It promises to
// report every request and every answer that the description does not have, but
// for the answers that are listed here because GitHub gives them all the same.
package contract

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// undocumented are the statuses that the description leaves out at one operation
// or another, though GitHub documents them for its API as a whole: redirects,
// credentials and limits, what is not there, and its own failures.
var undocumented = []int{301, 302, 307, 308, 401, 403, 404, 429, 500, 502, 503, 504}

// Description is GitHub's description of its API. It is safe for concurrent use.
type Description struct {
	router routers.Router
	all    []string

	mu   sync.Mutex
	seen map[string]bool
}

const host = "https://api.github.test"

// Load reads the description from a file.
func Load(t testing.TB, file string) *Description {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(file)
	if err != nil {
		t.Fatalf("load GitHub's description: %v", err)
	}
	doc.Servers = openapi3.Servers{{URL: host}}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatalf("load GitHub's description: %v", err)
	}
	d := &Description{router: router, seen: map[string]bool{}}
	for _, path := range doc.Paths.Map() {
		for _, op := range path.Operations() {
			d.all = append(d.all, op.OperationID)
		}
	}
	slices.Sort(d.all)
	return d
}

// Operations returns the names of all operations, sorted.
func (d *Description) Operations() []string { return slices.Clone(d.all) }

// Seen returns the names of the operations that a Handler saw, sorted.
func (d *Description) Seen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.seen))
}

// byID is how our client calls, and where GitHub sends calls for a repository that
// was renamed, and pages of what an organization has. What is below it is described
// below the name of the repository or of the organization.
var byID = map[*regexp.Regexp]string{
	regexp.MustCompile(`^/repositories/[0-9]+/`):  "/repos/owner/repo/",
	regexp.MustCompile(`^/organizations/[0-9]+/`): "/orgs/org/",
}

// Handler returns next, with all that goes in and comes out held against the
// description and told to t. A request may be wrong if the answer is 422.
func (d *Description) Handler(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		a := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(a, r)
		d.check(t, r, body, a)
	})
}

func (d *Description) check(t testing.TB, r *http.Request, body []byte, a *answer) {
	ctx := r.Context()
	path := strings.TrimPrefix(r.URL.Path, "/api/v3")
	for prefix, named := range byID {
		path = prefix.ReplaceAllString(path, named)
	}
	to, err := url.Parse(host + path)
	if err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, err)
		return
	}
	to.RawQuery = r.URL.RawQuery
	in := r.Clone(ctx)
	in.URL, in.Host, in.Body = to, to.Host, io.NopCloser(bytes.NewReader(body))
	route, params, err := d.router.FindRoute(in)
	if err != nil {
		t.Errorf("%s %s: GitHub's description has no such call: %v", r.Method, r.URL, err)
		return
	}
	d.mu.Lock()
	d.seen[route.Operation.OperationID] = true
	d.mu.Unlock()
	input := &openapi3filter.RequestValidationInput{Request: in, PathParams: params, Route: route}
	if err := openapi3filter.ValidateRequest(ctx, input); err != nil && a.status != http.StatusUnprocessableEntity {
		t.Errorf("%s %s: GitHub's description has another request: %v", r.Method, r.URL, err)
	}
	if route.Operation.Responses.Status(a.status) == nil && slices.Contains(undocumented, a.status) {
		return
	}
	err = openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 a.status,
		Header:                 a.Header(),
		Body:                   io.NopCloser(bytes.NewReader(a.body.Bytes())),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%s %s: GitHub's description has another answer: %v", r.Method, r.URL, err)
	}
}

// answer is an http.ResponseWriter that keeps what went through it.
type answer struct {
	http.ResponseWriter
	status int
	wrote  bool
	body   bytes.Buffer
}

func (a *answer) WriteHeader(status int) {
	if !a.wrote {
		a.status, a.wrote = status, true
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.wrote = true
	a.body.Write(b)
	return a.ResponseWriter.Write(b)
}
