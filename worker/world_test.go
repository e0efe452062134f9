package worker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

const (
	account = "111122223333"
	region  = "eu-west-2"
)

// world is a worker over stateful fakes, under fake time.
type world struct {
	*testing.T
	store    *counted
	sent     []sent // what the worker put into the queue
	fleet    *fakeFleet
	github   *fakeGitHub
	accounts fakeAccounts
	keys     *keys.Ring
	limits   store.Limits
	log      bytes.Buffer
	config   worker.Config
	n        int

	mu sync.Mutex // guards sent
}

type sent struct {
	queue.Message
	delay time.Duration
}

// inWorld runs f in a bubble of fake time.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newWorld(t)) })
}

func newWorld(t *testing.T) *world {
	t.Helper()
	long := secret.New(strings.Repeat("k", keys.MinLen))
	ring, err := keys.NewRing(long, "k1", map[string]secret.Text{"k1": long})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, store: &counted{Store: storetest.NewMemory()}, keys: ring, limits: store.DefaultLimits()}
	w.fleet = &fakeFleet{world: w, byToken: map[string]*machine{}}
	w.github = &fakeGitHub{world: w, names: map[string]int64{}, shown: map[int64]bool{}, forgotten: map[int64]bool{}}
	w.accounts = fakeAccounts{account: {
		ID:           account,
		Repositories: []store.Named{{ID: "7", Name: "acme/shop"}},
		Regions: map[string]store.Region{region: {
			Subnets: []string{"subnet-a"}, SecurityGroups: []string{"sg-1"}, Images: []string{"ami-1"},
		}},
		InstanceTypes: []string{"t3a.micro", "m7a.large"}, DefaultInstanceTypes: []string{"t3a.micro", "m7a.large"},
		Markets: []string{store.Spot, store.OnDemand}, Modes: []string{store.Shared, store.Ephemeral}, MaxRunners: 1000,
	}}
	w.config = worker.Config{
		Store: w.store, Queue: w, Accounts: w.accounts, Fleet: w.fleet, GitHub: w.github, Workflows: &w.github.workflows, Keys: ring, Limits: w.limits, Identity: identity.AWS(),
		ControlPlane: "test", APIURL: "https://garo.test", Agents: map[string]string{"amd64": strings.Repeat("a", 64), "arm64": strings.Repeat("b", 64)},
		Random: rand.Reader,
		Log:    slog.New(slog.NewTextHandler(io.MultiWriter(&w.log, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	return w
}

// Send implements queue.Sender.
func (w *world) Send(_ context.Context, m queue.Message, delay time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, sent{m, delay})
	return nil
}

// request records an accepted request, as the API does.
func (w *world) request(edit ...func(*store.Request)) store.Request {
	w.Helper()
	w.n++
	id := w.keys.RequestID("7", "run", "1", "", fmt.Sprint(w.n))
	r := store.Request{
		ID: id, Caller: "test", Repository: store.Repository{ID: "7", Name: "acme/shop", OwnerID: "1", Owner: "acme"}, Trace: "trace-" + fmt.Sprint(w.n),
		Account: account, Region: region, Type: store.Spot, Mode: store.Ephemeral, TimeoutS: 3600,
	}
	for _, f := range edit {
		f(&r)
	}
	d := store.Case{Request: r}.Accept(time.Now(), store.Identity{ID: id, Trace: r.Trace, GiveUp: w.limits.GiveUp, OwnLabel: w.keys.OwnLabel})
	w.apply(d)
	return d.Request
}

// inOrganization makes it a request of an account whose runners register in a group.
func inOrganization(r *store.Request) {
	r.Scope = store.Scope{Kind: store.OrganizationScope, ID: "1", Name: "acme", Group: "garo"}
}

// apply commits a decision of another part, whose messages nobody takes.
func (w *world) apply(d store.Decision) {
	w.Helper()
	if err := store.NewWriter(w.store.Store, "test-"+rand.Text(), time.Now).Commit(w.Context(), d.Changes...); err != nil {
		w.Fatalf("commit %v: %v", d.Changes[0].Item.Ref(), err)
	}
}

// caseOf reads the runner of a request, and what is around it.
func (w *world) caseOf(r store.Request) store.Case {
	w.Helper()
	return store.Case{Request: w.requestNow(r.ID), Runner: w.runnerOf(r.ID), Lock: w.lockOf(r), Pulse: get[store.Pulse](w, r.LockKey()), Quota: get[store.Quota](w, r.Account)}
}

func shared(r *store.Request) { r.Mode = store.Shared }

func (w *world) commit(items ...store.Item) {
	w.Helper()
	var changes []store.Change
	for _, i := range items {
		changes = append(changes, store.Put(i))
	}
	if err := store.NewWriter(w.store.Store, "test-"+rand.Text(), time.Now).Commit(w.Context(), changes...); err != nil {
		w.Fatalf("commit %v: %v", items[0].Ref(), err)
	}
}

// handle has a fresh worker work on messages, as one batch, and returns how many failed.
func (w *world) handle(ms ...queue.Message) int {
	w.Helper()
	return w.handleBy(worker.New(w.config), ms...)
}

func (w *world) handleBy(wk *worker.Worker, ms ...queue.Message) int {
	w.Helper()
	var batch []queue.Delivery
	for i, m := range ms {
		body, err := queue.Encode(m)
		if err != nil {
			w.Fatalf("encode %+v: %v", m, err)
		}
		batch = append(batch, queue.Delivery{ID: fmt.Sprint(i), Body: body, Receives: 1})
	}
	ctx, cancel := context.WithTimeout(w.Context(), worker.Timeout)
	defer cancel()
	return len(wk.Handle(ctx, batch))
}

// start handles the start message of a request.
func (w *world) start(rs ...store.Request) int {
	w.Helper()
	var ms []queue.Message
	for _, r := range rs {
		ms = append(ms, queue.StartOf(r))
	}
	return w.handle(ms...)
}

// follow has fresh workers handle what was sent, at its time, until nothing is left or
// n messages were handled.
func (w *world) follow(n int) {
	w.Helper()
	w.followBy(nil, n)
}

func (w *world) followBy(wk *worker.Worker, n int) {
	w.Helper()
	for ; n > 0 && len(w.sent) > 0; n-- {
		next := 0
		for i, s := range w.sent {
			if s.delay < w.sent[next].delay {
				next = i
			}
		}
		m := w.sent[next]
		w.sent = append(w.sent[:next:next], w.sent[next+1:]...)
		time.Sleep(m.delay)
		for i := range w.sent {
			w.sent[i].delay = max(0, w.sent[i].delay-m.delay)
		}
		if wk == nil {
			w.handle(m.Message)
		} else {
			w.handleBy(wk, m.Message)
		}
	}
}

func get[T any, P interface {
	*T
	store.Item
}](w *world, id string) T {
	w.Helper()
	v, err := store.Read[T, P](w.Context(), w.store.Store, id)
	if err != nil {
		w.Fatal(err)
	}
	return v
}

func (w *world) requestNow(id string) store.Request { w.Helper(); return get[store.Request](w, id) }

// runnerOf returns the runner that a request names.
func (w *world) runnerOf(id string) store.Runner {
	w.Helper()
	r := w.requestNow(id)
	if r.Runner == "" {
		w.Fatalf("request %s names no runner: %s %v", id, r.State, r.Error)
	}
	return get[store.Runner](w, r.Runner)
}

func (w *world) lockOf(r store.Request) store.Lock {
	w.Helper()
	return get[store.Lock](w, r.LockKey())
}

func (w *world) live() int { w.Helper(); return get[store.Quota](w, account).Live }

// listening has the machine of a launched runner boot, and say that its runner program
// listens, as the API does when it calls. It returns the message that the API sends then.
func (w *world) listening(r store.Request) queue.Message {
	w.Helper()
	c := w.caseOf(r)
	d, verdict := c.Boot(time.Now(), w.limits, "nonce", c.Runner.InstanceID)
	if verdict != store.BootGo {
		w.Fatalf("boot = %s, want go", verdict)
	}
	w.apply(d)
	w.says(r, store.EventOnline)
	return resumeOf(c.Runner)
}

func resumeOf(run store.Runner) queue.Message {
	return queue.Message{Kind: queue.Resume, ID: run.ID, Trace: run.Trace}
}

// says takes an event of the runner of a request, as the API does.
func (w *world) says(r store.Request, kind string) store.Decision {
	w.Helper()
	c := w.caseOf(r)
	d, _ := c.ApplyEvent(time.Now(), w.limits, store.Event{Kind: kind, Counter: max(c.Runner.Counter, c.Pulse.Counter) + 1}, "")
	if len(d.Changes) > 0 {
		w.apply(d)
	}
	return d
}

// online makes a launched runner live: its machine says that it listens, and GitHub
// shows it online.
func (w *world) online(r store.Request) {
	w.Helper()
	m := w.listening(r)
	w.github.shown[w.runnerOf(r.ID).Config.RunnerID] = true
	w.handle(m)
	if l := w.lockOf(r); l.State != store.LockLive || l.ConfirmedAt.IsZero() {
		w.Fatalf("lock is %s, confirmed at %v; want it live and confirmed", l.State, l.ConfirmedAt)
	}
}

// job has the runner of a request do its job, as it shows at GitHub and in the record.
func (w *world) job(r store.Request) {
	w.Helper()
	w.says(r, store.EventJobStarted)
	w.github.forgotten[w.runnerOf(r.ID).Config.RunnerID] = true
	w.says(r, store.EventJobDone)
}

// next has the runner of a request ask for its next config, and returns the message
// that the API sends then.
func (w *world) next(r store.Request) queue.Message {
	w.Helper()
	d, verdict := w.caseOf(r).Next(time.Now(), w.limits, w.runnerOf(r.ID).Config.N+1)
	if verdict != store.NextLater || len(d.Changes) == 0 {
		w.Fatalf("Next = %s with %d changes, want later", verdict, len(d.Changes))
	}
	w.apply(d)
	return queue.Of(d.Sends[0])
}

// calls counts what f makes the worker call, such as "2 gets, 1 commit, 1 look".
func (w *world) calls(f func()) string {
	gets, commits, looks := w.store.gets, w.store.commits, len(w.github.looks)
	f()
	return fmt.Sprintf("%d gets, %d commits, %d looks", w.store.gets-gets, w.store.commits-commits, len(w.github.looks)-looks)
}

func (w *world) state(r store.Request, want store.RequestState) {
	w.Helper()
	if got := w.requestNow(r.ID); got.State != want {
		w.Errorf("request is %s (%v), want %s\n%v", got.State, got.Error, want, got.History)
	}
}

func (w *world) alarmed(code store.Alarm) bool {
	return strings.Contains(w.log.String(), "alarm="+string(code))
}

// counted counts the calls of a store, and can put something before one.
type counted struct {
	store.Store
	mu            sync.Mutex
	gets, commits int
	before        func(op string) error // an error fails the call without effect
}

func (c *counted) note(n *int, op string) error {
	c.mu.Lock()
	*n++
	c.mu.Unlock()
	if c.before != nil {
		return c.before(op)
	}
	return nil
}

func (c *counted) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if err := c.note(&c.gets, "get"); err != nil {
		return nil, err
	}
	return c.Store.Get(ctx, refs...)
}

func (c *counted) Commit(ctx context.Context, changes ...store.Change) error {
	if err := c.note(&c.commits, "commit"); err != nil {
		return err
	}
	return c.Store.Commit(ctx, changes...)
}

type fakeAccounts map[string]store.Account

func (f fakeAccounts) Account(_ context.Context, id string) (store.Account, error) {
	a, ok := f[id]
	if !ok {
		return a, store.ErrNoAccount
	}
	return a, nil
}

func (f fakeAccounts) List(context.Context) ([]string, error) { return nil, nil }

// fakeFleet honours client tokens, and answers by script.
type fakeFleet struct {
	*world
	mu      sync.Mutex
	calls   []fleet.Launch
	times   []time.Time
	byToken map[string]*machine
	// answer decides a call that is not a repetition; nil launches. It may also
	// launch and lose the answer, by calling the launch that it is given.
	answer func(n int, l fleet.Launch, launch func()) error
	images func(image string) (string, error)
	roots  func(ami string) (store.Root, error)
	types  func() ([]store.InstanceType, error)
	// console has what a machine printed; nil: nothing.
	console func(id string) (string, error)
}

type machine struct {
	fleet.Instance
	launch fleet.Launch
}

func (f *fakeFleet) Image(_ context.Context, _ fleet.Place, image string) (string, error) {
	if f.images != nil {
		return f.images(image)
	}
	return image, nil
}

func (f *fakeFleet) RootVolume(_ context.Context, _ fleet.Place, ami string) (store.Root, error) {
	if f.roots != nil {
		return f.roots(ami)
	}
	return store.Root{Device: "/dev/xvda", SizeGB: 8}, nil
}

func (f *fakeFleet) Types(context.Context, fleet.Place, store.Requirements) ([]store.InstanceType, error) {
	return f.types()
}

func (f *fakeFleet) Console(_ context.Context, _ fleet.Place, id string) (string, error) {
	if f.console != nil {
		return f.console(id)
	}
	return "", nil
}

func (f *fakeFleet) Launch(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
	f.mu.Lock()
	f.calls, f.times = append(f.calls, l), append(f.times, time.Now())
	n := len(f.calls)
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fleet.Instance{}, err
	}
	launch := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.byToken[l.ClientToken] == nil {
			id := fmt.Sprintf("i-%d", len(f.byToken)+1)
			f.byToken[l.ClientToken] = &machine{fleet.Instance{ID: id, State: fleet.Running, ClientToken: l.ClientToken, Tags: l.Tags}, l}
		}
	}
	if f.answer != nil {
		if err := f.answer(n, l, launch); err != nil {
			return fleet.Instance{}, err
		}
	}
	f.mu.Lock()
	old := f.byToken[l.ClientToken]
	f.mu.Unlock()
	if old != nil && !reflect.DeepEqual(old.launch, l) {
		f.Errorf("token %s was used with other bytes", l.ClientToken)
	}
	launch()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byToken[l.ClientToken].Instance, nil
}

