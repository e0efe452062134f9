// Package apigateway lets an http.Handler answer the calls that an HTTP API of
// API Gateway hands to a Lambda function, in payload format 2.0
// (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html).
//
// It promises that the handler sees what it would see behind net/http's own
// server, and that the client gets what the handler wrote, byte for byte, with
// these exceptions, which are API Gateway's. A header that comes more than once
// is one value, joined by commas. The path is decoded already, so that %2F in it
// cannot be told from a slash any more; it is not decoded again. The API must be
// deployed as the stage $default: any other puts its name before every path.
//
// Whatever the handler does, the client gets an answer: a panic, an answer that
// is too large for Lambda and a handler that is not there yet are problems like
// those of the API itself, and one line of the log. Only an event that is none of
// API Gateway's is an error.
package apigateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// maxAnswer is how many bytes a function may answer, all of the JSON together
	// (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
	maxAnswer = 6 << 20
	// margin is how long before Lambda's deadline the handler's ends, so that what
	// it then answers still reaches the client. Encoding and sending it take
	// milliseconds; an invocation that is cut off answers nothing that tells why.
	margin = 500 * time.Millisecond
	// retryAfter is how many seconds a client waits while the handler is not there:
	// as long as the API itself says in an outage.
	retryAfter = 5
)

// Function answers events. It is safe for concurrent use if the handlers are.
type Function struct {
	handler func(context.Context) (http.Handler, error)
	log     *slog.Logger
}

// New returns a function for lambda.Start. For each event it asks handler for
// what answers it; an error is logged and answered as an outage that
// the client may wait for.
func New(handler func(context.Context) (http.Handler, error), log *slog.Logger) *Function {
	return &Function{handler: handler, log: log}
}

// Invoke implements lambda.Handler. ctx bounds the call, less half a second.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
	}
	var e events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	r, err := request(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	trace := e.RequestContext.RequestID
	answer, err := encode(f.serve(r, trace).response())
	if err == nil && len(answer) > maxAnswer {
		f.log.ErrorContext(ctx, "answer is too large for Lambda", "path", r.URL.Path, "bytes", len(answer), "most", maxAnswer, "trace", trace)
		w := newRecorder(r.Method)
		problem(w, apitype.CodeInternal, "The answer is larger than what can be sent.", trace)
		answer, err = encode(w.response())
	}
	return answer, err
}

// serve has the handler answer r.
func (f *Function) serve(r *http.Request, trace string) (w *recorder) {
	w = newRecorder(r.Method)
	defer func() {
		if v := recover(); v != nil {
			f.panicked(r, trace, v)
			w = newRecorder(r.Method)
			problem(w, apitype.CodeInternal, "The operator's logs tell more under this trace.", trace)
		}
	}()
	h, err := f.handler(r.Context())
	if err != nil {
		store.AlarmAccess.Raise(r.Context(), f.log, "not ready to answer", "trace", trace, "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		problem(w, apitype.CodeUnavailable, "The control plane is not set up yet, or something that it needs does not answer. The operator's logs say what, under this trace.", trace)
		return w
	}
	h.ServeHTTP(w, r)
	return w
}

// panicked tells where the handler panicked, but of what the panic says only what
// the Go runtime itself wrote: other values may hold anything.
func (f *Function) panicked(r *http.Request, trace string, v any) {
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	store.AlarmPanic.Raise(r.Context(), f.log, "panic", "path", r.URL.Path, "what", what, "stack", string(debug.Stack()), "trace", trace)
}

// problem answers an error in the API's form.
func problem(w http.ResponseWriter, code, detail, trace string) {
	kind, _ := apitype.ProblemOf(code)
	body, err := json.Marshal(apitype.Problem{
		Type: apitype.ProblemType + code, Title: kind.Title, Status: kind.Status, Code: code, Detail: detail, Trace: trace,
	})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	w.Header().Set("Content-Type", apitype.ProblemMedia)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(kind.Status)
	_, _ = w.Write(body) // into memory
}

// request returns the call that an event tells of.
func request(ctx context.Context, e events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	call := e.RequestContext.HTTP
	switch {
	case e.Version != "2.0":
		return nil, fmt.Errorf("payload format %.20q: set the integration's to 2.0", e.Version)
	case call.Method == "":
		return nil, errors.New("no method")
	case !strings.HasPrefix(e.RawPath, "/"):
		return nil, errors.New("the path does not begin with a slash")
	}
	body := []byte(e.Body)
	if e.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	r, err := http.NewRequestWithContext(ctx, call.Method, "/", bytes.NewReader(body))
	if err != nil {
		return nil, err // a method that is none
	}
	r.GetBody = nil // as on a server
	// API Gateway decodes the path of an HTTP API, unlike its query
	// (https://github.com/middleapi/standard-server/pull/93 has what was measured).
	r.URL = &url.URL{Path: e.RawPath, RawQuery: e.RawQueryString}
	r.RequestURI = r.URL.RequestURI()
	if major, minor, ok := http.ParseHTTPVersion(call.Protocol); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = call.Protocol, major, minor
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		r.Header.Add(name, e.Headers[name])
	}
	if len(e.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(e.Cookies, "; "))
	}
	r.Host = cmp.Or(r.Header.Get("Host"), e.RequestContext.DomainName)
	r.Header.Del("Host")
	r.RemoteAddr = net.JoinHostPort(call.SourceIP, "0") // nobody tells the port
	return r, nil
}

// encode is json.Marshal without the escapes for HTML, which would make an answer longer.
func encode(a events.APIGatewayV2HTTPResponse) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		return nil, fmt.Errorf("write answer: %w", err)
	}
	return b.Bytes(), nil
}

// recorder is an http.ResponseWriter that keeps what was written.
type recorder struct {
	head         bool
	header, sent http.Header
	status       int
	body         bytes.Buffer
}

func newRecorder(method string) *recorder {
	return &recorder{head: method == http.MethodHead, header: http.Header{}}
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %d", status)) // as net/http does
	}
	if w.status == 0 && status >= 200 { // 1xx only announces
		w.status, w.sent = status, w.header.Clone()
	}
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	return w.body.Write(b)
}

// response returns what was written. A body that is no text, such as a compressed
// one, is encoded.
func (w *recorder) response() events.APIGatewayV2HTTPResponse {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	b := w.body.Bytes()
	// As net/http does for a handler that names no media type.
	if _, named := w.sent["Content-Type"]; !named && w.sent.Get("Content-Encoding") == "" && len(b) > 0 {
		w.sent.Set("Content-Type", http.DetectContentType(b))
	}
	if w.head {
		b = nil
	}
	a := events.APIGatewayV2HTTPResponse{StatusCode: w.status, Headers: map[string]string{}, Cookies: w.sent["Set-Cookie"]}
	for name, values := range w.sent {
		// API Gateway counts the body itself.
		if name != "Set-Cookie" && name != "Content-Length" && len(values) > 0 {
			a.Headers[name] = strings.Join(values, ",")
		}
	}
	if a.Body = string(b); !utf8.Valid(b) {
		a.Body, a.IsBase64Encoded = base64.StdEncoding.EncodeToString(b), true
	}
	return a
}
