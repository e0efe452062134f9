package settings_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
)

// needed is an environment with what every function needs and nothing else of ours.
var needed = []string{
	"PATH=/usr/bin", "AWS_REGION=eu-west-2", "GARO_TABLE=garo-prod", "GARO_QUEUE_URL=https://sqs.eu-west-2.amazonaws.com/123456789012/garo-prod",
	"GARO_CONTROL_PLANE=prod", "GARO_URL=https://garo.example.org",
}

// sum is the SHA-256 of nothing in particular.
var sum = strings.Repeat("0123456789abcdef", 4)

var common = settings.Common{ControlPlane: "prod", Table: "garo-prod", QueueURL: "https://sqs.eu-west-2.amazonaws.com/123456789012/garo-prod", Parameters: "/garo"}

func TestDefaults(t *testing.T) {
	api, err := settings.ReadAPI(needed)
	wantAPI := settings.API{Common: common, URL: "https://garo.example.org", Issuers: []string{"https://token.actions.githubusercontent.com"}}
	if diff := cmp.Diff(wantAPI, api); diff != "" || err != nil {
		t.Errorf("ReadAPI: %v (-want +got):\n%s", err, diff)
	}
	worker, err := settings.ReadWorker(needed)
	wantWorker := settings.Worker{Common: common, URL: "https://garo.example.org", GitHubURL: "https://api.github.com", ProgramSums: map[string]string{}}
	if diff := cmp.Diff(wantWorker, worker); diff != "" || err != nil {
		t.Errorf("ReadWorker: %v (-want +got):\n%s", err, diff)
	}
	reaper, err := settings.ReadReaper(needed)
	wantReaper := settings.Reaper{Common: common, GitHubURL: "https://api.github.com", PricesURL: "https://pricing.us-east-1.amazonaws.com", Shards: 1}
	if diff := cmp.Diff(wantReaper, reaper); diff != "" || err != nil {
		t.Errorf("ReadReaper: %v (-want +got):\n%s", err, diff)
	}
}

func TestEverythingSet(t *testing.T) {
	env := slices.Concat(needed, []string{
		"GARO_PARAMETERS=/teams/ci/garo", "GARO_OIDC_ISSUERS=http://127.0.0.1:8080,https://github.example.org/_services/token",
		`GARO_RUNNER_PROGRAMS={"arm64": {"version": "2.330.0", "url": "https://example.org/r.tar.gz", "sha256": "` + sum + `"}}`,
		"GARO_GITHUB_URL=http://localhost:1/api/v3", "GARO_LOG_LEVEL=warn", "GARO_REAPER_SHARDS=4",
		"GARO_PRICES_URL=http://127.0.0.1:2/prices",
	})
	c := common
	c.Parameters, c.LogLevel = "/teams/ci/garo", slog.LevelWarn
	api, err := settings.ReadAPI(env)
	wantAPI := settings.API{
		Common: c, URL: "https://garo.example.org", Issuers: []string{"http://127.0.0.1:8080", "https://github.example.org/_services/token"},
		Programs: map[string]apitype.RunnerProgram{"arm64": {Version: "2.330.0", URL: "https://example.org/r.tar.gz", SHA256: sum}},
	}
	if diff := cmp.Diff(wantAPI, api); diff != "" || err != nil {
		t.Errorf("ReadAPI: %v (-want +got):\n%s", err, diff)
	}
	worker, err := settings.ReadWorker(env)
	wantWorker := settings.Worker{
		Common: c, URL: "https://garo.example.org", GitHubURL: "http://localhost:1/api/v3",
		ProgramSums: map[string]string{"arm64": sum}, // of what the API offers
	}
	if diff := cmp.Diff(wantWorker, worker); diff != "" || err != nil {
		t.Errorf("ReadWorker: %v (-want +got):\n%s", err, diff)
	}
	reaper, err := settings.ReadReaper(env)
	wantReaper := settings.Reaper{Common: c, GitHubURL: "http://localhost:1/api/v3", PricesURL: "http://127.0.0.1:2/prices", Shards: 4}
	if diff := cmp.Diff(wantReaper, reaper); diff != "" || err != nil {
		t.Errorf("ReadReaper: %v (-want +got):\n%s", err, diff)
	}
}

// readers are the functions by name, without what they read.
var readers = map[settings.Function]func([]string) (settings.Common, error){
	settings.FunctionAPI: func(env []string) (settings.Common, error) {
		c, err := settings.ReadAPI(env)
		return c.Common, err
	},
	settings.FunctionWorker: func(env []string) (settings.Common, error) {
		c, err := settings.ReadWorker(env)
		return c.Common, err
	},
	settings.FunctionReaper: func(env []string) (settings.Common, error) {
		c, err := settings.ReadReaper(env)
		return c.Common, err
	},
}

