package store_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestCaseIsReadItemByItem(t *testing.T) {
	s := busy(t, store.Shared)
	got := store.Case{}.With(&s.req, &s.run).With(&s.lock, &s.pulse, &s.quota)
	same(t, "case", got, s.c())

	other := store.Request{ID: "r2"}
	next := got.With(&store.Sweep{Key: "1/eu-west-2"}, &other) // a sweep is in no case
	same(t, "the given case", got, s.c())
	s.req = other
	same(t, "case with another request", next, s.c())
	other.State = store.Failed
	same(t, "case whose item was changed by its owner", next, s.c())
}

func TestAroundNamesWhatBelongsToTheRunner(t *testing.T) {
	run := store.Runner{ID: "x1", Lock: "key", Account: "123456789012", Request: "r1"}
	same(t, "refs", run.Around(store.KindRequest, store.KindPulse, store.KindLock, store.KindQuota), []store.Ref{
		{Kind: store.KindRequest, ID: "r1"}, {Kind: store.KindPulse, ID: "key"}, {Kind: store.KindLock, ID: "key"}, {Kind: store.KindQuota, ID: "123456789012"},
	})
	if got := run.Around(); len(got) != 0 {
		t.Errorf("around it is %v for no kinds, want nothing", got)
	}
}

func TestDecisionThatChangesNothingHasNothingToCommit(t *testing.T) {
	s := online(t, store.Shared)
	s.decides(t, s.c().Settle(at(time.Hour), lim), outcome{})
	stage{}.decides(t, store.Case{}.Settle(t0, lim), outcome{})
}

func TestDecisionLeavesTheCaseAsItWas(t *testing.T) {
	s := launching(t, store.Shared)
	c := s.c()
	d := c.Drain(at(time.Minute), store.NewEnd(store.EndStopped))
	same(t, "the given case", c, s.c())
	s.drained(at(time.Minute), store.EndStopped).decides(t, d, outcome{changes: "put runner, put lock"})
	next := d.Release(at(2 * time.Minute)) // decides over what the first one made
	if next.Runner.State != store.RunnerDraining || d.Runner.Claim == next.Runner.Claim {
		t.Errorf("the runner is %s with the claim %+v, before that %+v; want it draining, and released by the second decision alone", next.Runner.State, next.Runner.Claim, d.Runner.Claim)
	}
}

func TestDemandedCheckBecomesAPutOfAnItemThatChanges(t *testing.T) {
	now := at(2 * time.Minute)
	s := online(t, store.Shared)
	s.req = accepted("r2", store.Shared)
	first := s.c().Share(now, lim)
	if got := told(first.Changes); got != "put request, put lock" {
		t.Errorf("the first share: %q, want the lock put, which counts it", got)
	}
	s.take(first)
	s.req = accepted("r3", store.Shared)
	if got := told(s.c().Share(now, lim).Changes); got != "put request, check lock" {
		t.Errorf("the second share: %q, want the lock checked, which stays as it is", got)
	}
}

func TestDecisionThatNeedsItemsHasNothingElse(t *testing.T) {
	s := launched(t, store.Shared)
	tooOld := store.Event{Kind: store.EventDraining, Counter: 50, Reason: store.EndTooOld}
	whole := s
	s.req, s.quota = store.Request{}, store.Quota{}
	d, order := s.c().ApplyEvent(at(time.Minute), lim, tooOld, "key-1")
	if order != store.OrderGo {
		t.Errorf("the order is %s, want go: nothing is decided", order)
	}
	s.decides(t, d, outcome{need: "quota#123456789012, request#r1"})
	d, _ = s.c().With(&whole.req, &whole.quota).ApplyEvent(at(time.Minute), lim, tooOld, "key-1")
	if got, want := outcomeOf(d), (outcome{changes: "put request, put runner, put lock, put quota", alarm: store.AlarmRunnerTooOld}); got != want {
		t.Errorf("with what it needs, the decision is %+v, want %+v", got, want)
	}
	d, _ = s.c().With(&store.Request{ID: "r1"}, &store.Quota{Account: "123456789012"}).ApplyEvent(at(time.Minute), lim, tooOld, "key-1")
	if got, want := outcomeOf(d), (outcome{changes: "put runner, put lock, put quota", alarm: store.AlarmRunnerTooOld}); got != want {
		t.Errorf("with absent items, which are no longer needed, the decision is %+v, want %+v", got, want)
	}
}

