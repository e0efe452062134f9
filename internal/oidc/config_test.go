package oidc_test

import (
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
)

func TestConfigThatCannotBeMeantIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		issuers  []oidc.Issuer
		audience string
		want     string
	}{
		"NoAudience":      {[]oidc.Issuer{{URL: github}}, "", "no audience"},
		"NoIssuer":        {nil, audience, "no issuer"},
		"EmptyIssuer":     {[]oidc.Issuer{{}}, audience, "want a scheme, a host and a path"},
		"NotAURL":         {[]oidc.Issuer{{URL: "https://[::1"}}, audience, "want a scheme, a host and a path"},
		"HostAlone":       {[]oidc.Issuer{{URL: "token.actions.githubusercontent.com"}}, audience, "want a scheme, a host and a path"},
		"UserInfo":        {[]oidc.Issuer{{URL: "https://canary:canary@ghes.example.org"}}, audience, "want a scheme, a host and a path"},
		"Query":           {[]oidc.Issuer{{URL: github + "?canary"}}, audience, "want a scheme, a host and a path"},
		"Fragment":        {[]oidc.Issuer{{URL: github + "#"}}, audience, "want a scheme, a host and a path"},
		"WithoutTLS":      {[]oidc.Issuer{{URL: "http://token.actions.githubusercontent.com"}}, audience, "over https alone"},
		"AnotherScheme":   {[]oidc.Issuer{{URL: "file://host/keys"}}, audience, "over https alone"},
		"LoopbackLooking": {[]oidc.Issuer{{URL: "http://localhost.example.org"}}, audience, "over https alone"},
		"TrailingSlash":   {[]oidc.Issuer{{URL: github + "/"}}, audience, "no slash at the end"},
		"UpperCaseHost":   {[]oidc.Issuer{{URL: "https://GHES.example.org/_services/token"}}, audience, "host in lower case"},
		"Twice":           {[]oidc.Issuer{{URL: github}, {URL: github, JWKS: github + "/keys"}}, audience, "configured twice"},
		"KeysWithoutTLS":  {[]oidc.Issuer{{URL: github, JWKS: "http://169.254.169.254/keys"}}, audience, "over https alone"},
		"KeysUserInfo":    {[]oidc.Issuer{{URL: github, JWKS: "https://canary@ghes.example.org/keys"}}, audience, "key set of issuer " + github},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := oidc.New(oidc.Config{Issuers: c.issuers, Audience: c.audience})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("New = %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestIssuersOfGitHubAreTaken(t *testing.T) {
	_, err := oidc.New(oidc.Config{Audience: audience, Issuers: []oidc.Issuer{
		{URL: github},
		{URL: github + "/octocat-inc"},
		{URL: "https://ghes.example.org/_services/token", JWKS: "https://ghes.example.org/_services/token/.well-known/jwks"},
		{URL: "https://token.actions.octocorp.ghe.com"},
		{URL: "http://127.0.0.1:8080/oidc"},
		{URL: "http://localhost:8080"},
		{URL: "http://[::1]:8080"},
	}})
	if err != nil {
		t.Errorf("New = %v", err)
	}
}
