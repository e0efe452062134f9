package store

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// What a registration's environment may have. The whole registration has to fit into
// an SSM parameter of 8 KB
// (https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html),
// so half of that is left for the rest.
const (
	maxVariables    = 32
	maxVariableName = 64
	maxEnvironment  = 4 << 10 // bytes of all names and values
)

var variableForm = form.Form{{Of: form.Letter + "__", Min: 1, Max: 1}, {Of: form.Letter + form.Digit + "__"}}

// reserved are variables that the agent, the image, or GitHub's runner program sets
// for each job. A name that ends in _ stands for all that begin with it.
var reserved = []string{"ACTIONS_RUNNER_", "GARO_", "GITHUB_", "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "CI"}

// A word of a name, between underscores, that says secret; in secretEnds, what the
// word ends in. Better one name too many is refused than a secret shown to every job.
var (
	secretWords = []string{"AUTH", "CRED", "CREDS", "PASS", "PAT", "PWD"}
	secretEnds  = []string{"TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "KEY", "KEYS"}
)

// secretValue is how tokens of GitHub, access keys of AWS and private keys begin
// (https://docs.github.com/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats,
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids).
// A URL may have a password, as a proxy's does. It is compiled when a registration
// first has a value to look at.
var secretValue = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`gh[oprsu]_[A-Za-z0-9]|github_pat_|\b(AKIA|ASIA)[A-Z0-9]{12}|-----BEGIN |(\A|://)[^\s/:@]+:[^\s/@]+@`)
})

// checkEnvironment returns every fault of a registration's environment. No value is
// in an error: it may be a secret.
func checkEnvironment(env map[string]string) []error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("environment"+format, args...)) }
	if len(env) > maxVariables {
		fault(": %d variables: want at most %d", len(env), maxVariables)
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		size += len(name) + len(value)
		switch {
		case len(name) > maxVariableName || !variableForm.Fits(name):
			fault(": %.80q: want a name of letters, digits and _, at most %d of them", name, maxVariableName)
		case isReserved(name):
			fault(".%s: the machine sets this itself: set it in the image, or leave it out", name)
		case soundsSecret(name):
			fault(".%s: looks like a secret, which every job could read: use GitHub's secrets", name)
		case value == "" || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
			fault(".%s: want a value in one line, without control characters", name)
		case secretValue().MatchString(value):
			fault(".%s: its value looks like a secret, which every job could read: use GitHub's secrets", name)
		}
	}
	if size > maxEnvironment {
		fault(": %d bytes of names and values: want at most %d", size, maxEnvironment)
	}
	return errs
}

func isReserved(name string) bool {
	name = strings.ToUpper(name)
	return slices.ContainsFunc(reserved, func(r string) bool {
		return name == r || strings.HasSuffix(r, "_") && strings.HasPrefix(name, r)
	})
}

func soundsSecret(name string) bool {
	for word := range strings.SplitSeq(strings.ToUpper(name), "_") {
		if slices.Contains(secretWords, word) || slices.ContainsFunc(secretEnds, func(end string) bool { return strings.HasSuffix(word, end) }) {
			return true
		}
	}
	return false
}
