package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestAdmit(t *testing.T) {
	ours := store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7"}
	asked := store.Admission{Repository: ours, RunID: "8", Attempt: 2}
	for _, c := range []struct {
		name            string
		edit            func(*store.Runner, *store.Admission)
		answered, allow bool
		writes, sends   int
	}{
		{"AnOlderVersionWroteTheRecord", func(r *store.Runner, _ *store.Admission) { r.For = "" }, false, false, 1, 1},
		{"TheRunOfSuchARecord", func(r *store.Runner, q *store.Admission) { r.For, q.RunID = "", "7" }, true, true, 0, 0},
		{"TheRunItWasLaunchedFor", func(_ *store.Runner, q *store.Admission) { q.RunID = "7" }, true, true, 0, 0},
		{"ThatRunInAnotherRepository", func(_ *store.Runner, q *store.Admission) { q.RunID, q.Repository.ID = "7", "43" }, false, false, 1, 1},
		{"ThatRunAtAnotherServer", func(_ *store.Runner, q *store.Admission) { q.RunID, q.Repository.Server = "7", "ghe.example" }, false, false, 1, 1},
		{"AnotherRun", func(*store.Runner, *store.Admission) {}, false, false, 1, 1},
		{"SoonAgain", func(r *store.Runner, _ *store.Admission) {
			r.Admission = asked
			r.Admission.AskedAt, r.Admission.Times = t0.Add(-2*time.Second), 1
		}, false, false, 0, 0},
		{"AgainSinceTheMessageMayBeLost", func(r *store.Runner, _ *store.Admission) {
			r.Admission = asked
			r.Admission.AskedAt, r.Admission.Times = t0.Add(-3*time.Second), 2
		}, false, false, 1, 1},
		{"TooOften", func(r *store.Runner, _ *store.Admission) {
			r.Admission = asked
			r.Admission.AskedAt, r.Admission.Times = t0.Add(-time.Minute), 3
		}, false, false, 0, 0},
		{"Allowed", func(r *store.Runner, _ *store.Admission) {
			r.Admission = asked
			r.Admission.Answered, r.Admission.Allowed = true, true
		}, true, true, 0, 0},
		{"Refused", func(r *store.Runner, _ *store.Admission) {
			r.Admission = asked
			r.Admission.Answered, r.Admission.Reason = true, "no"
		}, true, false, 0, 0},
		{"AThirdRun", func(r *store.Runner, q *store.Admission) {
			r.Admission = asked
			r.Admission.Answered, r.Admission.Allowed, q.RunID = true, true, "9"
		}, true, false, 0, 0},
		{"TheAnswerIsNotTheMachines", func(_ *store.Runner, q *store.Admission) { q.Answered, q.Allowed = true, true }, false, false, 1, 1},
	} {
		r, q := store.Runner{ID: "run1", For: "r1", RunID: "7", Repository: ours, State: store.RunnerOnline}, asked
		r.Version = 3
		c.edit(&r, &q)
		d, got := store.Admit(store.Case{Runner: r}, t0, q)
		if got.Answered != c.answered || got.Allowed != c.allow || len(d.Changes) != c.writes || len(d.Sends) != c.sends {
			t.Errorf("%s: Admit = %+v with %d changes and %d messages; want answered %t, allowed %t, %d, %d", c.name, got, len(d.Changes), len(d.Sends), c.answered, c.allow, c.writes, c.sends)
		}
		if got.Answered && !got.Allowed && got.Reason == "" {
			t.Errorf("%s: refused without a reason", c.name)
		}
	}
}

func TestAnswerIsGivenOnce(t *testing.T) {
	r := store.Runner{ID: "run1", For: "r1", Admission: store.Admission{RunID: "8", Attempt: 1}}
	r.Version = 3
	refused := store.Answer(store.Case{Runner: r}, t0, "a fork").Runner
	if a := refused.Admission; !a.Answered || a.Allowed || a.Reason != "a fork" || a.Pending() {
		t.Errorf("refused = %+v", a)
	}
	if d := store.Answer(store.Case{Runner: refused}, t0, ""); len(d.Changes) != 0 {
		t.Errorf("a second answer changes %+v", d.Runner.Admission)
	}
	if a := store.Answer(store.Case{Runner: r}, t0, "").Runner.Admission; !a.Answered || !a.Allowed {
		t.Errorf("allowed = %+v", a)
	}
	if d := store.Answer(store.Case{Runner: store.Runner{ID: "run1"}}, t0, ""); len(d.Changes) != 0 {
		t.Error("an answer to nobody writes")
	}
}
