package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	token   = "canary-boot-token"
	session = "garo_s_canary-session"
	lockKey = "123/eu-west-2/42"
)

// configOf returns the config of a number.
func configOf(n int) string { return fmt.Sprintf("canary-config-%d", n) }

// world is one machine, and the API that it calls, in a bubble of time. Test and
// agent take turns: the test looks only while the agent waits.
type world struct {
	*testing.T
	api
	fakeMachine
	start   time.Time
	random  io.Reader
	now     func() time.Time                                                             // by the machine's clock; nil: time.Now
	install func(context.Context, apitype.RunnerProgram, apitype.Outfit) (string, error) // nil: nothing is needed
	word    func() (string, error)                                                       // of AWS; nil: there is none
	logs    bytes.Buffer
	turn    sync.Mutex // never held for long: it only orders what test and agent write
	stop    context.CancelCauseFunc
	ended   chan error
}

// bubble runs a test of one machine.
func bubble(t *testing.T, mode string, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, start: time.Now(), random: rand.NewChaCha8([32]byte{1})}
		w.api = api{w: w, mode: mode, order: "go", hard: 6 * time.Hour, n: 1, heartbeat: 20, idle: 600}
		w.fakeMachine = fakeMachine{w: w, notices: make(chan Notice, 4)}
		test(w)
		if w.stop != nil {
			w.stop(nil)
			<-w.ended
		}
		for _, hidden := range []string{token, session, "canary-config"} {
			if strings.Contains(w.logs.String(), hidden) {
				t.Errorf("the log has %s:\n%s", hidden, w.logs.String())
			}
		}
	})
}

// boot starts the agent's process, and returns when it waits.
func (w *world) boot() {
	w.Helper()
	ctx, cancel := context.WithCancelCause(w.Context())
	w.stop, w.ended = cancel, make(chan error, 1)
	var identity func(context.Context) (string, error)
	if w.word != nil {
		identity = func(context.Context) (string, error) {
			w.take()
			return w.word()
		}
	}
	a := New(Config{
		Identity: identity,
		Document: bootstrap.Document{
			API: "https://api.test/", Runner: "r1", KeyID: "k1", Token: secret.New(token), HardS: 21600,
			Agent: map[string]string{"amd64": strings.Repeat("ab", 32), "arm64": strings.Repeat("ab", 32)},
		},
		InstanceID: "i-1",
		Machine:    &w.fakeMachine,
		HTTP:       &http.Client{Transport: &w.api},
		Random:     w.random,
		Now:        w.now,
		Install:    w.install,
		Log:        slog.New(slog.NewTextHandler(&w.logs, nil)),
	})
	go func() { w.ended <- a.Run(ctx) }()
	synctest.Wait()
}

var errKilled = errors.New("killed")

// kill ends the agent's process and leaves the machine on.
func (w *world) kill() {
	w.Helper()
	w.stop(errKilled)
	if err := <-w.ended; !errors.Is(err, context.Canceled) {
		w.Errorf("Run = %v, want that the context was cancelled", err)
	}
	w.ended <- nil
}

// later lets time pass.
func (w *world) later(d time.Duration) {
	w.take()
	time.Sleep(d)
	synctest.Wait()
}

// take makes what the other side wrote visible to this one: the passing of time
// alone does not.
func (w *world) take() {
	w.turn.Lock()
	defer w.turn.Unlock()
}

// wantOff checks that the machine was powered off for a reason, and Run returned.
func (w *world) wantOff(reason string) {
	w.Helper()
	synctest.Wait()
	if !strings.Contains(w.off, reason) || w.off == "" {
		w.Fatalf("powered off %q, want %q\nheard: %s", w.off, reason, w.said())
	}
	if err := <-w.ended; err != nil {
		w.Errorf("Run = %v, want nil", err)
	}
	w.ended <- nil
}

func (w *world) wantOn() {
	w.Helper()
	if w.off != "" {
		w.Fatalf("powered off %q, want it on\nheard: %s", w.off, w.said())
	}
}

// wantSaid checks the events that the API took, heartbeats aside.
func (w *world) wantSaid(want ...string) {
	w.Helper()
	synctest.Wait()
	if got := w.said(); got != strings.Join(want, ", ") {
		w.Errorf("the API heard: %s\nwant: %s", got, strings.Join(want, ", "))
	}
}

