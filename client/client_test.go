package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// script answers calls one after another, and keeps what was asked.
type script struct {
	answers []func(*http.Request) (*http.Response, error)
	asked   []asked
}

type asked struct {
	at     time.Time
	method string
	url    string
	header http.Header
	body   string
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	a := asked{at: time.Now(), method: r.Method, url: r.URL.String(), header: r.Header}
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		a.body = string(b)
	}
	s.asked = append(s.asked, a)
	answer := s.answers[min(len(s.asked), len(s.answers))-1] // the last one stays
	return answer(r)
}

func says(status int, body string, headers ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func problem(code string, headers ...string) func(*http.Request) (*http.Response, error) {
	k, ok := apitype.ProblemOf(code)
	if !ok {
		panic(code)
	}
	b, err := json.Marshal(apitype.Problem{Code: code, Status: k.Status, Detail: "Detail.", Field: "f", Trace: "t1"})
	if err != nil {
		panic(err)
	}
	return says(k.Status, string(b), append(headers, "Content-Type", apitype.ProblemMedia)...)
}

func broken(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") }

func cut(r *http.Request) (*http.Response, error) {
	body := io.MultiReader(strings.NewReader(`{"id":`), iotest.ErrReader(io.ErrUnexpectedEOF))
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body), Request: r}, nil
}

func newClient(answers ...func(*http.Request) (*http.Response, error)) (*client.Client, *script) {
	s := &script{answers: answers}
	return client.Must(client.New(client.Config{
		URL: "https://garo.example.org/", HTTP: &http.Client{Transport: s},
		Token: func(context.Context) (client.Token, error) { return client.NewToken("canary-token"), nil },
	})), s
}

func TestCallsAreMadeAsTheContractSays(t *testing.T) {
	c, s := newClient(says(200, `{}`))
	ctx := t.Context()
	errs := []error{}
	note := func(_ any, err error) { errs = append(errs, err) }
	note(c.Start(ctx, apitype.Start{Labels: []string{"a"}, IdempotencyKey: "k"}))
	note(c.Status(ctx, "id1"))
	note(c.Stop(ctx, "id1", false))
	note(c.Stop(ctx, "id/../1", true))
	note(c.Requests(ctx, client.Query{}))
	note(c.Requests(ctx, client.Query{Repository: "1", State: "ready", After: "2000#a"}))
	note(c.ReleaseBrake(ctx, "123456789012", "eu-west-2"))
	note(c.StartCheck(ctx, apitype.CheckStart{AccountID: "123456789012"}))
	note(c.Check(ctx, client.LastCheck))
	note(c.Health(ctx))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`POST https://garo.example.org/start {"labels":["a"],"idempotency_key":"k"}`,
		`GET https://garo.example.org/status/id1 `,
		`POST https://garo.example.org/stop/id1 `,
		`POST https://garo.example.org/stop/id%2F..%2F1?force=true `,
		`GET https://garo.example.org/requests `,
		`GET https://garo.example.org/requests?after=2000%23a&repository=1&state=ready `,
		`POST https://garo.example.org/sweeps/123456789012/eu-west-2/release `,
		`POST https://garo.example.org/checks {"account_id":"123456789012"}`,
		`GET https://garo.example.org/checks/last `,
		`GET https://garo.example.org/health `,
	}
	for i, a := range s.asked {
		if got := a.method + " " + a.url + " " + a.body; i >= len(want) || got != want[i] {
			t.Errorf("call %d = %s", i, got)
		}
		if got := a.header.Get("Authorization"); got != "Bearer canary-token" {
			t.Errorf("call %d has Authorization %q", i, got)
		}
	}
	if len(s.asked) != len(want) {
		t.Errorf("%d calls, want %d", len(s.asked), len(want))
	}
}

func TestTroubleIsRiddenOut(t *testing.T) {
	for name, trouble := range map[string]func(*http.Request) (*http.Response, error){
		"throttled": says(429, "slow down", "Content-Type", "text/plain"), "unavailable": problem(apitype.CodeUnavailable), "internal": problem(apitype.CodeInternal),
		"bad gateway": says(502, "<html>"), "no connection": broken, "half an answer": cut,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newClient(trouble, trouble, says(202, `{"id":"x"}`))
				got, err := c.Start(t.Context(), apitype.Start{})
				if err != nil || got.ID != "x" || len(s.asked) != 3 {
					t.Errorf("Start = %+v, %v after %d calls; want it to work at the third", got, err, len(s.asked))
				}
				key := s.asked[0].body
				for _, a := range s.asked {
					if a.body != key || !strings.Contains(key, "idempotency_key") {
						t.Errorf("bodies = %s and %s, want one idempotency key in all", key, a.body)
					}
				}
			})
		})
	}
}

func TestPausesGrowAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(problem(apitype.CodeUnavailable))
		_, err := c.Status(t.Context(), "x")
		if !errors.Is(err, client.ErrUnavailable) || len(s.asked) != 8 {
			t.Errorf("Status = %v after %d calls, want %v after 8", err, len(s.asked), client.ErrUnavailable)
		}
		longest := 250 * time.Millisecond
		for i := 1; i < len(s.asked); i++ {
			got := s.asked[i].at.Sub(s.asked[i-1].at)
			if got < longest/2 || got > longest {
				t.Errorf("pause %d = %v, want %v to %v", i, got, longest/2, longest)
			}
			longest = min(2*longest, 8*time.Second)
		}
	})
}

func TestJitterComesFromRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pause := func(random io.Reader) time.Duration {
			s := &script{answers: []func(*http.Request) (*http.Response, error){broken, says(200, `{}`)}}
			c := client.Must(client.New(client.Config{URL: "https://x", HTTP: &http.Client{Transport: s}, Random: random, Token: func(context.Context) (client.Token, error) { return client.Token{}, nil }}))
			if _, err := c.Status(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
			return s.asked[1].at.Sub(s.asked[0].at)
		}
		if got := pause(bytes.NewReader(make([]byte, 8))); got != 125*time.Millisecond {
			t.Errorf("pause = %v, want the least of 125ms", got)
		}
		if got := pause(iotest.ErrReader(io.EOF)); got != 250*time.Millisecond {
			t.Errorf("pause without random = %v, want the most of 250ms", got)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "86400": time.Minute, "9999999999999999": time.Minute, "99999999999999999999": 250 * time.Millisecond, "-1": 250 * time.Millisecond, "soon": 250 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newClient(problem(apitype.CodeUnavailable, "Retry-After", header), says(200, `{}`))
			if _, err := c.Status(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
			if got := s.asked[1].at.Sub(s.asked[0].at); got > want || got < want/2 {
				t.Errorf("pause after Retry-After %s = %v, want %v", header, got, want)
			}
		})
	}
}

func TestRefusalsAreFinal(t *testing.T) {
	for _, k := range apitype.Problems {
		if k.Status == http.StatusTooManyRequests || k.Status >= 500 {
			continue
		}
		c, s := newClient(problem(k.Code))
		_, err := c.Start(t.Context(), apitype.Start{})
		if !errors.Is(err, client.Code(k.Code)) || len(s.asked) != 1 {
			t.Errorf("Start = %v after %d calls, want %s at once", err, len(s.asked), k.Code)
		}
		if errors.Is(err, client.Code("other")) {
			t.Errorf("%v is every code", err)
		}
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Problem.Status != k.Status || e.Problem.Trace != "t1" {
			t.Errorf("error = %+v, want a *client.Error with the problem", err)
		}
		if want := fmt.Sprintf("start: %s (f): Detail. [trace t1]", k.Code); err.Error() != want {
			t.Errorf("error = %q, want %q", err, want)
		}
	}
}

func TestSentinelsAreCodesOfProblems(t *testing.T) {
	for _, e := range []client.Code{client.ErrUnauthenticated, client.ErrForbidden, client.ErrNotFound, client.ErrMismatch,
		client.ErrInvalidField, client.ErrThrottled, client.ErrInternal, client.ErrUnavailable} {
		if _, ok := apitype.ProblemOf(string(e)); !ok {
			t.Errorf("%s is no code of a problem", e)
		}
	}
}

func TestAnswersOfOthersAreNotShown(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		want   string
	}{
		"a login page":          {says(200, "<html>canary-body"), "check the URL"},
		"a redirect":            {says(302, "canary-body", "Location", "https://evil.example/"), "Status 302"},
		"a proxy's refusal":     {says(403, "canary-body", "Content-Type", "text/html"), "Status 403"},
		"another API's error":   {says(400, `{"code":"canary-body"}`), "Status 400"},
		"a problem of no code":  {says(400, `{"detail":"canary-body"}`, "Content-Type", apitype.ProblemMedia), "Status 400"},
		"a problem that is cut": {says(400, `{"detail":"canary-body`, "Content-Type", apitype.ProblemMedia), "Status 400"},
	} {
		c, s := newClient(tc.answer)
		_, err := c.Status(t.Context(), "x")
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "canary") || len(s.asked) != 1 {
			t.Errorf("%s: Status = %v after %d calls, want %q, not the body, one call", name, err, len(s.asked), tc.want)
		}
	}
}

