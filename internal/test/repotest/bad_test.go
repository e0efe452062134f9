package repotest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Every check finds what it is there for, and is content with what is right.
func TestChecksSee(t *testing.T) {
	const sections = "\n## Context\nx\n## Decision\nx\n## Rejected\nx\n## Consequences\nx\n"
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for _, c := range []struct {
		name  string
		check func([]file) []string
		files map[string]string
		want  string // in a problem; empty: there must be none
	}{
		{"PackageWithoutComment", packageDocs, map[string]string{"a/a.go": "package a\n"}, `a: Package a: package comments in []`},
		{"PackageWithTwoComments", packageDocs, map[string]string{"a/a.go": "// Package a is.\npackage a\n", "a/b.go": "// Package a is not.\npackage a\n"}, `["a/a.go" "a/b.go"]`},
		{"CommentAboutAnotherPackage", packageDocs, map[string]string{"a/a.go": "// Package apple is.\npackage a\n"}, `want "Package a"`},
		{"CommandThatSaysPackage", packageDocs, map[string]string{"cmd/x/main.go": "// Package main is.\npackage main\n"}, `want "Command x"`},
		{"CommentOfATestIsNone", packageDocs, map[string]string{"a/a.go": "package a\n", "a/a_test.go": "// Package a is.\npackage a\n"}, `a: Package a: package comments in []`},
		{"TestsAloneWithoutComment", packageDocs, map[string]string{"a/a_test.go": "package a_test\n"}, `a: Package a: package comments in []`},
		{"FileThatIsNoGo", packageDocs, map[string]string{"a/a.go": "pakage a\n"}, `a/a.go:1:1`},
		{"CommentsInOrder", packageDocs, map[string]string{
			"a/a.go": "// Package a is.\npackage a\n", "a/b.go": "package a\n", "a/a_test.go": "package a_test\n",
			"b/b_test.go": "// Package b is.\npackage b\n", "cmd/x/main.go": "// Command x does.\npackage main\n", "a/testdata/z.go": "package z\n",
		}, ""},

		{"WorkPutOff", leftovers, map[string]string{"a.go": "package a\n\n// TO" + "DO: later\n"}, "a.go:3: TO" + "DO"},
		{"WorkToBeMended", leftovers, map[string]string{"a.go": "package a // FIX" + "ME\n"}, "a.go:1: FIX" + "ME"},
		{"SkippedTest", leftovers, map[string]string{"a_test.go": "package a\nfunc TestX(t *testing.T) { t.Sk" + "ip() }\n"}, "a_test.go:2: t.Sk" + "ip("},
		{"SkippedBenchmark", leftovers, map[string]string{"a_test.go": "package a\nb.Sk" + "ipf(\"no\")\n"}, "a_test.go:2"},
		{"SkippedTestNextToTheSanctionedOne", leftovers, map[string]string{"internal/test/awstest/other.go": "package awstest\nfunc f(t testing.TB) { t.Sk" + "ip() }\n"}, "other.go:2: t.Sk" + "ip("},
		{"SanctionedSkip", leftovers, map[string]string{"internal/test/awstest/need.go": "package awstest\nfunc f(t testing.TB) { t.Sk" + "ip() }\n"}, ""},
		{"WorkPutOffNextToTheSanctionedSkip", leftovers, map[string]string{"internal/test/awstest/need.go": "package awstest // TO" + "DO\n"}, "need.go:1: TO" + "DO"},
		{"OtherWordsAreFine", leftovers, map[string]string{"a.go": "package a // fs.SkipDir, todos\n", "a.md": "TO" + "DO"}, ""},

		{"TypeWithTooManyMethods", crowded, map[string]string{
			"a/a.go": "package a\n" + strings.Repeat("func (t *T[V]) m() {}\n", maxMethods), "a/b.go": "package a\nfunc (T[V]) m() {}\n",
		}, "a.T: 41 methods"},
		{"MethodsOfTestsAndOfOtherTypes", crowded, map[string]string{
			"a/a.go": "package a\n" + strings.Repeat("func (t T) m() {}\n", maxMethods) + "func (u U) m() {}\nfunc f() {}\n", "a/a_test.go": "package a\nfunc (t T) n() {}\n",
		}, ""},

		{"NeighbouringFolder", foreign, map[string]string{"a.md": "see .." + "/shared/x"}, `a.md:1: "../sha`},
		{"NeighbouringFolderForCIAlone", foreign, map[string]string{".ci/run": "ls .." + "/shared"}, ""},
		{"PathOfOneMachine", foreign, map[string]string{"a.go": "\n// in /wo" + "rk/main\n"}, "a.go:2"},
		{"PathOfOneMachineAtTheStart", foreign, map[string]string{"a.sh": "/wo" + "rk/main/x\n"}, "a.sh:1"},
		{"PathOfAnotherPlace", foreign, map[string]string{"a.go": "/opt/garo/wo" + "rk/x _wo" + "rk/y $HOME/wo" + "rk/z"}, ""},
		{"DocumentThatIsNotHere", foreign, map[string]string{"a.go": "// FAU" + "LTS.md row 12"}, "a.go:1"},
		{"TalkOfTheMaking", foreign, map[string]string{"a.md": "In this working ses" + "sion"}, "a.md:1"},

		{"TargetThatIsNotThere", makeTargets, map[string]string{"Makefile": "test:\n\tgo test\n", "a.md": "Run `make tests`."}, "a.md:1: the Makefile has no target tests"},
		{"TargetThatIsNotThereInAFence", makeTargets, map[string]string{"Makefile": "a:\n", "a.md": "x\n```sh\n$ cd x && make a b # c\n```\n"}, "a.md:3: the Makefile has no target b"},
		{"VariableIsNoTarget", makeTargets, map[string]string{"Makefile": "X := 1\n", "a.md": "`make X`"}, "no target X"},
		{"TargetsThatAreThere", makeTargets, map[string]string{"Makefile": "FOO = 1\n.PHONY: test\ntest fuzz: x\n", "a.md": "`make`, `make test`, `make fuzz FOO=1 -j2`; make sure. `a` make it `b`\n```\nmake test; make fuzz\n```\n"}, ""},

		{"LinkToNothing", links, map[string]string{"docs/a.md": "[x](b.md)"}, "docs/a.md:1: link to b.md"},
		{"LinkWithFragmentToNothing", links, map[string]string{"a.md": "\n[x](docs/b.md#c \"t\")"}, "a.md:2: link to docs/b.md"},
		{"LinkDefinitionToNothing", links, map[string]string{"a.md": "[x]: b.md\n"}, "a.md:1: link to b.md"},
		{"LinkToNoHeading", links, map[string]string{"a.md": "[x](docs/b.md#c)", "docs/b.md": "# d\n"}, "a.md:1: docs/b.md has no heading #c"},
		{"LinkToNoHeadingOfItsOwn", links, map[string]string{"a.md": "# b\n[x](#c)"}, "a.md:2: a.md has no heading #c"},
		{"LinksToHeadings", links, map[string]string{"a.md": "# B `c`, d-e!\n## f\n## f\n[x](#b-c-d-e) [y](docs/a.md#f-1) [z](#f-1)", "docs/a.md": "# f\n# f\n"}, ""},
		{"PageNotListed", unlisted, map[string]string{"docs/README.md": "# x\n\nFor y: [a](a.md)", "docs/a.md": "# a\n\nFor y.", "docs/b.md": "# b\n\nFor y."}, "docs/b.md is not in docs/README.md"},
		{"PageForNobody", unlisted, map[string]string{"docs/README.md": "# x\n\nFor y: [a](a.md)", "docs/a.md": "# a\n\nThis is a."}, "docs/a.md: say in the first sentence"},
		{"PagesListed", unlisted, map[string]string{"docs/README.md": "# x\n\nFor y: [a](a.md)", "docs/a.md": "# a\n\nFor y."}, ""},
		{"LinkOutOfTheRepository", links, map[string]string{"a.md": "[x](../a.md)"}, "link to ../a.md"},
		{"LinksThatLeadSomewhere", links, map[string]string{"docs/a.md": "[x](../b.go) [z](https://example.com/q) [d](../docs) `[n](no.md)`\n```\n[n](no.md)\n```\n", "b.go": ""}, ""},

		{"DecisionMissing", decisions, map[string]string{"docs/adr/0001-a.md": "# 0001: a\n" + sections, "docs/adr/0003-b.md": "# 0003: b\n" + sections}, "0003-b.md: want number 0002"},
		{"DecisionTwice", decisions, map[string]string{"docs/adr/0001-a.md": "# 0001: a\n" + sections, "docs/adr/0001-b.md": "# 0001: b\n" + sections}, "0001-b.md: want number 0002"},
		{"DecisionWithoutRejected", decisions, map[string]string{"docs/adr/0001-a.md": "# 0001: a\n" + strings.Replace(sections, "## Rejected\nx\n", "", 1)}, "sections with text"},
		{"DecisionWithEmptyRejected", decisions, map[string]string{"docs/adr/0001-a.md": "# 0001: a\n" + strings.Replace(sections, "## Rejected\nx\n", "## Rejected\n", 1)}, "sections with text"},
		{"DecisionWithAnotherTitle", decisions, map[string]string{"docs/adr/0001-a.md": "# 0002: a\n" + sections}, "want it to begin"},
		{"DecisionWithoutNumber", decisions, map[string]string{"docs/adr/a.md": sections}, "docs/adr/a.md: want a name"},
		{"TemplateWithoutSections", decisions, map[string]string{"docs/adr/0001-a.md": "# 0001: a\n" + sections, "docs/adr/template.md": "# 0000: title\n"}, "template.md: sections"},
		{"NoDecisions", decisions, map[string]string{"a.md": ""}, "docs/adr: no decisions"},
		{"DecisionsInOrder", decisions, map[string]string{"docs/adr/0001-a.md": "# 0001: a\n" + sections, "docs/adr/0002-b.md": "# 0002: b\n" + sections, "docs/adr/template.md": sections}, ""},

		{"ActionByTag", pinnedActions, map[string]string{".github/workflows/x.yml": "steps:\n  - uses: actions/checkout@v6\n"}, "x.yml:2: actions/checkout@v6"},
		{"ActionByShortCommit", pinnedActions, map[string]string{".github/workflows/x.yaml": "steps:\n  - name: a\n    uses: 'a/b@0123456'\n"}, "x.yaml:3: a/b@0123456"},
		{"ActionOfOursByBranch", pinnedActions, map[string]string{"client/action/action.yml": "    - uses: a/b/c@main\n"}, "a/b/c@main"},
		{"ImageByTag", pinnedActions, map[string]string{".github/workflows/x.yml": "- uses: docker://alpine:3\n"}, "docker://alpine:3"},
		{"ActionsByCommit", pinnedActions, map[string]string{
			".github/workflows/x.yml": "- uses: a/b@" + commit + " # v1\n- uses: \"a/b/c@" + commit + "\"\n- uses: ./client/action\n", "docs/x.yml": "uses: a/b@v1",
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for name, text := range c.files {
				tree[name] = &fstest.MapFile{Data: []byte(text)}
			}
			see(t, c.check(files(t, tree)), c.want)
		})
	}
}

