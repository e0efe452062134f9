package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestPeopleGetOneShortLine(t *testing.T) {
	var b strings.Builder
	for _, width := range []int{0, 60} {
		b.Reset()
		log := slog.New(&peopleLog{w: &b, width: func() int { return width }, mu: new(sync.Mutex)}).With("runner", "r1")
		log.Debug("not shown")
		log.Info("launched", "trace", "secretly", "instance", "i-1", "empty", "")
		log.Warn("a\x00b", "error", "two\nlines "+strings.Repeat("x", 200))
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != 2 || !strings.HasSuffix(lines[0], " launched runner=r1 instance=i-1") || !strings.Contains(lines[1], " WARN ") || !strings.Contains(lines[1], "error=two lines") {
			t.Errorf("the log is\n%swant two lines, without the trace", b.String())
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); width > 0 && n > width {
				t.Errorf("in %d columns a line has %d: %s", width, n, l)
			}
		}
	}
	b.Reset()
	slog.New(&peopleLog{w: &b, width: func() int { return 0 }, paint: true, mu: new(sync.Mutex)}).Error("bad")
	if !strings.HasPrefix(b.String(), "\x1b[31m") || !strings.HasSuffix(b.String(), "\x1b[0m\n") {
		t.Errorf("an error on a terminal is %q, want it red", b.String())
	}
}

func TestProgramsGetJSON(t *testing.T) {
	var b strings.Builder
	slog.New(logHandler(&b)).Info("launched", "trace", "x")
	var line struct{ Msg, Trace string }
	if err := json.Unmarshal([]byte(b.String()), &line); err != nil || line.Msg != "launched" || line.Trace != "x" {
		t.Errorf("what is no terminal gets %q, %v; want JSON with everything", b.String(), err)
	}
}
