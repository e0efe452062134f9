package oidc_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
)

const (
	github   = "https://token.actions.githubusercontent.com"
	audience = "https://garo.example.org"
)

// Making keys is slow, so all tests share these.
var ours, successor, theirs = newKey(), newKey(), newKey()

func newKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

// world is a verifier, the issuer that it trusts, and the way between them.
type world struct {
	testing.TB
	*oidctest.Issuer
	verifier *oidc.Verifier
	hosts    map[string]http.Handler // who answers; others are never to be asked
	asked    atomic.Int32            // requests that left the verifier
	log      bytes.Buffer
}

// inWorld runs f in a bubble of fake time.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newWorld(t)) })
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t}
	var err error
	if w.Issuer, err = oidctest.New(oidctest.Config{URL: github, Key: ours}); err != nil {
		t.Fatal(err)
	}
	w.hosts = map[string]http.Handler{strings.TrimPrefix(github, "https://"): w.Issuer}
	w.verifier = w.trust(oidc.Issuer{URL: github})
	return w
}

// trust returns a verifier of those issuers.
func (w *world) trust(issuers ...oidc.Issuer) *oidc.Verifier {
	w.Helper()
	t := w.TB
	v, err := oidc.New(oidc.Config{
		Issuers: issuers, Audience: audience,
		HTTP: &http.Client{Transport: memhttp.Transport{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.asked.Add(1)
			h, ok := w.hosts[r.URL.Host]
			if !ok {
				t.Errorf("the verifier asked %s", r.URL)
				h = http.NotFoundHandler()
			}
			h.ServeHTTP(rw, r)
		})}},
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
	if err != nil {
		w.Fatal(err)
	}
	return v
}

// prefetch has the verifier fetch its keys.
func (w *world) prefetch() {
	w.Helper()
	if err := w.verifier.Prefetch(w.Context()); err != nil {
		w.Fatalf("Prefetch: %v", err)
	}
}

// token is what a job gets now.
func (w *world) token() string {
	w.Helper()
	t, err := w.Token(audience)
	if err != nil {
		w.Fatal(err)
	}
	return t
}

// removed is the value of a claim that is to be left out.
type removed struct{}

// payload is what a job's token says now, with changes.
func (w *world) payload(changes map[string]any) string {
	w.Helper()
	claims, err := w.Claims(audience)
	if err != nil {
		w.Fatal(err)
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == removed{} })
	return encode(w, claims)
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// with is a token with changed claims, signed as it should be.
func (w *world) with(changes map[string]any) string {
	w.Helper()
	return sign(ours, goodHeader, w.payload(changes))
}

// headed is a token with that header, signed as it should be.
func (w *world) headed(header string) string {
	w.Helper()
	return sign(ours, header, w.payload(nil))
}

var goodHeader = `{"alg":"RS256","typ":"JWT","kid":"` + oidctest.KeyID(ours) + `"}`

// head is goodHeader with changes.
func head(changes map[string]any) string {
	h := map[string]any{"alg": "RS256", "typ": "JWT", "kid": oidctest.KeyID(ours)}
	maps.Copy(h, changes)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == removed{} })
	b, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign signs as RS256 does, without the library that verifies.
func sign(key *rsa.PrivateKey, header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(string(signature))
}

// verify verifies a token that has to be taken.
func (w *world) verify(token string) oidc.Claims {
	w.Helper()
	c, err := w.verifier.Verify(w.Context(), token)
	if err != nil {
		w.Fatalf("Verify = %v, want it taken", err)
	}
	return c
}

// refused verifies a token that has to be refused, for a reason that has those
// words, and within bounded memory.
func (w *world) refused(token, words string) {
	w.Helper()
	var err error
	var c oidc.Claims
	spent := allocated(func() { c, err = w.verifier.Verify(w.Context(), token) })
	if !errors.Is(err, oidc.ErrToken) || !strings.Contains(err.Error(), words) {
		w.Errorf("Verify = %v, want ErrToken for %q", err, words)
		return
	}
	if c.RepositoryID != "" {
		w.Errorf("Verify = %+v with an error, want no claims", c)
	}
	if spent > bound {
		w.Errorf("Verify of %d bytes allocated %d bytes, want at most %d", len(token), spent, bound)
	}
	for i := 0; i+12 <= min(len(token), 10_000); i += 4 {
		if part := token[i : i+12]; strings.Trim(part, ".") != "" && strings.Contains(err.Error(), part) {
			w.Errorf("Verify = %v, which repeats the token", err)
		}
	}
}

// away verifies a token of which nothing can be found out.
func (w *world) away(token string) error {
	w.Helper()
	_, err := w.verifier.Verify(w.Context(), token)
	if err == nil || errors.Is(err, oidc.ErrToken) {
		w.Errorf("Verify = %v, want an outage", err)
	}
	return err
}

// fetched checks how many requests have left the verifier.
func (w *world) fetched(want int) {
	w.Helper()
	if got := int(w.asked.Load()); got != want {
		w.Errorf("%d requests, want %d", got, want)
	}
}

// bound is what one verification may allocate, in bytes: 64 times the largest
// token. JSON that is nested as deep as fits needs half of it.
const bound = 512 << 10

// allocated returns how many bytes f allocates, and what runs meanwhile.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// status answers with that status and a body that must not come to light.
func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, "canary-body")
	})
}

// text answers with that body.
func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
}
