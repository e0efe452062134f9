package api_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The guide has every call, what can be asked for, and every code that one may get.
func TestGuideNamesEveryCallFieldAndCode(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(b)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[apitype.Start]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !strings.Contains(guide, "\n| `"+name+"`") && !strings.Contains(guide, ", `"+name+"` |") {
			t.Errorf("docs/api.md does not list the field %s of POST /start", name)
		}
	}
	for _, route := range api.Patterns() {
		_, path, _ := strings.Cut(route, " ")
		if !strings.Contains(guide, path) && !strings.Contains(guide, "`"+strings.TrimPrefix(path, "/runners/{id}")+"`") {
			t.Errorf("docs/api.md does not have %s", route)
		}
	}
	for _, p := range apitype.Problems {
		if !strings.Contains(guide, "| `"+p.Code+"` | ") {
			t.Errorf("docs/api.md does not list the error %s", p.Code)
		}
	}
	var words []string
	for _, s := range store.RequestStates {
		words = append(words, string(s))
	}
	words = append(words, store.Waits...)
	words = append(words, store.EndCodes()...)
	for _, w := range words {
		if !strings.Contains(guide, "`"+w+"`") {
			t.Errorf("docs/api.md does not explain %s", w)
		}
	}
}
