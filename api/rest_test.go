package api_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

func TestRequestsArePagedNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var want []string
		for i := range 120 {
			time.Sleep(time.Second)
			want = append(want, w.start(workflowToken, apitype.Start{IdempotencyKey: fmt.Sprint(i)}).ID)
		}
		slices.Reverse(want)
		var got []string
		var sizes []int
		c := w.client(operatorToken)
		for q := (client.Query{}); ; {
			page, err := c.Requests(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(page.Requests))
			for _, r := range page.Requests {
				got = append(got, r.ID)
				if r.Runner != nil {
					t.Errorf("request %s has a runner, want none in a page", r.ID)
				}
			}
			if q.After = page.After; q.After == "" {
				break
			}
		}
		if !slices.Equal(got, want) || !slices.Equal(sizes, []int{50, 50, 20}) {
			t.Errorf("pages of %v, %d requests; want 50, 50 and 20, the newest first", sizes, len(got))
		}
		if calls := w.counted(func() { w.raw("GET", "/requests", operatorToken, nil) }); calls != "list 1" {
			t.Errorf("calls of a page = %s, want list 1", calls)
		}
	})
}

func TestFullLastPageHasNoCursor(t *testing.T) {
	w := newWorld(t)
	for i := range 50 {
		w.start(workflowToken, apitype.Start{IdempotencyKey: fmt.Sprint(i)})
	}
	if page, err := w.client(operatorToken).Requests(t.Context(), client.Query{}); err != nil || len(page.Requests) != 50 || page.After != "" {
		t.Errorf("Requests = %d, after %q, %v; want 50 and no cursor", len(page.Requests), page.After, err)
	}
}

func TestRareStateIsFoundInBoundedPages(t *testing.T) {
	w := newWorld(t)
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record := func(n int, state store.RequestState) store.Item {
		id := strings.NewReplacer("0", "a", "1", "b", "8", "h", "9", "i").Replace(fmt.Sprintf("%026d", n))
		at := old.Add(time.Duration(n) * time.Second)
		return &store.Request{
			ID: id, State: state, CreatedAt: at, GiveUpAt: at, Type: store.Spot, Mode: store.Shared, OwnLabel: "garo-abcdefghijklmnopqrstuvwxyz",
			Repository: store.Repository{ID: "1001", Name: "alphagov/demo"}, Account: "123456789012", Region: "eu-west-2", TimeoutS: 60,
		}
	}
	first := record(0, store.Failed)
	w.put(first)
	for n := 1; n <= 12_000; n += store.MaxChanges {
		var items []store.Item
		for i := range store.MaxChanges {
			items = append(items, record(n+i, store.Ready))
		}
		w.put(items...)
	}
	var got []string
	pages := 0
	for q := (client.Query{State: "failed"}); ; {
		page, err := w.client(operatorToken).Requests(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, r := range page.Requests {
			got = append(got, r.ID)
		}
		if q.After = page.After; q.After == "" {
			break
		}
	}
	if want := []string{first.Ref().ID}; !slices.Equal(got, want) || pages != 3 {
		t.Errorf("the failed ones of 12,001 requests = %q in %d pages, want %q in 3 of 5,000 records each", got, pages, want)
	}
}

func TestRequestsDuringAnOutageAreUnavailable(t *testing.T) {
	w := newWorld(t)
	w.start(workflowToken, apitype.Start{})
	for _, fate := range []storetest.Fate{storetest.FailBefore, storetest.FailAfter} {
		w.fate = func(string, int) storetest.Fate { return fate }
		if a := w.raw("GET", "/requests", operatorToken, nil); a.status != http.StatusServiceUnavailable {
			t.Errorf("requests = %d, want 503 rather than a part", a.status)
		}
	}
}

func TestBrakeIsReleasedByAnOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := store.SweepKey(accountID, region)
		w.put(&store.Sweep{Key: key, BrakeAt: time.Now()})
		time.Sleep(time.Minute)
		got, err := w.client(operatorToken).ReleaseBrake(t.Context(), accountID, region)
		if err != nil || got.ReleasedBy != "operator ann" || !got.ReleasedAt.Equal(time.Now()) || !got.BrakeAt.Before(got.ReleasedAt) {
			t.Errorf("ReleaseBrake = %+v, %v; want it released now by operator ann", got, err)
		}
		if sweep := read[store.Sweep](w, key); !sweep.ReleasedAt.Equal(time.Now()) || !sweep.DueAt.Equal(time.Now()) {
			t.Errorf("sweep = %+v, want it released and due", sweep)
		}
		if _, err := w.client(operatorToken).ReleaseBrake(t.Context(), accountID, "eu-west-1"); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("ReleaseBrake of no sweep = %v, want %v", err, client.ErrNotFound)
		}
		if _, err := w.client(operatorToken).ReleaseBrake(t.Context(), "../..", "a#b"); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("ReleaseBrake of no account = %v, want %v", err, client.ErrNotFound)
		}
	})
}

