package action_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/action"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Anyone who gets a code finds what to do, by the link that comes with it.
func TestGuideExplainsEveryCode(t *testing.T) {
	guide := read(t, "docs", "action.md")
	codes := append(slices.Clone(action.Problems), "no_program") // which the shell tells
	for _, p := range apitype.Problems {
		codes = append(codes, p.Code)
	}
	codes = append(codes, store.EndCodes()...)
	codes = append(codes, "no_capacity", "vcpu_limit", "launch_refused", "registration_refused", "account_unknown", "not_allowed", "expired", "cancelled")
	for _, code := range codes {
		_, entry, ok := strings.Cut(guide, "\n### `"+code+"`\n")
		entry, _, _ = strings.Cut(entry, "\n### ")
		if !ok || len(strings.Fields(entry)) < 5 {
			t.Errorf("docs/action.md does not say what to do about %s", code)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^### `([a-z_]+)`$").FindAllStringSubmatch(guide, -1) {
		if !slices.Contains(codes, m[1]) && !strings.Contains(read(t, "docs", "api.md"), "`"+m[1]+"`") {
			t.Errorf("docs/action.md explains %s, which nothing says", m[1])
		}
	}
}

var (
	inputNames = regexp.MustCompile(`(?m)^  ([a-z-]+):$`)
	usedWith   = regexp.MustCompile(`(?m)uses: \S*/client/action@v1\n(?:\s+with:\n((?:\s+[a-z-]+: .*\n)+))?`)
	usedInput  = regexp.MustCompile(`(?m)^\s+([a-z-]+): `)
)

// What action.yml declares, the guide and the program know, and no example uses
// anything else.
func TestInputsAndOutputsAreTheSameEverywhere(t *testing.T) {
	manifest, guide := read(t, "client", "action", "action.yml"), read(t, "docs", "action.md")
	ins, rest, _ := strings.Cut(manifest, "\noutputs:\n")
	outs, _, _ := strings.Cut(rest, "\nruns:\n")
	_, ins, _ = strings.Cut(ins, "\ninputs:\n")
	source := read(t, "client", "action", "inputs.go") + read(t, "client", "action", "post.go") + strings.ToLower(read(t, "client", "action", "node", "garo.js"))
	var inputs []string
	for _, m := range inputNames.FindAllStringSubmatch(ins, -1) {
		inputs = append(inputs, m[1])
		if !strings.Contains(guide, "`"+m[1]+"`") {
			t.Errorf("docs/action.md does not have the input %s", m[1])
		}
		if !strings.Contains(source, `"`+m[1]+`"`) && !strings.Contains(source, "input_"+m[1]) {
			t.Errorf("nothing reads the input %s", m[1])
		}
	}
	var outputs []string
	for _, m := range inputNames.FindAllStringSubmatch(outs, -1) {
		outputs = append(outputs, m[1])
		if !strings.Contains(guide, "\n| `"+m[1]+"` |") {
			t.Errorf("docs/action.md does not have the output %s", m[1])
		}
	}
	if len(inputs) < 20 || len(outputs) < 6 {
		t.Errorf("%d inputs and %d outputs were found, want 20 and 6 at least", len(inputs), len(outputs))
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[apitype.Start]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		input := strings.ReplaceAll(name, "_", "-")
		switch name {
		case "repo": // the job's own
			continue
		case "give_up":
			input = "wait-timeout"
		}
		if !slices.Contains(inputs, input) {
			t.Errorf("action.yml has no input %s for the field %s of POST /start", input, name)
		}
	}
	examples, err := filepath.Glob("../../.github/workflows/examples/*.yml")
	if err != nil || len(examples) < 4 {
		t.Fatalf("examples = %q, %v; want four or more", examples, err)
	}
	texts := []string{guide}
	for _, e := range examples {
		texts = append(texts, read(t, ".github", "workflows", "examples", filepath.Base(e)))
	}
	uses := 0
	for _, text := range texts {
		for _, step := range usedWith.FindAllStringSubmatch(text, -1) {
			uses++
			for _, m := range usedInput.FindAllStringSubmatch(step[1], -1) {
				if !slices.Contains(inputs, m[1]) {
					t.Errorf("an example has the input %s, which action.yml does not have", m[1])
				}
			}
		}
		for _, m := range regexp.MustCompile(`steps\.garo\.outputs\.([a-z-]+)`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(outputs, m[1]) {
				t.Errorf("an example has the output %s, which action.yml does not have", m[1])
			}
		}
	}
	if uses < 7 {
		t.Errorf("the examples use the action %d times, want all of them found", uses)
	}
}

var (
	platforms = regexp.MustCompile(`(?m)^    (goos|goarch): \[(.*)\]$`)
	checksum  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// A release has the program of each system that the action runs on, under the name
// by which the action fetches it; and the same build is what pin.sh pins.
func TestReleaseHasWhatTheActionFetches(t *testing.T) {
	config, pin := read(t, ".goreleaser.yaml"), read(t, "client", "action", "pin.sh")
	of := map[string][]string{}
	for _, m := range platforms.FindAllStringSubmatch(config, -1) {
		of[m[1]] = strings.Split(m[2], ", ")
	}
	slices.Sort(of["goos"])
	slices.Sort(of["goarch"])
	for _, want := range []string{"for os in " + strings.Join(of["goos"], " ") + "; do", "for arch in " + strings.Join(of["goarch"], " ") + "; do"} {
		if !strings.Contains(pin, want) {
			t.Errorf("pin.sh does not have %q, as .goreleaser.yaml has it", want)
		}
	}
	for _, flags := range []string{"-trimpath", "-buildvcs=false", "-s -w -X main.version=", "CGO_ENABLED=0"} {
		if !strings.Contains(pin, flags) || !strings.Contains(config, flags) {
			t.Errorf("pin.sh and .goreleaser.yaml do not both build with %s", flags)
		}
	}
	if want := `name_template: "garo_{{ .Os }}_{{ .Arch }}"`; !strings.Contains(config, want) {
		t.Errorf(".goreleaser.yaml does not have %s, the names that the action fetches", want)
	}
	var release struct {
		Version, Go string
		SHA256      map[string]string
	}
	if err := json.Unmarshal([]byte(read(t, "client", "action", "node", "release.json")), &release); err != nil {
		t.Fatal(err)
	}
	want := len(of["goos"]) * len(of["goarch"])
	if want != 6 || len(release.SHA256) != 0 && len(release.SHA256) != want || (release.Version == "") != (len(release.SHA256) == 0) || (release.Go == "") != (release.Version == "") {
		t.Errorf("release.json has version %q, Go %q and %d checksums; want all of a release, or none before the first", release.Version, release.Go, len(release.SHA256))
	}
	for name, sum := range release.SHA256 {
		if !strings.HasPrefix(name, "garo_") || !checksum.MatchString(sum) {
			t.Errorf("release.json has %q for %q, want a SHA-256", sum, name)
		}
	}
}
