// Package oidc verifies the ID tokens that GitHub gives to the jobs of Actions.
//
// Verify believes a token if one of the configured issuers signed it with RS256,
// for our audience and no other, and it is in its time. The token has no say in
// how it is verified: issuers and the addresses of their key sets come from the
// configuration, keys from the cached sets, and a header that brings a key along
// is refused.
//
// Strangers can make it neither work nor wait for long. Size and form are
// checked before anything is decoded; what can be refused without a key is
// refused before one is looked for; and key ids that nobody knows lead to one
// fetch in five minutes, whatever comes. Issuers may be away for a day.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ErrToken is answered for a token that proves nothing. An error that wraps it
// says why, and never holds the token or a part of it.
var ErrToken = errors.New("token is not valid")

// Cause is the kind of fault that a token has. Its holder could find
// it out from that, the configuration and the issuer's public keys, so that it may
// be told.
type Cause string

// The causes, in the order in which they are looked for. The first one counts.
const (
	CauseForm      Cause = "form"      // no signed token in the form of GitHub's
	CauseAlgorithm Cause = "algorithm" // not RS256
	CauseIssuer    Cause = "issuer"    // of an issuer that is not configured
	CauseAudience  Cause = "audience"  // for another audience, or for several
	CauseExpired   Cause = "expired"   // its time is over, or it is older than a day
	CauseNotYet    Cause = "not_yet"   // its time has not begun
	CauseKey       Cause = "key"       // signed with a key that the issuer does not publish
	CauseSignature Cause = "signature" // not signed with the key that it names
	CauseClaim     Cause = "claim"     // a claim is missing, or not of its form
)

// Causes lists every cause.
var Causes = []Cause{CauseForm, CauseAlgorithm, CauseIssuer, CauseAudience, CauseExpired, CauseNotYet, CauseKey, CauseSignature, CauseClaim}

// Refusal is an ErrToken with its cause.
type Refusal struct {
	Cause Cause
	Text  string // what exactly is wrong, for logs; never a part of the token
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text + ": " + ErrToken.Error() }

// Unwrap makes a Refusal an ErrToken.
func (r *Refusal) Unwrap() error { return ErrToken }

func refuse(cause Cause, format string, args ...any) error {
	return &Refusal{cause, fmt.Sprintf(format, args...)}
}

// Issuer is one that is believed.
type Issuer struct {
	// URL is what its tokens call iss, exactly. GitHub's are
	// https://token.actions.githubusercontent.com, https://HOST/_services/token of
	// an Enterprise Server, and https://token.actions.SUB.ghe.com; enterprises can
	// choose to have /ENTERPRISE behind it.
	URL string
	// JWKS is where its key set is; empty: URL/.well-known/jwks.
	JWKS string
}

// Config is what a Verifier is made of. Issuers and Audience are needed.
type Config struct {
	// Issuers are those that are believed. Their ids of repositories and owners
	// are unique within one GitHub server only: anyone who lists issuers of several
	// has to look at Claims.Issuer too.
	Issuers []Issuer
	// Audience is what tokens have to call aud, exactly.
	Audience string
	HTTP     *http.Client     // nil: http.DefaultClient; its CheckRedirect is not used
	Now      func() time.Time // nil: time.Now
	Log      *slog.Logger     // nil: none; a line for each fetch of keys
}

// Verifier verifies tokens. It is safe for concurrent use, and has no goroutine.
type Verifier struct {
	audience string
	sets     []*keySet
	now      func() time.Time
}

// New returns a Verifier. It calls nobody.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{audience: cfg.Audience, now: cfg.Now}
	if v.now == nil {
		v.now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var client http.Client
	if cfg.HTTP != nil {
		client = *cfg.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if v.audience == "" {
		return nil, errors.New("ID tokens: no audience")
	}
	if len(cfg.Issuers) == 0 {
		return nil, errors.New("ID tokens: no issuer")
	}
	for _, i := range cfg.Issuers {
		if i.JWKS == "" {
			i.JWKS = i.URL + "/.well-known/jwks"
		}
		if err := checkURL(i.URL); err != nil {
			return nil, fmt.Errorf("issuer of ID tokens: %w", err)
		}
		if err := checkURL(i.JWKS); err != nil {
			return nil, fmt.Errorf("key set of issuer %s: %w", i.URL, err)
		}
		if v.set(i.URL) != nil {
			return nil, fmt.Errorf("issuer %s is configured twice", i.URL)
		}
		v.sets = append(v.sets, newKeySet(i, client, v.now, cfg.Log))
	}
	return v, nil
}

// checkURL refuses an address that no issuer has, or that cannot be trusted on
// its way. Its errors do not repeat what may hold a password.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(s, "?#"):
		return errors.New("want a scheme, a host and a path, and nothing else")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return fmt.Errorf("%s: keys are fetched over https alone", u)
	case strings.HasSuffix(s, "/") || u.Host != strings.ToLower(u.Host) || u.String() != s:
		return fmt.Errorf("%s: want it as GitHub writes it: host in lower case, no slash at the end", u)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// set returns the key set of an issuer, or nil if it is not configured.
func (v *Verifier) set(issuer string) *keySet {
	for _, s := range v.sets {
		if s.issuer == issuer {
			return s
		}
	}
	return nil
}

// Prefetch fetches the key sets that are not there yet, so that the first tokens
// do not wait for them. An error says which could not be fetched; Verify will
// try again.
func (v *Verifier) Prefetch(ctx context.Context) error {
	errs := make([]error, len(v.sets))
	var wg sync.WaitGroup
	for i, s := range v.sets {
		wg.Go(func() { _, errs[i] = s.keys(ctx, "") })
	}
	wg.Wait()
	return errors.Join(errs...)
}

var algorithms = []jose.SignatureAlgorithm{jose.RS256}

// Verify returns what a token vouches for. An error that is no ErrToken means
// that it could not be found out: the keys cannot be fetched, or ctx ended. Who
// waits for another's fetch stops when ctx ends; who fetches continues for the
// others, for five seconds at most.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	kid, payload, err := open(token)
	if err != nil {
		return Claims{}, err
	}
	issuer, err := payload.needed("iss")
	if err != nil {
		return Claims{}, err
	}
	set := v.set(issuer)
	if set == nil {
		return Claims{}, refuse(CauseIssuer, "issuer is not configured")
	}
	if !payload.isFor(v.audience) {
		return Claims{}, refuse(CauseAudience, "audience is not ours alone")
	}
	issued, expires, err := payload.times(v.now())
	if err != nil {
		return Claims{}, err
	}
	keys, err := set.keys(ctx, kid)
	if err != nil {
		return Claims{}, err
	}
	key := keys[kid]
	if key == nil {
		return Claims{}, refuse(CauseKey, "issuer has no key of that id")
	}
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return Claims{}, refuse(CauseForm, "not in the form of a signed token")
	}
	// What is verified here are the bytes that payload was read from: open takes
	// one way alone to write them.
	if _, err := signed.Verify(key); err != nil {
		return Claims{}, refuse(CauseSignature, "signature is not by the issuer's key")
	}
	c := Claims{Issuer: issuer, IssuedAt: issued, Expires: expires}
	if err := c.read(payload); err != nil {
		return Claims{}, err
	}
	return c, nil
}