// api is the API as one machine sees it.
type api struct {
	w         *world
	mode      string
	order     string        // what it answers
	hard      time.Duration // after the start of the test
	n         int           // the number of the newest config
	ready     time.Time     // when the next config can be answered
	heartbeat apitype.Seconds
	idle      apitype.Seconds

	environment map[string]string
	asks        bool // machines ask before a job
	admitted    apitype.Admitted
	outfit      apitype.Outfit
	options     string // which parts of it the agent says that it knows

	answers []int                      // statuses to answer the next calls with, before all else; 0: no answer
	lose    func(call string) bool     // whether an answer is to be lost, after its effect
	meddle  func(*http.Response) error // with an answer

	busy    bool
	before  bool     // it is of the version before: it knows no word of AWS
	words   []string // of AWS, of each boot call
	nonces  []string
	calls   []call
	events  []apitype.Event // as they were taken, heartbeats aside
	counter int64           // the highest that was taken
}

type call struct {
	at    time.Duration // since the start of the test
	path  string        // the last element
	event apitype.Event
	n     int
	job   apitype.Admission
}

// said lists the events that were taken.
func (f *api) said() string {
	var words []string
	for _, e := range f.events {
		words = append(words, strings.TrimSpace(e.Event+" "+e.RunID+e.Reason))
	}
	return strings.Join(words, ", ")
}

// of returns the calls of one kind: a path, or an event.
func (f *api) of(kind string) []call {
	var out []call
	for _, c := range f.calls {
		if c.path == kind || c.event.Event == kind {
			out = append(out, c)
		}
	}
	return out
}

// RoundTrip implements http.RoundTripper.
func (f *api) RoundTrip(req *http.Request) (*http.Response, error) {
	f.w.take()
	if f.busy {
		f.w.Error("two calls at a time")
	}
	f.busy = true
	defer func() { f.busy = false }()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	path, ok := strings.CutPrefix(req.URL.String(), "https://api.test/runners/r1/")
	if !ok || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" ||
		req.Header.Get("User-Agent") != "garo-agent/"+strings.Repeat("ab", 6) {
		f.w.Errorf("call %s %s with %v", req.Method, req.URL, req.Header)
	}
	c := call{at: time.Since(f.w.start), path: path}
	status, out := f.answer(&c, req, body)
	f.calls = append(f.calls, c)
	if status == 0 || f.lose != nil && f.lose(c.path) {
		return nil, errors.New("connection reset")
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	res := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(b)), Request: req}
	if status == http.StatusTooEarly {
		res.Header.Set("Retry-After", "2")
	}
	if f.meddle != nil {
		if err := f.meddle(res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// decode reads a body as strictly as the real API does.
func (f *api) decode(body []byte, v any) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		f.w.Errorf("body %s: %v", body, err)
	}
}

func (f *api) answer(c *call, req *http.Request, body []byte) (int, any) {
	var boot apitype.Boot
	var next apitype.Next
	switch c.path {
	case "boot":
		f.decode(body, &boot)
		f.words = append(f.words, boot.Identity)
		if f.before && bytes.Contains(body, []byte(`"identity"`)) {
			return http.StatusUnprocessableEntity, nil
		}
		if !bytes.Contains(f.w.disk, []byte(boot.Nonce)) {
			f.w.Error("the nonce was sent before it was saved")
		}
	case "events":
		f.decode(body, &c.event)
		var kept state
		if err := json.Unmarshal(f.w.disk, &kept); f.w.saveErr == nil && (err != nil || kept.Counter < c.event.Counter) {
			f.w.Errorf("counter %d was used before it was saved", c.event.Counter)
		}
	case "next":
		f.decode(body, &next)
		c.n = next.N
	case "admission":
		f.decode(body, &c.job)
	}
	if len(f.answers) > 0 {
		status := f.answers[0]
		f.answers = f.answers[1:]
		return status, nil
	}
	orders := apitype.Orders{Order: f.order, HardS: apitype.InSeconds(f.hard - time.Since(f.w.start))}
	known := req.Header.Get(apitype.OptionsHeader)
	if c.path == "boot" {
		f.options = known
		if boot.Token != token || len(boot.Nonce) < 26 || boot.InstanceID != "i-1" || req.Header.Get("Authorization") != "" {
			f.w.Errorf("boot with %+v", boot)
		}
		if !slices.Contains(f.nonces, boot.Nonce) {
			f.nonces = append(f.nonces, boot.Nonce)
		}
		return http.StatusOK, apitype.Booted{Session: session, Config: configOf(f.n), N: f.n, Mode: f.mode,
			HeartbeatS: f.heartbeat, IdleS: f.idle, Lock: lockKey, Environment: f.environment, Outfit: f.outfit, Asks: f.asks, Orders: orders}
	}
	if req.Header.Get("Authorization") != "Bearer "+session || req.Header.Get(apitype.LockHeader) != lockKey || known != "" {
		f.w.Errorf("call %s with %v", c.path, req.Header)
	}
	if c.path == "admission" {
		return http.StatusOK, f.admitted
	}
	if c.path == "next" {
		switch {
		case f.order != "go":
			return http.StatusOK, apitype.NextConfig{Orders: orders}
		case time.Now().Before(f.ready):
			return http.StatusTooEarly, nil
		}
		f.n = max(f.n, c.n)
		return http.StatusOK, apitype.NextConfig{Config: configOf(f.n), N: f.n, Orders: orders}
	}
	if c.event.Counter > f.counter {
		f.counter = c.event.Counter
		if c.event.Event != "heartbeat" {
			f.events = append(f.events, c.event)
		}
		if c.event.Event == store.EventDraining && !slices.Contains(store.SaidReasons, c.event.Reason) {
			f.w.Errorf("the reason %q would be recorded as %s: store.SaidReasons lacks it", c.event.Reason, store.EndAgent)
		}
	} else if i := slices.IndexFunc(f.events, func(e apitype.Event) bool { return e.Counter == c.event.Counter }); i < 0 || f.events[i] != c.event {
		f.w.Errorf("counter %d was used before, and not for %+v", c.event.Counter, c.event)
	}
	return http.StatusOK, orders
}

