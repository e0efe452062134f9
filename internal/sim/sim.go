// Package sim runs the whole of GARO in virtual time: the real API, worker,
// reaper and agent over an in-memory store and queue, a simulated EC2 and a
// simulated GitHub.
//
// Every call that a part makes of what is around it is an Effect. A test decides
// its Fate: it fails with or without having happened, or its invocation dies there.
// Workers are run as Lambda runs them, the reaper each minute. One seed has one
// course of events: all randomness comes from it, and every call takes a time of
// its own, so that no two things happen at once.
//
// A World watches what must hold at every commit, and Check what must hold of the
// whole: no request ever has two usable machines, nothing is left over, nothing
// that was accepted is forgotten, and no secret is readable anywhere.
package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/queuetest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// What there is one of in every world.
const (
	ControlPlane = "sim"
	AccountID    = "111122223333"
	Region       = "eu-west-2"
	Repository   = "acme/shop"
	repositoryID = "7"
	url          = "https://garo.sim"
)

// Here is where machines are launched.
var Here = fleet.Place{Account: AccountID, Region: Region}

// Config is what may differ between worlds. The zero value is a world in which
// everything works.
type Config struct {
	Seed uint64
	// Fate decides what becomes of each effect; nil: all pass. It is called
	// without any lock, on the goroutine of the caller, whom it may keep waiting.
	// SetFate changes it.
	Fate func(Effect) Fate
	// Span says how long a FailLate, a Pause or a Hold takes; nil: a minute.
	Span func(Effect) time.Duration
	// Most is the number of effects at which a world counts as one that does not
	// come to rest; 0: there is none.
	Most int
	// Account changes the registration.
	Account func(*store.Account)
	// Skew is by how much the clock of a part, which is API, Worker or Reaper, is
	// ahead.
	Skew map[string]time.Duration
	// KillLate is how long after its deadline an invocation is killed; 0: 0.7 s.
	KillLate time.Duration
	// IndexLag is by how much the due index is behind the items. SetIndexLag
	// changes it.
	IndexLag time.Duration
	// Rounds says when the reaper runs in the n-th minute, counted from its
	// begin; nil: once, at once.
	Rounds func(n int) []time.Duration
	// Deliver changes what a worker is given of what the queue delivered; nil: it
	// is given all.
	Deliver func(w *World, ds []queue.Delivery) []queue.Delivery
	// Warm has the reaper run in the environment that an earlier run left, if
	// there is one.
	Warm bool
	// EC2 is asked before each operation of EC2 has any effect; nil: nothing fails.
	EC2 func(op string, l fleet.Launch) error
	// NeverBoots says which machines run and do nothing, by the number of their
	// launch; nil: all boot.
	NeverBoots func(n int) bool
	// World changes EC2's side further: which machines die, which images there are.
	World func(*simfleet.WorldConfig)
	// GitHub is asked before each call of GitHub's API is looked at; nil: nothing
	// goes wrong.
	GitHub func(op string) githubtest.Fault
	// Ghosts are runner programs that do not notice when GitHub forgets them.
	Ghosts bool
	// Limits changes the numbers of production.
	Limits func(*store.Limits)
	// gate, unless it is nil, holds effects until Explore lets them go.
	gate *gate
	// Found is told of what does not hold, in place of the test, which then does
	// not fail.
	Found func(what string)
}

// World is one world. Make it with Run.
type World struct {
	*testing.T
	Limits store.Limits
	Keys   *keys.Ring
	// Account is the registration. It may be changed while nothing else runs.
	Account store.Account

	// What is really there: these calls are no effects.
	Queue  *queuetest.Memory
	Fleet  *simfleet.Fleet
	GitHub *githubtest.Server
	// Client calls the API, as an operator.
	Client *client.Client

	cfg      Config
	store    atomic.Pointer[storetest.Memory]
	api      atomic.Pointer[http.Handler]
	reaper   reaper.Config
	github   *github.Client
	decide   atomic.Pointer[func(Effect) Fate]
	retagged sync.Map     // the runners that machines were launched for whose tags were edited, by machine
	images   atomic.Int64 // how many images were built: requests get the newest
	index    atomic.Int64 // by how much the due index is behind
	wg       sync.WaitGroup
	// working and reaping have a token each, without which no messages are handed
	// out and no runs begin.
	working, reaping chan struct{}

	mu       sync.Mutex // guards what follows; held while nothing waits
	effects  int
	ofPart   map[string]int
	ofName   map[uint64]int
	calls    map[uint64]int // for latency
	invoked  map[string]int
	trace    []*Effect
	watch    watch
	wipedAt  time.Time // when the table was emptied: there are machines that the watch knows nothing of
	forgot   bool      // a record was deleted that named a registration
	released time.Time // when the operator first released the brake of a world that lost records
	deployed deployment
	reapers  []*reaping // environments that no run is in
	log      bytes.Buffer
	alarms   []store.Alarm
	texts    []text
}

