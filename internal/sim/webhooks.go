package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
)

// deliver has webhooks sent. Nobody waits for them.
func (f *workflows) deliver(j github.Job) {
	id := strconv.FormatInt(j.ID, 10)
	at := []time.Duration{0}
	if f.w.cfg.Webhook != nil {
		at = f.w.cfg.Webhook(id, j.Status)
	}
	if len(at) == 0 && f.w.cfg.Logged != nil && f.w.cfg.Logged(id, j.Status) {
		f.w.GitHub.Deliver(simgithub.Delivery{Code: http.StatusBadGateway, Event: webhook.WorkflowJob, Action: j.Status, Repository: setting.RepositoryID})
	}
	if f.w.cfg.Nameless != nil && f.w.cfg.Nameless(id, j.Status) {
		j.RunnerID, j.RunnerName = 0, ""
	}
	body := payload(j)
	for n, after := range at {
		f.w.Go(func() {
			time.Sleep(after + time.Duration(j.ID%97+int64(n))*time.Microsecond) // so that they have one order
			code := f.post(body)
			f.w.GitHub.Deliver(simgithub.Delivery{Code: code, Event: webhook.WorkflowJob, Action: j.Status, Repository: setting.RepositoryID})
		})
	}
}

// payload is the body of a webhook, as GitHub has it.
func payload(j github.Job) []byte {
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	owner, _ := strconv.ParseInt(setting.Organization.ID, 10, 64) // they are numbers
	repo, _ := strconv.ParseInt(setting.RepositoryID, 10, 64)
	b, err := json.Marshal(map[string]any{
		"action": j.Status,
		"workflow_job": map[string]any{
			"id": j.ID, "run_id": j.RunID, "run_attempt": j.Attempt, "name": j.Name, "status": j.Status, "conclusion": j.Conclusion,
			"labels": j.Labels, "workflow_name": j.Workflow, "head_branch": j.HeadBranch, "runner_id": j.RunnerID, "runner_name": j.RunnerName,
			"created_at": when(j.CreatedAt), "started_at": when(j.StartedAt), "completed_at": when(j.CompletedAt),
		},
		"repository": map[string]any{
			"id": repo, "full_name": setting.Repository, "html_url": "https://github.com/" + setting.Repository,
			"owner": map[string]any{"id": owner, "login": setting.Organization.Name},
		},
	})
	if err != nil {
		panic(err) // numbers and texts always marshal
	}
	return b
}

// post makes one delivery, and returns the status that answered it; 0: there was none.
// GitHub does nothing about one that is refused but to write it down.
func (f *workflows) post(body []byte) (status int) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, setting.URL+"/github/webhook", bytes.NewReader(body))
	if err != nil {
		f.w.Error(err)
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.EventHeader, webhook.WorkflowJob)
	req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret.New(webhookSecret), body))
	res, err := (door{f.w, kernel.GitHub}).RoundTrip(req)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}
