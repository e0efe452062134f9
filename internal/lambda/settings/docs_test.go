package settings_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
)

var update = flag.Bool("update", false, "write the lists in docs/configuration.md again")

const document = "../../../docs/configuration.md"

// section returns the text with what is between the two comments of a list replaced.
func section(t *testing.T, text, list, content string) string {
	t.Helper()
	begin, end := "<!-- "+list+": written by make golden -->\n", "<!-- end of "+list+" -->\n"
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: no %q and %q", document, begin, end)
	}
	return before + begin + content + end + after
}

func readBy(functions []settings.Function) string {
	var names []string
	for _, f := range functions {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

func variables() string {
	var b strings.Builder
	for _, v := range settings.Variables {
		value := "optional"
		switch {
		case v.Needed:
			value = "needed"
		case v.Default != "":
			value = "default `" + v.Default + "`"
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n- read by %s; %s\n- %s\n- for example `%s`\n", v.Name, v.Meaning, readBy(v.Readers), value, v.Want, v.Example)
	}
	return b.String() + "\n"
}

func parameters() string {
	var b strings.Builder
	for _, p := range settings.Parameters {
		name, value := p.Name, "optional"
		if !strings.HasPrefix(name, "/") {
			name = "GARO_PARAMETERS/" + name
		}
		if p.Needed {
			value = "needed"
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n- read by %s; %s\n- in %s\n- for example `%s`\n", name, p.Meaning, readBy(p.Readers), value, p.Where, p.Example)
	}
	return b.String() + "\n"
}

func TestGoldenDocumentHasEveryVariableAndParameter(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want := section(t, section(t, string(b), "variables", variables()), "parameters", parameters())
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(b) != want {
		t.Errorf("%s is not as the lists of this package say: run make golden and read the diff", document)
	}
}
