//go:build linux

package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// jobWorld is a world whose account has machines for workflow jobs, and whose jobs run
// until one is let go.
func jobWorld(t *testing.T, registration map[string]any) *world {
	t.Helper()
	registration["runs_on"] = []any{map[string]any{"labels": []string{"garo"}}, map[string]any{"pin": "g-linux-"}}
	return newWorld(t, options{webhook: "webhook-" + rand.Text(), hold: make(chan struct{}), registration: registration})
}

// queueJob queues a workflow job at GitHub, and returns its id there.
func (w *world) queueJob(labels ...string) string {
	w.Helper()
	id, err := w.github.Queue(shop, simgithub.Job{RunID: "7001", Labels: labels})
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// jobAtGitHub returns what GitHub knows of a job.
func (w *world) jobAtGitHub(id string) simgithub.Job {
	w.Helper()
	all := w.github.Jobs()
	i := slices.IndexFunc(all, func(j simgithub.Job) bool { return j.ID == id })
	if i < 0 {
		w.Fatalf("GitHub does not know job %s", id)
	}
	return all[i]
}

// tell delivers what GitHub tells of a job as it stands, signed by the App, and returns
// the door's answer.
func (w *world) tell(id string) apitype.Delivered {
	w.Helper()
	j := w.jobAtGitHub(id)
	status := store.JobQueued
	switch j.State {
	case simgithub.Running:
		status = store.JobInProgress
	case simgithub.Done:
		status = store.JobCompleted
	}
	d := webhook.Delivery{
		Action: string(status),
		Repository: store.Repository{
			Server: strings.TrimPrefix(w.issuerURL, "http://"), ID: "1001", Name: shop, OwnerID: "1", Owner: "acme",
		},
		Seen: store.Sighting{Status: status, Job: store.WorkflowJob{
			ID: j.ID, RunID: j.RunID, Attempt: 1, Name: "build", Labels: j.Labels, CreatedAt: j.QueuedAt, StartedAt: j.StartedAt, CompletedAt: j.EndedAt,
		}},
	}
	if status.Begun() {
		d.Seen.Runner, d.Seen.Registration = j.RunnerName, j.RunnerID
	}
	if status == store.JobCompleted {
		d.Seen.Job.Conclusion = "success"
	}
	body := webhook.Body(d)
	code, answer := w.deliverWebhook(body, webhook.Sign(secret.New(w.opt.webhook), body))
	if code != http.StatusAccepted {
		w.Fatalf("the door answers %s of job %s with %d, want 202", status, id, code)
	}
	return answer
}

// deliverWebhook makes one delivery of a workflow job, and returns the door's answer.
func (w *world) deliverWebhook(body []byte, signature string) (status int, answer apitype.Delivered) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.url+"/github/webhook", bytes.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", webhook.EventHeader: webhook.WorkflowJob, webhook.DeliveryHeader: "e2e-1", webhook.SignatureHeader: signature,
	} {
		req.Header.Set(name, value)
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	if res.StatusCode < 300 {
		if err := json.Unmarshal(b, &answer); err != nil {
			w.Fatalf("the door answers %s: %v", b, err)
		}
	}
	return res.StatusCode, answer
}

// bootFor waits until the request of a job has a registered machine, and boots it.
func (w *world) bootFor(id string) store.Runner {
	w.Helper()
	run := w.configured(apitype.Started{ID: id})
	w.boot(home, run.InstanceID)
	return run
}

// runs waits until a job runs on a runner, and the runner's record says so.
func (w *world) runs(job string, run store.Runner) {
	w.Helper()
	w.eventually("job "+job+" runs on runner "+run.ID, func() bool {
		j := w.jobAtGitHub(job)
		now, err := store.Read[store.Runner](w.Context(), w.store, run.ID)
		if err != nil {
			w.Fatal(err)
		}
		return j.State == simgithub.Running && j.RunnerID == run.Config.RunnerID && now.State == store.RunnerBusy
	})
}

// endsWith waits until the job is done and the reaper has ended its machine.
func (w *world) endsWith(job, request string) {
	w.Helper()
	w.eventually("job "+job+" is done, and its machine ended", func() bool {
		w.reap()
		return w.jobAtGitHub(job).State == simgithub.Done && w.runner(apitype.Started{ID: request}).State == store.RunnerEnded
	})
	if w.jobAtGitHub(job).Refused {
		w.Errorf("job %s was refused on its machine, want it run", job)
	}
}

