package api_test

import (
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
)

func issuer(t *testing.T, url string) (*oidctest.Issuer, api.IDTokens) {
	t.Helper()
	i, err := oidctest.New(oidctest.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: url}}, Audience: base, HTTP: memhttp.Client(i)})
	if err != nil {
		t.Fatal(err)
	}
	return i, api.IDTokens{Verifier: v}
}

func TestIDTokenMakesTheCaller(t *testing.T) {
	i, auth := issuer(t, "https://token.actions.githubusercontent.com")
	i.Set("repository_id", "1001")
	i.Set("actor", "octocat")
	i.Set("environment", "prod")
	i.Set("repo_property_tier", "1")
	token, err := i.Token(base)
	if err != nil {
		t.Fatal(err)
	}
	c, err := auth.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kind != api.GitHub || c.Name != "octocat" || c.Claims.Server != "" || c.Claims.RepositoryID != "1001" ||
		c.Claims.Environment != "prod" || c.Claims.Properties["tier"] != "1" || c.Claims.RunID == "" || c.Claims.RunnerEnvironment == "" {
		t.Errorf("Authenticate = %+v, want the claims of the token", c)
	}
}

// The ids of two GitHub servers can be equal; what they are of must not be.
func TestServersAreToldApart(t *testing.T) {
	for issuerURL, want := range map[string]string{
		"https://token.actions.githubusercontent.com":      "",
		"https://token.actions.githubusercontent.com/acme": "",
		"https://ghe.example.org/_services/token":          "ghe.example.org",
		"https://token.actions.acme.ghe.com":               "token.actions.acme.ghe.com",
	} {
		i, auth := issuer(t, issuerURL)
		token, err := i.Token(base)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := auth.Authenticate(t.Context(), token); err != nil || c.Claims.Server != want {
			t.Errorf("server of %s = %q, %v; want %q", issuerURL, c.Claims.Server, err, want)
		}
	}
}

func TestTokenForAnotherAPIIsRefused(t *testing.T) {
	i, auth := issuer(t, "https://token.actions.githubusercontent.com")
	token, err := i.Token("https://staging.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auth.Authenticate(t.Context(), token); err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("Authenticate = %v, want an error without the token", err)
	}
}
