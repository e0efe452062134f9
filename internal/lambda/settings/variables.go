package settings

import "slices"

// Function is a Lambda function of ours. Its binary is called garo- and this.
type Function string

// The functions.
const (
	FunctionAPI    Function = "api"
	FunctionWorker Function = "worker"
	FunctionReaper Function = "reaper"
)

// The names of the variables.
const (
	prefix = "GARO_"

	envControlPlane   = prefix + "CONTROL_PLANE"
	envTable          = prefix + "TABLE"
	envQueueURL       = prefix + "QUEUE_URL"
	envParameters     = prefix + "PARAMETERS"
	envURL            = prefix + "URL"
	envIssuers        = prefix + "OIDC_ISSUERS"
	envRunnerPrograms = prefix + "RUNNER_PROGRAMS"
	envGitHubURL      = prefix + "GITHUB_URL"
	envPricesURL      = prefix + "PRICES_URL"
	envReaperShards   = prefix + "REAPER_SHARDS"
	envLogLevel       = prefix + "LOG_LEVEL"
)

// Variable is an environment variable that functions read.
type Variable struct {
	Name    string
	Readers []Function
	Needed  bool   // by every reader
	Default string // empty: none
	Want    string // its form, as "want …" says it
	Example string
	Meaning string
}

var all = []Function{FunctionAPI, FunctionWorker, FunctionReaper}

// Variables has every variable. Any other whose name begins with GARO_ is a typo.
var Variables = []Variable{
	{
		Name: envControlPlane, Readers: all, Needed: true,
		Want: "1 to 16 of a-z, 0-9 and hyphen", Example: "prod",
		Meaning: "The name of this control plane, in the tags of its instances, the names of its registrations at GitHub and the dimension of its metrics. " +
			"Two control planes that share an account or a repository must differ in it, and it must not change while a runner lives.",
	},
	{
		Name: envTable, Readers: all, Needed: true,
		Want: "the name of the DynamoDB table", Example: "garo-prod",
		Meaning: "The table that keeps every record.",
	},
	{
		Name: envQueueURL, Readers: all, Needed: true,
		Want: "the URL of the SQS queue", Example: "https://sqs.eu-west-2.amazonaws.com/123456789012/garo-prod",
		Meaning: "The queue from the API and the reaper to the worker.",
	},
	{
		Name: envParameters, Readers: all, Default: "/garo",
		Want: "a path of names, without a slash at its end", Example: "/garo/prod",
		Meaning: "Where the control plane's own SSM parameters are.",
	},
	{
		Name: envURL, Readers: []Function{FunctionAPI, FunctionWorker}, Needed: true,
		Want: "an https URL without a slash at its end", Example: "https://garo.example.org",
		Meaning: "Where clients and machines reach the API. ID tokens must be made for it: it is exactly their audience.",
	},
	{
		Name: envIssuers, Readers: []Function{FunctionAPI}, Default: "https://token.actions.githubusercontent.com",
		Want: "https URLs, separated by commas, each as the tokens say it", Example: "https://token.actions.githubusercontent.com,https://github.example.org/_services/token",
		Meaning: "Whose ID tokens are believed. An Enterprise Server's issuer is https://HOST/_services/token.",
	},
	{
		Name: envRunnerPrograms, Readers: []Function{FunctionAPI, FunctionWorker},
		Want: "a JSON object of version, url and sha256 by architecture (amd64, arm64)", Example: `{"arm64":{"version":"2.330.0","url":"https://example.org/runner-arm64.tar.gz","sha256":"` + exampleSum + `"}}`,
		Meaning: "GitHub's runner program, for machines whose image has none. When it changes, images whose program GitHub refused may be launched again. Not set: every image has a program.",
	},
	{
		Name: envGitHubURL, Readers: []Function{FunctionWorker, FunctionReaper}, Default: "https://api.github.com",
		Want: "the https URL of a REST API", Example: "https://github.example.org/api/v3",
		Meaning: "GitHub's REST API. An Enterprise Server's is https://HOST/api/v3.",
	},
	{
		Name: envPricesURL, Readers: []Function{FunctionReaper}, Default: "https://pricing.us-east-1.amazonaws.com",
		Want: "an https URL without a slash at its end", Example: "https://mirror.example.org/aws-prices",
		Meaning: "AWS's public price list, from which on-demand prices are read, or a copy of it. While it cannot be reached, they are unknown.",
	},
	{
		Name: envReaperShards, Readers: []Function{FunctionReaper}, Default: "1",
		Want: "a whole number from 1 to 16", Example: "2",
		Meaning: "How many runs of the reaper share its work every minute. Each takes an equal part of what GitHub grants a credential; which items a run looks at, its event says.",
	},
	{
		Name: envLogLevel, Readers: all, Default: "info",
		Want: "debug, info, warn or error", Example: "warn",
		Meaning: "The least that is logged. Alarms are errors, and so always are.",
	},
}

