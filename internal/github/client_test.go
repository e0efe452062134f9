package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub/contract"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	token = "canary-token-51c0"
	// canary is in every hostile answer, where no error may show it.
	canary = "canary-answer-9f3e"
	// sentence is what GitHub says of every refusal.
	sentence = "Some sentence of GitHub's."
)

var (
	repo   = github.Scope{ID: "101", Name: "acme/shop", Account: "111122223333"}
	other  = github.Scope{ID: "102", Name: "acme/other", Account: "111122223333"}
	hidden = github.Scope{ID: "103", Name: "acme/hidden", Account: "111122223333"}
)

// world is a strict GitHub, whose every exchange is held against GitHub's own
// description.
type world struct {
	*simgithub.Server
	t *testing.T
}

var (
	loading     sync.Once
	description *contract.Description
)

func (w world) Handler() http.Handler {
	w.t.Helper()
	loading.Do(func() { description = contract.Load(w.t, "simgithub/testdata/github-openapi.json") })
	return description.Handler(w.t, w.Server.Handler())
}

// open returns a GitHub without faults beyond those in cfg.
func open(t *testing.T, cfg simgithub.Config) world {
	t.Helper()
	cfg.Repositories = []github.Repository{{ID: repo.ID, Name: repo.Name}, {ID: other.ID, Name: other.Name}}
	if cfg.Rules.Token.Empty() {
		cfg.Rules.Token = secret.New(token)
	}
	if cfg.Errorf == nil {
		cfg.Errorf = t.Errorf
	}
	s, err := simgithub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return world{s, t}
}

// client returns a client whose calls go to h, without a network.
func client(t *testing.T, h http.Handler) *github.Client {
	t.Helper()
	return clientAt(t, "https://github.test", memhttp.Client(h))
}

// newClient is client for tests that are no *testing.T.
func newClient(h http.Handler) (*github.Client, error) {
	return github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(h), Token: func(context.Context, github.Access) (secret.Text, error) {
		return secret.New(token), nil
	}})
}

