package simgithub

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
)

func TestMintAnswersAsGitHubDoes(t *testing.T) {
	w := open(t, Config{})
	m := w.mint("garo-1", "garo-AbC", "big")
	if m.Runner.Name != "garo-1" || m.Runner.Status != "offline" || m.Runner.Busy || m.Runner.OS != "unknown" || m.Runner.Version != nil || !m.Runner.Ephemeral {
		t.Errorf("runner = %+v, want a new one, offline", m.Runner)
	}
	if len(m.Runner.Labels) != 2 || m.Runner.Labels[0].Name != "garo-AbC" || m.Runner.Labels[1].Name != "big" {
		t.Errorf("labels = %+v, want those given, as they are", m.Runner.Labels)
	}
	b, err := base64.StdEncoding.DecodeString(m.Config)
	if err != nil {
		t.Fatalf("config is not base64: %v", err)
	}
	var files map[string]string
	if err := json.Unmarshal(b, &files); err != nil {
		t.Fatalf("config: %v", err)
	}
	if got, want := slices.Sorted(maps.Keys(files)), []string{".credentials", ".credentials_rsaparams", ".runner"}; !slices.Equal(got, want) {
		t.Errorf("files = %v, want %v", got, want)
	}
	b, err = base64.StdEncoding.DecodeString(files[".runner"])
	if err != nil {
		t.Fatalf(".runner is not base64: %v", err)
	}
	var r struct{ AgentId, AgentName, WorkFolder, Ephemeral string }
	if err := json.Unmarshal(b, &r); err != nil || r.AgentId != strconv.FormatInt(m.Runner.ID, 10) || r.AgentName != "garo-1" || r.WorkFolder != "_work" || r.Ephemeral != "True" {
		t.Errorf(".runner = %+v, %v; want that of runner %d", r, err, m.Runner.ID)
	}
	if n := w.mint("garo-2", "x"); n.Config == m.Config || n.Runner.ID <= m.Runner.ID {
		t.Errorf("a second runner has id %d and config equal %v, want a higher id and another config", n.Runner.ID, n.Config == m.Config)
	}
}

func TestNameIsTakenWhateverItsCase(t *testing.T) {
	w := open(t, Config{})
	m := w.mint("Garo-1", "x")
	w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("gARO-1", "x"), 409, nil)
	w.call("POST", "/repos/acme/other/actions/runners/generate-jitconfig", mintBody("garo-1", "x"), 201, nil)
	w.call("DELETE", fmt.Sprintf("/repos/acme/shop/actions/runners/%d", m.Runner.ID), "", 204, nil)
	w.mint("garo-1", "x")
	got := w.Minted()
	if len(got) != 3 || got[0].RemovedBy != RemovedByCall || got[0].RemovedAt.IsZero() || got[1].RemovedBy != "" || len(w.Registrations()) != 2 {
		t.Errorf("minted = %+v, want the deleted one and two others", got)
	}
}

