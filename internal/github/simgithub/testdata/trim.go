//go:build ignore

// Command trim cuts GitHub's own description of its API down to the calls that
// GARO makes. What is left says the same of them, but for examples that their own
// schemas refuse; what only people read is gone.
// From the root of the repository, for a newer version:
//
//	scratch=$(mktemp -d)
//	npm install --prefix "$scratch" --ignore-scripts @octokit/openapi@23.0.2
//	go run internal/github/simgithub/testdata/trim.go "$scratch/node_modules/@octokit/openapi"
//
// It writes github-openapi.json and github-openapi.LICENSE beside itself.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// calls are the operations that are kept, by path and method: those of github.com
// and, below cloud, one that the same server has and that only the description of
// GitHub Enterprise Cloud has as of this version.
var calls = map[string][]string{
	"/app/hook/deliveries":                                             {"get"},
	"/repos/{owner}/{repo}/actions/jobs/{job_id}":                      {"get"},
	"/repos/{owner}/{repo}/actions/runs":                               {"get"},
	"/repos/{owner}/{repo}/actions/runs/{run_id}":                      {"get"},
	"/repos/{owner}/{repo}/actions/runs/{run_id}/cancel":               {"post"},
	"/repos/{owner}/{repo}/actions/runs/{run_id}/jobs":                 {"get"},
	"/app/installations/{installation_id}/access_tokens":               {"post"},
	"/orgs/{org}/actions/runner-groups":                                {"get"},
	"/orgs/{org}/actions/runner-groups/{runner_group_id}/repositories": {"get"},
	"/orgs/{org}/actions/runners":                                      {"get"},
	"/orgs/{org}/actions/runners/downloads":                            {"get"},
	"/orgs/{org}/actions/runners/generate-jitconfig":                   {"post"},
	"/orgs/{org}/actions/runners/{runner_id}":                          {"delete", "get"},
	"/rate_limit":                                              {"get"},
	"/repos/{owner}/{repo}/actions/runners":                    {"get"},
	"/repos/{owner}/{repo}/actions/runners/downloads":          {"get"},
	"/repos/{owner}/{repo}/actions/runners/generate-jitconfig": {"post"},
	"/repos/{owner}/{repo}/actions/runners/{runner_id}":        {"delete", "get"},
}

var cloud = map[string][]string{
	"/orgs/{org}/actions/runners/deprecations/{version}":           {"get"},
	"/repos/{owner}/{repo}/actions/runners/deprecations/{version}": {"get"},
}

const (
	directory   = "internal/github/simgithub/testdata"
	source      = "generated/api.github.com.json"
	cloudSource = "generated/ghec.json"
)

type object = map[string]any

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run trim.go DIRECTORY-OF-@octokit/openapi")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(from string) error {
	var pkg struct{ Name, Version string }
	if err := read(filepath.Join(from, "package.json"), &pkg); err != nil {
		return err
	}
	var doc object
	if err := read(filepath.Join(from, source), &doc); err != nil {
		return err
	}
	var more object
	if err := read(filepath.Join(from, cloudSource), &more); err != nil {
		return err
	}
	paths := object{}
	if err := keep(paths, doc, calls); err != nil {
		return err
	}
	if err := keep(paths, more, cloud); err != nil { // its parts are those of doc
		return err
	}
	components := object{}
	if err := collect(doc, components, paths); err != nil {
		return err
	}
	correct(paths, components["examples"].(object))
	info := doc["info"].(object)
	out := object{
		"openapi": doc["openapi"],
		"info": object{
			"title":       fmt.Sprint(info["title"], " (trimmed)"),
			"version":     pkg.Version,
			"license":     object{"name": "MIT"},
			"description": "The calls that GARO makes, of " + pkg.Name + " " + pkg.Version + ", " + source + " and " + cloudSource + ", without what only people read. Made by trim.go.",
		},
		"paths":      paths,
		"components": components,
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(out); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "github-openapi.json"), b.Bytes(), 0o644); err != nil {
		return err
	}
	licence, err := os.ReadFile(filepath.Join(from, "LICENSE"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "github-openapi.LICENSE"), licence, 0o644)
}

// correct makes examples what their schemas require: those of jobs have no created_at,
// and that of a cancellation is null.
func correct(paths, examples object) {
	jobs := examples["job-paginated"].(object)["value"].(object)["jobs"].([]any)
	for _, job := range append(jobs, examples["job"].(object)["value"]) {
		job.(object)["created_at"] = job.(object)["started_at"]
	}
	cancel := paths["/repos/{owner}/{repo}/actions/runs/{run_id}/cancel"].(object)["post"].(object)
	accepted := cancel["responses"].(object)["202"].(object)["content"].(object)["application/json"].(object)
	delete(accepted, "examples")
}

// keep puts the operations of a description into paths.
func keep(paths, doc object, calls map[string][]string) error {
	for path, methods := range calls {
		item, ok := doc["paths"].(object)[path].(object)
		if !ok {
			return fmt.Errorf("the description has no path %s", path)
		}
		kept := object{}
		for _, m := range methods {
			if kept[m], ok = item[m]; !ok {
				return fmt.Errorf("the description has no %s %s", m, path)
			}
		}
		paths[path] = prune(kept, "path")
	}
	return nil
}

// read decodes a JSON file. Numbers stay as they are written.
func read(name string, into any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// collect adds to components all that v refers to, near and far.
func collect(doc, components object, v any) error {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := collect(doc, components, x); err != nil {
				return err
			}
		}
	case object:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			ref, ok := v[key].(string)
			if key != "$ref" || !ok {
				if err := collect(doc, components, v[key]); err != nil {
					return err
				}
				continue
			}
			kind, name, ok := strings.Cut(strings.TrimPrefix(ref, "#/components/"), "/")
			if !ok {
				return fmt.Errorf("cannot follow %s", ref)
			}
			if components[kind] == nil {
				components[kind] = object{}
			}
			if components[kind].(object)[name] != nil {
				continue
			}
			found, ok := doc["components"].(object)[kind].(object)[name]
			if !ok {
				return fmt.Errorf("nothing at %s", ref)
			}
			found = prune(found, named(kind))
			components[kind].(object)[name] = found
			if err := collect(doc, components, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// prune removes what only people read. within is the key under which v stands:
// the keys below some are names, and examples are kept as they are.
func prune(v any, within string) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = prune(x, within)
		}
		return out
	case object:
		names := slices.Contains([]string{"properties", "responses", "headers", "content", "path"}, within)
		_, body := v["schema"]
		_, located := v["in"]
		out := object{}
		for key, x := range v {
			switch {
			case names:
				out[key] = prune(x, named(within))
			case key == "examples" && body && !located: // of a body
				out[key] = x
			case key == "value" || key == "enum" || key == "default":
				out[key] = x
			case key == "description" && within == "response": // OpenAPI demands it
				out[key] = x
			case strings.HasPrefix(key, "x-"), slices.Contains([]string{"description", "summary", "tags", "externalDocs", "example", "examples"}, key):
			default:
				out[key] = prune(x, key)
			}
		}
		return out
	}
	return v
}

// named returns what stands below a name that stands below within.
func named(within string) string {
	switch within {
	case "responses":
		return "response"
	case "path":
		return "operation"
	}
	return within + " of that name"
}
