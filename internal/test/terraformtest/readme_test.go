package terraformtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// block is a variable, an output, a validation or a run of a module.
type block struct {
	kind, name string
	attributes map[string]string // as written
	blocks     []block
}

// text returns an attribute that is a plain string.
func (b block) text(name string) string { return strings.Trim(b.attributes[name], `"`) }

// blocks returns the blocks of all files of a folder that fit the pattern.
func blocks(t *testing.T, pattern string) []block {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		out = append(out, in(src, file.Body.(*hclsyntax.Body))...)
	}
	return out
}

func in(src []byte, body *hclsyntax.Body) []block {
	var out []block
	for _, b := range body.Blocks {
		one := block{kind: b.Type, attributes: map[string]string{}, blocks: in(src, b.Body)}
		if len(b.Labels) > 0 {
			one.name = b.Labels[len(b.Labels)-1]
		}
		for name, a := range b.Body.Attributes {
			one.attributes[name] = string(a.Expr.Range().SliceBytes(src))
		}
		out = append(out, one)
	}
	return out
}

func ofKind(all []block, kind string) []block {
	var out []block
	for _, b := range all {
		if b.kind == kind {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b block) int { return strings.Compare(a.name, b.name) })
	return out
}

var space = regexp.MustCompile(`\s+`)

// cell is Terraform code on one line of a table.
func cell(code string) string {
	code = space.ReplaceAllString(code, " ")
	code = strings.NewReplacer("( ", "(", " )", ")", "|", `\|`).Replace(code)
	return "`" + code + "`"
}

// tables are the generated part of a module's README.
func tables(all []block) string {
	var b strings.Builder
	if variables := ofKind(all, "variable"); len(variables) > 0 {
		b.WriteString("\n### Inputs\n\n| name | what it is | type | default |\n|---|---|---|---|\n")
		for _, v := range variables {
			value, kind := "needed", v.attributes["type"]
			if d, ok := v.attributes["default"]; ok {
				value = cell(d)
			}
			if len(kind) > 60 { // an object in full is read in variables.tf
				kind, _, _ = strings.Cut(kind, "({")
				kind = strings.TrimRight(kind, "(") + "(…)"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.name, prose(v), cell(kind), value)
		}
	}
	if outputs := ofKind(all, "output"); len(outputs) > 0 {
		b.WriteString("\n### Outputs\n\n| name | what it is |\n|---|---|\n")
		for _, o := range outputs {
			secret := ""
			if o.attributes["sensitive"] == "true" {
				secret = " Sensitive."
			}
			fmt.Fprintf(&b, "| `%s` | %s%s |\n", o.name, prose(o), secret)
		}
	}
	return b.String() + "\n"
}

func prose(b block) string {
	return strings.NewReplacer(`\"`, `"`, "|", `\|`).Replace(b.text("description"))
}

const begin, end = "<!-- written by make golden -->\n", "<!-- end -->\n"

// filled returns a document with what is between its two marks replaced.
func filled(t *testing.T, path, content string) (old, filled string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: no %q with %q after it", path, begin, end)
	}
	return string(b), before + begin + content + end + after
}

func compare(t *testing.T, path, content string) {
	t.Helper()
	old, want := filled(t, path, content)
	switch {
	case old == want:
	case *update:
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not as its sources say: run make golden and read the diff", path)
	}
}

// Each module's README lists its inputs and outputs as they are.
func TestGoldenReadmesListInputsAndOutputs(t *testing.T) {
	for _, dir := range dirs(t) {
		compare(t, filepath.Join(dir, "README.md"), tables(blocks(t, filepath.Join(dir, "*.tf"))))
	}
}

// Anyone who reads a table finds out what each input and output is.
func TestInputsAndOutputsAreDescribed(t *testing.T) {
	for _, dir := range dirs(t) {
		for _, b := range blocks(t, filepath.Join(dir, "*.tf")) {
			if (b.kind == "variable" || b.kind == "output") && !strings.HasSuffix(b.text("description"), ".") {
				t.Errorf("%s: %s %s has the description %q, want a sentence", dir, b.kind, b.name, b.text("description"))
			}
			if b.kind == "variable" && b.attributes["type"] == "" {
				t.Errorf("%s: variable %s has no type", dir, b.name)
			}
		}
	}
}

// verbs are what a refusal may begin with: it says what to do.
var verbs = []string{"Begin", "Choose", "Give", "Leave", "List", "Make", "Name", "Set", "Write"}

// Every validation of a module has a run that it refuses, and tells anyone who is
// refused what to do.
func TestValidationsAreTestedAndSayWhatToDo(t *testing.T) {
	for _, dir := range []string{root, root + "/modules/account", root + "/modules/image"} {
		refused := map[string]int{}
		for _, run := range ofKind(blocks(t, filepath.Join(dir, "tests/*.tftest.hcl")), "run") {
			for name := range strings.FieldsFuncSeq(run.attributes["expect_failures"], func(r rune) bool { return strings.ContainsRune("[], \n", r) }) {
				refused[strings.TrimPrefix(name, "var.")]++
			}
		}
		for _, v := range ofKind(blocks(t, filepath.Join(dir, "*.tf")), "variable") {
			validations := ofKind(v.blocks, "validation")
			if refused[v.name] < len(validations) {
				t.Errorf("%s: %s has %d validations, and %d runs that expect a refusal", dir, v.name, len(validations), refused[v.name])
			}
			for _, check := range validations {
				first, _, _ := strings.Cut(check.text("error_message"), " ")
				if !slices.Contains(verbs, first) || !strings.HasSuffix(check.text("error_message"), ".") {
					t.Errorf("%s: %s is refused with %q, want a sentence that says what to do (%s …)", dir, v.name, check.text("error_message"), strings.Join(verbs, ", "))
				}
			}
		}
	}
}

var skips = regexp.MustCompile(`#checkov:skip=(\w+)(: .{15,})?`)

// A finding that is let pass has its reason beside it.
func TestSkippedFindingsAreExplained(t *testing.T) {
	found := 0
	for _, dir := range dirs(t) {
		names, err := filepath.Glob(filepath.Join(dir, "*.tf"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range skips.FindAllStringSubmatch(string(b), -1) {
				found++
				if m[2] == "" {
					t.Errorf("%s: %s is skipped without a reason", name, m[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no skipped finding: does the pattern still fit?")
	}
}
