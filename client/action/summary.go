package action

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// result is what became of a request, and all steps that were seen of it.
type result struct {
	status apitype.Status
	steps  []client.Step
}

// finished sets the outputs that are known at the end.
func (s *step) finished(results []result) error {
	columns := map[string][]string{}
	for _, r := range results {
		var name, instance, expires string
		if run := r.status.Runner; run != nil {
			name, instance = run.Name, run.InstanceID
			if !run.ExpiresAt.IsZero() {
				expires = run.ExpiresAt.UTC().Format(time.RFC3339)
			}
		}
		for column, v := range map[string]string{"name": name, "state": r.status.State, "instance-id": instance, "expires-at": expires} {
			columns[column] = append(columns[column], v)
		}
	}
	var errs []error
	for _, column := range []string{"name", "state", "instance-id", "expires-at"} {
		errs = append(errs, s.output(column, s.joined(columns[column])))
	}
	return errors.Join(errs...)
}

func stepLine(step client.Step) string {
	return fmt.Sprintf("%7.1fs  %-8s %-10s %s", step.Since.Seconds(), step.Who, step.State, step.Reason)
}

// took is how long a request that is over, or its story, has taken.
func took(st apitype.Status) time.Duration {
	end := st.ReadyAt
	if end.IsZero() {
		end = st.EndedAt
	}
	if end.IsZero() && len(st.History) > 0 {
		end = st.History[len(st.History)-1].At
	}
	return max(0, end.Sub(st.CreatedAt)).Round(100 * time.Millisecond)
}

// machine says what a request has got.
func machine(st apitype.Status) string {
	r := st.Runner
	if r == nil {
		return "no runner"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "runner %s on %s, %s %s in %s", cmp.Or(r.Name, r.ID), cmp.Or(r.InstanceID, "no instance"), r.Market, r.InstanceType, r.Subnet)
	for _, name := range slices.Sorted(maps.Keys(r.Options)) {
		text.WriteString(", " + strings.ReplaceAll(name, "_", " ") + " " + r.Options[name])
	}
	if !r.ExpiresAt.IsZero() {
		text.WriteString(", until " + r.ExpiresAt.UTC().Format("15:04:05 MST"))
	}
	return text.String()
}

// maxRows bounds each list of the summary but that of the requests: GitHub shows
// nothing of a summary above 1 MiB
// (https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands).
const maxRows = 100

// summarise writes the job's summary.
func (s *step) summarise(results []result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", headline(results))
	row(&b, "request", "state", "after", "runner")
	row(&b, "---", "---", "---", "---")
	for _, r := range results {
		st := r.status
		row(&b, markup(cmp.Or(st.ID, "not known")), markup(cmp.Or(st.State, "not known")), took(st).String(), markup(machine(st)))
	}
	tried := 0
	for _, r := range results {
		for _, a := range r.status.Attempts {
			if tried == 0 {
				b.WriteString("\n**Placements tried**\n\n")
				row(&b, "at", "market", "instance type", "subnet", "EC2 says")
				row(&b, "---", "---", "---", "---", "---")
			}
			if tried++; tried > maxRows {
				continue
			}
			row(&b, fmt.Sprintf("%.1f s", a.At.Sub(r.status.CreatedAt).Seconds()), markup(a.Market), markup(a.InstanceType), markup(a.Subnet), markup(a.Code))
		}
	}
	if tried > maxRows {
		fmt.Fprintf(&b, "\nThe first %d of %d.\n", maxRows, tried)
	}
	told := 0
	for _, r := range results {
		if r.status.Error != nil && told < maxRows {
			told++
			fmt.Fprintf(&b, "\n**%s**: %s [What to do](%s#%s)\n", markup(r.status.Error.Code), markup(r.status.Error.Text), guide, anchor(r.status.Error.Code))
		}
	}
	for _, r := range results[:min(len(results), 3)] { // more would hide what is above
		timeline(&b, r)
	}
	if e := s.env.Getenv; e("GITHUB_RUN_ID") != "" {
		fmt.Fprintf(&b, "\nAsked by [run %s of %s](%s/%s/actions/runs/%[1]s).\n", e("GITHUB_RUN_ID"), markup(e("GITHUB_WORKFLOW")), e("GITHUB_SERVER_URL"), e("GITHUB_REPOSITORY"))
	}
	b.WriteString("\n")
	return s.appendTo("GITHUB_STEP_SUMMARY", b.String())
}

func headline(results []result) string {
	good := 0
	var last time.Duration
	for _, r := range results {
		if r.status.State == ready {
			good++
		}
		last = max(last, took(r.status))
	}
	what := "runner"
	if len(results) > 1 {
		what = "runners"
	}
	return fmt.Sprintf("GARO: %d of %d %s ready after %s", good, len(results), what, last)
}

// barWidth is how many characters the whole time of a request is drawn with.
const barWidth = 32

// timeline draws each step as long as it took, and says what it was.
func timeline(b *strings.Builder, r result) {
	if len(r.steps) == 0 {
		return
	}
	total := r.steps[len(r.steps)-1].Since
	fmt.Fprintf(b, "\n<details><summary>Steps of request %s</summary>\n\n```text\n", markup(r.status.ID))
	for i, step := range r.steps[:min(len(r.steps), maxRows)] {
		end := total
		if i+1 < len(r.steps) {
			end = r.steps[i+1].Since
		}
		from, to := column(step.Since, total), column(end, total)
		bar := strings.Repeat(" ", from) + strings.Repeat("█", max(1, to-from))
		line := fmt.Sprintf("%7.1fs %-*s %-8s %-10s %s", step.Since.Seconds(), barWidth+1, bar, step.Who, step.State, step.Reason)
		b.WriteString(strings.TrimRight(strings.ReplaceAll(clean(line), "`", "'"), " ") + "\n") // a fence of theirs would end ours
	}
	b.WriteString("```\n\n</details>\n")
}

func column(at, total time.Duration) int {
	if total <= 0 {
		return 0
	}
	return min(barWidth, max(0, int(barWidth*at/total)))
}

func row(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// markup returns text that shows in Markdown as it is.
func markup(text string) string { return escapeMarkup.Replace(clean(text)) }

var escapeMarkup = func() *strings.Replacer {
	pairs := []string{"&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "&#64;"} // @ would call somebody
	for _, c := range "\\`*_{}[]()#+!|~" {
		pairs = append(pairs, string(c), `\`+string(c))
	}
	return strings.NewReplacer(pairs...)
}()

// anchor returns what a code is in a link: codes are words and underscores.
func anchor(code string) string {
	return strings.Map(func(c rune) rune {
		if c == '_' || c >= 'a' && c <= 'z' {
			return c
		}
		return -1
	}, code)
}
