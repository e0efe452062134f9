package oidctest_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
)

const audience = "https://garo.example.org"

// Making keys is slow, so all tests share these.
var first, second = newKey(), newKey()

func newKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

// serve runs an issuer at a path of a real server.
func serve(t *testing.T, path string) *oidctest.Issuer {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	i, err := oidctest.New(oidctest.Config{URL: "http://" + server.Listener.Addr().String() + path, Key: first})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = i
	server.Start()
	t.Cleanup(server.Close)
	return i
}

// get sends a request with a bearer token, and returns the answer.
func get(t *testing.T, method, u, bearer string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, u, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// issuer returns the URL that an Issuer calls itself.
func issuer(i *oidctest.Issuer) string {
	u, _, _ := strings.Cut(i.RequestURL(), "/idtoken?")
	return u
}

func verifier(t *testing.T, i *oidctest.Issuer) *oidc.Verifier {
	t.Helper()
	v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: issuer(i)}}, Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A job asks as GitHub's toolkit does, and what it gets is taken.
func TestJobGetsATokenThatIsTaken(t *testing.T) {
	for _, path := range []string{"", "/_services/token"} {
		i := serve(t, path)
		i.Set("environment", "production")
		i.Set("check_run_id", nil)
		code, body := get(t, http.MethodGet, i.RequestURL()+"&audience="+url.QueryEscape(audience), "Bearer "+i.RequestToken().Reveal())
		var answer struct{ Value string }
		if err := json.Unmarshal(body, &answer); code != http.StatusOK || err != nil {
			t.Fatalf("answer = %d %s, want a token", code, body)
		}
		c, err := verifier(t, i).Verify(t.Context(), answer.Value)
		if err != nil {
			t.Fatalf("Verify of the job's token = %v", err)
		}
		if c.Issuer != issuer(i) || c.Repository != "acme/shop" || c.Environment != "production" || c.CheckRunID != "" {
			t.Errorf("claims = %+v, want the job in acme/shop with what was set", c)
		}
		if i.Fetches() != 1 {
			t.Errorf("%d fetches, want 1", i.Fetches())
		}
	}
}

func TestTokenWithoutAudienceIsForTheOwner(t *testing.T) {
	i := serve(t, "")
	claims, err := i.Claims("")
	if err != nil || claims["aud"] != "https://github.com/acme" {
		t.Errorf("aud = %v, %v; want the owner's URL", claims["aud"], err)
	}
	token, err := i.Token("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier(t, i).Verify(t.Context(), token); err == nil {
		t.Error("a token for the owner was taken as ours")
	}
}

func TestOnlyTheJobGetsAToken(t *testing.T) {
	i := serve(t, "")
	for _, bearer := range []string{"", "Bearer ", "Bearer x", i.RequestToken().Reveal() + "x", "Bearer " + i.RequestToken().String()} {
		if code, body := get(t, http.MethodGet, i.RequestURL(), bearer); code != http.StatusUnauthorized || bytes.Contains(body, []byte("value")) {
			t.Errorf("answer to %q = %d %s, want 401", bearer, code, body)
		}
	}
	for _, path := range []string{"/", "/.well-known/jwks.json", "/.well-known/jwks/", "/idtoken/x", "/x/.well-known/jwks"} {
		if code, _ := get(t, http.MethodGet, issuer(i)+path, ""); code != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, code)
		}
	}
	if code, _ := get(t, http.MethodPost, i.RequestURL(), "Bearer "+i.RequestToken().Reveal()); code != http.StatusMethodNotAllowed {
		t.Errorf("POST = %d, want 405", code)
	}
	deep := serve(t, "/deep")
	if code, _ := get(t, http.MethodGet, strings.TrimSuffix(issuer(deep), "/deep")+"/.well-known/jwks", ""); code != http.StatusNotFound {
		t.Errorf("the key set above the issuer's path = %d, want 404", code)
	}
}

