package actiontest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// output is what a program has printed; it is safe to read while it prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// system is a garo local and the issuer that it trusts.
type system struct {
	*client.Client // as the operator
	url, dir       string
	server         string // the host of the issuer, which the ids of repositories belong to
	issuer         *oidctest.Issuer
	ring           *keys.Ring
	args           []string
	stop           func() // stops garo local; begin starts it again
}

// newSystem starts a garo local that ends with the test.
func newSystem(t *testing.T, args ...string) *system {
	t.Helper()
	s := &system{dir: filepath.Join(t.TempDir(), "garo"), stop: func() {}}
	server := httptest.NewUnstartedServer(nil)
	issuer, err := oidctest.New(oidctest.Config{URL: "http://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = issuer
	server.Start()
	t.Cleanup(server.Close)
	s.issuer = issuer
	addr := freeAddress(t) // it stays the same when the system is stopped and started again
	s.url = "http://" + addr
	s.args = append([]string{"local", "--addr", addr, "--dir", s.dir, "--oidc-issuer", server.URL}, args...)
	t.Cleanup(func() { s.stop() })
	s.server = server.Listener.Addr().String()
	register(t, filepath.Join(s.dir, "accounts"), s.server)
	s.begin(t)
	var file struct {
		ID, Current string
		Keys        map[string]string
	}
	decode(t, filepath.Join(s.dir, "keys.json"), &file)
	by := map[string]secret.Text{}
	for kid, k := range file.Keys {
		by[kid] = secret.New(k)
	}
	if s.ring, err = keys.NewRing(secret.New(file.ID), file.Current, by); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(s.dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	s.Client = client.Must(client.New(client.Config{URL: s.url, Token: client.Static(client.NewToken(strings.TrimSpace(string(token))))}))
	return s
}

// accountID is the built-in account's, which the registration below replaces.
const accountID = "000000000000"

// freeAddress returns an address of this machine at which nothing listens. Its port
// is below those that Linux gives out on its own (from 32768 on), so that no other
// test gets it by chance before it is used.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue // something listens there
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("a hundred ports are taken")
	return ""
}

// register writes the registration of the account that serves the issuer's jobs.
func register(t *testing.T, dir, server string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := `{"id": "` + accountID + `", "external_id": "x", "server": "` + server + `",
		"repositories": [{"id": "1001", "name": "acme/shop"}],
		"regions": {"eu-west-2": {"subnets": ["subnet-a", "subnet-b"], "security_groups": ["sg-1"], "images": ["ami-1"]}},
		"instance_types": ["t3a.micro", "t3a.small", "m7g.large"], "default_instance_types": ["t3a.micro"],
		"markets": ["spot", "ondemand"], "spot_fallback": true, "modes": ["shared", "ephemeral"], "max_runners": 20,
		"pacing": {"burst": 100, "interval_ms": 10}, "github": {}}`
	if err := os.WriteFile(filepath.Join(dir, accountID+".json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reregister replaces a part of the registration.
func (s *system) reregister(t *testing.T, was, is string) {
	t.Helper()
	path := filepath.Join(s.dir, "accounts", accountID+".json")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.Replace(b, []byte(was), []byte(is), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// begin starts garo local, and returns when it serves.
func (s *system) begin(t *testing.T) {
	t.Helper()
	var printed output
	cmd := exec.Command(garo, s.args...)
	cmd.Stdout, cmd.Stderr = &printed, &printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = func() {
		s.stop = func() {}
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait() // it ends within seconds
		if strings.Contains(printed.String(), "alarm=") {
			t.Error("garo local raised an alarm")
		}
		if t.Failed() {
			t.Logf("garo %q printed:\n%s", s.args, &printed)
		}
	}
	until(t, "garo local to listen", func() bool {
		b, err := os.ReadFile(filepath.Join(s.dir, "url"))
		return err == nil && strings.TrimSpace(string(b)) == s.url
	})
}

// requests returns all requests, the newest first, with their runners.
func (s *system) requests(t *testing.T) []apitype.Status {
	t.Helper()
	page, err := s.Requests(t.Context(), client.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range page.Requests {
		page.Requests[i] = s.request(t, r.ID)
	}
	return page.Requests
}

func (s *system) request(t *testing.T, id string) apitype.Status {
	t.Helper()
	st, err := s.Status(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (s *system) repository() store.Repository { return store.Repository{Server: s.server, ID: "1001"} }

// sharedLabel is what runs-on will name for a shared runner of the
// account: act wants to be told before.
func (s *system) sharedLabel(labels ...string) string {
	slices.Sort(labels)
	r := store.Request{
		Account: accountID, Region: "eu-west-2", Repository: s.repository(), Type: store.Spot,
		Mode: store.Shared, Spec: "default", Labels: labels,
	}
	return s.ring.OwnLabel(r.LockKey())
}

// ephemeralLabel is the same for the n-th runner that a step gets for itself, in a
// job as the issuer describes it.
func (s *system) ephemeralLabel(key string) string {
	return s.ring.OwnLabel(s.ring.RequestID(s.repository().Key(), "7001", "1", "9001", key))
}

// environment is what GitHub's runner tells a job of the issuer.
func (s *system) environment() []string {
	return []string{
		"GARO_PATH=" + garo, "ACTIONS_ID_TOKEN_REQUEST_URL=" + s.issuer.RequestURL(),
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + s.issuer.RequestToken().Reveal(),
	}
}
