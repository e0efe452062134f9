package fleet_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

func TestConsoleIsPlainLines(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"Nothing":           {"", ""},
		"Lines":             {"one\r\ntwo\n\n  three \n", "one\ntwo\n  three\n"},
		"Overwritten":       {"10%\r20%\r100%\n", "10%\n20%\n100%\n"},
		"Colours":           {"\x1b[0;32m  OK  \x1b[0m Started sshd\n", "  OK   Started sshd\n"},
		"Cursor":            {"\x1b[2J\x1b[1;1H\x1b[?25llogin:\n", "login:\n"},
		"TitleOfAWindow":    {"\x1b]0;owned\x07hello\n\x1b]2;again\x1b\\there\n", "hello\nthere\n"},
		"CharacterSet":      {"\x1b(Bhello\x1b=\n", "hello\n"},
		"EscapeAtTheEnd":    {"hello\x1b", "hello\n"},
		"ControlCharacters": {"a\x00b\x07\x08c\td\u202ee\n", "abc de\n"},
		"NoText":            {"\xff\xfe ok\n", "? ok\n"},
		"LinesOfNothing":    {"\x1b[0m\n\x07\n   \n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fleet.Printed(c.raw); got != c.want {
				t.Errorf("Printed(%q) = %q, want %q", c.raw, got, c.want)
			}
		})
	}
}

func TestConsoleIsBounded(t *testing.T) {
	last := "the last line\n"
	got := fleet.Printed(strings.Repeat("0123456789\n", fleet.MaxConsole/10) + last)
	if len(got) > fleet.MaxConsole || len(got) < fleet.MaxConsole-11 || !strings.HasPrefix(got, "0123456789\n") || !strings.HasSuffix(got, last) {
		t.Errorf("Printed of too much has %d bytes, begins with %.12q and ends with %q; want whole lines of at most %d", len(got), got, got[len(got)-20:], fleet.MaxConsole)
	}
	long := fleet.Printed(strings.Repeat("é", fleet.MaxConsole))
	if len(long) > fleet.MaxConsole || !utf8.ValidString(long) || !strings.HasSuffix(long, "é\n") {
		t.Errorf("Printed of one long line has %d bytes, valid %t, want its end", len(long), utf8.ValidString(long))
	}
}

// Whatever a machine prints, nothing of it reaches who reads it but text.
func FuzzConsole(f *testing.F) {
	for _, s := range []string{"\x1b[31mred\x1b[0m\n", "\x1b]0;t\x07", "\x1b[", "a\r\nb", "\xc3(\x1b\x1b[m", "\u009b31mx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := fleet.Printed(raw)
		if len(got) > fleet.MaxConsole || got != "" && !strings.HasSuffix(got, "\n") || strings.Contains(got, "\n\n") {
			t.Fatalf("Printed(%q) = %q, want bounded lines", raw, got)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("Printed(%q) = %q, want text alone", raw, got)
		}
		if again := fleet.Printed(got); again != got {
			t.Fatalf("Printed(%q) = %q, and of that %q", raw, got, again)
		}
	})
}
