package contracttest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// patience bounds a run: far more than it takes, since other tests may have the processors.
const patience = 30 * time.Minute

// world is a local system behind a real address, with notes of what it answered.
type world struct {
	*testing.T
	system *local.System
	dir    string // of the system
	url    string

	mu          sync.Mutex
	calls, good map[string]int // by operation; good: answered with 2xx
	failed      []string       // answered with 5xx
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), calls: map[string]int{}, good: map[string]int{}}
	server := httptest.NewUnstartedServer(nil)
	w.url = "http://" + server.Listener.Addr().String()
	s, err := local.Open(t.Context(), local.Config{Dir: w.dir, URL: w.url, Limits: store.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	w.system = s
	server.Config.Handler = w.noting(s.Handler())
	server.Start()
	ctx, cancel := context.WithCancel(context.Background()) // t.Context ends before the cleanup begins
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// noting notes what h answers.
func (w *world) noting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		said := &answer{ResponseWriter: rw}
		h.ServeHTTP(said, r)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls[r.Pattern]++
		if said.status/100 == 2 {
			w.good[r.Pattern]++
		}
		if said.status >= 500 {
			w.failed = append(w.failed, fmt.Sprintf("%s %s = %d", r.Method, r.URL, said.status))
		}
	})
}

// noted returns how often an operation was called since the run began, and how often that
// succeeded.
func (w *world) noted(op string) (calls, good int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[op], w.good[op]
}

// answer remembers the status of what is written.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// present is what calls can be about. machine is a runner that no request of these has.
type present struct {
	requests, runners, checks []string
	machine                   string
}

// history makes what calls can be about. It returns the last request, too.
func (w *world) history() (there present, last apitype.Started) {
	w.Helper()
	c := client.Must(client.New(client.Config{URL: w.url, Token: client.Static(w.system.Token)}))
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	for range 3 {
		started, err := c.Start(ctx, apitype.Start{Repo: "acme/shop", Mode: store.Ephemeral, Labels: []string{"build"}})
		if err != nil {
			w.Fatal(err)
		}
		status, err := c.Wait(ctx, started.ID, nil)
		if err != nil {
			w.Fatal(err)
		}
		if there.machine == "" { // before anybody stops it
			there.machine = status.Runner.ID
			continue
		}
		there.requests, there.runners, last = append(there.requests, started.ID), append(there.runners, status.Runner.ID), started
	}
	check, err := c.StartCheck(ctx, apitype.CheckStart{})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := w.system.Reap(ctx, false); err != nil { // which sweeps
		w.Fatal(err)
	}
	there.checks = []string{check.ID}
	return there, last
}

// session returns the session token of a machine that has booted.
func (w *world) session(runner string) client.Token {
	w.Helper()
	items, err := w.system.Store.Get(w.Context(), store.Ref{Kind: store.KindRunner, ID: runner})
	if err != nil {
		w.Fatal(err)
	}
	run := items[0].(*store.Runner)
	b, err := os.ReadFile(filepath.Join(w.dir, "keys.json"))
	if err != nil {
		w.Fatal(err)
	}
	var f struct {
		Keys map[string]string
	}
	if err := json.Unmarshal(b, &f); err != nil {
		w.Fatal(err)
	}
	key := secret.New(f.Keys[run.Launch.KeyID])
	ring, err := keys.NewRing(key, run.Launch.KeyID, map[string]secret.Text{run.Launch.KeyID: key})
	if err != nil {
		w.Fatal(err)
	}
	token, err := ring.Session(run.Launch.KeyID, run.ID, run.Boot.NonceHash)
	if err != nil {
		w.Fatal(err)
	}
	return token
}
