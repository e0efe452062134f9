package api_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ids returns the ids of requests or runners, sorted.
func ids[T any](rows []T, id func(T) string) []string {
	out := []string{}
	for _, row := range rows {
		out = append(out, id(row))
	}
	slices.Sort(out)
	return out
}

func requestIDs(rows []apitype.Status) []string {
	return ids(rows, func(s apitype.Status) string { return s.ID })
}

func runnerIDs(rows []apitype.Runner) []string {
	return ids(rows, func(r apitype.Runner) string { return r.ID })
}

func sorted(s ...string) []string {
	slices.Sort(s)
	return s
}

func TestRequestsAreFiltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start(workflowToken, apitype.Start{IdempotencyKey: "a"})
		time.Sleep(time.Minute)
		since := time.Now()
		b := w.start(workflowToken, apitype.Start{IdempotencyKey: "b"})
		c := w.start(otherToken, apitype.Start{Region: "eu-west-1"})
		if _, err := w.client(workflowToken).Stop(t.Context(), a.ID, false); err != nil {
			t.Fatal(err)
		}
		failed := w.request(c.ID)
		w.apply(store.Case{Request: failed}.Fail(time.Now(), w.limits, store.Failure{Code: "no_capacity", Text: "None."}))
		renamed := w.request(b.ID)
		renamed.Repository.Name = "alphagov/before"
		w.put(&renamed)
		for _, tc := range []struct {
			token string
			query client.Query
			want  []string
		}{
			{operatorToken, client.Query{Repository: "1001"}, []string{a.ID, b.ID}},
			{operatorToken, client.Query{Repository: "alphagov/demo"}, []string{a.ID, b.ID}},   // as a registration has it
			{operatorToken, client.Query{Repository: "AlphaGov/Before"}, []string{a.ID, b.ID}}, // as a record has it
			{operatorToken, client.Query{Repository: "1001", State: "cancelled"}, []string{a.ID}},
			{operatorToken, client.Query{State: "accepted"}, []string{b.ID}},
			{operatorToken, client.Query{Failed: true}, []string{c.ID}},
			{operatorToken, client.Query{Since: since}, []string{b.ID, c.ID}},
			{operatorToken, client.Query{Region: "eu-west-1"}, []string{c.ID}},
			{operatorToken, client.Query{Account: accountID, Region: region}, []string{a.ID, b.ID}},
			{operatorToken, client.Query{Account: "999999999999"}, nil},
			{operatorToken, client.Query{Repository: "7"}, nil},
			{workflowToken, client.Query{}, []string{a.ID, b.ID}},
			{workflowToken, client.Query{Repository: "alphagov/demo", State: "accepted"}, []string{b.ID}},
			{otherToken, client.Query{Repository: "1002"}, []string{c.ID}},
		} {
			page, err := w.client(tc.token).Requests(t.Context(), tc.query)
			if got := requestIDs(page.Requests); err != nil || !slices.Equal(got, sorted(tc.want...)) {
				t.Errorf("Requests(%+v) = %q, %v; want %q", tc.query, got, err, tc.want)
			}
		}
		for _, repository := range []string{"1002", "alphagov/other"} {
			a := w.raw("GET", "/requests?repository="+url.QueryEscape(repository), workflowToken, nil)
			if p := a.problem(t); a.status != http.StatusUnprocessableEntity || p.Field != "repository" {
				t.Errorf("requests of %s by a job of alphagov/demo = %d %+v, want 422 of repository", repository, a.status, p)
			}
		}
	})
}

func TestRowsOfRequestsHaveTheirRunners(t *testing.T) {
	w := newWorld(t)
	one := w.start(workflowToken, apitype.Start{IdempotencyKey: "a", Labels: []string{"x"}})
	m := w.online(one.ID)
	two := w.start(workflowToken, apitype.Start{IdempotencyKey: "b", Labels: []string{"y"}})
	var rows []apitype.Status
	calls := w.counted(func() {
		page, err := w.client(operatorToken).Requests(t.Context(), client.Query{})
		if err != nil {
			t.Fatal(err)
		}
		rows = page.Requests
	})
	if calls != "get 1 list 1" || len(rows) != 2 {
		t.Fatalf("a page of %d requests calls %s, want 2, by one list and one get", len(rows), calls)
	}
	for _, r := range rows {
		if r.ID == two.ID && r.Runner != nil {
			t.Errorf("the request without a runner has %+v", r.Runner)
		}
		if r.ID == one.ID && (r.Runner == nil || r.Runner.ID != m.id || r.Runner.InstanceID != instanceID || r.Runner.Subnet != "subnet-a1" || len(r.Runner.History) > 0) {
			t.Errorf("the request with a runner has %+v, want %s on %s in subnet-a1, without its story", r.Runner, m.id, instanceID)
		}
	}
}

func TestRunnersAreListedAndSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		mine := w.online(w.start(workflowToken, apitype.Start{IdempotencyKey: "a"}).ID)
		time.Sleep(time.Minute)
		since := time.Now()
		started := w.start(otherToken, apitype.Start{})
		theirs := w.intent(started.ID)
		over := w.runner(w.intent(w.start(workflowToken, apitype.Start{IdempotencyKey: "b", Mode: store.Ephemeral}).ID).ID)
		over.State = store.RunnerFailed
		w.put(&over)
		for _, tc := range []struct {
			token string
			query client.Query
			want  []string
		}{
			{operatorToken, client.Query{}, []string{mine.id, theirs.ID, over.ID}},
			{operatorToken, client.Query{Live: true}, []string{mine.id, theirs.ID}},
			{operatorToken, client.Query{State: "online"}, []string{mine.id}},
			{operatorToken, client.Query{Repository: "alphagov/other"}, []string{theirs.ID}},
			{operatorToken, client.Query{Since: since, Account: accountID, Region: region}, []string{theirs.ID, over.ID}},
			{workflowToken, client.Query{}, []string{mine.id, over.ID}},
			{otherToken, client.Query{Live: true}, []string{theirs.ID}},
		} {
			page, err := w.client(tc.token).Runners(t.Context(), tc.query)
			if got := runnerIDs(page.Runners); err != nil || !slices.Equal(got, sorted(tc.want...)) {
				t.Errorf("Runners(%+v) = %q, %v; want %q", tc.query, got, err, tc.want)
			}
		}
		mine.says(store.EventHeartbeat)
		seen := time.Now()
		mine.says(store.EventJobStarted, func(e *apitype.Event) { e.RunID = "7001" })
		got, err := w.client(workflowToken).Runner(t.Context(), mine.id)
		run := w.runner(mine.id)
		if err != nil || got.InstanceID != instanceID || got.Repository != "alphagov/demo" || got.RunID != "7001" || got.Request != run.Request ||
			!got.SeenAt.Equal(seen) || !got.HardAt.Equal(run.Hard) || got.Job == nil || got.Job.RunID != "7001" || len(got.History) == 0 || !got.OnlineAt.Equal(run.OnlineAt) {
			t.Errorf("Runner = %+v, %v; want the whole of %s", got, err, mine.id)
		}
		for _, token := range []string{workflowToken, operatorToken} {
			for _, id := range []string{theirs.ID, strings.Repeat("a", 26), "x"} {
				if _, err := w.client(token).Runner(t.Context(), id); (token == operatorToken && id == theirs.ID) != (err == nil) {
					t.Errorf("Runner(%s) by %s = %v", id, token, err)
				}
			}
		}
	})
}

func TestFiltersOfRunnersThatCannotBeMeantAreRefused(t *testing.T) {
	w := newWorld(t)
	for query, field := range map[string]string{
		"state=accepted": "state", "live=yes": "live", "live=true&state=online": "live", "failed=true": "failed",
		"account=1": "account", "region=moon": "region", "since=yesterday": "since", "since=": "since",
	} {
		a := w.raw("GET", "/runners?"+query, operatorToken, nil)
		if p := a.problem(t); a.status != http.StatusUnprocessableEntity || p.Field != field {
			t.Errorf("runners?%s = %d %+v, want 422 of %s", query, a.status, p, field)
		}
	}
}

func TestStepsTellWhatARequestWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{Mode: store.Ephemeral})
		time.Sleep(time.Second)
		run := w.intent(started.ID)
		time.Sleep(2 * time.Second)
		w.launched(run.ID, instanceID)
		time.Sleep(20 * time.Second)
		w.configured(run.ID)
		m := &machine{world: w, id: run.ID}
		a := w.boot(w.runner(run.ID), nonce, instanceID)
		m.booted.Session, m.booted.Lock = field(t, a, "session"), field(t, a, "lock")
		time.Sleep(time.Second)
		m.says(store.EventJobStarted, func(e *apitype.Event) { e.RunID = "7001" })
		time.Sleep(time.Minute)
		m.says(store.EventJobDone)
		status, err := w.client(workflowToken).Status(t.Context(), started.ID)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range status.Steps {
			got = append(got, s.Step+" "+s.AfterS.Duration().String()+" "+s.Detail)
		}
		want := []string{"accepted 0s github octocat", "picked_up 1s launches runner " + run.ID, "launched 3s spot m7i.large in subnet-a1", "booted 23s ", "online 24s ", "ready 24s ", "job_begun 24s 7001", "job_ended 1m24s 7001"}
		if !slices.Equal(got, want) {
			t.Errorf("steps = %q\nwant %q", got, want)
		}
	})
}

