//go:build linux

package machinetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/queuetest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

const (
	account    = "111122223333"
	region     = "eu-west-2"
	repository = "acme/shop"
	pat        = "canary-personal-access-token"
	operator   = keys.OperatorPrefix + "canary"
	apiURL     = "http://" + controlAddress
	brokerURL  = "http://" + controlAddress + ":8090"
)

// limits are production's, with what people wait for shortened. A machine here
// boots in about a second; on a loaded computer in ten.
func limits() store.Limits {
	l := store.DefaultLimits().Divided(60)
	l.BootLimit, l.OnlineGrace = time.Minute, time.Minute
	l.Timeout = 5 * time.Minute
	l.Hard, l.HardMax = 10*time.Minute, 10*time.Minute
	l.GiveUp = 5 * time.Minute
	l.Heartbeat, l.Silent, l.Lost, l.ShareMargin = time.Second, 5*time.Second, 20*time.Second, time.Second
	l.Idle = 30 * time.Second
	l.Grace = 5 * time.Second // a machine that has to, or is done, powers itself off before
	return l
}

// options are what differs from test to test.
type options struct {
	image  image
	limits func(*store.Limits)
	// api stands before the API; nil: nothing does.
	api func(next http.Handler) http.Handler
	// agentHash is the hash in the user data; empty: the agent's.
	agentHash string
	// programHash is the hash of the runner program in the boot answer; empty: its own.
	programHash string
	rules       func(*simgithub.Rules)
	environment map[string]string // of the account's registration
	outfit      store.Outfit      // likewise
	role        bool              // machines have a role
	// proxy is a proxy's address, the only way to the control plane; empty: there is none.
	proxy string
	// offers are the account's for workflow jobs.
	offers []store.Offer
	// fault is what goes wrong at GitHub; nil: nothing does.
	fault func(op string, r *http.Request) simgithub.Fault
}

// world is a whole GARO, and what it runs on.
type world struct {
	*testing.T
	opts    options
	limits  store.Limits
	site    *site
	agent   program
	tarball []byte
	store   *storetest.Memory
	queue   *queuetest.Memory
	github  *simgithub.Server
	api     http.Handler
	client  *client.Client
	worker  *worker.Worker
	reaper  *reaper.Reaper
	keys    *keys.Ring
	fleet   *ec2
	broker  *broker
	logs    file

	mu    sync.Mutex
	calls []apiCall
	away  bool
}

// apiCall is one call that the API, or the server of the runner program, answered.
type apiCall struct {
	at     time.Time
	name   string // such as "POST boot" or "POST events online"
	status int    // 0: the answer was not sent
	body   string
}

