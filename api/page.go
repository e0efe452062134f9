package api

import (
	"context"
	"embed"
	"path"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// pageFiles are the page for people who run GARO. It calls the API as any client does,
// with the token that is pasted into it. It is served to anyone, and says nothing on its own.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load its own two files and call its own API, and nothing else:
// no script that is written into it runs, and nobody frames it
// (https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/).
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// pageMedia are the types of the page's files. Those of the mime package depend on the
// machine.
var pageMedia = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

// page answers the page, or one of its files.
func (s *server) page(_ context.Context, c *call, _ none) (file, error) {
	name := c.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	body, err := pageFiles.ReadFile(path.Join("page", path.Base(name)))
	if err != nil {
		return file{}, &problem{code: apitype.CodeNotFound, detail: "The page has no such file: another version of the API is deployed. Load it again."}
	}
	return file{media: pageMedia[path.Ext(name)], policy: pagePolicy, body: body}, nil
}
