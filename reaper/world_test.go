package reaper_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

const (
	controlPlane = "test"
	account      = "111111111111"
	region       = "eu-west-2"
)

var here = fleet.Place{Account: account, Region: region}

// world is everything around a reaper, in fake time.
type world struct {
	t        testing.TB
	store    *storetest.Memory
	queue    *recorder
	accounts accounts
	fleet    *ec2
	hub      *hub
	lim      store.Limits
	config   reaper.Config
	log      *bytes.Buffer
	machines int
}

// inWorld runs f in fake time with an empty world of one account and region.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, store: storetest.NewMemory(), queue: &recorder{}, fleet: newEC2(), hub: newHub(),
			accounts: accounts{account: {ID: account, Regions: map[string]store.Region{region: {}}}},
			lim:      store.DefaultLimits(), log: &bytes.Buffer{},
		}
		w.config = reaper.Config{
			Store: w.store, Queue: w.queue, Accounts: w.accounts, Fleet: w.fleet, GitHub: w.hub,
			Limits: w.lim, ControlPlane: controlPlane, Log: slog.New(slog.NewJSONHandler(w.log, nil)),
		}
		f(w)
	})
}

// id returns a valid id that begins with name, which has letters alone.
func id(name string) string { return name + strings.Repeat("a", 26-len(name)) }

// try makes one run of a fresh reaper, with the time that a real one has.
func (w *world) try() (reaper.Report, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 50*time.Second)
	defer cancel()
	return reaper.New(w.config).Run(ctx)
}

// run makes a run that must not fail.
func (w *world) run() reaper.Report {
	w.t.Helper()
	r, err := w.try()
	if err != nil {
		w.t.Errorf("Run = %v, want no error\n%s", err, r)
	}
	return r
}

// minutes makes a run every minute, and EC2 end in between what it was asked to.
func (w *world) minutes(n int) {
	w.t.Helper()
	for range n {
		time.Sleep(time.Minute)
		w.fleet.settle()
		w.run()
	}
}

func (w *world) put(items ...store.Item) {
	w.t.Helper()
	var changes []store.Change
	for _, it := range items {
		changes = append(changes, store.Put(it))
	}
	if err := store.NewWriter(w.store, "setup", time.Now).Commit(w.t.Context(), changes...); err != nil {
		w.t.Fatalf("commit: %v", err)
	}
}

func get[T any, P interface {
	*T
	store.Item
}](w *world, id string) T {
	w.t.Helper()
	it, err := store.Read[T, P](w.t.Context(), w.store, id)
	if err != nil {
		w.t.Fatalf("read %s: %v", id, err)
	}
	return it
}

func (w *world) runner(id string) store.Runner   { w.t.Helper(); return get[store.Runner](w, id) }
func (w *world) request(id string) store.Request { w.t.Helper(); return get[store.Request](w, id) }
func (w *world) lock(key string) store.Lock      { w.t.Helper(); return get[store.Lock](w, key) }
func (w *world) pulse(key string) store.Pulse    { w.t.Helper(); return get[store.Pulse](w, key) }
func (w *world) sweep() store.Sweep              { w.t.Helper(); return get[store.Sweep](w, here.String()) }
func (w *world) live() int                       { w.t.Helper(); return get[store.Quota](w, account).Live }

func (w *world) wantRunner(id string, want store.RunnerState) store.Runner {
	w.t.Helper()
	r := w.runner(id)
	if r.State != want {
		w.t.Errorf("runner %s is %s, want %s; history %v", id, r.State, want, r.History)
	}
	return r
}

func (w *world) wantRequest(id string, want store.RequestState) store.Request {
	w.t.Helper()
	q := w.request(id)
	if q.State != want {
		w.t.Errorf("request %s is %s, want %s; history %v", id, q.State, want, q.History)
	}
	return q
}

// wantAlarms compares the alarms that were logged, in order, with want.
func (w *world) wantAlarms(want ...store.Alarm) {
	w.t.Helper()
	got := []store.Alarm{}
	for l := range strings.Lines(w.log.String()) {
		var line struct {
			Level string
			Alarm store.Alarm
		}
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			w.t.Fatal(err)
		}
		if line.Alarm != "" {
			got = append(got, line.Alarm)
			if line.Level != "ERROR" {
				w.t.Errorf("an alarm is logged as %s: %s", line.Level, l)
			}
		}
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("alarms = %v, want %v", got, want)
	}
}