func TestBatch(t *testing.T) {
	put, check := store.Put, store.Check
	lock, later := &store.Lock{Key: "k"}, &store.Lock{Key: "k", Runner: "x1"}
	r1, r2, run := &store.Request{ID: "r1"}, &store.Request{ID: "r2"}, &store.Runner{ID: "x1"}
	all := func(changes ...store.Change) []store.Change { return changes }
	for _, c := range []struct {
		name      string
		decisions [][]store.Change
		want      []store.Change
	}{
		{"Empty", nil, nil},
		{"OfNothing", [][]store.Change{nil, {}}, nil},
		{"KeepsTheOrder", [][]store.Change{all(put(r1), check(lock)), all(put(run), put(r2))}, all(put(r1), check(lock), put(run), put(r2))},
		{"ALaterPutReplaces", [][]store.Change{all(put(lock), put(r1)), all(put(r2), put(later))}, all(put(later), put(r1), put(r2))},
		{"ACheckBecomesAPut", [][]store.Change{all(put(r1), check(lock)), all(put(r2), put(later))}, all(put(r1), put(later), put(r2))},
		{"APutStaysAPut", [][]store.Change{all(put(r1), put(lock)), all(put(r2), check(later))}, all(put(r1), put(later), put(r2))},
		{"ACheckStaysACheck", [][]store.Change{all(put(r1), check(lock)), all(put(r2), check(later))}, all(put(r1), check(later), put(r2))},
		{"OneIDOfTwoKindsIsTwoItems", [][]store.Change{all(put(&store.Lock{Key: "k"})), all(put(&store.Pulse{Key: "k"}))}, all(put(&store.Lock{Key: "k"}), put(&store.Pulse{Key: "k"}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b store.Batch
			for _, changes := range c.decisions {
				before := slices.Clone(changes)
				b.Add(store.Decision{Changes: changes})
				same(t, "the decision that was added", changes, before)
			}
			same(t, "batch", b.Changes, c.want)
		})
	}
}

// A hundred requests that share one lock are one commit, or few.
func TestBatchOfDecisionsThatFollowEachOther(t *testing.T) {
	now := at(2 * time.Minute)
	s := online(t, store.Shared)
	var b store.Batch
	for n := range 3 {
		s.req = accepted(fmt.Sprintf("r%d", n+2), store.Shared)
		d := s.c().Share(now, lim)
		b.Add(d)
		s.take(d)
	}
	if got := told(b.Changes); got != "put request, put lock, put request, put request" {
		t.Errorf("the commit is %q, want three requests and one lock", got)
	}
	same(t, "lock", b.Changes[1].Item, &s.lock)
	if err := store.Validate(b.Changes); err != nil {
		t.Errorf("nobody takes that commit: %v", err)
	}
}

// rule applies one rule of Case, with whatever arguments may come.
type rule func(w *dice, now time.Time, c store.Case) store.Decision

// dice draws arguments.
type dice struct{ t *rapid.T }

func pick[T any](w *dice, of ...T) T { return rapid.SampledFrom(of).Draw(w.t, "pick") }

func (w *dice) yes() bool { return pick(w, false, true) }

func (w *dice) pacing() store.Pacing {
	return pick(w, store.Pacing{}, store.Pacing{Burst: 1, IntervalMS: 60_000})
}

func (w *dice) instance() store.Instance {
	return store.Instance{
		ID: pick(w, "i-1", "i-2", ""), State: pick(w, "terminated", "stopping", ""),
		Code: pick(w, "", "Server.InternalError", "Client.InternalError", "Client.InstanceInitiatedShutdown"),
	}
}

func (w *dice) failure() store.Failure { return store.NewEnd(pick(w, store.EndCodes()...)) }

// rules are all rules of Case, by their names.
var rules = map[string]rule{
	"Abandon": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Abandon(now, lim, pick(w, "", "InsufficientInstanceCapacity"), store.Said{Code: pick(w, "", "InternalError")}, w.failure())
	},
	"Accept": func(_ *dice, now time.Time, c store.Case) store.Decision {
		return c.Accept(now, identity("r9", lim.GiveUp))
	},
	"Adopt": func(w *dice, now time.Time, c store.Case) store.Decision { return c.Adopt(now, pick(w, "i-1", "i-2")) },
	"Advance": func(w *dice, now time.Time, c store.Case) store.Decision {
		no := store.Refusal{Code: "x", Text: pick(w, "", "no"), Image: pick(w, "", "ami-2")}
		return c.Advance(now, lim, c.Runner.Index+pick(w, 0, 1), c.Runner.Index+pick(w, 1, 0, 2), no, w.pacing())
	},
	"ApplyEvent": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.ApplyEvent(now, lim, store.Event{
			Kind: pick(w, store.EventHeartbeat, store.EventBooting, store.EventOnline, store.EventJobStarted, store.EventJobDone,
				store.EventIdle, store.EventNote, store.EventDraining, "dancing"),
			Counter: c.Runner.Counter + int64(pick(w, 1, 0, 7)), RunID: pick(w, "", "1001", "2002"),
			Reason: pick(w, store.EndSpot, store.EndTooOld, store.EndIdle, ""), Detail: pick(w, "", "so it says"),
		}, "key-1")
		return d
	},
	"Begin": func(w *dice, now time.Time, c store.Case) store.Decision {
		in := intent()
		in.Runner, in.MaxRunners, in.Pacing = "x9", pick(w, 10, 0), w.pacing()
		return c.Begin(now, lim, in)
	},
	"Boot": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.Boot(now, lim, pick(w, "hash-1", "hash-2"), pick(w, "i-1", "i-2", ""))
		return d
	},
	"Configure": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Configure(now, c.Runner.Config.N+pick(w, 1, 0), "sealed", 77, "")
	},
	"Confirm": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.Confirm(now, lim, store.Registration{Online: w.yes(), Absent: w.yes()})
		return d
	},
	"Deleting":     func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Deleting(now) },
	"Deregistered": func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Deregistered(now) },
	"Died":         func(w *dice, now time.Time, c store.Case) store.Decision { return c.Died(now, lim, w.instance()) },
	"Drain":        func(w *dice, now time.Time, c store.Case) store.Decision { return c.Drain(now, w.failure()) },
	"Ending":       func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Ending(now, "why") },
	"Expire":       func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Expire(now, lim) },
	"Fail":         func(w *dice, now time.Time, c store.Case) store.Decision { return c.Fail(now, lim, w.failure()) },
	"Finish": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.Finish(now, lim, w.instance(), "why", store.Price{})
		return d
	},
	"Forgotten": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Forgotten(now, lim, pick(w, nil, []int{1}, []int{1, 2, 9}), w.yes())
	},
	"Held": func(_ *dice, _ time.Time, c store.Case) store.Decision { return c.Held() },
	"Hold": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Hold(now, store.Wait{For: pick(w, store.Waits...), Until: now.Add(time.Minute)})
	},
	"Launched": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.Launched(now, pick(w, "i-1", "i-2"))
		return d
	},
	"Line": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Line(now, lim, pick(w, 10, 0), w.pacing())
	},
	"Looked": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.Looked(now, lim, w.yes(), w.yes())
		return d
	},
	"Next": func(w *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.Next(now, lim, c.Runner.Config.N+pick(w, 1, 0, 2))
		return d
	},
	"Pause": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Pause(now, store.Pause{
			Wait: store.Wait{For: pick(w, store.Waits...), Until: now.Add(time.Minute)}, By: pick(w, c.Runner.Claim.By, "worker-9"),
			Said: store.Said{Code: pick(w, "", "InternalError")}, Code: pick(w, "", store.EndGitHubDown), Text: "It is down.",
		})
	},
	"Poll":    func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Poll(now, lim) },
	"Refused": func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Refused(now, lim) },
	"Release": func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Release(now) },
	"Remind":  func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Remind(now) },
	"ReviewRequest": func(_ *dice, now time.Time, c store.Case) store.Decision {
		d, _ := c.ReviewRequest(now, lim)
		return d
	},
	"ReviewRunner": func(_ *dice, now time.Time, c store.Case) store.Decision {
		return c.ReviewRunner(now, lim, store.Console("login:", nil))
	},
	"Settle": func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Settle(now, lim) },
	"Share":  func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Share(now, lim) },
	"SpendName": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.SpendName(now, c.Runner.Config.N+pick(w, 1, 0), store.EndGitHubDown, "It is down.", "test")
	},
	"Stop": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Stop(now, lim, "somebody", w.yes())
	},
	"Suspect": func(_ *dice, now time.Time, c store.Case) store.Decision { return c.Suspect(now, lim) },
	"Take": func(w *dice, now time.Time, c store.Case) store.Decision {
		return c.Take(now, store.Claim{By: "worker-9", Until: now.Add(time.Minute)}, "test", new(w.pacing()))
	},
	"Unblock": func(_ *dice, now time.Time, c store.Case) store.Decision {
		return c.Unblock(now, lim, store.Console("", nil))
	},
	"Unregistrable": func(_ *dice, now time.Time, c store.Case) store.Decision {
		return c.Unregistrable(now, lim, store.Failure{Code: store.EndMintDenied, Text: "No."})
	},
}

