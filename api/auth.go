package api

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ErrToken is answered for a token that proves nothing. An error that wraps it
// says why, and never holds the token or a part of it.
var ErrToken = oidc.ErrToken

// Authenticator tells who holds a token. It is safe for concurrent use.
type Authenticator interface {
	// Authenticate returns the caller whose token it is. Any error but ErrToken
	// means that it could not be found out.
	Authenticate(ctx context.Context, token string) (Caller, error)
}

// CallerKind is what a caller is.
type CallerKind string

// The kinds of caller.
const (
	Operator CallerKind = "operator" // a person or program that runs GARO
	GitHub   CallerKind = "github"   // a workflow's job
)

func (c Claims) repository() store.Repository {
	return store.Repository{Server: c.Server, ID: c.RepositoryID, Name: c.Repository, OwnerID: c.OwnerID, Owner: c.Owner}
}

// Caller is who makes a call. The zero value may do nothing.
type Caller struct {
	Kind   CallerKind
	Name   string // the operator's name, or the actor
	Claims Claims // of GitHub callers
}

// String returns how records and logs name the caller.
func (c Caller) String() string { return string(c.Kind) + " " + c.Name }

// Claims are what GitHub vouches for in a job's ID token, each as the claim says
// it. The ids decide; names can be taken over.
type Claims struct {
	Server            string // the host of the GitHub server; empty: github.com
	RepositoryID      string
	Repository        string // owner/name
	OwnerID           string
	Owner             string
	Visibility        string // public, private or internal
	RunID             string
	RunAttempt        string
	CheckRunID        string // empty on GitHub servers that do not have it yet; tells jobs of one run apart
	Actor             string
	ActorID           string
	Event             string
	Ref               string
	Workflow          string
	WorkflowRef       string
	JobWorkflowRef    string
	Environment       string // empty: the job has none
	RunnerEnvironment string // github-hosted or self-hosted
	// Properties are the repository's custom properties, as far as the
	// organisation puts them into tokens (repo_property_*).
	Properties map[string]string
}

// Operators holds operators' tokens: their SHA-256 in hex, by operator's name.
type Operators map[string]string

// Authenticate implements Authenticator. It compares with every token, in
// constant time.
func (o Operators) Authenticate(_ context.Context, token string) (Caller, error) {
	if !strings.HasPrefix(token, keys.OperatorPrefix) {
		return Caller{}, fmt.Errorf("not an operator's: %w", ErrToken)
	}
	hash := []byte(keys.HashToken(token))
	found := ""
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if subtle.ConstantTimeCompare(hash, []byte(strings.ToLower(o[name]))) == 1 {
			found = name
		}
	}
	if found == "" {
		return Caller{}, fmt.Errorf("no operator has it: %w", ErrToken)
	}
	return Caller{Kind: Operator, Name: found}, nil
}

// ByPrefix asks Operators about operators' tokens and GitHub about all others.
// A nil member knows no token.
type ByPrefix struct {
	Operators, GitHub Authenticator
}

// Authenticate implements Authenticator.
func (b ByPrefix) Authenticate(ctx context.Context, token string) (Caller, error) {
	a := b.GitHub
	if strings.HasPrefix(token, keys.OperatorPrefix) {
		a = b.Operators
	}
	switch {
	case a == nil && strings.HasPrefix(token, keys.OperatorPrefix):
		return Caller{}, fmt.Errorf("there are no operators: %w", ErrToken)
	case a == nil:
		return Caller{}, &oidc.Refusal{Cause: oidc.CauseIssuer, Text: "no issuer of ID tokens is configured"}
	}
	return a.Authenticate(ctx, token)
}

// maxToken bounds a bearer token. GitHub's are 2 KiB at most; more is a bomb.
const maxToken = 8 << 10

// bearer returns the token of an Authorization header, or nothing if there is
// not exactly one that is well formed.
func bearer(h http.Header) string {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || len(token) > maxToken ||
		strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return token
}

