package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// The defaults are for every run of the tests; make load asks for more.
var (
	loadFor     = flag.Duration("load", 20*time.Second, "how long the load test lasts")
	loadRate    = flag.Int("rate", 60, "starts a second of the load test: http.tf lets in 50")
	loadPollers = flag.Int("pollers", 100, "how many poll GET /status in the load test")
	loadKills   = flag.Int("loadkills", 1, "how often the load test kills the system")
)

// loadKeys is how many shared runners the load asks for: a small machine runs so many
// agents beside all else. Each start finds one of them.
const loadKeys = 20

// wanted returns the start of that key.
func wanted(n int) apitype.Start {
	return apitype.Start{Repo: repository, Mode: store.Shared, Labels: []string{fmt.Sprintf("load-%d", n%loadKeys)}, IdempotencyKey: fmt.Sprint(n)}
}

// burden is a load on a garo local that is killed now and then, behind the throttles of
// API Gateway. Who gets no answer from it, or is one too many, asks again, with the same
// key, as the client does.
type burden struct {
	t      *testing.T
	client *client.Client
	calls  *measured
	fresh  chan string // ids that nobody polls yet
	fixed  sync.WaitGroup
	until  time.Time // when all starts have to have an answer

	mu      sync.Mutex
	ids     map[int]string // by key: what the answer named
	retried int            // starts that were asked for again
	tooMany int            // those of them that were one too many at first
}

// accept notes the answer to the start of a key.
func (l *burden) accept(key int, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was := l.ids[key]; was != "" && was != id {
		l.t.Errorf("start %d has the ids %s and %s", key, was, id)
	}
	l.ids[key] = id
	select {
	case l.fresh <- id:
	default: // all pollers have enough to do
	}
}

// hit is a result as vegeta encodes it.
type hit struct {
	Code  int    `json:"code"`
	Error string `json:"error"`
	Body  []byte `json:"body"`
	URL   string `json:"url"`
}

// take takes a result of the attack: an id, or a reason to ask again.
func (l *burden) take(ctx context.Context, h hit) {
	var key int
	_, fragment, _ := strings.Cut(h.URL, "#")
	if _, err := fmt.Sscan(fragment, &key); err != nil {
		l.t.Errorf("result %+v has no key: %v", h, err)
		return
	}
	var started apitype.Started
	switch {
	case h.Code/100 == 2 && json.Unmarshal(h.Body, &started) == nil && started.ID != "":
		l.accept(key, started.ID)
	case h.Code/100 == 4 && h.Code != http.StatusTooManyRequests:
		l.t.Errorf("start %d = %d %s", key, h.Code, h.Body)
	default: // it is one too many, or there was no answer
		l.retried++
		if h.Code == http.StatusTooManyRequests {
			l.tooMany++
		}
		l.fixed.Go(func() {
			started, err := l.again(ctx, key)
			if err != nil {
				l.t.Errorf("start %d, again: %v", key, err)
				return
			}
			l.accept(key, started.ID)
		})
	}
}

// again asks until there is an answer: the client has its own patience, which is
// shorter than the time in which a busy machine starts a program, or in which as many are
// let in as are one too many.
func (l *burden) again(ctx context.Context, key int) (started apitype.Started, err error) {
	for time.Now().Before(l.until) {
		if started, err = l.client.Start(ctx, wanted(key)); err == nil || ctx.Err() != nil {
			break
		}
	}
	return started, err
}

// poll looks at one request after another, every two seconds, until ctx ends. A
// request that was accepted is never unknown.
func (l *burden) poll(ctx context.Context) {
	pause := time.Duration(rand.Int64N(int64(2 * time.Second))) // so that not all come at once
	for id, final := "", true; ; pause = 2 * time.Second {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if final {
			select {
			case id = <-l.fresh:
			default:
			}
		}
		if id == "" {
			continue
		}
		s, err := l.client.Status(ctx, id)
		var refused *client.Error
		if errors.As(err, &refused) && refused.Problem.Status == http.StatusNotFound {
			l.t.Errorf("request %s was accepted, and is not there: %v", id, err)
		}
		final = err == nil && store.RequestState(s.State).Final()
	}
}

// front is what stands before garo local: API Gateway, with the throttles of http.tf. What
// is too much for it never reaches the program; while that is dead, it says so.
type front struct {
	*gateway.Gateway
	starts float64 // that it lets in a second
	proxy  httputil.ReverseProxy
}

// letsIn returns how long it takes to let all starts of the load in, at the least.
func (f *front) letsIn() time.Duration {
	return max(*loadFor, time.Duration(float64(*loadRate)/f.starts*float64(*loadFor)))
}

// unavailable is what API Gateway answers for a function that does not.
const unavailable = http.StatusServiceUnavailable