func clientAt(t *testing.T, base string, hc *http.Client) *github.Client {
	t.Helper()
	c, err := github.New(github.Config{BaseURL: base, HTTP: hc, Token: func(context.Context, github.Access) (secret.Text, error) {
		return secret.New(token), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func clientWithClock(t *testing.T, h http.Handler, now func() time.Time) *github.Client {
	t.Helper()
	c, err := github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(h), Now: now, Token: func(context.Context, github.Access) (secret.Text, error) {
		return secret.New(token), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// failed asserts that err is of one kind, and shows no secret in any format.
func failed(t *testing.T, what string, err, kind error) *github.Error {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("%s = %v, want %v", what, err, kind)
	}
	e, ok := errors.AsType[*github.Error](err)
	if !ok {
		t.Fatalf("%s = %T, want a *github.Error in it", what, err)
	}
	for _, s := range []string{err.Error(), fmt.Sprintf("%+v %#v %#v", err, err, e)} {
		if strings.Contains(s, "canary") {
			t.Errorf("%s shows what it must not: %s", what, s)
		}
	}
	if e.Kind != github.ErrLimited && !e.RetryAt.IsZero() {
		t.Errorf("%s: RetryAt = %v without a limit", what, e.RetryAt)
	}
	return e
}

func TestRunnerIsMintedFoundAndDeleted(t *testing.T) {
	overHTTP := func(path string) func(*testing.T, http.Handler) *github.Client {
		return func(t *testing.T, h http.Handler) *github.Client {
			srv := httptest.NewServer(h)
			t.Cleanup(srv.Close)
			return clientAt(t, srv.URL+path, srv.Client())
		}
	}
	for name, connect := range map[string]func(*testing.T, http.Handler) *github.Client{
		"InMemory":            client,
		"OverHTTP":            overHTTP(""),
		"ATrailingSlash":      overHTTP("/"),
		"AnEnterpriseServer":  overHTTP("/api/v3"),
		"AnEnterpriseServer2": overHTTP("/api/v3/"),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, simgithub.Config{})
			c := connect(t, s.Handler())
			ctx := t.Context()

			labels := []string{"garo-abc", "Linux-Big"}
			m, err := c.Mint(ctx, repo, "garo-cp-r1-1", labels)
			if err != nil {
				t.Fatalf("Mint: %v", err)
			}
			reg := s.Registrations()
			if len(reg) != 1 || reg[0].ID != m.RunnerID || !reg[0].Config.Equal(m.Config.Reveal()) {
				t.Fatalf("registrations = %+v, want the one of %+v", reg, m)
			}
			want := github.Runner{ID: m.RunnerID, Name: "garo-cp-r1-1", Labels: labels}
			got, err := c.Get(ctx, repo, m.RunnerID)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("Get: %v, -want +got:\n%s", err, diff)
			}
			session, err := s.Connect(ctx, m.Config.Reveal())
			if err != nil {
				t.Fatalf("Connect with the config: %v", err)
			}
			defer session.Close()
			want.Online, want.Version = true, simgithub.ProgramVersion
			got, err = c.Find(ctx, repo, "garo-cp-r1-1")
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("Find: %v, -want +got:\n%s", err, diff)
			}
			if got := collect(t, c, repo, "garo-cp-"); len(got) != 1 || !cmp.Equal(want, got[0]) {
				t.Errorf("List = %+v, want %+v", got, want)
			}
			if err := c.Delete(ctx, repo, m.RunnerID); err != nil {
				t.Errorf("Delete: %v", err)
			}
			_, err = c.Get(ctx, repo, m.RunnerID)
			failed(t, "Get after Delete", err, github.ErrNotFound)
			failed(t, "a second Delete", c.Delete(ctx, repo, m.RunnerID), github.ErrNotFound)
			if got := collect(t, c, repo, ""); len(got) != 0 {
				t.Errorf("List after Delete = %+v, want none", got)
			}
		})
	}
}

func collect(t *testing.T, c *github.Client, repo github.Scope, prefix string) (out []github.Runner) {
	t.Helper()
	for r, err := range c.List(t.Context(), repo, prefix) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		out = append(out, r)
	}
	return out
}

