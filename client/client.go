// Package client calls GARO's API.
//
// Every call may be made again without harm, and is, when the API or what stands
// before it asks for that or does not answer: a few times, further and further
// apart, and never sooner than Retry-After says. What stays wrong is an *Error,
// which errors.Is compares by code:
//
//	started, err := c.Start(ctx, apitype.Start{Labels: []string{"build"}})
//	if errors.Is(err, client.ErrForbidden) {
//		// err says which field the account does not allow
//	}
//	status, err := c.For(started).Wait(ctx, started.ID, nil)
//	if no, ok := errors.AsType[*client.NotReadyError](err); ok {
//		// no.Status.Error says why there is no runner
//	}
package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// Token is a bearer token. It prints as *** in every format.
type Token = secret.Text

// NewToken makes s a Token.
func NewToken(s string) Token { return secret.New(s) }

// TokenSource returns the token for a call. It is asked before every try, since
// some tokens live for minutes. Its errors end the call.
type TokenSource func(ctx context.Context) (Token, error)

// Config is what a Client is made of. URL and Token are needed.
type Config struct {
	URL   string // of the API, such as https://garo.example.org
	Token TokenSource

	// UserAgent names the program to the API's logs, such as deploy/1.2. Empty: garo-go.
	UserAgent string

	// Retrying learns why, before each pause after which a call is made again; nil: nobody
	// is. It may be called by several calls at a time.
	Retrying func(error)

	HTTP   *http.Client // nil: one with a timeout of its own. Redirects are not followed in any case
	Random io.Reader    // nil: crypto/rand.Reader; safe for concurrent use
}

// Client is safe for concurrent use.
type Client struct {
	url    string
	agent  string
	again  func(error)
	token  TokenSource
	http   *http.Client
	random io.Reader
	pause  time.Duration
}

// callTimeout bounds one try: the API's own limit is 10 s, and API Gateway's 30 s.
const callTimeout = 30 * time.Second

// New returns a client. Its error is that of a Config which no call can work with: without
// a token, or whose URL is no address of an API. It calls nobody.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case cfg.URL == "":
		return nil, errors.New("client: Config.URL is empty: want the address of the API, such as https://garo.example.org")
	case err != nil:
		return nil, fmt.Errorf("client: Config.URL: %w", err)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, fmt.Errorf("client: Config.URL %q: want an address such as https://garo.example.org", cfg.URL)
	case cfg.Token == nil:
		return nil, errors.New("client: Config.Token is nil: want a source such as Static or IDTokens")
	}
	return newClient(cfg), nil
}

// Must returns the client of a New that cannot fail, and panics if it did.
func Must(c *Client, err error) *Client {
	if err != nil {
		panic(err)
	}
	return c
}

func newClient(cfg Config) *Client {
	h := http.Client{Timeout: callTimeout}
	if cfg.HTTP != nil {
		h = *cfg.HTTP
	}
	// A redirect would carry the token to a place that nobody named.
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &Client{url: strings.TrimRight(cfg.URL, "/"), agent: cmp.Or(cfg.UserAgent, "garo-go"), again: cfg.Retrying, token: cfg.Token, http: &h, random: cfg.Random}
	if c.random == nil {
		c.random = rand.Reader
	}
	if c.again == nil {
		c.again = func(error) {}
	}
	return c
}

// WithToken returns a client that makes all calls with one token: with that of
// apitype.Started, those about its request.
func (c *Client) WithToken(t Token) *Client {
	other := *c
	other.token = Static(t)
	return &other
}

// For returns a client that makes calls about one request, with the token that Start
// returned for it.
func (c *Client) For(s apitype.Started) *Client { return c.WithToken(NewToken(s.StatusToken.Reveal())) }

// WithPause returns a client whose Wait asks no sooner than d after an answer, for
// who waits for many requests at a time. It changes nothing where the API itself
// says more.
func (c *Client) WithPause(d time.Duration) *Client {
	other := *c
	other.pause = d
	return &other
}

// Start asks for a runner. Without an idempotency key it makes one up, so that
// its own tries find one record; anyone who wants to find it again after this call
// brings a key.
func (c *Client) Start(ctx context.Context, body apitype.Start) (apitype.Started, error) {
	if body.IdempotencyKey == "" {
		var key [16]byte
		if _, err := io.ReadFull(c.random, key[:]); err != nil {
			return apitype.Started{}, fmt.Errorf("start: make up a key: %w", err)
		}
		body.IdempotencyKey = hex.EncodeToString(key[:])
	}
	var out apitype.Started
	_, err := c.call(ctx, http.MethodPost, "/start", body, &out)
	return out, wrap("start", err)
}

// Status returns where a request stands.
func (c *Client) Status(ctx context.Context, id string) (apitype.Status, error) {
	out, _, err := c.status(ctx, id)
	return out, err
}

func (c *Client) status(ctx context.Context, id string) (apitype.Status, time.Duration, error) {
	var out apitype.Status
	wait, err := c.call(ctx, http.MethodGet, "/status/"+url.PathEscape(id), nil, &out)
	return out, wait, wrap("status of "+id, err)
}

// Wait polls a request until it is ready, and returns that. One that ends otherwise is a
// *NotReadyError, beside its status. After any other error the status is the last one
// that was seen. progress, if not nil, is called with the
// first status and with every one that tells something new.
func (c *Client) Wait(ctx context.Context, id string, progress func(apitype.Status)) (apitype.Status, error) {
	var last apitype.Status
	for {
		s, wait, err := c.status(ctx, id)
		if err != nil {
			return last, err
		}
		if progress != nil && news(last, s) {
			progress(s)
		}
		last = s
		switch {
		case s.State == apitype.Ready:
			return s, nil
		case Final(s.State):
			return s, &NotReadyError{s}
		}
		if wait <= 0 {
			wait = pollEvery
		}
		if err := sleep.For(ctx, max(wait, c.pause)); err != nil {
			return s, wrap("wait for "+id, err)
		}
	}
}

// pollEvery is how often Wait asks when the API does not say.
const pollEvery = 2 * time.Second

// news reports whether a person who watched b's past would want to see b.
func news(a, b apitype.Status) bool {
	return a.ID == "" || a.State != b.State || a.Wait != b.Wait || a.Tries != b.Tries ||
		len(a.Attempts) != len(b.Attempts) || runnerState(a) != runnerState(b)
}

func runnerState(s apitype.Status) string {
	if s.Runner == nil {
		return ""
	}
	return s.Runner.ID + " " + s.Runner.State
}

// Final reports whether nothing follows a request's state.
func Final(state string) bool {
	switch state {
	case apitype.Ready, apitype.Failed, apitype.Expired, apitype.Cancelled:
		return true
	}
	return false
}

// Stop ends a request, and its runner if no other request uses it, or with force.
func (c *Client) Stop(ctx context.Context, id string, force bool) (apitype.Stopped, error) {
	path := "/stop/" + url.PathEscape(id)
	if force {
		path += "?force=true"
	}
	var out apitype.Stopped
	_, err := c.call(ctx, http.MethodPost, path, nil, &out)
	return out, wrap("stop "+id, err)
}

// ReleaseBrake lets the next sweep of an account's region end what its brake
// spares, for an operator.
func (c *Client) ReleaseBrake(ctx context.Context, account, region string) (apitype.Released, error) {
	var out apitype.Released
	_, err := c.call(ctx, http.MethodPost, "/sweeps/"+url.PathEscape(account)+"/"+url.PathEscape(region)+"/release", nil, &out)
	return out, wrap("release the brake of "+account+"/"+region, err)
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}