func TestAgentIsServedByItsHash(t *testing.T) {
	w := newWorld(t)
	sum := strings.Repeat("0f", 32)
	cfg := w.config()
	cfg.Agents = fstest.MapFS{"amd64/" + sum + ".gz": {Data: []byte("\x1f\x8bprogram")}, "AMD64/" + sum + ".gz": {Data: []byte("x")}, "secret.gz": {Data: []byte("x")}}
	w.handler = api.New(cfg)
	a := w.raw("GET", "/agent/linux/amd64/"+sum, "", nil)
	if a.status != http.StatusOK || string(a.body) != "\x1f\x8bprogram" || a.header.Get("Content-Type") != "application/gzip" || a.header.Get("Content-Encoding") != "" {
		t.Errorf("agent = %d %v %q, want the file as it is", a.status, a.header, a.body)
	}
	if got, want := a.header.Get("Cache-Control"), "public, max-age=31536000, immutable"; got != want {
		t.Errorf("Cache-Control = %q, want %q", got, want)
	}
	for _, path := range []string{"arm64/" + sum, "AMD64/" + sum, "amd64/" + strings.Repeat("0a", 32), "amd64/" + strings.ToUpper(sum), "amd64/x", "..%2f/" + sum, "amd64/..%2f..%2fsecret", ".%2e/secret"} {
		if a := w.raw("GET", "/agent/linux/"+path, "", nil); a.status != http.StatusNotFound || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("agent %s = %d %v, want 404 and no-store", path, a.status, a.header)
		}
	}
	cfg.Agents = nil
	w.handler = api.New(cfg)
	if a := w.raw("GET", "/agent/linux/amd64/"+sum, "", nil); a.status != http.StatusNotFound {
		t.Errorf("agent of none = %d, want 404", a.status)
	}
	cfg.Agents = brokenFS{}
	w.handler = api.New(cfg)
	if a := w.raw("GET", "/agent/linux/amd64/"+sum, "", nil); a.status != http.StatusInternalServerError || strings.Contains(string(a.body), "disk") {
		t.Errorf("agent of a broken disk = %d %s, want 500 without the cause", a.status, a.body)
	}
	if lines := w.logged("answered"); !slices.ContainsFunc(lines, func(l map[string]any) bool {
		return l["level"] == "ERROR" && strings.Contains(fmt.Sprint(l["error"]), "disk")
	}) {
		t.Error("the cause is not logged")
	}
}

type brokenFS struct{}

func (brokenFS) Open(string) (fs.File, error) { return nil, errors.New("disk") }

func TestAnyoneSeesHealthAndContract(t *testing.T) {
	w := newWorld(t)
	if a := w.raw("GET", "/healthz", "", nil); a.status != http.StatusOK || string(a.body) != `{"status":"ok"}` {
		t.Errorf("healthz = %d %s", a.status, a.body)
	}
	w.fate = down
	if calls := w.counted(func() { w.raw("GET", "/healthz", "", nil) }); calls != "" {
		t.Errorf("calls of healthz = %s, want none", calls)
	}
	if a := w.raw("GET", "/openapi.yaml", "", nil); a.status != http.StatusOK || string(a.body) != string(api.OpenAPI) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("openapi.yaml = %d %v", a.status, a.header)
	}
}

func TestBrowsersGetNothingToUse(t *testing.T) {
	w := newWorld(t)
	id := w.start(workflowToken, apitype.Start{}).ID
	for name, a := range map[string]answer{
		"start":     w.raw("POST", "/start", workflowToken, apitype.Start{}, "Origin", "https://evil.example"),
		"status":    w.raw("GET", "/status/"+id, workflowToken, nil, "Origin", "https://evil.example"),
		"preflight": w.raw("OPTIONS", "/start", "", nil, "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"),
		"problem":   w.raw("GET", "/status/"+id, "", nil, "Origin", "https://evil.example"),
		"no path":   w.raw("GET", "/nowhere", "", nil, "Origin", "https://evil.example"),
		"healthz":   w.raw("GET", "/healthz", "", nil, "Origin", "https://evil.example"),
	} {
		if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s has headers %v, want no-store and nosniff", name, a.header)
		}
		for header := range a.header {
			if strings.HasPrefix(header, "Access-Control-") || header == "Set-Cookie" || header == "Location" {
				t.Errorf("%s has header %s, want none of its kind", name, header)
			}
		}
	}
}

