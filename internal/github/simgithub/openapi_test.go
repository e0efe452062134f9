package simgithub

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub/contract"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
)

func TestAnswersAreAsDocumented(t *testing.T) {
	key, public := newKey(t)
	end := time.Date(2026, 11, 5, 8, 4, 55, 0, time.UTC)
	w := open(t, Config{Organizations: []Organization{acme}, Rules: Rules{App: App{ID: 7, Installation: 9, Key: public},
		Deprecations: map[string]Deprecation{"2.300.0": {Registration: end, Runtime: end}}}})
	description := contract.Load(t, "testdata/github-openapi.json")
	client := memhttp.Client(description.Handler(t, w.Handler()))
	bearer := token
	call := func(method, path, body string, status int) {
		t.Helper()
		r := request(t.Context(), method, path, body)
		r.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != status {
			t.Fatalf("%s %s = %d %s, %v; want %d", method, path, resp.StatusCode, b, err, status)
		}
	}
	const path = "/repos/acme/shop/actions/runners"
	const mint = path + "/generate-jitconfig"

	call("GET", path, "", 200)
	call("POST", mint, mintBody("r1", "garo-x", "big"), 201)
	call("POST", mint, mintBody("r1", "x"), 409)
	call("POST", mint, mintBody("r 1", "x"), 422)
	call("POST", mint, `{"name":"r","runner_group_id":1,"labels":[]}`, 422)
	call("POST", strings.Replace(mint, "shop", "none", 1), mintBody("r1", "x"), 404)
	one := fmt.Sprintf("%s/%d", path, w.Registrations()[0].ID)
	call("GET", one, "", 200)
	call("GET", path+"?per_page=1&page=1&name=r1", "", 200)
	call("POST", mint, mintBody("r2", "x"), 201)
	call("GET", path+"?per_page=1", "", 200)

	x := w.connect(w.Registrations()[0].Config.Reveal())
	w.queue("1", "GARO-X")
	j := take(t, x)
	call("GET", one, "", 200)
	call("DELETE", one, "", 422)
	if err := x.Done(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	call("GET", one, "", 404)
	call("DELETE", one, "", 404)
	call("DELETE", fmt.Sprintf("%s/%d", path, w.Registrations()[0].ID), "", 204)
	call("GET", path+"/downloads", "", 200)
	call("GET", path+"/deprecations/"+ProgramVersion, "", 200)
	call("GET", path+"/deprecations/2.300.0", "", 200)
	call("GET", path+"/deprecations/9.9.9", "", 404)
	for _, f := range []Refusal{RunnersForbidden, NoPermission, NoAccess, ActionsDisabled, LabelRefused} {
		w.Change(func(r *Rules) { r.RefuseMint = &f })
		call("POST", mint, mintBody("r3", "x"), f.Status)
	}
	w.Change(func(r *Rules) { r.RefuseMint, r.GroupLimit = nil, 1 })
	call("POST", mint, mintBody("r3", "x"), 201)
	call("POST", mint, mintBody("r4", "x"), 422)
	if err := w.Rename("101", "acme/market"); err != nil {
		t.Fatal(err)
	}
	call("GET", path+"/downloads", "", 301)
	call("POST", mint, mintBody("r5", "x"), 307)
	call("GET", "/repositories/101/actions/runners/downloads", "", 200)
	call("GET", "/rate_limit", "", 200)

	const runners = "/orgs/acme/actions/runners"
	call("GET", "/orgs/acme/actions/runner-groups?per_page=1", "", 200)
	call("GET", "/organizations/55/actions/runner-groups", "", 200)
	call("GET", "/orgs/acme/actions/runner-groups/7/repositories?per_page=1", "", 200)
	call("POST", runners+"/generate-jitconfig", groupBody("r1", 7, "x"), 201)
	call("POST", runners+"/generate-jitconfig", groupBody("r1", 7, "x"), 409)
	call("POST", runners+"/generate-jitconfig", groupBody("r2", 6, "x"), 422)
	call("POST", "/orgs/none/actions/runners/generate-jitconfig", groupBody("r2", 7, "x"), 404)
	call("GET", runners+"?per_page=1&name=r1", "", 200)
	all := w.Registrations()
	one = fmt.Sprintf("%s/%d", runners, all[len(all)-1].ID)
	call("GET", one, "", 200)
	call("DELETE", one, "", 204)
	call("GET", runners+"/downloads", "", 200)
	call("GET", runners+"/deprecations/"+ProgramVersion, "", 200)

	job, err := w.Queue("101", Job{RunID: "77", Labels: []string{"none"}})
	if err != nil {
		t.Fatal(err)
	}
	call("GET", "/repos/acme/market/actions/runs?status=queued&per_page=1", "", 200)
	call("GET", "/repositories/101/actions/runs/77", "", 200)
	call("GET", "/repositories/101/actions/runs/77/jobs?filter=latest", "", 200)
	call("GET", "/repositories/101/actions/jobs/"+job, "", 200)
	call("GET", "/repositories/101/actions/jobs/999", "", 404)
	call("GET", "/repositories/101/actions/runs/78", "", 404)
	call("POST", "/repositories/101/actions/runs/77/cancel", "", 202)
	call("POST", "/repositories/101/actions/runs/77/cancel", "", 409)
	call("GET", "/repositories/101/actions/jobs/"+job, "", 200)
	call("GET", "/repos/acme/shop/actions/runs", "", 301)
	call("GET", "/app/hook/deliveries", "", 401)

	const tokens = "/app/installations/9/access_tokens"
	call("POST", tokens, tokenBody(101), 401)
	bearer = prove(t, key, 7, 0, 0)
	call("POST", tokens, tokenBody(101), 201)
	call("POST", tokens, tokenBody(999), 422)
	w.Deliver(Delivery{Code: 502, Event: "workflow_job", Action: "queued", Repository: "101"})
	w.Deliver(Delivery{Event: "ping"})
	call("GET", "/app/hook/deliveries?per_page=1", "", 200)
	call("POST", tokens, `{"permissions":{"actions":"read"}}`, 201)
	call("POST", tokens, `{"permissions":{"organization_self_hosted_runners":"write"}}`, 201)
	call("POST", "/app/installations/8/access_tokens", tokenBody(101), 404)

	if got := description.Seen(); !slices.Equal(got, description.Operations()) {
		t.Errorf("called %v, want all of %v", got, description.Operations())
	}
}