func TestRulesAreAllRulesOfCase(t *testing.T) {
	want := slices.Sorted(maps.Keys(rules))
	var got []string
	for m := range reflect.TypeFor[store.Case]().Methods() {
		if m.Name != "With" {
			got = append(got, m.Name)
		}
	}
	same(t, "the rules, which the property below holds for", got, want)
}

// TestDecisionsAreWhole applies every rule to whatever the rules make of a stage: what
// differs from what was read is put, and nothing else is.
func TestDecisionsAreWhole(t *testing.T) {
	var stages []stage
	for _, mode := range []string{store.Shared, store.Ephemeral} {
		for _, reach := range []func(*testing.T, string) stage{launching, launched, booting, listening, online, busy, idleAgain} {
			stages = append(stages, reach(t, mode))
		}
	}
	names := slices.Sorted(maps.Keys(rules))
	put := map[string]bool{} // which rules ever changed something
	rapid.Check(t, func(t *rapid.T) {
		w := &dice{t}
		c, now := pick(w, stages...).c(), pick(w, at(time.Minute), at(20*time.Minute))
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			name := pick(w, names...)
			d := rules[name](w, now, c)
			whole(t, name, c, d)
			if name != "Begin" && name != "Accept" { // after which it is another stage
				c = *d.Case
			}
			now = now.Add(pick(w, time.Second, time.Minute, 20*time.Minute, 0))
		}
		c = odd(w, c)
		for _, name := range names {
			d := rules[name](w, now, c)
			whole(t, name, c, d)
			if len(d.Changes) > 0 {
				put[name] = true
			}
		}
	})
	if put["Held"] || put["Remind"] {
		t.Error("Held or Remind changes something, want them to send alone")
	}
	if len(put) < 30 { // of 38: some need much to come together
		t.Errorf("only these rules ever changed something: %v", slices.Sorted(maps.Keys(put)))
	}
}

