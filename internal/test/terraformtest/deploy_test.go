package terraformtest

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	deployment = "../../../docs/deploy.md"
	operation  = "../../../docs/operate.md"
	// firstExample is the folder that docs/deploy.md gives its commands in.
	firstExample = root + "/examples/single-account"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fences returns the blocks of a document that are marked with a language.
func fences(doc, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(doc, -1) {
		out = append(out, m[1])
	}
	return out
}

// named returns what the first group of a pattern finds, each once; it has to find something.
func named(t *testing.T, in, pattern string) []string {
	t.Helper()
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(in, -1) {
		found[m[1]] = true
	}
	if len(found) == 0 {
		t.Errorf("nothing fits %s: does the pattern still fit?", pattern)
	}
	return slices.Sorted(maps.Keys(found))
}

// within fails the test for each name that is not in a list.
func within(t *testing.T, what string, names, all []string) {
	t.Helper()
	for _, n := range names {
		if !slices.Contains(all, n) {
			t.Errorf("%s names the %s %s, and there are only %q", deployment, what, n, all)
		}
	}
}

func namesOf(all []block) []string {
	var out []string
	for _, b := range all {
		out = append(out, b.name)
	}
	return out
}

// The commands of the guides are shell, and every name in them is one that is there.
func TestDeploymentGuideNamesWhatThereIs(t *testing.T) {
	doc := text(t, deployment) + text(t, operation)
	blocksOfShell := fences(doc, "sh")
	if len(blocksOfShell) < 10 {
		t.Fatalf("%d blocks of shell in %s: is the pattern still right?", len(blocksOfShell), deployment)
	}
	for _, b := range blocksOfShell {
		cmd := exec.CommandContext(t.Context(), "bash", "-n")
		cmd.Stdin = strings.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("bash does not take this: %v: %s\n%s", err, out, b)
		}
	}
	sh := strings.Join(blocksOfShell, "\n")
	example := blocks(t, filepath.Join(firstExample, "*.tf"))
	variables := namesOf(ofKind(example, "variable"))

	within(t, "output", named(t, sh, `terraform output (?:-\w+ )*(\w+)`), namesOf(ofKind(example, "output")))
	within(t, "variable", named(t, sh, `(?:-var |TF_VAR_)(\w+)=`), variables)
	tfvars := named(t, sh, `>(\w+)\.auto\.tfvars\.json`)
	within(t, "variable", tfvars, variables)
	for _, s := range tfvars { // a file is named after the variable that is in it
		if !regexp.MustCompile(`\{` + s + `: .*(?s:.{0,400}?)>` + s + `\.auto\.tfvars\.json`).MatchString(sh) {
			t.Errorf("%s writes %s.auto.tfvars.json, and no %s into it", deployment, s, s)
		}
	}

	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):`).FindAllStringSubmatch(text(t, "../../../Makefile"), -1) {
		targets = append(targets, m[1])
	}
	within(t, "target of make", named(t, sh, `\bmake (\w+)`), targets)

	parameters := []string{"/github/runner/pat", "/github/runner/app"} // the second is that of garo app create
	for _, p := range settings.Parameters {
		if !strings.HasPrefix(p.Name, "/") { // else it is the runner account's
			parameters = append(parameters, "/garo/"+p.Name)
		}
	}
	within(t, "parameter", named(t, doc, `(?:--name |parameter )(/[\w/]+)`), parameters)

	files, err := filepath.Glob(root + "/*.tf")
	if err != nil {
		t.Fatal(err)
	}
	var resources []string
	for _, f := range files {
		for _, m := range regexp.MustCompile(`(?m)^resource "(\w+)" "(\w+)"`).FindAllStringSubmatch(text(t, f), -1) {
			resources = append(resources, m[1]+"."+m[2])
		}
	}
	within(t, "resource", named(t, sh, `module\.control_plane\.(\w+\.\w+)`), resources)
	if modules := ofKind(blocks(t, filepath.Join(firstExample, "main.tf")), "module"); !slices.Contains(namesOf(modules), "control_plane") {
		t.Errorf("%s has no module control_plane, and %s names one", firstExample, deployment)
	}

	for _, p := range named(t, doc, `\]\((\.\./[^)#]+)\)`) {
		if _, err := os.Stat(filepath.Join("../../../docs", p)); err != nil {
			t.Errorf("%s links %s: %v", deployment, p, err)
		}
	}
}

