package github_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// calls makes each of the calls and returns their errors by name.
func calls(t *testing.T, c *github.Client) map[string]error {
	t.Helper()
	out := map[string]error{}
	_, out["Mint"] = c.Mint(t.Context(), repo, "r", []string{"x"})
	_, out["Get"] = c.Get(t.Context(), repo, 1)
	out["Delete"] = c.Delete(t.Context(), repo, 1)
	_, out["Find"] = c.Find(t.Context(), repo, "r")
	for _, err := range c.List(t.Context(), repo, "") {
		out["List"] = err
	}
	_, out["Downloads"] = c.Downloads(t.Context(), repo)
	_, out["Rates"] = c.Rates(t.Context(), repo)
	return out
}

func TestEachStatusHasItsKind(t *testing.T) {
	for code, c := range map[int]struct {
		want   error
		except map[string]error
	}{
		200: {want: github.ErrUnknown}, // to those that read, with a body that is none
		202: {want: github.ErrUnknown},
		206: {want: github.ErrUnknown},
		304: {want: github.ErrRefused},
		400: {want: github.ErrRefused},
		401: {want: github.ErrDenied},
		403: {want: github.ErrDenied},
		404: {want: github.ErrNotFound},
		405: {want: github.ErrRefused},
		409: {want: github.ErrRefused, except: map[string]error{"Mint": github.ErrConflict}},
		410: {want: github.ErrRefused},
		415: {want: github.ErrRefused},
		422: {want: github.ErrRefused, except: map[string]error{"Delete": github.ErrBusy}},
		429: {want: github.ErrLimited},
		451: {want: github.ErrRefused},
		500: {want: github.ErrUnknown},
		501: {want: github.ErrUnknown},
		502: {want: github.ErrUnknown},
		503: {want: github.ErrUnknown},
		504: {want: github.ErrUnknown},
		599: {want: github.ErrUnknown},
	} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			for call, err := range calls(t, client(t, status(code))) {
				if code == 200 && (call == "Find" || call == "List") {
					continue // an object without runners is an empty list
				}
				want := c.want
				if w := c.except[call]; w != nil {
					want = w
				}
				e := failed(t, call, err, want)
				if e.Status != code || e.RequestID != "REQ:1" {
					t.Errorf("%s = %v, want status %d of GitHub request REQ:1", call, e, code)
				}
			}
		})
	}
}