func TestDiscoveryLeadsToTheKeys(t *testing.T) {
	i := serve(t, "/octocat-inc")
	_, body := get(t, http.MethodGet, issuer(i)+"/.well-known/openid-configuration", "")
	var doc struct {
		Issuer string
		JWKS   string   `json:"jwks_uri"`
		Algs   []string `json:"id_token_signing_alg_values_supported"`
		Claims []string `json:"claims_supported"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Issuer != issuer(i) || len(doc.Claims) < 20 || !cmp.Equal(doc.Algs, []string{"RS256"}) {
		t.Errorf("discovery = %s, %v", body, err)
	}
	code, body := get(t, http.MethodGet, doc.JWKS, "")
	if code != http.StatusOK || !bytes.Contains(body, []byte(oidctest.KeyID(first))) || bytes.Contains(body, []byte(`"d":`)) {
		t.Errorf("key set = %d %s, want the public key", code, body)
	}
}

func TestRotationKeepsTheFormerKeyUntilItIsWithdrawn(t *testing.T) {
	i := serve(t, "")
	old, err := i.Token(audience)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Rotate(second); err != nil {
		t.Fatal(err)
	}
	for _, withdrawn := range []bool{false, true} {
		if withdrawn {
			i.Withdraw()
		}
		fresh, err := i.Token(audience)
		if err != nil {
			t.Fatal(err)
		}
		v := verifier(t, i)
		if _, err := v.Verify(t.Context(), fresh); err != nil {
			t.Errorf("withdrawn %v: Verify of a new token = %v", withdrawn, err)
		}
		if _, err := v.Verify(t.Context(), old); (err != nil) != withdrawn {
			t.Errorf("withdrawn %v: Verify of an old token = %v", withdrawn, err)
		}
	}
}

func TestOutageIsAnsweredAndCounted(t *testing.T) {
	i := serve(t, "")
	i.AnswerKeys(http.NotFoundHandler())
	keys := issuer(i) + "/.well-known/jwks"
	if code, _ := get(t, http.MethodGet, keys, ""); code != http.StatusNotFound {
		t.Errorf("key set in an outage = %d, want 404", code)
	}
	i.AnswerKeys(nil)
	if code, _ := get(t, http.MethodGet, keys, ""); code != http.StatusOK {
		t.Errorf("key set after it = %d, want 200", code)
	}
	if i.Fetches() != 2 {
		t.Errorf("%d fetches, want both", i.Fetches())
	}
}

func TestTimesAndIDsComeFromTheConfig(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	make := func() map[string]any {
		i, err := oidctest.New(oidctest.Config{URL: "https://issuer.example.org", Key: first, Now: func() time.Time { return at }, Random: strings.NewReader(strings.Repeat("r", 64))})
		if err != nil {
			t.Fatal(err)
		}
		c, err := i.Claims(audience)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := make()
	if diff := cmp.Diff(a, make()); diff != "" {
		t.Errorf("two issuers of the same config differ:\n%s", diff)
	}
	if a["iat"] != at.Unix() || a["exp"] != at.Unix()+300 || a["nbf"] != at.Unix()-600 || a["jti"] != "72727272-7272-4272-b272-727272727272" {
		t.Errorf("claims = %v, want GitHub's times around %v and a random jti", a, at)
	}
}

func TestKeyIsMadeIfNoneIsGiven(t *testing.T) {
	i, err := oidctest.New(oidctest.Config{URL: "https://issuer.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	if token, err := i.Token(audience); err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("Token = %v, want one", err)
	}
}

func TestIssuerThatCannotBeMadeSaysWhy(t *testing.T) {
	for _, u := range []string{"", "issuer", "https://issuer.example.org/", "https://[::1"} {
		if _, err := oidctest.New(oidctest.Config{URL: u, Key: first}); err == nil {
			t.Errorf("New at %q = nil, want an error", u)
		}
	}
	if _, err := oidctest.New(oidctest.Config{URL: "https://issuer.example.org", Key: first, Random: strings.NewReader("")}); err == nil {
		t.Error("New without randomness = nil, want an error")
	}
	i, err := oidctest.New(oidctest.Config{URL: "https://issuer.example.org", Key: first, Random: strings.NewReader(strings.Repeat("r", 16))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Token(audience); err == nil {
		t.Error("Token after the randomness ran out = nil, want an error")
	}
	if _, err := i.Sign(map[string]any{"x": func() {}}); err == nil {
		t.Error("Sign of what is no JSON = nil, want an error")
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/idtoken"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
		r.Header.Set("Authorization", "Bearer "+i.RequestToken().Reveal())
		i.ServeHTTP(w, r)
		if w.Code != http.StatusInternalServerError {
			t.Errorf("GET %s without randomness = %d, want 500", path, w.Code)
		}
	}
	if s := fmt.Sprint(i.RequestToken()); strings.Contains(s, "request-") {
		t.Errorf("the request token prints as %s", s)
	}
}
