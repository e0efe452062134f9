// Package ec2proxy stands in front of moto and adds what moto lacks of EC2 and STS,
// so that tests meet the rules that AWS documents: client tokens that launch once,
// external ids, limits of role sessions and what their policies allow, filters,
// views that lag, rates, and errors in EC2's own form. What it adds beyond that it
// does when a test tells it to: calls that are slow, refused, lost or late.
//
// Calls of other services pass through and are recorded as well.
package ec2proxy

import (
	"context"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/time/rate"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
)

// Config is what a Proxy is made of. The zero value adds AWS's rules alone.
type Config struct {
	Now func() time.Time // nil: time.Now
	// Roles are those that there are, by ARN; nil: any, with any external id.
	Roles map[string]Role
	// Lag is how long it takes until DescribeInstances and TerminateInstances know
	// a new instance.
	Lag time.Duration
	// Buckets bound how often an action is called per account and region, by action.
	Buckets map[string]Bucket
}

// Bucket is a token bucket: that many calls at once, and so many a second.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
type Bucket struct {
	Burst     int
	PerSecond float64
}

// Proxy is an http.Handler for the calls of AWS's SDKs. It is safe for concurrent
// use.
type Proxy struct {
	URL string // where Start serves it

	cfg      Config
	moto     *awstest.Server
	upstream string
	client   *http.Client

	mu         sync.Mutex
	latency    time.Duration
	rules      []*Rule
	calls      []*Call
	callers    map[string]caller  // by access key
	sessions   map[string]Session // by access key
	limits     map[bucketKey]*rate.Limiter
	tokens     tokens
	late       []scope              // whose binding has a launch to come, in the order of the calls
	zones      map[subnetKey]string // by subnet
	launched   map[string]time.Time // by instance
	terminated map[string]time.Time // by instance
	died       map[string]reason    // by instance
	protected  map[string]bool      // by instance
	printed    map[string]string    // by instance
}

type (
	bucketKey struct{ action, account, region string }
	subnetKey struct{ account, region, subnet string }
	caller    struct{ account, arn string }
)

// New returns a Proxy before what serves moto's API at a URL.
func New(upstream string, cfg Config) *Proxy {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Proxy{
		cfg:        cfg,
		upstream:   upstream,
		client:     &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, // moto keeps no connection
		callers:    map[string]caller{},
		sessions:   map[string]Session{},
		limits:     map[bucketKey]*rate.Limiter{},
		tokens:     tokens{},
		zones:      map[subnetKey]string{},
		launched:   map[string]time.Time{},
		terminated: map[string]time.Time{},
		died:       map[string]reason{},
		protected:  map[string]bool{},
		printed:    map[string]string{},
	}
}

