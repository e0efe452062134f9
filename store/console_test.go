package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// noConsole is what an error says of a console that is empty.
const noConsole = "Its console shows nothing."

func TestErrorOfAMachineThatDidNotBootHasItsLastLines(t *testing.T) {
	var many strings.Builder
	for n := range 500 {
		fmt.Fprintf(&many, "line %03d\n", n)
	}
	for name, c := range map[string]struct {
		printed     string
		unread      error
		begin, want string
	}{
		"Lines":        {"Linux boots\nKernel panic\n", nil, "Its console ends with: Linux boots", "Linux boots | Kernel panic"},
		"Nothing":      {"", nil, "Its console shows nothing.", "nothing."},
		"ManyLines":    {many.String(), nil, "Its console ends with: line ", "| line 498 | line 499"},
		"OneLongLine":  {strings.Repeat("é", 3000) + "end\n", nil, "Its console ends with: é", "éend"},
		"NotRead":      {"", errors.New("UnauthorizedOperation: You are not authorized"), "Its console could not be read: ", "not authorized."},
		"NotReadAtAll": {"", errors.New("left to the next run."), "Its console could not be read: ", "next run."},
	} {
		t.Run(name, func(t *testing.T) {
			got := store.Console(c.printed, c.unread)
			if !strings.HasPrefix(got, c.begin) || !strings.HasSuffix(got, c.want) || len(got) > 2100 || !utf8.ValidString(got) {
				t.Errorf("Console = %d bytes, %.60q…%q; want it to begin with %q and end with %q", len(got), got, got[max(0, len(got)-40):], c.begin, c.want)
			}
		})
	}
}

func TestConsoleIsInTheErrorOfABootTimeoutAlone(t *testing.T) {
	const console = "Its console ends with: Kernel panic"
	s := launched(t, store.Ephemeral)
	late := s.lock.BootBy
	if store.NotBooted(late.Add(-1), lim, s.c()) || !store.NotBooted(late, lim, s.c()) {
		t.Error("NotBooted differs from boot_by")
	}
	d := s.c().ReviewRunner(late, lim, console)
	if why := d.Runner.End; why == nil || why.Code != store.EndNoBoot || !strings.HasSuffix(why.Text, " "+console) {
		t.Errorf("it drains for %+v, want %s with %q", why, store.EndNoBoot, console)
	}
	if d := s.c().ReviewRunner(late, lim, ""); !strings.HasSuffix(d.Runner.End.Text, " Its console was not read.") {
		t.Errorf("nobody looked: %q, want that it was not read", d.Runner.End.Text)
	}
	settled := store.Case{Request: s.req, Runner: d.Runner}.Settle(late, lim).Request
	if len(settled.History) == 0 || settled.State != store.Accepted {
		t.Errorf("the request is %s, want it tried again", settled.State)
	}
	s.run.Hard = late
	if d := s.c().ReviewRunner(late, lim, console); d.Runner.End.Code != store.EndHard || strings.Contains(d.Runner.End.Text, "console") {
		t.Errorf("at its hard limit it drains for %+v, want nothing of a console", d.Runner.End)
	}
	s = launched(t, store.Ephemeral)
	s.run.InstanceID = ""
	if store.NotBooted(late.Add(time.Hour), lim, s.c()) {
		t.Error("a machine that was never launched has a console")
	}
}
