package github

import (
	"encoding/json"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// maxSaid bounds GitHub's words in an error, in characters: its sentences have
	// below 200, and a person reads them in a record and in a log line.
	maxSaid = 300
	// maxProblem bounds the body that they are read from, in bytes: GitHub's have
	// below one kilobyte, and one that is cut is no JSON.
	maxProblem = 16 << 10
	// minSecret is the length from which a text without spaces may be a credential:
	// GitHub's shortest have 40 characters, and half of one must not be shown either.
	minSecret = 20

	hidden = "[hidden]"
)

// The expressions are compiled when GitHub first refuses something.
var (
	// marked are credentials that say what they are, of any length.
	marked = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)\b(?:gh[a-z]_|github_pat_|eyJ|(?:bearer|basic|token)\s+)[A-Za-z0-9+/=_.~-]+`)
	})
	// runs are texts that may be credentials, or parts of a config.
	runs = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`[A-Za-z0-9+/=_.~-]{` + strconv.Itoa(minSecret) + `,}`)
	})
	// words are runs that are none: random ones have digits or capitals.
	words = form.Form{{Of: form.Lower + "//==__..~~--", Min: 1}}
)

// said returns GitHub's own words in the body of a refusal: its message, and what
// it lists under errors, in one line of at most maxSaid characters. Whatever looks
// like a credential or a config is hidden: the token of the call, texts that are
// marked as one, and all long ones but words and those in known, which we sent
// ourselves and which are no secret. It is empty for what is not GitHub's JSON.
func said(body io.Reader, token secret.Text, known ...string) string {
	b, err := io.ReadAll(io.LimitReader(body, maxProblem+1))
	if err != nil || len(b) > maxProblem {
		return ""
	}
	var p struct {
		Message any `json:"message"`
		Errors  any `json:"errors"`
	}
	if json.Unmarshal(b, &p) != nil {
		return ""
	}
	return clean(strings.Join(append(texts(p.Message), texts(p.Errors)...), ": "), token, known)
}

// texts returns the texts in a value of GitHub's: one, a list of them, or a list
// of objects with a message, or with a field and a code.
func texts(v any) (out []string) {
	switch v := v.(type) {
	case string:
		if strings.TrimSpace(v) != "" {
			out = append(out, v)
		}
	case []any:
		for _, x := range v {
			if _, nested := x.([]any); !nested {
				out = append(out, texts(x)...)
			}
		}
	case map[string]any:
		for _, key := range []string{"message", "field", "code"} {
			if s, ok := v[key].(string); ok {
				out = append(out, texts(s)...)
			}
		}
	}
	return out
}

// clean makes one line of printable text, without what looks secret.
func clean(s string, token secret.Text, known []string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, " "), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsGraphic(r)
	}), " ")
	if t := token.Reveal(); len(t) >= 8 { // a shorter one is none, and would be in words
		s = strings.ReplaceAll(s, t, hidden)
	}
	s = marked().ReplaceAllString(s, hidden)
	s = runs().ReplaceAllStringFunc(s, func(run string) string {
		if words.Fits(run) || slices.Contains(known, strings.TrimRight(run, ".")) {
			return run
		}
		return hidden
	})
	if r := []rune(s); len(r) > maxSaid {
		s = string(r[:maxSaid-1]) + "…"
	}
	return s
}