func TestDocumentedErrors(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	if _, err := c.Mint(t.Context(), repo, "Taken", []string{"x"}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Mint(t.Context(), repo, "taken", []string{"x"})
	failed(t, "Mint of a name that differs by case", err, github.ErrNameTaken)
	if _, err := c.Mint(t.Context(), other, "taken", []string{"x"}); err != nil {
		t.Errorf("Mint of the name in another repository: %v", err)
	}
	for name, labels := range map[string][]string{"no-labels": {}, "many-labels": make([]string, 101), strings.Repeat("n", 65): {"x"}, "": {"x"}, "a b": {"x"}} {
		_, err := c.Mint(t.Context(), repo, name, labels)
		failed(t, "Mint of "+name, err, github.ErrRefused)
	}
	for call, err := range calls(t, client(t, http.NotFoundHandler())) {
		failed(t, call+" at a path that is not there", err, github.ErrNotFound)
	}
	s.Change(func(r *simgithub.Rules) { r.Token = secret.New("another") })
	for call, err := range calls(t, c) {
		if e := failed(t, call+" with a revoked token", err, github.ErrDenied); e.Status != http.StatusUnauthorized {
			t.Errorf("%s = %v, want status 401", call, e)
		}
	}
}

func TestLimitSaysUntilWhen(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	secondary := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"message":"slow","documentation_url":"https://docs.github.com/rest/x#secondary-rate-limits"}`)
	})
	for name, c := range map[string]struct {
		answer http.Handler
		want   time.Duration
	}{
		"RetryAfter":            {status(403, "Retry-After", "90"), 90 * time.Second},
		"RetryAfterWith429":     {status(429, "Retry-After", "7"), 7 * time.Second},
		"RetryAfterBeforeReset": {status(403, "Retry-After", "30", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", at(20*time.Minute)), 30 * time.Second},
		"Reset":                 {status(403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", at(20*time.Minute)), 20 * time.Minute},
		"ResetWith429":          {status(429, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", at(5*time.Second)), 5 * time.Second},
		"ResetWithCallsLeft":    {status(429, "X-RateLimit-Remaining", "10", "X-RateLimit-Reset", at(20*time.Minute)), time.Minute},
		"NoTime":                {status(429), time.Minute},
		"NoReset":               {status(403, "X-RateLimit-Remaining", "0"), time.Minute},
		"OnlyTheDocumentation":  {secondary, time.Minute},
		"ResetIsPast":           {status(403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", at(-time.Minute)), time.Minute},
		"AtOnce":                {status(429, "Retry-After", "0"), time.Minute},
		"Negative":              {status(429, "Retry-After", "-3600"), time.Minute},
		"ADate":                 {status(429, "Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"), time.Minute},
		"Overflow":              {status(429, "Retry-After", "99999999999999999999"), time.Minute},
		"FarAway":               {status(429, "Retry-After", "2000000000"), time.Hour},
		"ResetFarAway":          {status(403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "9223372036854775807"), time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			cl := clientWithClock(t, c.answer, func() time.Time { return now })
			for call, err := range calls(t, cl) {
				e := failed(t, call, err, github.ErrLimited)
				if got := e.RetryAt.Sub(now); got != c.want {
					t.Errorf("%s: RetryAt = now + %v, want + %v", call, got, c.want)
				}
			}
		})
	}
}

func TestLimitIsGitHubsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{Rules: simgithub.Rules{Token: secret.New(token), Limit: simgithub.Limit{Calls: 2}}})
		c := client(t, s.Handler())
		for range 2 {
			if _, err := c.Find(t.Context(), repo, "r"); err == nil {
				t.Fatal("Find of a runner that is not there: no error")
			}
		}
		_, err := c.Find(t.Context(), repo, "r")
		e := failed(t, "the third call", err, github.ErrLimited)
		if wait := time.Until(e.RetryAt); wait != time.Hour {
			t.Errorf("RetryAt is %v ahead, want the rest of GitHub's hour", wait)
		}
		// The client itself keeps nobody from asking.
		_, err = c.Find(t.Context(), repo, "r")
		failed(t, "the fourth call", err, github.ErrLimited)
		if n := s.Calls()[simgithub.OpList]; n != 4 {
			t.Errorf("GitHub saw %d calls, want 4", n)
		}
		s.Change(func(r *simgithub.Rules) { r.Limit.Secondary = true })
		time.Sleep(20 * time.Minute)
		_, err = c.Find(t.Context(), repo, "r")
		if e := failed(t, "the fifth call", err, github.ErrLimited); e.Status != 429 || time.Until(e.RetryAt) != 40*time.Minute {
			t.Errorf("the fifth call = %v until %v ahead, want 429 for 40m", e, time.Until(e.RetryAt))
		}
		time.Sleep(40 * time.Minute)
		_, err = c.Find(t.Context(), repo, "r")
		failed(t, "a call after the limit", err, github.ErrNotFound)
	})
}

// endless is a body that never ends and would be a list if it did.
type endless struct{ left []byte }

func (e *endless) Read(b []byte) (int, error) {
	if len(e.left) == 0 {
		e.left = []byte(`{"id":1,"name":"` + canary + `"},`)
	}
	n := copy(b, e.left)
	e.left = e.left[n:]
	return n, nil
}

func TestHostileAnswersAreNotTrusted(t *testing.T) {
	text := func(code int, contentType, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(code)
			io.WriteString(w, body)
		})
	}
	jsonText := func(body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			code := http.StatusOK
			if r.Method == http.MethodPost {
				code = http.StatusCreated
			}
			text(code, "application/json", body).ServeHTTP(w, r)
		})
	}
	linked := func(link string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", link)
			jsonText(`{"runners":[{"id":1,"name":"`+canary+`"}]}`).ServeHTTP(w, r)
		})
	}
	all := []string{"Mint", "Get", "Delete", "Find", "List", "Downloads", "Rates"}
	for name, c := range map[string]struct {
		answer http.Handler
		fail   []string // the calls that must fail with ErrUnknown
	}{
		"NoAnswer":     {simgithub.NoAnswer, all},
		"HTML":         {text(200, "text/html", "<html>"+canary), all},
		"HTMLFor5xx":   {text(503, "text/html", "<html>"+canary), all},
		"Truncated":    {jsonText(`{"runner":{"id":1,"name":"r"},"encoded_jit_config":"` + canary), all},
		"Empty":        {jsonText(``), all},
		"Null":         {jsonText(`null`), all},
		"WrongTypes":   {jsonText(`{"runner":"` + canary + `","id":"1","runners":{}}`), all},
		"ListOfNulls":  {jsonText(`{"runners":[null],"runner":null}`), all},
		"OtherRunner":  {jsonText(`{"runner":{"id":1,"name":"` + canary + `"},"encoded_jit_config":"x","id":2,"runners":[{"name":"r"}]}`), all},
		"NoID":         {jsonText(`{"runner":{"name":"r"},"encoded_jit_config":"x","name":"r"}`), []string{"Mint", "Get", "Delete"}},
		"NoConfig":     {jsonText(`{"runner":{"id":1,"name":"r"}}`), []string{"Mint"}},
		"Deep":         {jsonText(strings.Repeat(`{"runner":`, 200_000)), all},
		"SamePage":     {linked(`<https://github.test/x?page=1>; rel="next"`), []string{"Find", "List"}},
		"StrangePage":  {linked(`<https://github.test/x?page=next>; rel="next"`), []string{"Find", "List"}},
		"NegativePage": {linked(`<https://github.test/x?page=-2>; rel="next"`), []string{"Find", "List"}},
		"EndlessPages": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("page"))
			linked(fmt.Sprintf(`<https://github.test/x?page=%d>; rel="next"`, n+1)).ServeHTTP(w, r)
		}), []string{"Find", "List"}},
	} {
		t.Run(name, func(t *testing.T) {
			errs := calls(t, client(t, c.answer))
			for _, call := range c.fail {
				failed(t, call, errs[call], github.ErrUnknown)
			}
		})
	}
}

