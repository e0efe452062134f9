package github

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// apiVersion is the version of GitHub's API that is asked for, rather than
	// whatever is newest (https://docs.github.com/en/rest/about-the-rest-api/api-versions).
	apiVersion = "2022-11-28"
	// maxAnswer bounds an answer, in bytes. The largest is a page of 100 runners
	// with 100 labels each, which is below 4 MB.
	maxAnswer = 4 << 20
	// maxRedirects is above what GitHub needs: calls by id lead where they go.
	maxRedirects = 3
)

// Config is what a Client is made of. BaseURL and Token are needed.
type Config struct {
	// BaseURL is https://api.github.com, or https://HOST/api/v3 of an Enterprise
	// Server. Without TLS it must be on this machine.
	BaseURL string
	// Token returns the credential for a call. It is asked before every
	// HTTP exchange, a page of a list being one, so it should cache. Its error is
	// wrapped: whatever kind that has is the kind of the call's.
	Token func(ctx context.Context, a Access) (secret.Text, error)
	// Renew returns the credential that replaces one which GitHub answered with
	// 401; the call is then made once more, unless it is the same. Its errors are
	// treated as Token's. nil: what Token gives is all there is.
	Renew func(ctx context.Context, a Access, refused secret.Text) (secret.Text, error)
	// Names returns the names of an AWS account's credentials, one at least, as an Access
	// has them. Its errors are treated as Token's. nil: each account has one, without a name.
	Names func(ctx context.Context, account string) ([]string, error)
	Log   *slog.Logger // has the alarm for a credential that others stand in for. nil: discards
	// Share is the part of what GitHub grants a credential that this process may
	// spend of each: DefaultShare in a worker. It is taken of the points a
	// minute, and of each part of the Budget of an hour that is not all of it. Beyond
	// that no call is made, and the answer is ErrLimited. A limit that GitHub itself
	// tells of then holds for the credential's next calls too. 0: no call is counted and
	// no limit kept in mind, as for a GitHub that is not shared.
	Share float64
	HTTP  *http.Client     // nil: http.DefaultClient; its CheckRedirect is not used
	Now   func() time.Time // nil: time.Now
}

// Client is the API over HTTP. The context bounds each call. A call that follows
// GitHub to another place stays on the configured host and, where GitHub names
// one by its id, in the repository or the organization that was meant.
type Client struct {
	base  *url.URL // ends with a slash
	token func(ctx context.Context, a Access) (secret.Text, error)
	renew func(ctx context.Context, a Access, refused secret.Text) (secret.Text, error)
	limit *limiter // nil: none
	// groups has the ids of the runner groups that were asked for lately.
	groups groupIDs
	names  func(ctx context.Context, account string) ([]string, error)
	// refused are the credentials that were refused while others stood in.
	refused refusals
	log     *slog.Logger
	http    http.Client
	now     func() time.Time
}

var _ API = (*Client)(nil)

// HourLeft returns how much GitHub said last that an account has left of its calls of
// this hour, from 0 to 1: that of the account which has least. It is not known before
// GitHub's first answer in an hour, nor with a Config.Share of 0.
func (c *Client) HourLeft() (left float64, known bool) { return c.limit.hourLeft(c.now()) }

// New returns a client. It calls nobody.
func New(cfg Config) (*Client, error) {
	base, err := parseBase(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	if cfg.Token == nil {
		return nil, errors.New("GitHub client: no source of credentials")
	}
	limit, err := newLimiter(cfg.Share)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, token: cfg.Token, renew: cfg.Renew, limit: limit, groups: groupIDs{of: map[Scope]groupID{}},
		names: cfg.Names, refused: refusals{until: map[Access]time.Time{}}, log: cfg.Log, now: cfg.Now}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTP != nil {
		c.http = *cfg.HTTP
	}
	if c.http.Transport == nil {
		c.http.Transport = http.DefaultTransport
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c, nil
}

func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil: // the error would repeat what may hold a password
		return nil, errors.New("GitHub base URL: not a URL")
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("GitHub base URL: want a scheme, a host and a path, and nothing else")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return nil, fmt.Errorf("GitHub base URL %s: a credential is sent over https alone", u)
	}
	u.Path = strings.TrimRight(u.Path, "/") + "/"
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ids are GitHub's ids of repositories and organizations: numbers that an int64 can hold.
var ids = form.Form{{Of: "19", Min: 1, Max: 1}, {Of: form.Digit, Max: 17}}

// ask makes the library's call. gh has the credential, the context is the one that
// the caller of do gave, and root is the errand's.
type ask func(gh *gogithub.Client, root string) (*gogithub.Response, error)

