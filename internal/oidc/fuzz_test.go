package oidc_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
)

// fixed returns a verifier with its keys, and an issuer, whose time stands still.
func fixed(t testing.TB) (*oidc.Verifier, *oidctest.Issuer) {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }
	i, err := oidctest.New(oidctest.Config{URL: github, Key: ours, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: github}}, Audience: audience, HTTP: memhttp.Client(i), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v, i
}

// FuzzVerify checks that nothing makes Verify panic, allocate much or fetch, and
// that the one token which the issuer has signed is taken in one form alone.
func FuzzVerify(f *testing.F) {
	v, i := fixed(f)
	good, err := i.Token(audience)
	if err != nil {
		f.Fatal(err)
	}
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for _, seed := range []string{
		good, "", "..", "...", strings.Repeat(".", 9000), head + "." + payload + ".", good + "=", good + "\n", " " + good,
		b64(`{"alg":"none"}`) + "." + payload + ".", b64(`{"alg":"RS256","alg":"none","kid":"x"}`) + "." + rest,
		b64(`{"alg":"RS256","kid":"../../x"}`) + "." + rest, b64(`{"alg":"RS256","kid":[]}`) + "." + rest,
		b64(`{"alg":"RS256","kid":"`+oidctest.KeyID(ours)+`","jwk":{"kty":"RSA"}}`) + "." + rest,
		b64(`{"alg":"RS256","kid":"`+oidctest.KeyID(ours)+`","b64":false,"crit":["b64"]}`) + "." + rest,
		head + "." + b64(`{"iss":"`+github+`","iss":"x"}`) + "." + signature,
		head + "." + b64(`{"iss":"`+github+`","aud":["`+audience+`"],"exp":1e9,"iat":-1}`) + "." + signature,
		head + "." + b64(`{"iss":"`+github+`","aud":"`+audience+`","exp":1795435200,"iat":1795435200}`) + "." + signature,
		head + "." + b64(strings.Repeat(`[`, 3000)) + "." + signature, head + "." + b64(strings.Repeat(`{"":`, 1500)) + "." + signature,
		head + "." + b64("\xff\xfe{}") + "." + signature, spareBit(good), shorten(good), lengthen(good),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		var c oidc.Claims
		var err error
		spent := allocated(func() { c, err = v.Verify(t.Context(), token) })
		switch {
		case token == good && (err != nil || c.RepositoryID != "1001"):
			t.Errorf("Verify of the issuer's token = %+v, %v", c, err)
		case token != good && !errors.Is(err, oidc.ErrToken):
			t.Errorf("Verify of another token = %+v, %v; want ErrToken", c, err)
		}
		if spent > bound {
			t.Errorf("Verify of %d bytes allocated %d, want at most %d", len(token), spent, bound)
		}
		if n := i.Fetches(); n != 1 {
			t.Errorf("%d fetches, want none but the first", n)
		}
	})
}

func BenchmarkVerifyWarm(b *testing.B) {
	v, i := fixed(b)
	token, err := i.Token(audience)
	if err != nil {
		b.Fatal(err)
	}
	before := i.Fetches()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(i.Fetches()-before), "fetches")
}

func BenchmarkRefuseMillionDots(b *testing.B) {
	v, _ := fixed(b)
	token := strings.Repeat(".", 1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); !errors.Is(err, oidc.ErrToken) {
			b.Fatal(err)
		}
	}
}
