package repotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// root is where go test runs this package from, seen from there.
const root = "../../.."

// module is the path of the module that is tested.
const module = "github.com/alphagov/github-actions-runner-orchestration"

// file is a file of the repository.
type file struct {
	path string // from the root, with slashes
	text string // empty: it is no text
}

// files returns the files under fsys, in the order of their paths. What git
// ignores, and git's own, is left out.
func files(t *testing.T, fsys fs.FS) []file {
	t.Helper()
	var all []file
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		left := slices.Contains([]string{".git", "bin", "dist", ".garo"}, name) || d.Name() == ".terraform"
		switch {
		case left && d.IsDir():
			return fs.SkipDir
		case left || d.IsDir(): // in a second work tree .git is a file
			return nil
		}
		b, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed since its directory was read
		}
		if bytes.IndexByte(b, 0) >= 0 {
			b = nil // a picture
		}
		if err == nil {
			all = append(all, file{name, string(b)})
		}
		return err
	})
	if err != nil {
		t.Fatalf("read the repository: %v", err)
	}
	return all
}

// find returns the file at a path, or an empty one.
func find(all []file, name string) file {
	for _, f := range all {
		if f.path == name {
			return f
		}
	}
	return file{path: name}
}

// line returns the place of an offset in f, for a message.
func (f file) line(offset int) string {
	return fmt.Sprintf("%s:%d", f.path, 1+strings.Count(f.text[:offset], "\n"))
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string // by its files that are no tests
	Deps       []string // all that Imports lead to
}

// gomod is what go mod edit says of a go.mod.
type gomod struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Replace []struct{ Old struct{ Path string } }
	Tool    []struct{ Path string }
}

// goJSON decodes each JSON value that a go command prints, in a directory.
func goJSON[T any](t *testing.T, dir string, args ...string) []T {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var all []T
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var v T
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go %s: %v", strings.Join(args, " "), err)
		}
		all = append(all, v)
	}
}

func readGoMod(t *testing.T, dir string) gomod {
	t.Helper()
	return goJSON[gomod](t, dir, "mod", "edit", "-json")[0]
}

func report(t *testing.T, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

func TestRepository(t *testing.T) {
	all := files(t, os.DirFS(root))
	mod, tools := readGoMod(t, root), readGoMod(t, path.Join(root, "tools"))
	for name, problems := range map[string][]string{
		"EveryPackageSaysWhatItIs":       packageDocs(all),
		"GoFilesLeaveNothingUndone":      leftovers(all),
		"TypesAreNotCrowded":             crowded(all),
		"TextsSpeakOfTheProjectAlone":    foreign(all),
		"DocumentsNameTargetsThatExist":  makeTargets(all),
		"LinksLeadSomewhere":             links(all),
		"PagesAreListed":                 unlisted(all),
		"CodeInDocumentsParses":          blocks(all),
		"DocumentsNameTestsThatExist":    unknownTests(all),
		"DecisionsAreNumberedAndWhole":   decisions(all),
		"WorkflowsPinActionsByCommit":    pinnedActions(all),
		"NoModuleIsReplaced":             replaced(mod, tools),
		"DependenciesAreExplained":       dependencies(mod, tools, find(all, dependenciesPath)),
		"ImportRulesAreWrittenCorrectly": malformed(importRules),
	} {
		t.Run(name, func(t *testing.T) { report(t, problems) })
	}
}

func TestImports(t *testing.T) {
	all := goJSON[pkg](t, root, "list", "-json=ImportPath,Imports,Deps", "./...")
	report(t, forbidden(importRules, all))
	report(t, unsorted(all))
	_, tree, _ := strings.Cut(find(files(t, os.DirFS(root)), "README.md").text, "\n## Layout\n")
	report(t, unnamed(all, tree))
}

// unnamed returns the folders right below store and internal, and below the two that
// have parts of their own, that the tree in README.md does not name.
func unnamed(all []pkg, tree string) []string {
	words := strings.Fields(strings.ReplaceAll(tree, "/", "/ "))
	var problems []string
	for _, p := range all {
		parts := strings.Split(short(p.ImportPath), "/")
		depth := 2
		if len(parts) > 1 && (parts[1] == "sim" || parts[1] == "test") {
			depth = 3
		}
		if len(parts) < depth || parts[0] != "store" && parts[0] != "internal" {
			continue
		}
		dir := strings.Join(parts[:depth], "/")
		if problem := dir + ": the tree in README.md does not name it"; !slices.Contains(words, parts[depth-1]+"/") && !slices.Contains(problems, problem) {
			problems = append(problems, problem)
		}
	}
	return problems
}

func TestUnnamedFoldersAreFound(t *testing.T) {
	var all []pkg
	for _, name := range []string{"store", "store/a", "internal/b", "internal/b/c", "internal/sim", "internal/sim/d", "internal/e", "internal/e/f", "cmd/g"} {
		all = append(all, pkg{ImportPath: module + "/" + name})
	}
	if got := unnamed(all, "a/ b/ sim/"); !slices.Equal(got, []string{
		"internal/sim/d: the tree in README.md does not name it", "internal/e: the tree in README.md does not name it",
	}) {
		t.Errorf("unnamed = %q, want internal/sim/d and internal/e", got)
	}
}
