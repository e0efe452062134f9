//go:build linux

package e2e

import (
	"net/http"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A whole organization is registered: a job of one of its repositories gets a machine
// whose runner is in the group, and not in the repository.
func TestMachineOfAnOrganizationIsInItsRunnerGroup(t *testing.T) {
	w := newWorld(t, options{registration: map[string]any{
		"scope":        map[string]any{"kind": "organization", "id": "1", "name": "acme", "runner_group": "garo"},
		"repositories": []any{}, "modes": []string{store.Ephemeral},
	}})
	w.poll()
	if status := w.call("POST", "/start", w.token("9001"), apitype.Start{Mode: store.Shared}, nil); status != http.StatusForbidden {
		t.Errorf("POST /start for a shared runner = %d, want 403", status)
	}
	s := w.ask("9001", apitype.Start{})
	run := w.configured(s)
	if run.Where() != (store.Scope{Server: run.Repository.Server, Kind: store.OrganizationScope, ID: "1", Name: "acme", Group: "garo"}) || run.Repository.ID != "1001" {
		t.Errorf("the record says that it registers in %+v for %+v, want the group, for the job's repository", run.Where(), run.Repository)
	}
	registered := w.github.Registrations()
	if len(registered) != 1 || registered[0].OrganizationID != "1" || registered[0].Group != groupID || registered[0].RepositoryID != "" {
		t.Errorf("GitHub has %+v, want one runner in group %d of the organization", registered, groupID)
	}
	w.boot(home, run.InstanceID)
	w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
	if _, err := w.github.Queue(shop, simgithub.Job{RunID: "7001", Labels: s.RunsOn}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the job is done, and the machine ended with it", func() bool {
		w.reap()
		return w.runner(s).State == store.RunnerEnded
	})
	if jobs := w.github.Jobs(); len(jobs) != 1 || jobs[0].State != simgithub.Done || jobs[0].Repository != shop {
		t.Errorf("jobs = %+v, want that of the repository, done", jobs)
	}
	w.wantAtRest()
}
