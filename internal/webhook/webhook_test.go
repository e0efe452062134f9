package webhook_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// GitHub's own example of a signature
// (https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation).
func TestSignaturesAreGitHubs(t *testing.T) {
	key, body := secret.New("It's a Secret to Everybody"), []byte("Hello, World!")
	const want = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	if got := webhook.Sign(key, body); got != want {
		t.Errorf("Sign = %s, want %s", got, want)
	}
	s, ok := webhook.ParseSignature(want)
	if !ok || !s.By(key, body) {
		t.Errorf("GitHub's own signature is refused")
	}
	for name, by := range map[string]bool{
		"another body": s.By(key, []byte("Hello, World")), "another key": s.By(secret.New("it's a Secret to Everybody"), body),
		"no key": s.By(secret.Text{}, body), "no signature": webhook.Signature{}.By(key, body),
	} {
		if by {
			t.Errorf("the signature counts for %s", name)
		}
	}
	empty, _ := webhook.ParseSignature(webhook.Sign(secret.Text{}, body))
	if empty.By(secret.Text{}, body) {
		t.Error("a body that is signed with no key is believed")
	}
	for _, header := range []string{"", "sha256=", want[:len(want)-1], want + "0", strings.ToUpper(want), strings.TrimPrefix(want, "sha256="), "sha1=" + strings.TrimPrefix(want, "sha256="), " " + want} {
		if _, ok := webhook.ParseSignature(header); ok {
			t.Errorf("%q counts as a signature", header)
		}
	}
}

// examples are payloads that were collected from GitHub: @octokit/webhooks-examples 7.6.1.
func examples(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	b, err := os.ReadFile("testdata/octokit-webhooks-examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryExampleOfGitHubsIsRead(t *testing.T) {
	jobs, others := 0, 0
	for name, body := range examples(t) {
		event := strings.Split(name, "/")[1]
		d, err := webhook.Read(event, body)
		if err != nil || d.Event != event {
			t.Errorf("%s: Read = %+v, %v; want the event %s", name, d, err, event)
			continue
		}
		if event != webhook.WorkflowJob {
			others++
			continue
		}
		jobs++
		var p struct {
			Action     string `json:"action"`
			Repository struct {
				FullName string `json:"full_name"`
			} `json:"repository"`
			Job struct {
				ID     json.Number `json:"id"`
				Run    json.Number `json:"run_id"`
				Status string      `json:"status"`
				Labels []string    `json:"labels"`
				Runner string      `json:"runner_name"`
			} `json:"workflow_job"`
		}
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatal(err)
		}
		if d.Action != p.Action || d.Repository.Name != p.Repository.FullName || d.Seen.Job.ID != p.Job.ID.String() ||
			d.Seen.Job.RunID != p.Job.Run.String() || string(d.Seen.Status) != p.Job.Status || len(d.Seen.Job.Labels) != len(p.Job.Labels) || d.Seen.Runner != p.Job.Runner {
			t.Errorf("%s: Read = %+v, want what it says", name, d)
		}
	}
	if jobs != 11 || others != 29 {
		t.Errorf("%d workflow jobs and %d others were read, want 11 and 29", jobs, others)
	}
}

const job = `{"action":"queued","installation":{"id":77},
	"repository":{"id":1001,"full_name":"acme/shop","html_url":"https://github.com/acme/shop","owner":{"id":5,"login":"acme"}},
	"workflow_job":{"id":21,"run_id":20,"run_attempt":2,"name":"build","status":"queued","conclusion":null,"labels":["garo"],"workflow_name":"CI",
		"head_branch":"main","html_url":"https://github.com/acme/shop/actions/runs/20/job/21","created_at":"2026-11-30T09:00:00Z","started_at":null,
		"runner_id":null,"runner_name":null}}`

func TestWhatIsReadOfAJob(t *testing.T) {
	d, err := webhook.Read(webhook.WorkflowJob, []byte(job))
	if err != nil {
		t.Fatal(err)
	}
	if want := (store.Repository{ID: "1001", Name: "acme/shop", OwnerID: "5", Owner: "acme"}); d.Repository != want {
		t.Errorf("repository = %+v, want %+v", d.Repository, want)
	}
	got := d.Seen
	want := store.WorkflowJob{
		ID: "21", RunID: "20", Attempt: 2, Name: "build", Labels: []string{"garo"}, Workflow: "CI", HeadBranch: "main",
		URL: "https://github.com/acme/shop/actions/runs/20/job/21", CreatedAt: time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC),
	}
	if !equal(got.Job, want) || got.Status != store.JobQueued || got.Runner != "" || got.Registration != 0 || got.Read || d.Installation != "77" || d.Action != "queued" {
		t.Errorf("read %+v of installation %q; want %+v", got, d.Installation, want)
	}
	for host, server := range map[string]string{"github.com": "", "ghe.example:8443": "ghe.example:8443", "octo.ghe.com": "token.actions.octo.ghe.com"} {
		d, err := webhook.Read(webhook.WorkflowJob, []byte(strings.Replace(job, "https://github.com/acme/shop\"", "https://"+host+"/acme/shop\"", 1)))
		if err != nil || d.Repository.Server != server {
			t.Errorf("a repository at %s is of server %q, %v; want %q", host, d.Repository.Server, err, server)
		}
	}
}