// newWorld makes a GARO that works until the end of the test. It is nil where no
// machine can be made.
func newWorld(t *testing.T, opts options) *world {
	t.Helper()
	if !able(t) {
		return nil
	}
	w := &world{T: t, opts: opts, limits: limits(), agent: agentProgram(t)}
	if opts.limits != nil {
		opts.limits(&w.limits)
	}
	var err error
	if w.tarball, err = tarball(brokerURL); err != nil {
		t.Fatal(err)
	}
	w.site = newSite(t)
	w.store, w.queue = storetest.NewMemory(), queuetest.NewMemory(worker.Timeout+15*time.Second)
	if w.keys, err = keys.NewRing(secret.New(strings.Repeat("i", 32)), "k1", map[string]secret.Text{"k1": secret.New(strings.Repeat("k", 32))}); err != nil {
		t.Fatal(err)
	}
	rules := simgithub.Rules{Token: secret.New(pat)}
	if opts.rules != nil {
		opts.rules(&rules)
	}
	if w.github, err = simgithub.New(simgithub.Config{
		Repositories: []github.Repository{{ID: "1001", Name: repository}}, Rules: rules, Fault: opts.fault, Errorf: t.Errorf,
	}); err != nil {
		t.Fatal(err)
	}
	gh, err := github.New(github.Config{
		BaseURL: "http://localhost", HTTP: memhttp.Client(w.github.Handler()),
		Token: func(context.Context, github.Access) (secret.Text, error) { return secret.New(pat), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&w.logs, nil))
	hash := w.agent.sha256
	if opts.agentHash != "" {
		hash = opts.agentHash
	}
	w.fleet = &ec2{world: w, byToken: map[string]*machine{}}
	w.broker = &broker{world: w, sessions: map[string]*simgithub.Session{}, jobs: map[string]string{}, said: map[string]string{}}
	served := fstest.MapFS{}
	served[runtime.GOARCH+"/"+hash+".gz"] = &fstest.MapFile{Data: w.agent.gzip}
	w.api = api.New(api.Config{
		Store: w.store, Queue: w.queue, Accounts: w, Keys: w.keys, Identity: simidentity.Own().Trust(), Limits: w.limits, URL: apiURL, Agents: served,
		Programs: map[string]apitype.RunnerProgram{runtime.GOARCH: w.program()},
		Auth:     api.ByPrefix{Operators: api.Operators{"test": keys.HashToken(operator)}}, Log: log,
		AppSecrets: func(context.Context) ([]secret.Text, error) { return []secret.Text{webhookSecret}, nil },
	})
	w.worker = worker.New(worker.Config{
		Store: w.store, Queue: w.queue, Accounts: w, Fleet: w.fleet, GitHub: gh, Workflows: gh, Keys: w.keys, Identity: simidentity.Own().Trust(), Limits: w.limits,
		ControlPlane: "test", APIURL: apiURL, Agents: map[string]string{runtime.GOARCH: hash}, Log: log,
	})
	w.reaper = reaper.New(reaper.Config{
		Store: w.store, Queue: w.queue, Accounts: w, Fleet: w.fleet, GitHub: gh, Limits: w.limits, ControlPlane: "test", Log: log,
	})
	w.client = client.Must(client.New(client.Config{
		URL: "http://localhost", HTTP: memhttp.Client(w.api),
		Token: func(context.Context) (client.Token, error) { return client.NewToken(operator), nil },
	}))
	w.serve()
	w.run()
	t.Cleanup(w.report)
	return w
}

// serve answers the machines.
func (w *world) serve() {
	front := w.programs(w.api)
	if w.opts.api != nil {
		front = w.opts.api(front)
	}
	front = w.record(front)
	served := map[string]http.Handler{
		controlAddress + ":80":   front,
		controlAddress + ":8090": w.broker.handler(),
		metadataAddress + ":80":  http.HandlerFunc(w.metadata),
	}
	if w.opts.proxy != "" {
		served[w.opts.proxy] = w.proxied(front)
		served[controlAddress+":80"] = http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			w.Errorf("%s %s went past the proxy", req.Method, req.URL.Path)
			panic(http.ErrAbortHandler)
		})
	}
	for address, h := range served {
		server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		l := w.site.listen(w.T, address)
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		w.Cleanup(func() { _ = server.Close(); <-served })
	}
}

// proxied is a proxy that leads to the control plane, and to the broker, alone.
func (w *world) proxied(front http.Handler) http.Handler {
	broker := w.broker.handler()
	return http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		switch req.URL.Host {
		case controlAddress:
			front.ServeHTTP(res, req)
		case controlAddress + ":8090":
			broker.ServeHTTP(res, req)
		default:
			w.Errorf("the proxy was asked for %s", req.URL)
			res.WriteHeader(http.StatusForbidden)
		}
	})
}

// run works on messages and makes the reaper's rounds until the end of the test.
func (w *world) run() {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				batch, err := w.queue.Receive(ctx, 10, time.Second)
				if err != nil || len(batch) == 0 {
					continue
				}
				failed := w.worker.Handle(ctx, batch)
				for _, d := range batch {
					if !strings.Contains(strings.Join(failed, " ")+" ", d.ID+" ") {
						_ = w.queue.Delete(ctx, d)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for tick := time.Tick(w.limits.ReaperPeriod); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick:
				if _, err := w.reaper.Run(ctx); err != nil && ctx.Err() == nil && !w.fleet.refusing() {
					w.Errorf("reaper: %v", err)
				}
			}
		}
	})
	w.Cleanup(func() {
		stop()
		wg.Wait()
		w.fleet.close()
	})
}

