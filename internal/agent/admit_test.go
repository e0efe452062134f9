package agent

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var question = ProgramEvent{Kind: Asks, Job: apitype.Admission{RepositoryID: "1001", Repository: "acme/shop", OwnerID: "55", RunID: "77", Attempt: 1}}

func TestAJobWaitsForTheAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		edit    func(*world)
		asked   int // calls
		after   time.Duration
		answer  string // a part of it, from its beginning
		noteFor bool   // the record gets a note
	}{
		{"Allowed", func(w *world) { w.admitted.Allowed = true }, 1, 0, "true", false},
		{"Refused", func(w *world) { w.admitted.Reason = "Not yours." }, 1, 0, "false Not yours.", false},
		{"Later", func(w *world) {
			w.admitted.Allowed, w.answers = true, []int{http.StatusTooEarly, http.StatusTooEarly}
		}, 3, 4 * time.Second, "true", false},
		{"Throttled", func(w *world) { w.admitted.Allowed, w.answers = true, []int{http.StatusTooManyRequests} }, 2, time.Second, "true", false},
		{"OutageThatPasses", func(w *world) { w.admitted.Allowed, w.answers = true, []int{0, http.StatusServiceUnavailable} }, 3, 3 * time.Second, "true", false},
		{"OutageThatLasts", func(w *world) { w.answers = slices.Repeat([]int{http.StatusServiceUnavailable}, 100) }, -1, store.AdmitWithin, "false The control plane did not say in time", true},
		{"NeverSure", func(w *world) { w.answers = slices.Repeat([]int{http.StatusTooEarly}, 100) }, -1, store.AdmitWithin, "false The control plane did not say in time", true},
		{"APIOfBefore", func(w *world) { w.answers = []int{http.StatusNotFound} }, 1, 0, "false The control plane refuses the question", false},
		{"OddQuestion", func(w *world) { w.answers = []int{http.StatusUnprocessableEntity} }, 1, 0, "false The control plane refuses the question", false},
		{"SessionThatIsRefused", func(w *world) { w.answers = []int{http.StatusUnauthorized} }, 1, 0, "false The control plane refuses the question", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				w.asks = true
				w.boot()
				w.connect()
				if !w.hold {
					t.Error("the runner program was started without a job that waits")
				}
				c.edit(w)
				w.happen(question)
				if c.after > 0 {
					w.later(c.after - time.Millisecond)
					if c.after == store.AdmitWithin && len(w.program.answer) != 0 {
						t.Errorf("the job heard %q before its time was up", w.program.answer)
					}
					w.later(time.Millisecond)
				}
				if got := w.program.answer; len(got) != 1 || !strings.HasPrefix(got[0], c.answer) {
					t.Errorf("the job heard %q, want %q once", got, c.answer)
				}
				calls := w.of("admission")
				if c.asked >= 0 && len(calls) != c.asked || len(calls) > 12 {
					t.Errorf("%d calls, want %d", len(calls), c.asked)
				}
				if calls[0].job != question.Job {
					t.Errorf("asked about %+v, want %+v", calls[0].job, question.Job)
				}
				w.answers = nil
				w.later(time.Minute)
				if noted := slices.ContainsFunc(w.events, func(e apitype.Event) bool { return strings.Contains(e.Detail, "run 77") }); noted != c.noteFor {
					t.Errorf("noted = %t, want %t: %s", noted, c.noteFor, w.said())
				}
			})
		})
	}
}

// Reports that are behind do not hold up a job, and nor does a call that gets no answer.
func TestAQuestionGoesBeforeReports(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.asks = true
		w.boot()
		w.connect()
		w.admitted.Allowed = true
		before := len(w.calls)
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "77"}, question)
		if got := w.calls[before:]; len(got) < 2 || !slices.ContainsFunc(got[:2], func(c call) bool { return c.path == "admission" }) {
			t.Errorf("calls %+v, want the question among the first two", got)
		}
	})
}

func TestMachinesOfOwnLabelsDoNotAsk(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		if w.hold {
			t.Error("a job was to ask")
		}
		w.happen(question)
		w.later(time.Minute)
		if calls := w.of("admission"); len(calls) != 0 || len(w.program.answer) != 0 {
			t.Errorf("%d calls and answers %q, want none", len(calls), w.program.answer)
		}
	})
}

// The program tells a new process of the agent again that its job waits.
func TestAnAgentThatStartsAgainAsksAgain(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.asks = true
		w.boot()
		w.connect()
		w.answers = slices.Repeat([]int{http.StatusTooEarly}, 100)
		w.happen(question)
		w.later(3 * time.Second)
		w.kill()
		w.answers, w.admitted.Allowed = nil, true
		w.boot()
		w.later(time.Second)
		if got := w.program.answer; len(got) != 1 || got[0] != "true" {
			t.Errorf("the job heard %q, want that it may run, once", got)
		}
	})
}

func TestAProgramThatExitsIsNotAnswered(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.asks = true
		w.boot()
		w.connect()
		w.answers = []int{http.StatusTooEarly}
		w.happen(question)
		w.exit(0)
		w.later(time.Minute)
		if len(w.program.answer) != 0 || w.off == "" {
			t.Errorf("told %q, powered off %q; want nothing, and off", w.program.answer, w.off)
		}
		<-w.ended
		w.ended <- nil
	})
}
