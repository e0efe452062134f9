package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// renewBefore is how long before its end an installation token, which lives an
	// hour, is given out no more: longer than any of our calls and than clocks differ.
	renewBefore = 5 * time.Minute
	// young is how long GitHub may not know a token yet that it has just made
	// (https://github.com/octokit/auth-app.js waits as long).
	young = 5 * time.Second
	// refusedFor is how long a refusal stands before it is tried again: each try reads a
	// parameter, and SSM gives 40 a second to all callers.
	refusedFor = 10 * time.Second
)

// ErrNoParameter is what CredentialsConfig.Parameter answers for a parameter that
// is not there, or that it may not read.
var ErrNoParameter = errors.New("no such parameter")

// CredentialsConfig is what Credentials are made of. Account and Parameter are
// needed.
type CredentialsConfig struct {
	// BaseURL is as in Config: installation tokens come from there.
	BaseURL string
	// Account returns an AWS account's registration, as a store.Accounts does.
	Account func(ctx context.Context, id string) (store.Account, error)
	// Parameter returns a parameter of an AWS account. It may cache; fresh reads
	// past the cache, and renews it. ErrNoParameter is final, any other error an
	// outage.
	Parameter func(ctx context.Context, account, name string, fresh bool) (secret.Text, error)
	HTTP      *http.Client     // nil: http.DefaultClient
	Now       func() time.Time // nil: time.Now
}

// Credentials gives GitHub's credential for a call: the personal access token in the
// parameter that the account's registration names or, if it names a GitHub App, a token
// of its installation that has the one right that the call takes, in the one repository
// that it is about, and nothing else. What fails is an *Error, and never ErrNotFound: that would be
// taken for the end of a runner. It is safe for concurrent use.
type Credentials struct {
	cfg CredentialsConfig
	app *Client // for calls as the App itself

	mu     sync.Mutex // never held during a call
	grants map[grantKey]*grant
}

// grant is a token that was fetched, or is being fetched: once done is closed,
// the rest does not change.
type grant struct {
	done  chan struct{}
	token secret.Text
	err   error
	at    time.Time
	until time.Time // when it, or the error, is good for nothing any more
}

// NewCredentials returns credentials. It calls nobody.
func NewCredentials(cfg CredentialsConfig) (*Credentials, error) {
	if cfg.Account == nil || cfg.Parameter == nil {
		return nil, errors.New("GitHub credentials: no source of registrations or of parameters")
	}
	c := &Credentials{grants: map[grantKey]*grant{}}
	app, err := New(Config{BaseURL: cfg.BaseURL, HTTP: cfg.HTTP, Now: cfg.Now, Token: c.Token})
	if err != nil {
		return nil, err
	}
	cfg.Now = app.now
	c.cfg, c.app = cfg, app
	return c, nil
}

// Token returns the credential for a call, for Config.Token.
func (c *Credentials) Token(ctx context.Context, a Access) (secret.Text, error) {
	from, err := c.registration(ctx, a)
	if err != nil {
		return secret.Text{}, err
	}
	switch {
	case a.Right == AsApp:
		return c.proof(ctx, a, from, false)
	case from.AppID == 0:
		return c.parameter(ctx, a.Account, from.Parameter, false)
	}
	return c.grant(ctx, keyOf(a, from), secret.Text{}, func() (secret.Text, time.Time, error) {
		return c.install(ctx, a, from, false)
	})
}

// Renew returns the credential in place of one that GitHub refused, for
// Config.Renew: the parameter is read again. An App's token that GitHub may only
// not know yet is ErrLimited for the few seconds that this takes.
func (c *Credentials) Renew(ctx context.Context, a Access, refused secret.Text) (secret.Text, error) {
	from, err := c.registration(ctx, a)
	if err != nil {
		return secret.Text{}, err
	}
	if a.Right == AsApp {
		return c.proof(ctx, a, from, true)
	}
	key := keyOf(a, from)
	if from.AppID == 0 {
		key.repository, key.right = "", "" // all calls have it
		return c.grant(ctx, key, secret.Text{}, func() (secret.Text, time.Time, error) {
			token, err := c.parameter(ctx, a.Account, from.Parameter, true)
			return token, c.cfg.Now().Add(refusedFor), err
		})
	}
	if at := c.fetched(key, refused); c.cfg.Now().Before(at.Add(young)) {
		return secret.Text{}, &Error{Kind: ErrLimited, Op: "wait until GitHub knows a new installation token", RetryAt: at.Add(young)}
	}
	return c.grant(ctx, key, refused, func() (secret.Text, time.Time, error) {
		return c.install(ctx, a, from, true)
	})
}

// Names returns the names of an account's credentials, for Config.Names.
func (c *Credentials) Names(ctx context.Context, account string) ([]string, error) {
	registered, err := c.account(ctx, account)
	if err != nil {
		return nil, err
	}
	return registered.CredentialNames(), nil
}

func (c *Credentials) account(ctx context.Context, id string) (store.Account, error) {
	registered, err := c.cfg.Account(ctx, id)
	if err != nil {
		return store.Account{}, wrong(err, store.ErrNoAccount, "read the registration of account "+id)
	}
	return registered, nil
}

// registration returns where the credential is that an access is by.
func (c *Credentials) registration(ctx context.Context, a Access) (store.GitHubCredential, error) {
	registered, err := c.account(ctx, a.Account)
	if err != nil {
		return store.GitHubCredential{}, err
	}
	all := registered.Credentials()
	for _, from := range all {
		if a.Credential == registered.CredentialName(from) || a.Credential == "" && (a.Right != AsApp || from.AppID != 0) {
			return from, nil
		}
	}
	if a.Credential == "" {
		return all[0], nil // there is no App among them
	}
	return store.GitHubCredential{}, &Error{Kind: ErrDenied, Op: fmt.Sprintf("use credential %s, which the registration of account %s does not name", a.Credential, a.Account)}
}