// Each row breaks one variable, and names what the error has to say.
func TestMistakeNamesTheVariableAndTheFix(t *testing.T) {
	program := func(arch, url, sum string) string {
		return `GARO_RUNNER_PROGRAMS={"` + arch + `":{"version":"1","url":"` + url + `","sha256":"` + sum + `"}}`
	}
	for name, c := range map[string]struct {
		function  settings.Function
		set, want string
	}{
		"TableTooShort":         {"api", "GARO_TABLE=ab", `GARO_TABLE "ab": not in this form: want the name of the DynamoDB table, such as garo-prod`},
		"TableIsAnARN":          {"worker", "GARO_TABLE=arn:aws:dynamodb:eu-west-2:1:table/x", "GARO_TABLE"},
		"TableEndsWithALine":    {"worker", "GARO_TABLE=garo\n", "GARO_TABLE"},
		"QueueIsAName":          {"reaper", "GARO_QUEUE_URL=garo", `GARO_QUEUE_URL "garo": not a scheme, a host and a path: want the URL of the SQS queue, such as https://sqs.`},
		"QueueWithoutTLS":       {"reaper", "GARO_QUEUE_URL=http://sqs.example.org/1/x", "not https"},
		"PathIsRelative":        {"api", "GARO_PARAMETERS=garo", `GARO_PARAMETERS "garo": not in this form: want a path`},
		"PathEndsWithSlash":     {"api", "GARO_PARAMETERS=/garo/", "GARO_PARAMETERS"},
		"PathTooDeep":           {"api", "GARO_PARAMETERS=" + strings.Repeat("/a", 14), "GARO_PARAMETERS"},
		"URLEndsWithSlash":      {"worker", "GARO_URL=https://garo.example.org/", "a slash at the end"},
		"URLWithQuery":          {"api", "GARO_URL=https://garo.example.org?x", "not a scheme, a host and a path"},
		"URLWithPassword":       {"api", "GARO_URL=https://a:b@garo.example.org", "not a scheme, a host and a path"},
		"URLOfOtherScheme":      {"api", "GARO_URL=ftp://garo.example.org", "not https"},
		"LocalLookalike":        {"api", "GARO_URL=http://localhost.example.org", "not https"},
		"PrivateIsNotLocal":     {"api", "GARO_URL=http://10.0.0.1", "not https"},
		"IssuerEmpty":           {"api", "GARO_OIDC_ISSUERS=https://a.test,", "issuer 2: not a scheme"},
		"IssuerAfterSpace":      {"api", "GARO_OIDC_ISSUERS=https://a.test, https://b.test", "issuer 2: not a scheme"},
		"IssuerTwice":           {"api", "GARO_OIDC_ISSUERS=https://a.test,https://a.test", "issuer 2 comes twice"},
		"IssuerWithSlash":       {"api", "GARO_OIDC_ISSUERS=https://a.test/", "issuer 1: a slash at the end"},
		"ShardsNone":            {"reaper", "GARO_REAPER_SHARDS=0", "GARO_REAPER_SHARDS"},
		"ShardsTooMany":         {"reaper", "GARO_REAPER_SHARDS=17", "GARO_REAPER_SHARDS"},
		"ShardsInAnotherForm":   {"reaper", "GARO_REAPER_SHARDS=04", "GARO_REAPER_SHARDS"},
		"WorkersProgramsNoJSON": {"worker", "GARO_RUNNER_PROGRAMS=x", "GARO_RUNNER_PROGRAMS"},
		"ProgramsNoJSON":        {"api", "GARO_RUNNER_PROGRAMS=x", "GARO_RUNNER_PROGRAMS"},
		"ProgramsUnknown":       {"api", `GARO_RUNNER_PROGRAMS={"amd64":{"uri":"x"}}`, `unknown field "uri"`},
		"ProgramsTwice":         {"api", "GARO_RUNNER_PROGRAMS={}{}", "more than one JSON value"},
		"ProgramsNone":          {"api", "GARO_RUNNER_PROGRAMS={}", "no program"},
		"ProgramOfMips":         {"api", program("mips", "https://a.test/x", sum), `architecture "mips"`},
		"ProgramWithoutTLS":     {"api", program("arm64", "http://a.test/x", sum), "url of arm64: not https"},
		"ProgramHashTooShort":   {"api", program("arm64", "https://a.test/x", sum[1:]), "sha256 of arm64: not 64 hex digits"},
		"ControlPlaneTooLong":   {"worker", "GARO_CONTROL_PLANE=" + strings.Repeat("a", 17), "want 1 to 16 of a-z, 0-9 and hyphen, such as prod"},
		"ControlPlaneCapital":   {"reaper", "GARO_CONTROL_PLANE=Prod", "GARO_CONTROL_PLANE"},
		"GitHubWithSlash":       {"reaper", "GARO_GITHUB_URL=https://api.github.com/", "GARO_GITHUB_URL"},
		"LogLevelInCapitals":    {"reaper", "GARO_LOG_LEVEL=INFO", `GARO_LOG_LEVEL "INFO": not in this form: want debug, info, warn or error`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readers[c.function](append(slices.Clone(needed), c.set))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > strings.Count(c.set, "\n") {
				t.Errorf("%s: error = %v, want one that says %s", c.function, err, c.want)
			}
		})
	}
}