func TestTokenIsAskedForEveryTryAndNeverShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := &script{answers: []func(*http.Request) (*http.Response, error){broken}}
		c := client.Must(client.New(client.Config{URL: "https://x", HTTP: &http.Client{Transport: s}, Token: func(context.Context) (client.Token, error) {
			n++
			return client.NewToken(fmt.Sprintf("canary-%d", n)), nil
		}}))
		_, err := c.Status(t.Context(), "x")
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("Status = %v, want an error without the token", err)
		}
		for i, a := range s.asked {
			if want := fmt.Sprintf("Bearer canary-%d", i+1); a.header.Get("Authorization") != want {
				t.Errorf("call %d has %s, want %s", i, a.header.Get("Authorization"), want)
			}
		}
	})
}

func TestErrorOfTheTokenSourceEndsTheCall(t *testing.T) {
	errSource := errors.New("no id-token permission")
	s := &script{}
	c := client.Must(client.New(client.Config{URL: "https://x", HTTP: &http.Client{Transport: s}, Token: func(context.Context) (client.Token, error) { return client.Token{}, errSource }}))
	if _, err := c.Status(t.Context(), "x"); !errors.Is(err, errSource) || len(s.asked) != 0 {
		t.Errorf("Status = %v after %d calls, want %v and none", err, len(s.asked), errSource)
	}
}

func TestContextEndsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(problem(apitype.CodeUnavailable, "Retry-After", "30"))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := c.Status(ctx, "x")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrUnavailable) || time.Since(begin) != 10*time.Second || len(s.asked) != 1 {
			t.Errorf("Status = %v after %v, want the deadline, and what it waited for", err, time.Since(begin))
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if _, err := c.Start(ctx, apitype.Start{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Start = %v, want %v", err, context.Canceled)
		}
	})
}

func TestConfigThatNoCallCanWorkWithIsRefused(t *testing.T) {
	token := client.Static(client.NewToken("t"))
	for _, c := range []struct {
		cfg  client.Config
		says string
	}{
		{client.Config{Token: token}, "Config.URL is empty"},
		{client.Config{URL: "https://a b/", Token: token}, "Config.URL: parse"},
		{client.Config{URL: "garo.example.org", Token: token}, `Config.URL "garo.example.org": want an address`},
		{client.Config{URL: "https://garo.example.org"}, "Config.Token is nil"},
	} {
		if got, err := client.New(c.cfg); got != nil || err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("New(%+v) = %v, %v; want one line that says %q", c.cfg, got, err, c.says)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Must does not panic")
		}
	}()
	client.Must(client.New(client.Config{}))
}

func TestRetriesAreToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){broken, problem(apitype.CodeUnavailable), says(200, `{}`)}}
		var told []error
		c := client.Must(client.New(client.Config{
			URL: "https://garo.example.org", HTTP: &http.Client{Transport: s}, Token: client.Static(client.NewToken("t")),
			Retrying: func(err error) { told = append(told, err) },
		}))
		if _, err := c.Status(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if len(told) != 2 || !errors.Is(told[0], client.ErrNoAnswer) || !errors.Is(told[1], client.ErrUnavailable) {
			t.Errorf("told %v, want no answer and then unavailable", told)
		}
	})
}

