package github

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// op is one of the calls.
type op string

const (
	mint   op = "mint"
	get    op = "get"
	remove op = "delete"
	find   op = "find"
	list   op = "list"

	offers op = "downloads"
	ends   op = "deprecations"
	rates  op = "rates"
	groups op = "runner groups"
	admits op = "repositories of a runner group"
	grants op = "token"

	getRun     op = "get run"
	listRuns   op = "list runs"
	getJob     op = "get job"
	listJobs   op = "list jobs"
	cancel     op = "cancel"
	deliveries op = "deliveries"
)

// describe names a call and its object for people.
func describe(op op, object, of string) string {
	switch op {
	case list:
		return "list runners of " + of
	case offers:
		return "list runner programs for " + of
	case ends:
		return "ask when a version of the runner program ends, for " + of
	case rates:
		return "read rate limits with the credential for " + of
	case groups:
		return fmt.Sprintf("find the runner group %q of %s", object, of)
	case admits:
		return fmt.Sprintf("list the repositories that the runner group %q of %s admits", object, of)
	case getRun:
		return fmt.Sprintf("get workflow run %s of %s", object, of)
	case listRuns:
		return fmt.Sprintf("list %s workflow runs of %s", object, of)
	case getJob:
		return fmt.Sprintf("get workflow job %s of %s", object, of)
	case listJobs:
		return fmt.Sprintf("list the jobs of workflow run %s of %s", object, of)
	case cancel:
		return fmt.Sprintf("cancel workflow run %s of %s", object, of)
	case deliveries:
		return "list the webhook deliveries of the App of account " + of
	case grants:
		return "get an installation token for " + of
	}
	return fmt.Sprintf("%s runner %s of %s", op, object, of)
}

// success is the one status that means that op was done. Any other of the 200s
// comes from something that is not GitHub.
func (o op) success() int {
	switch o {
	case mint, grants:
		return http.StatusCreated
	case remove:
		return http.StatusNoContent
	case cancel:
		return http.StatusAccepted
	}
	return http.StatusOK
}

// What is shown of answers that are no answers, beside GitHub's words.
var (
	errRedirect = errors.New("GitHub points to another place, where the call may not go")
	errAnswer   = errors.New("the answer is not what GitHub documents")
	errShare    = errors.New("this process has spent its share of GitHub's points or calls, or GitHub asked it to wait")
	errTooLarge = fmt.Errorf("the answer is above %d bytes", maxAnswer)
)

const requestID = "X-Github-Request-Id"

// fail makes the error of a call with a token from its response, which is nil if
// there was none, and from the library's error, of which nothing that GitHub sent
// is kept.
func (c *Client) fail(of errand, token secret.Text, resp *gogithub.Response, err error) error {
	op, what := of.op, of.what
	e := &Error{Kind: ErrUnknown, Op: what, Credential: of.access.Credential}
	if resp != nil && resp.Response != nil {
		e.Status, e.RequestID = resp.StatusCode, shortened(resp.Header.Get(requestID))
		if e.Status >= 400 && resp.Body != nil { // the library has put it back
			e.Said = said(resp.Body, token, strings.Fields(what)...)
		}
		e.Kind = kind(op, resp.StatusCode, limited(resp, err), e.Said)
		switch e.Kind {
		case ErrLimited:
			e.RetryAt = retryAt(c.now(), resp.Header)
		case ErrFull:
			e.RetryAt = c.now().Add(minWait)
		}
	}
	if why := cause(e, err); why != nil {
		return fmt.Errorf("%w: %w", e, why)
	}
	return e
}

// kind is the table from statuses to kinds. GitHub has no codes beside the status:
// where one has several causes, its words tell them apart (simgithub says where
// they come from), and without them it is the kind that promises least.
func kind(op op, status int, limited bool, said string) error {
	if limited {
		return ErrLimited
	}
	if op == mint {
		if err := mintKind(status, said); err != nil {
			return err
		}
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ErrDenied
	case op == grants && status >= 300 && status < 500:
		return ErrDenied // a 404 of the installation is none of what was asked for
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusUnprocessableEntity && op == remove:
		return ErrBusy
	case status == http.StatusConflict && op == cancel:
		return ErrConflict
	case status >= 300 && status < 500:
		return ErrRefused
	}
	return ErrUnknown
}

// mintKind is the part of the table that a registration alone has; nil: the answer
// is not in it.
func mintKind(status int, said string) error {
	lower := strings.ToLower(said)
	says := func(parts ...string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(lower, p) })
	}
	switch {
	case status == http.StatusForbidden && says("runners", "disabled"):
		return ErrForbidden
	case status == http.StatusConflict && says("name", "already exists"):
		return ErrNameTaken
	case status == http.StatusConflict:
		return ErrConflict
	case status == http.StatusUnprocessableEntity && says("limit", "runners"):
		return ErrFull
	}
	return nil
}

// limited reports whether an answer is one of GitHub's limits: by its headers or,
// for some secondary limits, by the page of the documentation that it names.
func limited(resp *gogithub.Response, err error) bool {
	if resp.StatusCode != http.StatusForbidden {
		return resp.StatusCode == http.StatusTooManyRequests
	}
	_, secondary := errors.AsType[*gogithub.AbuseRateLimitError](err)
	return secondary || resp.Header.Get("Retry-After") != "" || resp.Header.Get("X-Ratelimit-Remaining") == "0"
}

// A limit that names no time is over in a minute, says GitHub; and none lasts
// longer than its window, which is an hour
// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
const minWait, maxWait = time.Minute, time.Hour

// retryAt returns when a limited call may be made again.
func retryAt(now time.Time, h http.Header) time.Time {
	at := now.Add(minWait)
	if s, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32); err == nil {
		at = now.Add(time.Duration(s) * time.Second)
	} else if s, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil && h.Get("X-Ratelimit-Remaining") == "0" {
		at = time.Unix(min(s, now.Add(2*maxWait).Unix()), 0) // else it may wrap around
	}
	switch {
	case !at.After(now): // a clock is wrong: asking again at once would not end
		return now.Add(minWait)
	case at.After(now.Add(maxWait)):
		return now.Add(maxWait)
	}
	return at
}

// cause returns what this side knows of a failure beyond the status: what the
// context, the network or TLS said. Errors that may quote an answer stay out.
func cause(e *Error, err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if errors.Is(err, errRedirect) {
		return errRedirect
	}
	for _, known := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return known
		}
	}
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return network
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert
	}
	if e.Status >= 200 && e.Status < 300 {
		return errAnswer
	}
	return nil
}

// shortened bounds a request id, which a stranger may have written.
func shortened(id string) string {
	const longest = 64 // GitHub's have about 40 characters
	for i, r := range id {
		if r <= ' ' || r > '~' || i >= longest {
			return id[:i]
		}
	}
	return id
}