// report shows what happened, if the test failed, and in any case that no
// secret got to where somebody reads it.
func (w *world) report() {
	for _, m := range w.fleet.all() {
		for _, hidden := range w.secrets(m) {
			if strings.Contains(m.console(), hidden) || strings.Contains(w.logs.String(), hidden) {
				w.Errorf("the console of machine %d or the log of the control plane has a secret", m.n)
			}
		}
		if w.Failed() {
			w.Logf("machine %d called:\n%s\nand said:\n%s", m.n, m.calls(), m.console())
		}
	}
	if w.Failed() {
		for _, c := range w.answered("") {
			w.Logf("%s %s: %d", c.at.Format("15:04:05.000"), c.name, c.status)
		}
		w.Logf("the control plane said:\n%s", w.logs.String())
	}
}

// secrets are what nobody but root may see of a machine.
func (w *world) secrets(m *machine) []string {
	all := []string{pat, operator, webhookSecret.Reveal()}
	if t := m.token(); t != "" {
		all = append(all, t)
	}
	if s := w.session(m); s != "" {
		all = append(all, s)
	}
	for _, r := range w.github.Minted() {
		if c := r.Config.Reveal(); c != "" {
			all = append(all, c)
		}
	}
	return all
}

// session is S; empty: the machine has not booted.
func (w *world) session(m *machine) string {
	runner := m.runner()
	if runner.Boot.NonceHash == "" {
		return ""
	}
	s, err := w.keys.Session("k1", runner.ID, runner.Boot.NonceHash)
	if err != nil {
		w.Errorf("session: %v", err)
	}
	return s.Reveal()
}

// Account implements store.Accounts.
func (w *world) Account(_ context.Context, id string) (store.Account, error) {
	if id != account {
		return store.Account{}, fmt.Errorf("account %s: %w", id, store.ErrNoAccount)
	}
	return store.Account{
		ID:            account,
		Repositories:  []store.Named{{ID: "1001", Name: repository}},
		Owners:        []store.Named{{ID: "1", Name: "acme"}},
		Regions:       map[string]store.Region{region: {Subnets: []string{"subnet-a"}, SecurityGroups: []string{"sg-a"}, Images: []string{"ami-a"}}},
		InstanceTypes: []string{"t3a.micro"}, DefaultInstanceTypes: []string{"t3a.micro"},
		Markets: []string{store.OnDemand, store.Spot}, Modes: []string{store.Ephemeral, store.Shared},
		MaxRunners: 10, Pacing: store.Pacing{Burst: 100, IntervalMS: 10}, Environment: w.opts.environment, Outfit: w.opts.outfit, RunsOn: w.opts.offers,
	}, nil
}

// List implements store.Accounts.
func (w *world) List(context.Context) ([]string, error) { return []string{account}, nil }

// ask asks for a runner.
func (w *world) ask(mode string) apitype.Started {
	w.Helper()
	started, err := w.client.Start(w.Context(), apitype.Start{Repo: repository, AccountID: account, Mode: mode})
	if err != nil {
		w.Fatalf("start: %v", err)
	}
	return started
}

// machine waits for the n-th launch.
func (w *world) machine(n int) *machine {
	w.Helper()
	var m *machine
	eventually(w.T, fmt.Sprintf("the launch of machine %d", n), func() bool {
		if all := w.fleet.all(); len(all) >= n {
			m = all[n-1]
		}
		return m != nil
	})
	return m
}

// status reads a request.
func (w *world) status(id string) apitype.Status {
	w.Helper()
	s, err := w.client.Status(w.Context(), id)
	if err != nil {
		w.Fatalf("status: %v", err)
	}
	return s
}

