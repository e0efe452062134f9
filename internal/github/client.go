package github

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// apiVersion is the version of GitHub's API that is asked for, rather than
	// whatever is newest (https://docs.github.com/en/rest/about-the-rest-api/api-versions).
	apiVersion = "2022-11-28"
	// maxAnswer bounds an answer, in bytes. The largest is a page of 100 runners
	// with 100 labels each, which is below 4 MB.
	maxAnswer = 4 << 20
	// maxRedirects is above what a renamed repository needs, which is one.
	maxRedirects = 3
)

// Config is what a Client is made of. BaseURL and Token are needed.
type Config struct {
	// BaseURL is https://api.github.com, or https://HOST/api/v3 of an Enterprise
	// Server. Without TLS it must be on this machine.
	BaseURL string
	// Token returns the credential for a repository. It is asked before every
	// HTTP exchange, a page of a list being one, so it should cache. Its error is
	// wrapped: whatever kind that has is the kind of the call's.
	Token func(ctx context.Context, repo Repository) (secret.Text, error)
	HTTP  *http.Client     // nil: http.DefaultClient; its CheckRedirect is not used
	Now   func() time.Time // nil: time.Now
}

// Client is the API over HTTP. The context bounds each call. A call that follows
// GitHub to another place stays on the configured host and, where GitHub names
// one by its id, in the repository that was meant.
type Client struct {
	base  *url.URL // ends with a slash
	token func(ctx context.Context, repo Repository) (secret.Text, error)
	http  http.Client
	now   func() time.Time
}

var _ API = (*Client)(nil)

// New returns a client. It calls nobody.
func New(cfg Config) (*Client, error) {
	base, err := parseBase(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	if cfg.Token == nil {
		return nil, errors.New("GitHub client: no source of credentials")
	}
	c := &Client{base: base, token: cfg.Token, now: cfg.Now}
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

// names is what GitHub allows for the names of an owner and of a repository.
var names = regexp.MustCompile(`^[A-Za-z0-9_-]+/[A-Za-z0-9._-]+$`)

// named reports whether repo has a name that leads to a repository and to
// nothing else: dots would lead elsewhere.
func named(repo Repository) bool {
	return names.MatchString(repo.Name) && !strings.HasSuffix(repo.Name, "/.") && !strings.HasSuffix(repo.Name, "/..")
}

// do makes one HTTP exchange: ask gets a client that has repo's credential.
// What fails, save for the credential, is an *Error.
func (c *Client) do(ctx context.Context, op op, object string, repo Repository, ask func(gh *gogithub.Client, owner, repo string) (*gogithub.Response, error)) (*gogithub.Response, error) {
	what := describe(op, object, repo)
	if !named(repo) {
		return nil, fmt.Errorf("%w: that is not the name of a repository", &Error{Kind: ErrRefused, Op: what})
	}
	token, err := c.token(ctx, repo)
	if err != nil {
		return nil, fmt.Errorf("%s: credential: %w", what, err)
	}
	if !sendable(token) {
		return nil, fmt.Errorf("%w: it is empty, or has spaces or line breaks", &Error{Kind: ErrDenied, Op: what})
	}
	tr := &transport{next: c.http.Transport, token: token}
	defer tr.close()
	hc := c.http
	hc.Transport = tr
	hc.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || req.Method != via[0].Method || !c.within(req.URL, repo) {
			return errRedirect
		}
		return nil
	}
	base := c.base.String()
	// The library would count GitHub's limits itself, and refuse in its stead.
	gh, err := gogithub.NewClient(gogithub.WithHTTPClient(&hc), gogithub.WithURLs(&base, nil), gogithub.WithUserAgent("garo"), gogithub.WithDisableRateLimitCheck())
	if err != nil {
		return nil, &Error{Kind: ErrRefused, Op: what}
	}
	owner, name, _ := strings.Cut(repo.Name, "/")
	resp, err := ask(gh, owner, name)
	if err == nil && resp.StatusCode == op.success() {
		return resp, nil
	}
	return nil, c.fail(op, what, resp, err)
}

// within reports whether a redirect to u may be followed: it is on the host that
// was configured, and if it names a repository by its id, names this one.
func (c *Client) within(u *url.URL, repo Repository) bool {
	path, below := strings.CutPrefix(u.Path, c.base.Path)
	if !below || u.Scheme != c.base.Scheme || u.Host != c.base.Host || u.User != nil {
		return false
	}
	if rest, byID := strings.CutPrefix(path, "repositories/"); byID {
		id, _, _ := strings.Cut(rest, "/")
		return id == repo.ID
	}
	return true
}

// sendable reports whether a token can be in a header.
func sendable(token secret.Text) bool {
	return !token.Empty() && !strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' })
}

// transport adds the credential to what one call sends, and bounds what comes back.
type transport struct {
	next  http.RoundTripper
	token secret.Text
	body  io.Closer // of the last response
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+t.token.Reveal())
	req.Header.Set("X-GitHub-Api-Version", apiVersion)
	resp, err := t.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
		t.body = resp.Body
	}
	return resp, err
}

// close frees the connection after the call. The library leaves it open when an
// error's body is longer than what it reads of one.
func (t *transport) close() {
	if t.body != nil {
		_ = t.body.Close()
	}
}
