package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var (
	killSeed = flag.Uint64("killseed", 1, "seed of the moments at which the system is killed, and of the load")
	kills    = flag.Int("kills", 50, "how often it is killed")
)

// build returns the path of the real program.
func build(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "garo")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path,
		"github.com/alphagov/github-actions-runner-orchestration/cmd/garo").CombinedOutput()
	if err != nil {
		t.Fatalf("build garo: %v\n%s", err, out)
	}
	return path
}

// process is a garo local.
type process struct {
	*exec.Cmd
	url, token string
}

// launch starts garo local on a data directory, with its log at the end of the
// file beside that, and returns when it listens. It does not outlive the test.
func launch(t testing.TB, garo, dir string, args ...string) *process {
	t.Helper()
	urlFile := filepath.Join(dir, local.URLFile)
	if err := os.Remove(urlFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{Cmd: exec.CommandContext(ctx, garo, append([]string{"local", "--addr", "127.0.0.1:0", "--dir", dir}, args...)...)}
	p.Stderr = log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.Wait() // it has ended, on its own or now
	})
	until(t, "garo local to listen", func() bool {
		url, err := os.ReadFile(urlFile)
		p.url = strings.TrimSpace(string(url))
		return err == nil
	})
	token, err := os.ReadFile(filepath.Join(dir, local.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	p.token = strings.TrimSpace(string(token))
	return p
}

// kill ends the process as kill -9 does.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if err := p.Process.Kill(); err != nil {
		t.Fatalf("the system ended before it was killed: %v", err)
	}
	_ = p.Wait() // by that signal
}

// load is what clients do while the system comes and goes. They repeat nothing
// by themselves: what got no answer is lost for them.
type load struct {
	http *http.Client

	mu       sync.Mutex
	at       *process
	bodies   []apitype.Start
	accepted map[string]bool   // ids that were answered with 202 or 200
	stopped  map[string]string // by id, the state that a stop answered
	answers  map[string]int
}

// call makes one call to the process that runs now, and returns its status; 0:
// there was no answer.
func (l *load) call(ctx context.Context, method, path string, in, out any) int {
	l.mu.Lock()
	at := l.at
	l.mu.Unlock()
	body, err := json.Marshal(in)
	if err != nil {
		panic(err) // what tests send always marshals
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, at.url+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+at.token)
	if method == http.MethodPost && in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if in == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 == 2 && json.Unmarshal(answer, out) != nil {
		return 0
	}
	return resp.StatusCode
}

func (l *load) start(ctx context.Context, body apitype.Start) {
	var started apitype.Started
	status := l.call(ctx, http.MethodPost, "/start", body, &started)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[fmt.Sprintf("start %d", status)]++
	if status/100 == 2 {
		l.accepted[started.ID] = true
	}
}

// some returns any of the ids that were accepted.
func (l *load) some(r *rand.Rand) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := r.IntN(len(l.accepted) + 1)
	for id := range l.accepted {
		if n--; n < 0 {
			return id
		}
	}
	return ""
}

// client starts shared and ephemeral requests, repeats some, looks at some, and
// stops a few, until ctx ends.
func (l *load) client(ctx context.Context, name int, r *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		body := apitype.Start{Repo: repository, Mode: store.Shared, Labels: []string{fmt.Sprintf("key-%d", r.IntN(6))}, IdempotencyKey: fmt.Sprintf("%d-%d", name, n)}
		if r.IntN(3) == 0 {
			body.Mode, body.Labels = store.Ephemeral, nil
		}
		switch id := l.some(r); r.IntN(10) {
		case 0, 1, 2, 3, 4:
			l.mu.Lock()
			l.bodies = append(l.bodies, body)
			l.mu.Unlock()
			l.start(ctx, body)
		case 5:
			l.mu.Lock()
			if len(l.bodies) > 0 {
				body = l.bodies[r.IntN(len(l.bodies))]
			}
			l.mu.Unlock()
			l.start(ctx, body)
		case 6:
			var stopped apitype.Stopped
			if id != "" && l.call(ctx, http.MethodPost, "/stop/"+id, nil, &stopped) == http.StatusAccepted {
				l.mu.Lock()
				l.stopped[id] = stopped.State
				l.mu.Unlock()
			}
		default:
			if id != "" {
				l.call(ctx, http.MethodGet, "/status/"+id, nil, new(apitype.Status))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(r.IntN(100)) * time.Millisecond):
		}
	}
}

func newLoad() *load {
	return &load{
		http:     &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		accepted: map[string]bool{}, stopped: map[string]string{}, answers: map[string]int{},
	}
}

