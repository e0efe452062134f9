package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

func TestStartBeyondTheOpenRequestsIsRefusedWithTheNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		account := w.accounts.byID[accountID]
		account.MaxOpenRequests = 3
		w.accounts.byID[accountID] = account
		var ids []string
		for i := range 3 {
			ids = append(ids, w.start(workflowToken, apitype.Start{IdempotencyKey: fmt.Sprint(i)}).ID)
		}
		var a answer
		if got := w.counted(func() { a = w.raw("POST", "/start", workflowToken, apitype.Start{IdempotencyKey: "more"}) }); strings.Contains(got, "commit") || strings.Contains(got, "send") {
			t.Errorf("calls beyond the bound = %s, want nothing written or sent", got)
		}
		p := a.problem(t)
		if a.status != http.StatusTooManyRequests || p.Code != apitype.CodeThrottled || !strings.Contains(p.Detail, "3 requests of alphagov/demo") || a.header.Get("Retry-After") != "5" {
			t.Errorf("start = %d %s, Retry-After %q; want 429 with the number", a.status, a.body, a.header.Get("Retry-After"))
		}
		if a := w.raw("POST", "/start", workflowToken, apitype.Start{IdempotencyKey: "0"}); a.status != http.StatusAccepted || field(t, a, "id") != ids[0] {
			t.Errorf("the first one again = %d %s, want its record", a.status, a.body)
		}
		w.start(otherToken, apitype.Start{}) // another repository has room
		if a := w.raw("POST", "/start", operatorToken, apitype.Start{Repo: "alphagov/demo"}); a.status != http.StatusTooManyRequests {
			t.Errorf("start of an operator for the same repository = %d, want 429", a.status)
		}
		if a := w.raw("POST", "/stop/"+ids[1], workflowToken, nil); a.status != http.StatusAccepted {
			t.Fatalf("stop = %d %s", a.status, a.body)
		}
		time.Sleep(5 * time.Second)
		w.start(workflowToken, apitype.Start{IdempotencyKey: "more"})
	})
}

func TestStartIsNotHeldUpByACountThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		account := w.accounts.byID[accountID]
		account.MaxOpenRequests = 20
		w.accounts.byID[accountID] = account
		w.fate = func(op string, _ int) storetest.Fate {
			if op == "count" {
				return storetest.FailBefore
			}
			return storetest.Pass
		}
		w.start(workflowToken, apitype.Start{})
		if len(w.logged("open requests not counted")) != 1 {
			t.Error("no warning says that the open requests were not counted")
		}
	})
}

func TestReplayAfterTheDefaultMarketChangedGetsItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.start(workflowToken, apitype.Start{IdempotencyKey: "k"})
		account := w.accounts.byID[accountID]
		account.Markets, account.Modes, account.MaxTimeoutS = []string{store.OnDemand, store.Spot}, []string{store.Ephemeral, store.Shared}, 600
		account.DefaultRegion = "eu-west-1"
		w.accounts.byID[accountID] = account
		if again := w.start(workflowToken, apitype.Start{IdempotencyKey: "k"}); again.ID != first.ID || again.OwnLabel != first.OwnLabel {
			t.Errorf("the replay gets %+v, want the record of %+v", again, first)
		}
		if a := w.raw("POST", "/start", workflowToken, apitype.Start{IdempotencyKey: "k", Type: store.OnDemand}); a.status != http.StatusConflict {
			t.Errorf("another wish under the same key = %d, want 409", a.status)
		}
	})
}

func TestEventThatStrangersCauseIsRefusedByItsNameAndTheField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		account := w.accounts.byID[accountID]
		account.Allow.PublicRepositories = true
		for event, field := range map[string]string{
			"issues": "allow.events", "discussion_comment": "allow.events", "fork": "allow.events", "watch": "allow.events",
			"issue_comment": "allow.issue_comment", "pull_request_target": "allow.pull_request_target",
		} {
			w.accounts.byID[accountID] = account
			caller := workflow
			caller.Claims.Event, caller.Claims.Visibility = event, "public"
			w.github.callers[workflowToken] = caller
			body := apitype.Start{Mode: store.Ephemeral, IdempotencyKey: event}
			if got := w.counted(func() {
				a := w.raw("POST", "/start", workflowToken, body)
				if p := a.problem(t); a.status != http.StatusForbidden || !strings.Contains(p.Detail, event) || !strings.Contains(p.Detail, field) {
					t.Errorf("start of a run of %s = %d %s, want 403 that names it and %s", event, a.status, a.body, field)
				}
			}); got != "" {
				t.Errorf("a refused event calls %s, want nothing", got)
			}
			opted := account
			opted.Allow.Events = []string{event}
			w.accounts.byID[accountID] = opted
			if a := w.raw("POST", "/start", workflowToken, body); a.status != http.StatusAccepted {
				t.Errorf("start of a run of %s, opted in = %d %s, want 202", event, a.status, a.body)
			}
		}
	})
}

func TestWorkflowStartsWithDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		got := w.start(workflowToken, apitype.Start{Labels: []string{" Build ", "arm64", "build"}})
		if got.State != "accepted" || !slices.Equal(got.Labels, []string{"arm64", "build"}) || !slices.Equal(got.RunsOn, []string{got.OwnLabel}) {
			t.Errorf("Start = %+v; want it accepted, with canonical labels and its own label to run on", got)
		}
		if want := base + "/status/" + got.ID; got.StatusURL != want {
			t.Errorf("status_url = %s, want %s", got.StatusURL, want)
		}
		r := w.request(got.ID)
		if r.State != store.Accepted || r.Account != accountID || r.Region != region || r.Type != store.Spot || r.Mode != store.Shared ||
			r.Spec != "default" || r.TimeoutS != 3600 || r.GiveUpAt.Sub(r.CreatedAt) != 15*time.Minute || r.Caller != "github octocat" {
			t.Errorf("record = %+v; want the account's defaults", r)
		}
		if want := (store.Repository{ID: "1001", Name: "alphagov/demo", OwnerID: "55", Owner: "alphagov"}); r.Repository != want {
			t.Errorf("repository = %+v, want %+v", r.Repository, want)
		}
		if want := (store.Origin{RunID: "7001", RunAttempt: "1", CheckRunID: "9001", Actor: "octocat", Event: "push", Ref: "refs/heads/main", Workflow: "Build"}); r.Origin != want {
			t.Errorf("origin = %+v, want %+v", r.Origin, want)
		}
		if want := (sent{queue.StartOf(r), 0}); len(w.sent) != 1 || w.sent[0] != want {
			t.Errorf("sent = %+v, want %+v alone", w.sent, want)
		}
	})
}

func TestStartIsOneCommitAndOneSend(t *testing.T) {
	w := newWorld(t)
	got := w.counted(func() { w.start(workflowToken, apitype.Start{}) })
	if want := "commit 1 send 1"; got != want {
		t.Errorf("calls = %s, want %s", got, want)
	}
}

func TestHundredReplaysMakeOneRecord(t *testing.T) {
	w := newWorld(t)
	ids := make([]string, 100)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			got, err := w.client(workflowToken).Start(t.Context(), apitype.Start{IdempotencyKey: "k"})
			if err != nil {
				t.Errorf("Start %d: %v", i, err)
			}
			ids[i] = got.ID
		})
	}
	wg.Wait()
	if distinct := slices.Compact(slices.Sorted(slices.Values(ids))); len(distinct) != 1 {
		t.Errorf("ids = %q, want one", distinct)
	}
	page, err := w.client(operatorToken).Requests(t.Context(), client.Query{})
	if err != nil || len(page.Requests) != 1 {
		t.Errorf("Requests = %d of them, %v; want one record", len(page.Requests), err)
	}
	if len(w.sent) != 1 {
		t.Errorf("%d messages, want 1", len(w.sent))
	}
}

func TestReplayAnswersTheRecordAsItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		body := apitype.Start{Labels: []string{"a"}}
		first := w.raw("POST", "/start", workflowToken, body)
		var started apitype.Started
		if err := json.Unmarshal(first.body, &started); err != nil || first.status != http.StatusAccepted {
			t.Fatalf("start = %d %s", first.status, first.body)
		}
		time.Sleep(time.Minute)
		same := apitype.Start{Labels: []string{"A", "a"}, Type: "spot", Mode: "shared", Region: region, AccountID: accountID, Timeout: 3600, GiveUp: 900, Repo: "alphagov/demo"}
		if a := w.raw("POST", "/start", workflowToken, same); a.status != http.StatusAccepted || !strings.Contains(string(a.body), started.ID) {
			t.Errorf("replay in other words = %d %s, want 202 and %s", a.status, a.body, started.ID)
		}
		w.online(started.ID)
		if s, err := w.client(workflowToken).Status(t.Context(), started.ID); err != nil || s.State != "ready" {
			t.Fatalf("Status = %s, %v; want ready", s.State, err)
		}
		if a := w.raw("POST", "/start", workflowToken, body); a.status != http.StatusOK || !strings.Contains(string(a.body), `"state":"ready"`) {
			t.Errorf("replay of a final one = %d %s, want 200 and ready", a.status, a.body)
		}
		if len(w.sent) != 1 {
			t.Errorf("%d messages, want the first call's alone", len(w.sent))
		}
	})
}

func TestSameKeyWithAnotherBodyIsRefused(t *testing.T) {
	w := newWorld(t)
	w.start(workflowToken, apitype.Start{IdempotencyKey: "k"})
	for name, body := range map[string]apitype.Start{
		"labels": {Labels: []string{"x"}}, "type": {Type: "ondemand"}, "mode": {Mode: "ephemeral"}, "timeout": {Timeout: 60},
		"give_up": {GiveUp: 60}, "instance_types": {InstanceTypes: []string{"m7a.large"}}, "region": {Region: "eu-west-1"},
		"root_volume_gb": {RootVolumeGB: 100}, "tags": {Tags: map[string]string{"job": "7"}},
		"cpu": {CPU: 4}, "memory": {Memory: 8}, "gpu": {GPU: 1}, "arch": {Arch: "x86_64"},
	} {
		body.IdempotencyKey = "k"
		if _, err := w.client(workflowToken).Start(t.Context(), body); !errors.Is(err, client.ErrMismatch) {
			t.Errorf("Start with another %s = %v, want %v", name, err, client.ErrMismatch)
		}
	}
}

func TestIdentityOfRequests(t *testing.T) {
	w := newWorld(t)
	ids := map[string]string{"first": w.start(workflowToken, apitype.Start{IdempotencyKey: "k"}).ID}
	other := func(name string, change func(*client.Client) string) {
		id := change(w.client(workflowToken))
		for was, known := range ids {
			if known == id {
				t.Errorf("%s has the id of %s", name, was)
			}
		}
		ids[name] = id
	}
	other("another key", func(*client.Client) string { return w.start(workflowToken, apitype.Start{IdempotencyKey: "l"}).ID })
	other("another repository", func(*client.Client) string { return w.start(otherToken, apitype.Start{IdempotencyKey: "k"}).ID })
	for name, change := range map[string]func(c map[string]string){
		"run": func(c map[string]string) { c["run"] = "7002" }, "attempt": func(c map[string]string) { c["attempt"] = "2" },
		"job": func(c map[string]string) { c["job"] = "9002" },
	} {
		m := map[string]string{"run": "7001", "attempt": "1", "job": "9001"}
		change(m)
		c := workflow
		c.Claims.RunID, c.Claims.RunAttempt, c.Claims.CheckRunID = m["run"], m["attempt"], m["job"]
		w.github.callers[name] = c
		other("another "+name, func(*client.Client) string { return w.start(name, apitype.Start{IdempotencyKey: "k"}).ID })
	}
}

func TestOwnLabelIsSharedByAKeyAndNeverByEphemeralRequests(t *testing.T) {
	w := newWorld(t)
	a := w.start(workflowToken, apitype.Start{Labels: []string{"x"}})
	b := w.start(workflowToken, apitype.Start{Labels: []string{"x"}})
	c := w.start(workflowToken, apitype.Start{Labels: []string{"y"}})
	if a.OwnLabel != b.OwnLabel || a.OwnLabel == c.OwnLabel {
		t.Errorf("own labels = %s, %s, %s; want the first two alike", a.OwnLabel, b.OwnLabel, c.OwnLabel)
	}
	d := w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
	e := w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
	if d.OwnLabel == e.OwnLabel || w.request(d.ID).LockKey() != d.ID {
		t.Errorf("ephemeral: labels %s and %s, lock %s; want different labels and the id as lock", d.OwnLabel, e.OwnLabel, w.request(d.ID).LockKey())
	}
}