func equal(a, b store.WorkflowJob) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func TestAFieldThatIsNeededAndWrongIsNamed(t *testing.T) {
	for _, c := range []struct{ old, new, field string }{
		{`"action":"queued"`, `"action":7`, "action"},
		{`"action":"queued",`, ``, "action"},
		{`"id":77`, `"id":"77"`, "installation.id"},
		{`"id":77`, `"id":0`, "installation.id"},
		{`"id":1001`, `"id":1001.5`, "repository.id"},
		{`"id":1001`, `"id":-1`, "repository.id"},
		{`"id":5,`, ``, "repository.owner.id"},
		{`"full_name":"acme/shop"`, `"full_name":"shop"`, "repository.full_name"},
		{`"full_name":"acme/shop"`, `"full_name":"acme/../x"`, "repository.full_name"},
		{`"html_url":"https://github.com/acme/shop"`, `"html_url":"acme"`, "repository.html_url"},
		{`"id":21`, `"id":"21"`, "workflow_job.id"},
		{`"id":21,`, ``, "workflow_job.id"},
		{`"run_id":20`, `"run_id":0`, "workflow_job.run_id"},
		{`"run_attempt":2`, `"run_attempt":-2`, "workflow_job.run_attempt"},
		{`"labels":["garo"]`, `"labels":"garo"`, "workflow_job.labels"},
		{`"labels":["garo"]`, `"labels":null`, "workflow_job.labels"},
		{`"runner_id":null`, `"runner_id":-4`, "workflow_job.runner_id"},
		{`"2026-11-30T09:00:00Z"`, `"yesterday"`, "workflow_job"},
		{`"workflow_job":`, `"check_run":`, "repository, workflow_job"},
		{job, `[]`, "body"},
		{job, `{`, "body"},
		{job, "{\"action\":\"queued\"}\xff", "body"},
	} {
		_, err := webhook.Read(webhook.WorkflowJob, []byte(strings.Replace(job, c.old, c.new, 1)))
		unreadable, ok := errors.AsType[*webhook.UnreadableError](err)
		if !ok || unreadable.Field != c.field || unreadable.Text == "" {
			t.Errorf("%s for %s: error %v; want the field %s in it", c.new, c.old, err, c.field)
		}
	}
	if _, err := webhook.Read("check_run", []byte("{")); err != nil {
		t.Errorf("an event that is not ours is read: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(webhook.WorkflowJob, []byte(job))
	for name, body := range examples(f) {
		f.Add(strings.Split(name, "/")[1], []byte(body))
	}
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		d, err := webhook.Read(event, body)
		if _, ok := errors.AsType[*webhook.UnreadableError](err); err != nil && !ok {
			t.Fatalf("error %v; want one that names a field", err)
		}
		if err == nil && event == webhook.WorkflowJob && (d.Repository.ID == "" || d.Repository.OwnerID == "" || d.Seen.Job.ID == "" || d.Seen.Job.RunID == "" || d.Action == "") {
			t.Fatalf("%s was read without an id: %+v", body, d)
		}
	})
}

// What is delivered by ourselves reads as GitHub's own.
func TestABodyIsReadAsItWasMeant(t *testing.T) {
	for _, change := range []string{"", "github.com>ghe.example:8443", "github.com>octo.ghe.com"} {
		text := job
		if from, to, ok := strings.Cut(change, ">"); ok {
			text = strings.Replace(job, "https://"+from+"/acme/shop\"", "https://"+to+"/acme/shop\"", 1)
		}
		want, err := webhook.Read(webhook.WorkflowJob, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := webhook.Read(webhook.WorkflowJob, webhook.Body(want))
		if err != nil || !equal(got.Seen.Job, want.Seen.Job) || got.Repository != want.Repository || got.Installation != want.Installation || got.Action != want.Action || got.Seen.Status != want.Seen.Status {
			t.Errorf("read %+v, %v; want %+v", got, err, want)
		}
	}
}
