package github_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
)

// detour redirects every other request to where it went already.
func detour(get, others int) func(string, *http.Request) simgithub.Fault {
	n := 0
	return func(_ string, r *http.Request) (f simgithub.Fault) {
		if n++; n%2 == 1 {
			code := others
			if r.Method == http.MethodGet {
				code = get
			}
			f.Instead = http.RedirectHandler(r.URL.RequestURI(), code)
		}
		return f
	}
}

func TestRedirectToTheSameRepositoryIsFollowed(t *testing.T) {
	for name, codes := range map[string][2]int{
		"AsGitHubDoes": {http.StatusMovedPermanently, http.StatusTemporaryRedirect},
		"ForGood":      {http.StatusMovedPermanently, http.StatusMovedPermanently},
		"ForNow":       {http.StatusFound, http.StatusFound},
		"Permanently":  {http.StatusPermanentRedirect, http.StatusPermanentRedirect},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, simgithub.Config{Fault: detour(codes[0], codes[1])})
			everyCall(t, s, client(t, s.Handler()))
		})
	}
}

// everyCall registers a runner in repo, looks at it by each call, and deletes it.
func everyCall(t *testing.T, s world, c *github.Client) {
	t.Helper()
	before := len(s.Registrations())
	m, err := c.Mint(t.Context(), repo, "r", []string{"x"})
	if err != nil {
		t.Fatalf("Mint: %v", err)
	}
	if got := s.Registrations(); len(got) != before+1 || got[before].Name != "r" || got[before].RepositoryID != repo.ID || !got[before].Config.Equal(m.Config.Reveal()) {
		t.Fatalf("registrations = %+v, want the one that was asked for, in repository %s: the POST was made with its body", got, repo.ID)
	}
	if r, err := c.Get(t.Context(), repo, m.RunnerID); err != nil || r.Name != "r" {
		t.Errorf("Get = %+v, %v; want the runner", r, err)
	}
	if r, err := c.Find(t.Context(), repo, "r"); err != nil || r.ID != m.RunnerID {
		t.Errorf("Find = %+v, %v; want the runner", r, err)
	}
	if got := collect(t, c, repo, "r"); len(got) != 1 || got[0].ID != m.RunnerID {
		t.Errorf("List = %+v, want the runner", got)
	}
	if d, err := c.Downloads(t.Context(), repo); err != nil || len(d) == 0 {
		t.Errorf("Downloads = %+v, %v; want some", d, err)
	}
	if _, err := c.Deprecation(t.Context(), repo, simgithub.ProgramVersion); err != nil {
		t.Errorf("Deprecation: %v", err)
	}
	if err := c.Delete(t.Context(), repo, m.RunnerID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := s.Registrations(); len(got) != before {
		t.Errorf("registrations = %+v, want none of ours: the DELETE was made as a DELETE", got)
	}
}

func TestRenamedRepositoryKeepsItsRunnersThoughAnotherHasItsName(t *testing.T) {
	s := open(t, simgithub.Config{Fault: func(_ string, r *http.Request) (f simgithub.Fault) {
		if !strings.HasPrefix(r.URL.Path, "/repositories/"+repo.ID+"/") {
			t.Errorf("%s %s: want every call to name the repository by its id", r.Method, r.URL.Path)
		}
		return f
	}})
	c := client(t, s.Handler())
	before, err := c.Mint(t.Context(), repo, "before", []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rename(repo.ID, "acme/market"); err != nil {
		t.Fatal(err)
	}
	everyCall(t, s, c)
	if err := s.Create(github.Repository{ID: "999", Name: repo.Name}); err != nil {
		t.Fatal(err)
	}
	everyCall(t, s, c)
	if err := c.Delete(t.Context(), repo, before.RunnerID); err != nil {
		t.Errorf("Delete of the runner from before: %v; 404 would count as its end", err)
	}
	if got := s.Registrations(); len(got) != 0 {
		t.Errorf("registrations = %+v, want none, and never one in the new repository", got)
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
		"ByName":            path,
		"AnotherRepository": "/api/v3/repositories/" + other.ID + "/actions/runners",
		"LongerID":          "/api/v3/repositories/" + repo.ID + "0/actions/runners",
		"NoRepository":      "/api/v3/repositories/",
		"OutsideTheBase":    "/evil/",
		"NoPlace":           "",

		"AnotherHostForGood":       evil.URL + "/api/v3/repositories/" + repo.ID + "/actions/runners",
		"AnotherRepositoryForGood": "/api/v3/repositories/" + other.ID + "/actions/runners",
		"NoPlaceForGood":           "",
	} {
		code := http.StatusTemporaryRedirect
		if strings.HasSuffix(name, "ForGood") {
			code = http.StatusMovedPermanently
		}
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				if to != "" {
					w.Header().Set("Location", strings.Replace(to, "HOST", r.Host, 1))
				}
				w.Header().Set("X-GitHub-Request-Id", "REQ:1")
				w.WriteHeader(code)
			}))
			defer s.Close()
			for call, err := range calls(t, clientAt(t, s.URL+"/api/v3", s.Client())) {
				if e := failed(t, call, err, github.ErrRefused); e.Status != code || e.RequestID != "REQ:1" {
					t.Errorf("%s = %v, want the redirect's own status and request", call, e)
				}
			}
			if got := n.Load(); got != 7 {
				t.Errorf("%d requests for 7 calls: one was redirected", got)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d calls reached a place where GitHub's credential must not go", n)
	}
}