// fakeMachine is a machine that only notes what is asked of it.
type fakeMachine struct {
	w       *world
	disk    []byte
	saves   int
	timers  []time.Time
	off     string // why it was powered off
	notices chan Notice
	configs []string
	program *fakeProgram // the newest
	printed string       // what programs print
	cleans  int

	env  map[string]string // of the last start
	hold bool              // its jobs were to ask

	loadErr, saveErr, startErr, cleanErr, timerErr error
}

func (m *fakeMachine) Load() ([]byte, error) { return m.disk, m.loadErr }

func (m *fakeMachine) Save(b []byte) error {
	m.w.take()
	m.saves++
	if m.saveErr == nil {
		m.disk = bytes.Clone(b)
	}
	return m.saveErr
}

func (m *fakeMachine) SetTimer(at time.Time) error {
	m.timers = append(m.timers, at)
	return m.timerErr
}

func (m *fakeMachine) PowerOff(reason string) {
	m.w.take()
	m.off = reason
}

func (m *fakeMachine) Notices() <-chan Notice { return m.notices }

func (m *fakeMachine) Start(_ context.Context, config secret.Text, env map[string]string, asks bool) (Program, error) {
	if m.program != nil && !m.program.gone {
		m.w.Error("a second runner program was started")
	}
	m.configs = append(m.configs, config.Reveal())
	m.env, m.hold = env, asks
	if m.startErr != nil {
		return nil, m.startErr
	}
	m.program = &fakeProgram{events: make(chan ProgramEvent, 8), take: m.w.take}
	if m.printed != "" {
		return printing{m.program, m.printed}, nil
	}
	return m.program, nil
}

func (m *fakeMachine) Running() Program {
	if m.program == nil || m.program.gone {
		return nil
	}
	m.program.events = make(chan ProgramEvent, len(m.program.told)+8)
	for _, e := range m.program.told { // all of it again, as package host does
		m.program.events <- e
	}
	return m.program
}

func (m *fakeMachine) Clean() error {
	m.w.take()
	if m.w.lose == nil && len(m.w.events) > 0 && m.program != nil && m.w.events[len(m.w.events)-1].Event == "job_started" {
		m.w.Error("cleaned before the end of the job was reported")
	}
	m.cleans++
	if m.program != nil {
		m.program.gone = true
	}
	return m.cleanErr
}

// fakeProgram is a runner program that does what the test says.
type fakeProgram struct {
	events chan ProgramEvent
	told   []ProgramEvent
	code   int
	gone   bool
	answer []string // what its job heard
	take   func()
}

func (p *fakeProgram) Admit(allowed bool, why string) error {
	p.take()
	p.answer = append(p.answer, strings.TrimSpace(fmt.Sprintf("%t %s", allowed, why)))
	return nil
}

func (p *fakeProgram) Events() <-chan ProgramEvent { return p.events }
func (p *fakeProgram) ExitCode() int               { return p.code }

// connect has the program print that it listens, and listen for as long as it takes to
// be reported.
func (w *world) connect() {
	w.happen(ProgramEvent{Kind: Connected})
	w.later(firstPoll)
}

func (w *world) happen(events ...ProgramEvent) {
	for _, e := range events {
		w.program.told = append(w.program.told, e)
		w.program.events <- e
	}
	synctest.Wait()
}

func (w *world) exit(code int) {
	w.program.code, w.program.gone = code, true
	close(w.program.events)
	synctest.Wait()
}

// job runs a whole job, and the end of the program after it.
func (w *world) job(run string, d time.Duration) {
	w.happen(ProgramEvent{Kind: JobStarted, RunID: run})
	w.later(d)
	w.happen(ProgramEvent{Kind: JobDone})
	w.exit(0)
}
