package simgithub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	token = "the-token"
	shop  = "acme/shop"
)

var repositories = []github.Repository{{ID: "101", Name: shop}, {ID: "102", Name: "acme/other"}}

// world is a Server and what it reported.
type world struct {
	*Server
	t *testing.T

	mu    sync.Mutex
	wrong []string
}

// open returns a world whose server reports wrong requests to it.
func open(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t}
	if cfg.Repositories == nil {
		cfg.Repositories = repositories
	}
	if cfg.Rules.Token.Empty() {
		cfg.Rules.Token = secret.New(token)
	}
	if cfg.Random == nil {
		cfg.Random = rand.NewChaCha8([32]byte{1})
	}
	cfg.Errorf = func(format string, args ...any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	w.Server = s
	t.Cleanup(func() {
		if wrong := w.reported(); len(wrong) > 0 {
			t.Errorf("requests were reported as wrong: %q", wrong)
		}
	})
	return w
}

// reported returns what was reported, and forgets it.
func (w *world) reported() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := w.wrong
	w.wrong = nil
	return wrong
}

// request makes a correct request, for tests to spoil.
func request(ctx context.Context, method, path, body string) *http.Request {
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://api.github.test"+path, b)
	if err != nil {
		panic(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/vnd.github+json")
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("User-Agent", "test")
	r.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	return r
}

// reply is an answer that was read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (w *world) send(r *http.Request) reply {
	w.t.Helper()
	resp, err := memhttp.Transport{Handler: w.Handler()}.RoundTrip(r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

// call makes a request that must be answered with a status, and decodes its body.
func (w *world) call(method, path, body string, status int, into any) reply {
	w.t.Helper()
	got := w.send(request(w.t.Context(), method, path, body))
	if got.status != status {
		w.t.Fatalf("%s %s = %d %s, want %d", method, path, got.status, got.body, status)
	}
	if into != nil {
		if err := json.NewDecoder(bytes.NewReader(got.body)).Decode(into); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
		}
	}
	return got
}

// minted is the answer to a call that mints.
type minted struct {
	Runner runner `json:"runner"`
	Config string `json:"encoded_jit_config"`
}

func mintBody(name string, labels ...string) string { return groupBody(name, 1, labels...) }

// groupBody is mintBody of a runner in a group.
func groupBody(name string, group int, labels ...string) string {
	if labels == nil {
		labels = []string{} // and not null
	}
	b, err := json.Marshal(map[string]any{"name": name, "runner_group_id": group, "labels": labels, "work_folder": "_work"})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// mint registers a runner in the shop.
func (w *world) mint(name string, labels ...string) (m minted) {
	w.t.Helper()
	w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody(name, labels...), 201, &m)
	return m
}

// connect opens a session.
func (w *world) connect(config string) *Session {
	w.t.Helper()
	x, err := w.Connect(w.t.Context(), config)
	if err != nil {
		w.t.Fatalf("Connect: %v", err)
	}
	return x
}

// online registers a runner and opens its session.
func (w *world) online(name string, labels ...string) (int64, *Session) {
	w.t.Helper()
	m := w.mint(name, labels...)
	return m.Runner.ID, w.connect(m.Config)
}

// queue queues a job in the shop.
func (w *world) queue(run string, labels ...string) string {
	w.t.Helper()
	id, err := w.Queue(shop, Job{RunID: run, Labels: labels, Duration: time.Minute})
	if err != nil {
		w.t.Fatalf("Queue: %v", err)
	}
	return id
}

// job returns a job by id.
func (w *world) job(id string) Job {
	w.t.Helper()
	for _, j := range w.Jobs() {
		if j.ID == id {
			return j
		}
	}
	w.t.Fatalf("no job %s in %+v", id, w.Jobs())
	return Job{}
}

// take waits for a job that must be there already. The minute is for tests that are
// in no bubble, on a busy machine.
func take(t *testing.T, x *Session) Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j, err := x.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return j
}

// idle asserts that a session gets no job for d.
func idle(t *testing.T, x *Session, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if j, err := x.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait = %+v, %v; want no job for %v", j, err, d)
	}
}
