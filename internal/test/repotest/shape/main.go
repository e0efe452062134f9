// Command shape counts how the Go code is cut: rooms, long files and functions,
// branches, large types, long signatures of package store, and who imports whom.
// It reads the code without tests and testdata, prints one line per figure, and
// with -v the names behind each. It judges nothing: the rules are in package
// repotest.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const module = "github.com/alphagov/github-actions-runner-orchestration/"

// The sizes above which a file or a function is counted. A file of 300 lines is
// five screens, a function of 60 is one, and 15 is gocyclo's usual limit.
const (
	longFile     = 300
	longFunction = 60
	manyBranches = 15
	largest      = 3 // how many of the largest are named
)

func main() {
	names := flag.Bool("v", false, "print the names behind each figure")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: shape [-v] [dir]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	s, err := read(cmp.Or(flag.Arg(0), "."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "shape:", err)
		os.Exit(1)
	}
	s.print(os.Stdout, *names)
}

// sized is something with a size: lines, branches, methods, parameters.
type sized struct {
	name string
	n    int
}

// shape is what was counted. Places are paths from the root.
type shape struct {
	directories, rooms         map[string]bool // with Go files, tests among them
	files, functions, branches []sized         // those above the limits
	methods                    map[string]int  // by directory and type
	parameters, results        []sized         // of package store
	packageArrows, roomArrows  map[string]bool // "a -> b"
}

// read counts what is below root.
func read(root string) (*shape, error) {
	s := &shape{
		directories: map[string]bool{}, rooms: map[string]bool{}, methods: map[string]int{},
		packageArrows: map[string]bool{}, roomArrows: map[string]bool{},
	}
	return s, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "bin" || rel == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		rel = filepath.ToSlash(rel)
		if dir := path.Dir(rel); strings.HasPrefix(dir, "internal/") {
			s.directories[dir], s.rooms[room(dir)] = true, true
		}
		if strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s.count(rel, fset, f)
		return nil
	})
}

func (s *shape) count(rel string, fset *token.FileSet, f *ast.File) {
	dir := path.Dir(rel)
	if n := fset.File(f.FileStart).LineCount(); n > longFile {
		s.files = append(s.files, sized{rel, n})
	}
	for _, i := range f.Imports {
		to, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module)
		if !ours {
			continue
		}
		s.packageArrows[dir+" -> "+to] = true
		if a, b := room(dir), room(to); a != b {
			s.roomArrows[a+" -> "+b] = true
		}
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := dir + "." + fn.Name.Name
		if fn.Recv != nil {
			name = dir + "." + receiver(fn) + "." + fn.Name.Name
			s.methods[dir+"."+receiver(fn)]++
		}
		if n := 1 + fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > longFunction {
			s.functions = append(s.functions, sized{name, n})
		}
		if n := complexity(fn); n > manyBranches {
			s.branches = append(s.branches, sized{name, n})
		}
		if dir == "store" {
			s.parameters = append(s.parameters, sized{name, fn.Type.Params.NumFields()})
			s.results = append(s.results, sized{name, fn.Type.Results.NumFields()})
		}
	}
}

// room is the top of the tree that a directory is in: internal/fleet for
// internal/fleet/ec2fleet, store for store/dynamostore.
func room(dir string) string {
	parts := strings.Split(dir, "/")
	if parts[0] == "internal" || parts[0] == "cmd" {
		return path.Join(parts[:min(2, len(parts))]...)
	}
	return parts[0]
}

func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return "?"
		}
	}
}

// complexity counts as gocyclo does (https://github.com/fzipp/gocyclo).
func complexity(fn *ast.FuncDecl) int {
	n := 1
	ast.Inspect(fn, func(node ast.Node) bool {
		switch x := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if x.List != nil {
				n++
			}
		case *ast.CommClause:
			if x.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if x.Op == token.LAND || x.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

func (s *shape) print(w io.Writer, names bool) {
	total := func(what string, n int, behind []string) {
		fmt.Fprintf(w, "%-58s %5d\n", what, n)
		for _, b := range behind {
			if names {
				fmt.Fprintln(w, "    "+b)
			}
		}
	}
	many := func(what string, all []sized) { total(what, len(all), lines(all)) }
	set := func(what string, m map[string]bool) { total(what, len(m), slices.Sorted(maps.Keys(m))) }
	top := func(what string, all []sized) {
		all = all[:min(largest, len(ordered(all)))]
		fmt.Fprintf(w, "%-58s %s\n", what, strings.Join(lines(all), ", "))
	}
	set("rooms directly under internal/", s.rooms)
	set("directories with Go files under internal/", s.directories)
	many(fmt.Sprintf("files over %d lines", longFile), s.files)
	many(fmt.Sprintf("functions over %d lines", longFunction), s.functions)
	many(fmt.Sprintf("functions with cyclomatic complexity over %d", manyBranches), s.branches)
	var types []sized
	for name, n := range s.methods {
		types = append(types, sized{name, n})
	}
	top("types with the most methods", types)
	top("most parameters in package store", s.parameters)
	top("most results in package store", s.results)
	set("import arrows between packages", s.packageArrows)
	set("import arrows between rooms", s.roomArrows)
}

// ordered sorts in place, the largest first.
func ordered(all []sized) []sized {
	slices.SortFunc(all, func(a, b sized) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
	return all
}

func lines(all []sized) []string {
	var text []string
	for _, x := range ordered(all) {
		text = append(text, fmt.Sprintf("%s %d", x.name, x.n))
	}
	return text
}
