package apigateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/apigateway"
)

// get is what API Gateway sends for curl.
const get = `{
	"version": "2.0", "routeKey": "$default", "rawPath": "/status/abc", "rawQueryString": "force=true&a=1&a=%20",
	"cookies": ["one=1", "two=2"],
	"headers": {
		"accept": "*/*", "authorization": "Bearer x", "content-length": "0", "host": "garo.example.test",
		"x-amzn-trace-id": "Root=1-5e9f0c65-1de4d666d4dd26aced652b6c", "x-forwarded-for": "192.0.2.7,198.51.100.1"
	},
	"queryStringParameters": {"force": "true", "a": "1, "},
	"requestContext": {
		"accountId": "123456789012", "apiId": "aaaaaaaaaa", "domainName": "aaaaaaaaaa.execute-api.eu-west-2.amazonaws.com",
		"http": {"method": "GET", "path": "/status/abc", "protocol": "HTTP/1.1", "sourceIp": "2001:db8::7", "userAgent": "curl/8"},
		"requestId": "LV7fzho-PHcEJPw=", "routeKey": "$default", "stage": "$default", "time": "23/Nov/2026:15:08:21 +0000", "timeEpoch": 1795446501067
	},
	"isBase64Encoded": false
}`

// function answers with h, and logs into the buffer.
func function(h http.Handler) (*apigateway.Function, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return apigateway.New(func(context.Context) (http.Handler, error) { return h, nil }, slog.New(slog.NewJSONHandler(log, nil))), log
}

// invoke returns what a function answers to an event.
func invoke(t testing.TB, f *apigateway.Function, event string) events.APIGatewayV2HTTPResponse {
	t.Helper()
	b, err := f.Invoke(t.Context(), []byte(event))
	if err != nil {
		t.Fatalf("Invoke: %v", err)
	}
	var a events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatalf("Invoke answered %q: %v", b, err)
	}
	return a
}

// seen is what a handler can see of a call.
type seen struct {
	Method, Path, Query, URI, Host, Remote, Body string
	Length                                       int64
	Header                                       http.Header
}

func see(t testing.TB, r *http.Request) seen {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("read the body: %v", err)
	}
	return seen{r.Method, r.URL.Path, r.URL.RawQuery, r.RequestURI, r.Host, r.RemoteAddr, string(b), r.ContentLength, r.Header}
}