// causes are what the holder of a refused ID token gets to read. They say no more than
// the token, the issuer's public keys and the configuration do, and each is one text
// for all tokens, so that an answer repeats nothing of what was sent. An operator's,
// a status, a session or a boot token is a secret, and gets unauthenticated alone.
var causes = map[oidc.Cause]string{
	oidc.CauseForm:      "The token is neither a GitHub ID token nor one of GARO's own. A personal access token or GITHUB_TOKEN does not serve.",
	oidc.CauseAlgorithm: "The token is not signed with RS256. Send it as GitHub made it.",
	oidc.CauseIssuer:    "The issuer of the token is not one that this API trusts. An operator lists the trusted ones in GARO_OIDC_ISSUERS, or by --oidc-issuer of garo local.",
	oidc.CauseAudience:  "The token was made for another audience than this API's address. Ask GitHub for one with exactly that audience, and no other.",
	oidc.CauseExpired:   "The token has expired. Ask GitHub for a new one; it serves for minutes.",
	oidc.CauseNotYet:    "The token is not valid yet. Are the clocks of its issuer and of this API right?",
	oidc.CauseKey:       "The token is signed with a key that its issuer does not publish. If the issuer has just changed its keys, try again in five minutes.",
	oidc.CauseSignature: "The signature of the token is wrong. Send it as GitHub made it.",
	oidc.CauseClaim:     "The token lacks a claim that GitHub's have, or has one of another form. Is the GitHub server too old?",
}

// caller authenticates the holder of a caller's token.
func (c *call) caller(ctx context.Context) (Caller, error) {
	switch {
	case c.bearer == "":
		c.deny("no token")
		return Caller{}, refused("The call has no bearer token. Send one as Authorization: Bearer, of at most 8 KiB and without spaces.")
	case strings.HasPrefix(c.bearer, keys.StatusPrefix), strings.HasPrefix(c.bearer, keys.SessionPrefix):
		c.deny("a token for other calls")
		return Caller{}, refused("This kind of token does not serve for this call. Send a GitHub ID token or an operator's.")
	}
	who, err := c.server.Auth.Authenticate(ctx, c.bearer)
	if errors.Is(err, ErrToken) {
		c.deny(err.Error())
		if r, ok := errors.AsType[*oidc.Refusal](err); ok && causes[r.Cause] != "" {
			return Caller{}, refused(causes[r.Cause])
		}
		return Caller{}, unauthenticated()
	}
	if err != nil {
		return Caller{}, outage(err)
	}
	c.about("caller", who.String())
	return who, nil
}

// operator authenticates an operator.
func (c *call) operator(ctx context.Context) (Caller, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return who, err
	}
	if who.Kind != Operator {
		c.deny("not an operator")
		return who, forbidden("", "This call is for operators.")
	}
	c.allow("operator")
	return who, nil
}

// viewer says who asks about a request, and which requests that is.
type viewer struct {
	by  string
	may func(store.Request) bool
}

// viewer authenticates the holder of a token that reads and stops the request id.
func (c *call) viewer(ctx context.Context, id string) (viewer, error) {
	if strings.HasPrefix(c.bearer, keys.StatusPrefix) {
		if !keys.ValidID(id) || !c.server.Keys.StatusOpens(c.bearer, id, c.server.Now()) {
			c.deny("not the request's status token, or too old")
			return viewer{}, notFound()
		}
		return viewer{by: "its status token", may: func(store.Request) bool { return true }}, nil
	}
	who, err := c.caller(ctx)
	if err != nil {
		return viewer{}, err
	}
	if !keys.ValidID(id) {
		c.deny("no request can have this id")
		return viewer{}, notFound()
	}
	return viewer{by: who.String(), may: func(r store.Request) bool { return sightOf(who).sees(r.Repository) }}, nil
}

// request reads the request id for v. Absent and not v's are the same answer.
func (c *call) request(ctx context.Context, v viewer, id string) (store.Request, error) {
	items, err := c.get(ctx, store.Ref{Kind: store.KindRequest, ID: id})
	if err != nil {
		return store.Request{}, err
	}
	r := *items[0].(*store.Request)
	switch {
	case r.Version == 0:
		c.deny("absent")
		return store.Request{}, notFound()
	case !v.may(r):
		c.deny("of another repository")
		return store.Request{}, notFound()
	}
	c.allow(v.by)
	return r, nil
}