func TestPathsThatAreNotThereAreProblems(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]int{
		"POST /": 405, "GET /start/": 404, "POST //start": 404, "POST /x/../start": 404, "GET /status": 404, "GET /status/": 404, "GET /status/a/b": 404,
		"GET /start": 405, "DELETE /status/x": 405, "PUT /requests": 405, "GET /admin.php": 404, "TRACE /healthz": 405, "GET /agent/linux/amd64": 404,
	} {
		method, p, _ := strings.Cut(path, " ")
		a := w.raw(method, p, "", nil)
		if got := a.problem(t); a.status != want || got.Status != want || a.header.Get("Content-Type") != apitype.ProblemMedia {
			t.Errorf("%s = %d %v %s, want a problem with %d", path, a.status, a.header, a.body, want)
		}
		if b := w.raw(method, p+"?x=1", "", "no JSON", "Content-Type", "text/plain"); b.status != want {
			t.Errorf("%s with a body and a query = %d %s, want %d all the same", path, b.status, b.body, want)
		}
		if want == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s has no Allow", path)
		}
	}
}

func TestTraceComesFromAStrictHeaderOrIsMade(t *testing.T) {
	w := newWorld(t)
	made := regexp.MustCompile(`^[a-z2-7]{26}$`)
	for _, tc := range []struct{ header, value, want string }{
		{"X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678", "1-67891233-abcdef012345678912345678"},
		{"X-Amzn-Trace-Id", "Self=1-x;Root=1-67891233-abcdef012345678912345678;Sampled=1", "1-67891233-abcdef012345678912345678"},
		{"X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678x", ""},
		{"X-Amzn-Trace-Id", "Root=\"},{\"alarm\":\"x", ""},
		{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"},
		{"Traceparent", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", ""},
		{"X-Request-Id", "mine", ""},
	} {
		p := w.raw("GET", "/status/x", workflowToken, nil, tc.header, tc.value).problem(t)
		if p.Trace != tc.want && (tc.want != "" || !made.MatchString(p.Trace)) {
			t.Errorf("trace of %s: %s = %q, want %q", tc.header, tc.value, p.Trace, tc.want)
		}
		lines := w.logged("audit")
		if got := lines[len(lines)-1]["trace"]; got != p.Trace {
			t.Errorf("logged trace = %v, want the problem's %s", got, p.Trace)
		}
	}
	got := w.raw("POST", "/start", workflowToken, apitype.Start{}, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if trace := w.request(field(t, got, "id")).Trace; trace != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("trace of the record = %s, want the call's", trace)
	}
}

// panics is an Authenticator with a mistake in it.
type panics struct{ value any }

func (p panics) Authenticate(_ context.Context, token string) (api.Caller, error) {
	if p.value == nil {
		return api.Caller{Name: strings.Split(token, ".")[9]}, nil
	}
	panic(p.value)
}

func TestPanicIsAnAlarmAndAnInternalError(t *testing.T) {
	for name, value := range map[string]any{"runtime error": nil, "text": "canary-panic", "error": errors.New("canary-panic")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.config()
			cfg.Auth = panics{value}
			w.handler = api.New(cfg)
			a := w.raw("GET", "/requests", operatorToken, nil)
			if p := a.problem(t); a.status != http.StatusInternalServerError || p.Code != apitype.CodeInternal || p.Trace == "" {
				t.Errorf("requests = %d %+v, want 500 with a trace", a.status, p)
			}
			if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmPanic)}) {
				t.Errorf("alarms = %q, want %s", got, store.AlarmPanic)
			}
			if value == nil && !strings.Contains(w.log.String(), "index out of range") {
				t.Error("the log does not tell the mistake")
			}
			if !strings.Contains(w.log.String(), "rest_test.go") || strings.Contains(w.log.String(), "canary-panic") {
				t.Errorf("log = %s, want where it panicked, and not with what", w.log.String())
			}
		})
	}
}

func TestBrokenRandomIsInternal(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Random = iotest.ErrReader(errDown)
	w.handler = api.New(cfg)
	if a := w.raw("GET", "/healthz", "", nil); a.status != http.StatusInternalServerError {
		t.Errorf("healthz = %d, want 500", a.status)
	}
}

func TestDefaultsOfTheConfigServe(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Log = nil
	rec := httptest.NewRecorder()
	api.New(cfg).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/healthz", nil))
	if rec.Code != http.StatusOK {
		t.Errorf("healthz = %d, want 200", rec.Code)
	}
}