func TestHandlerSeesTheCall(t *testing.T) {
	header := func(more ...string) http.Header {
		h := http.Header{
			"Accept": {"*/*"}, "Authorization": {"Bearer x"}, "Content-Length": {"0"}, "Cookie": {"one=1; two=2"},
			"X-Amzn-Trace-Id": {"Root=1-5e9f0c65-1de4d666d4dd26aced652b6c"}, "X-Forwarded-For": {"192.0.2.7,198.51.100.1"},
		}
		for i := 0; i < len(more); i += 2 {
			if more[i+1] == "" {
				h.Del(more[i])
			} else {
				h.Set(more[i], more[i+1])
			}
		}
		return h
	}
	const query = "force=true&a=1&a=%20"
	got := seen{Method: "GET", Path: "/status/abc", Query: query, URI: "/status/abc?" + query, Host: "garo.example.test", Remote: "[2001:db8::7]:0", Header: header()}
	with := func(change func(*seen)) seen { s := got; s.Header = header(); change(&s); return s }
	for name, c := range map[string]struct {
		replace []string
		want    seen
	}{
		"AsItIs":    {nil, got},
		"NoQuery":   {[]string{query, ""}, with(func(s *seen) { s.Query, s.URI = "", "/status/abc" })},
		"NoCookies": {[]string{`"one=1", "two=2"`, ""}, with(func(s *seen) { s.Header.Del("Cookie") })},
		"NoHost":    {[]string{`, "host": "garo.example.test"`, ""}, with(func(s *seen) { s.Host = "aaaaaaaaaa.execute-api.eu-west-2.amazonaws.com" })},
		"TextBody": {[]string{`"method": "GET"`, `"method": "POST"`, `"isBase64Encoded": false`, `"body": "{\"labels\": [\"é\"]}", "isBase64Encoded": false`},
			with(func(s *seen) { s.Method, s.Body, s.Length = "POST", `{"labels": ["é"]}`, 18 })},
		"BinaryBody": {[]string{`"method": "GET"`, `"method": "POST"`, `"isBase64Encoded": false`, `"body": "H4sI/w==", "isBase64Encoded": true`},
			with(func(s *seen) { s.Method, s.Body, s.Length = "POST", "\x1f\x8b\x08\xff", 4 })},
		"DecodedPath":       {[]string{`"rawPath": "/status/abc"`, `"rawPath": "/a b/é?"`}, with(func(s *seen) { s.Path, s.URI = "/a b/é?", "/a%20b/%C3%A9%3F?"+query })},
		"NotDecodedAgain":   {[]string{`"rawPath": "/status/abc"`, `"rawPath": "/agent/..%2f"`}, with(func(s *seen) { s.Path, s.URI = "/agent/..%2f", "/agent/..%252f?"+query })},
		"MalformedQuery":    {[]string{query, "a=%zz&;"}, with(func(s *seen) { s.Query, s.URI = "a=%zz&;", "/status/abc?a=%zz&;" })},
		"RepeatedHeader":    {[]string{`"Bearer x"`, `"Bearer x,Bearer y"`}, with(func(s *seen) { s.Header.Set("Authorization", "Bearer x,Bearer y") })},
		"MembersOfTomorrow": {[]string{`"routeKey": "$default"`, `"routeKey": "$default", "more": {"a": [1]}`}, got},
	} {
		t.Run(name, func(t *testing.T) {
			var have seen
			f, _ := function(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { have = see(t, r) }))
			invoke(t, f, strings.NewReplacer(c.replace...).Replace(get))
			if diff := cmp.Diff(c.want, have); diff != "" {
				t.Errorf("the handler sees (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventThatIsNoneOfAPIGatewaysIsAnError(t *testing.T) {
	for name, c := range map[string]struct{ event, want string }{
		"Nothing":       {"", "unexpected end of JSON input"},
		"NoObject":      {"[]", "cannot unmarshal array"},
		"Trailing":      {get + "{}", "after top-level value"},
		"Empty":         {"{}", `payload format "": set the integration's to 2.0`},
		"Format1":       {strings.Replace(get, `"2.0"`, `"1.0"`, 1), `payload format "1.0": set the integration's to 2.0`},
		"NoMethod":      {strings.Replace(get, `"method": "GET", `, "", 1), "no method"},
		"NoSuchMethod":  {strings.Replace(get, `"method": "GET"`, `"method": "G T"`, 1), "invalid method"},
		"NoPath":        {strings.Replace(get, `"rawPath": "/status/abc", `, "", 1), "does not begin with a slash"},
		"RelativePath":  {strings.Replace(get, `"rawPath": "/`, `"rawPath": "`, 1), "does not begin with a slash"},
		"BodyNotBase64": {strings.Replace(get, `"isBase64Encoded": false`, `"body": "%", "isBase64Encoded": true`, 1), "body: illegal base64"},
		"QueueEvent":    {`{"Records": [{"messageId": "x"}]}`, "payload format"},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := function(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler is called") }))
			got, err := f.Invoke(t.Context(), []byte(c.event))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Invoke = %s, %v; want an error that says %q", got, err, c.want)
			}
		})
	}
}

func TestClientGetsWhatTheHandlerWrote(t *testing.T) {
	gz := "\x1f\x8b\x08\x00\x00"
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		replace []string
		want    events.APIGatewayV2HTTPResponse
	}{
		"Silent": {func(http.ResponseWriter, *http.Request) {}, nil,
			events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{}}},
		"Text": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "11")
			w.WriteHeader(http.StatusAccepted)
			w.Header().Set("X-Late", "1")
			w.WriteHeader(http.StatusTeapot)
			io.WriteString(w, `{"a":`)
			io.WriteString(w, `"<é>"}`)
		}, nil, events.APIGatewayV2HTTPResponse{StatusCode: 202, Headers: map[string]string{"Content-Type": "application/json"}, Body: `{"a":"<é>"}`}},
		"Compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/gzip")
			io.WriteString(w, gz)
		}, nil, events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"Content-Type": "application/gzip"},
			Body: base64.StdEncoding.EncodeToString([]byte(gz)), IsBase64Encoded: true}},
		"Unnamed": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, nil,
			events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"Content-Type": "text/html; charset=utf-8"}, Body: "<html>"}},
		"CookiesAndRepeatedHeaders": {func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
			w.Header().Add("Vary", "Accept")
			w.Header().Add("Vary", "Cookie")
			w.WriteHeader(http.StatusNoContent)
		}, nil, events.APIGatewayV2HTTPResponse{StatusCode: 204, Headers: map[string]string{"Vary": "Accept,Cookie"}, Cookies: []string{"a=1", "b=2"}}},
		"NoBodyWhereNoneMayBe": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotModified)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("Write after 304 = %v, want %v", err, http.ErrBodyNotAllowed)
			}
		}, nil, events.APIGatewayV2HTTPResponse{StatusCode: 304, Headers: map[string]string{}}},
		"Announcement": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusConflict)
		}, nil, events.APIGatewayV2HTTPResponse{StatusCode: 409, Headers: map[string]string{}}},
		"Head": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") }, []string{`"method": "GET"`, `"method": "HEAD"`},
			events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"Content-Type": "text/plain; charset=utf-8"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f, log := function(c.handler)
			if diff := cmp.Diff(c.want, invoke(t, f, strings.NewReplacer(c.replace...).Replace(get))); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if log.Len() > 0 {
				t.Errorf("log = %s, want nothing", log)
			}
		})
	}
}

