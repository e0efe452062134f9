package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// plain is the case of the request for a workflow job, accepted.
func plain(id, job string) store.Request {
	c := wishes(store.Ephemeral)
	c.Request.Labels = []string{"garo"}
	c.Request.Job = store.WorkflowJob{ID: job, RunID: "1001", Attempt: 1, Labels: []string{"garo"}}
	r := c.Accept(t0, identity(id, 0)).Request
	r.Version = 1
	return r
}

// runnerOf is a runner for the request of a workflow job, as stage has it; its machine's
// registration is number 9, by the first name.
func runnerOf(t *testing.T, as func(*testing.T, string) stage, of store.Request) store.Runner {
	t.Helper()
	run := as(t, store.Ephemeral).run
	run.Request, run.For, run.Labels, run.Lock = of.ID, of.ID, of.Labels, of.LockKey()
	if run.Config.N > 0 {
		run.Config.RunnerID = 9
	}
	return run
}

// waits is a request that waits for a runner.
func waits(r store.Request, run store.Runner) store.Request {
	r.State, r.Runner = store.Waiting, run.ID
	return r
}

// on is what GitHub says of a job that is on registration 9 of a runner.
func on(job string, status store.JobStatus, run store.Runner) store.Sighting {
	return store.Sighting{
		Job: store.WorkflowJob{ID: job, RunID: "1001", StartedAt: at(time.Minute)}, Status: status,
		Runner: store.GitHubNameFor("test", run.ID, run.Config.N), Registration: 9,
	}
}

func read(s store.Sighting) store.Sighting {
	s.Read = true
	return s
}

