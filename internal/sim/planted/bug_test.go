package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"testing"
)

// root is where the repository begins, from here.
const root = "../../.."

// listed is what the go command says of a package.
type listed struct {
	Dir, ImportPath, Export string
	GoFiles                 []string
}

// list returns the packages of the repository that are in dirs, and what each
// package that they import exports, by import path.
func list(t *testing.T, dirs []string) (map[string]listed, map[string]string) {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-json=Dir,ImportPath,Export,GoFiles"}
	for _, dir := range dirs {
		args = append(args, "./"+dir)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	packages, exports := map[string]listed{}, map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			return packages, exports
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if dir, err := filepath.Rel(here, p.Dir); err == nil && slices.Contains(dirs, filepath.ToSlash(dir)) {
			packages[filepath.ToSlash(dir)] = p
		}
	}
}

// check reports whether the package compiles with some files as they are planted.
func check(p listed, dir string, planted map[string][]byte, exports map[string]string) error {
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		var text any
		if b, ok := planted[path.Join(dir, name)]; ok {
			text = b
		}
		f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	open := func(imported string) (io.ReadCloser, error) {
		if exports[imported] == "" {
			return nil, fmt.Errorf("%s is not listed", imported)
		}
		return os.Open(exports[imported])
	}
	conf := types.Config{Importer: importer.ForCompiler(set, "gc", open)}
	_, err := conf.Check(p.ImportPath, set, files, nil)
	return err
}

func TestPlantedBugsApply(t *testing.T) {
	t.Parallel()
	plantedIn := map[string]map[string][]byte{}
	dirs := map[string]bool{}
	for _, b := range all() {
		files, err := b.Planted(root)
		if err != nil {
			t.Error(err)
			continue
		}
		if plantedIn[b.Name] != nil || b.Breaks == "" {
			t.Errorf("%s is there twice, or does not say what it breaks", b.Name)
		}
		plantedIn[b.Name] = files
		for file := range files {
			dirs[path.Dir(file)] = true
		}
	}
	if len(plantedIn) < 40 {
		t.Errorf("%d bugs, want at least 40", len(plantedIn))
	}
	packages, exports := list(t, slices.Sorted(maps.Keys(dirs)))
	for _, b := range all() {
		for dir := range dirs {
			in := func(file string, _ []byte) bool { return path.Dir(file) != dir }
			files := maps.Clone(plantedIn[b.Name])
			if maps.DeleteFunc(files, in); len(files) == 0 {
				continue
			}
			if err := check(packages[dir], dir, files, exports); err != nil {
				t.Errorf("%s: %v", b.Name, err)
			}
		}
	}
}

func TestBugThatDoesNotApplyIsRefused(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]Bug{
		"Absent":  plant("a", "", edit("go.mod", "there is no such text", "")),
		"Twice":   plant("b", "", edit("go.mod", "github.com", "")),
		"NoFile":  plant("c", "", edit("no/such/file.go", "x", "")),
		"Undoing": plant("d", "", edit("go.mod", "module ", "Module "), edit("go.mod", "module ", "")),
	} {
		if _, err := b.Overlay(root, t.TempDir()); err == nil {
			t.Errorf("%s: Overlay has no error, want one", name)
		}
	}
}