func TestOperatorNamesARegisteredRepository(t *testing.T) {
	w := newWorld(t)
	got := w.start(operatorToken, apitype.Start{Repo: "alphagov/demo"})
	r := w.request(got.ID)
	if r.Repository.ID != "1001" || r.Caller != "operator ann" || r.Origin != (store.Origin{}) {
		t.Errorf("record = %+v, %s, %+v; want repository 1001, operator ann, no origin", r.Repository, r.Caller, r.Origin)
	}
	for repo, want := range map[string]error{"": client.ErrInvalidField, "alphagov/unknown": client.ErrForbidden, "Alphagov/demo": client.ErrForbidden} {
		if _, err := w.client(operatorToken).Start(t.Context(), apitype.Start{Repo: repo}); !errors.Is(err, want) {
			t.Errorf("Start for %q = %v, want %v", repo, err, want)
		}
	}
}

func TestOperatorWithoutKeyStartsAnew(t *testing.T) {
	w := newWorld(t)
	body := apitype.Start{Repo: "alphagov/demo"}
	a, b := w.raw("POST", "/start", operatorToken, body), w.raw("POST", "/start", operatorToken, body)
	var x, y apitype.Started
	if json.Unmarshal(a.body, &x) != nil || json.Unmarshal(b.body, &y) != nil || x.ID == y.ID || x.ID == "" {
		t.Errorf("two calls = %s and %s, want two requests", a.body, b.body)
	}
}

func TestWorkflowNamesOnlyItsOwnRepository(t *testing.T) {
	w := newWorld(t)
	w.start(workflowToken, apitype.Start{Repo: "alphagov/demo"})
	a := w.raw("POST", "/start", workflowToken, apitype.Start{Repo: "alphagov/other"})
	if p := a.problem(t); a.status != http.StatusForbidden || p.Field != "repo" {
		t.Errorf("start for another repository = %d %+v, want 403 of repo", a.status, p)
	}
}

func TestAccountIsFoundByTheRepository(t *testing.T) {
	const second = "210987654321"
	w := newWorld(t)
	other := registration()
	other.ID, other.Repositories = second, []store.Named{{ID: "1002", Name: "alphagov/other"}}
	w.accounts.byID[second] = other
	if r := w.request(w.start(workflowToken, apitype.Start{}).ID); r.Account != accountID {
		t.Errorf("account = %s, want %s, the only one that serves the repository", r.Account, accountID)
	}
	a := w.raw("POST", "/start", otherToken, apitype.Start{})
	if p := a.problem(t); a.status != http.StatusUnprocessableEntity || p.Field != "account_id" {
		t.Errorf("start with two accounts = %d %+v, want 422 of account_id", a.status, p)
	}
	if r := w.request(w.start(otherToken, apitype.Start{AccountID: second}).ID); r.Account != second {
		t.Errorf("account = %s, want the one that was named", r.Account)
	}
}

func TestUnregisteredAccountLooksLikeOneOfOthers(t *testing.T) {
	w := newWorld(t)
	other := registration()
	other.ID, other.Repositories = "210987654321", []store.Named{{ID: "5", Name: "else/where"}}
	w.accounts.byID[other.ID] = other
	trace := []string{"X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678"}
	ofOthers := w.raw("POST", "/start", workflowToken, apitype.Start{AccountID: other.ID}, trace...)
	absent := w.raw("POST", "/start", workflowToken, apitype.Start{AccountID: "999999999999"}, trace...)
	if ofOthers.status != http.StatusForbidden || string(ofOthers.body) != string(absent.body) || ofOthers.problem(t).Field != "account_id" {
		t.Errorf("others' = %d %s\nabsent = %d %s\nwant the same 403 of account_id", ofOthers.status, ofOthers.body, absent.status, absent.body)
	}
}

