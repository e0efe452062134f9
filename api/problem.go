package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// problem is an error that is answered. What is shown and what caused it are
// apart: the cause is logged and never answered.
type problem struct {
	code   string
	detail string
	field  string
	allow  string // the Allow header, of apitype.CodeMethodNotAllowed
	after  int    // seconds of the Retry-After of apitype.CodeTooEarly; 0: pollAfter
	cause  error
	// retryAfter is how long to wait, of apitype.CodeThrottled.
	retryAfter time.Duration
}

func (p *problem) Error() string {
	s := p.code
	if p.field != "" {
		s += " " + p.field
	}
	if p.cause != nil {
		s += ": " + p.cause.Error()
	}
	return s
}

func (p *problem) Unwrap() error { return p.cause }

func invalid(field, format string, args ...any) error {
	return &problem{code: apitype.CodeInvalidField, field: field, detail: fmt.Sprintf(format, args...)}
}

// outage wraps what went wrong in something that the API needs. A conflict
// passes, since the caller decides about it.
func outage(err error) error {
	if err == nil || errors.Is(err, store.ErrConflict) {
		return err
	}
	return &problem{code: apitype.CodeUnavailable, detail: "Something that the API needs does not answer. Send the same call again.", cause: err}
}

// The answers that must not differ by a byte, whatever led to them.

func notFound() error {
	return &problem{code: apitype.CodeNotFound, detail: "There is no such request, or this token may not see it. A status token serves for 24 hours, and for its own request."}
}

func unauthenticated() error {
	return refused("Send a valid token as Authorization: Bearer.")
}

// refused is unauthenticated for a reason that the caller may see.
func refused(detail string) error {
	return &problem{code: apitype.CodeUnauthenticated, detail: detail}
}

func gone() error {
	return &problem{code: apitype.CodeGone, detail: "Power off."}
}

// How long a client waits before it asks again, in seconds.
const (
	pollAfter  = 2 // a launch takes tens of seconds: sooner tells nothing new
	retryAfter = 5 // an outage of a moment is over, and one that lasts is not made worse
)

// asProblem returns what err is answered with. What is not meant to be answered
// is an internal error.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if errors.Is(err, store.ErrConflict) {
		return &problem{code: apitype.CodeUnavailable, detail: "The record kept changing. Send the same call again.", cause: err}
	}
	return &problem{code: apitype.CodeInternal, detail: "The operator's logs tell more under this trace.", cause: err}
}

// write answers p.
func (p *problem) write(w http.ResponseWriter, trace string) int {
	kind, ok := apitype.ProblemOf(p.code)
	if !ok {
		kind, _ = apitype.ProblemOf(apitype.CodeInternal)
	}
	switch p.code {
	case apitype.CodeUnauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case apitype.CodeMethodNotAllowed:
		w.Header().Set("Allow", p.allow)
	case apitype.CodeTooEarly:
		w.Header().Set("Retry-After", strconv.Itoa(cmp.Or(p.after, pollAfter)))
	case apitype.CodeThrottled:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(p.retryAfter.Seconds())))))
	case apitype.CodeUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	body, err := json.Marshal(apitype.Problem{
		Type: apitype.ProblemType + kind.Code, Title: kind.Title, Status: kind.Status, Code: kind.Code,
		Detail: p.detail, Field: p.field, Trace: trace,
	})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	w.Header().Set("Content-Type", apitype.ProblemMedia)
	w.WriteHeader(kind.Status)
	_, _ = w.Write(body) // nobody is left to tell
	return kind.Status
}
