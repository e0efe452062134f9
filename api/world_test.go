package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/queuetest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

const (
	base      = "https://garo.example.org"
	accountID = "123456789012"
	region    = "eu-west-2"

	operatorToken = keys.OperatorPrefix + "canary-operator"
	workflowToken = "canary.workflow.token"
	otherToken    = "canary.other.token" // of another repository
	configCanary  = "canary-jit-config"
)

var workflow = api.Caller{Kind: api.GitHub, Name: "octocat", Claims: api.Claims{
	RepositoryID: "1001", Repository: "alphagov/demo", OwnerID: "55", Owner: "alphagov", Visibility: "private",
	RunID: "7001", RunAttempt: "1", CheckRunID: "9001", Actor: "octocat", ActorID: "583231", Event: "push",
	Ref: "refs/heads/main", Workflow: "Build", RunnerEnvironment: "github-hosted",
}}

var runnerProgram = apitype.RunnerProgram{Version: "2.336.0", URL: "https://github.test/runner.tar.gz", SHA256: strings.Repeat("a", 64)}

func stranger() api.Caller {
	c := workflow
	c.Claims.RepositoryID, c.Claims.Repository = "1002", "alphagov/other"
	return c
}

func registration() store.Account {
	return store.Account{
		ID: accountID, ExternalID: secret.New("canary-external-id"),
		Repositories:  []store.Named{{ID: "1001", Name: "alphagov/demo"}, {ID: "1002", Name: "alphagov/other"}},
		DefaultRegion: region,
		Regions: map[string]store.Region{
			region:      {Subnets: []string{"subnet-a1", "subnet-b1"}, SecurityGroups: []string{"sg-1"}, Images: []string{"ami-1", "/garo/image"}},
			"eu-west-1": {Subnets: []string{"subnet-c1"}, SecurityGroups: []string{"sg-2"}, Images: []string{"ami-2"}},
		},
		InstanceTypes: []string{"m7i.large", "m7a.large"}, DefaultInstanceTypes: []string{"m7i.large"},
		Markets: []string{store.Spot, store.OnDemand}, Modes: []string{store.Shared, store.Ephemeral}, MaxRunners: 10,
		MaxTimeoutS: 7200, MachineOptions: store.MachineOptions{MaxRootVolumeGB: 200, RequestTags: []string{"job"}, InstanceRequirements: &store.Requirements{
			VCPUs: store.Range{Max: 16}, MemoryGB: store.Range{Max: 64}, GPU: store.Range{Max: 1},
		}},
	}
}

// accounts is a store.Accounts of what it holds.
type accounts struct {
	byID map[string]store.Account
	err  error
}

func (a *accounts) Account(_ context.Context, id string) (store.Account, error) {
	if a.err != nil {
		return store.Account{}, a.err
	}
	got, ok := a.byID[id]
	if !ok {
		return got, fmt.Errorf("account %s: %w", id, store.ErrNoAccount)
	}
	return got, nil
}

func (a *accounts) List(context.Context) ([]string, error) {
	ids := make([]string, 0, len(a.byID))
	for id := range a.byID {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, a.err
}

// tokens is an Authenticator that knows the callers by their tokens.
type tokens struct {
	callers map[string]api.Caller
	err     error
}

func (a *tokens) Authenticate(_ context.Context, token string) (api.Caller, error) {
	if a.err != nil {
		return api.Caller{}, a.err
	}
	c, ok := a.callers[token]
	if !ok {
		return c, fmt.Errorf("no such job: %w", api.ErrToken)
	}
	return c, nil
}

type sent struct {
	queue.Message
	delay time.Duration
}

// world is an API over a store in memory, and all that the tests see of it.
type world struct {
	*testing.T
	items    *storetest.Memory
	queue    *queuetest.Memory
	accounts *accounts
	github   *tokens
	keys     *keys.Ring
	limits   store.Limits
	trust    identity.Trust
	log      bytes.Buffer
	handler  http.Handler

	mu      sync.Mutex
	calls   map[string]int // of the store by op, and send
	fate    func(op string, n int) storetest.Fate
	sent    []sent
	sendErr error
	answers bytes.Buffer // every body that was answered
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ring, err := keys.NewRing(secret.New(strings.Repeat("canary-id-key", 3)), "k1", map[string]secret.Text{"k1": secret.New(strings.Repeat("canary-key", 4))})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		T: t, items: storetest.NewMemory(), queue: queuetest.NewMemory(time.Minute), keys: ring, limits: store.DefaultLimits(), calls: map[string]int{},
		accounts: &accounts{byID: map[string]store.Account{accountID: registration()}},
		github:   &tokens{callers: map[string]api.Caller{workflowToken: workflow, otherToken: stranger()}},
	}
	w.handler = api.New(w.config())
	return w
}