func TestModuleChecksSee(t *testing.T) {
	parse := func(text string) gomod {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n\ngo 1.26.0\n\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readGoMod(t, dir)
	}
	mod := parse("require (\n\texample.com/a v1.0.0\n\texample.com/i v1.0.0 // indirect\n)\n")
	tools := parse("tool example.com/t/cmd/t\n")
	rows := func(names ...string) file {
		f := file{path: dependenciesPath, text: "| name | why |\n|---|---|\n"}
		for _, n := range names {
			f.text += "| `" + n + "` | x |\n"
		}
		return f
	}
	for _, c := range []struct {
		name string
		got  []string
		want string
	}{
		{"ReplacedModule", replaced(mod, parse("replace example.com/a => ../a\n")), "go.mod replaces example.com/a"},
		{"NothingReplaced", replaced(mod, tools), ""},
		{"ModuleWithoutRow", dependencies(mod, tools, rows("example.com/t/cmd/t")), "no row for example.com/a"},
		{"ToolWithoutRow", dependencies(mod, tools, rows("example.com/a")), "no row for example.com/t/cmd/t"},
		{"RowWithoutModule", dependencies(mod, tools, rows("example.com/a", "example.com/t/cmd/t", "example.com/old")), "example.com/old is not used"},
		{"RowForAnIndirectModule", dependencies(mod, tools, rows("example.com/a", "example.com/t/cmd/t", "example.com/i")), "example.com/i is not used"},
		{"EveryRowInPlace", dependencies(mod, tools, rows("example.com/a", "example.com/t/cmd/t")), ""},
	} {
		t.Run(c.name, func(t *testing.T) { see(t, c.got, c.want) })
	}
}

