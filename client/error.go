package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// Code is the code of a problem as an error, for errors.Is.
type Code string

// Error implements error.
func (c Code) Error() string { return string(c) }

// The errors that callers most often branch on. Any other code of
// apitype.Problems can be compared as Code(code).
const (
	ErrUnauthenticated = Code(apitype.CodeUnauthenticated)
	ErrForbidden       = Code(apitype.CodeForbidden)
	ErrNotFound        = Code(apitype.CodeNotFound)
	ErrMismatch        = Code(apitype.CodeMismatch)
	ErrInvalidField    = Code(apitype.CodeInvalidField)
	ErrThrottled       = Code(apitype.CodeThrottled)
	ErrInternal        = Code(apitype.CodeInternal)
	ErrUnavailable     = Code(apitype.CodeUnavailable)
)

// ErrNoAnswer says that there was no whole answer, although the call was made as
// often as calls are: the API may have done what it was asked for, or not.
var ErrNoAnswer = errors.New("no answer")

// NotReadyError says that a request ended without a runner.
type NotReadyError struct {
	Status apitype.Status // Error in it says why
}

// Error implements error in one line.
func (e *NotReadyError) Error() string {
	s := e.Status
	if s.Error == nil {
		return fmt.Sprintf("request %s ended as %s", s.ID, s.State)
	}
	return fmt.Sprintf("request %s ended as %s: %s: %s", s.ID, s.State, s.Error.Code, s.Error.Text)
}

// Error is an answer of the API that is not a good one.
type Error struct {
	Problem apitype.Problem
}

// Error implements error with what the API says.
func (e *Error) Error() string {
	p := e.Problem
	s := p.Code
	if p.Field != "" {
		s += " (" + p.Field + ")"
	}
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if p.Trace != "" {
		s += " [trace " + p.Trace + "]"
	}
	return s
}

// Is compares with a Code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && string(code) == e.Problem.Code
}

// Retryable reports whether the same call may work later. It was made several
// times before this error.
func (e *Error) Retryable() bool {
	return e.Problem.Status == http.StatusTooManyRequests || e.Problem.Status >= http.StatusInternalServerError
}

// newError makes an error of an answer. One that is no problem comes from
// something that stands before the API: its status tells the code, and its body
// is not shown.
func newError(resp *http.Response, body []byte) *Error {
	e := &Error{}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == apitype.ProblemMedia && json.Unmarshal(body, &e.Problem) == nil && e.Problem.Code != "" {
		e.Problem.Status = resp.StatusCode
		return e
	}
	e.Problem = apitype.Problem{
		Status: resp.StatusCode, Code: "unexpected_answer", Title: http.StatusText(resp.StatusCode),
		Detail: fmt.Sprintf("Status %d came without a problem: it is not this API that answered.", resp.StatusCode),
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		e.Problem.Code = apitype.CodeThrottled
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Problem.Code = apitype.CodeUnavailable
	}
	return e
}