// odd makes something of a case that no rule would.
func odd(w *dice, c store.Case) store.Case {
	switch pick(w, "", "request", "no request", "lock", "live lock", "quota", "no quota", "pulse", "no pulse", "claim") {
	case "request":
		c.Request = accepted("r2", c.Request.Mode)
	case "no request":
		c.Request = store.Request{}
	case "lock":
		c.Lock.Runner = "x2"
	case "live lock":
		c.Lock.State, c.Lock.CountedOn = store.LockLive, time.Time{}
	case "quota":
		c.Quota.Live, c.Quota.Next = 0, nil
	case "no quota":
		c.Quota = store.Quota{}
	case "pulse":
		c.Pulse.Runner, c.Pulse.Seen = "x1", t0
	case "no pulse":
		c.Pulse = store.Pulse{}
	case "claim":
		c.Runner.Claim = store.Claim{By: "worker-7", Until: t0}
	}
	return c
}

// whole checks what holds for every decision over a case.
func whole(t *rapid.T, rule string, was store.Case, d store.Decision) {
	t.Helper()
	if d.Need != nil {
		if got, want := outcomeOf(d), (outcome{need: outcomeOf(d).need}); got != want {
			t.Fatalf("%s needs something and yet decides %+v", rule, got)
		}
		if diff := cmp.Diff(was, *d.Case); diff != "" {
			t.Fatalf("%s needs something and yet changes the case:\n%s", rule, diff)
		}
		return
	}
	items := map[store.Kind]store.Item{
		store.KindRequest: &d.Request, store.KindRunner: &d.Runner, store.KindLock: &d.Lock, store.KindPulse: &d.Pulse, store.KindQuota: &d.Quota,
	}
	before := -1
	changed := map[store.Kind]store.Change{}
	for _, c := range d.Changes {
		kind := c.Item.Ref().Kind
		if c.Item != items[kind] {
			t.Fatalf("%s commits another %s than it shows", rule, kind)
		}
		if i := slices.Index(caseKinds, kind); i <= before {
			t.Fatalf("%s commits %s, want each item once and in the order of %v", rule, told(d.Changes), caseKinds)
		} else {
			before = i
		}
		changed[kind] = c
	}
	for _, kind := range caseKinds {
		old := item(was, kind)
		differs := !reflect.DeepEqual(old, items[kind]) && !cmp.Equal(old, items[kind]) // the first is faster
		c, in := changed[kind]
		switch {
		case differs && (!in || c.CheckOnly):
			t.Fatalf("%s commits %q, and yet changes the %s:\n%s", rule, told(d.Changes), kind, cmp.Diff(old, items[kind]))
		case !differs && in && !c.CheckOnly:
			t.Fatalf("%s puts the %s, which stays as it is", rule, kind)
		}
		if version := items[kind].Base().Version; version != old.Base().Version && (rule != "Begin" || kind != store.KindRunner) {
			t.Fatalf("%s makes version %d of the %s of %d: Commit alone does", rule, version, kind, old.Base().Version)
		}
	}
	for _, m := range d.Sends {
		if m.Item != items[store.KindRequest] && m.Item != items[store.KindRunner] {
			t.Fatalf("%s sends %s, want the request or the runner that it shows", rule, m.Item.Ref())
		}
	}
}

