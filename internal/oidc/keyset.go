package oidc

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// keepFor is how long a key set is used while no newer one can be fetched: an
	// outage of a day is bridged, a withdrawn key is not believed for longer.
	keepFor = 24 * time.Hour
	// renewAfter is when a newer one is tried for. It bounds how long a withdrawn
	// key is believed while all is well, and leaves 23 hours to find a moment in
	// which the issuer answers.
	renewAfter = time.Hour
	// refetchAfter is the least time between two fetches while a set is in use:
	// key ids are free to invent. Issuers publish a key well before they use it.
	refetchAfter = 5 * time.Minute
	// retryAfter is the least time between two fetches while there is none to use.
	retryAfter = 5 * time.Second
	// fetchTimeout leaves the other half of the API's ten seconds to the call.
	fetchTimeout = 5 * time.Second
	// maxKeySet bounds a key set, in bytes. GitHub's has 10 KiB, certificates and all.
	maxKeySet = 64 << 10
	// minBits is the least size of an RSA key for RS256 (RFC 7518, 3.3).
	minBits = 2048
)

// keySet is the key set of one issuer: the last one that could be fetched, and
// the right to fetch.
type keySet struct {
	issuer, url string
	http        http.Client
	now         func() time.Time
	log         *slog.Logger

	turn chan struct{}          // holds a token while somebody fetches: one at a time
	last atomic.Pointer[result] // never nil
}

// result is what fetching has brought so far. It is never changed. The zero
// value is that nobody has tried yet.
type result struct {
	keys  map[string]*rsa.PublicKey // by key id; nil: none yet
	at    time.Time                 // when they were asked for
	tried time.Time                 // when the last fetch ended, whatever it brought
	err   error                     // why the last fetch brought none
}

func newKeySet(i Issuer, client http.Client, now func() time.Time, log *slog.Logger) *keySet {
	// Without the monotonic reading, which stands still while a process is frozen.
	wall := func() time.Time { return now().Round(0) }
	s := &keySet{issuer: i.URL, url: i.JWKS, http: client, now: wall, log: log, turn: make(chan struct{}, 1)}
	s.last.Store(&result{})
	return s
}

// step is what to do for one who needs a key.
type step int

const (
	use   step = iota // the set is good, whether or not it has the key
	renew             // the set has the key; fetch a newer one unless somebody does
	fetch             // fetch, or wait for who does
	away              // there is no telling, and it is too early to fetch again
)

// next decides what to do for one who needs the key kid; empty: any.
func (r *result) next(kid string, now time.Time) step {
	// Either way: a clock that was set back must not stop us from fetching.
	age, idle := now.Sub(r.at).Abs(), now.Sub(r.tried).Abs()
	if r.keys == nil || age >= keepFor {
		if r.err == nil || idle >= retryAfter {
			return fetch
		}
		return away
	}
	if kid == "" || r.keys[kid] != nil {
		if age >= renewAfter && idle >= refetchAfter {
			return renew
		}
		return use
	}
	switch {
	case idle >= refetchAfter:
		return fetch
	case r.err != nil:
		return away
	}
	return use
}

// keys returns a set that has the key kid, or is as new as it gets; empty: any
// that is good. It waits for a fetch if it has to, as long as ctx lasts.
func (s *keySet) keys(ctx context.Context, kid string) (map[string]*rsa.PublicKey, error) {
	for {
		last := s.last.Load()
		switch last.next(kid, s.now()) {
		case use:
			return last.keys, nil
		case away:
			return nil, fmt.Errorf("keys of %s: %w", s.issuer, last.err)
		case renew:
			select {
			case s.turn <- struct{}{}:
			default:
				return last.keys, nil
			}
		case fetch:
			if err := s.awaitTurn(ctx); err != nil {
				return nil, fmt.Errorf("keys of %s: %w", s.issuer, err)
			}
		}
		s.takeTurn(ctx, last)
	}
}

// awaitTurn waits for the turn, which is the caller's if there is no error. Who
// has no time left does not get it.
func (s *keySet) awaitTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		if ctx.Err() == nil {
			return nil
		}
		<-s.turn
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

// takeTurn fetches, unless somebody did after last was read, and ends the turn.
func (s *keySet) takeTurn(ctx context.Context, last *result) {
	defer func() { <-s.turn }()
	if s.last.Load() != last {
		return
	}
	next := &result{at: s.now()}
	var skipped int
	next.keys, skipped, next.err = s.download(ctx)
	next.tried = s.now()
	if next.err != nil {
		next.keys, next.at = last.keys, last.at
		s.log.Warn("keys cannot be fetched", "issuer", s.issuer, "kept", len(next.keys), "error", next.err)
	} else {
		s.log.Info("keys fetched", "issuer", s.issuer, "keys", len(next.keys), "skipped", skipped)
	}
	s.last.Store(next)
}

// download fetches the set. It continues when ctx is cancelled, since others wait
// for it and a caller who hangs up must not use up everybody's next fetch; ctx's
// deadline ends it.
func (s *keySet) download(ctx context.Context) (keys map[string]*rsa.PublicKey, skipped int, err error) {
	fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	if d, ok := ctx.Deadline(); ok {
		fetching, cancel = context.WithDeadline(fetching, d)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(fetching, http.MethodGet, s.url, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "garo")
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("GET %s: status %d", s.url, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	if err != nil {
		return nil, 0, fmt.Errorf("GET %s: %w", s.url, err)
	}
	if keys, skipped, err = parseKeys(body); err != nil {
		return nil, 0, fmt.Errorf("GET %s: %w", s.url, err)
	}
	return keys, skipped, nil
}

// parseKeys returns the keys of a set that RS256 can be verified with. All others
// are skipped, as RFC 7517 wants it: an issuer may add a kind of key one day.
func parseKeys(body []byte) (keys map[string]*rsa.PublicKey, skipped int, err error) {
	if len(body) > maxKeySet {
		return nil, 0, fmt.Errorf("a key set of more than %d bytes", maxKeySet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil {
		return nil, 0, errors.New("not a key set")
	}
	keys = map[string]*rsa.PublicKey{}
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) != nil || !verifies(k) || keys[k.KeyID] != nil {
			skipped++
			continue
		}
		keys[k.KeyID] = k.Key.(*rsa.PublicKey)
	}
	if len(keys) == 0 {
		return nil, 0, fmt.Errorf("a key set without a usable key, of %d", skipped)
	}
	return keys, skipped, nil
}

// verifies reports whether k is a key that RS256 can be verified with.
func verifies(k jose.JSONWebKey) bool {
	key, ok := k.Key.(*rsa.PublicKey)
	return ok && kidForm.Fits(k.KeyID) &&
		(k.Use == "" || k.Use == "sig") && (k.Algorithm == "" || k.Algorithm == string(jose.RS256)) &&
		key.N.BitLen() >= minBits && key.E >= 3 && key.E%2 == 1
}
