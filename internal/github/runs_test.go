package github_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var shopJobs = github.Repository{ID: "101", Name: "acme/shop", Account: account}

// queue queues a job of run 7 in the shop, and returns its id.
func (w world) queue(j simgithub.Job) int64 {
	w.t.Helper()
	if j.RunID == "" {
		j.RunID = "7"
	}
	j.Labels, j.Duration = []string{"garo"}, time.Minute
	id, err := w.Queue("101", j)
	if err != nil {
		w.t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscan(id, &n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestRunIsReadWithWhatIsDecidedByIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{})
		c := client(t, s.Handler())
		s.queue(simgithub.Job{})
		want := github.Run{ID: 7, Attempt: 1, Status: github.StatusQueued, Event: "push", Actor: "octocat", Triggered: "octocat", HeadRepository: 101,
			HeadBranch: "main", Path: ".github/workflows/ci.yml", URL: "https://github.com/acme/shop/actions/runs/7", CreatedAt: time.Now().UTC(), Repository: "acme/shop", OwnerID: 1}
		got, err := c.Run(t.Context(), shopJobs, 7)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("Run: %v (-want +got):\n%s", err, d)
		}
		s.SetWorkflow("7", simgithub.Workflow{Event: "pull_request", Actor: "mallory", Head: "102", Branch: "refs", Attempt: 3, Public: true})
		want.Event, want.Actor, want.Triggered, want.HeadRepository, want.HeadBranch, want.Attempt, want.Public = "pull_request", "mallory", "mallory", 102, "refs", 3, true
		got, err = c.Run(t.Context(), shopJobs, 7)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("Run of a fork: %v (-want +got):\n%s", err, d)
		}
		_, err = c.Run(t.Context(), shopJobs, 8)
		failed(t, "Run that is not there", err, github.ErrNotFound)
		_, err = c.Run(t.Context(), github.Repository{ID: "102", Name: "acme/other", Account: account}, 7)
		failed(t, "Run of another repository", err, github.ErrNotFound)
		for _, id := range []int64{0, -7} {
			_, err = c.Run(t.Context(), shopJobs, id)
			failed(t, "Run of no id", err, github.ErrRefused)
		}
	})
}

// A fork that was deleted is null, which GitHub's description does not have.
func TestForkThatWasDeletedHasNoID(t *testing.T) {
	s := open(t, simgithub.Config{})
	s.queue(simgithub.Job{})
	s.SetWorkflow("7", simgithub.Workflow{Head: "0"})
	if got, err := client(t, s.Server.Handler()).Run(t.Context(), shopJobs, 7); err != nil || got.HeadRepository != 0 {
		t.Errorf("Run = %+v, %v; want no head repository", got, err)
	}
}

func TestJobsOfAMatrixTakeThreeCalls(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	var ids []int64
	for range 256 {
		ids = append(ids, s.queue(simgithub.Job{}))
	}
	s.queue(simgithub.Job{RunID: "8"})
	jobs, err := c.RunJobs(t.Context(), shopJobs, 7)
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, j := range jobs {
		got = append(got, j.ID)
	}
	if n := s.Calls()[simgithub.OpRunJobs]; !slices.Equal(got, ids) || n != 3 {
		t.Errorf("RunJobs = %d jobs in %d calls, want the 256 of the run in 3", len(got), n)
	}
}

func TestJobIsShownAsItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{Lost: time.Hour})
		c := client(t, s.Handler())
		m, err := c.Mint(t.Context(), repo, "r", []string{"garo"})
		if err != nil {
			t.Fatal(err)
		}
		held := s.queue(simgithub.Job{Back: true, Held: github.StatusWaiting})
		limited := s.queue(simgithub.Job{Back: true})
		runs := s.queue(simgithub.Job{})
		cancelled := s.queue(simgithub.Job{})
		x, err := s.Connect(t.Context(), m.Config.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now().UTC()
		if _, err := x.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.CancelJob(fmt.Sprint(cancelled)); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[int64]github.Job{
			held:      {Status: github.StatusWaiting},
			limited:   {Status: github.StatusQueued},
			runs:      {Status: github.StatusInProgress, RunnerID: m.RunnerID, RunnerName: "r"},
			cancelled: {Status: github.StatusCompleted, Conclusion: "cancelled", CompletedAt: began},
		} {
			want.ID, want.RunID, want.Attempt, want.Labels, want.Workflow, want.HeadBranch, want.CreatedAt, want.StartedAt = id, 7, 1, []string{"garo"}, "ci", "main", began, began
			want.Name, want.URL = fmt.Sprint("job ", id), fmt.Sprintf("https://github.com/acme/shop/actions/runs/7/job/%d", id)
			got, err := c.Job(t.Context(), shopJobs, id)
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Errorf("Job: %v (-want +got):\n%s", err, d)
			}
		}
		if r, err := c.Run(t.Context(), shopJobs, 7); err != nil || r.Status != github.StatusInProgress {
			t.Errorf("the run is %s, %v; want in_progress though jobs of it are queued", r.Status, err)
		}
		_, err = c.Job(t.Context(), shopJobs, 999)
		failed(t, "Job that is not there", err, github.ErrNotFound)
	})
}