// TestRulesLeaveWhatTheyAreGivenAlone holds that no rule writes into memory that its
// decision shares with the case: that is decided again when the commit loses.
func TestRulesLeaveWhatTheyAreGivenAlone(t *testing.T) {
	stages := []stage{launching(t, store.Shared), busy(t, store.Shared), booting(t, store.Ephemeral).drained(at(2*time.Minute), store.EndSpot)}
	names := slices.Sorted(maps.Keys(rules))
	rapid.Check(t, func(t *rapid.T) {
		w := &dice{t}
		c := pick(w, stages...).c()
		c.Quota.TooOld = append(make([]store.TooOldImage, 0, 9), store.TooOldImage{Image: "ami-1"})
		c.Runner.Names = append(make([]store.GitHubName, 0, 9), c.Runner.Names...)
		c.Runner.Plan = append(make([]store.Placement, 0, 9), c.Runner.Plan...)
		c.Runner.Attempts = append(make([]store.Attempt, 0, 9), c.Runner.Attempts...)
		c.Runner.History = append(make(store.History, 0, 99), c.Runner.History...)
		c.Request.Attempts = append(make([]store.Attempt, 0, 9), store.Attempt{Code: "earlier"})
		c.Request.History = append(make(store.History, 0, 99), c.Request.History...)
		read := written(t, c)
		var decisions []store.Decision
		var made []string // by each of them
		for range 8 {
			name := pick(w, names...)
			d := rules[name](w, pick(w, at(time.Minute), at(20*time.Minute)), c)
			decisions, made = append(decisions, d), append(made, written(t, *d.Case))
			if got := written(t, c); got != read {
				t.Fatalf("%s changes what it was given:\n%s", name, cmp.Diff(read, got))
			}
		}
		for i, d := range decisions { // spare room is shared too
			if got := written(t, *d.Case); got != made[i] {
				t.Fatalf("a later rule changes an earlier decision:\n%s", cmp.Diff(made[i], got))
			}
		}
	})
}

// written is all that a case says.
func written(t *rapid.T, c store.Case) string {
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
