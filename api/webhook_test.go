package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var (
	appSecret = secret.New("canary-app-secret-0123456789abcdef")
	ownSecret = secret.New("canary-own-secret-0123456789abcdef")
)

// aJob is what a delivery says of a job; the zero fields are usual.
type aJob struct {
	id           int
	labels       []string
	status       string
	runner       string
	registration int64
	repository   int
	owner        int
	installation int
	name         string
}

func (j aJob) body(t testing.TB, action string) string {
	t.Helper()
	or := func(n, usual int) int {
		if n == 0 {
			return usual
		}
		return n
	}
	if j.labels == nil {
		j.labels = []string{"garo"}
	}
	repo := or(j.repository, 1001)
	b, err := json.Marshal(map[string]any{
		"action": action, "installation": map[string]any{"id": or(j.installation, 77)}, "sender": map[string]any{"login": "octocat"},
		"repository": map[string]any{
			"id": repo, "full_name": "alphagov/demo", "html_url": "https://github.com/alphagov/demo", "private": true,
			"owner": map[string]any{"id": or(j.owner, 55), "login": "alphagov"},
		},
		"workflow_job": map[string]any{
			"id": or(j.id, 21), "run_id": 7001, "run_attempt": 1, "name": j.name, "status": j.status, "labels": j.labels, "workflow_name": "CI",
			"head_branch": "main", "html_url": "https://github.com/alphagov/demo/actions/runs/7001/job/21", "created_at": "2026-11-30T09:00:00Z",
			"runner_id": j.registration, "runner_name": j.runner, "conclusion": nil,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// doorWorld is a world with an App and an offer.
func doorWorld(t *testing.T, edit func(*store.Account)) *world {
	t.Helper()
	w := newWorld(t)
	a := registration()
	a.RunsOn = []store.Offer{{Labels: []string{"garo"}}, {Pin: "g-linux-", Type: store.OnDemand, TimeoutS: 600, Machine: store.Machine{InstanceTypes: []string{"m7a.large"}}}}
	if edit != nil {
		edit(&a)
	}
	w.accounts.byID[accountID] = a
	w.handler = api.New(w.withApp())
	return w
}

func (w *world) withApp() api.Config {
	cfg := w.config()
	cfg.AppSecrets = appSecrets(appSecret)
	return cfg
}

func (w *world) deliver(event, body string, by secret.Text, headers ...string) answer {
	w.Helper()
	return w.raw("POST", "/github/webhook", "", body, append([]string{webhook.EventHeader, event, webhook.DeliveryHeader, "72d3162e-cc78-11e3-81ab-4c9367dc0958", webhook.SignatureHeader, webhook.Sign(by, []byte(body))}, headers...)...)
}

func (a answer) delivered(t *testing.T) apitype.Delivered {
	t.Helper()
	var d apitype.Delivered
	if err := json.Unmarshal(a.body, &d); err != nil || d.Answer == "" {
		t.Fatalf("answer = %d %s; want what became of a delivery", a.status, a.body)
	}
	return d
}

func TestQueuedJobOfOursBecomesARequestInTwoCalls(t *testing.T) {
	w := doorWorld(t, nil)
	var got apitype.Delivered
	calls := w.counted(func() {
		a := w.deliver("workflow_job", aJob{name: "build"}.body(t, "queued"), appSecret)
		if got = a.delivered(t); a.status != http.StatusAccepted || got.Answer != apitype.DeliveryAccepted {
			t.Fatalf("queued = %d %s; want 202 accepted", a.status, a.body)
		}
	})
	if calls != "commit 1 send 1" {
		t.Errorf("a queued job makes the calls %s, want one commit and one send", calls)
	}
	r := w.request(got.ID)
	if r.State != store.Accepted || r.Mode != store.Ephemeral || !slices.Equal(r.Labels, []string{"garo"}) || r.Job.ID != "21" || r.Job.RunID != "7001" ||
		r.Job.Name != "build" || r.Repository.ID != "1001" || r.Account != accountID || r.Origin.RunID != "7001" || r.GiveUpAt.Sub(r.CreatedAt) < 24*time.Hour {
		t.Errorf("the record is %+v, want the job's", r)
	}
	if want := queue.StartOf(r); len(w.sent) != 1 || w.sent[0].Message != want {
		t.Errorf("sent %+v, want %+v", w.sent, want)
	}

	pinned := w.deliver("workflow_job", aJob{id: 22, labels: []string{"G-Linux-7001-1-0"}}.body(t, "queued"), appSecret).delivered(t)
	if r := w.request(pinned.ID); !slices.Equal(r.Labels, []string{"g-linux-7001-1-0"}) || r.Type != store.OnDemand || r.TimeoutS != 600 || !slices.Equal(r.Machine.InstanceTypes, []string{"m7a.large"}) {
		t.Errorf("the record of a pinned job is %+v, want what its offer says", r)
	}
}

func TestWhatBeganOrEndedIsOneMessage(t *testing.T) {
	w := doorWorld(t, nil)
	for _, c := range []struct {
		name, action string
		job          aJob
		calls        string
	}{
		{"Began", "in_progress", aJob{runner: "garo-x-abc-1", registration: 5}, "send 1"},
		{"Completed", "completed", aJob{runner: "garo-x-abc-1", registration: 5}, "send 1"},
		{"WithoutARunner", "completed", aJob{}, "send 1"},
		{"ElsewhereByOurLabels", "in_progress", aJob{runner: "somebody's", registration: 6}, "send 1"},
		{"OnAMachineOfOursByGeneralLabels", "in_progress", aJob{labels: []string{"self-hosted"}, runner: "garo-x-abc-1", registration: 5}, "send 1"},
		{"ByTheOwnLabelOfARequest", "in_progress", aJob{labels: []string{"garo-abcdefgh"}, runner: "garo-x-abc-1", registration: 5}, ""},
		{"GitHubsOwnMachines", "in_progress", aJob{labels: []string{"ubuntu-latest"}, runner: "GitHub Actions 4", registration: 4}, ""},
		{"NearMiss", "completed", aJob{labels: []string{"garo", "x"}, runner: "somebody's", registration: 6}, ""},
	} {
		w.sent = nil
		if got := w.counted(func() { w.deliver("workflow_job", c.job.body(t, c.action), appSecret) }); got != c.calls {
			t.Errorf("%s: calls %q, want %q", c.name, got, c.calls)
		}
		if c.calls == "" {
			continue
		}
		m := w.sent[0].Message
		if m.Kind != queue.Job || m.Account != accountID || string(m.Seen.Status) != c.action || m.Seen.Job != "21" || m.Seen.Run != "7001" || m.Seen.Registration != c.job.registration || m.Seen.Repository.ID != "1001" {
			t.Errorf("%s: sent %+v, want what the delivery says", c.name, m)
		}
	}
}

// A delivery that comes again, late or in another order says nothing for sure.
func TestQueuedOfAKnownJobHasItRead(t *testing.T) {
	w := doorWorld(t, nil)
	now := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	cfg := w.withApp()
	cfg.Now = func() time.Time { return now }
	w.handler = api.New(cfg)
	first := w.deliver("workflow_job", aJob{}.body(t, "queued"), appSecret).delivered(t)
	before := w.request(first.ID)
	if got := w.deliver("workflow_job", aJob{}.body(t, "queued"), appSecret).delivered(t); got.Answer != apitype.DeliveryKnown || got.ID != first.ID || len(w.sent) != 1 {
		t.Errorf("the same delivery at once = %+v and sent %d messages; want known, and none more", got, len(w.sent))
	}
	for _, c := range []struct {
		action string
		job    aJob
	}{{"queued", aJob{status: "waiting"}}, {"waiting", aJob{status: "waiting"}}, {"queued", aJob{runner: "garo-x-abc-1", registration: 5}}} {
		now, w.sent = now.Add(31*time.Second), nil
		got := w.deliver("workflow_job", c.job.body(t, c.action), appSecret).delivered(t)
		if got.Answer != apitype.DeliveryTold || len(w.sent) != 1 || w.sent[0].Kind != queue.Job || w.sent[0].Seen.Status != "" || w.sent[0].Seen.Runner != "" {
			t.Errorf("%s of a known job = %+v, sent %+v; want that a worker asks GitHub", c.action, got, w.sent)
		}
	}
	if after := w.request(first.ID); after.Version != before.Version {
		t.Error("a delivery about a known job changed its record")
	}
}

func TestAJobThatLooksLikeOursIsRecordedWithTheReason(t *testing.T) {
	w := doorWorld(t, func(a *store.Account) {
		a.RunsOn[0].Only.Repositories = []store.Named{{ID: "1002", Name: "alphagov/other"}}
	})
	for _, c := range []struct {
		name string
		job  aJob
		want string // in the reason; empty: no record
	}{
		{"AnotherRepository", aJob{id: 1}, "other repositories"},
		{"PinBesideOthers", aJob{id: 2, labels: []string{"g-linux-1", "self-hosted"}}, "stand alone"},
		{"NotOurs", aJob{id: 3, labels: []string{"ubuntu-latest"}}, ""},
		{"OwnLabel", aJob{id: 4, labels: []string{"garo-abc"}}, ""},
		{"NoLabels", aJob{id: 5, labels: []string{}}, ""},
	} {
		w.sent = nil
		got := w.deliver("workflow_job", c.job.body(t, "queued"), appSecret).delivered(t)
		if got.Answer != apitype.DeliveryIgnored || (got.ID == "") != (c.want == "") || !strings.Contains(got.Reason, c.want) || len(w.sent) != 0 {
			t.Errorf("%s: %+v and %d messages; want ignored with %q", c.name, got, len(w.sent), c.want)
		}
		if c.want == "" {
			continue
		}
		if r := w.request(got.ID); r.State != store.Failed || r.Error == nil || r.Error.Code != store.CodeNotOffered || !strings.Contains(r.Error.Text, c.want) || r.TTL == 0 {
			t.Errorf("%s: the record is %+v, want failed with the reason", c.name, r)
		}
	}
}

func TestWhoSignsSpeaksForItsOwnRepositoriesAlone(t *testing.T) {
	const theirs = "210987654321"
	w := doorWorld(t, func(a *store.Account) { a.WebhookSecrets = []secret.Text{ownSecret} })
	other := registration()
	other.ID, other.Repositories, other.RunsOn = theirs, []store.Named{{ID: "2001", Name: "other/x"}}, []store.Offer{{Labels: []string{"garo"}}}
	other.GitHub = store.GitHubCredentials{{AppID: 9, InstallationID: 88}}
	w.accounts.byID[theirs] = other
	for _, c := range []struct {
		name string
		by   secret.Text
		job  aJob
		want string
	}{
		{"App", appSecret, aJob{id: 1}, apitype.DeliveryAccepted},
		{"OwnSecret", ownSecret, aJob{id: 2}, apitype.DeliveryAccepted},
		{"OwnSecretForAnothersRepository", ownSecret, aJob{id: 3, repository: 2001}, apitype.DeliveryIgnored},
		{"AppOfItsInstallation", appSecret, aJob{id: 4, repository: 2001, installation: 88}, apitype.DeliveryAccepted},
		{"AppOfAnotherInstallation", appSecret, aJob{id: 5, repository: 2001, installation: 89}, apitype.DeliveryIgnored},
		{"UnknownRepository", appSecret, aJob{id: 6, repository: 3001}, apitype.DeliveryIgnored},
	} {
		a := w.deliver("workflow_job", c.job.body(t, "queued"), c.by)
		if got := a.delivered(t); a.status != http.StatusAccepted || got.Answer != c.want {
			t.Errorf("%s: %d %s; want 202 %s", c.name, a.status, a.body, c.want)
		}
	}
}

func TestDeliveriesThatAreNotSignedRightAreRefused(t *testing.T) {
	w := doorWorld(t, func(a *store.Account) { a.WebhookSecrets = []secret.Text{ownSecret} })
	body := aJob{}.body(t, "queued")
	right := webhook.Sign(appSecret, []byte(body))
	for _, c := range []struct{ name, signature, detail string }{
		{"None", "", "Set a secret"},
		{"OfAnotherKey", webhook.Sign(secret.New("another"), []byte(body)), "The signature is wrong"},
		{"OfAnEmptyKey", webhook.Sign(secret.Text{}, []byte(body)), "The signature is wrong"},
		{"OfAnotherBody", webhook.Sign(appSecret, []byte(body+" ")), "The signature is wrong"},
		{"InUpperCase", strings.ToUpper(right), "Set a secret"},
		{"OfSHA1", "sha1=0123456789012345678901234567890123456789", "Set a secret"},
		{"Cut", right[:len(right)-2], "Set a secret"},
	} {
		a := w.raw("POST", "/github/webhook", "", body, webhook.EventHeader, "workflow_job", webhook.SignatureHeader, c.signature)
		if p := a.problem(t); a.status != http.StatusUnauthorized || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s: %d %s; want 401 and %q", c.name, a.status, p.Detail, c.detail)
		}
	}
	// What is not signed is not read: it is no JSON, and that is not told.
	if a := w.raw("POST", "/github/webhook", "", "{", webhook.EventHeader, "workflow_job", webhook.SignatureHeader, right); a.status != http.StatusUnauthorized {
		t.Errorf("a body that is no JSON, with a wrong signature = %d, want 401", a.status)
	}
	if calls := w.calls["commit"] + w.calls["send"] + w.calls["get"]; calls != 0 {
		t.Errorf("%d calls were made for deliveries without a signature, want 0", calls)
	}
	if strings.Contains(w.log.String(), "canary") || strings.Contains(w.log.String(), strings.TrimPrefix(right, "sha256=")) {
		t.Error("a secret or a signature is in the log")
	}
}

func TestTwoSecretsServeWhileOneReplacesTheOther(t *testing.T) {
	w := doorWorld(t, nil)
	next := secret.New("canary-next-secret-0123456789abcdef")
	cfg := w.config()
	cfg.AppSecrets = appSecrets(next, appSecret)
	w.handler = api.New(cfg)
	for i, by := range []secret.Text{next, appSecret} {
		if a := w.deliver("workflow_job", aJob{id: 40 + i}.body(t, "queued"), by); a.status != http.StatusAccepted {
			t.Errorf("secret %d: %d, want 202", i, a.status)
		}
	}
	cfg.AppSecrets = appSecrets(next)
	w.handler = api.New(cfg)
	if a := w.deliver("workflow_job", aJob{id: 42}.body(t, "queued"), appSecret); a.status != http.StatusUnauthorized {
		t.Errorf("the secret that was replaced = %d, want 401", a.status)
	}
}

func TestOtherDeliveriesAreAnswered(t *testing.T) {
	w := doorWorld(t, nil)
	for _, c := range []struct {
		name, event, body string
		headers           []string
		status            int
		text              string // in the answer
		alarms            int
	}{
		{"Ping", "ping", `{"zen":"Keep it logically awesome."}`, nil, 200, "pong", 0},
		{"AnotherEvent", "check_run", `{"action":"created"}`, nil, 202, "remove other events", 0},
		{"NoEvent", "", `{}`, nil, 202, "remove other events", 0},
		{"AppInstalled", "installation", `{"action":"created","installation":{"id":77}}`, nil, 202, "only workflow_job", 0},
		{"AppSuspended", "installation", `{"action":"suspend","installation":{"id":77}}`, nil, 202, "the operator has an alarm", 1},
		{"AppRemoved", "installation", `{"action":"deleted","installation":{"id":77}}`, nil, 202, "the operator has an alarm", 1},
		{"UnknownAction", "workflow_job", aJob{}.body(t, "dequeued"), nil, 202, "not known", 0},
		{"NeededFieldOfAnotherType", "workflow_job", strings.Replace(aJob{}.body(t, "queued"), `"id":21`, `"id":"21"`, 1), nil, 422, "workflow_job.id", 1},
		{"NoJSON", "workflow_job", "{", nil, 422, "body", 1},
		{"Form", "workflow_job", "payload=%7B%7D", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "content type to application/json", 0},
		{"TooLarge", "workflow_job", `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "1048576", 0},
		{"AsLargeAsItMayBe", "ping", `{"x":"` + strings.Repeat("x", 1<<20-8) + `"}`, nil, 200, "pong", 0},
	} {
		before := len(w.alarms())
		a := w.deliver(c.event, c.body, appSecret, c.headers...)
		if a.status != c.status || !strings.Contains(string(a.body), c.text) {
			t.Errorf("%s: %d %.300s; want %d and %q", c.name, a.status, a.body, c.status, c.text)
		}
		if got := w.alarms()[before:]; len(got) != c.alarms || slices.ContainsFunc(got, func(a string) bool { return a != string(store.AlarmWebhook) }) {
			t.Errorf("%s: alarms %q, want %d of %s", c.name, got, c.alarms, store.AlarmWebhook)
		}
	}
}

// GitHub would not deliver again what is answered with 429.
func TestBeyondTheBoundOfARepositoryItsJobsComeLater(t *testing.T) {
	w := doorWorld(t, func(a *store.Account) { a.MaxOpenRequests = 2 })
	var last answer
	began := time.Now()
	for i := range 4 {
		last = w.deliver("workflow_job", aJob{id: 50 + i}.body(t, "queued"), appSecret)
		want := apitype.DeliveryAccepted
		if i >= 2 {
			want = apitype.DeliveryLater
		}
		if got := last.delivered(t); last.status != http.StatusAccepted || got.Answer != want {
			t.Errorf("job %d: %d %s; want 202 %s", i, last.status, last.body, want)
		}
	}
	if got := last.delivered(t); !strings.Contains(got.Reason, "max_open_requests") || w.request(got.ID).Version != 0 || len(w.sent) != 2 {
		t.Errorf("beyond the bound: %+v and %d messages; want the reason, no record and no message", got, len(w.sent))
	}
	for _, at := range []time.Time{began, time.Now()} { // a minute can end meanwhile
		if got := read[store.Overflow](w, store.OverflowOf(accountID, at).Key).Repositories; slices.Equal(got, []string{"1001"}) {
			return
		}
	}
	t.Error("the overflow of the minute does not have the repository once")
}

func TestRegistrationsThatNameARepositoryComeFirst(t *testing.T) {
	const general, second = "210987654321", "310987654321"
	w := doorWorld(t, nil)
	byOwner := registration()
	byOwner.ID, byOwner.Repositories, byOwner.Owners = general, nil, []store.Named{{ID: "55", Name: "alphagov"}}
	byOwner.RunsOn = []store.Offer{{Labels: []string{"garo"}}, {Labels: []string{"general"}}}
	w.accounts.byID[general] = byOwner
	at := func(j aJob) apitype.Delivered {
		return w.deliver("workflow_job", j.body(t, "queued"), appSecret).delivered(t)
	}
	if r := w.request(at(aJob{id: 1}).ID); r.Account != accountID {
		t.Errorf("the job is in account %s, want the one that names its repository", r.Account)
	}
	if r := w.request(at(aJob{id: 2, repository: 1009}).ID); r.Account != general {
		t.Errorf("the job of another repository of the owner is in account %s, want the one that names the owner", r.Account)
	}
	if got := at(aJob{id: 3, labels: []string{"general"}}); got.Answer != apitype.DeliveryIgnored {
		t.Errorf("a label of the owner's registration, in a repository that has its own = %+v, want ignored", got)
	}
	twice := registration()
	twice.ID, twice.RunsOn = second, []store.Offer{{Labels: []string{"garo"}}}
	w.accounts.byID[second] = twice
	if got := at(aJob{id: 4}); got.Answer != apitype.DeliveryIgnored || !strings.Contains(got.Reason, "several accounts") {
		t.Errorf("two registrations with an offer = %+v, want ignored, and why", got)
	}
	closed := w.accounts.byID[second]
	closed.Closed, closed.RunsOn = true, []store.Offer{{Labels: []string{"last"}}}
	w.accounts.byID[second] = closed
	if got := at(aJob{id: 5, labels: []string{"last"}}); got.Answer != apitype.DeliveryIgnored || !strings.Contains(got.Reason, "closed") {
		t.Errorf("a job for a closed account = %+v, want ignored", got)
	}
}

func TestOutagesOfTheDoorAreToldToGitHub(t *testing.T) {
	body := aJob{}.body(t, "queued")
	for name, fail := range map[string]func(*world){
		"Accounts": func(w *world) { w.accounts.err = errors.New("SSM is away") },
		"AppSecrets": func(w *world) {
			cfg := w.config()
			cfg.AppSecrets = failing
			w.handler = api.New(cfg)
		},
	} {
		w := doorWorld(t, nil)
		fail(w)
		if a := w.deliver("workflow_job", body, appSecret); a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, want 503", name, a.status)
		}
	}
	w := doorWorld(t, nil)
	w.sendErr = errors.New("SQS is away")
	if a := w.deliver("workflow_job", aJob{}.body(t, "completed"), appSecret); a.status != http.StatusServiceUnavailable {
		t.Errorf("evidence that could not be sent = %d, want 503", a.status)
	}
	if a := w.deliver("workflow_job", body, appSecret); a.status != http.StatusAccepted { // its record is there, and found
		t.Errorf("a job whose message could not be sent = %d, want 202", a.status)
	}
}

// What a workflow's author makes up is kept short and printable.
func TestTextsOfAJobAreBounded(t *testing.T) {
	w := doorWorld(t, nil)
	got := w.deliver("workflow_job", aJob{name: strings.Repeat("ä", 300) + "\u202e", labels: []string{"garo"}}.body(t, "queued"), appSecret).delivered(t)
	if r := w.request(got.ID); len([]rune(r.Job.Name)) != 256 {
		t.Errorf("the name has %d characters, want 256", len([]rune(r.Job.Name)))
	}
	labels := make([]string, 300)
	for i := range labels {
		labels[i] = fmt.Sprintf("l%d\x1b%s", i, strings.Repeat("x", 400))
	}
	got = w.deliver("workflow_job", aJob{id: 23, labels: append([]string{"garo"}, labels...)}.body(t, "queued"), appSecret).delivered(t)
	if r := w.request(got.ID); len(r.Job.Labels) != 20 || slices.ContainsFunc(r.Job.Labels, func(l string) bool { return len(l) > 256 || strings.Contains(l, "\x1b") }) || r.State != store.Failed {
		t.Errorf("the record has the labels %.200q in state %s, want 20 of at most 256 characters, failed", r.Job.Labels, r.State)
	}
}

// The examples of GitHub's own deliveries are all understood.
func TestEveryExampleOfGitHubsIsAnswered(t *testing.T) {
	b, err := os.ReadFile("../internal/webhook/testdata/octokit-webhooks-examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	w := doorWorld(t, func(a *store.Account) {
		a.Repositories = []store.Named{{ID: "591427149", Name: "lineville/elastic-machines-testing"}, {ID: "376034443", Name: "octo-org/example-workflow"}}
		a.RunsOn = []store.Offer{{Labels: []string{"k8s"}}, {Labels: []string{"db-app", "dc-03", "gpu"}}}
	})
	got := map[string]int{}
	for name, body := range all {
		a := w.deliver(strings.Split(name, "/")[1], string(body), appSecret)
		if a.status/100 != 2 {
			t.Errorf("%s: %d %s; want 2xx", name, a.status, a.body)
			continue
		}
		got[a.delivered(t).Answer]++
	}
	// One job waits, in two deliveries, and one began elsewhere, in four.
	if got[apitype.DeliveryAccepted] != 1 || got[apitype.DeliveryKnown] != 1 || got[apitype.DeliveryTold] != 4 || got[apitype.DeliveryIgnored] != len(all)-6 {
		t.Errorf("answers = %v, want one accepted, one known, four told, and the others ignored", got)
	}
}

// Who sees a job that waits has its address, and nothing else.
func TestAJobIsFoundByItsAddress(t *testing.T) {
	w := doorWorld(t, nil)
	first := w.deliver("workflow_job", aJob{id: 21}.body(t, "queued"), appSecret).delivered(t)
	w.deliver("workflow_job", aJob{id: 22}.body(t, "queued"), appSecret)
	a := w.raw("GET", "/find?q=https://github.com/alphagov/demo/actions/runs/7001/job/21", operatorToken, nil)
	var got apitype.Found
	if err := json.Unmarshal(a.body, &got); err != nil || got.What != "job" || len(got.Requests) != 1 || got.Requests[0].ID != first.ID {
		t.Errorf("found %d %s, want the request of job 21 alone", a.status, a.body)
	}
	a = w.raw("GET", "/find?q=7001", operatorToken, nil)
	if err := json.Unmarshal(a.body, &got); err != nil || len(got.Requests) != 2 {
		t.Errorf("found %d %s, want both requests of the run", a.status, a.body)
	}
}

func FuzzWebhook(f *testing.F) {
	f.Add("workflow_job", aJob{}.body(f, "queued"), true)
	f.Add("workflow_job", aJob{labels: []string{"g-linux-\x00"}}.body(f, "waiting"), true)
	f.Add("installation", `{"action":"suspend"}`, true)
	f.Add("ping", `{}`, false)
	f.Fuzz(func(t *testing.T, event, body string, signed bool) {
		if strings.ContainsFunc(event, func(r rune) bool { return r < ' ' || r > '~' }) {
			return // no HTTP header carries it
		}
		w := doorWorld(t, nil)
		by := appSecret
		if !signed {
			by = secret.New("another")
		}
		a := w.deliver(event, body, by)
		switch {
		case !signed && a.status != http.StatusUnauthorized && a.status != http.StatusRequestEntityTooLarge:
			t.Fatalf("%d %s for a wrong signature, want 401", a.status, a.body)
		case a.status >= 500:
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, m := range w.sent {
			if _, err := queue.Encode(m.Message); err != nil {
				t.Fatalf("a message was sent that cannot be: %v", err)
			}
		}
	})
}

func appSecrets(all ...secret.Text) func(context.Context) ([]secret.Text, error) {
	return func(context.Context) ([]secret.Text, error) { return all, nil }
}

func failing(context.Context) ([]secret.Text, error) { return nil, errors.New("SSM is away") }
