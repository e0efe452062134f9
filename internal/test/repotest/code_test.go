package repotest

import (
	"encoding/json"
	"fmt"
	"go/format"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"mvdan.cc/sh/v3/syntax"
)

// fenced is a block of code in a document, with its language; it may be part of a list.
var fenced = regexp.MustCompile("(?ms)^( *)```([a-z]+)\n(.*?)^ *```$")

// blocks returns the blocks of code in documents that their language cannot parse. Those
// without a language are text, Mermaid's pictures have a test of their own, and workflows
// in documents are those of the examples, which actionlint reads.
func blocks(all []file) []string {
	var problems []string
	for _, f := range all {
		if path.Ext(f.path) != ".md" || strings.Contains("/"+f.path, "/testdata/") {
			continue
		}
		for _, at := range fenced.FindAllStringSubmatchIndex(f.text, -1) {
			indent, language, code := f.text[at[2]:at[3]], f.text[at[4]:at[5]], f.text[at[6]:at[7]]
			if indent != "" {
				code = strings.ReplaceAll("\n"+code, "\n"+indent, "\n")
			}
			if err := parse(language, code); err != nil {
				problems = append(problems, fmt.Sprintf("%s: this is no %s: %v", f.line(at[0]), language, err))
			}
		}
	}
	return problems
}

var (
	testNamed    = regexp.MustCompile("`(Test[A-Z]\\w*)[`/]")
	testDeclared = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
)

// unknownTests returns the places in documents that name a test which no package has.
func unknownTests(all []file) []string {
	declared := map[string]bool{}
	for _, f := range all {
		if strings.HasSuffix(f.path, "_test.go") {
			for _, m := range testDeclared.FindAllStringSubmatch(f.text, -1) {
				declared[m[1]] = true
			}
		}
	}
	var problems []string
	for _, f := range all {
		if path.Ext(f.path) != ".md" {
			continue
		}
		for _, at := range testNamed.FindAllStringSubmatchIndex(f.text, -1) {
			if name := f.text[at[2]:at[3]]; !declared[name] {
				problems = append(problems, fmt.Sprintf("%s: there is no %s", f.line(at[2]), name))
			}
		}
	}
	return problems
}

func TestUnknownTestsAreFound(t *testing.T) {
	all := []file{
		{path: "a/a_test.go", text: "package a\n\nfunc TestThere(t *testing.T) {}\n"},
		{path: "docs/a.md", text: "`TestThere`, `TestThere/Part`, TestNothing and\n`TestAway`.\n"},
	}
	if got := unknownTests(all); len(got) != 1 || got[0] != "docs/a.md:2: there is no TestAway" {
		t.Errorf("unknownTests = %q, want TestAway alone", got)
	}
}

func parse(language, code string) error {
	switch language {
	case "json":
		var v any
		return json.Unmarshal([]byte(code), &v)
	case "sh":
		_, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(code), "")
		return err
	case "hcl":
		if _, problems := hclsyntax.ParseConfig([]byte(code), "", hcl.InitialPos); problems.HasErrors() {
			return problems
		}
	case "go":
		_, err := format.Source([]byte(code))
		return err
	}
	return nil
}

func TestBlocksThatDoNotParseAreFound(t *testing.T) {
	for text, bad := range map[string]bool{
		"```json\n{\"a\": 1}\n```\n":                false,
		"```json\n{\"a\": 1,}\n```\n":               true,
		"```sh\ngaro list --repo a/b | head\n```\n": false,
		"```sh\nif true; then\n```\n":               true,
		"1. so:\n\n   ```hcl\n   a = 1\n   ```\n":   false,
		"```hcl\na = {\n```\n":                      true,
		"```go\nx := f()\n```\n":                    false,
		"```go\nx := \n```\n":                       true,
		"```\nanything {\n```\n":                    false,
	} {
		if got := blocks([]file{{path: "docs/a.md", text: text}}); len(got) > 0 != bad {
			t.Errorf("blocks of %q = %q, want a problem: %t", text, got, bad)
		}
	}
}