// accept records a new request. Its key is its own unless edit makes it shared.
func (w *world) accept(name string, edit ...func(*store.Request)) store.Request {
	w.t.Helper()
	q := store.Request{
		ID: id(name), Caller: "operator test", Trace: "trace-" + name, Account: account, Region: region,
		Repository: store.Repository{ID: "42", Name: "octo/app", OwnerID: "7", Owner: "octo"},
		Type:       store.Spot, Labels: []string{}, Mode: store.Ephemeral, OwnLabel: "garo-own", TimeoutS: 3600,
	}
	for _, e := range edit {
		e(&q)
	}
	d := store.Case{Request: q}.Accept(time.Now(), store.Identity{
		ID: q.ID, Trace: q.Trace, GiveUp: w.lim.GiveUp, OwnLabel: func(string) string { return q.OwnLabel },
	})
	return w.apply(d).Request
}

// apply commits a decision of another part, whose messages nobody takes.
func (w *world) apply(d store.Decision) store.Decision {
	w.t.Helper()
	var items []store.Item
	for _, c := range d.Changes {
		if !c.CheckOnly {
			items = append(items, c.Item)
		}
	}
	if len(items) > 0 {
		w.put(items...)
	}
	return d
}

// caseOf reads a runner and what is around it.
func (w *world) caseOf(id string) store.Case {
	w.t.Helper()
	run := w.runner(id)
	return store.Case{Runner: run, Lock: w.lock(run.Lock), Pulse: w.pulse(run.Lock), Quota: get[store.Quota](w, run.Account), Request: w.request(run.Request)}
}

// cancel ends a request alone: its runner is the reaper's.
func (w *world) cancel(id string) {
	w.t.Helper()
	w.apply(store.Case{Request: w.request(id)}.Stop(time.Now(), w.lim, "test", false))
}

// hold keeps an accepted request until a time.
func (w *world) hold(q store.Request, wait string, until time.Time) store.Request {
	w.t.Helper()
	return w.apply(store.Case{Request: q}.Hold(time.Now(), store.Wait{For: wait, Until: until})).Request
}

// next is what a shared machine's call for its next config makes.
func (w *world) next(id string) store.Decision {
	w.t.Helper()
	c := w.caseOf(id)
	d, verdict := c.Next(time.Now(), w.lim, c.Runner.Config.N+1)
	if verdict != store.NextLater {
		w.t.Fatalf("Next = %s at %s, exp %s; want a config up to the hard limit", verdict, time.Now(), c.Lock.Exp)
	}
	return w.apply(d)
}

// writtenAhead writes the name of the next registration ahead, whatever the last one's fate.
func writtenAhead(run store.Runner) store.Runner {
	n := run.Config.N + 1
	if last, ok := run.NextName(); ok {
		n = last.N + 1
	}
	run.Names = append(slices.Clone(run.Names), store.GitHubName{N: n, Name: nameOf(run, n)})
	return run
}

func shared(q *store.Request) { q.Mode = store.Shared }

// begin records the intent to launch a runner of the same name.
func (w *world) begin(q store.Request) store.Runner {
	w.t.Helper()
	now := time.Now()
	d := store.Case{Request: q, Lock: w.lock(q.LockKey()), Quota: get[store.Quota](w, q.Account)}.Begin(now, w.lim, store.Intent{
		Runner: q.ID, ControlPlane: controlPlane,
		Plan: []store.Placement{
			{Market: store.Spot, InstanceType: "m7i.large", Subnet: "subnet-a"},
			{Market: store.Spot, InstanceType: "m7i.large", Subnet: "subnet-b"},
		},
		Launch: store.Launch{Image: "ami-1", HardS: int(w.lim.Hard.Seconds())}, MaxRunners: 100_000,
		Claim: store.Claim{By: "worker", Until: now.Add(30 * time.Second)}, Pacing: store.Pacing{Burst: 100_000},
	})
	if d.Wait.For != "" {
		w.t.Fatalf("Begin waits: %s", d.Wait.For)
	}
	return w.apply(d).Runner
}

// launch gives the runner an instance, on record and at EC2.
func (w *world) launch(run store.Runner) store.Runner {
	w.t.Helper()
	run = w.apply(store.Case{Runner: run}.Adopt(time.Now(), w.machine(run, run.ClientToken()))).Runner
	return w.apply(store.Case{Runner: run}.Release(time.Now())).Runner
}

// machine starts an instance with the tags of the runner, and returns its id.
func (w *world) machine(run store.Runner, token string) string {
	w.machines++
	in := fleet.Instance{
		ID: fmt.Sprintf("i-%04d", w.machines), State: fleet.Running, ClientToken: token, LaunchedAt: time.Now(),
		Tags: map[string]string{fleet.TagControlPlane: controlPlane, fleet.TagRunner: run.ID},
	}
	w.fleet.add(fleet.Place{Account: run.Account, Region: run.Region}, in)
	return in.ID
}

