package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var askedJob = apitype.Admission{RepositoryID: "1001", Repository: "alphagov/demo", OwnerID: "55", RunID: "7001", Attempt: 1}

// jobMachine is the machine of a job of run 7001, online.
func jobMachine(t *testing.T) (*world, *machine) {
	t.Helper()
	w := doorWorld(t, nil)
	got := w.deliver("workflow_job", aJob{}.body(t, "queued"), appSecret).delivered(t)
	m := w.online(got.ID)
	w.sent = nil
	return w, m
}

func (m *machine) asks(q apitype.Admission) (answer, apitype.Admitted) {
	m.Helper()
	a := m.post("admission", q)
	var got apitype.Admitted
	if a.status == http.StatusOK {
		if err := json.Unmarshal(a.body, &got); err != nil {
			m.Fatal(err)
		}
	}
	return a, got
}

func TestMachinesOfJobsAreToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := jobMachine(t)
		if !m.booted.Asks {
			t.Error("the machine of a job is not to ask")
		}
		w := newWorld(t)
		if m := w.machineFor(w.start(workflowToken, apitype.Start{Mode: store.Ephemeral}).ID); m.booted.Asks {
			t.Error("the machine of an own label is to ask")
		}
	})
}

// The policy was asked about the run that the machine was launched for.
func TestAJobOfTheSameRunMayRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := jobMachine(t)
		calls := w.counted(func() {
			if a, got := m.asks(askedJob); !got.Allowed {
				t.Errorf("the same run = %d %s, want that it may", a.status, a.body)
			}
		})
		if calls != "get 1" {
			t.Errorf("it makes the calls %s, want one read", calls)
		}
	})
}

func TestAJobOfAnotherRunWaitsForAWorker(t *testing.T) {
	for name, no := range map[string]string{"Allowed": "", "Refused": "The account does not allow plain jobs of forks."} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, m := jobMachine(t)
				q := askedJob
				q.RunID = "8002"
				a, _ := m.asks(q)
				if a.status != http.StatusTooEarly || a.header.Get("Retry-After") != "1" || len(w.sent) != 1 || w.sent[0].Message != (queue.Message{Kind: queue.Resume, ID: m.id, Trace: w.runner(m.id).Trace}) {
					t.Fatalf("another run = %d %s, sent %+v; want 425, and a worker to be sent", a.status, a.body, w.sent)
				}
				if a, _ := m.asks(q); a.status != http.StatusTooEarly || len(w.sent) != 1 {
					t.Errorf("again at once = %d, %d messages; want 425 and none more", a.status, len(w.sent))
				}
				time.Sleep(3 * time.Second)
				if m.asks(q); len(w.sent) != 2 {
					t.Errorf("%d messages after three seconds, want a second one: the first may be lost", len(w.sent))
				}
				w.apply(store.Answer(store.Case{Runner: w.runner(m.id)}, time.Now(), no))
				if a, got := m.asks(q); got.Allowed != (no == "") || got.Reason != no || a.status != http.StatusOK {
					t.Errorf("answered = %d %s, want %q", a.status, a.body, no)
				}
				other := q
				other.RunID = "8003"
				if _, got := m.asks(other); got.Allowed || !strings.Contains(got.Reason, "another run") {
					t.Errorf("a third run = %+v, want that it may not", got)
				}
			})
		})
	}
}

func TestQuestionsThatCannotBeMeantAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := jobMachine(t)
		for field, edit := range map[string]func(*apitype.Admission){
			"repository_id": func(q *apitype.Admission) { q.RepositoryID = "" },
			"owner_id":      func(q *apitype.Admission) { q.OwnerID = "x" },
			"run_id":        func(q *apitype.Admission) { q.RunID = "7001; id" },
			"repository":    func(q *apitype.Admission) { q.Repository = "demo" },
			"attempt":       func(q *apitype.Admission) { q.Attempt = 0 },
		} {
			q := askedJob
			edit(&q)
			if a, _ := m.asks(q); a.status != http.StatusUnprocessableEntity || a.problem(t).Field != field {
				t.Errorf("%s: %d %s; want 422 that names it", field, a.status, a.body)
			}
		}
		if a := w.raw("POST", "/runners/"+m.id+"/admission", "garo_s_"+strings.Repeat("x", 43), askedJob); a.status != http.StatusUnauthorized {
			t.Errorf("with another's session = %d, want 401", a.status)
		}
		if len(w.sent) != 0 {
			t.Errorf("sent %+v, want nothing", w.sent)
		}
	})
}
