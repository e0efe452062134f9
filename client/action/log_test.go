package action

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client"
)

// hostile is what a label, a name or a message of EC2 might try.
var hostile = []string{
	"::error::x", "a\n::set-output name=x::y", "a\r::add-mask::y", "a\r\n::stop-commands::y", "  ::warning::x", "##[error]x", "a ##[add-path]/x", "\x1b[31m::x::", "a\u2028::x::y", "%0A::x::y",
	"%25", "a\x00b", "\ufeff::error::x",
}

// isCommand is what GitHub's runner takes for a command: a line that begins with
// two colons, blanks aside, or, as old runners wrote them, has ##[ anywhere.
func isCommand(line string) bool {
	return strings.HasPrefix(strings.TrimSpace(strings.Trim(line, "\ufeff")), "::") || strings.Contains(line, "##[")
}

func lines(out string) []string {
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' || r == '\r' || r == '\u2028' || r == '\u0085' })
}

func TestLinesOfTheLogAreNeverCommands(t *testing.T) {
	for _, text := range hostile {
		var out bytes.Buffer
		s := &step{env: Env{Stdout: &out}}
		s.say("%s", text)
		got := lines(out.String())
		if len(got) != 1 || isCommand(got[0]) {
			t.Errorf("say(%q) prints %q", text, out.String())
		}
	}
}

func TestTextsOfCommandsBeginNoOther(t *testing.T) {
	for _, text := range hostile {
		var out bytes.Buffer
		s := &step{env: Env{Stdout: &out}}
		if err := s.fail(problem{text, text}); err != ErrTold {
			t.Errorf("fail = %v, want %v", err, ErrTold)
		}
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(got) != 1 || strings.Contains(got[0], "\r") || !strings.HasPrefix(got[0], "::error title=GARO%3A ") {
			t.Errorf("fail(%q) prints %q", text, out.String())
			continue
		}
		// The property ends where its text says that it does not.
		title, _, _ := strings.Cut(strings.TrimPrefix(got[0], "::error title="), "::")
		if strings.ContainsAny(title, ":,") {
			t.Errorf("fail(%q) has the title %q", text, title)
		}
	}
}

func TestCommandsAreEscapedAsGitHubDoes(t *testing.T) {
	var out bytes.Buffer
	s := &step{env: Env{Stdout: &out}}
	s.command("error", "title=a: b, 5%", "1%\r\n2: x, y")
	if got, want := out.String(), "::error title=a%3A b%2C 5%25::1%25%0D%0A2: x, y\n"; got != want {
		t.Errorf("command prints %q, want %q", got, want)
	}
}

func TestTokensAreMaskedBeforeTheyAreUsed(t *testing.T) {
	var out bytes.Buffer
	s := &step{env: Env{Stdout: &out}}
	s.mask(client.NewToken("canary"))
	if got, want := out.String(), "::add-mask::canary\n"; got != want {
		t.Errorf("mask prints %q, want %q", got, want)
	}
}

func TestMarkupShowsTextAsItIs(t *testing.T) {
	for text, want := range map[string]string{
		"plain text-1": "plain text-1", "a|b": `a\|b`, "a\nb": "a b", "<img src=x>": "&lt;img src=x&gt;", "&lt;": "&amp;lt;",
		"[x](https://evil.example)": `\[x\]\(https://evil.example\)`, "![x](y)": `\!\[x\]\(y\)`, "`code`": "\\`code\\`", "**b** _i_ ~s~": `\*\*b\*\* \_i\_ \~s\~`,
		"@alphagov": "&#64;alphagov", `\|`: `\\\|`, "# h": `\# h`,
	} {
		if got := markup(text); got != want {
			t.Errorf("markup(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzTexts(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c := clean(text); strings.ContainsAny(c, "\r\n") || strings.Contains(c, "##[") {
			t.Errorf("clean(%q) = %q", text, c)
		}
		if m := markup(text); strings.ContainsAny(m, "<>\n\r@") {
			t.Errorf("markup(%q) = %q", text, m)
		}
		var out bytes.Buffer
		(&step{env: Env{Stdout: &out}}).say("%s", text)
		if got := lines(out.String()); len(got) > 1 || len(got) == 1 && isCommand(got[0]) {
			t.Errorf("say(%q) prints %q", text, out.String())
		}
	})
}