// A signed webhook is all that a plain runs-on needs: its job has a machine in the runner
// account, which registered what the job names; the request is ready when GitHub says
// that the job began there, and the machine ends with it.
func TestWebhookGetsItsJobAMachine(t *testing.T) {
	w := jobWorld(t, map[string]any{})
	w.poll()
	job := w.queueJob("garo", "linux", "self-hosted")
	body := []byte(`{"action":"queued"}`)
	if code, _ := w.deliverWebhook(body, webhook.Sign(secret.New("another secret"), body)); code != http.StatusUnauthorized {
		t.Errorf("a delivery with a strange signature = %d, want 401", code)
	}
	told := w.tell(job)
	if told.Answer != apitype.DeliveryAccepted || told.ID == "" {
		t.Fatalf("the door answers queued with %+v, want a request", told)
	}
	if again := w.tell(job); again.Answer != apitype.DeliveryKnown || again.ID != told.ID {
		t.Errorf("the door answers the same delivery again with %+v, want request %s, known", again, told.ID)
	}
	run := w.bootFor(told.ID)
	registered := w.github.Registrations()
	if len(registered) != 1 || !slices.Equal(registered[0].Labels, []string{"garo", "linux", "self-hosted"}) || registered[0].RepositoryID != "1001" {
		t.Errorf("GitHub has %+v, want one runner of the repository, with the job's labels and no other", registered)
	}
	if at := w.instances(w.runners, home); len(at) != 1 || *at[0].InstanceId != run.InstanceID {
		t.Errorf("the runner account has %+v, want the one machine %s", at, run.InstanceID)
	}
	w.runs(job, run)
	if r := w.request(told.ID); r.State != store.Waiting {
		t.Errorf("the request is %s before GitHub has told of its job's beginning, want waiting", r.State)
	}
	w.tell(job)
	w.eventually("the request is ready", func() bool { return w.request(told.ID).State == store.Ready })
	w.opt.hold <- struct{}{}
	w.endsWith(job, told.ID)
	if late := w.tell(job); late.Answer != apitype.DeliveryTold || late.ID != told.ID {
		t.Errorf("the door answers completed with %+v, want request %s, told", late, told.ID)
	}
	if now := w.runner(apitype.Started{ID: told.ID}); now.Took.Job != job || now.Took.Request != told.ID || now.Jobs != 1 {
		t.Errorf("the runner took %+v and ran %d jobs, want job %s alone", now.Took, now.Jobs, job)
	}
	w.wantAtRest()
}

// No webhook of a job ever comes: the reaper finds that it is queued, and later that it
// began on its machine.
func TestReaperHealsLostWebhooks(t *testing.T) {
	w := jobWorld(t, map[string]any{})
	w.poll()
	job := w.queueJob("g-linux-7001-1-build-0")
	w.reap()
	var request string
	w.eventually("the queued job has a request", func() bool {
		for item, err := range w.store.List(w.lasting, store.Filter{Kind: store.KindRequest}) {
			if err != nil {
				t.Fatal(err)
			}
			request = item.(*store.Request).ID
		}
		return request != ""
	})
	run := w.bootFor(request)
	w.runs(job, run)
	// A webhook counts as lost after a minute: it is made to be that long ago.
	edit(w, run.ID, func(r *store.Runner) { r.Job.StartedAt = time.Now().Add(-2 * time.Minute) })
	w.eventually("the request is ready", func() bool {
		w.reap()
		return w.request(request).State == store.Ready
	})
	w.opt.hold <- struct{}{}
	w.endsWith(job, request)
	w.wantAtRest()
}

// An organization is registered: the job of one of its repositories gets a machine whose
// runner is in the organization's group, with the job's labels.
func TestWebhookOfAnOrganizationGetsAMachineInItsGroup(t *testing.T) {
	w := jobWorld(t, map[string]any{
		"scope":        map[string]any{"kind": "organization", "id": "1", "name": "acme", "runner_group": "garo"},
		"repositories": []any{}, "modes": []string{store.Ephemeral},
	})
	w.poll()
	job := w.queueJob("garo")
	told := w.tell(job)
	run := w.bootFor(told.ID)
	registered := w.github.Registrations()
	if len(registered) != 1 || registered[0].OrganizationID != "1" || registered[0].Group != groupID || !slices.Equal(registered[0].Labels, []string{"garo"}) {
		t.Errorf("GitHub has %+v, want one runner in group %d of the organization, with the job's label", registered, groupID)
	}
	w.runs(job, run)
	w.tell(job)
	w.eventually("the request is ready", func() bool { return w.request(told.ID).State == store.Ready })
	w.opt.hold <- struct{}{}
	w.endsWith(job, told.ID)
	w.wantAtRest()
}