func TestRedirectToAnotherNameIsNotFollowedByWhatWrites(t *testing.T) {
	var seen []string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.URL.Path)
		http.Redirect(w, r, "/repos/acme/market/x", http.StatusMovedPermanently)
	})
	c := client(t, h)
	failed(t, "Delete", c.Delete(t.Context(), repo, 1), github.ErrRefused)
	_, err := c.Mint(t.Context(), repo, "r", []string{"x"})
	if e := failed(t, "Mint", err, github.ErrRefused); e.Status != http.StatusMovedPermanently {
		t.Errorf("Mint = %v, want GitHub's own status", e)
	}
	if len(seen) != 2 {
		t.Errorf("requests = %v, want the two calls: a GET in their place would do nothing and look well", seen)
	}
}

func TestRedirectsDoNotGoRound(t *testing.T) {
	for name, call := range map[string]func(*github.Client) error{
		"Get":    func(c *github.Client) error { _, err := c.Get(t.Context(), repo, 1); return err },
		"Delete": func(c *github.Client) error { return c.Delete(t.Context(), repo, 1) },
		"Mint":   func(c *github.Client) error { _, err := c.Mint(t.Context(), repo, "r", []string{"x"}); return err },
	} {
		n := 0
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			http.Redirect(w, r, "/repositories/101/actions/runners/x", http.StatusMovedPermanently)
		})
		failed(t, name, call(client(t, h)), github.ErrRefused)
		if n != 4 {
			t.Errorf("%s made %d requests, want the call and 3 redirects", name, n)
		}
	}
}

// A runner that an older version registered by the repository's name has an id at
// GitHub as any other: it is deleted by both ids.
func TestRunnerThatWasRegisteredByNameIsDeletedByID(t *testing.T) {
	s := open(t, simgithub.Config{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://github.test/repos/"+repo.Name+"/actions/runners/generate-jitconfig",
		strings.NewReader(`{"name":"garo-old-1","runner_group_id":1,"labels":["x"],"work_folder":"_work"}`))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"Authorization": "Bearer " + token, "Accept": "application/vnd.github+json", "Content-Type": "application/json", "User-Agent": "garo", "X-GitHub-Api-Version": "2022-11-28"} {
		r.Header.Set(k, v)
	}
	resp, err := memhttp.Client(s.Handler()).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("a registration by name = %s, %v", resp.Status, err)
	}
	c := client(t, s.Handler())
	found, err := c.Find(t.Context(), repo, "garo-old-1")
	if err != nil {
		t.Fatalf("Find of a name that was registered before: %v", err)
	}
	if err := s.Rename(repo.ID, "acme/market"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(github.Repository{ID: "999", Name: repo.Name}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), repo, found.ID); err != nil || len(s.Registrations()) != 0 {
		t.Errorf("Delete: %v, and GitHub has %+v; want it gone", err, s.Registrations())
	}
}