// frontOf returns the front of a program, which may be killed and come again at its address.
func frontOf(t *testing.T, at string) *front {
	t.Helper()
	terraform, err := os.ReadFile(filepath.Join("..", "..", "terraform", "http.tf"))
	if err != nil {
		t.Fatal(err)
	}
	throttles := gateway.Throttles(terraform)
	if throttles["POST /start"].Rate == 0 || throttles["GET /status/{id}"].Rate == 0 {
		t.Fatalf("http.tf throttles %v, want starts and their status among them", throttles)
	}
	behind, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return &front{gateway.New(throttles), throttles["POST /start"].Rate, httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(behind) },
		Transport: &http.Transport{MaxIdleConnsPerHost: *loadPollers},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(unavailable)
			_, _ = io.WriteString(w, `{"message":"Service Unavailable"}`) // who has gone does not read it
		},
	}}
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.Refuses(r) {
		f.proxy.ServeHTTP(w, r)
		return
	}
	answer := gateway.TooMany(r)
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body) // who has gone does not read it
}

// measured is a transport that notes how long answers take.
type measured struct {
	base http.RoundTripper

	mu      sync.Mutex
	took    []time.Duration // of answers of the program
	tooMany int
	failed  int
}

func (m *measured) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	resp, err := m.base.RoundTrip(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil, resp.StatusCode == unavailable:
		m.failed++
	case resp.StatusCode == http.StatusTooManyRequests:
		m.tooMany++
	default:
		m.took = append(m.took, time.Since(began))
	}
	return resp, err
}