func TestWhatTheAccountDoesNotAllowIsRefusedByField(t *testing.T) {
	for field, body := range map[string]apitype.Start{
		"account_id":      {AccountID: "999999999999"},
		"region":          {Region: "us-east-1"},
		"regions":         {Regions: []string{"us-east-1", "eu-west-2"}, Mode: "ephemeral"},
		"type":            {Type: "ondemand"},
		"mode":            {Mode: "ephemeral"},
		"instance_types":  {InstanceTypes: []string{"m7i.large", "p5.48xlarge"}},
		"image_id":        {ImageID: "ami-2"},
		"subnets":         {Subnets: []string{"subnet-a1", "subnet-c1"}},
		"security_groups": {SecurityGroups: []string{"sg-2"}},
		"root_volume_gb":  {RootVolumeGB: 201},
		"cpu":             {CPU: 17},
		"memory":          {Memory: 65},
		"gpu":             {GPU: 2},
		"arch":            {Arch: "arm64"},
		"tags":            {Tags: map[string]string{"team": "x"}},
		"timeout":         {Timeout: 7201},
		"repo":            {Repo: "alphagov/other"},
	} {
		t.Run(field, func(t *testing.T) {
			w := newWorld(t)
			a := registration()
			a.Markets, a.Modes = []string{store.Spot}, []string{store.Shared}
			w.accounts.byID[accountID] = a
			got := w.raw("POST", "/start", workflowToken, body)
			if p := got.problem(t); got.status != http.StatusForbidden || p.Field != field || p.Code != apitype.CodeForbidden {
				t.Errorf("start with %+v = %d %+v, want 403 of %s", body, got.status, p, field)
			}
			if calls := w.counted(func() { w.raw("POST", "/start", workflowToken, body) }); calls != "" {
				t.Errorf("calls = %s, want none", calls)
			}
		})
	}
}

func TestWhatTheAccountAllowsIsTaken(t *testing.T) {
	w := newWorld(t)
	got := w.start(workflowToken, apitype.Start{
		AccountID: accountID, Region: region, Type: "ondemand", Mode: "ephemeral", InstanceTypes: []string{"m7a.large", "m7i.large"},
		ImageID: "/garo/image", Subnets: []string{"subnet-b1", "subnet-a1"}, SecurityGroups: []string{"sg-1"}, Timeout: 7200, GiveUp: 60,
		RootVolumeGB: 200, Tags: map[string]string{"job": "7"},
	})
	want := store.Machine{
		InstanceTypes: []string{"m7a.large", "m7i.large"}, Image: "/garo/image", Subnets: []string{"subnet-a1", "subnet-b1"}, SecurityGroups: []string{"sg-1"},
		RootVolumeGB: 200, Tags: map[string]string{"job": "7"},
	}
	if r := w.request(got.ID); r.Machine.Spec() != want.Spec() || !slices.Equal(r.Machine.Subnets, want.Subnets) || r.TimeoutS != 7200 {
		t.Errorf("record = %+v, want machine %+v", r, want)
	}
	needs := w.start(workflowToken, apitype.Start{Mode: "ephemeral", CPU: 16, Memory: 64, GPU: 1, Arch: "x86_64", IdempotencyKey: "needs"})
	if m := w.request(needs.ID).Machine; m.CPU != 16 || m.MemoryGB != 64 || m.GPU != 1 || m.Arch != store.X86 {
		t.Errorf("record = %+v, want what the machine has to have", m)
	}
}

func TestDefaultTimeoutStaysInsideTheAccount(t *testing.T) {
	w := newWorld(t)
	a := registration()
	a.MaxTimeoutS = 600
	w.accounts.byID[accountID] = a
	if r := w.request(w.start(workflowToken, apitype.Start{}).ID); r.TimeoutS != 600 {
		t.Errorf("timeout = %d, want the account's 600", r.TimeoutS)
	}
}

func TestRegionIsNeededWithoutDefault(t *testing.T) {
	w := newWorld(t)
	a := registration()
	a.DefaultRegion = ""
	w.accounts.byID[accountID] = a
	if p := w.raw("POST", "/start", workflowToken, apitype.Start{}).problem(t); p.Code != apitype.CodeInvalidField || p.Field != "region" {
		t.Errorf("start = %+v, want region to be asked for", p)
	}
	delete(a.Regions, "eu-west-1")
	if r := w.request(w.start(workflowToken, apitype.Start{}).ID); r.Region != region {
		t.Errorf("region = %q, want the only one", r.Region)
	}
}