// see fails the test unless want is in a problem; if it is empty, there may be none.
func see(t *testing.T, problems []string, want string) {
	t.Helper()
	if want == "" {
		report(t, problems)
	} else if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, want) }) {
		t.Errorf("the check found %q, want %q in one of them", problems, want)
	}
}

func TestFilesHaveTheTextOfWhatIsText(t *testing.T) {
	tree := fstest.MapFS{
		"a.go": {Data: []byte("package a")}, ".ci/run": {Data: []byte("x")}, "internal/bin/b.go": {Data: []byte("package b")},
		"image.png": {Data: []byte("\x89PNG\x00")}, ".git/config": {Data: []byte("x")}, "bin/garo.md": {Data: []byte("x")},
		"terraform/.terraform/x.tf": {Data: []byte("x")},
	}
	worktree := fstest.MapFS{".git": {Data: []byte("gitdir: elsewhere")}}
	if got := files(t, worktree); len(got) != 0 {
		t.Errorf("files of a second work tree = %q, want none", got)
	}
	var got []string
	for _, f := range files(t, tree) {
		got = append(got, f.path+": "+f.text)
	}
	if want := []string{".ci/run: x", "a.go: package a", "image.png: ", "internal/bin/b.go: package b"}; !slices.Equal(got, want) {
		t.Errorf("files = %q, want %q", got, want)
	}
}
