package repotest

import (
	"go/constant"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// glossaryName finds `store.Case.Drain` and the like.
var glossaryName = regexp.MustCompile("`([a-z0-9]+)\\.([A-Z][A-Za-z]*)(?:\\.([A-Z][A-Za-z]*))?`")

func TestGlossaryHasTheWordsOfTheCode(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	packages := exported(t, "./...")
	inGlossary := map[string]bool{}
	for _, m := range glossaryName.FindAllStringSubmatch(string(b), -1) {
		inGlossary[m[1]+"."+m[2]] = true
		if !declares(packages[m[1]], m[2], m[3]) {
			t.Errorf("docs/glossary.md names %s, which the code does not have", strings.Trim(m[0], "`"))
		}
	}
	scope := packages["store"][0].Scope()
	for _, name := range scope.Names() {
		if _, ok := scope.Lookup(name).(*types.TypeName); ok && scope.Lookup(name).Exported() && !inGlossary["store."+name] {
			t.Errorf("docs/glossary.md does not have store.%s: say in a sentence what it means", name)
		}
	}
	if len(inGlossary) < 50 {
		t.Errorf("docs/glossary.md names %d things of the code, want at least 50", len(inGlossary))
	}
}

// exported returns the packages of the repository by their last name, from what the
// compiler exports of them.
func exported(t *testing.T, patterns ...string) map[string][]*types.Package {
	t.Helper()
	all := list(t, patterns...)
	imports := importerOf(all)
	packages := map[string][]*types.Package{}
	for _, p := range all {
		if p.Module == nil || !p.Module.Main || p.Export == "" || strings.HasPrefix(p.ImportPath, "command-line") {
			continue
		}
		pkg, err := imports.Import(p.ImportPath)
		if err != nil {
			t.Fatal(err)
		}
		packages[path.Base(p.ImportPath)] = append(packages[path.Base(p.ImportPath)], pkg)
	}
	return packages
}

// declares reports whether one of the packages exports a name, and that a method or field.
func declares(packages []*types.Package, name, member string) bool {
	for _, p := range packages {
		o := p.Scope().Lookup(name)
		if o == nil {
			continue
		}
		if member == "" {
			return true
		}
		if found, _, _ := types.LookupFieldOrMethod(o.Type(), true, p, member); found != nil {
			return true
		}
	}
	return false
}

// A code that its list lacks is one without a text, an alarm or a line in the documents:
// what looks for those goes by the list.
func TestListsOfPackageStoreAreWhole(t *testing.T) {
	scope := exported(t, "./store")["store"][0].Scope()
	for _, l := range []struct {
		list, prefix, typ string // of the constants
		codes             []string
	}{
		{"RequestStates", "", "RequestState", words(store.RequestStates)},
		{"RunnerStates", "", "RunnerState", words(store.RunnerStates)},
		{"Alarms", "", "Alarm", words(store.Alarms)},
		{"Waits", "Wait", "", store.Waits},
		{"EventKinds", "Event", "", store.EventKinds},
		{"EndCodes (the texts of end.go)", "End", "", store.EndCodes()},
	} {
		n := 0
		for _, name := range scope.Names() {
			c, ok := scope.Lookup(name).(*types.Const)
			if !ok || !strings.HasPrefix(name, l.prefix) || l.typ != named(c.Type()) {
				continue
			}
			if n++; !slices.Contains(l.codes, constant.StringVal(c.Val())) {
				t.Errorf("store.%s lacks %s", l.list, name)
			}
		}
		if n == 0 || n < len(l.codes) {
			t.Errorf("store.%s has %d codes, want each of the %d constants once", l.list, len(l.codes), n)
		}
	}
}

func words[S ~string](list []S) []string {
	var out []string
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

// ruleName finds the last column of the tables in the comment of package store.
var ruleName = regexp.MustCompile(`(?m)^//\t\S+ +\S+ .* (?:api|worker|reaper|any) +([A-Z][A-Za-z]*(?:, [A-Z][A-Za-z]*)*)$`)

func TestTablesOfPackageStoreNameItsRules(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "store", "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	packages, n := exported(t, "./store"), 0
	for _, m := range ruleName.FindAllStringSubmatch(string(b), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			_, function := packages["store"][0].Scope().Lookup(name).(*types.Func)
			if n++; !function && !declares(packages["store"], "Case", name) {
				t.Errorf("store/doc.go names the rule %s, which package store does not have", name)
			}
		}
	}
	if n < 30 {
		t.Errorf("the tables name %d rules, want at least 30", n)
	}
}
