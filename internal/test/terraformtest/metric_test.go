package terraformtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
)

// A metric that nothing shows, or that nobody explains, costs money for nothing.
func TestEveryMetricIsOnTheDashboardAndExplained(t *testing.T) {
	read := func(path ...string) string {
		b, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dashboard, manual := read("dashboard.tf"), read("..", "docs", "operate.md")
	if want := fmt.Sprintf(`[%q, m, %q, var.name]`, metrics.Namespace, metrics.Dimension); !strings.Contains(dashboard, want) {
		t.Errorf("dashboard.tf has no metrics as %s", want)
	}
	for _, m := range metrics.All {
		if !strings.Contains(dashboard, "local.metric."+string(m.Name)) && !strings.Contains(dashboard, "local.parts."+string(m.Name)) {
			t.Errorf("no widget of dashboard.tf shows %s", m.Name)
		}
		if want := fmt.Sprintf("| `%s` | %s ", m.Name, strings.ToLower(m.Unit)); !strings.Contains(manual, want) {
			t.Errorf("docs/operate.md has no row that begins with %q", want)
		}
	}
}