func TestHugeAnswerIsCut(t *testing.T) {
	for _, code := range []int{200, 201, 404} {
		var sent int
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			n, _ := io.Copy(w, io.LimitReader(&endless{[]byte(`{"runners":[`)}, 24<<20))
			sent = int(n)
		}))
		c := clientAt(t, srv.URL, srv.Client())
		var err error
		for _, e := range c.List(t.Context(), repo, "") {
			err = e
		}
		want := github.ErrUnknown
		if code == 404 {
			want = github.ErrNotFound
		}
		failed(t, "List", err, want)
		srv.Close() // waits for the handler
		if sent >= 20<<20 {
			t.Errorf("status %d: the client let %d bytes come, want about its bound of 4 MiB", code, sent)
		}
	}
}

func TestRequestIDIsBounded(t *testing.T) {
	for sent, want := range map[string]string{
		"C0DE:1234:5678":        "C0DE:1234:5678",
		"C0DE bad":              "C0DE",
		strings.Repeat("a", 99): strings.Repeat("a", 64),
		"":                      "",
	} {
		err := client(t, status(500, "X-GitHub-Request-Id", sent)).Delete(t.Context(), repo, 1)
		if e := failed(t, "Delete", err, github.ErrUnknown); e.RequestID != want {
			t.Errorf("request id %q is kept as %q, want %q", sent, e.RequestID, want)
		}
	}
}

func TestNoNetworkIsUnknown(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	err := clientAt(t, srv.URL, nil).Delete(t.Context(), repo, 1)
	if e := failed(t, "Delete", err, github.ErrUnknown); e.Status != 0 || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Delete = %v, want no status and what the network said", err)
	}
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	err = clientAt(t, tls.URL, &http.Client{Transport: &http.Transport{}}).Delete(t.Context(), repo, 1)
	if failed(t, "Delete", err, github.ErrUnknown); !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Delete = %v, want what is wrong with the certificate", err)
	}
}

func TestAnswerThatIsNoHTTPIsNotShown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s\r\n\r\n", canary)
			conn.Close()
		}
	}()
	err = clientAt(t, "http://"+l.Addr().String(), nil).Delete(t.Context(), repo, 1)
	if e := failed(t, "Delete", err, github.ErrUnknown); e.Status != 0 {
		t.Errorf("Delete = %v, want no status", e)
	}
	l.Close()
	<-done
}
