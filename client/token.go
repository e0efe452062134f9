package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// Static returns the source of one token, such as an operator's.
func Static(t Token) TokenSource {
	return func(context.Context) (Token, error) { return t, nil }
}

// ErrNoIDToken says that the job may not ask GitHub for ID tokens, and shows the
// two lines that allow it.
var ErrNoIDToken = errors.New("this job may not ask GitHub for an ID token: add to the workflow, or to the job\n\npermissions:\n  id-token: write")

// IDTokenConfig is what a source of ID tokens is made of. Audience is needed.
type IDTokenConfig struct {
	Audience string                   // whom the tokens are for: the API's address, as in Config.URL
	Getenv   func(name string) string // nil: os.Getenv
	HTTP     *http.Client             // nil: one with a timeout of its own. Redirects are not followed in any case
	Random   io.Reader                // nil: crypto/rand.Reader; safe for concurrent use
	// New gets each token before it is used, so that a log can mask it;
	// nil: nobody is.
	New func(Token)
}

const (
	requestURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	requestToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
	// renewBefore is how long before its end a token is no longer used: a call may
	// take half a minute, and clocks differ by seconds. GitHub's tokens live for
	// five minutes (https://docs.github.com/en/actions/reference/security/oidc).
	renewBefore = time.Minute
	// maxIDToken is far above the 8 KiB that the API takes.
	maxIDToken = 64 << 10
)

// IDTokens returns the source of the ID tokens of the GitHub Actions job that this
// program runs in. A token is used for as long as it is good, and then renewed.
// Anyone who may not ask for one gets ErrNoIDToken. It is safe for concurrent use.
func IDTokens(cfg IDTokenConfig) TokenSource {
	getenv := cfg.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	audience := strings.TrimRight(cfg.Audience, "/")
	caller := newClient(Config{HTTP: cfg.HTTP, Random: cfg.Random})
	turn := make(chan struct{}, 1) // held by who asks GitHub: the others wait for what that gets
	var token Token
	var until time.Time
	var mu sync.Mutex // guards token and until
	kept := func() (Token, bool) {
		mu.Lock()
		defer mu.Unlock()
		return token, time.Now().Before(until)
	}
	return func(ctx context.Context) (Token, error) {
		if t, ok := kept(); ok {
			return t, nil
		}
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return Token{}, context.Cause(ctx)
		}
		if t, ok := kept(); ok {
			return t, nil
		}
		at, key := getenv(requestURL), getenv(requestToken)
		if at == "" || key == "" {
			return Token{}, ErrNoIDToken
		}
		u, err := url.Parse(at)
		if err != nil {
			return Token{}, fmt.Errorf("%s is no address", requestURL) // the error would show it
		}
		query := u.Query() // there is one already
		query.Set("audience", audience)
		u.RawQuery = query.Encode()
		asked := time.Now()
		t, err := caller.idToken(ctx, u.String(), NewToken(key))
		if err != nil {
			return Token{}, fmt.Errorf("ask GitHub for an ID token: %w", err)
		}
		if cfg.New != nil {
			cfg.New(t)
		}
		mu.Lock()
		defer mu.Unlock()
		token, until = t, goodUntil(t, asked).Add(-renewBefore)
		return t, nil
	}
}

// idToken asks GitHub, as often as a call of the API is made.
func (c *Client) idToken(ctx context.Context, at string, key Token) (Token, error) {
	for try := 0; ; try++ {
		t, wait, again, err := c.tryIDToken(ctx, at, key)
		if err == nil || !again || try == maxTries-1 || ctx.Err() != nil {
			return t, err
		}
		if stop := sleep.For(ctx, max(wait, c.backoff(try))); stop != nil {
			return Token{}, errors.Join(stop, err)
		}
	}
}

func (c *Client) tryIDToken(ctx context.Context, at string, key Token) (t Token, wait time.Duration, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return Token{}, 0, false, errors.New("its address is not one")
	}
	req.Header.Set("Authorization", "Bearer "+key.Reveal())
	req.Header.Set("Accept", "application/json; api-version=2.0")
	resp, err := c.http.Do(req)
	if cause, ok := errors.AsType[*url.Error](err); ok {
		return Token{}, 0, true, cause.Err // without the address, which is the job's own
	}
	if err != nil {
		return Token{}, 0, true, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		again = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= http.StatusInternalServerError
		return Token{}, retryAfter(resp.Header), again, fmt.Errorf("the answer is %s", resp.Status)
	}
	var answer struct {
		Value Token `json:"value"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxIDToken)).Decode(&answer) != nil || answer.Value.Empty() {
		return Token{}, 0, true, errors.New("the answer has no token")
	}
	return answer.Value, 0, false, nil
}

// goodUntil reads when a token ends that was asked for then, without a look at its
// signature: that is the API's to check. Where this machine's clock is behind, how
// long the token lives says it, not when it ends. Zero: it does not say, and is used
// once.
func goodUntil(t Token, asked time.Time) time.Time {
	parts := strings.Split(t.Reveal(), ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Exp int64 `json:"exp"`
		Iat int64 `json:"iat"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 {
		return time.Time{}
	}
	end := time.Unix(claims.Exp, 0)
	if lives := time.Duration(claims.Exp-claims.Iat) * time.Second; claims.Iat > 0 && asked.Add(lives).Before(end) {
		return asked.Add(lives)
	}
	return end
}
