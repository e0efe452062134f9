package worker_test

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// fakeDoctor has so many accounts to examine, each of which takes a while.
type fakeDoctor struct {
	accounts int
	takes    time.Duration
	during   func()

	mu       sync.Mutex // guards examined
	examined []store.Part
}

func (d *fakeDoctor) Parts(_ context.Context, account, region string) []store.Part {
	parts := []store.Part{{Account: account, Region: region}}
	for n := range d.accounts {
		parts = append(parts, store.Part{Account: strings.Repeat("1", n+1)})
	}
	return parts
}

func (d *fakeDoctor) Examine(_ context.Context, v doctor.Visit) []store.Finding {
	d.mu.Lock()
	d.examined = append(d.examined, v.Part)
	d.mu.Unlock()
	time.Sleep(d.takes)
	if d.during != nil {
		d.during()
	}
	return []store.Finding{{Check: "fake", Result: store.ResultOK, Evidence: "looked at"}}
}

// asks records a check, as the API does.
func (w *world) asks(d *fakeDoctor) queue.Message {
	w.Helper()
	w.config.Doctor = d
	id := w.keys.RequestID("7", "check", "1", "", rand.Text())
	asked := store.AskCheckup(time.Now(), w.limits, store.Checkup{ID: id, Account: account, Region: region, Trace: "t"})
	w.apply(asked)
	return queue.Of(asked.Sends[0])
}

func TestCheckIsCarriedOut(t *testing.T) {
	inWorld(t, func(w *world) {
		d := &fakeDoctor{accounts: 2}
		m := w.asks(d)
		if failed := w.handle(m, m); failed != 0 {
			t.Errorf("%d messages failed, want none", failed)
		}
		c := get[store.Checkup](w, m.ID)
		if c.State(time.Now()) != store.CheckDone || len(c.Findings) != 3 || len(d.examined) != 3 || d.examined[0] != (store.Part{Account: account, Region: region}) {
			t.Errorf("check = %+v after %v, want it done once, with each part", c, d.examined)
		}
		if last := get[store.Checkup](w, store.LastCheck); len(last.Findings) != 3 || !last.EndedAt.Equal(c.EndedAt) {
			t.Errorf("the last check = %+v, want the same", last)
		}
	})
}

func TestCheckThatTakesLongerIsHandedOn(t *testing.T) {
	inWorld(t, func(w *world) {
		d := &fakeDoctor{accounts: 5, takes: 7 * time.Second}
		m := w.asks(d)
		w.handle(m)
		if c := get[store.Checkup](w, m.ID); len(c.Done) != 2 || c.Claim != (store.Claim{}) || len(w.sent) != 1 || w.sent[0].Kind != queue.Check {
			t.Errorf("check = %+v, sent %v; want two parts done in half a minute, and the rest left to another worker", c, w.sent)
		}
		w.follow(10)
		c := get[store.Checkup](w, m.ID)
		if done := slices.Compact(slices.Sorted(slices.Values(c.Done))); c.State(time.Now()) != store.CheckDone || len(c.Done) != 6 || len(done) != 6 || len(d.examined) != 6 {
			t.Errorf("check = %+v after %v, want each part once", c, d.examined)
		}
	})
}

func TestCheckThatAnotherWorkerHasIsLookedAtOnceItsClaimLapses(t *testing.T) {
	inWorld(t, func(w *world) {
		d := &fakeDoctor{}
		m := w.asks(d)
		taken, _ := get[store.Checkup](w, m.ID).Take(time.Now(), store.Claim{By: "worker-other", Until: time.Now().Add(20 * time.Second)})
		w.apply(taken)
		w.handle(m)
		if len(d.examined) != 0 || len(w.sent) != 1 || w.sent[0].delay != 20*time.Second {
			t.Errorf("examined %v, sent %v; want nothing until the claim lapses", d.examined, w.sent)
		}
		w.follow(1)
		if c := get[store.Checkup](w, m.ID); c.State(time.Now()) != store.CheckDone || len(d.examined) != 1 {
			t.Errorf("check is %s after %v, want it done by us", c.State(time.Now()), d.examined)
		}
	})
}

