package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// open opens a system that does not work yet.
func open(t *testing.T, dir string, cfg local.Config) *local.System {
	t.Helper()
	cfg.Dir, cfg.URL, cfg.Limits = dir, "http://test.localhost", quick()
	s, err := local.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDirectoryHasOneSystemAtATime(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, local.Config{})
	if s, err := local.Open(t.Context(), local.Config{Dir: dir, Limits: quick()}); err == nil || !strings.Contains(err.Error(), "another garo uses this directory") {
		t.Errorf("a second Open = %v, %v; want it refused", s, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, local.Config{})
	if !again.Token.Equal(first.Token.Reveal()) {
		t.Error("the operator's token has changed")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreTheirOwnersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := open(t, dir, local.Config{}).Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o700, local.TokenFile: 0o600, "keys.json": 0o600, local.WorldFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %o, want %o", name, got, want)
		}
	}
}

func TestSpoiltSecretsAreRefusedAndNotShown(t *testing.T) {
	for name, c := range map[string]struct{ file, content, want string }{
		"KeysNoJSON":   {"keys.json", "SPOILT", "it is not as garo wrote it"},
		"KeysTooShort": {"keys.json", `{"id": "SPOILT", "current": "k1", "keys": {"k1": "SPOILT"}}`, "want at least 32"},
		"TokenNone":    {local.TokenFile, "SPOILT", "want a token that begins " + keys.OperatorPrefix},
		"TokenEmpty":   {local.TokenFile, "", "want a token that begins " + keys.OperatorPrefix},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, c.file)
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := local.Open(t.Context(), local.Config{Dir: dir, Limits: quick()})
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SPOILT") {
				t.Errorf("Open = %v, want it to name %s, say %q, and show nothing of it", err, path, c.want)
			}
		})
	}
}

func TestServeAnswersWorksAndStopsWithinSeconds(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	s, err := local.Open(t.Context(), local.Config{Dir: dir, URL: url, Limits: quick(), EC2Pacing: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	until(t, "the address", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, local.URLFile))
		return err == nil && strings.TrimSpace(string(b)) == url
	})
	transport := &http.Transport{}
	c := client.Must(client.New(client.Config{
		URL: url, HTTP: &http.Client{Transport: transport},
		Token: func(context.Context) (client.Token, error) { return s.Token, nil },
	}))
	// The first five are launched at once; workers wait for the slots of the others.
	started := atOnce(t, 20, func(int) (apitype.Started, error) {
		return c.Start(t.Context(), apitype.Start{Repo: repository, Mode: store.Ephemeral})
	})
	if want := url + "/status/" + started[0].ID; started[0].StatusURL != want {
		t.Errorf("status_url = %s, want %s", started[0].StatusURL, want)
	}
	until(t, "a launch", func() bool {
		q, err := c.Status(t.Context(), started[0].ID)
		return err == nil && q.Runner != nil
	})
	began := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	if took := time.Since(began); took > 15*time.Second { // 3 s are granted to what is under way
		t.Errorf("Serve took %s to stop, want seconds", took)
	}
	if _, err := os.Stat(filepath.Join(dir, local.URLFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the address is still there: %v", err)
	}
	transport.CloseIdleConnections()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, local.Config{})
	defer s.Close()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "serve: ") {
		t.Errorf("Serve at a closed listener = %v, want its error", err)
	}
}

// What was under way when a system was closed continues with the next one: a
// request that waits for its machine, and a machine that boots.
func TestNextSystemGoesOn(t *testing.T) {
	dir := t.TempDir()
	cfg := local.Config{Dir: dir, BootTime: 4 * time.Second}
	cfg.URL, cfg.Limits = "http://test.localhost", quick()
	s, err := local.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { s.Run(ctx); close(stopped) }()
	before := running{s, client.Must(client.New(client.Config{
		URL: cfg.URL, HTTP: s.Client(), Token: func(context.Context) (client.Token, error) { return s.Token, nil },
	}))}
	started, err := before.Start(t.Context(), apitype.Start{Repo: repository, Mode: store.Ephemeral, IdempotencyKey: "a"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the config", func() bool {
		all := before.runners(t)
		return len(all) == 1 && all[0].Config.N == 1
	})
	cancel()
	<-stopped
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.BootTime = 0
	after := run(t, cfg)
	after.ready(t, []apitype.Started{started})
	if machines := len(after.Fleet.Instances()); machines != 1 {
		t.Errorf("there are %d machines, want the one of before", machines)
	}
}

func call(t *testing.T, h http.Handler, method, path, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://test.localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := memhttp.Client(h).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestReaperRunsForTheOperatorAlone(t *testing.T) {
	s := run(t, local.Config{})
	handler := s.Handler()
	for name, c := range map[string]struct {
		method, path, token string
		want                int
	}{
		"Operator":     {http.MethodPost, "/local/reap", s.Token.Reveal(), http.StatusOK},
		"DryRun":       {http.MethodPost, "/local/reap?dry_run=true", s.Token.Reveal(), http.StatusOK},
		"NoToken":      {http.MethodPost, "/local/reap", "", http.StatusUnauthorized},
		"AnotherToken": {http.MethodPost, "/local/reap", keys.OperatorPrefix + "x", http.StatusUnauthorized},
		"NoPost":       {http.MethodGet, "/local/reap", s.Token.Reveal(), http.StatusNotFound},
		"API":          {http.MethodGet, "/healthz", "", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			resp := call(t, handler, c.method, c.path, c.token)
			defer resp.Body.Close()
			if resp.StatusCode != c.want {
				b, _ := io.ReadAll(resp.Body)
				t.Fatalf("%s %s = %s %s, want %d", c.method, c.path, resp.Status, b, c.want)
			}
			if c.want != http.StatusOK || !strings.HasPrefix(c.path, "/local") {
				return
			}
			var report reaper.Report
			if err := json.NewDecoder(resp.Body).Decode(&report); err != nil || report.StartedAt.IsZero() || report.DryRun != strings.Contains(c.path, "dry") {
				t.Errorf("report = %+v, %v", report, err)
			}
		})
	}
}
