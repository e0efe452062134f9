// Package oidctest is an issuer of ID tokens like GitHub's, for tests and for
// local use: the documents that a verifier reads, and the call by which a job
// asks for its token. It promises to be well formed unless told otherwise: what
// it signs, a verifier that trusts it has to take.
package oidctest

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// life is how long GitHub's tokens last.
	life = 5 * time.Minute
	// before is how much earlier than their making they may be used.
	before = 10 * time.Minute
	// keyBits is the size of GitHub's keys.
	keyBits = 2048
)

// Config is what an Issuer is made of. URL is needed.
type Config struct {
	// URL is what tokens call iss; the Issuer answers at its path.
	URL    string
	Key    *rsa.PrivateKey  // nil: a new one, which takes a moment to make
	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand.Reader; not for keys
}

// Issuer is an issuer and an http.Handler. Make it with New. It is safe for
// concurrent use.
type Issuer struct {
	url, path    string
	now          func() time.Time
	requestToken secret.Text

	mu      sync.Mutex // guards what follows, and random
	random  io.Reader
	keys    []*rsa.PrivateKey // published; the last one signs
	changes map[string]any
	instead http.Handler
	fetches int
}

// New returns an Issuer that gives out the tokens of a job in acme/shop.
func New(cfg Config) (*Issuer, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || strings.HasSuffix(cfg.URL, "/") {
		return nil, errors.New("issuer: want a URL without a slash at the end")
	}
	i := &Issuer{url: cfg.URL, path: u.Path, now: cfg.Now, random: cfg.Random, changes: map[string]any{}}
	if i.now == nil {
		i.now = time.Now
	}
	if i.random == nil {
		i.random = rand.Reader
	}
	id, err := i.newID()
	if err != nil {
		return nil, err
	}
	i.requestToken = secret.New("request-" + id)
	return i, i.Rotate(cfg.Key)
}

// newID returns a random UUID.
func (i *Issuer) newID() (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var b [16]byte
	if _, err := io.ReadFull(i.random, b[:]); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// Rotate signs with key from now on; nil: with a new one. The former keys stay
// published.
func (i *Issuer) Rotate(key *rsa.PrivateKey) (err error) {
	if key == nil {
		if key, err = rsa.GenerateKey(rand.Reader, keyBits); err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(slices.Clone(i.keys), key)
	return nil
}

// Withdraw stops publishing all keys but the one that signs.
func (i *Issuer) Withdraw() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = slices.Clone(i.keys[len(i.keys)-1:])
}

// KeyID returns the id by which a key is published.
func KeyID(key *rsa.PrivateKey) string {
	sum, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		panic("oidctest: " + err.Error()) // there is a thumbprint of every RSA key
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// Set gives a claim that value from now on; nil leaves it out.
func (i *Issuer) Set(claim string, value any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.changes[claim] = value
}

// Claims returns what a token that is asked for now would say. The audience is
// the one that the job names; empty: the repository's owner, as at GitHub.
func (i *Issuer) Claims(audience string) (map[string]any, error) {
	id, err := i.newID()
	if err != nil {
		return nil, err
	}
	now := i.now()
	const file = "acme/shop/.github/workflows/build.yml@refs/heads/main"
	const commit = "0f8fad5bd9cb469fa16570867728950e00000000"
	claims := map[string]any{
		"iss": i.url, "sub": "repo:acme@1/shop@1001:ref:refs/heads/main", "aud": cmp.Or(audience, "https://github.com/acme"),
		"jti": id, "iat": now.Unix(), "exp": now.Add(life).Unix(), "nbf": now.Add(-before).Unix(),
		"repository": "acme/shop", "repository_id": "1001", "repository_owner": "acme", "repository_owner_id": "1", "repository_visibility": "private",
		"run_id": "7001", "run_number": "12", "run_attempt": "1", "check_run_id": "9001",
		"actor": "octocat", "actor_id": "583231", "event_name": "push",
		"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "false", "base_ref": "", "head_ref": "", "sha": commit,
		"workflow": "Build", "workflow_ref": file, "workflow_sha": commit, "job_workflow_ref": file, "job_workflow_sha": commit,
		"runner_environment": "github-hosted",
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, value := range i.changes {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims, nil
}

// Sign returns a token with those claims, and the headers that GitHub's have.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: KeyID(key)}},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("x5t", "thumbprint"))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed.CompactSerialize()
}

// Token returns the token that a job would get now.
func (i *Issuer) Token(audience string) (string, error) {
	claims, err := i.Claims(audience)
	if err != nil {
		return "", err
	}
	return i.Sign(claims)
}

// RequestURL is what a job finds in ACTIONS_ID_TOKEN_REQUEST_URL. It has a query
// already, as GitHub's has.
func (i *Issuer) RequestURL() string { return i.url + "/idtoken?api-version=2.0" }

// RequestToken is what a job finds in ACTIONS_ID_TOKEN_REQUEST_TOKEN.
func (i *Issuer) RequestToken() secret.Text { return i.requestToken }

// AnswerKeys has h answer for the key set, as in an outage; nil: all is well.
func (i *Issuer) AnswerKeys(h http.Handler) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.instead = h
}

// Fetches returns how often the key set was asked for, answered or not.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// ServeHTTP implements http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, i.path)
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
	case path == "/.well-known/openid-configuration":
		i.discovery(w)
	case path == "/.well-known/jwks":
		i.jwks(w, r)
	case path == "/idtoken":
		i.idToken(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) discovery(w http.ResponseWriter) {
	claims, err := i.Claims("")
	if err != nil {
		http.Error(w, "no random numbers", http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{
		"issuer": i.url, "jwks_uri": i.url + "/.well-known/jwks",
		"subject_types_supported":               []string{"public", "pairwise"},
		"response_types_supported":              []string{"id_token"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid"},
		"claims_supported":                      slices.Sorted(maps.Keys(claims)),
	})
}

func (i *Issuer) jwks(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches++
	keys, instead := i.keys, i.instead
	i.mu.Unlock()
	if instead != nil {
		instead.ServeHTTP(w, r)
		return
	}
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: KeyID(k), Algorithm: "RS256", Use: "sig"})
	}
	answer(w, set)
}

func (i *Issuer) idToken(w http.ResponseWriter, r *http.Request) {
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !i.requestToken.Equal(given) {
		http.Error(w, "not a job's request token", http.StatusUnauthorized)
		return
	}
	token, err := i.Token(r.URL.Query().Get("audience"))
	if err != nil {
		http.Error(w, "no token could be made", http.StatusInternalServerError)
		return
	}
	answer(w, map[string]string{"value": token})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}
