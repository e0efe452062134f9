package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRunnerWithoutConfigEndsForTheTrueCause(t *testing.T) {
	for _, code := range []string{store.EndGitHubDown, store.EndGitHubLimit, store.EndMintDenied} {
		s := launching(t, store.Shared)
		s.run.State, s.run.InstanceID = store.RunnerLaunched, "i-1"
		s.run = s.run.Unregistered(t0, code, "GitHub's last words.")
		if got := store.DrainReason(s.lock.BootBy.Add(-time.Second), store.DefaultLimits(), s.run, s.lock, store.Pulse{}, s.req); got != "" {
			t.Errorf("before boot_by it drains for %q, want that it waits", got)
		}
		if got := store.DrainReason(s.lock.BootBy, store.DefaultLimits(), s.run, s.lock, store.Pulse{}, s.req); got != code {
			t.Errorf("at boot_by it drains for %q, want %q", got, code)
		}
		run := s.c().Drain(s.lock.BootBy, store.NewEnd(code)).Runner
		if !strings.HasSuffix(run.End.Text, " GitHub's last words.") || !run.End.Retryable {
			t.Errorf("end = %+v, want GitHub's last words in it, and a retry", run.End)
		}
		// A reason of its own is not added to.
		why := store.Failure{Code: code, Text: "All that there is to say."}
		if run := s.c().Drain(s.lock.BootBy, why).Runner; *run.End != why {
			t.Errorf("end = %+v, want %+v", run.End, why)
		}
		// With a config, the machine is to blame.
		s.take(s.c().Configure(s.lock.BootBy, 1, "sealed", 77, ""))
		if got := store.DrainReason(s.lock.BootBy, store.DefaultLimits(), s.run, s.lock, store.Pulse{}, s.req); got != store.EndNoBoot || s.run.Unminted != nil {
			t.Errorf("with a config it drains for %q, want boot_timeout", got)
		}
	}
}

func TestUnregisteredCountsAnswersInARow(t *testing.T) {
	var r store.Runner
	for i, c := range []struct {
		code string
		want int
	}{{"a", 1}, {"a", 2}, {"b", 1}, {"a", 1}, {"a", 2}, {"a", 3}} {
		before := r
		r = r.Unregistered(t0, c.code, "x")
		if r.Unminted.Tries != c.want {
			t.Errorf("answer %d: tries = %d, want %d", i, r.Unminted.Tries, c.want)
		}
		if before.Unminted != nil && before.Unminted == r.Unminted {
			t.Errorf("answer %d changed the runner that it was given", i)
		}
	}
	if len(r.History) != 3 {
		t.Errorf("story %v, want one entry for each change", r.History)
	}
}

func TestCrowdedRunnerGetsNoFurtherName(t *testing.T) {
	s := launching(t, store.Shared)
	for n := 1; n < store.MaxNames; n++ {
		if s.run.Crowded() {
			t.Fatalf("crowded with %d names, want %d", n, store.MaxNames)
		}
		s.take(s.c().SpendName(t0, n, store.EndGitHubDown, "x", "test"))
	}
	if !s.run.Crowded() {
		t.Fatalf("not crowded with %d names", len(s.run.Names))
	}
	s.run.Claim = store.Claim{By: "dead", Until: t0}
	taken := s.c().Take(at(time.Minute), store.Claim{By: "me", Until: at(2 * time.Minute)}, "test", &store.Pacing{}).Runner
	if len(taken.Names) != store.MaxNames || taken.Claim.By != "me" {
		t.Errorf("after a lapse it has %d names and the claim %+v, want %d and mine: the last was never used", len(taken.Names), taken.Claim, store.MaxNames)
	}
	// The configs of a shared runner are registered: however many jobs it had, their
	// names do not crowd it.
	jobs := launching(t, store.Shared).run
	for n := 1; n <= 3*store.MaxNames; n++ {
		jobs = of(jobs).Configure(t0, n, "sealed", int64(n), "").Runner
		jobs.Wanted = n + 1
		jobs = of(jobs).SpendName(t0, n, store.EndGitHubDown, "x", "test").Runner
	}
	if jobs.Crowded() || len(jobs.Names) != 3*store.MaxNames+1 {
		t.Errorf("crowded %v by %d names with a known registration, want not, with %d", jobs.Crowded(), len(jobs.Names), 3*store.MaxNames+1)
	}
}

func TestRecordsOfBeforeAndAfterUnmintedAreReadByBoth(t *testing.T) {
	r := store.Runner{ID: "r", State: store.RunnerLaunched}.Unregistered(t0, store.EndGitHubDown, "The last answer had status 502.")
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var old struct { // as the version before reads it: it does not know the field
		ID    string            `json:"id"`
		State store.RunnerState `json:"state"`
	}
	if err := json.Unmarshal(b, &old); err != nil || old.ID != "r" || old.State != store.RunnerLaunched {
		t.Errorf("the version before reads %+v, %v", old, err)
	}
	var now store.Runner
	if err := json.Unmarshal([]byte(`{"id":"r","state":"launched"}`), &now); err != nil || now.Unminted != nil || now.ID != "r" {
		t.Errorf("a record of the version before is read as %+v, %v", now, err)
	}
	if b, err := json.Marshal(now); err != nil || strings.Contains(string(b), "unminted") {
		t.Errorf("a runner without a reason is written as %s, %v; want no new field", b, err)
	}
}