// Secrets that no record may show. Those that are derived are added by Check.
const (
	operatorToken = keys.OperatorPrefix + "canaryoperatorcanaryoperator"
	pat           = "ghp_canarypatcanarypatcanarypatcanary0"
	externalID    = "canaryexternalidcanaryexternalid"
	idKey         = "canaryidkeycanaryidkeycanaryidkey"
	firstKey      = "canaryfirstkeycanaryfirstkeycanary"
	secondKey     = "canarysecondkeycanarysecondkeycanary"
)

// Run tells a story in a new world, in a bubble of fake time, and then ends the
// world. What was found to be wrong in it fails the test.
func Run(t *testing.T, cfg Config, story func(w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		w.wg.Go(func() { w.source(ctx) })
		w.wg.Go(func() { w.rounds(ctx) })
		defer func() {
			cancel()
			w.Fleet.Close()
			w.wg.Wait()
			if t.Failed() {
				w.tell()
			}
		}()
		defer func() {
			switch p := recover(); {
			case p == nil || p == over:
			case cfg.Found != nil:
				cfg.Found(fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
			default:
				panic(p)
			}
		}()
		story(w)
	})
}

// over ends the story of a world whose Config has Found.
var over any = "the story is over"

// Errorf says that something does not hold.
func (w *World) Errorf(format string, args ...any) {
	if w.cfg.Found == nil {
		w.T.Helper()
		w.T.Errorf(format, args...)
		return
	}
	w.cfg.Found(fmt.Sprintf(format, args...))
}

// Error is Errorf of one thing.
func (w *World) Error(what any) {
	w.T.Helper()
	w.Errorf("%v", what)
}

// Fatalf says that something does not hold, and ends the story. Only the story
// itself may call it.
func (w *World) Fatalf(format string, args ...any) {
	w.T.Helper()
	if w.cfg.Found == nil {
		w.T.Fatalf(format, args...)
	}
	w.Errorf(format, args...)
	panic(over)
}

// Fatal is Fatalf of one thing.
func (w *World) Fatal(what any) {
	w.T.Helper()
	w.Fatalf("%v", what)
}

func newWorld(t *testing.T, cfg Config) *World {
	if cfg.KillLate == 0 {
		cfg.KillLate = killLate
	}
	w := &World{
		T: t, cfg: cfg, Limits: store.DefaultLimits(), Account: account(),
		Queue:   queuetest.NewMemory(visibility),
		working: make(chan struct{}, 1), reaping: make(chan struct{}, 1),
		ofPart: map[string]int{}, ofName: map[uint64]int{}, calls: map[uint64]int{}, invoked: map[string]int{}, watch: newWatch(),
	}
	if cfg.Account != nil {
		cfg.Account(&w.Account)
	}
	if cfg.Limits != nil {
		cfg.Limits(&w.Limits)
	}
	w.store.Store(storetest.NewMemory())
	w.SetFate(cfg.Fate)
	w.Resume(Worker)
	w.Resume(Reaper)
	w.Keys = w.ring("k1")
	w.index.Store(int64(cfg.IndexLag))
	w.outside()
	w.assemble()
	return w
}

// account is the registration that a world begins with.
func account() store.Account {
	return store.Account{
		ID:           AccountID,
		ExternalID:   secret.New(externalID),
		Repositories: []store.Named{{ID: repositoryID, Name: Repository}},
		Owners:       []store.Named{{ID: "1", Name: "acme"}},
		Regions: map[string]store.Region{Region: {
			Subnets: []string{"subnet-a", "subnet-b"}, SecurityGroups: []string{"sg-1"}, Images: []string{"/garo/image"},
		}},
		InstanceTypes: []string{"t3a.micro", "m7a.large"}, DefaultInstanceTypes: []string{"t3a.micro", "m7a.large"},
		Markets: []string{store.Spot, store.OnDemand}, SpotFallback: true, Modes: []string{store.Shared, store.Ephemeral},
		MaxRunners: 1000,
	}
}

// accounts is a store.Accounts of the one account.
type accounts struct{ *World }

func (a accounts) Account(ctx context.Context, id string) (store.Account, error) {
	e := &Effect{Op: Get, What: "account", On: id, To: ToSSM}
	return do(ctx, a.World, e, func(context.Context) (store.Account, error) {
		if id != AccountID {
			return store.Account{}, store.ErrNoAccount
		}
		return a.World.Account, nil
	})
}

func (a accounts) List(context.Context) ([]string, error) { return []string{AccountID}, nil }

const (
	// pending, stopping and bootTime are about what EC2 takes for a small Linux machine.
	pending, stopping, bootTime = 5 * time.Second, 15 * time.Second, 20 * time.Second
)

