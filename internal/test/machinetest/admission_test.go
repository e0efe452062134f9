//go:build linux

package machinetest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// webhookSecret is what GitHub signs its deliveries with.
var webhookSecret = secret.New("canary-webhook-secret")

// plainJob queues a job that names the label of all machines for workflow jobs, in a run
// of its own, and returns that run and GitHub's number of the job. back: no runner is
// given it.
func (w *world) plainJob(script string, is simgithub.Workflow, back bool) (run, job string) {
	w.Helper()
	run = w.broker.run(script)
	w.github.SetWorkflow(run, is)
	job, err := w.github.Queue(repository, simgithub.Job{RunID: run, Labels: []string{"garo"}, Back: back})
	if err != nil {
		w.Fatalf("queue a job: %v", err)
	}
	return run, job
}

// hook has GitHub tell that a job is queued, for which a machine is launched then.
func (w *world) hook(run, job string) {
	w.Helper()
	body := webhook.Body(webhook.Delivery{
		Action:     "queued",
		Repository: store.Repository{ID: "1001", Name: repository, OwnerID: "1", Owner: "acme"},
		Seen:       store.Sighting{Status: store.JobQueued, Job: store.WorkflowJob{ID: job, RunID: run, Attempt: 1, Labels: []string{"garo"}}},
	})
	req := httptest.NewRequest(http.MethodPost, "/github/webhook", bytes.NewReader(body))
	for name, value := range map[string]string{
		"Content-Type": "application/json", webhook.EventHeader: webhook.WorkflowJob, webhook.SignatureHeader: webhook.Sign(webhookSecret, body),
	} {
		req.Header.Set(name, value)
	}
	res := httptest.NewRecorder()
	if w.api.ServeHTTP(res, req); res.Code != http.StatusAccepted || !strings.Contains(res.Body.String(), `"accepted"`) {
		w.Fatalf("the webhook of job %s = %d %s, want it accepted", job, res.Code, res.Body)
	}
}

// A machine for a workflow job is given another one, as GitHub may whatever that is: the
// job is refused before its first step unless its run may have a machine, and as long as
// nobody can say that it may.
func TestMachineRefusesTheJobThatMayNotRunThere(t *testing.T) {
	t.Parallel()
	const secondRun = "7002" // of a world
	const ran = `curl -s --data-binary yes "$BROKER/said/ran"`
	noAnswer := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, "/admission") {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(res, req)
		})
	}
	for name, c := range map[string]struct {
		is    simgithub.Workflow
		api   func(http.Handler) http.Handler
		away  bool   // GitHub does not tell of the job's run
		why   string // on the machine's console
		noted string // what the machine reports beside its job
	}{
		"AFork":             {is: simgithub.Workflow{Head: "0"}, why: "fork"},
		"AnEventOfAnybody":  {is: simgithub.Workflow{Event: "issues"}, why: "issues"},
		"APublicRepository": {is: simgithub.Workflow{Public: true}, why: "public"},
		"TheAPIIsAway":      {api: noAnswer, why: "did not say in time", noted: ", note"},
		"GitHubIsAway":      {away: true, why: "did not say in time", noted: ", note"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{image: baked, api: c.api, offers: []store.Offer{{Labels: []string{"garo"}}}, fault: func(op string, r *http.Request) (f simgithub.Fault) {
				if c.away && op == simgithub.OpRun && strings.HasSuffix(r.URL.Path, "/"+secondRun) {
					f.Instead = simgithub.NoAnswer
				}
				return f
			}})
			if w == nil {
				return
			}
			w.hook(w.plainJob(ran, simgithub.Workflow{}, true)) // which has the machine launched
			m := w.machine(1)
			run, job := w.plainJob(ran, c.is, false)
			m.wantOff()
			m.see("allowed=false")
			m.see(c.why)
			w.wantHeard("booting, online, job_started " + run + c.noted + ", job_done")
			w.broker.mu.Lock()
			_, began := w.broker.said["ran"]
			w.broker.mu.Unlock()
			if began {
				t.Error("a step of the job ran on the machine")
			}
			all := w.github.Jobs()
			if i := slices.IndexFunc(all, func(j simgithub.Job) bool { return j.ID == job }); i < 0 || all[i].RunnerName == "" {
				t.Errorf("GitHub has %+v, want job %s given to the machine", all, job)
			}
		})
	}
}

// Jobs with the same labels take each other's machines, and run there.
func TestMachineRunsAnotherJobThatMayHaveOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked, offers: []store.Offer{{Labels: []string{"garo"}}}})
	if w == nil {
		return
	}
	w.hook(w.plainJob(`exit 1`, simgithub.Workflow{}, true))
	m := w.machine(1)
	w.plainJob(`curl -s --data-binary "$GITHUB_RUN_ID" "$BROKER/said/ran"`, simgithub.Workflow{Event: "schedule"}, false)
	w.told("ran")
	m.wantOff()
	m.see("allowed=true")
	if got := w.answered("POST admission"); len(got) == 0 {
		t.Error("the machine ran a job without asking")
	}
}

// Nobody guesses the label of a request's machine: it asks nobody, and an outage fails no
// job there.
func TestMachineWithALabelOfItsOwnDoesNotAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked, offers: []store.Offer{{Labels: []string{"garo"}}}})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	run := w.job(started.OwnLabel, `curl -s --data-binary yes "$BROKER/said/ran"`)
	w.told("ran")
	w.machine(1).wantOff()
	w.wantHeard("booting, online, job_started " + run + ", job_done")
	if got := w.answered("POST admission"); len(got) != 0 {
		t.Errorf("the machine asks %d times whether its job may run, want never", len(got))
	}
}
