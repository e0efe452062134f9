package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// person is who runs garo app create: it does in a browser what the command prints, and
// types the App's number.
type person struct {
	*testing.T
	types string // what it types; empty: the number

	mu   sync.Mutex
	said bytes.Buffer
	keys *io.PipeWriter
}

var (
	pageOf   = regexp.MustCompile(`http://127\.0\.0\.1:\S+`)
	pageForm = regexp.MustCompile(`action="([^"]+)".*?value="([^"]+)"`)
)

// Write implements io.Writer: it is what the command prints.
func (p *person) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said.Write(b)
	switch {
	case bytes.Contains(b, []byte("Open this")):
		go p.browse(string(pageOf.Find(b)))
	case bytes.Contains(b, []byte("Type it again")):
		go fmt.Fprintln(p.keys, p.types)
	}
	return len(b), nil
}

func (p *person) browse(address string) {
	res, err := http.Get(address)
	if err != nil {
		p.Error(err)
		return
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	m := pageForm.FindStringSubmatch(strings.ReplaceAll(string(b), "\n", " "))
	if m == nil {
		p.Errorf("no form in %s", b)
		return
	}
	if sent, err := http.PostForm(html.UnescapeString(m[1]), url.Values{"manifest": {html.UnescapeString(m[2])}}); err != nil {
		p.Error(err)
	} else {
		sent.Body.Close()
	}
}

// manifestGitHub makes App 7 of acme, which is installed at once.
func manifestGitHub(t *testing.T) *httptest.Server {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("POST /organizations/acme/settings/apps/new", func(w http.ResponseWriter, r *http.Request) {
		var m struct {
			Redirect string `json:"redirect_url"`
		}
		if err := json.Unmarshal([]byte(r.FormValue("manifest")), &m); err != nil {
			t.Error(err)
		}
		http.Redirect(w, r, m.Redirect+"?code=c0de&state="+url.QueryEscape(r.URL.Query().Get("state")), http.StatusFound)
	})
	mux.HandleFunc("POST /app-manifests/c0de/conversions", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"id": 7, "name": "garo-acme", "owner": map[string]string{"login": "acme"}, "html_url": server.URL + "/apps/garo-acme",
			"webhook_secret": "canary-hook-secret-0123456789abcdef", "pem": text, "client_secret": "canary-client"})
	})
	mux.HandleFunc("GET /app/installations", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
			t.Errorf("asked with %q, want the App's proof", r.Header.Get("Authorization"))
		}
		fmt.Fprint(w, `[{"id": 99, "account": {"login": "acme"}}]`)
	})
	return server
}

func createApp(t *testing.T, github, dir, types string) (string, error) {
	t.Helper()
	in, keys := io.Pipe()
	p := &person{T: t, types: types, keys: keys}
	c := root()
	c.SetArgs([]string{"app", "create", "--org", "acme", "--url", "https://garo.example.org/", "--dir", dir, "--github", github, "--github-api", github})
	c.SetIn(in)
	c.SetOut(p)
	c.SetErr(p)
	err := c.ExecuteContext(t.Context())
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String(), err
}

func TestAppIsCreatedAndItsSecretsKept(t *testing.T) {
	github, dir := manifestGitHub(t), filepath.Join(t.TempDir(), "app")
	said, err := createApp(t, github.URL, dir, "7")
	if err != nil || !strings.Contains(said, "app_id = 7, installation_id = 99 }") || strings.Contains(said, "canary") || strings.Contains(said, "PRIVATE") {
		t.Errorf("app create = %v, and printed:\n%s", err, said)
	}
	for name, want := range map[string]string{"key.pem": "-----BEGIN RSA PRIVATE KEY-----", "webhook.json": `{"secrets":["canary-hook-secret-0123456789abcdef"]}`} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		info, statErr := os.Stat(filepath.Join(dir, name))
		if err != nil || statErr != nil || !strings.HasPrefix(string(b), want) || info.Mode().Perm() != 0o600 {
			t.Errorf("%s = %.40q, %v, %v; want it, for its owner alone", name, b, err, info)
		}
	}
	if _, err := createApp(t, github.URL, dir, "7"); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second App = %v, want that the first one's secrets stay", err)
	}
}

func TestAppThatIsNotConfirmedLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	if said, err := createApp(t, manifestGitHub(t).URL, dir, "8"); err == nil || !strings.Contains(err.Error(), "was not confirmed") {
		t.Errorf("app create = %v, and printed:\n%s", err, said)
	}
	if found, _ := os.ReadDir(dir); len(found) != 0 {
		t.Errorf("%v is kept, want nothing", found)
	}
}

func TestAppCreateRefusesWhatCannotBeMeant(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "--org and --url are needed"},
		{[]string{"--org", "acme", "--url", "http://garo.example.org"}, "https"},
		{[]string{"--org", "acme", "--url", "https://garo.example.org", "--scope", "enterprise"}, "want organization or repository"},
	} {
		r := root()
		r.SetArgs(append([]string{"app", "create", "--dir", t.TempDir()}, c.args...))
		r.SetOut(io.Discard)
		r.SetErr(io.Discard)
		if err := r.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q = %v, want %q", c.args, err, c.want)
		}
	}
}
