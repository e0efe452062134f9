package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFigures(t *testing.T) {
	long := "package x\n\nfunc f(a, b int, c string) (int, error) {\n" + strings.Repeat("\tif a > 0 && b > 0 {\n\t}\n", 40) + "\treturn 0, nil\n}\n"
	branches := `package store

import "github.com/alphagov/github-actions-runner-orchestration/internal/x"

type T[V any] struct{}

func (t *T[V]) M(a, b int, c string) (int, error) {
	for range a {
		switch {
		case a > 1 && b > 1 || c == "":
		default:
		}
		select {
		case <-x.Done():
		default:
		}
	}
	return 0, nil
}
`
	s := see(t, map[string]string{
		"internal/x/x.go": long, "internal/x/testdata/y.go": "no Go", "internal/x/z/z_test.go": "package z",
		"store/store.go": branches, "store/a/a.go": strings.Repeat("// more\n", longFile) + "package a\n\nimport _ \"github.com/alphagov/github-actions-runner-orchestration/store\"\n",
	})
	var b strings.Builder
	s.print(&b, true)
	for _, want := range []string{
		"rooms directly under internal/ 1", "directories with Go files under internal/ 2",
		"files over 300 lines 1 store/a/a.go 303", "functions over 60 lines 1 internal/x.f 83",
		"cyclomatic complexity over 15 1 internal/x.f 81", "types with the most methods store.T 1",
		"most parameters in package store store.T.M 3", "most results in package store store.T.M 2",
		"between packages 2 store -> internal/x store/a -> store", "between rooms 1 store -> internal/x",
	} {
		if got := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(got, want) {
			t.Errorf("shape = %q, want %q in it", got, want)
		}
	}
}

func TestComplexityCountsAsGocycloDoes(t *testing.T) {
	s := see(t, map[string]string{"a/a.go": "package a\n\nfunc f(c chan int) {\n" +
		"\tfor range 9 {\n\t\tselect {\n\t\tcase <-c:\n\t\tdefault:\n\t\t}\n\t}\n" + // 3
		"\tswitch {\n" + strings.Repeat("\tcase c == nil || c != nil:\n", 6) + "\tdefault:\n\t}\n" + // 12
		"\t_ = func() {\n\t\tfor {\n\t\t}\n\t}\n}\n"}) // 1
	if len(s.branches) != 1 || s.branches[0] != (sized{"a.f", 16}) {
		t.Errorf("branches = %v, want a.f with 16", s.branches)
	}
}

// see counts a tree of files.
func see(t *testing.T, files map[string]string) *shape {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
