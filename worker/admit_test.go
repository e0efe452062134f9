package worker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// asksAbout has the machine of a queued job's request ask about a job of another run.
func (w *world) asksAbout(job int64, q store.Admission) queue.Message {
	w.Helper()
	r := w.queues(job)
	w.start(r)
	machine := w.runnerOf(r.ID)
	d, _ := store.Admit(store.Case{Runner: machine}, time.Now(), q)
	if len(d.Sends) != 1 {
		w.Fatalf("a question sends %d messages, want 1", len(d.Sends))
	}
	w.apply(d)
	return queue.Of(d.Sends[0])
}

func TestAJobThatTookAMachineIsLetInByThePolicyOfItsRun(t *testing.T) {
	ours := store.Repository{ID: "7", Name: "acme/shop", OwnerID: "1"}
	for _, c := range []struct {
		name  string
		edit  func(*world, *store.Admission)
		want  string // in the reason; empty: allowed
		quiet bool   // no answer at all
	}{
		{"AnotherRunOfTheRepository", func(*world, *store.Admission) {}, "", false},
		{"Fork", func(w *world, _ *store.Admission) {
			w.github.runs[2002] = github.Run{ID: 2002, Attempt: 1, Event: "pull_request", HeadRepository: 99}
		}, "fork's code", false},
		{"ForkThatIsGone", func(w *world, _ *store.Admission) {
			w.github.runs[2002] = github.Run{ID: 2002, Attempt: 1, Event: "pull_request"}
		}, "fork's code", false},
		{"EventOfStrangers", func(w *world, _ *store.Admission) {
			w.github.runs[2002] = github.Run{ID: 2002, Attempt: 1, Event: "issue_comment", HeadRepository: 7}
		}, "issue_comment", false},
		{"NoSuchRun", func(w *world, _ *store.Admission) { delete(w.github.runs, 2002) }, "no such run", false},
		{"AnotherRepository", func(_ *world, q *store.Admission) { q.Repository.ID, q.Repository.OwnerID = "8", "1" }, "registered elsewhere", false},
		{"OfferIsGone", func(w *world, _ *store.Admission) {
			a := w.accounts[account]
			a.RunsOn = []store.Offer{{Labels: []string{"other"}}}
			w.accounts[account] = a
		}, "runs_on", false},
		{"AccountIsGone", func(w *world, _ *store.Admission) { delete(w.accounts, account) }, "not registered", false},
		{"GitHubIsAway", func(w *world, _ *store.Admission) { w.github.silent = errors.New("502") }, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.offers()
				w.github.runs[2002] = github.Run{ID: 2002, Attempt: 1, Event: "push", HeadRepository: 7}
				q := store.Admission{Repository: ours, RunID: "2002", Attempt: 1}
				edited := q
				message := queue.Message{}
				if c.name == "AnotherRepository" {
					c.edit(w, &edited)
					message = w.asksAbout(21, edited)
				} else {
					message = w.asksAbout(21, q)
					c.edit(w, &q)
				}
				w.handle(message)
				got := get[store.Runner](w, message.ID).Admission
				switch {
				case c.quiet && !got.Pending():
					t.Errorf("answered %+v though GitHub did not tell", got)
				case c.quiet:
				case !got.Answered || got.Allowed != (c.want == "") || !strings.Contains(got.Reason, c.want):
					t.Errorf("answered %+v, want %q", got, c.want)
				}
			})
		})
	}
}