func (c *Credentials) parameter(ctx context.Context, account, name string, fresh bool) (secret.Text, error) {
	text, err := c.cfg.Parameter(ctx, account, name, fresh)
	if err != nil {
		return secret.Text{}, wrong(err, ErrNoParameter, fmt.Sprintf("read parameter %s of account %s", name, account))
	}
	return text, nil
}

// wrong makes an *Error: ErrDenied if err is the final one, else ErrUnknown.
func wrong(err, final error, op string) error {
	e := &Error{Kind: ErrUnknown, Op: op}
	if errors.Is(err, final) {
		e.Kind = ErrDenied
	}
	return fmt.Errorf("%w: %w", e, err)
}

// fetched returns when the token of a key was fetched; zero if it is another one.
func (c *Credentials) fetched(key grantKey, token secret.Text) time.Time {
	c.mu.Lock()
	g := c.grants[key]
	c.mu.Unlock()
	if g == nil || !g.isDone() || !g.token.Equal(token.Reveal()) {
		return time.Time{}
	}
	return g.at
}

// grant returns the token of a key that is not the refused one: one that is there
// already, or what fetch fetches. There is one fetch at a time for a key, on the
// goroutine of one who asked; the others wait for it and share what it brings,
// unless it only ran out of its own time.
func (c *Credentials) grant(ctx context.Context, key grantKey, refused secret.Text, fetch func() (secret.Text, time.Time, error)) (secret.Text, error) {
	for {
		g, mine := c.claim(key, refused)
		if mine {
			func() {
				defer close(g.done)
				g.err = errors.New("fetching a credential panicked") // unless it returns
				g.token, g.until, g.err = fetch()
				g.at = c.cfg.Now()
				if g.err != nil {
					g.until = stands(g.err, g.at)
				}
			}()
			return g.token, g.err
		}
		select {
		case <-g.done:
		case <-ctx.Done():
			return secret.Text{}, fmt.Errorf("%w: %w", &Error{Kind: ErrUnknown, Op: "wait for a credential of account " + key.account}, ctx.Err())
		}
		ownTime := errors.Is(g.err, context.Canceled) || errors.Is(g.err, context.DeadlineExceeded)
		if !ownTime || !errors.Is(g.err, ErrUnknown) { // else it does not stand, and the next fetch is ours
			return g.token, g.err
		}
	}
}

// stands returns until when those who come later get the error too.
func stands(err error, now time.Time) time.Time {
	switch e, _ := errors.AsType[*Error](err); {
	case errors.Is(err, ErrLimited):
		return e.RetryAt
	case errors.Is(err, ErrDenied):
		return now.Add(refusedFor)
	}
	return time.Time{}
}

// claim returns the grant of a key, or a new one that the caller has to fetch. It
// forgets what is good for nothing any more.
func (c *Credentials) claim(key grantKey, refused secret.Text) (g *grant, mine bool) {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, g := range c.grants {
		if g.isDone() && (!now.Before(g.until) || k == key && refused.Equal(g.token.Reveal())) {
			delete(c.grants, k)
		}
	}
	if g := c.grants[key]; g != nil {
		return g, false
	}
	g = &grant{done: make(chan struct{})}
	c.grants[key] = g
	return g, true
}

func (g *grant) isDone() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// install asks for a token of the App's installation, and until when it may be
// given out. If GitHub refuses the key, it is read again, and another one is tried
// once.
func (c *Credentials) install(ctx context.Context, a Access, from store.GitHubCredential, fresh bool) (secret.Text, time.Time, error) {
	key, err := c.parameter(ctx, a.Account, from.Parameter, fresh)
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	token, until, err := c.asApp(ctx, a, from, key)
	if e, ok := errors.AsType[*Error](err); fresh || !ok || e.Status != http.StatusUnauthorized {
		return token, until, err
	}
	other, perr := c.parameter(ctx, a.Account, from.Parameter, true)
	switch {
	case perr != nil:
		return secret.Text{}, time.Time{}, perr
	case other.Equal(key.Reveal()):
		return secret.Text{}, time.Time{}, err
	}
	return c.asApp(ctx, a, from, other)
}

// asApp makes the call for an installation token, signed with the App's key. The token
// has the one right that is asked for, in one repository where it is about one.
func (c *Credentials) asApp(ctx context.Context, a Access, from store.GitHubCredential, key secret.Text) (secret.Text, time.Time, error) {
	what := describe(grants, "", a.Name)
	options, err := a.options()
	if err != nil {
		return secret.Text{}, time.Time{}, fmt.Errorf("%w: %w", &Error{Kind: ErrDenied, Op: what}, err)
	}
	proof, err := sign(from.AppID, key, c.cfg.Now())
	if err != nil {
		return secret.Text{}, time.Time{}, fmt.Errorf("%w: parameter %s of account %s: %w", &Error{Kind: ErrDenied, Op: what}, from.Parameter, a.Account, err)
	}
	var t *gogithub.InstallationToken
	e := errand{op: grants, what: what, root: "app/installations/", access: a}
	_, err = c.app.exchange(ctx, e, proof, func(gh *gogithub.Client, _ string) (resp *gogithub.Response, err error) {
		t, resp, err = gh.Apps.CreateInstallationToken(ctx, from.InstallationID, options)
		if err == nil && (!sendable(secret.New(t.GetToken())) || !t.GetExpiresAt().After(c.cfg.Now())) {
			err = errAnswer
		}
		return resp, err
	})
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	return secret.New(t.GetToken()), t.GetExpiresAt().Add(-renewBefore), nil
}
