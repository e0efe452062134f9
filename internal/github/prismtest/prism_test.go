// Package prismtest holds our client and our stand-in for GitHub against Prism, a
// third party's reading of GitHub's description of its API: Prism answers every
// documented status once, and stands between client and stand-in while they do
// all that they can. It runs where there are node and npm, and says so where not.
package prismtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	description = "../simgithub/testdata/github-openapi.json"
	tokens      = "apps/create-installation-access-token"
	// exampleName and exampleID are of the runners in GitHub's examples of answers.
	exampleName, exampleID = "New runner", 23
)

// example is a time at which the token in GitHub's example is good.
func example() time.Time { return time.Date(2016, 7, 11, 22, 0, 0, 0, time.UTC) }

var (
	repo = github.Scope{ID: "101", Name: "acme/shop", Account: "111122223333"}
	// group names the group of GitHub's example that is neither the default one nor an
	// enterprise's.
	group = github.Scope{Organization: true, ID: "55", Name: "acme", Group: "expensive-hardware", Account: "111122223333"}
)

// prefer asks Prism for a status, by the header of RFC 7240. Prism takes the
// description's media type alone; GitHub recommends to ask for its own.
type prefer struct{ status, operation string }

func (p *prefer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	first := map[string]string{"/access_tokens": tokens, "/runner-groups": groups} // calls that come before others, and succeed
	before := false
	for path, operation := range first {
		before = before || p.operation != operation && strings.HasSuffix(r.URL.Path, path)
	}
	if !before {
		r.Header.Set("Prefer", "code="+p.status)
	}
	r.Header.Set("Accept", "application/json")
	return http.DefaultTransport.RoundTrip(r)
}

// named gives a call by an id the path by the name, which is the one
// that GitHub describes: the two are the same calls.
type named struct{ http.RoundTripper }

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	for id, name := range map[string]string{"/repositories/" + repo.ID: "/repos/" + repo.Name, "/organizations/" + group.ID: "/orgs/" + group.Name, "/repositories/" + octo.ID: "/repos/" + octo.Name} {
		if call, ok := strings.CutPrefix(r.URL.Path, id+"/"); ok {
			r = r.Clone(r.Context())
			r.URL.Path = name + "/" + call
		}
	}
	return n.RoundTripper.RoundTrip(r)
}

// clients returns what calls base as GARO does: as an App with that key.
func clients(t *testing.T, base string, through http.RoundTripper, now func() time.Time) (*github.Client, *github.Credentials) {
	t.Helper()
	hc := &http.Client{Transport: named{through}, Timeout: 20 * time.Second}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: base, HTTP: hc, Now: now,
		Account: func(context.Context, string) (store.Account, error) {
			return store.Account{GitHub: store.GitHubCredentials{{AppID: 7, InstallationID: 9}}}, nil
		},
		Parameter: func(context.Context, string, string, bool) (secret.Text, error) {
			return secret.New(string(pemKey)), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := github.New(github.Config{BaseURL: base, HTTP: hc, Now: now, Token: creds.Token})
	if err != nil {
		t.Fatal(err)
	}
	return c, creds
}

// key is the App's, of the least length that is allowed.
var key = func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return k
}()

// call makes a call in a scope.
type call func(ctx context.Context, c *github.Client, creds *github.Credentials, in github.Scope) error

// inScopes are those of GARO's calls that there are for repositories and for
// organizations, by how GitHub's names for them begin.
var inScopes = map[string]call{
	"actions/generate-runner-jitconfig-for-": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		_, err := c.Mint(ctx, in, exampleName, []string{"garo-abc", "big"})
		return err
	},
	"actions/get-self-hosted-runner-for-": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		_, err := c.Get(ctx, in, exampleID)
		return err
	},
	"actions/delete-self-hosted-runner-from-": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		return c.Delete(ctx, in, exampleID)
	},
	"actions/list-self-hosted-runners-for-": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		for r, err := range c.List(ctx, in, "") {
			if err != nil || r.Name == "" {
				return fmt.Errorf("runner %+v: %w", r, err)
			}
		}
		_, err := c.Find(ctx, in, "linux_runner")
		return err
	},
	"actions/list-runner-applications-for-": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		d, err := c.Downloads(ctx, in)
		if err == nil && len(d) == 0 {
			err = fmt.Errorf("downloads = %+v, want those of the example", d)
		}
		return err
	},
	"actions/get-runner-version-deprecation-for-": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		d, err := c.Deprecation(ctx, in, "2.300.0")
		if err == nil && (d.Runtime.IsZero() || !d.Registration.IsZero()) {
			err = fmt.Errorf("deprecation = %+v, want that of the example", d)
		}
		return err
	},
	"rate-limit/get": func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		r, err := c.Rates(ctx, in)
		if err == nil && r.Core.Limit == 0 {
			err = fmt.Errorf("rates = %+v, want those of the example", r)
		}
		return err
	},
	tokens: func(ctx context.Context, _ *github.Client, creds *github.Credentials, in github.Scope) error {
		_, err := creds.Token(ctx, in.Access())
		return err
	},
	admits: func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		all, whole, err := c.Admits(ctx, in, github.Group{ID: 2, Name: in.Group})
		if err == nil && (len(all) != 1 || all[0].ID != octo.ID || !all[0].Public || !whole) {
			err = fmt.Errorf("admitted %+v, %t; want that of the example", all, whole)
		}
		return err
	},
	groups: func(ctx context.Context, c *github.Client, _ *github.Credentials, in github.Scope) error {
		_, err := c.Group(ctx, in)
		return err
	},
}