func (w *world) config() api.Config {
	return api.Config{
		Store: storetest.NewFaulty(w.items, w.ask), Queue: w, Accounts: w.accounts, Keys: w.keys, Identity: w.trust, Limits: w.limits, URL: base,
		Programs: map[string]apitype.RunnerProgram{"amd64": runnerProgram},
		Auth:     api.ByPrefix{Operators: api.Operators{"ann": keys.HashToken(operatorToken)}, GitHub: w.github},
		Log:      slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (w *world) ask(op string, n int) storetest.Fate {
	w.mu.Lock()
	w.calls[op]++
	fate := w.fate
	w.mu.Unlock()
	if fate == nil {
		return storetest.Pass
	}
	return fate(op, n)
}

// Send implements queue.Sender.
func (w *world) Send(ctx context.Context, m queue.Message, delay time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls["send"]++
	if w.sendErr != nil {
		return w.sendErr
	}
	w.sent = append(w.sent, sent{m, delay})
	return w.queue.Send(ctx, m, delay)
}

// RoundTrip implements http.RoundTripper: it hands the request to the API, and
// holds both against the contract.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	server := func() *http.Request {
		s := r.Clone(r.Context())
		s.Body, s.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		s.RequestURI = r.URL.RequestURI()
		return s
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, server())
	w.mu.Lock()
	w.answers.Write(rec.Body.Bytes())
	w.mu.Unlock()
	checkContract(w.T, server(), rec)
	return rec.Result(), nil
}

func (w *world) client(token string) *client.Client {
	return client.Must(client.New(client.Config{
		URL: base, HTTP: &http.Client{Transport: w},
		Token: func(context.Context) (client.Token, error) { return client.NewToken(token), nil },
	}))
}

// answer is what a raw call gets.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t *testing.T) apitype.Problem {
	t.Helper()
	var p apitype.Problem
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code == "" {
		t.Fatalf("answer = %d %s; want a problem", a.status, a.body)
	}
	return p
}

// raw makes one call. body is sent as it is if it is a string, else as JSON; nil
// sends none. headers are names and values.
func (w *world) raw(method, path, token string, body any, headers ...string) answer {
	w.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			w.Fatal(err)
		}
		r = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(w.Context(), method, base+path, r)
	if err != nil {
		w.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.RoundTrip(req)
	if err != nil {
		w.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, got}
}

// counted runs f and returns what it called, such as "get 1 commit 1 send 1".
func (w *world) counted(f func()) string {
	w.mu.Lock()
	clear(w.calls)
	w.mu.Unlock()
	f()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, op := range []string{"get", "commit", "list", "due", "send"} {
		if n := w.calls[op]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", op, n))
		}
	}
	return strings.Join(out, " ")
}

// logged returns the log lines with that message.
func (w *world) logged(msg string) []map[string]any {
	w.Helper()
	var out []map[string]any
	for line := range strings.Lines(w.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			w.Fatalf("log line %q: %v", line, err)
		}
		if m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

// alarms returns the codes of the alarms that were raised.
func (w *world) alarms() []string {
	w.Helper()
	var out []string
	for line := range strings.Lines(w.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			w.Fatalf("log line %q: %v", line, err)
		}
		if a, ok := m["alarm"].(string); ok {
			if m["level"] != "ERROR" {
				w.Errorf("alarm %s has level %v, want ERROR", a, m["level"])
			}
			out = append(out, a)
		}
	}
	return out
}

func (w *world) put(items ...store.Item) {
	w.Helper()
	changes := make([]store.Change, len(items))
	for i, it := range items {
		changes[i] = store.Put(it)
	}
	if err := store.NewWriter(w.items, rnd(w.T), time.Now).Commit(w.Context(), changes...); err != nil {
		w.Fatalf("commit: %v", err)
	}
}

func rnd(t *testing.T) string {
	t.Helper()
	id, err := keys.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func read[T any, P interface {
	*T
	store.Item
}](w *world, id string) T {
	w.Helper()
	item, err := store.Read[T, P](w.Context(), w.items, id)
	if err != nil {
		w.Fatal(err)
	}
	return item
}

func (w *world) request(id string) store.Request { return read[store.Request](w, id) }
func (w *world) runner(id string) store.Runner   { return read[store.Runner](w, id) }
func (w *world) lock(key string) store.Lock      { return read[store.Lock](w, key) }
func (w *world) pulse(key string) store.Pulse    { return read[store.Pulse](w, key) }

func (w *world) start(token string, body apitype.Start) apitype.Started {
	w.Helper()
	got, err := w.client(token).Start(w.Context(), body)
	if err != nil {
		w.Fatalf("Start: %v", err)
	}
	return got
}

var errDown = errors.New("down")

func down(string, int) storetest.Fate { return storetest.FailBefore }

// field returns a field of an answer.
func field(t *testing.T, a answer, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("answer %d %s: %v", a.status, a.body, err)
	}
	s, _ := m[name].(string)
	return s
}