// configure registers the runner at GitHub, on record and there.
func (w *world) configure(run store.Runner) store.Runner {
	w.t.Helper()
	name, ok := run.NextName()
	if !ok {
		run = writtenAhead(run)
		name, _ = run.NextName()
	}
	d := store.Case{Runner: run}.Configure(time.Now(), name.N, "sealed", w.hub.register(run.Where().Key(), name.Name), "")
	if d.Runner.Config.N != name.N {
		w.t.Fatalf("Configure of %s runner refused", run.State)
	}
	return w.apply(d).Runner
}

// boot answers the machine's boot call.
func (w *world) boot(run store.Runner) store.Runner {
	w.t.Helper()
	d, verdict := store.Case{Runner: run, Lock: w.lock(run.Lock)}.Boot(time.Now(), w.lim, "nonce", run.InstanceID)
	if verdict != store.BootGo {
		w.t.Fatalf("Boot = %s, want go", verdict)
	}
	return w.apply(d).Runner
}

// hear takes an event of the machine.
func (w *world) hear(id string, e store.Event) store.Runner {
	w.t.Helper()
	c := w.caseOf(id)
	e.Counter = max(c.Runner.Counter, c.Pulse.Counter) + 1
	c.Request = store.Request{ID: c.Runner.Request} // which the reaper looks after
	d, _ := c.ApplyEvent(time.Now(), w.lim, e, "")
	w.apply(d)
	return w.runner(id)
}

// listening takes a request of that name to a runner, of the same id, whose machine says
// that its runner program listens. GitHub does not show it online yet.
func (w *world) listening(name string, edit ...func(*store.Request)) store.Runner {
	w.t.Helper()
	run := w.boot(w.configure(w.launch(w.begin(w.accept(name, edit...)))))
	return w.hear(run.ID, store.Event{Kind: store.EventOnline})
}

// online takes a request of that name to a runner, of the same id, that is online, and
// confirmed by a worker just now.
func (w *world) online(name string, edit ...func(*store.Request)) store.Runner {
	w.t.Helper()
	w.listening(name, edit...)
	return w.confirmed(id(name))
}

// confirmed connects the runner's program to GitHub, and has a worker confirm it.
func (w *world) confirmed(id string) store.Runner {
	w.t.Helper()
	c := w.caseOf(id)
	w.hub.online(c.Runner.Where().Key(), c.Runner.Config.RunnerID, true)
	d, verdict := c.Confirm(time.Now(), w.lim, store.Registration{Online: true})
	if verdict != store.Confirmed {
		w.t.Fatalf("Confirm = %s, want confirmed", verdict)
	}
	w.apply(d)
	if q := w.request(c.Runner.Request); q.State != store.Ready {
		w.t.Fatalf("request is %s, want ready", q.State)
	}
	return w.runner(id)
}

// draining takes a runner online and drains it, as its job's end does.
func (w *world) draining(name string) store.Runner {
	w.t.Helper()
	w.online(name)
	return w.hear(id(name), store.Event{Kind: store.EventDraining, Reason: store.EndIdle})
}

// lines returns the report's lines of an action, as "kind id".
func lines(r reaper.Report, act reaper.Action) []string {
	var out []string
	for _, l := range r.Lines {
		if l.Action == act {
			out = append(out, l.Kind+" "+l.ID)
		}
	}
	return out
}

// accounts is a store.Accounts that never changes.
type accounts map[string]store.Account

func (a accounts) Account(_ context.Context, id string) (store.Account, error) {
	if acc, ok := a[id]; ok {
		return acc, nil
	}
	return store.Account{}, store.ErrNoAccount
}

func (a accounts) List(context.Context) ([]string, error) {
	var ids []string
	for id := range a {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// recorder is a queue that keeps what is sent, or fails with err.
type recorder struct {
	mu   sync.Mutex
	sent []sent
	err  error
}

type sent struct {
	queue.Message
	delay time.Duration
}

func (q *recorder) SendAll(_ context.Context, all ...queue.Outgoing) []error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return queue.Each(len(all), q.err)
	}
	for _, m := range all {
		q.sent = append(q.sent, sent{m.Message, m.Delay})
	}
	return nil
}

// take returns what was sent since the last call.
func (q *recorder) take() []sent {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.sent
	q.sent = nil
	return out
}
