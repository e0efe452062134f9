package appsetup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/appsetup"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// fakeGitHub makes Apps as GitHub does: of a form, with a code that is good once.
type fakeGitHub struct {
	*testing.T
	server *httptest.Server
	owner  string // of what is made
	hook   string // the webhook secret

	mu        sync.Mutex
	manifest  map[string]any
	used      bool
	installed int64
}

const pemCanary = "-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY-----\n"

func newFake(t *testing.T) *fakeGitHub {
	f := &fakeGitHub{T: t, owner: "acme", hook: "canary-hook-secret-0123456789abcdef"}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /organizations/acme/settings/apps/new", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := json.Unmarshal([]byte(r.FormValue("manifest")), &f.manifest); err != nil {
			f.Errorf("manifest: %v", err)
		}
		redirect, _ := f.manifest["redirect_url"].(string)
		http.Redirect(w, r, redirect+"?code=c0de&state="+url.QueryEscape(r.URL.Query().Get("state")), http.StatusFound)
	})
	mux.HandleFunc("POST /api/app-manifests/{code}/conversions", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r.PathValue("code") != "c0de" || f.used {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"Not Found"}`)
			return
		}
		f.used = true
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"id": 7, "slug": "garo-acme", "owner": map[string]any{"login": f.owner}, "name": "garo acme", "html_url": f.server.URL + "/apps/garo-acme",
			"client_secret": "canary-client", "webhook_secret": f.hook, "pem": pemCanary,
		})
	})
	mux.HandleFunc("GET /api/app/installations", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer proof" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"message":"A JSON web token could not be decoded"}`)
			return
		}
		all := []map[string]any{{"id": 3, "account": map[string]any{"login": "other"}}}
		if f.installed != 0 {
			all = append(all, map[string]any{"id": f.installed, "account": map[string]any{"login": "Acme"}})
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	f.server = httptest.NewServer(mux)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fakeGitHub) config(browse func(address string)) appsetup.Config {
	return appsetup.Config{
		Web: f.server.URL, API: f.server.URL + "/api", Owner: "acme", Name: "garo acme", Webhook: "https://garo.example.org/github/webhook",
		Show:    browse,
		Confirm: func(appsetup.App) (bool, error) { return true, nil },
	}
}

var formOf = regexp.MustCompile(`action="([^"]+)".*?name="manifest" value="([^"]+)"`)

// browser does what a person does: it opens the page, and sends the form.
func (f *fakeGitHub) browser(address string) {
	res, err := http.Get(address)
	if err != nil {
		f.Error(err)
		return
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	m := formOf.FindStringSubmatch(strings.ReplaceAll(string(b), "\n", " "))
	if err != nil || m == nil {
		f.Errorf("the page is %s, %v; want a form", b, err)
		return
	}
	csp := res.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "form-action "+f.server.URL) || res.Header.Get("Cache-Control") != "no-store" || strings.Contains(string(b), "<script") {
		f.Errorf("the page has the headers %v", res.Header)
	}
	sent, err := http.PostForm(html.UnescapeString(m[1]), url.Values{"manifest": {html.UnescapeString(m[2])}})
	if err != nil {
		f.Error(err)
		return
	}
	sent.Body.Close()
	if sent.StatusCode != http.StatusOK {
		f.Errorf("back from GitHub = %s, want 200", sent.Status)
	}
}

func TestAnAppIsMadeOfAManifest(t *testing.T) {
	f := newFake(t)
	var asked appsetup.App
	cfg := f.config(func(a string) { go f.browser(a) })
	cfg.Confirm = func(a appsetup.App) (bool, error) { asked = a; return true, nil }
	made, err := appsetup.Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if made.ID != 7 || made.Owner != "acme" || made.Key.Reveal() != pemCanary || made.WebhookSecret.Reveal() != f.hook || asked != made.App || made.InstallURL() != f.server.URL+"/apps/garo-acme/installations/new" {
		t.Errorf("made %+v, asked about %+v; want the App", made, asked)
	}
	if got := fmt.Sprint(made, asked); strings.Contains(got, "canary") {
		t.Errorf("a secret prints: %s", got)
	}
	hook, _ := f.manifest["hook_attributes"].(map[string]any)
	rights := fmt.Sprint(f.manifest["default_permissions"])
	if hook["url"] != cfg.Webhook || f.manifest["public"] != false || fmt.Sprint(f.manifest["default_events"]) != "[workflow_job]" ||
		rights != "map[actions:read metadata:read organization_self_hosted_runners:write]" {
		t.Errorf("manifest = %v", f.manifest)
	}
}