// settled waits until every request and every runner is over, and ends the process.
func (l *load) settled(t *testing.T, dir string) {
	t.Helper()
	began := time.Now()
	for end := began.Add(patience); ; time.Sleep(time.Second) { // reading takes time from the system that is to end
		open := read(t, filepath.Join(dir, local.StoreFile)).open()
		if len(open) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d items are not over, such as %s", len(open), open[0])
			break
		}
		l.call(t.Context(), http.MethodPost, "/local/reap", nil, new(any)) // its own rounds may be far apart
	}
	l.at.kill(t)
	t.Logf("answers %v; %d accepted, %d stopped; over after %.0f s", l.answers, len(l.accepted), len(l.stopped), time.Since(began).Seconds())
}

// TestKilledAtAnyMomentLosesNothing kills the real program at random moments
// under load, and looks at what is in its files in the end.
func TestKilledAtAnyMomentLosesNothing(t *testing.T) {
	t.Parallel()
	garo, dir := build(t), filepath.Join(t.ArtifactDir(), "data") // go test -artifacts keeps it
	args := []string{"--speed", "60", "--boot-time", "200ms", "--jobs", "300ms", "--no-capacity", "spot/t3a.micro/*,spot/t3a.small/subnet-a"}
	r := rand.New(rand.NewPCG(*killSeed, 0))
	l := newLoad()
	l.at = launch(t, garo, dir, args...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for n := range 3 {
		own := rand.New(rand.NewPCG(*killSeed, uint64(n)+1))
		clients.Go(func() { l.client(ctx, n, own) })
	}
	for range *kills {
		longest := 900 // ms: what was begun comes to its end in between; else, it hardly gets anywhere
		if r.IntN(2) == 0 {
			longest = 100
		}
		time.Sleep(time.Duration(r.IntN(longest)) * time.Millisecond)
		l.at.kill(t)
		next := launch(t, garo, dir, args...)
		l.mu.Lock()
		l.at = next
		l.mu.Unlock()
	}
	cancel()
	clients.Wait()
	t.Logf("seed %d: %d kills", *killSeed, *kills)
	l.settled(t, dir) // from here on it is left alone, and what was begun comes to its end
	all := examine(t, dir, l)
	ready := 0
	for _, q := range all.requests {
		if q.State == store.Ready {
			ready++
		}
	}
	if ready < len(all.requests)/2 {
		t.Errorf("%d of %d requests were ready, want at least half: the test has not tested much", ready, len(all.requests))
	}
}

// TestKilledLaunchesAreResumed kills the real program in bursts of launches. The
// limits leave time for what the dead workers had claimed to become free, so that
// every launch is taken up where it was left: with the same machine. It repeats that until a
// kill has met a launch.
func TestKilledLaunchesAreResumed(t *testing.T) {
	t.Parallel()
	const burst = 30
	garo, dir := build(t), filepath.Join(t.ArtifactDir(), "data")
	args := []string{"--speed", "8", "--boot-time", "200ms", "--jobs", "300ms"}
	r := rand.New(rand.NewPCG(*killSeed, 0))
	l := newLoad()
	cut := 0 // launches that a kill left without a machine in their record
	for n := 0; n < 8 || cut == 0 && n < 40; n++ {
		l.at = launch(t, garo, dir, args...)
		var clients sync.WaitGroup
		for i := range burst {
			clients.Go(func() {
				l.start(t.Context(), apitype.Start{Repo: repository, Mode: store.Ephemeral, IdempotencyKey: fmt.Sprintf("%d-%d", n, i)})
			})
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		l.at.kill(t)
		clients.Wait()
		for _, run := range read(t, filepath.Join(dir, local.StoreFile)).runners {
			if run.State == store.RunnerNew && run.InstanceID == "" {
				cut++
			}
		}
	}
	l.at = launch(t, garo, dir, args...)
	l.settled(t, dir)
	all := examine(t, dir, l)
	for _, q := range all.requests {
		if q.State != store.Ready {
			t.Errorf("request %s is %s (%+v), want ready: %+v", q.ID, q.State, q.Error, q.History)
		}
	}
	resumed := 0
	for _, run := range all.runners {
		for _, e := range run.History {
			if e.State == string(store.RunnerNew) && strings.HasPrefix(e.Reason, "claimed by ") {
				resumed++
				break
			}
		}
	}
	t.Logf("%d kills met launches, and %d of %d runners were resumed before their machine was recorded", cut, resumed, len(all.runners))
	if resumed == 0 {
		t.Error("no launch was resumed: the test has not tested anything")
	}
}
