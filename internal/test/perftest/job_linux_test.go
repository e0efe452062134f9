package perftest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore/dynamostoretest"
)

// hookSecret is what the App signs its webhooks with.
var hookSecret = secret.New(strings.Repeat("w", 32))

// delivery is a webhook about a workflow job, as API Gateway hands it on.
func delivery(t *testing.T, a store.Account, seen store.Sighting) []byte {
	t.Helper()
	body := webhook.Body(webhook.Delivery{
		Action: string(seen.Status), Seen: seen,
		Repository: store.Repository{Server: a.Server, ID: a.Repositories[0].ID, Name: a.Repositories[0].Name, OwnerID: "1", Owner: "acme"},
	})
	e := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: "/github/webhook", Body: string(body), Headers: map[string]string{
		"host": "garo.test", "content-type": "application/json",
		strings.ToLower(webhook.EventHeader): webhook.WorkflowJob, strings.ToLower(webhook.SignatureHeader): webhook.Sign(hookSecret, body),
	}}
	e.RequestContext.HTTP.Method = http.MethodPost
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCallsOfAWorkflowJobGolden counts what a job costs that just names a label, in the
// built functions. From its webhook to a configured machine two calls more come one after
// another than from POST /start: a look for a machine that nobody counts on, and GitHub's
// word on the run and its jobs, which are read side by side.
func TestCallsOfAWorkflowJobGolden(t *testing.T) {
	server := awstest.DynamoDB(t)
	table := "garo-" + rand.Text()
	if err := dynamostoretest.Create(t.Context(), awstest.Config(t, server, "eu-west-2", "AKIDTEST"), table); err != nil {
		t.Fatal(err)
	}
	w, env := newWire(t, server.URL, plain)
	registration := strings.Replace(w.registration(), `"github": {}`, `"github": {}, "runs_on": [{"labels": ["garo"]}]`, 1)
	w.rest.Put("/garo/accounts/"+account, registration)
	w.rest.Put("/garo/webhook", `{"secrets": ["`+hookSecret.Reveal()+`"]}`)
	var a store.Account
	if err := json.Unmarshal([]byte(registration), &a); err != nil {
		t.Fatal(err)
	}
	env = append(env, "GARO_TABLE="+table)
	front, work := function(t, program(t, api), env, nil), function(t, program(t, worker), env, nil)
	w.setLatency(latency)

	var rows []row
	step := func(what string, b bounds, do func()) {
		t.Helper()
		w.counted()
		began := time.Now()
		do()
		rows = append(rows, row{what, w.counted(), time.Since(began), b})
	}
	deliver := func(want string, seen store.Sighting) func() {
		return func() {
			t.Helper()
			answer, err := front.Invoke(t.Context(), delivery(t, a, seen))
			if err != nil {
				t.Fatal(err)
			}
			var told apitype.Delivered
			if answered(t, answer, http.StatusAccepted, &told); told.Answer != want {
				t.Fatalf("the door answers %s of job %s with %+v, want %s", seen.Status, seen.Job.ID, told, want)
			}
		}
	}
	handle := func() { // the message that was sent last
		t.Helper()
		got, err := work.Invoke(t.Context(), batch(t, w.messages[len(w.messages)-1]))
		if err != nil || strings.Contains(string(got), "itemIdentifier") {
			t.Fatalf("worker = %s, %v; want the message done", got, err)
		}
	}
	queued := func(run string) store.Sighting {
		t.Helper()
		id, err := w.jobs.Queue(a.Repositories[0].ID, simgithub.Job{RunID: run, Labels: []string{"garo"}})
		if err != nil {
			t.Fatal(err)
		}
		return store.Sighting{Status: store.JobQueued, Job: store.WorkflowJob{ID: id, RunID: run, Attempt: 1, Labels: []string{"garo"}}}
	}
	deliver(apitype.DeliveryAccepted, queued("7001"))() // the first in each process
	handle()

	job := queued("7002")
	step("POST /github/webhook, queued", bounds{aws: 2, k: 2}, deliver(apitype.DeliveryAccepted, job))
	step("launch for a workflow job", bounds{aws: 7, github: 3, k: 8, launched: 6}, handle)
	registered := w.jobs.Registrations()
	r := registered[len(registered)-1]
	job.Status, job.Runner, job.Registration = store.JobInProgress, r.Name, r.ID
	step("POST /github/webhook, in progress", bounds{aws: 1, k: 1}, deliver(apitype.DeliveryTold, job))
	step("worker: a job began", bounds{aws: 2, k: 2}, handle)

	for _, r := range rows {
		t.Logf("%-40s %v", r.what, r.path)
		for _, fault := range r.beyond() {
			t.Error(fault)
		}
	}
	golden(t, "calls of a workflow job", trips(rows))
}