// Its claim lapsed while it slept, and another one has the check now.
func TestWorkerThatLostItsCheckWritesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		d := &fakeDoctor{}
		m := w.asks(d)
		d.during = func() {
			taken, _ := get[store.Checkup](w, m.ID).Take(time.Now().Add(time.Minute), store.Claim{By: "worker-other", Until: time.Now().Add(2 * time.Minute)})
			w.apply(taken)
		}
		if failed := w.handle(m); failed != 1 {
			t.Errorf("%d messages failed, want the one: it comes again", failed)
		}
		if c := get[store.Checkup](w, m.ID); len(c.Findings) != 0 || c.Claim.By != "worker-other" {
			t.Errorf("check = %+v, want the other worker's", c)
		}
	})
}

func TestTwoChecksThatEndAtOnceAreBothKept(t *testing.T) {
	inWorld(t, func(w *world) {
		d := &fakeDoctor{takes: time.Second}
		first, second := w.asks(d), w.asks(d)
		if failed := w.handle(first, second); failed != 0 {
			t.Errorf("%d messages failed, want none", failed)
		}
		for _, m := range []queue.Message{first, second} {
			if c := get[store.Checkup](w, m.ID); c.State(time.Now()) != store.CheckDone {
				t.Errorf("check is %s, want it done", c.State(time.Now()))
			}
		}
	})
}

func TestCheckThatIsNotRecordedIsAnAlarm(t *testing.T) {
	inWorld(t, func(w *world) {
		w.config.Doctor = &fakeDoctor{}
		if failed := w.handle(queue.Message{Kind: queue.Check, ID: strings.Repeat("a", 26)}); failed != 1 || !w.alarmed(store.AlarmUnknown) {
			t.Errorf("%d messages failed, want the one and an alarm", failed)
		}
	})
}

var _ worker.Doctor = (*fakeDoctor)(nil)

func TestConsoleOfAMachineIsRead(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		run := w.runnerOf(r.ID)
		for name, c := range map[string]struct {
			runner, text string
			err          error
			result       store.Result
			evidence     string
		}{
			"Printed":  {run.ID, "line 1\nline 2\n", nil, store.ResultOK, "14 bytes"},
			"Nothing":  {run.ID, "", nil, store.ResultWarn, "nothing of it yet"},
			"Gone":     {run.ID, "", &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "gone"}, store.ResultFailed, "does not know"},
			"Refused":  {run.ID, "", &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "no"}, store.ResultFailed, "UnauthorizedOperation: no"},
			"Away":     {run.ID, "", errLost, store.ResultFailed, "does not answer"},
			"NoRecord": {strings.Repeat("z", 26), "", nil, store.ResultFailed, "record is gone"},
		} {
			w.fleet.console = func(string) (string, error) { return c.text, c.err }
			id := w.keys.RequestID("7", "check", "1", "", rand.Text())
			w.apply(store.AskCheckup(time.Now(), w.limits, store.Checkup{ID: id, Runner: c.runner, Trace: "t"}))
			if failed := w.handle(queue.Message{Kind: queue.Check, ID: id}); failed != 0 {
				t.Errorf("%s: %d messages failed", name, failed)
			}
			got := get[store.Checkup](w, id)
			if got.State(time.Now()) != store.CheckDone || got.Console != c.text || len(got.Findings) != 1 || got.Result() != c.result || !strings.Contains(got.Findings[0].Evidence, c.evidence) {
				t.Errorf("%s: check = %+v, want %s with %q", name, got, c.result, c.evidence)
			}
			if (c.result == store.ResultOK) != (got.Findings[0].Remedy == "") {
				t.Errorf("%s: %+v, want a remedy unless it is ok", name, got.Findings[0])
			}
			if until := time.Unix(got.TTL, 0); time.Until(until) > 24*time.Hour {
				t.Errorf("%s: the console is kept until %s, want a day at most", name, until)
			}
		}
		if last := get[store.Checkup](w, store.LastCheck); last.Version != 0 {
			t.Error("a console is the last check")
		}
	})
}