func TestStepsOfARequestThatFailedAndOfOneThatShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.start(workflowToken, apitype.Start{IdempotencyKey: "a"})
		w.online(first.ID)
		time.Sleep(time.Second)
		failed := w.start(otherToken, apitype.Start{})
		time.Sleep(time.Second)
		w.apply(store.Case{Request: w.request(failed.ID)}.Fail(time.Now(), w.limits, store.Failure{Code: "no_capacity", Text: "None."}))
		shares := w.start(workflowToken, apitype.Start{IdempotencyKey: "b"})
		d := w.caseOf(w.request(first.ID).Runner)
		d.Request = w.request(shares.ID)
		w.apply(d.Share(time.Now(), w.limits))
		for id, want := range map[string]string{failed.ID: "accepted picked_up failed", shares.ID: "accepted picked_up ready"} {
			status, err := w.client(operatorToken).Status(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range status.Steps {
				got = append(got, s.Step)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("steps of %s = %q, want %s", id, got, want)
			}
		}
	})
}

func TestWhatWordsNameIsFound(t *testing.T) {
	w := newWorld(t)
	started := w.start(workflowToken, apitype.Start{IdempotencyKey: "a"})
	m := w.online(started.ID)
	run := w.runner(m.id)
	other := w.start(otherToken, apitype.Start{})
	again := w.request(started.ID) // of another job of the run
	again.Meta, again.ID, again.Origin.CheckRunID = store.Meta{}, rnd(t), "9002"
	w.put(&again)
	const url = "https://github.com/alphagov/demo/actions/runs/7001"
	type found struct {
		what              string
		requests, runners []string
	}
	for _, tc := range []struct {
		token, words string
		want         found
	}{
		{operatorToken, started.ID, found{"request", []string{started.ID}, nil}},
		{operatorToken, "  " + m.id + " ", found{"runner", nil, []string{m.id}}},
		{operatorToken, store.GitHubNameFor("test", m.id, 1), found{"runner", nil, []string{m.id}}},
		{operatorToken, instanceID, found{"instance", nil, []string{m.id}}},
		{operatorToken, "7001", found{"run", []string{again.ID, other.ID, started.ID}, nil}},
		{workflowToken, "7001", found{"run", []string{again.ID, started.ID}, nil}},
		{workflowToken, url, found{"run", []string{again.ID, started.ID}, nil}},
		{workflowToken, url + "/attempts/2", found{"run", []string{again.ID, started.ID}, nil}},
		{workflowToken, url + "/job/9002?pr=1", found{"job", []string{again.ID}, nil}},
		{workflowToken, url + "/attempts/1/job/9001", found{"job", []string{started.ID}, nil}},
		{workflowToken, url + "/job/9009", found{"job", []string{again.ID, started.ID}, nil}}, // one that asked for nothing
		{otherToken, started.ID, found{}},
		{otherToken, m.id, found{}},
		{otherToken, instanceID, found{}},
		{operatorToken, "i-0def", found{}},
		{operatorToken, "404", found{}},
		{operatorToken, strings.Repeat("a", 26), found{}},
	} {
		got, err := w.client(tc.token).Find(t.Context(), tc.words)
		if tc.want.what == "" {
			if err == nil || !strings.Contains(err.Error(), "not_found") {
				t.Errorf("Find(%q) = %+v, %v; want not_found", tc.words, got, err)
			}
			continue
		}
		if requests, runners := requestIDs(got.Requests), runnerIDs(got.Runners); err != nil || got.What != tc.want.what ||
			!slices.Equal(requests, sorted(tc.want.requests...)) || !slices.Equal(runners, sorted(tc.want.runners...)) {
			t.Errorf("Find(%q) = %s, requests %q, runners %q, %v; want %+v", tc.words, got.What, requests, runners, err, tc.want)
		}
	}
	if got, err := w.client(operatorToken).Find(t.Context(), instanceID); err != nil || got.Runners[0].Request != run.Request || len(got.Runners[0].History) == 0 {
		t.Errorf("Find of the instance = %+v, %v; want the whole runner", got, err)
	}
}

func FuzzFind(f *testing.F) {
	for _, q := range []string{"", "i-1", "7001", strings.Repeat("a", keys.IDLen), "garo-test-" + strings.Repeat("a", 26) + "-1", "garo--", "https://github.com/a/b/actions/runs/1/job/2", "https://%zz", "http://[::1]/a/b/actions/runs/1", "\x00", "é", strings.Repeat("9", 600)} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		w := newWorld(t)
		for _, token := range []string{operatorToken, workflowToken} {
			a := w.raw("GET", "/find?q="+url.QueryEscape(q), token, nil)
			checkFuzz(t, w, a)
			if a.status != http.StatusNotFound && a.status != http.StatusUnprocessableEntity {
				t.Errorf("find %q in an empty store = %d %s, want 404 or 422", q, a.status, a.body)
			}
		}
	})
}
