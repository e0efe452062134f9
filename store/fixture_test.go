package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// t0 is when the runner of a stage was intended.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var lim = store.DefaultLimits()

// at returns the time so long after t0.
func at(d time.Duration) time.Time { return t0.Add(d) }

// stage is all that one rule or another looks at, as it is stored.
type stage struct {
	req   store.Request
	lock  store.Lock
	run   store.Runner
	quota store.Quota
	pulse store.Pulse
}

// c is the case that a rule decides over.
func (s stage) c() store.Case {
	return store.Case{Request: s.req, Runner: s.run, Lock: s.lock, Pulse: s.pulse, Quota: s.quota}
}

// take lets a decision happen.
func (s *stage) take(d store.Decision) {
	s.req, s.run, s.lock, s.pulse, s.quota = d.Request, d.Runner, d.Lock, d.Pulse, d.Quota
}

// after is s once a decision has happened.
func (s stage) after(d store.Decision) stage {
	s.take(d)
	return s
}

// of is the case of a runner alone.
func of(r store.Runner) store.Case { return store.Case{Runner: r} }

// outcome is what a decision has beside its items.
type outcome struct {
	changes string // what is committed, such as "put request, check lock"
	sends   string // what is sent, such as "runner x1 due 1m0s": since t0
	alarm   store.Alarm
	wait    store.Wait
	need    string // what the rule needs first, such as "quota#123456789012"
}

// outcomeOf tells what a decision has beside its items.
func outcomeOf(d store.Decision) outcome {
	var sends, need []string
	for _, m := range d.Sends {
		sends = append(sends, fmt.Sprintf("%s %s due %s", m.Item.Ref().Kind, m.Item.Ref().ID, m.Due.Sub(t0)))
	}
	for _, ref := range d.Need {
		need = append(need, ref.String())
	}
	return outcome{told(d.Changes), strings.Join(sends, ", "), d.Alarm, d.Wait, strings.Join(need, ", ")}
}

// told tells changes in words, such as "put request, check lock".
func told(changes []store.Change) string {
	var out []string
	for _, c := range changes {
		verb := "put "
		if c.CheckOnly {
			verb = "check "
		}
		out = append(out, verb+string(c.Item.Ref().Kind))
	}
	return strings.Join(out, ", ")
}

// item returns the item of a kind.
func item(c store.Case, k store.Kind) store.Item {
	switch k {
	case store.KindRequest:
		return &c.Request
	case store.KindRunner:
		return &c.Runner
	case store.KindLock:
		return &c.Lock
	case store.KindPulse:
		return &c.Pulse
	}
	return &c.Quota
}

// caseKinds are the kinds of the items of a case, in the order of a decision's changes.
var caseKinds = []store.Kind{store.KindRequest, store.KindRunner, store.KindLock, store.KindPulse, store.KindQuota}

// commits tells in words the changes of a decision that makes want of s: what differs is
// put, and of the rest the items of some kinds are checked.
func (s stage) commits(want stage, checked ...store.Kind) string {
	var changes []store.Change
	for _, k := range caseKinds {
		i := item(want.c(), k)
		switch {
		case !cmp.Equal(item(s.c(), k), i):
			changes = append(changes, store.Put(i))
		case slices.Contains(checked, k):
			changes = append(changes, store.Check(i))
		}
	}
	return told(changes)
}

// decides checks that a decision makes the items of a stage, and has this outcome. Who
// commits it commits the very items that the decision shows.
func (s stage) decides(t *testing.T, d store.Decision, want outcome) {
	t.Helper()
	same(t, "request", d.Request, s.req)
	same(t, "runner", d.Runner, s.run)
	same(t, "lock", d.Lock, s.lock)
	same(t, "pulse", d.Pulse, s.pulse)
	same(t, "quota", d.Quota, s.quota)
	if got := outcomeOf(d); got != want {
		t.Errorf("the decision is %+v,\nwant %+v", got, want)
	}
	for _, c := range d.Changes {
		if !slices.Contains([]store.Item{&d.Request, &d.Runner, &d.Lock, &d.Pulse, &d.Quota}, c.Item) {
			t.Errorf("%s of the changes is another one than the decision shows", c.Item.Ref())
		}
	}
}

// same checks that got is want in every field.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

// wishes is the case of a request of an hour, as its caller wishes for it.
func wishes(mode string) store.Case {
	return store.Case{Request: store.Request{
		Caller:     "github octocat",
		Repository: store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"},
		Origin:     store.Origin{RunID: "1001"},
		Account:    "123456789012", Region: "eu-west-2", Type: store.Spot, Labels: []string{"large", "linux"},
		Mode: mode, TimeoutS: 3600,
	}}
}

// identity is what the request of an id gets beside its wishes.
func identity(id string, giveUp time.Duration) store.Identity {
	return store.Identity{ID: id, Trace: "trace-" + id, GiveUp: giveUp, OwnLabel: func(string) string { return "garo-own" }}
}

// accepted returns an accepted request of an hour.
func accepted(id, mode string) store.Request {
	r := wishes(mode).Accept(t0, identity(id, lim.GiveUp)).Request
	r.Version = 1
	return r
}

// held returns an accepted request that is held for what it waits for.
func held(id string, now, until time.Time, wait string) store.Request {
	return store.Case{Request: accepted(id, store.Shared)}.Hold(now, store.Wait{For: wait, Until: until}).Request
}

// intended is the stage before the intent for r: nothing stands in its way.
func intended(r store.Request) stage {
	return stage{
		req: r, lock: store.Lock{Key: r.LockKey()}, pulse: store.Pulse{Key: r.LockKey()},
		quota: store.Quota{Account: r.Account, Limit: 1},
	}
}