const exampleSum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func variable(name string) (Variable, bool) {
	i := slices.IndexFunc(Variables, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		return Variable{}, false
	}
	return Variables[i], true
}

// maxTypo is how many characters a name may be away from a variable's to be taken
// for it: a letter left out, one too many, or two changed places.
const maxTypo = 3

// suggest says what to do with a variable that no function reads.
func suggest(name string) string {
	best, away := "", maxTypo+1
	for _, v := range Variables {
		if d := distance(name, v.Name); d < away {
			best, away = v.Name, d
		}
	}
	if best == "" {
		return "remove it, or see docs/configuration.md for what there is"
	}
	return "is " + best + " meant?"
}

// distance is how many characters have to be added, removed or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// Parameter is an SSM parameter that functions read, a SecureString.
type Parameter struct {
	Name    string // below the path in GARO_PARAMETERS; one that begins with a slash is elsewhere
	Readers []Function
	Where   string // whose account and region it is in
	Needed  bool
	Example string
	Meaning string
}

// Parameters has every parameter.
var Parameters = []Parameter{
	{
		Name: "keys", Readers: all, Where: "the control plane's account and region", Needed: true,
		Example: `{"id":"…","current":"k2","keys":{"k2":"…","k1":"…"}}`,
		Meaning: "The keys that ids, tokens and seals are made of, each of at least 32 random characters. `id` is never changed. Of `keys`, `current` makes what is new, and an older one is kept until no live runner was launched with it. The reaper reads them only for an account whose registration is gone.",
	},
	{
		Name: "operators", Readers: []Function{FunctionAPI}, Where: "the control plane's account and region",
		Example: `{"alice":"` + exampleSum + `"}`,
		Meaning: "The SHA-256 of each operator's token in hex, by the operator's name. Not there: there are no operators.",
	},
	{
		Name: "webhook", Readers: []Function{FunctionAPI}, Where: "the control plane's account and region",
		Example: `{"secrets":["…"]}`,
		Meaning: "What the GitHub App signs its webhooks with: one secret of at least 32 random characters, or two while one replaces the other. `garo app create` writes it. Not there: there is no App, or registrations have secrets of their own (`webhook_secrets`).",
	},
	{
		Name: "accounts/<account id>", Readers: all, Where: "the control plane's account and region", Needed: true,
		Example: `{"id":"123456789012","external_id":"…","repositories":[{"id":"1001","name":"acme/shop"}],…}`,
		Meaning: "The registration of one AWS account that may be launched into, and of who may ask for that.",
	},
	{
		Name: "setup/<name>/<part>", Readers: []Function{FunctionAPI}, Where: "the control plane's account and region",
		Example: "IyEvYmluL3No…",
		Meaning: "A part of a set-up script that registrations name by its path, `GARO_PARAMETERS/setup/<name>`. The parts are joined in the order of their names, and are the script in base64.",
	},
	{
		Name: "/github/runner/pat", Readers: []Function{FunctionWorker, FunctionReaper}, Where: "the runner account, in its default region", Needed: true,
		Example: "github_pat_…",
		Meaning: "GitHub's credential for the repositories of that account: a personal access token, or the private key of a GitHub App. The registration can name another parameter (`github.parameter`).",
	},
}
