// Package github makes the few calls to GitHub's REST API that GARO needs: it
// registers one-job runners and removes them. Each call names the repository or the
// organization by its id, and none by its name, which another one may have by now.
//
// It promises that no credential and no config ever gets into an error. Of a
// response body, an error holds GitHub's own words alone: the message and the
// errors of a refusal (status 400 and above), in one line of at most 300
// printable characters, with everything hidden that looks like a credential. No
// other body is read into an error, and so none that can hold a config or a token.
package github

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Repository is one whose workflow runs and jobs are asked about.
type Repository struct {
	ID      string // GitHub's number: it alone says which one is called
	Name    string // owner/name, for people's messages only
	Account string // the AWS account whose registration names the credential
}

// Scope is where runners register: a repository, or a runner group of an organization.
type Scope struct {
	Organization bool
	ID           string // GitHub's number: with Organization it alone says which one is called
	Name         string // owner/name or the organization's login, for people's messages only
	Group        string // the name of an organization's runner group
	Account      string // the AWS account whose registration names the credential
	// Credential names the one of the account's that is asked first, and the only one that
	// registers a runner: see Access. Empty: whichever has most left.
	Credential string
}

// ScopeOf returns where a runner registers, with the credential that registered it: that
// one reaches the scope.
func ScopeOf(r store.Runner) Scope {
	at := r.Where()
	return Scope{Organization: at.Kind == store.OrganizationScope, ID: at.ID, Name: at.Name, Group: at.Group, Account: r.Account, Credential: r.RegisteredBy()}
}

// With returns the scope with another credential; empty: with whichever has most left.
func (s Scope) With(credential string) Scope {
	s.Credential = credential
	return s
}

// Kind says for people which kind of scope it is.
func (s Scope) Kind() string {
	if s.Organization {
		return store.OrganizationScope
	}
	return store.RepositoryScope
}

// Key names the scope among those of its account, which are of one server: it is a
// repository's id, or an organization's behind an @.
func (s Scope) Key() string {
	if s.Organization {
		return "@" + s.ID
	}
	return s.ID
}

// Minted is a new registration.
type Minted struct {
	RunnerID int64
	// Config is the just-in-time configuration: anyone who has it is the runner.
	Config secret.Text
}

// Runner is a registration as GitHub shows it. GitHub does not tell its age.
type Runner struct {
	ID     int64
	Name   string
	Online bool
	Busy   bool
	Labels []string
	// Version is that of its program, as 2.336.0; empty until it has connected.
	Version string
}

// The kinds of failure that callers branch on, by errors.Is.
var (
	// ErrNameTaken (409 that says so): a runner of that name exists.
	ErrNameTaken = errors.New("runner name is taken")
	// ErrConflict (any other 409 of a registration, or one of a cancellation): another name
	// may not help, or the run cannot be cancelled. The *Error has GitHub's words.
	ErrConflict = errors.New("conflict")
	// ErrBusy (422 on delete): the runner runs a job.
	ErrBusy = errors.New("runner is busy")
	// ErrNotFound (404): absent, or the credential may not see it.
	ErrNotFound = errors.New("not found")
	// ErrDenied (401, or 403 without a limit): the credential does not serve.
	ErrDenied = errors.New("credential refused")
	// ErrLimited (403 or 429 with a limit, or without a call when our own share of
	// GitHub's points or calls is spent): wait. The *Error says until when.
	ErrLimited = errors.New("rate limited")
	// ErrFull (422 that says so): the repository has as many runners as GitHub lets
	// it have. It is an ErrLimited: some go within a day.
	ErrFull = fmt.Errorf("%w: no room for another runner", ErrLimited)
	// ErrUnknown: no answer, or a server's error; what was asked may have happened.
	ErrUnknown = errors.New("outcome unknown")
	// ErrRefused (other 4xx): the same call will be refused again.
	ErrRefused = errors.New("refused")
	// ErrForbidden (403 that says so): the repository's owner allows no runners of
	// repositories. It is an ErrRefused: another credential does not help.
	ErrForbidden = fmt.Errorf("%w: the owner allows no runners of repositories", ErrRefused)
	// ErrNoGroup: the organization has no runner group of the scope's name that is its own
	// and not the default one. It is an ErrRefused.
	ErrNoGroup = fmt.Errorf("%w: no such runner group beside the default one", ErrRefused)
)

// Error is a failed call. It holds GitHub's request id, and of a body at most what
// Said has.
type Error struct {
	Kind      error // one of the kinds above
	Op        string
	Status    int // 0: no answer
	RequestID string
	// Said is what GitHub says of it, cleaned, in at most 300 characters; empty if
	// it says nothing. It is for people, and quotes what the caller sent.
	Said string
	// RetryAt is when a limited call may be made again; zero otherwise.
	RetryAt time.Time
	// Credential is the name of the one that GitHub answered; empty: it has none.
	Credential string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Op, e.Kind)
	if e.Status != 0 {
		s += fmt.Sprintf(" (status %d", e.Status)
		if e.RequestID != "" {
			s += ", GitHub request " + e.RequestID
		}
		s += ")"
	}
	if e.Said != "" {
		s += ": GitHub says: " + e.Said
	}
	return s
}

// Unwrap gives the kind to errors.Is.
func (e *Error) Unwrap() error { return e.Kind }

// API is what worker and reaper ask of GitHub. Client implements it over HTTP.
// It is safe for concurrent use, and repeats no call on its own but one whose
// credential GitHub refused, with another credential.
type API interface {
	// Mint registers a one-job runner under a name that was never used before,
	// with exactly these labels. It is not idempotent: after ErrUnknown the name
	// is spent.
	Mint(ctx context.Context, in Scope, name string, labels []string) (Minted, error)
	// Get returns a runner by id.
	Get(ctx context.Context, in Scope, id int64) (Runner, error)
	// Delete removes a runner by id; ErrNotFound if it is not there.
	Delete(ctx context.Context, in Scope, id int64) error
	// Find returns the runner with exactly that name, or ErrNotFound.
	Find(ctx context.Context, in Scope, name string) (Runner, error)
	// List yields the runners whose name begins with prefix, page by page. A
	// runner that it leaves out may exist all the same.
	List(ctx context.Context, in Scope, prefix string) iter.Seq2[Runner, error]
	// Deprecation returns when GitHub stops to serve a version of the runner
	// program; ErrNotFound if it does not know the version, or is an Enterprise
	// Server.
	Deprecation(ctx context.Context, in Scope, version string) (Deprecation, error)
}