func TestStatusTokenIsShownToNobody(t *testing.T) {
	started := apitype.Started{ID: "x", StatusToken: "garo_st_canary"}
	b, err := json.Marshal(started)
	if err != nil || !strings.Contains(string(b), `"status_token":"garo_st_canary"`) {
		t.Errorf("the body is %s, %v; want the token in it", b, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", started.StatusToken)
	for _, s := range []string{fmt.Sprint(started), fmt.Sprintf("%+v %#v %q %x", started, started, started.StatusToken, started.StatusToken), log.String()} {
		if strings.Contains(s, "canary") || !strings.Contains(s, "***") {
			t.Errorf("a status token is shown in %s", s)
		}
	}
	c, s := newClient(says(200, `{}`))
	if _, err := c.For(started).Status(t.Context(), "x"); err != nil || s.asked[0].header.Get("Authorization") != "Bearer garo_st_canary" {
		t.Errorf("a call for the request has %q, %v; want its token", s.asked[0].header.Get("Authorization"), err)
	}
	if got := s.asked[0].header.Get("User-Agent"); got != "garo-go" {
		t.Errorf("User-Agent = %q, want garo-go", got)
	}
}

func status(state string, more string) func(*http.Request) (*http.Response, error) {
	return says(200, `{"id":"x","state":"`+state+`"`+more+`}`)
}

func TestWaitPollsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polled := func(state, more string) func(*http.Request) (*http.Response, error) {
			return says(200, `{"id":"x","state":"`+state+`"`+more+`}`, "Retry-After", "3")
		}
		c, s := newClient(
			polled("accepted", ""), polled("accepted", ""), polled("accepted", `,"wait":"quota_reached"`), broken,
			polled("waiting", `,"runner":{"id":"r","state":"new"}`), polled("waiting", `,"runner":{"id":"r","state":"launched"}`),
			status("accepted", `,"tries":1,"attempts":[{}]`), status("accepted", `,"tries":1,"attempts":[{}]`), status("ready", ""),
		)
		var seen []string
		got, err := c.Wait(t.Context(), "x", func(s apitype.Status) {
			seen = append(seen, strings.TrimSpace(fmt.Sprint(s.State, " ", s.Wait, " ", s.Tries)))
		})
		want := []string{"accepted  0", "accepted quota_reached 0", "waiting  0", "waiting  0", "accepted  1", "ready  0"}
		if err != nil || got.State != "ready" || !slices.Equal(seen, want) {
			t.Errorf("Wait = %s, %v; told %q, want %q", got.State, err, seen, want)
		}
		if gap := s.asked[1].at.Sub(s.asked[0].at); gap != 3*time.Second {
			t.Errorf("poll after %v, want Retry-After's 3s", gap)
		}
		if gap := s.asked[8].at.Sub(s.asked[7].at); gap != 2*time.Second {
			t.Errorf("poll after %v without Retry-After, want 2s", gap)
		}
	})
}

func TestWaitOfManyPausesAsLongAsItIsTold(t *testing.T) {
	for pause, want := range map[time.Duration]time.Duration{time.Second: 3 * time.Second, 10 * time.Second: 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newClient(says(200, `{"id":"x","state":"accepted"}`, "Retry-After", "3"), status("ready", ""))
			if _, err := c.WithPause(pause).Wait(t.Context(), "x", nil); err != nil {
				t.Fatal(err)
			}
			if gap := s.asked[1].at.Sub(s.asked[0].at); gap != want {
				t.Errorf("poll after %v with a pause of %v and Retry-After 3, want %v", gap, pause, want)
			}
		})
	}
}

func TestWaitEndsAtEveryFinalState(t *testing.T) {
	for _, state := range []string{"ready", "failed", "expired", "cancelled"} {
		c, s := newClient(status(state, ""))
		got, err := c.Wait(t.Context(), "x", nil)
		no, ended := errors.AsType[*client.NotReadyError](err)
		if (err != nil) == (state == apitype.Ready) || (err != nil) != ended || got.State != state || len(s.asked) != 1 {
			t.Errorf("Wait = %s, %v after %d calls, want %s at once", got.State, err, len(s.asked), state)
		}
		if ended && (no.Status.State != state || no.Error() != "request x ended as "+state) {
			t.Errorf("the error of a request that is %s is %q", state, no)
		}
	}
}

func TestWaitEndsWithItsContextAndWithRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(status("accepted", ""))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if got, err := c.Wait(ctx, "x", nil); !errors.Is(err, context.DeadlineExceeded) || got.State != "accepted" {
			t.Errorf("Wait = %s, %v; want the last state and the deadline", got.State, err)
		}
		c, _ = newClient(status("accepted", ""), problem(apitype.CodeNotFound))
		if got, err := c.Wait(t.Context(), "x", nil); !errors.Is(err, client.ErrNotFound) || got.State != "accepted" {
			t.Errorf("Wait = %s, %v; want the last state and the refusal", got.State, err)
		}
	})
}

func TestWithTokenLeavesTheClientAsItIs(t *testing.T) {
	c, s := newClient(says(200, `{}`))
	other := c.WithToken(client.NewToken("other"))
	for _, x := range []*client.Client{c, other, c} {
		if _, err := x.Status(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, a := range s.asked {
		got = append(got, a.header.Get("Authorization"))
	}
	if want := []string{"Bearer canary-token", "Bearer other", "Bearer canary-token"}; !slices.Equal(got, want) {
		t.Errorf("tokens = %q, want %q", got, want)
	}
}

func TestFinalKnowsTheStates(t *testing.T) {
	for state, want := range map[string]bool{"accepted": false, "waiting": false, "ready": true, "failed": true, "expired": true, "cancelled": true, "": false} {
		if got := client.Final(state); got != want {
			t.Errorf("Final(%q) = %t, want %t", state, got, want)
		}
	}
}