func TestRunsOfAStatusAreAThousandAtMost(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	for n := range 1050 {
		s.queue(simgithub.Job{RunID: fmt.Sprint(1000 + n)})
	}
	s.queue(simgithub.Job{RunID: "9", Back: true, Held: github.StatusPending})
	var got []int64
	for r, err := range c.Runs(t.Context(), shopJobs, github.StatusQueued) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.ID)
	}
	if n := s.Calls()[simgithub.OpRuns]; len(got) != 1000 || got[0] != 2049 || got[999] != 1050 || n != 10 {
		t.Errorf("Runs = %d in %d calls, want the newest 1,000 in 10", len(got), n)
	}
	for r, err := range c.Runs(t.Context(), shopJobs, github.StatusPending) {
		if err != nil || r.ID != 9 {
			t.Errorf("Runs that are pending = %+v, %v; want run 9", r, err)
		}
	}
}

func TestCancelledRunIsCancelledOnce(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	s.queue(simgithub.Job{})
	if err := c.Cancel(t.Context(), shopJobs, 7); err != nil {
		t.Fatal(err)
	}
	if jobs := s.Jobs(); jobs[0].State != simgithub.Cancelled {
		t.Errorf("the job is %s, want cancelled", jobs[0].State)
	}
	e := failed(t, "Cancel again", c.Cancel(t.Context(), shopJobs, 7), github.ErrConflict)
	if e.Status != http.StatusConflict || e.Said == "" {
		t.Errorf("Cancel again = %v, want GitHub's 409 in its words", e)
	}
	failed(t, "Cancel of no run", c.Cancel(t.Context(), shopJobs, 99), github.ErrNotFound)
}