// outside makes what is around GARO.
func (w *World) outside() {
	var err error
	w.GitHub, err = githubtest.New(githubtest.Config{
		Repositories: []github.Repository{{ID: repositoryID, Name: Repository}},
		Rules:        githubtest.Rules{Token: secret.New(pat)},
		Fault: func(op string, _ *http.Request) (f githubtest.Fault) {
			if w.cfg.GitHub != nil {
				f = w.cfg.GitHub(op)
			}
			return f
		},
		Errorf: w.Errorf, Random: w.random("github"),
	})
	w.must(err)
	w.github, err = github.New(github.Config{
		BaseURL: "http://localhost", HTTP: memhttp.Client(w.GitHub.Handler()),
		Token: func(context.Context, github.Repository) (secret.Text, error) { return secret.New(pat), nil },
	})
	w.must(err)
	ec2 := simfleet.WorldConfig{
		Pending: pending, Stopping: stopping, Launches: simfleet.EC2Rate, PageSize: 100, NeverBoots: w.cfg.NeverBoots,
		Fault: func(op string, _ fleet.Place, l fleet.Launch) error {
			if w.cfg.EC2 == nil {
				return nil
			}
			return w.cfg.EC2(op, l)
		},
		Random: w.random("ec2"),
		Image: func(fleet.Place, string) (string, error) {
			return fmt.Sprintf("ami-%017d", w.images.Load()), nil
		},
	}
	if w.cfg.World != nil {
		w.cfg.World(&ec2)
	}
	w.Fleet, err = simfleet.Open(simfleet.Config{
		World: ec2,
		HTTP:  &http.Client{Transport: door{w, Machine}}, Broker: broker{w}, BootTime: bootTime,
		Log: w.logger(Machine, func() bool { return false }),
	})
	w.must(err)
}

// SetFate changes what decides the fate of effects from now on; nil: all pass.
func (w *World) SetFate(decide func(Effect) Fate) {
	if decide == nil {
		w.decide.Store(nil)
		return
	}
	w.decide.Store(&decide)
}

// SetIndexLag changes by how much the due index is behind the items.
func (w *World) SetIndexLag(lag time.Duration) { w.index.Store(int64(lag)) }

// Store returns what is really recorded: its calls are no effects.
func (w *World) Store() *storetest.Memory { return w.store.Load() }

// Wipe empties the table, as a wrong deploy would.
func (w *World) Wipe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store.Store(storetest.NewMemory())
	w.watch = newWatch()
	w.wipedAt = time.Now()
}

// lost reports whether the table was emptied, and whether anything that is left at
// EC2 or GitHub may have no record any more.
func (w *World) lost() (all, some bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wiped(), w.wiped() || w.forgot
}

// wiped reports whether the table was emptied. The caller holds the mutex.
func (w *World) wiped() bool { return !w.wipedAt.IsZero() }

// outdated reports whether an invocation may have read what was lost since, when the
// table was emptied. The caller holds the mutex.
func (w *World) outdated(inv *invocation) bool { return !inv.began.After(w.wipedAt) }

// Pause lets no worker at the queue, or the reaper make no further run, until
// Resume. What is under way goes on.
func (w *World) Pause(part string) { <-w.token(part) }

// Resume ends a Pause.
func (w *World) Resume(part string) { w.token(part) <- struct{}{} }

func (w *World) token(part string) chan struct{} {
	if part == Worker {
		return w.working
	}
	return w.reaping
}

// clock returns the clock of a part.
func (w *World) clock(part string) func() time.Time {
	return func() time.Time { return time.Now().Add(w.cfg.Skew[part]) }
}

// random returns a source of randomness that depends on the seed and the name.
func (w *World) random(name string) io.Reader {
	return &source{r: rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %s", w.cfg.Seed, name)))}
}

// source is a random source that is safe for concurrent use.
type source struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

// Read implements io.Reader; it never fails.
func (s *source) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(b)
}

func (w *World) must(err error) {
	if err != nil {
		w.Helper()
		w.Fatal(err)
	}
}

// logger returns the logger of a part. What the dead log is lost.
func (w *World) logger(by string, dead func() bool) *slog.Logger {
	text := slog.NewTextHandler(logWriter{w}, &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(logHandler{text, w, dead}).With("by", by)
}

// logHandler keeps the log, and counts the alarms in it.
type logHandler struct {
	slog.Handler
	world *World
	dead  func() bool
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h logHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.dead() || invocationOf(ctx).isDead() {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "alarm" {
			h.world.mu.Lock()
			h.world.alarms = append(h.world.alarms, store.Alarm(a.Value.String()))
			h.world.mu.Unlock()
		}
		return true
	})
	return h.Handler.Handle(ctx, r)
}

type logWriter struct{ *World }

func (l logWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}
