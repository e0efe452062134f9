package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// issuer is a server that gives out the ID tokens of a job in acme/shop, as the
// documents say that any may be.
func issuer(t *testing.T) (i *oidctest.Issuer, url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	url = "http://" + server.Listener.Addr().String()
	i, err := oidctest.New(oidctest.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = i
	server.Start()
	t.Cleanup(server.Close)
	return i, url
}

// workflow returns a client of the system with an ID token of the issuer.
func workflow(t *testing.T, system *program, i *oidctest.Issuer) *client.Client {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(system.Dir, ".garo", "url"))
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(string(b))
	token, err := i.Token(url)
	if err != nil {
		t.Fatal(err)
	}
	return client.Must(client.New(client.Config{URL: url, Token: client.Static(client.NewToken(token))}))
}

// started asks for a runner, and waits for it.
func started(t *testing.T, c *client.Client, body apitype.Start) apitype.Status {
	t.Helper()
	a, err := c.Start(t.Context(), body)
	if err != nil {
		t.Fatalf("POST /start = %v, want it accepted", err)
	}
	var s apitype.Status
	until(t, "the runner", func() bool {
		if s, err = c.Status(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		return s.State == "ready"
	})
	return s
}

func TestWorkflowOfTheLocalIssuerGetsARunnerOfTheBuiltInAccount(t *testing.T) {
	t.Parallel()
	i, url := issuer(t)
	system := serve(t, "--oidc-issuer", url, "--boot-time", "0s")
	if s := started(t, workflow(t, system, i), apitype.Start{}); s.Account != "000000000000" || s.Caller != "github octocat" {
		t.Errorf("request of %s in account %s, want it of github octocat in the built-in one", s.Caller, s.Account)
	}
	// The operator still finds the account by the repository's name.
	if got := begin(t, system.Dir, "start", "--repo", "acme/shop", "--mode", "ephemeral", "--wait").status(t); got != 0 {
		t.Errorf("status of the operator's start = %d, want 0", got)
	}
}

// The registration in docs/configuration.md is whole: it is taken as it is, and
// serves what it says that it serves.
func TestDocumentedRegistrationIsTakenAndServes(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## A registration\n")
	_, text, fenced := strings.Cut(section, "\n```json\n")
	text, _, closed := strings.Cut(text, "\n```\n")
	if !found || !fenced || !closed {
		t.Fatal("docs/configuration.md has no registration as JSON")
	}
	const id = "111122223333"
	account, err := store.ParseAccount(id, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	i, url := issuer(t)
	begun := func(text string) *program {
		dir := filepath.Join(t.TempDir(), "garo")
		if err := os.MkdirAll(filepath.Join(dir, "accounts"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "accounts", id+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := begin(t, t.TempDir(), "local", "--addr", "127.0.0.1:0", "--quiet", "--dir", dir, "--oidc-issuer", url, "--boot-time", "0s")
		if err := os.Symlink(dir, filepath.Join(p.Dir, ".garo")); err != nil {
			t.Fatal(err)
		}
		until(t, "garo local to listen", func() bool {
			_, err := os.Stat(filepath.Join(dir, "url"))
			return err == nil
		})
		return p
	}

	// As it stands it serves a repository of github.com, for which an operator may ask.
	system := begun(text)
	if got := begin(t, system.Dir, "start", "--repo", account.Repositories[0].Name, "--account-id", id, "--wait").status(t); got != 0 {
		t.Errorf("status of the operator's start = %d, want 0", got)
	}

	// With the server of the issuer, it serves that server's workflows.
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatal(err)
	}
	fields["server"] = strings.TrimPrefix(url, "http://")
	of, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	i.Set("repository_id", account.Repositories[0].ID)
	if s := started(t, workflow(t, begun(string(of)), i), apitype.Start{AccountID: id}); s.Account != id {
		t.Errorf("request in account %s, want %s", s.Account, id)
	}
}