func TestRightsAreThoseOfTheScope(t *testing.T) {
	f := newFake(t)
	cfg := f.config(func(a string) { go f.browser(a) })
	cfg.Repositories, cfg.Cancel = true, true
	if _, err := appsetup.Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if rights := fmt.Sprint(f.manifest["default_permissions"]); rights != "map[actions:write administration:write metadata:read]" {
		t.Errorf("rights = %s", rights)
	}
}

// Anyone else gets nothing, and cannot end the wait.
func TestNobodyElseBringsACode(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := f.config(func(address string) {
		go func() {
			defer cancel()
			u, err := url.Parse(address)
			if err != nil || u.Hostname() != "127.0.0.1" || len(u.Path) < 50 {
				t.Errorf("the address is %s, want a path on this machine that nobody guesses", address)
				return
			}
			get := func(target, host string) int {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
				if err != nil {
					t.Error(err)
					return 0
				}
				if host != "" {
					req.Host = host
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return 0
				}
				res.Body.Close()
				return res.StatusCode
			}
			for _, c := range []struct {
				target, host string
				want         int
			}{
				{"http://" + u.Host + "/", "", http.StatusNotFound},
				{"http://" + u.Host + "/made?code=c0de&state=x", "", http.StatusNotFound},
				{address + "/made?code=c0de", "", http.StatusForbidden},
				{address + "/made?code=c0de&state=" + strings.Repeat("a", 52), "", http.StatusForbidden},
				{address, "evil.example", http.StatusMisdirectedRequest},
				{address, "localhost:" + u.Port(), http.StatusMisdirectedRequest},
				{address + "/other", "", http.StatusNotFound},
			} {
				if got := get(c.target, c.host); got != c.want {
					t.Errorf("GET %s as %q = %d, want %d", c.target, c.host, got, c.want)
				}
			}
		}()
	})
	if _, err := appsetup.Create(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v, want that it waited until the end", err)
	}
}

func TestAnAppThatIsNotTheirsIsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*fakeGitHub, *appsetup.Config)
		want string
	}{
		"AnotherOwner": {func(f *fakeGitHub, _ *appsetup.Config) { f.owner = "mallory" }, "belongs to mallory, and not to acme"},
		"NotConfirmed": {func(_ *fakeGitHub, c *appsetup.Config) {
			c.Confirm = func(appsetup.App) (bool, error) { return false, nil }
		}, "was not confirmed"},
		"NobodyToConfirm": {func(_ *fakeGitHub, c *appsetup.Config) {
			c.Confirm = func(appsetup.App) (bool, error) { return false, io.EOF }
		}, "EOF"},
		"NoWebhookSecret": {func(f *fakeGitHub, _ *appsetup.Config) { f.hook = "" }, "webhook secret"},
		"CodeIsUsed":      {func(f *fakeGitHub, _ *appsetup.Config) { f.used = true }, "GitHub answers 404: Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			cfg := f.config(func(a string) { go f.browser(a) })
			c.edit(f, &cfg)
			made, err := appsetup.Create(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || made != (appsetup.Made{}) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "c0de") {
				t.Errorf("Create = %+v, %v; want nothing, and %q", made, err, c.want)
			}
		})
	}
}

func TestInstallationIsFoundByItsOwner(t *testing.T) {
	f := newFake(t)
	cfg := f.config(nil)
	if id, err := appsetup.Installation(t.Context(), cfg, secret.New("proof")); err != nil || id != 0 {
		t.Errorf("before it is installed = %d, %v; want 0", id, err)
	}
	f.installed = 99
	if id, err := appsetup.Installation(t.Context(), cfg, secret.New("proof")); err != nil || id != 99 {
		t.Errorf("Installation = %d, %v; want 99", id, err)
	}
	if _, err := appsetup.Installation(t.Context(), cfg, secret.New("other")); err == nil || !strings.Contains(err.Error(), "could not be decoded") {
		t.Errorf("with another proof = %v, want GitHub's words", err)
	}
}
