package simfleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/diskmap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// control is the control plane as machines see it: it gives each runner a config
// "config <runner>" and notes what happens.
type control struct {
	mode string        // store.Shared or store.Ephemeral
	hard time.Duration // from the boot

	mu     sync.Mutex
	away   bool
	onBoot func(instance string) // before the boot is answered
	nonces map[string]string     // by runner
	hards  map[string]time.Time  // by runner
	events map[string][]string   // by runner, without heartbeats
	beats  map[string]int        // heartbeats by runner
	calls  int
}

func newControl() *control {
	return &control{
		mode: store.Ephemeral, hard: time.Hour,
		nonces: map[string]string{}, hards: map[string]time.Time{}, events: map[string][]string{}, beats: map[string]int{},
	}
}

// client returns machines' way to c: an outage is no answer at all.
func (c *control) client() *http.Client {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /runners/{id}/boot", c.boot)
	mux.HandleFunc("POST /runners/{id}/events", c.event)
	mux.HandleFunc("POST /runners/{id}/next", c.next)
	through := memhttp.Transport{Handler: mux}
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		c.mu.Lock()
		away := c.away
		c.calls++
		c.mu.Unlock()
		if away {
			return nil, errors.New("no route to host")
		}
		return through.RoundTrip(r)
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (c *control) boot(w http.ResponseWriter, r *http.Request) {
	var in apitype.Boot
	id := r.PathValue("id")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Token != "T-"+id {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	c.mu.Lock()
	if c.nonces[id] == "" {
		c.nonces[id] = in.Nonce
		c.hards[id] = time.Now().Add(c.hard)
	}
	same := c.nonces[id] == in.Nonce
	onBoot := c.onBoot
	orders := c.orders(id)
	c.mu.Unlock()
	if !same {
		c.note(id, "second nonce")
		http.Error(w, "", http.StatusConflict)
		return
	}
	if onBoot != nil {
		onBoot(in.InstanceID)
	}
	c.note(id, "boot")
	answer(w, apitype.Booted{Session: "garo_s_" + id, Config: "config " + id, N: 1, Mode: c.mode, HeartbeatS: 20, IdleS: 600, Orders: orders})
}

func (c *control) event(w http.ResponseWriter, r *http.Request) {
	var in apitype.Event
	id := r.PathValue("id")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("Authorization") != "Bearer garo_s_"+id {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	c.mu.Lock()
	orders := c.orders(id)
	if in.Event == store.EventHeartbeat {
		c.beats[id]++
	}
	c.mu.Unlock()
	if in.Event != store.EventHeartbeat {
		c.note(id, strings.TrimSpace(fmt.Sprint(in.Event, " ", in.Reason, in.RunID)))
	}
	answer(w, orders)
}

func (c *control) next(w http.ResponseWriter, r *http.Request) {
	var in apitype.Next
	id := r.PathValue("id")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("Authorization") != "Bearer garo_s_"+id {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	c.mu.Lock()
	orders := c.orders(id)
	c.mu.Unlock()
	c.note(id, fmt.Sprint("next ", in.N))
	answer(w, apitype.NextConfig{Config: "config " + id, N: in.N, Orders: orders})
}

// orders needs the mutex.
func (c *control) orders(id string) apitype.Orders {
	left := time.Until(c.hards[id])
	return apitype.Orders{Order: "go", Exp: time.Now().Add(left), HardS: apitype.InSeconds(left)}
}

func (c *control) note(id, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events[id] = append(c.events[id], what)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that went away misses it
}

// heard returns what a runner said, and how often its heart beat.
func (c *control) heard(runner string) ([]string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events[runner]), c.beats[runner]
}

func (c *control) callCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

func (c *control) setAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// broker is a GitHub where every config is valid. jobs has the ones that wait.
type broker struct {
	jobs chan simfleet.Job

	mu     sync.Mutex
	online map[string]int // open sessions by config
	done   []string
}

func newBroker() *broker {
	return &broker{jobs: make(chan simfleet.Job, 10), online: map[string]int{}}
}

func (b *broker) Connect(_ context.Context, config string) (simfleet.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.online[config]++
	return &session{b, config}, nil
}

func (b *broker) sessions(config string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.online[config]
}

type session struct {
	b      *broker
	config string
}

func (s *session) Watch(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *session) Wait(ctx context.Context) (simfleet.Job, error) {
	select {
	case <-ctx.Done():
		return simfleet.Job{}, ctx.Err()
	case j := <-s.b.jobs:
		return j, nil
	}
}

func (s *session) Done(_ context.Context, j simfleet.Job) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.done = append(s.b.done, j.ID)
	return nil
}

func (s *session) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.online[s.config]--
}

// bootable is launchOf for the machine of a runner, with user data that boots.
func bootable(t *testing.T, runner string, hardS int) fleet.Launch {
	t.Helper()
	l := launchOf(runner)
	l.Tags[fleet.TagRunner] = runner
	data, err := bootstrap.Render(bootstrap.Current, bootstrap.Document{
		API: "https://garo.example", Runner: runner, KeyID: "k1", Token: secret.New("T-" + runner), HardS: hardS,
		Agent: map[string]string{"arm64": strings.Repeat("0", 64)},
	})
	if err != nil {
		t.Fatalf("render user data: %v", err)
	}
	l.UserData = data
	return l
}

// openDisk returns a Disk that is closed at the end of the test.
func openDisk(t *testing.T) *diskmap.Map {
	t.Helper()
	disk, err := diskmap.Open(filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatalf("open the disk: %v", err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Errorf("close the disk: %v", err)
		}
	})
	return disk
}

func openFleet(t *testing.T, cfg simfleet.Config) *simfleet.Fleet {
	t.Helper()
	f, err := simfleet.Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return f
}

func factOf(t *testing.T, f *simfleet.Fleet, id string) simfleet.Fact {
	t.Helper()
	i, ok := f.Instance(id)
	if !ok {
		t.Fatalf("instance %s is not known", id)
	}
	return i
}
