package webhook

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Body returns the body of a delivery of a workflow job, with the fields that Read reads:
// what a simulated GitHub delivers. The ids of d have to be numbers.
func Body(d Delivery) []byte {
	host := d.Repository.Server
	if host == "" {
		host = "github.com"
	}
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	j := d.Seen.Job
	out := map[string]any{
		"action": d.Action,
		"repository": map[string]any{
			"id": json.Number(d.Repository.ID), "full_name": d.Repository.Name, "html_url": "https://" + strings.TrimPrefix(host, "token.actions.") + "/" + d.Repository.Name,
			"owner": map[string]any{"id": json.Number(d.Repository.OwnerID), "login": d.Repository.Owner},
		},
		"workflow_job": map[string]any{
			"id": json.Number(j.ID), "run_id": json.Number(j.RunID), "run_attempt": j.Attempt, "name": j.Name, "status": d.Seen.Status, "labels": j.Labels,
			"workflow_name": j.Workflow, "head_branch": j.HeadBranch, "html_url": j.URL, "conclusion": j.Conclusion,
			"runner_id": json.Number(strconv.FormatInt(d.Seen.Registration, 10)), "runner_name": d.Seen.Runner,
			"created_at": when(j.CreatedAt), "started_at": when(j.StartedAt), "completed_at": when(j.CompletedAt),
		},
	}
	if d.Installation != "" {
		out["installation"] = map[string]any{"id": json.Number(d.Installation)}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic("a delivery has an id that is no number: " + err.Error())
	}
	return b
}