func TestOnlyNameAndNumberTogetherProveARunner(t *testing.T) {
	run := runnerOf(t, online, plain("r1", "21"))
	s := on("21", store.JobInProgress, run)
	for name, c := range map[string]struct {
		edit func(*store.Sighting, *store.Runner)
		want bool
	}{
		"both":                      {func(*store.Sighting, *store.Runner) {}, true},
		"ended":                     {func(_ *store.Sighting, r *store.Runner) { r.State = store.RunnerEnded }, true},
		"another's number":          {func(s *store.Sighting, _ *store.Runner) { s.Registration = 10 }, false},
		"no number":                 {func(s *store.Sighting, r *store.Runner) { s.Registration, r.Config.RunnerID = 0, 0 }, false},
		"another config's name":     {func(s *store.Sighting, _ *store.Runner) { s.Runner = store.GitHubNameFor("test", "x1", 2) }, false},
		"another control plane's":   {func(s *store.Sighting, _ *store.Runner) { s.Runner = store.GitHubNameFor("prod", "x1", 1) }, false},
		"no name":                   {func(s *store.Sighting, _ *store.Runner) { s.Runner = "" }, false},
		"a runner without a record": {func(_ *store.Sighting, r *store.Runner) { r.Version = 0 }, false},
	} {
		s, run := s, run
		c.edit(&s, &run)
		if got := s.Proves("test", run); got != c.want {
			t.Errorf("%s: Proves = %v, want %v", name, got, c.want)
		}
	}
	for name, want := range map[string]string{
		"garo-test-x1-1": "x1", "garo-test-x1": "", "garo-test--1": "", "garo-prod-x1-1": "", "x1": "", "": "", "garo-test-x1-": "",
	} {
		if got, ok := store.RunnerNamed("test", name); ok != (want != "") || ok && got != want {
			t.Errorf("RunnerNamed(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestHeard(t *testing.T) {
	now := at(10 * time.Minute)
	for _, c := range []struct {
		name string
		// a is the request of job 21, r the runner for request b of job 22, if the sighting
		// names one of ours.
		edit    func(a *store.Request, r *store.Runner)
		seen    func(r store.Runner) (s store.Sighting, on bool)
		heard   store.Hearing
		state   store.RequestState
		took    string
		changes string
		sends   string
		alarm   store.Alarm
	}{
		{
			name: "BeganOnAnothersMachine", heard: store.HeardBegan, state: store.Ready, took: "21", changes: "put request, put runner", sends: "runner x1 due 10m0s",
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "BeganOnItsOwnMachine", heard: store.HeardBegan, state: store.Ready, took: "21", changes: "put request, put runner",
			edit: func(a *store.Request, r *store.Runner) { r.For = a.ID; *a = waits(*a, *r) },
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "CompletedBeforeAnybodyHeardThatItBegan", heard: store.HeardBegan, state: store.Ready, took: "21", changes: "put request, put runner", sends: "runner x1 due 10m0s",
			edit: func(_ *store.Request, r *store.Runner) { r.State = store.RunnerEnded },
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobCompleted, r), true },
		},
		{
			name: "BeganThoughItCountedAsOver", heard: store.HeardBegan, state: store.Ready, took: "21", changes: "put request, put runner", sends: "runner x1 due 10m0s",
			edit: func(a *store.Request, _ *store.Runner) { a.State = store.Cancelled },
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "HeardAgain", heard: store.HeardNothing, state: store.Ready, took: "21",
			edit: func(a *store.Request, r *store.Runner) {
				a.State, a.Runner, r.Took = store.Ready, r.ID, store.Took{Job: "21", Request: "r1"}
				a.Job.TakenBy, a.Job.StartedAt = store.GitHubNameFor("test", "x1", 1), at(time.Minute)
			},
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "ForbiddenStaysSo", heard: store.HeardNothing, state: store.Failed, took: "21", changes: "put request, put runner", sends: "runner x1 due 10m0s",
			edit: func(a *store.Request, _ *store.Runner) {
				a.State, a.Error = store.Failed, &store.Failure{Code: store.CodeForbidden}
			},
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "AJobThatIsNoneOfOurs", heard: store.HeardNothing, took: "21", changes: "put runner", sends: "runner x1 due 10m0s",
			edit: func(a *store.Request, _ *store.Runner) { *a = store.Request{} },
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "ASecondJobOfOneMachine", heard: store.HeardTwice, state: store.Accepted, took: "23", alarm: store.AlarmTwoJobs,
			edit: func(_ *store.Request, r *store.Runner) { r.Took = store.Took{Job: "23"} },
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), true },
		},
		{
			name: "NamelessProvesNothing", heard: store.HeardUnsure, state: store.Accepted,
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobInProgress}, false
			},
		},
		{
			name: "AWebhookEndsNothing", heard: store.HeardUnsure, state: store.Accepted,
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21", Conclusion: "cancelled"}, Status: store.JobCompleted}, false
			},
		},
		{
			name: "NorDoesANameAlone", heard: store.HeardUnsure, state: store.Accepted,
			seen: func(r store.Runner) (store.Sighting, bool) { return on("21", store.JobInProgress, r), false },
		},
		{
			name: "RunsNobodyKnowsWhere", heard: store.HeardNothing, state: store.Accepted,
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobInProgress, Read: true}, false
			},
		},
		{
			name: "RunsElsewhere", heard: store.HeardOver, state: store.Cancelled, changes: "put request",
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobInProgress, Runner: "hers", Registration: 3, Read: true}, false
			},
		},
		{
			name: "Cancelled", heard: store.HeardOver, state: store.Cancelled, changes: "put request",
			edit: func(a *store.Request, r *store.Runner) { *a = waits(*a, *r) },
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21", Conclusion: "cancelled"}, Status: store.JobCompleted, Read: true}, false
			},
		},
		{
			name: "OverAgain", heard: store.HeardNothing, state: store.Ready,
			edit: func(a *store.Request, _ *store.Runner) { a.State = store.Ready },
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobCompleted, Read: true}, false
			},
		},
		{
			name: "WaitsForAnEnvironment", heard: store.HeardHeld, state: store.Accepted, changes: "put request",
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobWaiting, Read: true}, false
			},
		},
		{
			name: "AnOldWebhookHoldsNothing", heard: store.HeardNothing, state: store.Accepted,
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobWaiting}, false
			},
		},
		{
			name: "WaitsThoughItsMachineIsThere", heard: store.HeardNothing, state: store.Waiting,
			edit: func(a *store.Request, r *store.Runner) { *a = waits(*a, *r) },
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobPending, Read: true}, false
			},
		},
		{
			name: "Queued", heard: store.HeardNothing, state: store.Accepted,
			seen: func(store.Runner) (store.Sighting, bool) {
				return store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobQueued, Read: true}, false
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, run := plain("r1", "21"), runnerOf(t, online, plain("r2", "22"))
			if c.edit != nil {
				c.edit(&a, &run)
			}
			s, proved := c.seen(run)
			cs := store.Case{Request: a}
			if proved {
				cs.Runner = run
			}
			d, heard := store.Heard(cs, now, lim, s, proved)
			if heard != c.heard || d.Request.State != c.state || d.Runner.Took.Job != c.took {
				t.Errorf("Heard = %s, the request %s, the runner took %q; want %s, %s, %q", heard, d.Request.State, d.Runner.Took.Job, c.heard, c.state, c.took)
			}
			if got, want := outcomeOf(d), (outcome{changes: c.changes, sends: c.sends, alarm: c.alarm}); got != want {
				t.Errorf("the decision is %+v,\nwant %+v", got, want)
			}
			if heard == store.HeardBegan && (d.Request.Runner != run.ID || d.Runner.Took.Request != a.ID || !d.Runner.Took.At.Equal(now) || d.Request.Job.TakenBy != s.Runner) {
				t.Errorf("began: runner %q, took %+v, taken by %q", d.Request.Runner, d.Runner.Took, d.Request.Job.TakenBy)
			}
			if d.Runner.For != cs.Runner.For {
				t.Errorf("the runner is for %q, want it for %q as before", d.Runner.For, cs.Runner.For)
			}
			if heard == store.HeardOver && (d.Request.Error == nil || d.Request.Error.Text == "" || d.Request.DueAt != (time.Time{})) {
				t.Errorf("over: error %v, due at %v; want a reason, and never", d.Request.Error, d.Request.DueAt)
			}
		})
	}
}