// ofJobs are those of GARO's calls that are about workflow jobs, by GitHub's names.
var ofJobs = map[string]call{
	"actions/get-workflow-run": func(ctx context.Context, c *github.Client, _ *github.Credentials, _ github.Scope) error {
		r, err := c.Run(ctx, octo, 30433642)
		if err == nil && (r.Event != "push" || r.HeadRepository == 0) {
			err = fmt.Errorf("run = %+v, want that of the example", r)
		}
		return err
	},
	"actions/list-jobs-for-workflow-run": func(ctx context.Context, c *github.Client, _ *github.Credentials, _ github.Scope) error {
		jobs, err := c.RunJobs(ctx, octo, 29679449)
		if err == nil && (len(jobs) != 1 || jobs[0].RunnerName != "my runner") {
			err = fmt.Errorf("jobs = %+v, want that of the example", jobs)
		}
		return err
	},
	"actions/get-job-for-workflow-run": func(ctx context.Context, c *github.Client, _ *github.Credentials, _ github.Scope) error {
		_, err := c.Job(ctx, octo, 399444496)
		return err
	},
	"actions/list-workflow-runs-for-repo": func(ctx context.Context, c *github.Client, _ *github.Credentials, _ github.Scope) error {
		for r, err := range c.Runs(ctx, octo, github.StatusQueued) {
			if err != nil || r.ID == 0 {
				return fmt.Errorf("run %+v: %w", r, err)
			}
		}
		return nil
	},
	"actions/cancel-workflow-run": func(ctx context.Context, c *github.Client, _ *github.Credentials, _ github.Scope) error {
		return c.Cancel(ctx, octo, 30433642)
	},
	"apps/list-webhook-deliveries": func(ctx context.Context, c *github.Client, _ *github.Credentials, _ github.Scope) error {
		all, _, err := c.Deliveries(ctx, repo.Account, "")
		if err == nil && (len(all) != 2 || all[0].GUID == "") {
			err = fmt.Errorf("deliveries %+v, want the two of the example", all)
		}
		return err
	},
}

// octo is the repository of GitHub's examples of workflow runs.
var octo = github.Repository{ID: "1296269", Name: "octo-org/octo-repo", Account: "111122223333"}

// groups is GitHub's name of the call that lists runner groups.
const groups = "actions/list-self-hosted-runner-groups-for-org"

// admits is GitHub's name of the call that lists the repositories of a runner group.
const admits = "actions/list-repo-access-to-self-hosted-runner-group-in-org"

// callOf returns the call that GitHub has a name for, and the scope that it is of; nil: it
// is none of GARO's.
func callOf(operation string) (call, github.Scope) {
	if c := ofJobs[operation]; c != nil {
		return c, repo
	}
	if c := inScopes[strings.TrimSuffix(operation, "org")]; c != nil {
		return c, group
	}
	if operation == groups || operation == admits {
		return inScopes[operation], group
	}
	return inScopes[strings.TrimSuffix(operation, "repo")], repo
}

// kinds are what the client makes of a documented status; nil: success.
var kinds = map[string]error{
	"200": nil, "201": nil, "204": nil,
	"202": nil,
	"304": github.ErrRefused,
	"400": github.ErrRefused,
	"401": github.ErrDenied,
	"403": github.ErrDenied,
	"404": github.ErrNotFound,
	"409": github.ErrConflict,
	"422": github.ErrRefused,

	"actions/delete-self-hosted-runner-from-repo 422": github.ErrBusy,
	"actions/delete-self-hosted-runner-from-org 422":  github.ErrBusy,
	tokens + " 404": github.ErrDenied,
	tokens + " 422": github.ErrDenied,
}