// problem returns the problem that an answer is.
func problem(t *testing.T, a events.APIGatewayV2HTTPResponse) apitype.Problem {
	t.Helper()
	var p apitype.Problem
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil || a.Headers["Content-Type"] != apitype.ProblemMedia || a.Headers["Cache-Control"] != "no-store" {
		t.Errorf("answer = %+v, %v; want a problem that nobody keeps", a, err)
	}
	if p.Status != a.StatusCode || p.Trace != "LV7fzho-PHcEJPw=" || p.Type != apitype.ProblemType+p.Code {
		t.Errorf("problem = %+v of an answer with status %d, want the same status, and API Gateway's request id", p, a.StatusCode)
	}
	return p
}

func TestPanicIsAnInternalErrorAndAnAlarm(t *testing.T) {
	for name, c := range map[string]struct {
		v    any
		want string
	}{
		"Runtime": {nil, "index out of range"},
		"Value":   {"Bearer canary", `"what":"string"`},
		"Error":   {errors.New("canary"), `"what":"*errors.errorString"`},
	} {
		t.Run(name, func(t *testing.T) {
			f, log := function(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Etag", "half")
				io.WriteString(w, "half of an answer")
				if c.v == nil {
					var none []string
					_ = none[len(r.Header)]
				}
				panic(c.v)
			}))
			a := invoke(t, f, get)
			if p := problem(t, a); p.Code != apitype.CodeInternal || a.StatusCode != 500 || a.Headers["Etag"] != "" || strings.Contains(a.Body, "half") {
				t.Errorf("answer = %+v, want a whole internal error and nothing of the handler's", a)
			}
			var line struct{ Level, Alarm, Trace, Stack string }
			if err := json.Unmarshal(log.Bytes(), &line); err != nil || line.Level != "ERROR" || line.Alarm != "panic" || line.Trace == "" || !strings.Contains(line.Stack, "apigateway_test.go") {
				t.Errorf("log = %s, %v; want one alarm that says where", log, err)
			}
			if !strings.Contains(log.String(), c.want) || strings.Contains(log.String(), "canary") {
				t.Errorf("log = %s, want %s in it and nothing of what was thrown", log, c.want)
			}
		})
	}
}