func TestAJobsEndIsToldOnce(t *testing.T) {
	a := plain("r1", "21")
	run := runnerOf(t, online, a)
	a = waits(a, run)
	d, _ := store.Heard(store.Case{Request: a, Runner: run}, at(time.Minute), lim, on("21", store.JobInProgress, run), true)
	done := on("21", store.JobCompleted, run)
	done.Job.Conclusion, done.Job.CompletedAt = "success", at(2*time.Minute)
	d, _ = store.Heard(*d.Case, at(2*time.Minute), lim, done, true)
	if told(d.Changes) != "put request" || d.Request.Job.Conclusion != "success" || d.Request.State != store.Ready {
		t.Errorf("%s, conclusion %q, %s; want the request put, success, ready", told(d.Changes), d.Request.Job.Conclusion, d.Request.State)
	}
	done.Job.Conclusion = "failure"
	if d, _ = store.Heard(*d.Case, at(3*time.Minute), lim, done, true); len(d.Changes) > 0 || d.Request.Job.Conclusion != "success" {
		t.Errorf("told twice: %s, conclusion %q", told(d.Changes), d.Request.Job.Conclusion)
	}
}

func TestAHeldJobIsAskedAboutEverMoreRarely(t *testing.T) {
	waiting := read(store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobWaiting})
	r, now := plain("r1", "21"), at(0)
	var pauses []string
	for range 7 {
		d, _ := store.Heard(store.Case{Request: r}, now, lim, waiting, false)
		if r = d.Request; r.Wait != store.WaitHeld || d.Sends != nil {
			t.Fatalf("waits for %q, sends %v; want %s, and no message: the reaper wakes it", r.Wait, d.Sends, store.WaitHeld)
		}
		pauses = append(pauses, r.DueAt.Sub(now).String())
		now = r.DueAt
	}
	if got, want := strings.Join(pauses, " "), "30s 30s 1m0s 2m0s 4m0s 8m0s 10m0s"; got != want {
		t.Errorf("pauses %s, want %s", got, want)
	}
	if d, out := (store.Case{Request: r}).ReviewRequest(now, lim); out != store.Resent || len(d.Sends) != 1 {
		t.Errorf("review when it is due: %q, %d messages; want it sent again", out, len(d.Sends))
	}
	d, h := store.Heard(store.Case{Request: r}, now, lim, read(store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobQueued}), false)
	if h != store.HeardAgain || d.Request.Wait != "" || len(d.Sends) != 1 || d.Request.LockKey() != r.LockKey() {
		t.Errorf("queued at last: %s, waits for %q, %d messages, lock %s; want it taken up now, for the same launch", h, d.Request.Wait, len(d.Sends), d.Request.LockKey())
	}
	if !r.WaitsUntil().IsZero() {
		t.Errorf("WaitsUntil = %v, want nothing: nobody knows", r.WaitsUntil())
	}
}

func TestAQueuedJobWhoseRequestIsOverIsAcceptedAgain(t *testing.T) {
	queued := read(store.Sighting{Job: store.WorkflowJob{ID: "21"}, Status: store.JobQueued})
	over := plain("r1", "21")
	over.State, over.EndedAt, over.TTL, over.Error = store.Cancelled, at(0), 99, &store.Failure{Code: "job_over"}
	hear := func(r store.Request, now time.Time) (store.Decision, store.Hearing) {
		return store.Heard(store.Case{Request: r}, now, lim, queued, false)
	}
	d, h := hear(over, at(time.Minute))
	if h != store.HeardNothing || d.Request.State != store.Cancelled {
		t.Fatalf("first = %s, %s; want nothing yet: GitHub's answers may be old", h, d.Request.State)
	}
	if d, h = hear(d.Request, at(time.Minute+59*time.Second)); h != store.HeardNothing || len(d.Changes) > 0 {
		t.Fatalf("too early = %s, %s; want nothing", h, told(d.Changes))
	}
	d, h = hear(d.Request, at(2*time.Minute))
	r := d.Request
	if h != store.HeardAgain || r.State != store.Accepted || r.TTL != 0 || r.Error != nil || !r.EndedAt.IsZero() || r.LockKey() != "r1/2" || outcomeOf(d).sends != "request r1 due 2m0s" {
		t.Errorf("second = %s: %s, ttl %d, error %v, lock %s, sends %s; want it accepted for another launch", h, r.State, r.TTL, r.Error, r.LockKey(), outcomeOf(d).sends)
	}
	for _, code := range []string{store.CodeForbidden, store.CodeNotOffered} {
		over.State, over.Error, over.QueuedAt = store.Failed, &store.Failure{Code: code}, at(0)
		if d, h := hear(over, at(time.Hour)); h != store.HeardNothing || len(d.Changes) > 0 {
			t.Errorf("%s = %s, %s; want it to stay so", code, h, told(d.Changes))
		}
	}
}
