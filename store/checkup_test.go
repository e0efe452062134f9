package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// checkupOf returns the check that a decision writes, as it is once it is committed.
func checkupOf(t *testing.T, d store.Decision) store.Checkup {
	t.Helper()
	if len(d.Changes) == 0 {
		t.Fatal("the decision writes nothing")
	}
	c := *d.Changes[0].Item.(*store.Checkup)
	c.Version++
	return c
}

func asked(t *testing.T) store.Checkup {
	t.Helper()
	d := store.AskCheckup(t0, lim, store.Checkup{ID: "c1", Account: "111111111111", Caller: "operator ann", Trace: "x"})
	if len(d.Sends) != 1 || d.Sends[0].Item.Ref().ID != "c1" || !d.Sends[0].Due.Equal(t0) {
		t.Fatalf("sends = %+v, want the check at once", d.Sends)
	}
	return checkupOf(t, d)
}

func TestCheckupGoesItsWay(t *testing.T) {
	c := asked(t)
	if c.State(t0) != store.CheckQueued || c.TTL == 0 {
		t.Errorf("state = %s, TTL %d; want it queued, and to expire", c.State(t0), c.TTL)
	}
	by := store.Claim{By: "w1", Until: at(30 * time.Second)}
	d, ok := c.Take(at(time.Second), by)
	if c = checkupOf(t, d); !ok || c.State(at(time.Second)) != store.CheckRunning || !c.StartedAt.Equal(at(time.Second)) {
		t.Errorf("taken: %v, %+v; want it to run", ok, c)
	}
	part := store.Part{Account: "111111111111", Region: "eu-west-2"}
	c = checkupOf(t, c.Found(part, []store.Finding{{Check: "x", Account: "other", Result: store.ResultWarn, Evidence: "a\n b"}}))
	if f := c.Findings[0]; !c.Has(part) || c.Has(store.Part{}) || f.Account != "111111111111" || f.Region != "eu-west-2" || f.Evidence != "a b" {
		t.Errorf("found = %+v, want it in its part, in one line", c)
	}
	d = c.End(at(5*time.Second), store.Checkup{ID: store.LastCheck})
	last := *d.Changes[1].Item.(*store.Checkup)
	c = checkupOf(t, d)
	if c.State(at(6*time.Second)) != store.CheckDone || c.Result() != store.ResultWarn || c.Claim != (store.Claim{}) {
		t.Errorf("ended: %s, %s, %+v; want it done, warn, and unclaimed", c.State(at(6*time.Second)), c.Result(), c.Claim)
	}
	if last.ID != store.LastCheck || last.Version != 0 || len(last.Findings) != 1 || last.TTL != c.TTL {
		t.Errorf("last = %+v, want the same under its own name", last)
	}
}

func TestCheckupIsTakenByOneWorkerAtATime(t *testing.T) {
	d, _ := asked(t).Take(t0, store.Claim{By: "w1", Until: at(30 * time.Second)})
	c := checkupOf(t, d)
	for _, row := range []struct {
		name string
		at   time.Duration
		by   string
		want bool
	}{
		{"WhileItIsClaimed", 29 * time.Second, "w2", false},
		{"ByItsHolder", 29 * time.Second, "w1", true},
		{"OnceTheClaimLapsed", 30 * time.Second, "w2", true},
		{"OnceNobodyContinuesIt", 10 * time.Minute, "w2", false},
	} {
		d, ok := c.Take(at(row.at), store.Claim{By: row.by, Until: at(row.at + time.Minute)})
		if ok != row.want || len(d.Changes) == 1 != row.want {
			t.Errorf("%s: taken = %t with %d changes, want %t", row.name, ok, len(d.Changes), row.want)
		}
	}
	if _, ok := checkupOf(t, c.End(at(time.Second), store.Checkup{})).Take(at(2*time.Second), store.Claim{By: "w1"}); ok {
		t.Error("a check that ended was taken")
	}
	if c := checkupOf(t, c.HandOn(at(time.Second))); c.Claim != (store.Claim{}) || !c.SentAt.Equal(at(time.Second)) {
		t.Errorf("handed on: %+v, want it unclaimed, and sent", c)
	}
}

func TestCheckupIsSentAgainOnceItIsForgotten(t *testing.T) {
	c := asked(t)
	d, _ := c.Take(t0, store.Claim{By: "w1", Until: at(30 * time.Second)})
	taken := checkupOf(t, d)
	ended := checkupOf(t, taken.End(at(time.Second), store.Checkup{}))
	for _, row := range []struct {
		name string
		c    store.Checkup
		at   time.Duration
		want bool
	}{
		{"Queued", c, 59 * time.Second, false},
		{"QueuedForAMinute", c, time.Minute, true},
		{"AMinuteAfterItsClaim", taken, 90 * time.Second, true},
		{"LessThanThat", taken, 89 * time.Second, false},
		{"Done", ended, 5 * time.Minute, false},
		{"GivenUp", c, 10 * time.Minute, false},
	} {
		d := row.c.Poll(at(row.at))
		if (len(d.Sends) == 1 && len(d.Changes) == 1) != row.want || len(d.Sends) != len(d.Changes) {
			t.Errorf("%s: %d messages and %d changes, want %t", row.name, len(d.Sends), len(d.Changes), row.want)
		}
	}
	if got := c.State(at(10 * time.Minute)); got != store.CheckUnknown {
		t.Errorf("state after ten minutes = %s, want unknown", got)
	}
}

func TestCheckupThatIsOlderIsNotTheLast(t *testing.T) {
	c := asked(t)
	d := c.End(at(time.Minute), store.Checkup{ID: store.LastCheck, CreatedAt: at(time.Second)})
	if len(d.Changes) != 1 {
		t.Errorf("%d changes, want the check alone: another one began later", len(d.Changes))
	}
}

func TestCheckupIsBounded(t *testing.T) {
	c := asked(t)
	many := make([]store.Finding, 500)
	for n := range many {
		many[n] = store.Finding{Check: "x", Result: store.ResultOK, Evidence: strings.Repeat("é", 1000), Remedy: strings.Repeat("r", 1000), About: strings.Repeat("a", 1000)}
	}
	c = checkupOf(t, c.Found(store.Part{}, many))
	b, err := store.Encode(&c)
	if len(c.Findings) != 250 || !c.Full() || err != nil || len(b) > 400<<10 {
		t.Errorf("%d findings in %d bytes, %v; want 250, below what an item may have", len(c.Findings), len(b), err)
	}
	if got := []rune(c.Findings[0].Evidence); len(got) != 400 || got[399] != '…' {
		t.Errorf("evidence has %d characters, want 400, cut", len(got))
	}
}
