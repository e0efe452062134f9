//go:build linux

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// gateway is the HTTP API in front of the API function: payload format 2.0, stage
// $default.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
func (w *world) gateway(res http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the caller has gone
	}
	payload, err := json.Marshal(event(req, body))
	if err != nil {
		w.Errorf("event of %s: %v", req.URL, err)
		return
	}
	answer, err := w.api.Invoke(w.lasting, payload)
	var a events.APIGatewayV2HTTPResponse
	if err == nil {
		err = json.Unmarshal(answer, &a)
	}
	if err != nil {
		w.Errorf("%s %s: the API function fails: %v", req.Method, req.URL.Path, err)
		http.Error(res, `{"message":"Internal Server Error"}`, http.StatusInternalServerError)
		return
	}
	out := []byte(a.Body)
	if a.IsBase64Encoded {
		if out, err = base64.StdEncoding.DecodeString(a.Body); err != nil {
			w.Errorf("%s %s: answer in base64: %v", req.Method, req.URL.Path, err)
		}
	}
	w.overhear(req, body, out)
	for name, value := range a.Headers {
		res.Header().Set(name, value)
	}
	res.WriteHeader(a.StatusCode)
	_, _ = res.Write(out) // a caller that has gone misses it
}

func event(req *http.Request, body []byte) events.APIGatewayV2HTTPRequest {
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails
	now := time.Now().UTC()
	headers := map[string]string{
		"host": req.Host, "x-forwarded-proto": "https",
		"x-amzn-trace-id": fmt.Sprintf("Root=1-%08x-%s", now.Unix(), hex.EncodeToString(id[:])),
	}
	for name, values := range req.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	e := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: "$default", RawPath: req.URL.Path, RawQueryString: req.URL.RawQuery, Headers: headers,
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey: "$default", AccountID: "anonymous", Stage: "$default", RequestID: hex.EncodeToString(id[:8]), APIID: "e2e",
			DomainName: req.Host, TimeEpoch: now.UnixMilli(), Time: now.Format("02/Jan/2006:15:04:05 -0700"),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: req.Method, Path: req.URL.Path, Protocol: req.Proto, SourceIP: "192.0.2.1", UserAgent: req.UserAgent(),
			},
		},
	}
	if e.Body = string(body); !utf8.Valid(body) {
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return e
}

// overhear keeps what must be found nowhere afterwards: the secrets that machines
// and callers exchange with the API.
func (w *world) overhear(req *http.Request, body, answer []byte) {
	var said struct{ Token, Nonce string }
	var told struct {
		Session, Config string
		StatusToken     string `json:"status_token"`
	}
	_ = json.Unmarshal(body, &said)   // most bodies are other ones
	_ = json.Unmarshal(answer, &told) // and most answers
	w.hide("the nonce of a machine", said.Nonce)
	w.hide("a session token", told.Session)
	w.hide("a config", told.Config)
	w.hide("a status token", told.StatusToken)
	if said.Token != "" {
		w.mu.Lock()
		w.bootTokens = append(w.bootTokens, said.Token)
		w.mu.Unlock()
	}
	if bearer, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
		w.hide("a bearer token", bearer)
	}
}

// call calls the API, and returns the status of its answer.
func (w *world) call(method, path, bearer string, body, into any) int {
	w.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.Fatal(err)
		}
		in = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(w.Context(), method, w.url+path, in)
	if err != nil {
		w.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := w.http.Do(req)
	if err != nil {
		w.Errorf("%s %s: %v", method, path, err)
		return 0
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Errorf("%s %s: %v", method, path, err)
		return 0
	}
	if resp.StatusCode >= 400 {
		w.Logf("%s %s = %d %s", method, path, resp.StatusCode, b)
	} else if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			w.Errorf("%s %s = %s: %v", method, path, b, err)
		}
	}
	return resp.StatusCode
}

// token returns the ID token of a job of acme/shop.
func (w *world) token(job string) string {
	w.Helper()
	claims, err := w.issuer.Claims(w.url)
	if err != nil {
		w.Fatal(err)
	}
	claims["check_run_id"] = job
	token, err := w.issuer.Sign(claims)
	if err != nil {
		w.Fatal(err)
	}
	return token
}

// ask makes the call of a job that wants a runner.
func (w *world) ask(job string, body apitype.Start) apitype.Started {
	w.Helper()
	var s apitype.Started
	if status := w.call("POST", "/start", w.token(job), body, &s); status != http.StatusAccepted {
		w.Fatalf("POST /start = %d, want 202", status)
	}
	return s
}

// status is what a caller sees of its request.
func (w *world) status(s apitype.Started) apitype.Status {
	w.Helper()
	var now apitype.Status
	if status := w.call("GET", "/status/"+s.ID, s.StatusToken.Reveal(), nil, &now); status != http.StatusOK {
		w.Fatalf("GET /status/%s = %d, want 200", s.ID, status)
	}
	return now
}
