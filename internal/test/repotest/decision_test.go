package repotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// storePath is the package whose rules decide.
const storePath = "github.com/alphagov/github-actions-runner-orchestration/store"

// simPath is the simulation, which compares items without what differs between two
// worlds, and commits none.
const simPath = "github.com/alphagov/github-actions-runner-orchestration/internal/sim"

// items are the types of package store that are kept.
var items = map[string]bool{"Meta": true, "Request": true, "Runner": true, "Lock": true, "Pulse": true, "Quota": true, "Sweep": true, "Points": true, "Checkup": true, "ReaperRun": true, "Overflow": true}

// listed is what go list tells of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Standard                bool
	Module                  *struct{ Main bool }
}

// list returns the packages of the repository and all that they import, with what the
// compiler exports of each.
func list(t *testing.T, patterns ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Standard,Module"}, patterns...)...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// importerOf imports from what the compiler exports of the packages.
func importerOf(all []listed) types.Importer {
	exports := map[string]string{}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// breaches returns where a package breaks one of the two rules: it assigns a field of an
// item, or decides which items are in a commit.
func breaches(fset *token.FileSet, files []*ast.File, info *types.Info) []string {
	var found []string
	add := func(at ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s", fset.Position(at.Pos()), what))
	}
	assigned := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.SelectorExpr:
				if name := itemOf(info.TypeOf(x.X)); name != "" {
					add(x, fmt.Sprintf("assigns %s of a store.%s: let a rule of package store do it", x.Sel.Name, name))
					return
				}
				e = x.X
			default:
				return
			}
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					assigned(e)
				}
			case *ast.IncDecStmt:
				assigned(n.X)
			case *ast.CallExpr:
				if name := storeFunc(info, n.Fun); name == "Put" || name == "Check" {
					add(n, "calls store."+name+": commit the Changes of a store.Decision")
				}
			case *ast.CompositeLit:
				if name := named(info.TypeOf(n)); name == "Change" || name == "Decision" && len(n.Elts) > 0 {
					add(n, "makes a store."+name+": commit the Changes of a rule's decision")
				}
			}
			return true
		})
	}
	return found
}

// named returns the name of a type of package store, or of what it points to.
func named(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	n, ok := t.(*types.Named)
	if !ok || n.Obj().Pkg() == nil || n.Obj().Pkg().Path() != storePath {
		return ""
	}
	return n.Obj().Name()
}

func itemOf(t types.Type) string {
	if name := named(t); items[name] {
		return name
	}
	return ""
}

func storeFunc(info *types.Info, fun ast.Expr) string {
	s, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	f, ok := info.Uses[s.Sel].(*types.Func)
	if !ok || f.Pkg() == nil || f.Pkg().Path() != storePath || f.Signature().Recv() != nil {
		return ""
	}
	return f.Name()
}

func TestOnlyPackageStoreDecides(t *testing.T) {
	all := list(t, "./...")
	fset, imports := token.NewFileSet(), importerOf(all)
	checked := 0
	for _, p := range all {
		if p.Module == nil || !p.Module.Main || p.ImportPath == storePath || strings.HasPrefix(p.ImportPath, storePath+"/") || strings.HasPrefix(p.ImportPath, simPath) {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
		if _, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, info); err != nil {
			t.Fatalf("%s: %v", p.ImportPath, err)
		}
		checked++
		for _, b := range breaches(fset, files, info) {
			t.Error(b)
		}
	}
	if checked < 20 {
		t.Errorf("%d packages were read, want those of the repository", checked)
	}
}

// The rule itself finds what it is for.
func TestBreachesAreFound(t *testing.T) {
	all := list(t, "./store")
	for name, c := range map[string]struct {
		body string
		want int
	}{
		"AField":          {`r.State = store.Ready`, 1},
		"AFieldOfAField":  {`run.Config.N = 1`, 1},
		"AnElement":       {`run.Names[0].N = 1`, 1},
		"ACount":          {`r.Tries++`, 1},
		"AnEmbeddedField": {`r.Meta.Version = 1; r.DueAt = r.CreatedAt`, 2},
		"ThroughAPointer": {`(&r).State = store.Ready`, 1},
		"AWholeItem":      {`r = store.Request{}`, 0},
		"APut":            {`_ = store.Put(&r)`, 1},
		"AChange":         {`_ = store.Change{Item: &r}`, 1},
		"ADecision":       {`_ = store.Decision{Changes: nil}`, 1},
		"NoDecision":      {`_ = store.Decision{}`, 0},
		"AnotherType":     {`w := store.Wait{}; w.For = "x"`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			fset := token.NewFileSet()
			src := "package p\nimport \"" + storePath + "\"\nfunc f(r store.Request, run store.Runner) {\n" + c.body + "\n_, _ = r, run }\n"
			f, err := parser.ParseFile(fset, "p.go", src, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
			if _, err := (&types.Config{Importer: importerOf(all)}).Check("p", fset, []*ast.File{f}, info); err != nil {
				t.Fatal(err)
			}
			if got := breaches(fset, []*ast.File{f}, info); len(got) != c.want {
				t.Errorf("%q breaks the rules %d times %v, want %d", c.body, len(got), got, c.want)
			}
		})
	}
}