func TestStatusThatIsNoneIsAPanic(t *testing.T) {
	f, _ := function(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(0) }))
	if a := invoke(t, f, get); a.StatusCode != 500 {
		t.Errorf("answer = %+v, want 500", a)
	}
}

func TestAnswerTooLargeForLambdaIsAProblem(t *testing.T) {
	for name, c := range map[string]struct {
		body []byte
		want int
	}{
		"TextThatFits":  {bytes.Repeat([]byte("<"), 6<<20-200), 200}, // 200 are for the status and the headers
		"TextTooLong":   {bytes.Repeat([]byte("a"), 6<<20), 500},
		"LargestAgent":  {bytes.Repeat([]byte{0x8b}, 4<<20), 200}, // base64 has four bytes for three
		"BinaryTooLong": {bytes.Repeat([]byte{0x8b}, 5<<20), 500},
	} {
		t.Run(name, func(t *testing.T) {
			f, log := function(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(c.body) }))
			b, err := f.Invoke(t.Context(), []byte(get))
			var a events.APIGatewayV2HTTPResponse
			if err != nil || json.Unmarshal(b, &a) != nil || a.StatusCode != c.want || len(b) > 6<<20 {
				t.Errorf("Invoke = %d bytes, status %d, %v; want at most 6 MiB and %d", len(b), a.StatusCode, err, c.want)
			}
			if c.want == 500 {
				if p := problem(t, a); p.Code != apitype.CodeInternal || !strings.Contains(log.String(), "too large") {
					t.Errorf("problem = %+v, log %s; want an internal error that the log explains", p, log)
				}
			}
		})
	}
}

func TestHandlerThatIsNotThereIsAnOutage(t *testing.T) {
	log := &bytes.Buffer{}
	ready := false
	f := apigateway.New(func(context.Context) (http.Handler, error) {
		if !ready {
			return nil, errors.New("parameter /garo/keys is not there: write it")
		}
		return http.NotFoundHandler(), nil
	}, slog.New(slog.NewJSONHandler(log, nil)))
	a := invoke(t, f, get)
	if p := problem(t, a); p.Code != apitype.CodeUnavailable || a.StatusCode != 503 || a.Headers["Retry-After"] != "5" || strings.Contains(a.Body, "/garo/keys") {
		t.Errorf("answer = %+v, want 503 with Retry-After and nothing of the cause", a)
	}
	if !strings.Contains(log.String(), "parameter /garo/keys is not there: write it") {
		t.Errorf("log = %s, want what to fix", log)
	}
	ready = true
	if a := invoke(t, f, get); a.StatusCode != 404 {
		t.Errorf("the next answer = %d, want the handler's 404", a.StatusCode)
	}
}

func TestHandlerIsOutOfTimeBeforeLambdaIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := function(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		b, err := f.Invoke(ctx, []byte(get))
		if err != nil || !bytes.Contains(b, []byte(`"statusCode":503`)) || ctx.Err() != nil {
			t.Errorf("Invoke = %s, %v, Lambda's context %v; want the handler's answer in time", b, err, ctx.Err())
		}
		if took := time.Since(began); took < 9*time.Second || took > 9900*time.Millisecond {
			t.Errorf("the handler had %v of 10 s, want nearly all", took)
		}
	})
}