func TestLongValueIsNotQuotedWhole(t *testing.T) {
	_, err := settings.ReadAPI(append(slices.Clone(needed), "GARO_TABLE="+strings.Repeat("€", 5000)))
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("error has %d bytes (%.300v), want it short", len(err.Error()), err)
	}
}

// The list says who needs what, and the functions do as it says.
func TestFunctionsReadWhatTheListSays(t *testing.T) {
	for function, read := range readers {
		_, err := read([]string{"PATH=/usr/bin"})
		if err == nil {
			t.Errorf("%s: no error for an empty environment", function)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		for _, v := range settings.Variables {
			reads := slices.Contains(v.Readers, function)
			want := v.Name + " is not set: want " + v.Want + ", such as " + v.Example
			if got := slices.Contains(lines, want); got != (reads && v.Needed) {
				t.Errorf("%s with nothing set: error = %v; a line %q: %t, want %t", function, err, want, got, reads && v.Needed)
			}
			// The value breaks the form of each of them.
			_, err := read(append(slices.Clone(needed), v.Name+"=\x00/"))
			if got := err != nil && strings.Contains(err.Error(), v.Name+` "\x00/": `); got != reads {
				t.Errorf("%s with a broken %s: %v; want a mistake: %t", function, v.Name, err, reads)
			}
			// And every example is as it should be.
			if _, err := read(append(slices.Clone(needed), v.Name+"="+v.Example)); err != nil {
				t.Errorf("%s with the example of %s: %v", function, v.Name, err)
			}
		}
	}
	for _, v := range settings.Variables {
		if v.Needed == (v.Default != "") && v.Needed || v.Meaning == "" || v.Example == "" || v.Want == "" || len(v.Readers) == 0 {
			t.Errorf("%+v: want all members, and no default for what is needed", v)
		}
	}
}

func TestTypoIsToldWithWhatIsMeant(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"GARO_TABEL", "GARO_TABEL is read by no function: is GARO_TABLE meant?"},
		{"GARO_LOGLEVEL", "is GARO_LOG_LEVEL meant?"},
		{"GARO_QUEUE", "see docs/configuration.md"},
		{"GARO_URLS", "is GARO_URL meant?"},
		{"GARO_", "is GARO_URL meant?"},
		{"GARO_github_url", "see docs/configuration.md"},
	} {
		got, err := settings.ReadWorker(append(slices.Clone(needed), c.name+"=x"))
		if err != nil || len(got.Typos) != 1 || !strings.Contains(got.Typos[0], c.want) || !strings.HasPrefix(got.Typos[0], c.name+" is read by no function") {
			t.Errorf("ReadWorker with %s = %q, %v; want no error, and a typo that says %s", c.name, got.Typos, err, c.want)
		}
	}
	env := slices.DeleteFunc(slices.Clone(needed), func(s string) bool { return strings.HasPrefix(s, "GARO_TABLE=") })
	_, err := settings.ReadWorker(append(env, "GARO_TABEL=garo-prod", "GARO_CONTROL_PLANE=Prod"))
	for _, want := range []string{"GARO_TABLE is not set", `GARO_CONTROL_PLANE "Prod"`, "GARO_TABEL is read by no function: is GARO_TABLE meant?"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadWorker = %v, want all mistakes at once, %s among them", err, want)
		}
	}
}

func TestOtherFunctionsVariablesAreNoTypos(t *testing.T) {
	got, err := settings.ReadReaper(append(slices.Clone(needed), "GARO_OIDC_ISSUERS=https://a.test", "GAROLD=x"))
	if err != nil || got.Typos != nil {
		t.Errorf("ReadReaper = %q, %v; want no typo and no error", got.Typos, err)
	}
}

// FuzzRead has whatever may be in a variable: it is taken as it is, or a mistake
// that names the variable and stays short.
func FuzzRead(f *testing.F) {
	for _, v := range settings.Variables {
		f.Add(v.Name, v.Example)
	}
	f.Add("GARO_RUNNER_PROGRAMS", `{"amd64":{"sha256":1}}`)
	f.Add("GARO_OIDC_ISSUERS", "https://a.test,https://[::1]:99999")
	f.Fuzz(func(t *testing.T, name, value string) {
		if !strings.HasPrefix(name, "GARO_") || strings.Contains(name, "=") {
			return
		}
		for function, read := range readers {
			got, err := read(append(slices.Clone(needed), name+"="+value))
			if err != nil && (!strings.Contains(err.Error(), name) || len(err.Error()) > 2000) {
				t.Errorf("%s with %s=%q: %v; want a short error that names it", function, name, value, err)
			}
			if err == nil && name == "GARO_TABLE" && got.Table != value {
				t.Errorf("%s with %s=%q has the table %q", function, name, value, got.Table)
			}
		}
	})
}
