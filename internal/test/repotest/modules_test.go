package repotest

import (
	"fmt"
	"regexp"
	"slices"
)

// replaced returns the modules that a go.mod replaces.
func replaced(mods ...gomod) []string {
	var problems []string
	for _, m := range mods {
		for _, r := range m.Replace {
			problems = append(problems, fmt.Sprintf("go.mod replaces %s: users of this module would get another one than we test", r.Old.Path))
		}
	}
	return problems
}

const dependenciesPath = "docs/dependencies.md"

// A dependency is explained by a row of a table that begins with its name.
var dependencyRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// dependencies returns the direct requirements of the module and the tools that
// doc does not explain, and what it explains without need.
func dependencies(mod, tools gomod, doc file) []string {
	var used, explained, problems []string
	for _, r := range mod.Require {
		if !r.Indirect {
			used = append(used, r.Path)
		}
	}
	for _, t := range tools.Tool {
		used = append(used, t.Path)
	}
	for _, m := range dependencyRow.FindAllStringSubmatch(doc.text, -1) {
		explained = append(explained, m[1])
	}
	for _, u := range used {
		if !slices.Contains(explained, u) {
			problems = append(problems, fmt.Sprintf("%s: no row for %s", doc.path, u))
		}
	}
	for _, e := range explained {
		if !slices.Contains(used, e) {
			problems = append(problems, fmt.Sprintf("%s: %s is not used", doc.path, e))
		}
	}
	return problems
}