func TestBusyRunnerIsNotDeleted(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	m, err := c.Mint(t.Context(), repo, "r", []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Queue(repo.Name, simgithub.Job{RunID: "7", Labels: []string{"X"}}); err != nil {
		t.Fatal(err)
	}
	session, err := s.Connect(t.Context(), m.Config.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	job, err := session.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	failed(t, "Delete while busy", c.Delete(t.Context(), repo, m.RunnerID), github.ErrBusy)
	s.Change(func(r *simgithub.Rules) { r.OmitBusy = true })
	if got := collect(t, c, repo, ""); len(got) != 0 {
		t.Errorf("List = %+v, want none when GitHub leaves out busy runners", got)
	}
	if r, err := c.Get(t.Context(), repo, m.RunnerID); err != nil || !r.Busy || !r.Online {
		t.Errorf("Get = %+v, %v; want it online and busy, though no list shows it", r, err)
	}
	if err := session.Done(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	failed(t, "Delete after the job", c.Delete(t.Context(), repo, m.RunnerID), github.ErrNotFound)
}

func TestFindIsExact(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	for _, n := range []string{"garo-1", "garo-10", "GARO-2"} {
		if _, err := c.Mint(t.Context(), repo, n, []string{"x"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"garo", "garo-2", "garo-100"} {
		_, err := c.Find(t.Context(), repo, n)
		if e := failed(t, "Find "+n, err, github.ErrNotFound); e.Status != http.StatusOK || e.RequestID == "" {
			t.Errorf("Find %s = %v, want GitHub's id of the list that lacks it", n, e)
		}
	}
	if n := s.Calls()[simgithub.OpList]; n != 3 {
		t.Errorf("3 times Find made %d calls, want one each", n)
	}
	_, err := c.Find(t.Context(), hidden, "garo-1")
	if e := failed(t, "Find in a repository that does not show", err, github.ErrNotFound); e.Status != http.StatusNotFound {
		t.Errorf("Find in a repository that does not show = %v, want status 404", e)
	}
	// A server that filters loosely, or not at all.
	loose := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") == "2" {
			fmt.Fprint(w, `{"total_count":3,"runners":[{"id":3,"name":"garo-2"}]}`)
			return
		}
		w.Header().Set("Link", `<https://github.test/x?page=2>; rel="next"`)
		fmt.Fprint(w, `{"total_count":3,"runners":[{"id":1,"name":"GARO-2"},{"id":2,"name":"garo-22"}]}`)
	})
	if r, err := client(t, loose).Find(t.Context(), repo, "garo-2"); err != nil || r.ID != 3 {
		t.Errorf("Find among all = %+v, %v; want runner 3", r, err)
	}
}

func TestListFollowsPages(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	var want []string
	for i := range 205 {
		name := fmt.Sprintf("garo-a-%d", i)
		if i%5 == 0 {
			name = fmt.Sprintf("else-%d", i)
		} else {
			want = append(want, name)
		}
		if _, err := c.Mint(t.Context(), repo, name, []string{"x"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Mint(t.Context(), other, "garo-a-other", []string{"x"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range collect(t, c, repo, "garo-a-") {
		got = append(got, r.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("List = %d runners %v, want the %d of that prefix", len(got), got, len(want))
	}
	if n := s.Calls()[simgithub.OpList]; n != 3 {
		t.Errorf("List of 205 runners made %d calls, want 3", n)
	}
	for range c.List(t.Context(), repo, "") {
		break
	}
	if n := s.Calls()[simgithub.OpList]; n != 4 {
		t.Errorf("List that was left at the first runner made %d calls, want 1", n-3)
	}
}

func TestFindAsksForTheNameAlone(t *testing.T) {
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("name") != "garo-2" || r.Header.Get("User-Agent") != "garo" || r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("GET %s with %v, want the name, our agent and the credential", r.URL, r.Header)
		}
		fmt.Fprint(w, `{"total_count":1,"runners":[{"id":3,"name":"garo-2"}]}`)
	}))
	if _, err := c.Find(t.Context(), repo, "garo-2"); err != nil {
		t.Errorf("Find: %v", err)
	}
}

func TestFailedPageEndsTheList(t *testing.T) {
	s := open(t, simgithub.Config{Fault: func(op string, r *http.Request) (f simgithub.Fault) {
		if r.URL.Query().Get("page") == "2" {
			f.Instead = status(http.StatusBadGateway)
		}
		return f
	}})
	c := client(t, s.Handler())
	for i := range 101 {
		if _, err := c.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
			t.Fatal(err)
		}
	}
	n, errs := 0, 0
	for _, err := range c.List(t.Context(), repo, "") {
		if n++; err != nil {
			errs++
			failed(t, "page 2", err, github.ErrUnknown)
			if n != 101 {
				t.Errorf("the error came as number %d, want 101: after the first page", n)
			}
		}
	}
	if n != 101 || errs != 1 {
		t.Errorf("List yielded %d values with %d errors, want 101 with 1", n, errs)
	}
}

func TestTokenIsAskedForEachExchange(t *testing.T) {
	s := open(t, simgithub.Config{})
	var mu sync.Mutex
	var asked []github.Access
	c, err := github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(s.Handler()), Token: func(_ context.Context, r github.Access) (secret.Text, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r)
		return secret.New(token), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := c.Mint(t.Context(), []github.Scope{repo, other}[i%2], fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
				t.Errorf("Mint %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	slices.SortFunc(asked, func(a, b github.Access) int { return strings.Compare(a.Repository, b.Repository) })
	if len(asked) != 20 || asked[9] != repo.Access() || asked[10] != other.Access() {
		t.Errorf("Token was asked for %v, want 10 times for each repository", asked)
	}
}

func TestCredentialThatFailsMakesNoCall(t *testing.T) {
	for name, c := range map[string]struct {
		token secret.Text
		err   error
		want  error
	}{
		"Limited": {err: &github.Error{Kind: github.ErrLimited, Op: "exchange"}, want: github.ErrLimited},
		"Foreign": {err: context.DeadlineExceeded, want: context.DeadlineExceeded},
		"Empty":   {want: github.ErrDenied},
		"Newline": {token: secret.New("canary\n"), want: github.ErrDenied},
		"Unicode": {token: secret.New("canary\u00e9"), want: github.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, simgithub.Config{})
			client, err := github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(s.Handler()), Token: func(context.Context, github.Access) (secret.Text, error) {
				return c.token, c.err
			}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Mint(t.Context(), repo, "r", []string{"x"})
			if !errors.Is(err, c.want) || strings.Contains(fmt.Sprintf("%v %+v", err, err), "canary") {
				t.Errorf("Mint = %v, want %v and no credential", err, c.want)
			}
			if len(s.Calls()) != 0 {
				t.Errorf("calls = %v, want none", s.Calls())
			}
		})
	}
}

func TestSenselessArgumentsMakeNoCall(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	for _, id := range []string{"", "0", "-1", "0101", "1 ", "1/..", "..", "acme/shop", "1?x", "1#", "%31", "١", "1\n", "1.5", "9999999999999999999"} {
		r := github.Scope{ID: id, Name: repo.Name}
		failed(t, fmt.Sprintf("Delete in %q", id), c.Delete(t.Context(), r, 1), github.ErrRefused)
	}
	for _, id := range []int64{0, -1} {
		_, err := c.Get(t.Context(), repo, id)
		failed(t, fmt.Sprintf("Get %d", id), err, github.ErrRefused)
		failed(t, fmt.Sprintf("Delete %d", id), c.Delete(t.Context(), repo, id), github.ErrRefused)
	}
	if len(s.Calls()) != 0 {
		t.Errorf("calls = %v, want none", s.Calls())
	}
}

func TestDeadlineLeavesTheOutcomeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{Fault: func(string, *http.Request) simgithub.Fault { return simgithub.Fault{Delay: time.Minute} }})
		c := client(t, s.Handler())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := c.Mint(ctx, repo, "r", []string{"x"})
		if e := failed(t, "Mint", err, github.ErrUnknown); e.Status != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Mint = %v, want no status and the deadline's error", err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("Mint took %v, want its 10 s", took)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if _, err := c.Mint(ctx, repo, "r", []string{"x"}); err != nil {
			t.Errorf("Mint with time enough: %v", err)
		}
	})
}

func TestNewRefusesABadConfig(t *testing.T) {
	source := func(context.Context, github.Access) (secret.Text, error) { return secret.Text{}, nil }
	for _, base := range []string{"", "api.github.com", "ftp://api.github.com", "http://api.github.com", "http://127.0.0.1.evil.test", "https://", "https://user:canary@api.github.com", "https://user:canary@api.github.com:%zz", "https://api.github.com?x=1", "https://api.github.com#x"} {
		if _, err := github.New(github.Config{BaseURL: base, Token: source}); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("New with base %q = %v, want an error without its password", base, err)
		}
	}
	for _, base := range []string{"https://api.github.com", "https://api.github.com/", "https://ghes.test/api/v3", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"} {
		if _, err := github.New(github.Config{BaseURL: base, Token: source}); err != nil {
			t.Errorf("New with base %q: %v", base, err)
		}
	}
	if _, err := github.New(github.Config{BaseURL: "https://api.github.com"}); err == nil {
		t.Error("New without a source of credentials: no error")
	}
}

// status answers with that status, some headers (name, value, …) and a body of
// which the message may be shown, and nothing else.
func status(code int, headers ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-GitHub-Request-Id", "REQ:1")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"message":%q,"documentation_url":%q}`, sentence, canary)
	})
}
