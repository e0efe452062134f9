package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// call is one call of the API: what is known of it, what is answered beside the
// body, and what is logged about it.
type call struct {
	*http.Request
	server *server
	trace  string
	query  url.Values
	bearer string // the token; empty: none
	store  *store.Writer

	status     int // of a good answer; 0: 200
	retryAfter int // seconds; 0: not said
	// tagged: the answer has an ETag, so that who asks again gets a 304 if it is the same.
	tagged bool

	// The decision whether the caller may. Undecided calls are no audit lines.
	decided, allowed bool
	reason           string
	attrs            []slog.Attr
}

// none is the body of a call that has none, unread that of one that leads nowhere.
type (
	none   struct{}
	unread struct{}
)

// file is an answer that is no JSON.
type file struct {
	media, cache string
	policy       string // the Content-Security-Policy; empty: it is no page
	tag          string // the ETag; empty: it has none
	body         []byte
}

// handle makes a handler of do: the body is decoded before it, the answer or the
// problem encoded after it, and one line logged. query are the parameters that
// the call has.
func handle[Req, Resp any](s *server, do func(context.Context, *call, Req) (Resp, error), query ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, answer, err := serve(s, r, do, query)
		if err != nil {
			p := asProblem(err)
			c.status = p.write(w, c.trace)
			c.log(p)
			return
		}
		if answer.cache != "" {
			w.Header().Set("Cache-Control", answer.cache)
		}
		if answer.policy != "" {
			w.Header().Set("Content-Security-Policy", answer.policy)
			w.Header().Set("Referrer-Policy", "no-referrer")
		}
		if answer.tag != "" {
			w.Header().Set("ETag", answer.tag)
			if r.Header.Get("If-None-Match") == answer.tag {
				c.status = http.StatusNotModified
				w.WriteHeader(c.status)
				c.log(nil)
				return
			}
		}
		if c.retryAfter != 0 {
			w.Header().Set("Retry-After", strconv.Itoa(c.retryAfter))
		}
		if c.status == 0 {
			c.status = http.StatusOK
		}
		w.Header().Set("Content-Type", answer.media)
		w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
		w.WriteHeader(c.status)
		_, _ = w.Write(answer.body) // nobody is left to tell
		c.log(nil)
	})
}

// serve makes the call, and turns a panic into an error and an alarm.
func serve[Req, Resp any](s *server, r *http.Request, do func(context.Context, *call, Req) (Resp, error), query []string) (c *call, answer file, err error) {
	c = &call{Request: r, server: s}
	defer func() {
		if v := recover(); v != nil {
			err = c.panicked(v)
		}
	}()
	invocation, err := keys.NewID(s.Random)
	if err != nil {
		return c, answer, err
	}
	c.trace = traceOf(r.Header, invocation)
	c.store = store.NewWriter(s.Store, invocation, s.Now)
	c.bearer = bearer(r.Header)
	var body Req
	if _, nowhere := any(body).(unread); !nowhere {
		if c.query, err = readQuery(r.URL.RawQuery, query); err != nil {
			return c, answer, err
		}
		if err := readBody(r, &body); err != nil {
			return c, answer, err
		}
	}
	resp, err := do(r.Context(), c, body)
	if err != nil {
		return c, answer, err
	}
	if f, ok := any(resp).(file); ok {
		return c, f, nil
	}
	answer.media = "application/json"
	answer.body, err = json.Marshal(resp)
	if c.tagged {
		sum := sha256.Sum256(answer.body)
		answer.tag = `"` + hex.EncodeToString(sum[:16]) + `"`
	}
	return c, answer, err
}

// allow and deny are the decision; the last one counts. reason is a word or two
// for the audit.
func (c *call) allow(reason string) { c.decided, c.allowed, c.reason = true, true, reason }
func (c *call) deny(reason string)  { c.decided, c.allowed, c.reason = true, false, reason }

// about names what the call is about in its log line.
func (c *call) about(name, value string) { c.attrs = append(c.attrs, slog.String(name, value)) }

