package api_test

import (
	"os"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Whoever gets a code finds it in the guide.
func TestGuideNamesEveryCode(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(b)
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