// intent returns an intent that nothing stands in the way of.
func intent() store.Intent {
	return store.Intent{
		Runner: "x1", ControlPlane: "test",
		Plan: []store.Placement{
			{Market: store.Spot, InstanceType: "c7i.large", Subnet: "subnet-a"},
			{Market: store.Spot, InstanceType: "c7i.large", Subnet: "subnet-b"},
			{Market: store.OnDemand, InstanceType: "c7i.large", Subnet: "subnet-a"},
		},
		Launch:     store.Launch{Image: "ami-1", HardS: 6 * 3600},
		MaxRunners: 10,
		Claim:      store.Claim{By: "worker-1", Until: at(30 * time.Second)},
	}
}

// launching is the stage after the intent at t0: boot_by is 12:05, exp 13:05,
// hard 18:00.
func launching(t *testing.T, mode string) stage {
	t.Helper()
	s := intended(accepted("r1", mode))
	d := s.c().Begin(t0, lim, intent())
	if d.Wait != (store.Wait{}) {
		t.Fatalf("Begin waits: %+v", d.Wait)
	}
	s.take(d)
	s.req.Version, s.lock.Version, s.run.Version, s.quota.Version = 2, 1, 1, 1
	return s
}

// launched is the stage after RunInstances answered at 12:00:02 and the first
// config was recorded, with which the claim is given back.
func launched(t *testing.T, mode string) stage {
	t.Helper()
	s := launching(t, mode)
	d, ok := s.c().Launched(at(2*time.Second), "i-1")
	if !ok {
		t.Fatal("Launched: not ok")
	}
	s.take(d)
	s.take(s.c().Configure(at(3*time.Second), 1, "sealed-1", 501, ""))
	if s.run.Config.N != 1 || s.run.Claim.By != "" {
		t.Fatalf("after Configure the runner has config %d and the claim %+v", s.run.Config.N, s.run.Claim)
	}
	return s
}

// booting is the stage after the machine got its config at 12:01.
func booting(t *testing.T, mode string) stage {
	t.Helper()
	s := launched(t, mode)
	d, verdict := s.c().Boot(at(time.Minute), lim, "hash-1", "i-1")
	if verdict != store.BootGo {
		t.Fatalf("Boot = %s, want go", verdict)
	}
	s.take(d)
	return s
}

// listening is the stage after the machine said at 12:01:10 that its runner program
// listens.
func listening(t *testing.T, mode string) stage {
	t.Helper()
	s := booting(t, mode)
	d := s.hear(at(70*time.Second), store.Event{Kind: store.EventOnline, Counter: 1})
	if got, want := outcomeOf(d), (outcome{changes: "put runner, put pulse", sends: "runner x1 due 1m10s"}); got != want {
		t.Fatalf("after online, the decision is %+v; want GitHub asked first: %+v", got, want)
	}
	return s
}

// online is the stage after GitHub showed the runner online in the same second, and
// its request was ready a second later.
func online(t *testing.T, mode string) stage {
	t.Helper()
	s := listening(t, mode)
	waits := s.req
	if verdict := s.confirm(at(70*time.Second), store.Registration{Online: true}); verdict != store.Confirmed || s.run.State != store.RunnerOnline || s.lock.State != store.LockLive {
		t.Fatalf("after %s the runner is %s and the lock %s", verdict, s.run.State, s.lock.State)
	}
	s.req = waits
	s.take(s.c().Settle(at(71*time.Second), lim))
	return s
}

// busy is the stage after a job started at 12:02.
func busy(t *testing.T, mode string) stage {
	t.Helper()
	s := online(t, mode)
	s.hear(at(2*time.Minute), store.Event{Kind: store.EventJobStarted, Counter: 2, RunID: "1001"})
	return s
}

// idleAgain is the stage after that job was done at 12:05.
func idleAgain(t *testing.T, mode string) stage {
	t.Helper()
	s := busy(t, mode)
	s.hear(at(5*time.Minute), store.Event{Kind: store.EventJobDone, Counter: 3})
	return s
}

// drained is s after its runner began to drain for a reason.
func (s stage) drained(now time.Time, code string) stage {
	return s.after(s.c().Drain(now, store.NewEnd(code)))
}

// ending is s after its draining runner may be terminated.
func (s stage) ending(now time.Time) stage { return s.after(s.c().Ending(now, "")) }

// ended is s after EC2 said that the instance is gone. Its request has not learnt of that.
func (s stage) ended(now time.Time) stage {
	waits := s.req
	s = s.drained(now, store.EndTerminated)
	d, _ := s.c().Finish(now, lim, store.Instance{ID: s.run.InstanceID}, "EC2 says so", store.Price{})
	s.take(d)
	s.req = waits
	return s
}

// hear lets an event happen.
func (s *stage) hear(now time.Time, e store.Event) store.Decision {
	d, _ := s.c().ApplyEvent(now, lim, e, "key-1")
	s.take(d)
	return d
}

// confirm lets GitHub's word happen.
func (s *stage) confirm(now time.Time, seen store.Registration) store.Confirmation {
	d, verdict := s.c().Confirm(now, lim, seen)
	s.take(d)
	return verdict
}

// noted is a story with one more line.
func noted(h store.History, now time.Time, state, reason string) store.History {
	return append(slices.Clone(h), store.Entry{At: now, State: state, Reason: reason})
}

// last returns the newest line of a story.
func last(h store.History) store.Entry { return h[len(h)-1] }