func (m *measured) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.took)
	if len(m.took) == 0 {
		return "no answers"
	}
	at := func(share float64) time.Duration {
		return m.took[int(share*float64(len(m.took)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%d answers: p50 %s, p99 %s, longest %s; %d calls without one, and %d were one too many", len(m.took), at(.5), at(.99), at(1), m.failed, m.tooMany)
}

// vegeta returns the path of the generator, which go builds if it has not yet.
func vegeta(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tools/go.mod", "-n", "vegeta")
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build vegeta: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// targets writes one start after another, until nobody reads them.
func targets(w io.Writer, at, token string) {
	for n, enc := 0, json.NewEncoder(w); ; n++ {
		body, err := json.Marshal(wanted(n))
		if err != nil {
			panic(err) // what tests send always marshals
		}
		if err := enc.Encode(map[string]any{
			"method": http.MethodPost, "url": fmt.Sprintf("%s/start#%d", at, n), "body": body, // the fragment is for the result alone
			"header": http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}},
		}); err != nil {
			return
		}
	}
}

// attack makes the starts, hands the results on, and returns what vegeta reports.
func (l *burden) attack(generator, at, token string, each func(hit)) string {
	results := filepath.Join(l.t.TempDir(), "results")
	kept, err := os.Create(results)
	if err != nil {
		l.t.Fatal(err)
	}
	defer kept.Close()
	ctx := l.t.Context()
	run := exec.CommandContext(ctx, generator, "attack", "-format=json", "-lazy", "-timeout=30s",
		fmt.Sprintf("-rate=%d", *loadRate), fmt.Sprintf("-duration=%s", *loadFor))
	encode := exec.CommandContext(ctx, generator, "encode", "-to=json")
	in, out := io.Pipe()
	read, write := io.Pipe()
	run.Stdin, run.Stdout, run.Stderr, encode.Stdin, encode.Stderr = read, io.MultiWriter(kept, out), os.Stderr, in, os.Stderr
	run.WaitDelay = time.Second // the targets have no end
	encoded, err := encode.StdoutPipe()
	if err == nil {
		err = errors.Join(encode.Start(), run.Start())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() { targets(write, at, token) })
	writing.Go(func() {
		err := run.Wait()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			l.t.Errorf("vegeta attack: %v", err)
		}
		_, _ = read.Close(), out.Close()
	})
	for dec := json.NewDecoder(encoded); ; {
		var h hit
		if err := dec.Decode(&h); err != nil {
			if err != io.EOF {
				l.t.Errorf("vegeta encode: %v", err)
			}
			break
		}
		each(h)
	}
	writing.Wait()
	if err := encode.Wait(); err != nil {
		l.t.Errorf("vegeta encode: %v", err)
	}
	report, err := exec.CommandContext(ctx, generator, "report", results).CombinedOutput()
	if err != nil {
		l.t.Errorf("vegeta report: %v", err)
	}
	return string(report)
}

// TestLoadLosesNothing puts the real program under the load of a real generator, which is
// more than the throttles of http.tf let in, kills it meanwhile, and looks for every start
// that was asked for. How fast it is it prints, and does not judge.
func TestLoadLosesNothing(t *testing.T) {
	t.Parallel()
	garo, generator := build(t), vegeta(t)
	dir := filepath.Join(t.ArtifactDir(), "data") // go test -artifacts keeps it
	args := []string{"--addr", lonely(t), "--boot-time", "1s", "--jobs", "0"}
	p := launch(t, garo, dir, args...)
	token := client.NewToken(p.token) // of all that follow it, too: it is in the directory
	door := frontOf(t, p.url)
	outside := httptest.NewServer(door)
	defer outside.Close()
	calls := &measured{base: &http.Transport{MaxIdleConnsPerHost: *loadPollers}}
	l := &burden{t: t, calls: calls, fresh: make(chan string, *loadPollers), ids: map[int]string{}, until: time.Now().Add(door.letsIn() + patience)}
	l.client = client.Must(client.New(client.Config{
		URL: outside.URL, HTTP: &http.Client{Transport: calls, Timeout: 30 * time.Second},
		Token: func(context.Context) (client.Token, error) { return token, nil },
	}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var pollers, killer sync.WaitGroup
	for range *loadPollers {
		pollers.Go(func() { l.poll(ctx) })
	}
	over := make(chan struct{})
	killer.Go(func() { p = tormented(t, p, over, func() *process { return launch(t, garo, dir, args...) }) })
	starts := 0
	report := l.attack(generator, outside.URL, p.token, func(h hit) { starts++; l.take(t.Context(), h) })
	close(over)
	killer.Wait()
	l.fixed.Wait()
	stop()
	pollers.Wait()
	t.Logf("%d starts, %d of them asked again, of which %d were one too many\n%s\nthose again, and polls: %s\nthe throttles refused %v calls",
		starts, l.retried, l.tooMany, report, calls, door.Refused())
	l.settle(filepath.Join(dir, local.StoreFile), starts)
	memory, used := proc(t, p.Process.Pid)
	p.kill(t)
	examineLog(t, dir+".log")
	t.Logf("in the end: %d MB resident, %s of a processor since the last kill", memory>>20, used.Round(time.Second))
}

// lonely returns an address of this machine that nothing else uses, also while the
// program that listens there is dead: it is on no address that others listen at.
func lonely(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// tormented kills the system at random moments, one in each part of the load, until
// the load is over, and starts it again each time. It returns the process that runs.
func tormented(t *testing.T, p *process, over <-chan struct{}, launch func() *process) *process {
	part := *loadFor / time.Duration(*loadKills+1)
	moment := func(n int) time.Duration { // of the nth kill: none falls into the first half of a part
		return part*time.Duration(n) + part/2 + time.Duration(rand.Int64N(int64(part)))
	}
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	began := time.Now()
	n, kill := 0, time.NewTimer(moment(0))
	defer kill.Stop()
	for {
		select {
		case <-over:
			return p
		case <-minute.C:
			memory, _ := proc(t, p.Process.Pid)
			t.Logf("after %s: %d MB resident", time.Since(began).Round(time.Second), memory>>20)
		case <-kill.C:
			if n == *loadKills {
				continue // the timer is not set again
			}
			memory, _ := proc(t, p.Process.Pid)
			p.kill(t)
			again := time.Now()
			p = launch()
			t.Logf("after %s: killed with %d MB resident; listens again after %s", time.Since(began).Round(time.Second), memory>>20, time.Since(again).Round(time.Millisecond))
			n++
			kill.Reset(time.Until(began.Add(moment(n))))
		}
	}
}

// settle waits until every request is over, and looks for each that was accepted.
func (l *burden) settle(path string, starts int) {
	t := l.t
	t.Helper()
	began := time.Now()
	s, err := sqlitestore.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for open := 1; open > 0; {
		open = 0
		for ref, err := range s.Due(t.Context(), time.Now().Add(24*time.Hour)) {
			if err != nil {
				t.Fatal(err)
			}
			if ref.Kind == store.KindRequest {
				open++
			}
		}
		if open > 0 && time.Since(began) > patience {
			t.Fatalf("%d requests are not over", open)
		}
		time.Sleep(min(time.Duration(open), 1) * 500 * time.Millisecond)
	}
	settled := time.Since(began)
	found, states := map[string]bool{}, map[string]int{}
	for i, err := range s.List(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		r := i.(*store.Request)
		found[r.ID] = true
		states[string(r.State)]++
		if r.State != store.Ready && (r.Error == nil || r.Error.Code == "") {
			t.Errorf("request %s is %s and does not say why", r.ID, r.State)
		}
	}
	for key := range starts {
		if id := l.ids[key]; id == "" || !found[id] {
			t.Errorf("start %d was answered with id %q, and there is no record of it", key, id)
		}
	}
	if len(found) != starts {
		t.Errorf("%d records of %d starts: none may have two", len(found), starts)
	}
	t.Logf("%d requests are over %s after the last start: %v", len(found), settled.Round(100*time.Millisecond), states)
}