func (f *fakeFleet) ByToken(_ context.Context, _ fleet.Place, runner, token string) (fleet.Instance, error) {
	if m := f.byToken[token]; m != nil && m.Tags[fleet.TagRunner] == runner {
		return m.Instance, nil
	}
	return fleet.Instance{}, &fleet.Error{Kind: fleet.ErrNotFound, Code: "NotFound"}
}

func capacity(code string) error {
	return &fleet.Error{Kind: fleet.ErrCapacity, Code: code, Text: "no capacity"}
}

// fakeGitHub takes every name once.
type fakeGitHub struct {
	*world
	mu     sync.Mutex
	calls  []string
	names  map[string]int64
	lists  int
	blind  error // what a list of the repository's runners is answered with
	labels []string
	scopes []github.Scope // of every call
	// answer decides a call: an error, with the registration made or not.
	answer func(n int, name string) (made bool, err error)

	looks     []time.Time    // when it was asked about a registration
	shown     map[int64]bool // the registrations whose program is connected
	forgotten map[int64]bool // those that it has no more
	down      error          // what it answers to each look; nil: the truth

	workflows
}

// List is asked whether the credential sees the repository.
func (g *fakeGitHub) List(ctx context.Context, in github.Scope, prefix string) iter.Seq2[github.Runner, error] {
	return func(yield func(github.Runner, error) bool) {
		g.mu.Lock()
		g.lists++
		g.scopes = append(g.scopes, in)
		err := g.blind
		g.mu.Unlock()
		if err != nil {
			yield(github.Runner{}, err)
		}
	}
}

