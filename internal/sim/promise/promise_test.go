package promise_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// words are what the oracle trusts of package store: what the words of records mean,
// and how they are kept.
var words = strings.Fields("Final Usable Names OfJob BootLimit Timeout LockKey ClientToken Placement SeenOf Hard Ref Base Encode SweepKey String Key Day ParseUSD")

// files parses the production code of a directory.
func files(t *testing.T, dir string) (all []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// A rule that judges itself is always right.
func TestOracleAsksNoRuleOfTheStore(t *testing.T) {
	t.Parallel()
	rules := map[string]bool{} // all that package store does, by name
	for _, f := range files(t, "../../../store") {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				// A Batch decides nothing, and its Add has the name of a time's.
				batch := fn.Recv != nil && types.ExprString(fn.Recv.List[0].Type) == "*Batch"
				rules[fn.Name.Name] = fn.Name.IsExported() && !batch && !slices.Contains(words, fn.Name.Name)
			}
		}
	}
	if !rules["DrainReason"] || !rules["Registered"] {
		t.Fatal("the rules of package store are not found")
	}
	for _, f := range files(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if ok && rules[s.Sel.Name] && !slices.Contains([]string{"errors", "h.Store()", "p.Keys"}, types.ExprString(s.X)) {
				t.Errorf("the oracle asks %s, which is a rule of package store", types.ExprString(call))
			}
			return true
		})
	}
}
