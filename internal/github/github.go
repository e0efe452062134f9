// Package github makes the few calls to GitHub's REST API that GARO needs: it
// registers one-job runners and removes them. It promises that no credential, no
// config and no response body ever gets into an error.
package github

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// Repository is where a runner registers: the id decides, the name is for the path.
type Repository struct {
	ID      string
	Name    string // owner/name
	Account string // the AWS account whose registration names the credential
}

// Minted is a new registration.
type Minted struct {
	RunnerID int64
	// Config is the just-in-time configuration: whoever has it is the runner.
	Config secret.Text
}

// Runner is a registration as GitHub shows it. GitHub does not tell its age.
type Runner struct {
	ID     int64
	Name   string
	Online bool
	Busy   bool
	Labels []string
}

// The kinds of failure that callers branch on, by errors.Is.
var (
	// ErrNameTaken (409): a runner of that name exists.
	ErrNameTaken = errors.New("runner name is taken")
	// ErrBusy (422 on delete): the runner runs a job.
	ErrBusy = errors.New("runner is busy")
	// ErrNotFound (404): absent, or the credential may not see it.
	ErrNotFound = errors.New("not found")
	// ErrDenied (401, or 403 without a limit): the credential does not serve.
	ErrDenied = errors.New("credential refused")
	// ErrLimited (403 or 429 with a limit, or without a call when our own share of
	// GitHub's points is spent): wait. The *Error says until when.
	ErrLimited = errors.New("rate limited")
	// ErrUnknown: no answer, or a server's error; what was asked may have happened.
	ErrUnknown = errors.New("outcome unknown")
	// ErrRefused (other 4xx): the same call will be refused again.
	ErrRefused = errors.New("refused")
)

// Error is a failed call. It holds GitHub's request id and never a body.
type Error struct {
	Kind      error // one of the kinds above
	Op        string
	Status    int // 0: no answer
	RequestID string
	// RetryAt is when a limited call may be made again; zero otherwise.
	RetryAt time.Time
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Op, e.Kind)
	if e.Status != 0 {
		s += fmt.Sprintf(" (status %d, GitHub request %s)", e.Status, e.RequestID)
	}
	return s
}

// Unwrap gives the kind to errors.Is.
func (e *Error) Unwrap() error { return e.Kind }

// API is what worker and reaper ask of GitHub. Client implements it over HTTP.
// It is safe for concurrent use, and repeats no call by itself but one whose
// credential GitHub refused, with another credential.
type API interface {
	// Mint registers a one-job runner under a name that was never used before,
	// with exactly these labels. It is not idempotent: after ErrUnknown the name
	// is spent.
	Mint(ctx context.Context, repo Repository, name string, labels []string) (Minted, error)
	// Get returns a runner by id.
	Get(ctx context.Context, repo Repository, id int64) (Runner, error)
	// Delete removes a runner by id; ErrNotFound if it is not there.
	Delete(ctx context.Context, repo Repository, id int64) error
	// Find returns the runner with exactly that name, or ErrNotFound.
	Find(ctx context.Context, repo Repository, name string) (Runner, error)
	// List yields the runners whose name begins with prefix, page by page. A
	// runner that it leaves out may exist all the same.
	List(ctx context.Context, repo Repository, prefix string) iter.Seq2[Runner, error]
}
