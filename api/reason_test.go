package api_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
)

const generic = "Send a valid token as Authorization: Bearer."

// details are what the API answers for each fault of an ID token. People look for
// these sentences: they are in the guide, and stay as they are.
var details = map[oidc.Cause]string{
	oidc.CauseForm:      "The token is neither a GitHub ID token nor one of GARO's own.",
	oidc.CauseAlgorithm: "The token is not signed with RS256.",
	oidc.CauseIssuer:    "The issuer of the token is not one that this API trusts.",
	oidc.CauseAudience:  "The token was made for another audience than this API's address.",
	oidc.CauseExpired:   "The token has expired.",
	oidc.CauseNotYet:    "The token is not valid yet.",
	oidc.CauseKey:       "The token is signed with a key that its issuer does not publish.",
	oidc.CauseSignature: "The signature of the token is wrong.",
	oidc.CauseClaim:     "The token lacks a claim that GitHub's have, or has one of another form.",
}

// headed is a token with another header in front of the same rest.
func headed(token, header string) string {
	_, rest, _ := strings.Cut(token, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

func TestRefusedIDTokenIsToldWhy(t *testing.T) {
	const server = "https://token.actions.githubusercontent.com"
	i, auth := issuer(t, server)
	theirs, _ := issuer(t, "https://ghe.example.org/_services/token")
	made := func(claim string, value any) string {
		t.Helper()
		claims, err := i.Claims(base)
		if err != nil {
			t.Fatal(err)
		}
		claims[claim] = value
		token, err := i.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good, other := made("actor", "octocat"), made("actor", "mallory")
	foreign, err := theirs.Token(base)
	if err != nil {
		t.Fatal(err)
	}
	signature := good[strings.LastIndex(good, "."):]
	seen := map[oidc.Cause]bool{}
	w := newWorld(t)
	cfg := w.config()
	cfg.Auth = api.ByPrefix{Operators: api.Operators{"ann": keys.HashToken(operatorToken)}, GitHub: auth}
	w.handler = api.New(cfg)
	for name, c := range map[string]struct {
		token string
		cause oidc.Cause
	}{
		"not a token":         {"a.b.c", oidc.CauseForm},
		"a GitHub token":      {"ghs_0123456789abcdefghijklmnopqrstuvwxyz", oidc.CauseForm},
		"unsigned":            {headed(good, `{"alg":"none","typ":"JWT","kid":"x"}`), oidc.CauseAlgorithm},
		"signed with HS256":   {headed(good, `{"alg":"HS256","typ":"JWT","kid":"x"}`), oidc.CauseAlgorithm},
		"another issuer":      {foreign, oidc.CauseIssuer},
		"another audience":    {made("aud", "https://staging.example.org"), oidc.CauseAudience},
		"several audiences":   {made("aud", []string{base, "sts.amazonaws.com"}), oidc.CauseAudience},
		"expired":             {made("exp", time.Now().Add(-time.Hour).Unix()), oidc.CauseExpired},
		"two days old":        {made("iat", time.Now().Add(-48*time.Hour).Unix()), oidc.CauseExpired},
		"not valid yet":       {made("nbf", time.Now().Add(time.Hour).Unix()), oidc.CauseNotYet},
		"made in an hour":     {made("iat", time.Now().Add(time.Hour).Unix()), oidc.CauseNotYet},
		"unknown key":         {headed(good, `{"alg":"RS256","typ":"JWT","kid":"nobody"}`), oidc.CauseKey},
		"another's signature": {other[:strings.LastIndex(other, ".")] + signature, oidc.CauseSignature},
		"no repository":       {made("repository_id", ""), oidc.CauseClaim},
	} {
		seen[c.cause] = true
		for path, call := range map[string]answer{
			"start":  w.raw("POST", "/start", c.token, apitype.Start{}),
			"status": w.raw("GET", "/status/"+strings.Repeat("a", 26), c.token, nil),
			"list":   w.raw("GET", "/requests", c.token, nil),
		} {
			p := call.problem(t)
			if call.status != http.StatusUnauthorized || p.Code != apitype.CodeUnauthenticated || !strings.HasPrefix(p.Detail, details[c.cause]) {
				t.Errorf("%s with %s = %d %s %q, want 401 unauthenticated %q", path, name, call.status, p.Code, p.Detail, details[c.cause])
			}
			if strings.Contains(p.Detail, server) || strings.Contains(p.Detail, "mallory") {
				t.Errorf("%s with %s answers %q, which is more than its cause", path, name, p.Detail)
			}
		}
	}
	for _, cause := range oidc.Causes {
		if !seen[cause] || details[cause] == "" {
			t.Errorf("no token is refused for %s", cause)
		}
	}
	if a := w.raw("GET", "/status/"+strings.Repeat("a", 26), good, nil); a.status != http.StatusNotFound {
		t.Errorf("status with a good token = %d, want 404: the others were refused for their faults alone", a.status)
	}
}

// Of a token that is a secret, nobody learns whether it was ever good, nor for what.
func TestRefusedSecretTokenIsToldNothing(t *testing.T) {
	w := newWorld(t)
	started := w.start(workflowToken, apitype.Start{})
	m := w.online(w.start(workflowToken, apitype.Start{Mode: "ephemeral", IdempotencyKey: "m"}).ID)
	beat := apitype.Event{Event: "heartbeat", Counter: 1}
	session := keys.SessionPrefix + "wrong"
	for name, a := range map[string]answer{
		"an unknown operator's":         w.raw("GET", "/requests", keys.OperatorPrefix+"nobody", nil),
		"hardly an operator's":          w.raw("GET", "/requests", keys.OperatorPrefix, nil),
		"a wrong session":               w.raw("POST", "/runners/"+m.id+"/events", session, beat),
		"a session of an absent runner": w.raw("POST", "/runners/"+strings.Repeat("a", 26)+"/events", session, beat),
		"no session":                    w.raw("POST", "/runners/"+m.id+"/events", "", beat),
		"a wrong boot token":            w.raw("POST", "/runners/"+m.id+"/boot", "", apitype.Boot{Token: session, Nonce: nonce, InstanceID: instanceID}),
	} {
		if p := a.problem(t); a.status != http.StatusUnauthorized || p.Detail != generic {
			t.Errorf("%s: %d %q, want 401 %q", name, a.status, p.Detail, generic)
		}
	}
	// What its prefix says is no secret.
	for name, c := range map[string]struct {
		token, want string
	}{
		"no token":               {"", "The call has no bearer token."},
		"a status token":         {started.StatusToken.Reveal(), "This kind of token does not serve for this call."},
		"a made-up status token": {keys.StatusPrefix + "k1.1.x", "This kind of token does not serve for this call."},
		"a session":              {m.booted.Session, "This kind of token does not serve for this call."},
	} {
		a := w.raw("POST", "/start", c.token, apitype.Start{})
		if p := a.problem(t); a.status != http.StatusUnauthorized || !strings.HasPrefix(p.Detail, c.want) {
			t.Errorf("start with %s = %d %q, want 401 %q", name, a.status, p.Detail, c.want)
		}
	}
}

// Without an issuer, as in local mode, every ID token is of one that is not trusted.
func TestIDTokenWhereNoIssuerIsTrusted(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Auth = api.ByPrefix{Operators: api.Operators{"ann": keys.HashToken(operatorToken)}}
	w.handler = api.New(cfg)
	if p := w.raw("POST", "/start", "a.b.c", apitype.Start{}).problem(t); !strings.HasPrefix(p.Detail, details[oidc.CauseIssuer]) {
		t.Errorf("detail = %q, want %q", p.Detail, details[oidc.CauseIssuer])
	}
}

func TestGuideNamesEveryReasonOf401(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for cause, d := range details {
		if !strings.Contains(string(b), "| "+d+" |") {
			t.Errorf("docs/api.md does not say what to do about %s: %q", cause, d)
		}
	}
}
