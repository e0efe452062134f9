//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/host"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// The keeper is the binary that starts it.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == host.KeeperArgument {
		os.Exit(host.Keep())
	}
	os.Exit(m.Run())
}

const (
	token   = "canary-boot-token"
	session = "garo_s_canary-session"
	jit     = "canary-config"
)

// world is a machine in a directory, and the two servers that it calls.
type world struct {
	dir  string
	cfg  config
	logs bytes.Buffer

	mu      sync.Mutex
	counter int64
	said    []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	for _, dir := range []string{w.dir, filepath.Dir(w.dir)} { // the runner's user has to reach what is below
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mux := http.NewServeMux()
	answer := func(res http.ResponseWriter, v any) {
		if err := json.NewEncoder(res).Encode(v); err != nil {
			t.Errorf("answer: %v", err)
		}
	}
	orders := apitype.Orders{Order: "go", HardS: 3600}
	mux.HandleFunc("POST /runners/r1/boot", func(res http.ResponseWriter, req *http.Request) {
		var b apitype.Boot
		if err := json.NewDecoder(req.Body).Decode(&b); err != nil || b.Token != token || b.InstanceID != "i-0123456789abcdef0" || b.Identity != "word" {
			t.Errorf("boot with %+v, %v", b, err)
		}
		answer(res, apitype.Booted{Session: session, Config: jit, N: 1, Mode: "ephemeral", HeartbeatS: 20, IdleS: 600, Orders: orders})
	})
	mux.HandleFunc("POST /runners/r1/events", func(res http.ResponseWriter, req *http.Request) {
		var e apitype.Event
		if err := json.NewDecoder(req.Body).Decode(&e); err != nil || req.Header.Get("Authorization") != "Bearer "+session {
			t.Errorf("event %+v with %v: %v", e, req.Header, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if e.Counter > w.counter { // else it was said before, and only the answer was lost
			w.counter = e.Counter
			w.said = append(w.said, strings.TrimSpace(e.Event+" "+e.RunID+e.Reason))
		}
		answer(res, orders)
	})
	mux.HandleFunc("PUT /latest/api/token", func(res http.ResponseWriter, _ *http.Request) { fmt.Fprint(res, "t") })
	mux.HandleFunc("GET /latest/meta-data/instance-id", func(res http.ResponseWriter, _ *http.Request) { fmt.Fprint(res, "i-0123456789abcdef0") })
	mux.HandleFunc("GET /latest/dynamic/instance-identity/rsa2048", func(res http.ResponseWriter, _ *http.Request) { fmt.Fprint(res, "word") })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if u.Uid == "0" {
		u.Username = "nobody"
	}
	data, err := bootstrap.Render(bootstrap.Current, bootstrap.Document{API: server.URL, Runner: "r1", KeyID: "k1", Token: secret.New(token), HardS: 3600})
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = config{
		document: filepath.Join(w.dir, "document"),
		host: host.Config{
			Dir: filepath.Join(w.dir, "run"), Hooks: filepath.Join(w.dir, "hooks"), Runner: filepath.Join(w.dir, "runner"),
			User: u.Username, Metadata: server.URL,
		},
	}
	word := data[bytes.LastIndexByte(data, ' ')+1:] // as the start script does
	w.write(t, "document", string(word), 0o600)
	for _, tool := range []string{"systemd-run", "shutdown"} {
		w.write(t, "bin/"+tool, fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>'%s/calls'\n", tool, w.dir), 0o755)
	}
	t.Setenv("PATH", filepath.Join(w.dir, "bin"))
	return w
}

func (w *world) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// heard lists what the API heard.
func (w *world) heard() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.said, ", ")
}

func (w *world) calls() string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "calls"))
	return string(b)
}