// Start serves a new Proxy before the test binary's moto, for the time of a test.
func Start(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	moto := awstest.Moto(t)
	p := New(moto.URL, cfg)
	p.moto = moto
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Config returns the configuration of a caller in an account and a region, as
// awstest.Config does, whose calls go through p.
func (p *Proxy) Config(t testing.TB, region, account string) aws.Config {
	t.Helper()
	cfg := awstest.Config(t, p.moto, region, account)
	cfg.BaseEndpoint = new(p.URL)
	return cfg
}

// SetLatency gives every call from now on a time that it takes at least, beside
// what a rule makes it wait.
func (p *Proxy) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// most is more than any call's body: 16 KiB of user data, and parameters.
const most = 1 << 20

// credential is in every signature of version 4: access key, date, region and service.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
var credential = regexp.MustCompile(`Credential=(\w+)/\d{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request`)

// answer is the outcome of a call.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := parse(r)
	if err != nil {
		refuse("MissingAuthenticationToken", "%v", err).write(w, "ec2")
		return
	}
	// What a call does, it does, whether or not its caller still waits.
	ctx := context.WithoutCancel(r.Context())
	who, err := p.caller(ctx, c)
	if err != nil {
		refuse("AuthFailure", "%v", err).write(w, c.Service)
		return
	}
	c.Account = who.account
	p.mu.Lock()
	c.Session, c.At = p.sessions[c.accessKey], p.cfg.Now()
	p.calls = append(p.calls, c)
	latency := p.latency
	p.mu.Unlock()
	time.Sleep(latency)

	a, err := p.answer(ctx, c, who)
	refused, isRefusal := err.(*refusal)
	cut, lost := err.(lostError)
	said := ""
	switch {
	case lost:
		said = Lost
	case err != nil && !isRefusal:
		refused = &refusal{"InternalError", "ec2proxy: " + err.Error(), http.StatusNotImplemented}
		said = refused.code
	case isRefusal:
		said = refused.code
	case a.status >= 400:
		said = codeOf(a.body)
	}
	p.mu.Lock()
	c.Answer = said // before the caller can look
	p.mu.Unlock()
	switch {
	case lost && cut.silent:
		panic(http.ErrAbortHandler) // cuts the connection
	case lost:
		begin(w)
		panic(http.ErrAbortHandler)
	case refused != nil:
		refused.write(w, c.Service)
	default:
		maps.Copy(w.Header(), a.header)
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body) // a caller that went away misses it
	}
}

// parse reads a call.
func parse(r *http.Request) (*Call, error) {
	m := credential.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return nil, fmt.Errorf("the call of %s has no signature of version 4", r.URL.Path)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, most))
	if err != nil {
		return nil, fmt.Errorf("read the call's body: %w", err)
	}
	c := &Call{accessKey: m[1], Region: m[2], Service: m[3]}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		if c.Params, err = url.ParseQuery(string(body)); err != nil {
			return nil, fmt.Errorf("read the call's parameters: %w", err)
		}
		c.Action = c.Params.Get("Action")
		return c, nil
	}
	_, c.Action, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	c.target, c.Body = r.Header.Get("X-Amz-Target"), string(body)
	return c, nil
}

// answer takes a call through limits, rules and rights to its effect.
func (p *Proxy) answer(ctx context.Context, c *Call, who caller) (answer, error) {
	if r := p.throttle(c); r != nil {
		return answer{}, r
	}
	if r := c.Session.permits(c); r != nil {
		return answer{}, r
	}
	rule := p.rule(c)
	time.Sleep(rule.Wait)
	if rule.Do != nil {
		rule.Do(*c)
	}
	before, after := rule.outcome()
	if before != nil && (c.Action != "RunInstances" || !before.binds()) {
		return answer{}, before
	}
	a, err := p.effect(ctx, c, who, before, rule.Late)
	if after != nil {
		return answer{}, after
	}
	return a, err
}

// effect does what a call asks for. before, unless it is nil, is the refusal that
// RunInstances is to remember; late puts its launch off.
func (p *Proxy) effect(ctx context.Context, c *Call, who caller, before *refusal, late bool) (answer, error) {
	switch c.Service + ":" + c.Action {
	case "ec2:RunInstances":
		return p.runInstances(ctx, c, before, late)
	case "ec2:DescribeInstances":
		return p.describeInstances(ctx, c)
	case "ec2:GetConsoleOutput":
		return p.getConsoleOutput(c)
	case "ec2:TerminateInstances":
		return p.terminateInstances(ctx, c)
	case "sts:AssumeRole":
		return p.assumeRole(ctx, c, who)
	}
	return p.forward(ctx, c, c.Params)
}

// throttle takes a token from the bucket of a call.
func (p *Proxy) throttle(c *Call) *refusal {
	b, ok := p.cfg.Buckets[c.Action]
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := bucketKey{c.Action, c.Account, c.Region}
	l := p.limits[key]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(b.PerSecond), b.Burst)
		p.limits[key] = l
	}
	if l.AllowN(p.cfg.Now(), 1) {
		return nil
	}
	return refuse("RequestLimitExceeded", "Request limit exceeded.")
}