func TestEveryDocumentedAnswerIsUnderstood(t *testing.T) {
	prism := start(t, "mock", description)
	if prism == "" {
		return
	}
	b, err := os.ReadFile(description)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, methods := range doc.Paths {
		for _, op := range methods {
			for status := range op.Responses {
				n++
				call, in := callOf(op.OperationID)
				want, known := kinds[op.OperationID+" "+status]
				if !known {
					want, known = kinds[status]
				}
				if call == nil || !known {
					t.Errorf("%s %s: no test of it: extend inScopes or kinds", op.OperationID, status)
					continue
				}
				c, creds := clients(t, prism, &prefer{status, op.OperationID}, example)
				switch err := call(t.Context(), c, creds, in); {
				case want == nil && err != nil:
					t.Errorf("%s %s: %v", op.OperationID, status, err)
				case want != nil && !is(err, want, status):
					t.Errorf("%s %s = %v, want %v", op.OperationID, status, err, want)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("%d documented answers, want the 30 that there were", n)
	}
	// Prism looks at requests: that of the client it took, and it would not take this.
	wrong, err := http.NewRequestWithContext(t.Context(), "POST", prism+"/repos/acme/shop/actions/runners/generate-jitconfig", strings.NewReader(`{"name":"r","runner_group_id":1,"labels":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	wrong.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(wrong)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("Prism answered a request without labels with %s, want 422: it is blind", resp.Status)
	}
}

func TestPrismFindsNothingWrongBetweenClientAndStandIn(t *testing.T) {
	var spoil atomic.Bool
	s, err := simgithub.New(simgithub.Config{
		Repositories: []github.Repository{{ID: repo.ID, Name: repo.Name}}, Rules: simgithub.Rules{App: simgithub.App{ID: 7, Installation: 9, Key: &key.PublicKey}}, Errorf: t.Errorf,
		Fault: func(string, *http.Request) (f simgithub.Fault) {
			if spoil.Load() {
				f.Instead = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, `{"total_count":"none","runners":[]}`)
				})
			}
			return f
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	fake := httptest.NewServer(s.Handler())
	t.Cleanup(fake.Close)
	prism := start(t, "proxy", description, fake.URL)
	if prism == "" {
		return
	}
	ctx := t.Context()
	c, _ := clients(t, prism, http.DefaultTransport, time.Now)
	m, err := c.Mint(ctx, repo, "garo-1", []string{"garo-abc", "big"})
	if err != nil {
		t.Fatalf("Mint: %v", err)
	}
	if _, err := c.Mint(ctx, repo, "garo-1", []string{"x"}); !is(err, github.ErrNameTaken, "409") {
		t.Errorf("Mint of a name that is taken = %v, want 409", err)
	}
	if r, err := c.Get(ctx, repo, m.RunnerID); err != nil || r.Name != "garo-1" {
		t.Errorf("Get = %+v, %v; want the runner", r, err)
	}
	if r, err := c.Find(ctx, repo, "garo-1"); err != nil || r.ID != m.RunnerID {
		t.Errorf("Find = %+v, %v; want the runner", r, err)
	}
	if d, err := c.Downloads(ctx, repo); err != nil || len(d) == 0 {
		t.Errorf("Downloads = %+v, %v; want some", d, err)
	}
	if r, err := c.Rates(ctx, repo); err != nil || r.Core.Limit == 0 {
		t.Errorf("Rates = %+v, %v; want some", r, err)
	}
	if d, err := c.Deprecation(ctx, repo, simgithub.ProgramVersion); err != nil || !d.Ends().IsZero() {
		t.Errorf("Deprecation = %+v, %v; want no end", d, err)
	}
	if err := c.Delete(ctx, repo, m.RunnerID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if n := len(s.Registrations()); n != 0 {
		t.Errorf("%d registrations, want none after the DELETE", n)
	}
	// Prism looks at answers: this one it does not let through.
	spoil.Store(true)
	if _, err := c.Find(ctx, repo, "garo-1"); !is(err, github.ErrUnknown, "500") {
		t.Errorf("Find with an answer that is not as described = %v, want Prism's 500: it is blind", err)
	}
}

func is(err, kind error, status string) bool {
	e, ok := errors.AsType[*github.Error](err)
	return ok && e.Kind == kind && fmt.Sprint(e.Status) == status
}
