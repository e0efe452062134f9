package api

import (
	"context"
	"net/http"
	"path"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// unrouted answers what the mux would with a problem.
func unrouted(h http.Handler) func(context.Context, *call, unread) (none, error) {
	return func(_ context.Context, c *call, _ unread) (none, error) {
		w := probe{header: http.Header{}}
		h.ServeHTTP(&w, c.Request)
		if w.status == http.StatusMethodNotAllowed {
			return none{}, &problem{code: apitype.CodeMethodNotAllowed, allow: w.header.Get("Allow"), detail: "Use one of: " + w.header.Get("Allow") + "."}
		}
		return none{}, &problem{code: apitype.CodeNotFound, detail: "There is no such path. GET /openapi.yaml tells which there are."}
	}
}

// probe takes an answer and keeps its status and headers.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }

// canonical reports whether a path is the one way to write what it names. The
// mux would redirect the others.
func canonical(p string) bool { return p == path.Clean(p) && strings.HasPrefix(p, "/") }
