package api_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The worker's part, step by step.

// caseOf reads a runner and what is around it.
func (w *world) caseOf(runner string) store.Case {
	w.Helper()
	run := w.runner(runner)
	return store.Case{Runner: run, Lock: w.lock(run.Lock), Quota: read[store.Quota](w, run.Account), Request: w.request(run.Request)}
}

// apply commits a decision of another part, whose messages nobody takes.
func (w *world) apply(d store.Decision) {
	w.Helper()
	var items []store.Item
	for _, c := range d.Changes {
		if !c.CheckOnly {
			items = append(items, c.Item)
		}
	}
	w.put(items...)
}

func (w *world) intent(request string) store.Runner {
	w.Helper()
	r := w.request(request)
	now := time.Now()
	id := rnd(w.T)
	d := store.Case{Request: r, Lock: w.lock(r.LockKey()), Quota: read[store.Quota](w, r.Account)}.Begin(now, w.limits, store.Intent{
		Runner: id, ControlPlane: "test",
		Plan: []store.Placement{{Market: r.Type, InstanceType: "m7i.large", Subnet: "subnet-a1"}},
		Launch: store.Launch{
			Image: "ami-1", KeyID: w.keys.Current(), HardS: int(w.limits.Hard.Seconds()),
			Tags:    map[string]string{fleet.TagControlPlane: "test", "team": "build"},
			Options: store.LaunchOptions{RootDevice: "/dev/xvda", RootVolume: store.Volume{SizeGB: 50, Type: "gp3"}},
		},
		MaxRunners: 10, Claim: store.Claim{By: "worker", Until: now.Add(30 * time.Second)},
	})
	if d.Wait.For != "" {
		w.Fatalf("intent waits: %s", d.Wait.For)
	}
	w.apply(d)
	return w.runner(id)
}

func (w *world) launched(runner, instance string) store.Runner {
	w.Helper()
	d, ok := w.caseOf(runner).Launched(time.Now(), instance)
	if !ok {
		w.Fatal("the instance is not taken")
	}
	w.apply(d)
	return w.runner(runner)
}

// configured seals a config that has its number in it.
func (w *world) configured(runner string) store.Runner {
	w.Helper()
	run := w.runner(runner)
	if _, ok := run.NextName(); !ok {
		w.apply(store.Case{Runner: run}.Take(time.Now(), store.Claim{By: "worker 2"}, "test", &store.Pacing{}))
		run = w.runner(runner)
	}
	name, _ := run.NextName()
	sealed, err := w.keys.Seal(rand.Reader, run.Launch.KeyID, run.ID, name.N, secret.New(fmt.Sprintf("%s-%d", configCanary, name.N)))
	if err != nil {
		w.Fatal(err)
	}
	w.apply(store.Case{Runner: run}.Configure(time.Now(), name.N, sealed, int64(100+name.N), ""))
	if n := w.runner(runner).Config.N; n != name.N {
		w.Fatalf("config %d is not taken, but %d", name.N, n)
	}
	return w.runner(runner)
}

// The machine's part.

const instanceID = "i-0abc"

var nonce = strings.Repeat("n", 26)

func (w *world) bootToken(run store.Runner) string {
	w.Helper()
	t, err := w.keys.Boot(run.Launch.KeyID, run.ID, run.Index)
	if err != nil {
		w.Fatal(err)
	}
	return t.Reveal()
}

func (w *world) boot(run store.Runner, nonce, instance string) answer {
	w.Helper()
	return w.raw("POST", "/runners/"+run.ID+"/boot", "", apitype.Boot{Token: w.bootToken(run), Nonce: nonce, InstanceID: instance})
}

// machine is a booted machine.
type machine struct {
	*world
	id      string
	booted  apitype.Booted
	counter int64
}

// machineFor launches and boots a machine for a request.
func (w *world) machineFor(request string) *machine {
	w.Helper()
	run := w.intent(request)
	w.launched(run.ID, instanceID)
	run = w.configured(run.ID)
	a := w.boot(run, nonce, instanceID)
	if a.status != http.StatusOK {
		w.Fatalf("boot = %d %s", a.status, a.body)
	}
	m := &machine{world: w, id: run.ID}
	if err := json.Unmarshal(a.body, &m.booted); err != nil {
		w.Fatal(err)
	}
	return m
}

// post makes a call of the machine, with its lock as a hint.
func (m *machine) post(call string, body any) answer {
	m.Helper()
	return m.raw("POST", "/runners/"+m.id+"/"+call, m.booted.Session, body, apitype.LockHeader, m.booted.Lock)
}

// says reports an event and returns the order.
func (m *machine) says(kind string, more ...func(*apitype.Event)) string {
	m.Helper()
	m.counter++
	e := apitype.Event{Event: kind, Counter: m.counter}
	for _, f := range more {
		f(&e)
	}
	a := m.post("events", e)
	if a.status == http.StatusGone {
		return string(store.OrderGone)
	}
	if a.status != http.StatusOK {
		m.Fatalf("event %s = %d %s", kind, a.status, a.body)
	}
	var o apitype.Orders
	if err := json.Unmarshal(a.body, &o); err != nil {
		m.Fatal(err)
	}
	return o.Order
}

// online launches, boots and brings a machine online, with the worker's part: GitHub
// shows it online.
func (w *world) online(request string) *machine {
	w.Helper()
	m := w.machineFor(request)
	if order := m.says(store.EventOnline); order != "go" {
		w.Fatalf("online = %s, want go", order)
	}
	w.confirmed(m.id)
	return m
}

// confirmed is the worker's part after a machine said that its runner program listens:
// it takes the message, and commits that GitHub shows the runner online. The request is
// left to the next look.
func (w *world) confirmed(runner string) {
	w.Helper()
	run := w.runner(runner)
	if n := len(w.sent); n == 0 || w.sent[n-1] != (sent{queue.Message{Kind: queue.Resume, ID: run.ID, Trace: run.Trace}, 0}) {
		w.Fatalf("sent = %+v, want a resume message at the end", w.sent)
	}
	w.sent = w.sent[:len(w.sent)-1]
	d, verdict := store.Case{Runner: run, Lock: w.lock(run.Lock)}.Confirm(time.Now(), w.limits, store.Registration{Online: true})
	if verdict != store.Confirmed {
		w.Fatalf("Confirm = %s, want confirmed", verdict)
	}
	w.apply(d)
}