// log writes the one line of the call.
func (c *call) log(p *problem) {
	attrs := append([]slog.Attr{slog.String("call", c.Pattern), slog.Int("status", c.status), slog.String("trace", c.trace)}, c.attrs...)
	msg, level := "answered", slog.LevelInfo
	if c.decided {
		msg = "audit"
		attrs = append(attrs, slog.Bool("allowed", c.allowed), slog.String("reason", c.reason))
		if c.bearer != "" {
			attrs = append(attrs, slog.String("token_sha256", keys.HashToken(c.bearer)))
		}
	}
	if p != nil {
		attrs = append(attrs, slog.String("code", p.code))
		if p.field != "" {
			attrs = append(attrs, slog.String("field", p.field))
		}
		switch p.code {
		case apitype.CodeUnavailable:
			level = slog.LevelWarn
		case apitype.CodeInternal:
			level = slog.LevelError
		}
		if p.cause != nil {
			attrs = append(attrs, slog.Any("error", p.cause))
		}
	}
	c.server.Log.LogAttrs(c.Context(), level, msg, attrs...)
}

// alarm logs something that an operator must look at.
func (c *call) alarm(a store.Alarm, msg string, attrs ...slog.Attr) {
	args := []any{"trace", c.trace}
	for _, at := range attrs {
		args = append(args, at)
	}
	a.Raise(c.Context(), c.server.Log, msg, args...)
}

// panicked tells where the code panicked, but of what the panic says only what
// the Go runtime itself wrote: other values may hold anything.
func (c *call) panicked(v any) error {
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	c.alarm(store.AlarmPanic, "panic", slog.String("call", c.Pattern), slog.String("what", what), slog.String("stack", string(debug.Stack())))
	return &problem{code: apitype.CodeInternal, detail: "The operator's logs tell more under this trace."}
}

// tries is how often a call reads and decides again after it lost to another
// writer. Few write one record: losing five times means that something is wrong.
const tries = 5

// decide runs f until it does not end in a conflict, at most tries times.
func decide[T any](f func() (T, error)) (T, error) {
	var v T
	var err error
	for range tries {
		if v, err = f(); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	return v, err
}

func (c *call) get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	items, err := c.store.Get(ctx, refs...)
	return items, outage(err)
}

// apply commits a decision, if it writes or checks anything, and then sends its
// messages. The record is what counts: a message that is lost is sent again by a poll or
// by the reaper.
func (c *call) apply(ctx context.Context, d store.Decision) error {
	if len(d.Changes) > 0 {
		if err := c.store.Commit(ctx, d.Changes...); err != nil {
			return outage(err)
		}
	}
	for _, s := range d.Sends {
		m := queue.Of(s)
		if err := c.server.Queue.Send(ctx, m, min(max(s.Due.Sub(c.server.Now()), 0), queue.MaxDelay)); err != nil {
			c.server.Log.LogAttrs(ctx, slog.LevelWarn, "message not sent", slog.String("kind", string(m.Kind)), slog.String("id", m.ID), slog.String("trace", c.trace), slog.Any("error", err))
		}
	}
	return nil
}

const hexDigit = form.Digit + "af"

var (
	amazonTrace = form.Form{{Text: "1-", Of: hexDigit, Min: 8, Max: 8}, {Text: "-", Of: hexDigit, Min: 24, Max: 24}}
	w3cTrace    = form.Form{
		{Of: hexDigit, Min: 2, Max: 2}, {Text: "-", Of: hexDigit, Min: 32, Max: 32}, {Text: "-", Of: hexDigit, Min: 16, Max: 16}, {Text: "-", Of: hexDigit, Min: 2, Max: 2},
	}
)

// traceOf returns the trace id that a header brings in its strict form, or own.
func traceOf(h http.Header, own string) string {
	for field := range strings.SplitSeq(h.Get("X-Amzn-Trace-Id"), ";") {
		if id, ok := strings.CutPrefix(field, "Root="); ok && amazonTrace.Fits(id) {
			return id
		}
	}
	if parent := h.Get("Traceparent"); w3cTrace.Fits(parent) {
		return strings.Split(parent, "-")[1]
	}
	return own
}

// readQuery accepts the known parameters, each once.
func readQuery(raw string, known []string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &problem{code: apitype.CodeInvalidField, detail: "The query is not well formed: escape its values as in a URL."}
	}
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, &problem{code: apitype.CodeUnknownField, field: quotable(name), detail: "This call does not know the parameter: correct its name, or leave it out. GET /openapi.yaml lists what there is."}
		}
		if len(q[name]) != 1 {
			return nil, invalid(name, "Specify this parameter once.")
		}
	}
	return q, nil
}