// call sends a request with the JSON of body, unless that is nil, and reads the
// answer into into, unless that is nil.
func call(ctx context.Context, gh *gogithub.Client, method, path string, body, into any) (*gogithub.Response, error) {
	req, err := gh.NewRequest(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return gh.Do(req, into)
}

// by makes one call with the credential of the errand, within this process's share, and
// once more if GitHub refuses the credential and there is another text of it.
func (c *Client) by(ctx context.Context, e errand, ask ask) (*gogithub.Response, error) {
	purse := e.access.purse()
	if at, ok := c.limit.take(purse, e.op, c.now()); !ok {
		return nil, fmt.Errorf("%w: %w", &Error{Kind: ErrLimited, Op: e.what, RetryAt: at}, errShare)
	}
	token, err := c.token(ctx, e.access)
	if err != nil {
		return nil, fmt.Errorf("%s: credential: %w", e.what, err)
	}
	resp, err := c.exchange(ctx, e, token, ask)
	if refusal, ok := errors.AsType[*Error](err); c.renew == nil || !ok || refusal.Status != http.StatusUnauthorized {
		return resp, err
	}
	other, rerr := c.renew(ctx, e.access, token)
	if rerr != nil {
		return nil, fmt.Errorf("%s: new credential: %w", e.what, rerr)
	}
	if other.Equal(token.Reveal()) {
		return nil, err // GitHub shuts out anyone who continues with a credential that it refused
	}
	c.limit.owe(purse, e.op, c.now())
	return c.exchange(ctx, e, other, ask)
}

// exchange makes one HTTP exchange with a credential. What fails is an *Error.
func (c *Client) exchange(ctx context.Context, e errand, token secret.Text, ask ask) (*gogithub.Response, error) {
	if !sendable(token) {
		return nil, fmt.Errorf("%w: it is empty, or has spaces or line breaks", &Error{Kind: ErrDenied, Op: e.what})
	}
	purse := e.access.purse()
	tr := &transport{next: c.http.Transport, token: token, twice: e.op != mint, within: func(u *url.URL) bool { return c.within(u, e.root) }}
	defer tr.close()
	hc := c.http
	hc.Transport = tr
	hc.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || req.Method != via[0].Method || !c.within(req.URL, e.root) {
			return errRedirect
		}
		c.limit.owe(purse, e.op, c.now())
		return nil
	}
	base := c.base.String()
	// The library would count GitHub's limits itself, and refuse in its stead.
	gh, err := gogithub.NewClient(gogithub.WithHTTPClient(&hc), gogithub.WithURLs(&base, nil), gogithub.WithUserAgent("garo"), gogithub.WithDisableRateLimitCheck())
	if err != nil {
		return nil, &Error{Kind: ErrRefused, Op: e.what}
	}
	resp, err := ask(gh, e.root)
	if resp != nil && resp.Response != nil {
		c.limit.learn(purse, resp.Header, c.now())
	}
	if err == nil && resp.StatusCode == e.op.success() {
		return resp, nil
	}
	err = c.fail(e, token, resp, err)
	if refusal, ok := errors.AsType[*Error](err); ok && refusal.Kind == ErrLimited {
		c.limit.rest(purse, refusal.RetryAt)
	}
	return nil, err
}

// within reports whether a redirect to u may be followed: it is on the host that
// was configured, and below root, which names what is meant by its id.
func (c *Client) within(u *url.URL, root string) bool {
	return u.Scheme == c.base.Scheme && u.Host == c.base.Host && u.User == nil && strings.HasPrefix(u.Path, c.base.Path+root)
}

// sendable reports whether a token can be in a header.
func sendable(token secret.Text) bool {
	return !token.Empty() && !strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' })
}

// transport adds the credential to what one call sends, and bounds what comes back.
type transport struct {
	next   http.RoundTripper
	token  secret.Text
	within func(*url.URL) bool // whether a redirect may lead there
	body   io.Closer           // of the last response
	// twice says that the call may be made twice: all but a mint, which registers a
	// runner each time.
	twice bool
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+t.token.Reveal())
	req.Header.Set("X-GitHub-Api-Version", apiVersion)
	resp, err := t.send(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
		t.body = resp.Body
		t.keepMethod(req, resp)
	}
	return resp, err
}

// send makes an exchange, and makes it once more if it may be made twice and its
// connection was used before and broke: a function that was frozen wakes up with
// connections that GitHub has closed or forgotten. net/http itself repeats GETs
// alone, and nothing on an HTTP/2 connection that is reset.
func (t *transport) send(req *http.Request) (*http.Response, error) {
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }}
	resp, err := t.next.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil || !t.twice || !reused || req.Context().Err() != nil || req.Body != nil && req.GetBody == nil {
		return resp, err
	}
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		body, bodyErr := req.GetBody()
		if bodyErr != nil {
			return nil, err
		}
		again.Body = body
	}
	return t.next.RoundTrip(again)
}

// keepMethod makes a 301 or 302 that may be followed say that the request is to be
// repeated as it is. net/http would turn a POST and a DELETE into a GET, which is
// of no use, and no reading of GitHub's: any call may be redirected (https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects).
func (t *transport) keepMethod(req *http.Request, resp *http.Response) {
	if req.Method == http.MethodGet || resp.StatusCode != http.StatusMovedPermanently && resp.StatusCode != http.StatusFound {
		return
	}
	if to, err := resp.Location(); err == nil && t.within(to) {
		resp.StatusCode = http.StatusPermanentRedirect
	}
}

// close frees the connection after the call. The library leaves it open when an
// error's body is longer than what it reads of one.
func (t *transport) close() {
	if t.body != nil {
		_ = t.body.Close()
	}
}
