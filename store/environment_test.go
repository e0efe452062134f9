package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestEnvironmentOfARegistration(t *testing.T) {
	many := func(n int) map[string]any {
		m := map[string]any{}
		for i := range n {
			m[fmt.Sprintf("V%d", i)] = "x"
		}
		return m
	}
	one := func(name, value string) map[string]any { return map[string]any{name: value} }
	const canary = "canary-value"
	for name, c := range map[string]struct {
		env  map[string]any
		says string // "" if it is allowed
	}{
		"None":              {nil, ""},
		"Proxies":           {map[string]any{"https_proxy": "http://proxy.internal:3128", "NO_PROXY": ".internal,169.254.169.254"}, ""},
		"OfARunner":         {map[string]any{"RUNNER_TOOL_CACHE": "/opt/cache", "AGENT_TOOLSDIRECTORY": "/opt/cache", "TOKENIZERS_PARALLELISM": "false", "BYPASS": "x", "PATTERN": "x"}, ""},
		"ValueWithSigns":    {one("JAVA_OPTS", `-Da="b c" $HOME #1 é me@example.org`), ""},
		"Most":              {many(32), ""},
		"TooMany":           {many(33), "33 variables"},
		"LongName":          {one(strings.Repeat("A", 65), canary), "at most 64"},
		"LongestName":       {one(strings.Repeat("A", 64), "x"), ""},
		"MostBytes":         {one("A", strings.Repeat("x", 4095)), ""},
		"TooManyBytes":      {one("A", strings.Repeat("x", 4096)), "4097 bytes"},
		"EmptyName":         {one("", canary), "want a name"},
		"NameWithEquals":    {one("A=B", canary), "want a name"},
		"NameWithNewline":   {one("A\nB", canary), "want a name"},
		"NameWithDigit":     {one("1A", canary), "want a name"},
		"EmptyValue":        {one("A", ""), "environment.A: want a value"},
		"ValueOfTwoLines":   {one("A", canary+"\nB=1"), "environment.A: want a value"},
		"ValueWithNUL":      {one("A", canary+"\x00"), "environment.A: want a value"},
		"OfTheProgram":      {one("ACTIONS_RUNNER_HOOK_JOB_STARTED", canary), "environment.ACTIONS_RUNNER_HOOK_JOB_STARTED: the machine sets this"},
		"OfTheProgramSmall": {one("actions_runner_input_jitconfig", canary), "the machine sets this"},
		"OfGitHub":          {one("GITHUB_REPOSITORY", canary), "the machine sets this"},
		"OfGARO":            {one("GARO_X", canary), "the machine sets this"},
		"Path":              {one("PATH", canary), "environment.PATH: the machine sets this"},
		"Home":              {one("HOME", canary), "the machine sets this"},
		"Token":             {one("NPM_TOKEN", canary), "environment.NPM_TOKEN: looks like a secret"},
		"TokenSmall":        {one("npm_token", canary), "looks like a secret"},
		"TokenInOneWord":    {one("apiToken", canary), "looks like a secret"},
		"AccessKey":         {one("AWS_SECRET_ACCESS_KEY", canary), "looks like a secret"},
		"KeyID":             {one("AWS_ACCESS_KEY_ID", canary), "looks like a secret"},
		"Password":          {one("DBPASSWORD", canary), "looks like a secret"},
		"PAT":               {one("GH_PAT", canary), "looks like a secret"},
		"Auth":              {one("NPM_CONFIG__AUTH", canary), "looks like a secret"},
		"GitHubsToken":      {one("A", "ghp_"+canary), "environment.A: its value looks like a secret"},
		"FineGrainedToken":  {one("A", "x github_pat_"+canary), "its value looks like a secret"},
		"AWSKey":            {one("A", "AKIAIOSFODNN7EXAMPLE"), "its value looks like a secret"},
		"PrivateKey":        {one("A", "-----BEGIN RSA PRIVATE KEY-----"), "its value looks like a secret"},
		"ProxyWithPassword": {one("https_proxy", "http://me:"+canary+"@proxy.test"), "environment.https_proxy: its value looks like a secret"},
		"NoSchemePassword":  {one("https_proxy", "me:"+canary+"@proxy.test:1"), "its value looks like a secret"},
		"OddPassword":       {one("https_proxy", "http://me:"+canary+"%zz@proxy.test:1"), "its value looks like a secret"},
		"NoText":            {map[string]any{"A": 1}, "environment"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := store.ParseAccount("123456789012", registration(t, func(m map[string]any) { m["environment"] = c.env }))
			switch {
			case c.says == "" && (err != nil || len(got.Environment) != len(c.env)):
				t.Errorf("ParseAccount = %v, %v; want %d variables", got.Environment, err, len(c.env))
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("ParseAccount = %v, want an error with %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error has the value: %v", err)
			}
		})
	}
}

// A registration without an environment is written as it was before there was one.
func TestRegistrationWithoutAnEnvironmentHasNoSuchField(t *testing.T) {
	b, err := json.Marshal(account())
	if err != nil || strings.Contains(string(b), "environment\"") {
		t.Errorf("Marshal = %s, %v; want no environment", b, err)
	}
}