func (w *world) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(&w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// patience is for a loaded machine: nothing here takes two seconds.
const patience = 2 * time.Minute

func TestMachineRunsItsJobAndPowersOff(t *testing.T) {
	w := newWorld(t)
	w.write(t, "runner/run.sh", `#!/bin/sh
echo '2026-11-23 12:00:00Z: Listening for Jobs'
GITHUB_RUN_ID=77 /bin/sh -e "$ACTIONS_RUNNER_HOOK_JOB_STARTED"
echo '2026-11-23 12:00:01Z: Running job: build'
`, 0o755)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := run(ctx, w.cfg, w.log()); err != nil {
		t.Fatalf("run: %v\n%s", err, w.logs.String())
	}
	if got, want := w.heard(), "booting, online, job_started 77, job_done"; got != want {
		t.Errorf("the API heard: %s\nwant: %s", got, want)
	}
	if calls := w.calls(); !strings.HasPrefix(calls, "systemd-run --quiet --on-active=3600 ") || !strings.HasSuffix(calls, "\nshutdown -P now\n") {
		t.Errorf("called:\n%s\nwant a timer first and a power-off last", calls)
	}
	for _, hidden := range []string{token, session, jit} {
		if strings.Contains(w.logs.String(), hidden) {
			t.Errorf("the log has %s:\n%s", hidden, w.logs.String())
		}
	}
}

func TestMachineThatCannotStartPowersOff(t *testing.T) {
	for name, spoil := range map[string]func(*world) error{
		"WithoutADocument":  func(w *world) error { return os.Remove(w.cfg.document) }, // after a reboot
		"WithABadDocument":  func(w *world) error { return os.WriteFile(w.cfg.document, []byte("x"), 0o600) },
		"WithoutItsProgram": func(*world) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := spoil(w); err != nil {
				t.Fatal(err)
			}
			if err := run(t.Context(), w.cfg, w.log()); err != nil {
				t.Errorf("run: %v", err)
			}
			if !strings.HasSuffix(w.calls(), "shutdown -P now\n") {
				t.Errorf("called:\n%s\nwant a power-off", w.calls())
			}
		})
	}
}

func TestTerminatedAgentLeavesTheMachineOn(t *testing.T) {
	w := newWorld(t)
	w.write(t, "runner/run.sh", "#!/bin/sh\nPATH=/usr/bin:/bin\nwhile [ ! -e go ]; do sleep 0.1; done\n", 0o755)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- run(ctx, w.cfg, w.log()) }()
	for deadline := time.Now().Add(patience); w.heard() == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the agent does not boot")
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v, want that it was cancelled", err)
	}
	if strings.Contains(w.calls(), "shutdown") {
		t.Errorf("called:\n%s\nwant no power-off", w.calls())
	}
	w.write(t, "runner/go", "", 0o644) // the end of the runner program
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := run(ctx, w.cfg, w.log()); err != nil {
		t.Errorf("run again: %v", err)
	}
	if got, want := w.heard(), "booting, draining agent_ended"; got != want {
		t.Errorf("the API heard: %s\nwant: %s", got, want)
	}
}

func TestDirectoryThatCannotBeMadeIsAnError(t *testing.T) {
	w := newWorld(t)
	w.cfg.host.Dir = w.cfg.document
	if err := run(t.Context(), w.cfg, w.log()); err == nil {
		t.Error("run succeeded, want an error")
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want error // nil: none; errAny: any
	}{
		{[]string{"-document", "d"}, nil},
		{[]string{}, errAny},
		{[]string{"-document", "d", "more"}, errAny},
		{[]string{"-config", "c"}, errAny},
		{[]string{"-h"}, flag.ErrHelp},
	} {
		got, err := parse(c.args, io.Discard)
		if (err == nil) != (c.want == nil) || c.want == flag.ErrHelp && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("parse(%q) = %v, want %v", c.args, err, c.want)
		}
		if err == nil && (got.document != "d" || got.host.Dir != "/run/garo" || got.host.User != "runner") {
			t.Errorf("parse(%q) = %+v, want the document and defaults", c.args, got)
		}
	}
}

var errAny = errors.New("any")