// gateway turns a call into the event that API Gateway makes of it.
func gateway(t testing.TB, r *http.Request) []byte {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	e := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RawPath: r.URL.Path, RawQueryString: r.URL.RawQuery, Headers: map[string]string{"host": r.Host},
		Body: string(body),
	}
	if !utf8.Valid(body) {
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	for name, values := range r.Header {
		if name == "Cookie" {
			e.Cookies = strings.Split(strings.Join(values, "; "), "; ")
		} else {
			e.Headers[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}
	e.RequestContext.HTTP = events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: r.Method, Protocol: r.Proto, SourceIP: "127.0.0.1"}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzRoundTrip holds the function against net/http's own server: the same
// handler, behind either, sees the same call and gives the client the same answer.
func FuzzRoundTrip(f *testing.F) {
	f.Add("GET", "/status/abc", "a=1&a=2&b=%20", "a=1; b=2", "application/json", []byte(nil), 200, []byte(`{"a": "<é>"}`))
	f.Add("POST", "/a b/é%", "", "", "", []byte("\x1f\x8b\xff"), 503, []byte("\x1f\x8b\xff"))
	f.Add("HEAD", "//x/../y", "a=%zz;", "x", "text/plain, text/html", []byte("{}"), 204, []byte("<html>"))
	f.Fuzz(func(t *testing.T, method, path, query, cookie, accept string, body []byte, status int, answer []byte) {
		if status < 200 || status > 999 {
			status = 200
		}
		var at [2]seen
		var have *seen
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			*have = see(t, r)
			have.Remote = ""
			w.Header().Add("X-Answer", "a")
			w.Header().Add("X-Answer", "b")
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			w.WriteHeader(status)
			w.Write(answer)
		})
		var through http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r) })
		fn, _ := function(handler)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { through.ServeHTTP(w, r) }))
		defer server.Close()

		req, err := http.NewRequestWithContext(t.Context(), method, server.URL, bytes.NewReader(body))
		text := !slices.ContainsFunc([]string{path, query, cookie, accept}, func(s string) bool { return !utf8.ValidString(s) })
		if err != nil || method == http.MethodConnect || !text {
			return // no client can send it, and API Gateway's JSON has text alone
		}
		req.URL.Path, req.URL.RawQuery = "/"+strings.TrimLeft(path, "/"), query
		req.Header["Accept"] = []string{accept}
		if cookie != "" && !strings.ContainsAny(cookie, " \t") {
			req.Header["Cookie"] = []string{"first=1; " + cookie}
		}
		client := server.Client()
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		have = &at[0]
		resp, err := client.Do(req.Clone(t.Context()))
		if err != nil || at[0].Method == "" {
			return // net/http takes no such call
		}
		want, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return
		}

		// The same bytes again, now by way of an event.
		var event []byte
		through = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { event = gateway(t, r) })
		req.Body = io.NopCloser(bytes.NewReader(body))
		if again, err := client.Do(req); err != nil {
			t.Fatalf("the same call again: %v", err)
		} else {
			again.Body.Close()
		}
		have = &at[1]
		got := invoke(t, fn, string(event))
		// Two spellings of one path are one to API Gateway.
		at[0].URI, at[1].URI = "", ""
		if diff := cmp.Diff(at[0], at[1]); diff != "" {
			t.Errorf("the handler sees, behind net/http (-) and behind API Gateway (+):\n%s", diff)
		}
		gotBody := []byte(got.Body)
		if got.IsBase64Encoded {
			if gotBody, err = base64.StdEncoding.DecodeString(got.Body); err != nil {
				t.Fatalf("body = %q: %v", got.Body, err)
			}
		}
		if got.StatusCode != resp.StatusCode || !bytes.Equal(gotBody, want) || got.Headers["X-Answer"] != "a,b" ||
			got.Headers["Content-Type"] != resp.Header.Get("Content-Type") || !cmp.Equal(got.Cookies, resp.Header["Set-Cookie"]) {
			t.Errorf("answer = %+v\nwant %d %v %q", got, resp.StatusCode, resp.Header, want)
		}
	})
}

// FuzzInvoke has whatever may come: it is answered or an error, and never a panic.
func FuzzInvoke(f *testing.F) {
	f.Add([]byte(get))
	f.Add([]byte(`{"version": "2.0", "rawPath": "/", "requestContext": {"http": {"method": "POST", "protocol": "HTTP/2.0"}}, "body": "eA==", "isBase64Encoded": true}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		called := false
		fn, _ := function(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			called = true
			if s := see(t, r); s.Method == "" || !strings.HasPrefix(s.Path, "/") || s.Length != int64(len(s.Body)) {
				t.Errorf("the handler sees %+v, want a method, a path and a body of the length that the event gives", s)
			}
		}))
		if b, err := fn.Invoke(t.Context(), payload); (err == nil) != called || err == nil && !json.Valid(b) {
			t.Errorf("Invoke = %q, %v, and the handler was called: %t", b, err, called)
		}
	})
}
