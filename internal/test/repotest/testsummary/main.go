// Command testsummary reads the output of go test -json and says the outcome of
// it. What failed, and one line a package, goes to standard error as it comes,
// and at the end what was skipped, with its reason. Two lines of totals go to
// standard output:
//
//	packages: 12 passed, 0 failed, 3 without tests
//	340 passed, 0 failed, 0 skipped
//
// The second line counts tests and subtests. A package that fails without a
// failed test, as one that does not compile, counts as one failed test, so that
// the line never reads better than the run was. The exit status is 0 only if
// something passed and nothing failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	t, err := read(os.Stdin, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	fmt.Println(t)
	if !t.good() {
		os.Exit(1)
	}
}

// event is one line of go test -json, as described by go doc test2json.
type event struct {
	Action      string
	Package     string
	Test        string // empty: the event is the package's
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

// count is how often each outcome was seen.
type count struct{ passed, failed, skipped int }

func (c *count) add(action string) {
	switch action {
	case "pass":
		c.passed++
	case "fail":
		c.failed++
	case "skip":
		c.skipped++
	}
}

// totals is the outcome of a run. A package without tests is a skipped one.
type totals struct {
	packages, tests count
	skipped         []string // each skipped test, and why
}

func (t totals) String() string {
	return fmt.Sprintf("packages: %d passed, %d failed, %d without tests\n%d passed, %d failed, %d skipped",
		t.packages.passed, t.packages.failed, t.packages.skipped, t.tests.passed, t.tests.failed, t.tests.skipped)
}

func (t totals) good() bool {
	return t.tests.passed > 0 && t.tests.failed == 0 && t.packages.failed == 0
}

// running is a package whose end has not been read yet.
type running struct {
	failed int
	output map[string]*strings.Builder // of each test that has not ended, by name; "" is the package itself
}

// read counts the events in r, and writes what people want to see to w: the
// output of passed tests is dropped, that of failed ones is shown when they end.
// Lines that are no events are passed on.
func read(r io.Reader, w io.Writer) (totals, error) {
	var t totals
	open := map[string]*running{}
	lines := bufio.NewReader(r) // a test may print a line of any length
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				t.take(w, open, e)
			} else {
				_, _ = w.Write(line)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return t, fmt.Errorf("read events: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(open)) {
		t.take(w, open, event{Action: "fail", Package: name})
	}
	if len(t.skipped) > 0 {
		fmt.Fprintf(w, "left out:\n  %s\n", strings.Join(t.skipped, "\n  "))
	}
	return t, nil
}

func (t *totals) take(w io.Writer, open map[string]*running, e event) {
	if e.Action == "build-output" {
		_, _ = io.WriteString(w, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := open[e.Package]
	if p == nil {
		p = &running{output: map[string]*strings.Builder{}}
		open[e.Package] = p
	}
	switch e.Action {
	case "output":
		if p.output[e.Test] == nil {
			p.output[e.Test] = new(strings.Builder)
		}
		p.output[e.Test].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test != "" {
			t.tests.add(e.Action)
			switch e.Action {
			case "fail":
				p.failed++
				p.show(w, e.Test)
			case "skip":
				t.skipped = append(t.skipped, e.Package+" "+e.Test+": "+p.reason(e.Test))
			}
			delete(p.output, e.Test)
			return
		}
		delete(open, e.Package)
		t.packages.add(e.Action)
		if e.Action == "fail" {
			if p.failed == 0 {
				t.tests.failed++
			}
			for _, name := range slices.Sorted(maps.Keys(p.output)) {
				p.show(w, name) // what had not ended when the package did
			}
		}
		fmt.Fprintf(w, "%s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
	}
}

// reason is what a test said, in one line, without what go test says around it.
func (p *running) reason(test string) string {
	var said []string
	if out := p.output[test]; out != nil {
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
				said = append(said, line)
			}
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

func (p *running) show(w io.Writer, test string) {
	if out := p.output[test]; out != nil {
		_, _ = io.WriteString(w, out.String())
	}
}
