package github_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
)

// renamed sends every request that names the repository to its id, as GitHub
// does: GETs for good, others to be repeated as they are.
func renamed(to string) func(string, *http.Request) githubtest.Fault {
	return func(_ string, r *http.Request) (f githubtest.Fault) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/repos/"+repo.Name); ok {
			code := http.StatusTemporaryRedirect
			if r.Method == http.MethodGet {
				code = http.StatusMovedPermanently
			}
			f.Instead = http.RedirectHandler(to+rest+query(r), code)
		}
		return f
	}
}

func query(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return "?" + r.URL.RawQuery
}

func TestRenamedRepositoryIsFollowed(t *testing.T) {
	s := open(t, githubtest.Config{Fault: renamed("/repositories/" + repo.ID)})
	c := client(t, s.Handler())
	m, err := c.Mint(t.Context(), repo, "r", []string{"x"})
	if err != nil {
		t.Fatalf("Mint: %v", err)
	}
	if r, err := c.Get(t.Context(), repo, m.RunnerID); err != nil || r.Name != "r" {
		t.Errorf("Get = %+v, %v; want the runner", r, err)
	}
	if r, err := c.Find(t.Context(), repo, "r"); err != nil || r.ID != m.RunnerID {
		t.Errorf("Find = %+v, %v; want the runner", r, err)
	}
	if err := c.Delete(t.Context(), repo, m.RunnerID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := s.Registrations(); len(got) != 0 {
		t.Errorf("registrations = %+v, want none: the DELETE was repeated as a DELETE", got)
	}
}

func TestRedirectElsewhereIsRefused(t *testing.T) {
	var reached atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer evil.Close()
	const path = "/api/v3/repos/acme/shop/actions/runners"
	for name, to := range map[string]string{
		"AnotherHost":       evil.URL + path,
		"Metadata":          "http://169.254.169.254/latest/meta-data/canary",
		"AnotherPort":       "https://127.0.0.1:1" + path,
		"WithoutTLS":        "http://HOST" + path,
		"AnotherScheme":     "ftp://HOST" + path,
		"UserInfo":          "https://canary@HOST" + path,
		"AnotherRepository": "/api/v3/repositories/" + other.ID + "/actions/runners",
		"LongerID":          "/api/v3/repositories/" + repo.ID + "0/actions/runners",
		"NoRepository":      "/api/v3/repositories/",
		"OutsideTheBase":    "/evil/",
		"NoPlace":           "",
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				if to != "" {
					w.Header().Set("Location", strings.Replace(to, "HOST", r.Host, 1))
				}
				w.Header().Set("X-GitHub-Request-Id", "REQ:1")
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			defer s.Close()
			for call, err := range calls(t, clientAt(t, s.URL+"/api/v3", s.Client())) {
				if e := failed(t, call, err, github.ErrRefused); e.Status != http.StatusTemporaryRedirect || e.RequestID != "REQ:1" {
					t.Errorf("%s = %v, want the redirect's own status and request", call, e)
				}
			}
			if got := n.Load(); got != 5 {
				t.Errorf("%d requests for 5 calls: one was redirected", got)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d calls reached a place where GitHub's credential must not go", n)
	}
}

func TestRedirectThatChangesTheMethodIsRefused(t *testing.T) {
	var seen []string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.URL.Path)
		http.Redirect(w, r, "/repositories/101/x", http.StatusMovedPermanently)
	})
	c := client(t, h)
	failed(t, "Delete", c.Delete(t.Context(), repo, 1), github.ErrRefused)
	_, err := c.Mint(t.Context(), repo, "r", []string{"x"})
	failed(t, "Mint", err, github.ErrRefused)
	if len(seen) != 2 {
		t.Errorf("requests = %v, want the two calls: a GET in their place would do nothing and look well", seen)
	}
}

func TestRedirectsDoNotGoRound(t *testing.T) {
	n := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, r.URL.String(), http.StatusMovedPermanently)
	})
	_, err := client(t, h).Get(t.Context(), repo, 1)
	failed(t, "Get", err, github.ErrRefused)
	if n != 4 {
		t.Errorf("%d requests, want the call and 3 redirects", n)
	}
}
