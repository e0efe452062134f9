package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
)

func keySetWith(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	})
}

// What never ends is not read to its end.
func TestAnswerIsReadToItsBoundAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		var endless zeros
		v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: github}}, Audience: audience, HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(io.LimitReader(&endless, 100<<20)), Request: r}, nil
		})}})
		if err != nil {
			w.Fatal(err)
		}
		if err := v.Prefetch(w.Context()); err == nil || endless.read > 128<<10 {
			w.Errorf("Prefetch = %v after %d bytes, want an outage after 64 KiB or little more", err, endless.read)
		}
	})
}

// zeros never ends, and counts how much of it was read.
type zeros struct{ read int }

func (z *zeros) Read(b []byte) (int, error) {
	clear(b)
	z.read += len(b)
	return len(b), nil
}

func TestAnswerThatIsNoKeySetIsAnOutage(t *testing.T) {
	redirect := func(code int, to string) http.Handler { return http.RedirectHandler(to, code) }
	good := encode(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: ours.Public(), KeyID: oidctest.KeyID(ours)}}})
	for name, h := range map[string]http.Handler{
		"NotFound":           status(404),
		"ServerError":        status(500),
		"NoContent":          status(204),
		"Created":            keySetWith(201, good),
		"Partial":            keySetWith(206, good),
		"Throttled":          status(429),
		"RedirectToMetadata": redirect(302, "http://169.254.169.254/latest/meta-data/"),
		"RedirectToItself":   redirect(307, github+"/.well-known/jwks"),
		"RedirectForGood":    redirect(301, "https://evil.example/jwks"),
		"Empty":              text(""),
		"HTML":               text("<html>canary-body</html>"),
		"Null":               text("null"),
		"Array":              text("[" + good + "]"),
		"NoKeys":             text("{}"),
		"EmptySet":           text(`{"keys":[]}`),
		"KeysOfTheWrongType": text(`{"keys":{"a":1}}`),
		"NullKey":            text(`{"keys":[null,1,"x",[],{}]}`),
		"CutOff":             text(good[:len(good)-1]),
		"Trailing":           text(good + good),
		"TooLarge":           text(strings.TrimSuffix(good, "}") + `,"x":"` + strings.Repeat("x", 64<<10) + `"}`),
		"BlanksBeyond":       text(good + strings.Repeat(" ", 64<<10)),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.AnswerKeys(h)
				if err := w.away(w.token()); err != nil && strings.Contains(err.Error()+w.log.String(), "canary") {
					w.Errorf("Verify = %v, which repeats the answer", err)
				}
				w.fetched(1)
				if !strings.Contains(w.log.String(), `level=WARN msg="keys cannot be fetched" issuer=`+github) {
					w.Errorf("log = %s, want a warning that names the issuer", w.log.String())
				}
			})
		})
	}
	inWorld(t, func(w *world) { // the bound itself is fine
		fill := 64<<10 - len(good) - len(`,"x":""`)
		w.AnswerKeys(text(strings.TrimSuffix(good, "}") + `,"x":"` + strings.Repeat("x", fill) + `"}`))
		w.verify(w.token())
	})
}

// An issuer can publish keys that we have no use for. Those that are usable
// beside them are used.
func TestUnusableKeyIsSkipped(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	n := number(theirs.N.Bytes())
	rsaKey := func(n, e string) string { return `{"kty":"RSA","kid":"bad","n":"` + n + `","e":"` + e + `"}` }
	for name, key := range map[string]string{
		"SmallRSA":        encode(t, jose.JSONWebKey{Key: small.Public(), KeyID: "bad"}),
		"HugeRSA":         rsaKey(number([]byte(strings.Repeat("\xff", 2048))), "AQAB"),
		"ExponentZero":    rsaKey(n, "AA"),
		"ExponentOne":     rsaKey(n, "AQ"),
		"ExponentTwo":     rsaKey(n, "Ag"),
		"ExponentEven":    rsaKey(n, "AQAA"),
		"ExponentHuge":    rsaKey(n, number([]byte(strings.Repeat("\xff", 16)))),
		"NoExponent":      `{"kty":"RSA","kid":"bad","n":"` + n + `"}`,
		"NoModulus":       `{"kty":"RSA","kid":"bad","e":"AQAB"}`,
		"ModulusZero":     rsaKey("AA", "AQAB"),
		"NotBase64":       rsaKey("***", "AQAB"),
		"ForEncryption":   encode(t, jose.JSONWebKey{Key: theirs.Public(), KeyID: "bad", Use: "enc"}),
		"ForPS256":        encode(t, jose.JSONWebKey{Key: theirs.Public(), KeyID: "bad", Algorithm: "PS256"}),
		"ForRS512":        encode(t, jose.JSONWebKey{Key: theirs.Public(), KeyID: "bad", Algorithm: "RS512"}),
		"Private":         encode(t, jose.JSONWebKey{Key: theirs, KeyID: "bad"}),
		"EllipticCurve":   encode(t, jose.JSONWebKey{Key: ec.Public(), KeyID: "bad"}),
		"Symmetric":       `{"kty":"oct","kid":"bad","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		"UnknownKind":     `{"kty":"LATTICE","kid":"bad","x":"AA"}`,
		"CertificateOnly": `{"kty":"RSA","kid":"bad","x5c":["MIIB"]}`,
		"WithoutKeyID":    encode(t, jose.JSONWebKey{Key: theirs.Public()}),
		"UnusableKeyID":   `{"kty":"RSA","kid":"b d","n":"` + n + `","e":"AQAB"}`,
		"SecondOfTheID":   encode(t, jose.JSONWebKey{Key: theirs.Public(), KeyID: oidctest.KeyID(ours)}),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				good := encode(t, jose.JSONWebKey{Key: ours.Public(), KeyID: oidctest.KeyID(ours), Algorithm: "RS256", Use: "sig"})
				w.AnswerKeys(text(`{"keys":[` + good + `,` + key + `]}`))
				w.verify(w.token())
				for _, kid := range []string{"bad", oidctest.KeyID(ours)} {
					_, err := w.verifier.Verify(w.Context(), sign(theirs, head(map[string]any{"kid": kid}), w.payload(nil)))
					if !errors.Is(err, oidc.ErrToken) {
						w.Errorf("Verify by key %s = %v, want ErrToken", kid, err)
					}
				}
				if name != "SecondOfTheID" {
					w.verifier = w.trust(oidc.Issuer{URL: github})
					w.AnswerKeys(text(`{"keys":[` + key + `]}`))
					w.away(w.token())
				}
			})
		})
	}
}