// The guides call garo by commands and flags that it has.
func TestDeploymentGuideCallsGaroAsItIs(t *testing.T) {
	var source strings.Builder
	names, err := filepath.Glob("../../../cmd/garo/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		source.WriteString(text(t, name))
	}
	has := func(what, pattern string) {
		t.Helper()
		if !regexp.MustCompile(pattern).MatchString(source.String()) {
			t.Errorf("%s has %s, and garo does not", deployment, what)
		}
	}
	doc := text(t, deployment) + text(t, operation)
	calls := regexp.MustCompile("(?m)(?:bin/|`|^|; |\\$\\()garo ([a-z]+)([^|;`#\n]*)").FindAllStringSubmatch(doc, -1)
	if len(calls) < 5 {
		t.Fatalf("%d calls of garo in %s: is the pattern still right?", len(calls), deployment)
	}
	for _, c := range calls {
		has("garo "+c[1], `Use:\s+"`+c[1]+`[ "]`)
		for _, f := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(c[2], -1) {
			has("garo "+c[1]+" --"+f[1], `"`+f[1]+`",`)
		}
	}
}

// The workflow of the guide uses inputs and outputs that the action has.
func TestDeploymentGuidesWorkflowFitsTheAction(t *testing.T) {
	workflow := strings.Join(fences(text(t, deployment), "yaml"), "")
	folders := named(t, workflow, `uses: alphagov/github-actions-runner-orchestration/(\S+)@v\d`)
	if len(folders) != 1 {
		t.Fatalf("the workflow uses %q, want one action", folders)
	}
	inputs, outputs, ok := strings.Cut(text(t, filepath.Join("../../..", folders[0], "action.yml")), "\noutputs:\n")
	if !ok {
		t.Fatal("the action has no outputs")
	}
	_, with, _ := strings.Cut(workflow, "with:\n")
	with, _, _ = strings.Cut(with, "\n  build:")
	within(t, "input", named(t, with, `(?m)^ {10}([\w-]+): `), named(t, inputs, `(?m)^  ([\w-]+):$`))
	within(t, "output", named(t, workflow, `steps\.garo\.outputs\.([\w-]+)`), named(t, outputs, `(?m)^  ([\w-]+):$`))
}

// accountFields are the fields of the variable accounts, sorted.
func accountFields(t *testing.T) []string {
	t.Helper()
	_, accounts, _ := strings.Cut(text(t, root+"/variables.tf"), `variable "accounts"`)
	accounts, _, _ = strings.Cut(accounts, "validation {")
	return named(t, accounts, `(?m)^ {4}(\w+) += `)
}

// The variable accounts has each field that the code reads of a registration, but for what
// the module fills in itself: the id, the external id, and the secrets of webhooks, which
// have a variable of their own. Terraform's types have no field that is an object or a list,
// so that further credentials of github are in more_github.
func TestRegistrationCanSayAllThatTheCodeReads(t *testing.T) {
	want := []string{"more_github"}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[store.Account]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && !slices.Contains([]string{"id", "external_id", "webhook_secrets"}, name) {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if got := accountFields(t); !slices.Equal(got, want) {
		t.Errorf("variables.tf has the fields %q, and the code reads %q", got, want)
	}
}

// The guide's table of registrations has every field of the variable accounts.
func TestDeploymentGuideHasEveryFieldOfARegistration(t *testing.T) {
	_, table, _ := strings.Cut(text(t, deployment), "## The registration of an account")
	table, _, _ = strings.Cut(table, "\n## ")
	var got []string
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`"+`.*?) \|`).FindAllStringSubmatch(table, -1) {
		got = append(got, named(t, row[1], "`(\\w+)`")...)
	}
	slices.Sort(got)
	if want := accountFields(t); !slices.Equal(got, want) {
		t.Errorf("%s explains the fields %q, and a registration has %q", deployment, got, want)
	}
}