// Secrets go through every call; none may come out but where it is meant to.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		started := w.start(workflowToken, apitype.Start{Labels: []string{"x"}})
		w.start(operatorToken, apitype.Start{Repo: "alphagov/demo"})
		m := w.online(started.ID)
		boot := w.bootToken(w.runner(m.id))
		w.boot(w.runner(m.id), nonce, instanceID)
		m.says(store.EventJobStarted)
		m.says(store.EventHeartbeat)
		m.says(store.EventJobDone)
		m.post("next", apitype.Next{N: 2})
		w.configured(m.id)
		m.post("next", apitype.Next{N: 2})
		m.post("next", apitype.Next{N: 9})
		c := w.client(started.StatusToken.Reveal())
		if _, err := c.Status(t.Context(), started.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Stop(t.Context(), started.ID, true); err != nil {
			t.Fatal(err)
		}
		m.says(store.EventIdle)
		w.raw("GET", "/requests", operatorToken, nil)
		w.raw("GET", "/requests", operatorToken+"x", nil)
		w.raw("GET", "/status/"+started.ID, started.StatusToken.Reveal()+"x", nil)
		w.raw("POST", "/start", workflowToken, `{"idempotency_key":"`+configCanary)
		w.raw("POST", "/start", workflowToken, `{"`+configCanary+`\n":1}`)
		w.raw("POST", "/start", workflowToken, `{"region":"`+configCanary+`\n"}`)
		w.fate, w.sendErr = down, errDown
		w.raw("GET", "/status/"+started.ID, operatorToken, nil)
		m.post("next", apitype.Next{N: 2})

		where := map[string]string{"log": w.log.String(), "answers": w.answers.String(), "messages": fmt.Sprintf("%+v", w.sent), "records": w.dump()}
		for name, tc := range map[string]struct {
			text string
			in   []string // where it is meant to be
		}{
			"id key":         {"canary-id-key", nil},
			"key":            {"canary-keycanary", nil},
			"external id":    {"canary-external-id", nil},
			"operator token": {operatorToken, nil},
			"workflow token": {workflowToken, nil},
			"boot token":     {boot, nil},
			"nonce":          {nonce, nil},
			"session":        {m.booted.Session, []string{"answers"}},
			"status token":   {started.StatusToken.Reveal(), []string{"answers"}},
			"config":         {configCanary, []string{"answers"}},
		} {
			for place, text := range where {
				if got, want := strings.Contains(text, tc.text), slices.Contains(tc.in, place); got != want {
					t.Errorf("%s in %s: %t, want %t", name, place, got, want)
				}
			}
		}
	})
}

// dump returns all that the store holds.
func (w *world) dump() string {
	w.Helper()
	var out strings.Builder
	for _, kind := range []store.Kind{store.KindRequest, store.KindRunner} {
		for i, err := range w.items.List(w.Context(), store.Filter{Kind: kind}) {
			if err != nil {
				w.Fatal(err)
			}
			refs := []store.Item{i}
			if run, ok := i.(*store.Runner); ok {
				lock, pulse, quota := w.lock(run.Lock), w.pulse(run.Lock), read[store.Quota](w, run.Account)
				refs = append(refs, &lock, &pulse, &quota)
			}
			for _, i := range refs {
				b, err := store.Encode(i)
				if err != nil {
					w.Fatal(err)
				}
				out.Write(b)
			}
		}
	}
	return out.String()
}

// What is logged about a call is one line, whatever it holds.
func TestLogLinesCannotBeForged(t *testing.T) {
	w := newWorld(t)
	c := workflow
	c.Name, c.Claims.Actor = "x\n{\"alarm\":\"forged\"}", "x\n{\"alarm\":\"forged\"}"
	w.github.callers["forger"] = c
	w.raw("POST", "/start", "forger", apitype.Start{}, "User-Agent", "a\u2028b", "X-Forwarded-For", "canary-header")
	if got := w.alarms(); len(got) != 0 { // reads every line as JSON
		t.Errorf("alarms = %q, want none", got)
	}
	if strings.Contains(w.log.String(), "canary-header") {
		t.Error("a header is logged")
	}
}

func TestEveryCallIsOneLogLine(t *testing.T) {
	w := newWorld(t)
	var out strings.Builder
	cfg := w.config()
	cfg.Log = slog.New(slog.NewJSONHandler(&out, nil))
	w.handler = api.New(cfg)
	w.raw("GET", "/healthz", "", nil)
	w.raw("POST", "/start", workflowToken, apitype.Start{})
	w.raw("POST", "/start", workflowToken, `{"x":1}`)
	w.raw("GET", "/nowhere", "", nil)
	if got := strings.Count(out.String(), "\n"); got != 4 {
		t.Errorf("%d lines for 4 calls:\n%s", got, out.String())
	}
}