func TestStoreOutageLeavesNothingHalfDone(t *testing.T) {
	w := newWorld(t)
	w.fate = down
	a := w.raw("POST", "/start", workflowToken, apitype.Start{})
	if p := a.problem(t); a.status != http.StatusServiceUnavailable || p.Code != apitype.CodeUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("start = %d %v %+v, want 503 with Retry-After", a.status, a.header, p)
	}
	if len(w.sent) != 0 {
		t.Errorf("sent = %+v, want nothing: there is no record", w.sent)
	}
	if lines := w.logged("audit"); len(lines) != 1 || lines[0]["level"] != "WARN" || !strings.Contains(lines[0]["error"].(string), "injected fault") {
		t.Errorf("log = %v, want one warning with the cause", lines)
	}
}

func TestOutagesOfWhatIsAskedAreUnavailable(t *testing.T) {
	w := newWorld(t)
	w.accounts.err = errDown
	if a := w.raw("POST", "/start", workflowToken, apitype.Start{}); a.status != http.StatusServiceUnavailable {
		t.Errorf("start without registrations = %d, want 503", a.status)
	}
	if a := w.raw("POST", "/start", workflowToken, apitype.Start{AccountID: accountID}); a.status != http.StatusServiceUnavailable {
		t.Errorf("start without the registration = %d, want 503", a.status)
	}
	w.accounts.err, w.github.err = nil, errDown
	if a := w.raw("POST", "/start", workflowToken, apitype.Start{}); a.status != http.StatusServiceUnavailable {
		t.Errorf("start without key set = %d, want 503", a.status)
	}
}

func TestLostAnswerOfTheCommitIsFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fate = func(_ string, n int) storetest.Fate {
			if n == 1 {
				return storetest.FailAfter
			}
			return storetest.Pass
		}
		got := w.start(workflowToken, apitype.Start{})
		if r := w.request(got.ID); r.Version != 1 {
			t.Errorf("record has version %d, want the first call's", r.Version)
		}
		if len(w.sent) != 0 {
			t.Errorf("sent = %+v, want none: the poll and the reaper send", w.sent)
		}
	})
}

func TestUnsentRequestIsAcceptedAndSentByAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sendErr = errDown
		got := w.start(workflowToken, apitype.Start{})
		if len(w.logged("message not sent")) != 1 {
			t.Error("the failed send is not logged")
		}
		w.sendErr = nil
		c := w.client(got.StatusToken.Reveal())
		for range 5 {
			time.Sleep(2 * time.Second)
			if _, err := c.Status(t.Context(), got.ID); err != nil {
				t.Fatal(err)
			}
		}
		if len(w.sent) != 1 || w.sent[0].Message != queue.StartOf(w.request(got.ID)) {
			t.Errorf("sent = %+v, want the start message, once", w.sent)
		}
	})
}

func TestPublicRepositoryGetsEphemeralRunnersAlone(t *testing.T) {
	w := newWorld(t)
	c := workflow
	c.Claims.Visibility = "public"
	w.github.callers[workflowToken] = c
	if _, err := w.client(workflowToken).Start(t.Context(), apitype.Start{Mode: "ephemeral"}); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("Start of a public repository = %v, want %v", err, client.ErrForbidden)
	}
	a := registration()
	a.Allow.PublicRepositories = true
	w.accounts.byID[accountID] = a
	if p := w.raw("POST", "/start", workflowToken, apitype.Start{}).problem(t); p.Code != apitype.CodeForbidden || p.Field != "mode" {
		t.Errorf("shared start of a public repository = %+v, want it forbidden for its mode", p)
	}
	w.start(workflowToken, apitype.Start{Mode: "ephemeral"})
}

func TestNamesThatPeopleChooseAreMadePrintable(t *testing.T) {
	w := newWorld(t)
	c := workflow
	c.Claims.Ref, c.Claims.Workflow = "refs/heads/\u202egpj.exe", "🚀 Déploy\x1b[31m"
	w.github.callers[workflowToken] = c
	o := w.request(w.start(workflowToken, apitype.Start{}).ID).Origin
	if o.Ref != "refs/heads/?gpj.exe" || o.Workflow != "🚀 Déploy?[31m" {
		t.Errorf("origin = %q, %q; want what does not print replaced", o.Ref, o.Workflow)
	}
}