func TestRunOfAnotherRepositoryIsNoAnswer(t *testing.T) {
	for name, body := range map[string]string{
		"Run":        `{"id":7,"event":"push","status":"queued","repository":{"id":102}}`,
		"NoEvent":    `{"id":7,"status":"queued","repository":{"id":101,"full_name":"acme/shop","owner":{"id":1}}}`,
		"AnotherRun": `{"id":8,"event":"push","status":"queued","repository":{"id":101,"full_name":"acme/shop","owner":{"id":1}}}`,
		"NoOwner":    `{"id":7,"event":"push","status":"queued","repository":{"id":101,"full_name":"acme/shop"}}`,
		"NoName":     `{"id":7,"event":"push","status":"queued","repository":{"id":101,"owner":{"id":1}}}`,
		"Nothing":    `null`,
	} {
		_, err := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })).Run(t.Context(), shopJobs, 7)
		failed(t, name, err, github.ErrUnknown)
	}
	_, err := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"jobs":[{"id":1,"run_id":8,"status":"queued"}]}`))
	})).RunJobs(t.Context(), shopJobs, 7)
	failed(t, "RunJobs with a job of another run", err, github.ErrUnknown)
}

func TestDeliveriesAreReadFromTheNewestBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{})
		_, c := holding(t, s.Handler(), appCredential, p)
		s.Deliver(simgithub.Delivery{Code: 202, Event: "workflow_job", Action: "queued", Repository: "101"})
		time.Sleep(3 * 24 * time.Hour) // and it is forgotten
		var last int64
		for range 150 {
			last = s.Deliver(simgithub.Delivery{Code: 502, Event: "workflow_job", Action: "queued", Repository: "101"})
		}
		got, next, err := c.Deliveries(t.Context(), account, "")
		if err != nil || len(got) != 100 || next == "" {
			t.Fatalf("Deliveries = %d and %q, %v; want a page of 100, and the name of the next", len(got), next, err)
		}
		more, end, err := c.Deliveries(t.Context(), account, next)
		if err != nil || end != "" {
			t.Fatalf("Deliveries of %q lead on to %q, %v; want the end", next, end, err)
		}
		got = append(got, more...)
		want := github.Delivery{ID: last, GUID: fmt.Sprintf("00000000-0000-0000-0000-%012d", last), At: time.Now().UTC(), Event: "workflow_job", Action: "queued", Repository: 101, Installation: 9}
		if len(got) != 150 || got[0] != want || got[149].ID != last-149 {
			t.Errorf("Deliveries = %d, the first %+v; want 150, from %+v back", len(got), got[0], want)
		}
		if n := s.Calls()[simgithub.OpToken]; n != 0 || s.Calls()[simgithub.OpDeliveries] != 2 {
			t.Errorf("calls = %v, want 2 as the App itself, and no token", s.Calls())
		}
		s.Deliver(simgithub.Delivery{Code: 202, Event: "ping"})
		if got, _, err := c.Deliveries(t.Context(), account, ""); err != nil || !got[0].OK || got[0].Repository != 0 {
			t.Errorf("Deliveries begin with %+v, %v; want the ping", got[0], err)
		}
	})
}

func TestCallsOfTheAppItselfCountApart(t *testing.T) {
	reset := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	c, err := github.New(github.Config{
		BaseURL: "https://github.test", Share: 1,
		Token: func(context.Context, github.Access) (secret.Text, error) { return secret.New(token), nil },
		HTTP: memhttp.Client(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left, body := "5000", `{"id":1,"name":"r","status":"online"}`
			if strings.HasPrefix(r.URL.Path, "/app/") {
				left, body = "1", "[]"
			}
			w.Header().Set("X-Ratelimit-Limit", "5000")
			w.Header().Set("X-Ratelimit-Remaining", left)
			w.Header().Set("X-Ratelimit-Reset", reset)
			_, _ = io.WriteString(w, body)
		})),
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func() (err error) {
		_, _, err = c.Deliveries(t.Context(), account, "")
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, github.ErrLimited) {
		t.Errorf("Deliveries while one call is left = %v, want %v", err, github.ErrLimited)
	}
	if _, err := c.Get(t.Context(), repo, 1); err != nil {
		t.Errorf("Get while the App itself has no calls left: %v", err)
	}
}

func TestDeliveriesTakeAnApp(t *testing.T) {
	s := open(t, simgithub.Config{})
	p := &parameters{}
	p.set(account, "/github/runner/pat", token)
	_, c := holding(t, s.Handler(), store.GitHubCredential{}, p)
	if _, _, err := c.Deliveries(t.Context(), account, ""); !errors.Is(err, github.ErrDenied) {
		t.Errorf("Deliveries with a personal access token = %v, want %v", err, github.ErrDenied)
	}
	if n := s.Calls()[simgithub.OpDeliveries]; n != 0 {
		t.Errorf("%d calls, want none", n)
	}
}

func TestOneTokenReadsTheJobsOfAllRepositoriesAndCancelsNone(t *testing.T) {
	s, p := withApp(t, simgithub.Config{})
	_, c := holding(t, s.Handler(), appCredential, p)
	s.queue(simgithub.Job{})
	for _, r := range []github.Repository{shopJobs, {ID: "102", Name: "acme/other", Account: account}} {
		for _, err := range c.Runs(t.Context(), r, github.StatusQueued) {
			if err != nil {
				t.Errorf("Runs of %s: %v", r.Name, err)
			}
		}
	}
	if n := s.Calls()[simgithub.OpToken]; n != 1 {
		t.Errorf("%d tokens for two repositories, want one for the installation", n)
	}
	if err := c.Cancel(t.Context(), shopJobs, 7); err != nil {
		t.Errorf("Cancel: %v", err)
	}
	if n := s.Calls()[simgithub.OpToken]; n != 2 {
		t.Errorf("%d tokens, want another one to cancel, for the repository", n)
	}
}