func TestMintRefusesWhatGitHubRefuses(t *testing.T) {
	w := open(t, Config{})
	for name, body := range map[string]string{
		"NoLabels":     mintBody("r"),
		"101Labels":    mintBody("r", slices.Repeat([]string{"x"}, 101)...),
		"BlankLabel":   mintBody("r", " "),
		"LongLabel":    mintBody("r", strings.Repeat("x", 257)),
		"CommaInLabel": mintBody("r", "a,b"),
		"LongName":     mintBody(strings.Repeat("r", 65), "x"),
		"NoName":       mintBody("", "x"),
		"SpaceInName":  mintBody("a b", "x"),
		"OtherGroup":   `{"name":"r","runner_group_id":2,"labels":["x"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			var p problem
			w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", body, 422, &p)
			if errors, _ := p.Errors.([]any); p.Message == "" || p.Docs == "" || len(errors) != 1 {
				t.Errorf("problem = %+v, want a message, a link and one error", p)
			}
		})
	}
	w.t = t
	w.mint(strings.Repeat("r", 64), slices.Repeat([]string{strings.Repeat("x", 256)}, 100)...)
	if n := len(w.Registrations()); n != 1 {
		t.Errorf("%d registrations, want the largest that is allowed, alone", n)
	}
}

func TestWrongRequestsAreReported(t *testing.T) {
	const path = "/repos/acme/shop/actions/runners"
	const mint = path + "/generate-jitconfig"
	without := func(r *http.Request, header string) *http.Request {
		r.Header.Del(header)
		return r
	}
	with := func(r *http.Request, header, value string) *http.Request {
		r.Header.Set(header, value)
		return r
	}
	ctx := t.Context()
	for name, r := range map[string]*http.Request{
		"UnknownField":     request(ctx, "POST", mint, `{"name":"r","runner_group_id":1,"labels":["x"],"work_dir":"_work"}`),
		"FieldInOtherCase": request(ctx, "POST", mint, `{"Name":"r","runner_group_id":1,"labels":["x"]}`),
		"FieldTwice":       request(ctx, "POST", mint, `{"name":"r","name":"s","runner_group_id":1,"labels":["x"]}`),
		"NameIsNumber":     request(ctx, "POST", mint, `{"name":1,"runner_group_id":1,"labels":["x"]}`),
		"GroupIsString":    request(ctx, "POST", mint, `{"name":"r","runner_group_id":"1","labels":["x"]}`),
		"GroupIsFraction":  request(ctx, "POST", mint, `{"name":"r","runner_group_id":1.5,"labels":["x"]}`),
		"LabelsAreNull":    request(ctx, "POST", mint, `{"name":"r","runner_group_id":1,"labels":null}`),
		"LabelsAreText":    request(ctx, "POST", mint, `{"name":"r","runner_group_id":1,"labels":"x"}`),
		"NoName":           request(ctx, "POST", mint, `{"runner_group_id":1,"labels":["x"]}`),
		"NoGroup":          request(ctx, "POST", mint, `{"name":"r","labels":["x"]}`),
		"NoLabels":         request(ctx, "POST", mint, `{"name":"r","runner_group_id":1}`),
		"TwoValues":        request(ctx, "POST", mint, mintBody("r", "x")+"{}"),
		"Truncated":        request(ctx, "POST", mint, mintBody("r", "x")[:20]),
		"UnfinishedObject": request(ctx, "POST", mint, `{"name":"r"`),
		"AnArray":          request(ctx, "POST", mint, `[]`),
		"TooLong":          request(ctx, "POST", mint, mintBody(strings.Repeat("r", maxBody), "x")),
		"FormBody":         with(request(ctx, "POST", mint, "name=r"), "Content-Type", "application/x-www-form-urlencoded"),
		"NoContentType":    without(request(ctx, "POST", mint, mintBody("r", "x")), "Content-Type"),
		"OtherCharset":     with(request(ctx, "POST", mint, mintBody("r", "x")), "Content-Type", "application/json; charset=latin1"),
		"NoVersion":        without(request(ctx, "GET", path, ""), "X-GitHub-Api-Version"),
		"StrangeVersion":   with(request(ctx, "GET", path, ""), "X-GitHub-Api-Version", "2020-01-01"),
		"NoUserAgent":      without(request(ctx, "GET", path, ""), "User-Agent"),
		"NoAccept":         without(request(ctx, "GET", path, ""), "Accept"),
		"BodyWithGet":      request(ctx, "GET", path, "{}"),
		"BodyWithDelete":   request(ctx, "DELETE", path+"/1", "{}"),
		"QueryWithGet":     request(ctx, "GET", path+"/1?x=1", ""),
		"UnknownQuery":     request(ctx, "GET", path+"?label=x", ""),
		"QueryTwice":       request(ctx, "GET", path+"?page=1&page=2", ""),
		"PageZero":         request(ctx, "GET", path+"?page=0", ""),
		"PerPage101":       request(ctx, "GET", path+"?per_page=101", ""),
		"EmptyName":        request(ctx, "GET", path+"?name=", ""),
		"UnknownMethod":    request(ctx, "PUT", path+"/1", ""),
		"UnknownPath":      request(ctx, "GET", "/repos/acme/shop/actions/secrets", ""),
		"NoRepository":     request(ctx, "GET", "/repos/acme/actions/runners", ""),
		"IDIsNoNumber":     request(ctx, "DELETE", path+"/r", ""),
		"Registration":     request(ctx, "POST", path+"/registration-token", ""),
		"TwoCredentials": func() *http.Request {
			r := request(ctx, "GET", path, "")
			r.Header.Add("Authorization", "Bearer "+token)
			return r
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, Config{})
			if got := w.send(r); got.status < 400 || got.status >= 500 {
				t.Errorf("status = %d, want a refusal", got.status)
			}
			if got := w.reported(); len(got) != 1 {
				t.Errorf("reported = %q, want one report", got)
			}
			if got := w.Registrations(); len(got) != 0 {
				t.Errorf("registrations = %+v, want none", got)
			}
		})
	}
}

func TestOnlyTheTokenIsLetIn(t *testing.T) {
	w := open(t, Config{})
	for _, auth := range []string{"", "Bearer ", "Bearer other", "Bearer the-token ", "bearer the-token", "token the-token", "the-token"} {
		r := request(t.Context(), "POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("r", "x"))
		r.Header.Set("Authorization", auth)
		if got := w.send(r); got.status != 401 {
			t.Errorf("Authorization %q = %d, want 401", auth, got.status)
		}
	}
	if n := len(w.Registrations()); n != 0 {
		t.Errorf("%d registrations, want none", n)
	}
}

func TestOnlyKnownRepositoriesExist(t *testing.T) {
	w := open(t, Config{})
	m := w.mint("r", "x")
	id := strconv.FormatInt(m.Runner.ID, 10)
	for path, want := range map[string]int{
		"/repos/acme/shop/actions/runners/" + id:          200,
		"/repos/ACME/Shop/actions/runners/" + id:          200,
		"/repositories/101/actions/runners/" + id:         200,
		"/api/v3/repos/acme/shop/actions/runners/" + id:   200,
		"/repos/acme/other/actions/runners/" + id:         404,
		"/repositories/102/actions/runners/" + id:         404,
		"/repos/acme/none/actions/runners":                404,
		"/repositories/103/actions/runners":               404,
		"/repos/acme/none/actions/runners/downloads":      404,
		"/repos/acme/shop/actions/runners/" + id + "0000": 404,
	} {
		w.call("GET", path, "", want, nil)
	}
	w.call("POST", "/repos/acme/none/actions/runners/generate-jitconfig", mintBody("r", "x"), 404, nil)
	w.call("DELETE", "/repos/acme/other/actions/runners/"+id, "", 404, nil)
	if _, err := w.Queue("acme/none", Job{Labels: []string{"x"}}); err == nil {
		t.Error("Queue in a repository that is not there: no error")
	}

	s, err := New(Config{Rules: Rules{Token: w.rules.Token}})
	if err != nil {
		t.Fatal(err)
	}
	any := &world{Server: s, t: t}
	any.call("POST", "/repos/some/where/actions/runners/generate-jitconfig", mintBody("r", "x"), 201, nil)
	any.call("POST", "/repositories/7/actions/runners/generate-jitconfig", mintBody("r", "x"), 201, nil)
	if got := s.Registrations(); len(got) != 2 || got[0].Repository != "some/where" || got[1].RepositoryID != "7" {
		t.Errorf("registrations = %+v, want two in repositories that nobody named before", got)
	}
}

func TestListPages(t *testing.T) {
	w := open(t, Config{})
	for i := range 65 {
		w.mint(fmt.Sprintf("r%02d", i), "x")
	}
	type list struct {
		Total   int      `json:"total_count"`
		Runners []runner `json:"runners"`
	}
	const self = "https://api.github.test/repositories/101/actions/runners?per_page="
	for query, c := range map[string]struct {
		from, n, total int
		link           string
	}{
		"":                      {0, 30, 65, `<` + self + `30&page=2>; rel="next", <` + self + `30&page=3>; rel="last"`},
		"?page=2":               {30, 30, 65, `<` + self + `30&page=1>; rel="prev", <` + self + `30&page=3>; rel="next", <` + self + `30&page=3>; rel="last", <` + self + `30&page=1>; rel="first"`},
		"?page=3":               {60, 5, 65, `<` + self + `30&page=2>; rel="prev", <` + self + `30&page=1>; rel="first"`},
		"?page=9":               {0, 0, 65, `<` + self + `30&page=8>; rel="prev", <` + self + `30&page=1>; rel="first"`},
		"?per_page=100":         {0, 65, 65, ""},
		"?per_page=65":          {0, 65, 65, ""},
		"?name=r07&per_page=10": {7, 1, 1, ""},
		"?name=R07":             {0, 0, 0, ""},
		"?name=r0":              {0, 0, 0, ""},
	} {
		var l list
		got := w.call("GET", "/repos/acme/shop/actions/runners"+query, "", 200, &l)
		if l.Total != c.total || len(l.Runners) != c.n || c.n > 0 && l.Runners[0].Name != fmt.Sprintf("r%02d", c.from) {
			t.Errorf("list %s = %d of %d runners, want %d of %d from r%02d", query, len(l.Runners), l.Total, c.n, c.total, c.from)
		}
		if link := got.header.Get("Link"); link != c.link {
			t.Errorf("list %s has the links\n%s, want\n%s", query, link, c.link)
		}
	}
}

func TestCallsByAnOldNameReachItsNewRepository(t *testing.T) {
	w := open(t, Config{})
	m := w.mint("r", "x")
	one := fmt.Sprintf("/actions/runners/%d", m.Runner.ID)
	if err := w.Rename("101", "acme/market"); err != nil {
		t.Fatal(err)
	}
	got := w.call("GET", "/repos/ACME/shop/actions/runners?per_page=5", "", 301, nil)
	if to := got.header.Get("Location"); to != "https://api.github.test/repositories/101/actions/runners?per_page=5" {
		t.Errorf("GET by the old name leads to %s, want the id", to)
	}
	got = w.call("DELETE", "/api/v3/repos/acme/shop"+one, "", 307, nil)
	if to := got.header.Get("Location"); to != "https://api.github.test/api/v3/repositories/101"+one {
		t.Errorf("DELETE by the old name leads to %s, want the id", to)
	}
	w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("s", "x"), 307, nil)
	w.call("GET", "/repos/acme/market"+one, "", 200, nil)
	w.call("GET", "/repositories/101"+one, "", 200, nil)

	if err := w.Create(github.Repository{ID: "999", Name: shop}); err != nil {
		t.Fatal(err)
	}
	w.call("GET", "/repos/acme/shop"+one, "", 404, nil)
	w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("s", "x"), 201, nil)
	w.call("DELETE", "/repositories/101"+one, "", 204, nil)
	if got := w.Registrations(); len(got) != 1 || got[0].RepositoryID != "999" {
		t.Errorf("registrations = %+v, want the one of the new repository", got)
	}
	for what, err := range map[string]error{
		"Rename of none": w.Rename("5", "acme/x"), "Rename to a taken name": w.Rename("101", "Acme/Other"),
		"Create of one that is there": w.Create(github.Repository{ID: "101", Name: "a/b"}), "Create under a taken name": w.Create(github.Repository{ID: "5", Name: shop}),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestRefusalsAreInGitHubsWords(t *testing.T) {
	const path = "/repos/acme/shop/actions/runners/generate-jitconfig"
	for name, f := range map[string]Refusal{
		"RunnersForbidden": RunnersForbidden, "NoPermission": NoPermission, "NoAccess": NoAccess,
		"ActionsDisabled": ActionsDisabled, "LabelRefused": LabelRefused,
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, Config{Rules: Rules{RefuseMint: &f}})
			var p problem
			if w.call("POST", path, mintBody("r", "x"), f.Status, &p); p.Message != f.Message || (p.Errors == nil) != (f.Errors == nil) {
				t.Errorf("answer = %+v, want the refusal's words", p)
			}
			w.Change(func(r *Rules) { r.RefuseMint = nil })
			w.mint("r", "x")
		})
	}
	w := open(t, Config{Rules: Rules{GroupLimit: 2}})
	w.mint("r1", "x")
	w.mint("r2", "x")
	w.call("POST", "/repos/acme/other/actions/runners/generate-jitconfig", mintBody("r3", "x"), 201, nil)
	var p problem
	if w.call("POST", path, mintBody("r3", "x"), 422, &p); p.Message != "Invalid Argument - Runner group 1 has reached max limit of 2 runners." {
		t.Errorf("answer = %+v, want GitHub's sentence of a full group", p)
	}
	if w.call("POST", path, mintBody("r1", "x"), 409, &p); p.Message != "Already exists - A runner with the name r1 already exists." {
		t.Errorf("answer = %+v, want GitHub's sentence of a name that exists", p)
	}
}

func TestVersionsHaveTheirEnds(t *testing.T) {
	end := time.Date(2026, 11, 5, 8, 4, 55, 0, time.UTC)
	w := open(t, Config{Rules: Rules{Version: "2.300.0", Deprecations: map[string]Deprecation{"2.300.0": {Registration: end, Runtime: end}}}})
	const path = "/repos/acme/shop/actions/runners/deprecations/"
	var d map[string]any
	w.call("GET", path+"2.300.0", "", 200, &d)
	if want := map[string]any{"runner_version": "2.300.0", "runtime_deprecates_at": "2026-11-05T08:04:55Z", "registration_deprecates_at": "2026-11-05T08:04:55Z"}; !maps.Equal(d, want) {
		t.Errorf("ends = %v, want %v", d, want)
	}
	d = nil
	w.call("GET", path+ProgramVersion, "", 200, &d)
	if want := map[string]any{"runner_version": ProgramVersion, "runtime_deprecates_at": nil}; !maps.Equal(d, want) {
		t.Errorf("ends = %v, want %v", d, want)
	}
	w.call("GET", path+"9.9.9", "", 404, nil)
	w.call("GET", "/api/v3"+path+"2.300.0", "", 404, nil) // an Enterprise Server
	id, x := w.online("r", "x")
	defer x.Close()
	var r runner
	if w.call("GET", fmt.Sprintf("/repos/acme/shop/actions/runners/%d", id), "", 200, &r); r.Version == nil || *r.Version != "2.300.0" {
		t.Errorf("runner = %+v, want the version of its program", r)
	}
}

func TestLimitEndsWithItsWindow(t *testing.T) {
	for name, limit := range map[string]Limit{
		"Primary":   {Calls: 3, Window: 10 * time.Minute},
		"Secondary": {Calls: 3, Window: 10 * time.Minute, Secondary: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := open(t, Config{Rules: Rules{Limit: limit}})
				const path = "/repos/acme/shop/actions/runners"
				for want := range 3 {
					got := w.call("GET", path, "", 200, nil)
					if left := got.header.Get("X-RateLimit-Remaining"); left != strconv.Itoa(2-want) {
						t.Errorf("call %d leaves %s, want %d", want+1, left, 2-want)
					}
					time.Sleep(time.Minute)
				}
				reset := time.Now().Add(7 * time.Minute)
				if limit.Secondary {
					got := w.call("GET", path, "", 429, nil)
					if got.header.Get("Retry-After") != "420" || got.header.Get("X-RateLimit-Remaining") != "" {
						t.Errorf("headers = %v, want retry-after 420 alone", got.header)
					}
				} else {
					got := w.call("GET", path, "", 403, nil)
					if got.header.Get("X-RateLimit-Remaining") != "0" || got.header.Get("X-RateLimit-Reset") != strconv.FormatInt(reset.Unix(), 10) {
						t.Errorf("headers = %v, want none left until %d", got.header, reset.Unix())
					}
				}
				var l struct {
					Rate struct{ Limit, Remaining, Used, Reset int64 }
				}
				w.call("GET", "/rate_limit", "", 200, &l)
				if l.Rate.Limit != 3 || l.Rate.Remaining != 0 || l.Rate.Used != 3 || l.Rate.Reset != reset.Unix() {
					t.Errorf("rate_limit = %+v, want 3 of 3 used until %d", l.Rate, reset.Unix())
				}
				time.Sleep(time.Until(reset))
				w.call("GET", path, "", 200, nil)
			})
		})
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next Fault
		var ops []string
		w := open(t, Config{Fault: func(op string, r *http.Request) Fault {
			ops = append(ops, op+" "+r.Method)
			return next
		}})
		mint := func(name string) (int, error) {
			resp, err := memhttp.Transport{Handler: w.Handler()}.RoundTrip(request(t.Context(), "POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody(name, "x")))
			if err != nil {
				return 0, err
			}
			return resp.StatusCode, nil
		}
		next = Fault{Instead: http.NotFoundHandler()}
		if code, err := mint("instead"); code != 404 || err != nil {
			t.Errorf("mint = %d, %v; want the answer of the fault", code, err)
		}
		next = Fault{Instead: NoAnswer}
		if code, err := mint("dropped"); err == nil {
			t.Errorf("mint = %d, want no answer", code)
		}
		next = Fault{Lose: true}
		if code, err := mint("lost"); err == nil {
			t.Errorf("mint = %d, want no answer", code)
		}
		next = Fault{Delay: time.Hour}
		begin := time.Now()
		if code, err := mint("slow"); code != 201 || err != nil || time.Since(begin) != time.Hour {
			t.Errorf("mint = %d, %v after %v; want 201 after an hour", code, err, time.Since(begin))
		}
		var names []string
		for _, r := range w.Registrations() {
			names = append(names, r.Name)
		}
		if want := []string{"lost", "slow"}; !slices.Equal(names, want) {
			t.Errorf("registrations = %v, want %v", names, want)
		}
		if len(ops) != 4 || ops[0] != "mint POST" || w.Calls()[OpMint] != 4 {
			t.Errorf("faults were asked for %v and calls counted as %v, want 4 mints", ops, w.Calls())
		}
	})
}

func TestCallsAreCountedByOperation(t *testing.T) {
	w := open(t, Config{})
	m := w.mint("r", "x")
	one := fmt.Sprintf("/repos/acme/shop/actions/runners/%d", m.Runner.ID)
	w.call("GET", "/repos/acme/shop/actions/runners", "", 200, nil)
	w.call("GET", one, "", 200, nil)
	w.call("GET", one, "", 200, nil)
	w.call("DELETE", one, "", 204, nil)
	w.call("GET", "/rate_limit", "", 200, nil)
	var files []download
	w.call("GET", "/repos/acme/shop/actions/runners/downloads", "", 200, &files)
	if len(files) != 2 || files[0].Architecture != "x64" || files[1].Architecture != "arm64" || len(files[0].SHA256) != 64 {
		t.Errorf("downloads = %+v, want Linux for x64 and arm64", files)
	}
	want := map[string]int{OpMint: 1, OpList: 1, OpGet: 2, OpDelete: 1, OpRateLimit: 1, OpDownloads: 1}
	if got := w.Calls(); !maps.Equal(got, want) {
		t.Errorf("calls = %v, want %v", got, want)
	}
}

func TestSameSeedSameAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := open(t, Config{}), open(t, Config{})
		for _, n := range []string{"r1", "r2"} {
			if x, y := a.mint(n, "x"), b.mint(n, "x"); x.Config != y.Config || x.Runner.ID != y.Runner.ID {
				t.Errorf("two servers with one seed gave runner %s other answers", n)
			}
		}
	})
}

type noRandom struct{}

func (noRandom) Read([]byte) (int, error) { return 0, errors.New("no more") }

func TestWithoutRandomNothingIsMinted(t *testing.T) {
	w := open(t, Config{Random: noRandom{}})
	w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("r", "x"), 500, nil)
	if n := len(w.Registrations()); n != 0 {
		t.Errorf("%d registrations, want none", n)
	}
}