func (g *fakeGitHub) Get(ctx context.Context, in github.Scope, id int64) (github.Runner, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looks, g.scopes = append(g.looks, time.Now()), append(g.scopes, in)
	if err := ctx.Err(); err != nil {
		return github.Runner{}, err
	}
	if g.down != nil {
		return github.Runner{}, g.down
	}
	for name, n := range g.names {
		if n == id && !g.forgotten[id] && in == g.scopes[0] {
			return github.Runner{ID: id, Name: name, Online: g.shown[id]}, nil
		}
	}
	return github.Runner{}, &github.Error{Kind: github.ErrNotFound, Op: "get", Status: 404}
}

func (g *fakeGitHub) Mint(ctx context.Context, in github.Scope, name string, labels []string) (github.Minted, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls, g.labels, g.scopes = append(g.calls, name), labels, append(g.scopes, in)
	if _, taken := g.names[name]; taken {
		return github.Minted{}, &github.Error{Kind: github.ErrNameTaken, Op: "mint", Status: 409}
	}
	made, err := true, error(nil)
	if g.answer != nil {
		made, err = g.answer(len(g.calls), name)
	}
	id := int64(len(g.names) + 1)
	if made {
		g.names[name] = id
	}
	if err != nil {
		return github.Minted{}, err
	}
	return github.Minted{RunnerID: id, Config: secret.New("jit-" + name)}, nil
}

var errLost = errors.New("connection reset")