// wantEnd waits until a request's runner has ended, and returns the request.
func (w *world) wantEnd(id, code string) apitype.Status {
	w.Helper()
	var s apitype.Status
	eventually(w.T, "the end of the runner in the records", func() bool {
		s = w.status(id)
		return s.Runner != nil && s.Runner.State == string(store.RunnerEnded)
	})
	if s.Runner.End == nil || s.Runner.End.Code != code {
		w.Errorf("the runner ended for %+v, want %s; its story: %+v", s.Runner.End, code, s.Runner.History)
	}
	return s
}

// record notes every call, and answers none while the API is away.
func (w *world) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		at := time.Now()
		b, err := io.ReadAll(req.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		req.Body = io.NopCloser(bytes.NewReader(b))
		path := strings.Split(req.URL.Path, "/")
		name := req.Method + " " + path[len(path)-1]
		if strings.Contains(req.URL.Path, "/agent/") {
			name = "GET agent"
		}
		var e apitype.Event
		if json.Unmarshal(b, &e) == nil && e.Event != "" {
			name += " " + strings.TrimSpace(e.Event+" "+e.RunID+e.Reason)
		}
		w.mu.Lock()
		away := w.away
		w.calls = append(w.calls, apiCall{at: at, name: name, body: string(b)})
		i := len(w.calls) - 1
		w.mu.Unlock()
		if away {
			panic(http.ErrAbortHandler)
		}
		counted := &statusWriter{ResponseWriter: res, status: http.StatusOK}
		next.ServeHTTP(counted, req)
		w.mu.Lock()
		w.calls[i].status = counted.status
		w.mu.Unlock()
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// setAway takes the API away from the machines, or brings it back.
func (w *world) setAway(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
}

// answered returns the calls whose name begins like that, in order.
func (w *world) answered(prefix string) []apiCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []apiCall
	for _, c := range w.calls {
		if strings.HasPrefix(c.name, prefix) {
			all = append(all, c)
		}
	}
	return all
}

// heard lists the events that the API took, each once and heartbeats aside.
func (w *world) heard() string {
	var all []string
	seen := map[string]bool{}
	for _, c := range w.answered("POST events ") {
		var e apitype.Event
		if json.Unmarshal([]byte(c.body), &e) != nil || e.Event == store.EventHeartbeat || c.status != http.StatusOK {
			continue
		}
		if key := fmt.Sprint(e.Event, e.Counter); !seen[key] {
			seen[key] = true
			all = append(all, strings.TrimPrefix(c.name, "POST events "))
		}
	}
	// That a job has started may be known before its run is.
	return strings.ReplaceAll(strings.Join(all, ", "), "job_started, job_started ", "job_started ")
}

func (w *world) wantHeard(want string) {
	w.Helper()
	if got := w.heard(); got != want {
		w.Errorf("the API heard: %s\nwant: %s", got, want)
	}
}

// programPath is where the machines find the runner program.
const programPath = "/actions-runner.tar.gz"

// program is what the boot answer says of the runner program.
func (w *world) program() apitype.RunnerProgram {
	hash := sum(w.tarball)
	if w.opts.programHash != "" {
		hash = w.opts.programHash
	}
	return apitype.RunnerProgram{Version: "2.336.0", URL: apiURL + programPath, SHA256: hash}
}

// programs serves the runner program, beside the API.
func (w *world) programs(next http.Handler) http.Handler {
	return http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		if req.URL.Path == programPath {
			http.ServeContent(res, req, "", time.Time{}, bytes.NewReader(w.tarball))
			return
		}
		next.ServeHTTP(res, req)
	})
}

var machineOf = regexp.MustCompile(`^10\.9[89]\.([0-9]+)\.2:`)

// from returns the machine that a request comes from.
func (w *world) from(req *http.Request) *machine {
	var n int
	if part := machineOf.FindStringSubmatch(req.RemoteAddr); part != nil {
		_, _ = fmt.Sscan(part[1], &n)
	}
	if all := w.fleet.all(); n >= 1 && n <= len(all) {
		return all[n-1]
	}
	return nil
}
