package action

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// guide has a heading for each code of a problem.
const guide = "https://github.com/alphagov/github-actions-runner-orchestration/blob/main/docs/action.md"

// problem is why a step fails: a code that the guide explains, and a text.
type problem struct{ code, text string }

// Problems lists the codes that the action has beside those of the API, of
// requests and of runners.
var Problems = []string{"bad_input", "no_id_token", "no_answer", "unexpected_answer", "wait_timeout", "not_recorded"}

// problemOf says what an error of the client means to a job.
func problemOf(err error) problem {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return problem{e.Problem.Code, err.Error()}
	}
	switch {
	case errors.Is(err, client.ErrNoIDToken):
		return problem{"no_id_token", client.ErrNoIDToken.Error()}
	case errors.Is(err, client.ErrNoAnswer):
		return problem{"no_answer", err.Error()}
	}
	return problem{"unexpected_answer", err.Error()}
}

// fail tells a problem, and returns ErrTold.
func (s *step) fail(p problem) error {
	s.command("error", "title=GARO: "+p.code, p.text+"\nWhat to do: "+guide+"#"+p.code)
	return ErrTold
}

// say writes a line of the log. What others wrote may be in it.
func (s *step) say(format string, args ...any) {
	line := strings.TrimRight(clean(fmt.Sprintf(format, args...)), " ")
	if strings.HasPrefix(strings.TrimSpace(line), "::") {
		line = "." + line // GitHub takes a line that begins so for a command
	}
	s.print(line)
}

// group writes lines that the log shows folded up.
func (s *step) group(title string, lines []string) {
	s.command("group", "", title)
	for _, l := range lines {
		s.say("%s", l)
	}
	s.command("endgroup", "", "")
}

// mask has GitHub replace a token by *** wherever it would show in a log.
func (s *step) mask(t client.Token) { s.command("add-mask", "", t.Reveal()) }

// command writes a command of the log
// (https://docs.github.com/en/actions/reference/workflow-commands).
func (s *step) command(name, property, text string) {
	if key, value, ok := strings.Cut(property, "="); ok {
		name += " " + key + "=" + escapeProperty.Replace(value)
	}
	s.print("::" + name + "::" + escapeData.Replace(strings.TrimRight(text, "\n")))
}

// How GitHub's toolkit escapes texts of commands: a line end would begin
// another command.
var (
	escapeData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func (s *step) print(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.env.Stdout, line)
}

// clean returns text as one line without control characters, and without what
// older runners take for a command anywhere in a line.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
	return strings.ReplaceAll(text, "##[", "# #[")
}

// output sets an output of the step.
func (s *step) output(name, value string) error {
	return s.appendTo("GITHUB_OUTPUT", name+"="+clean(value)+"\n")
}

// appendTo appends to the file that a variable names. Without it there is nobody
// to read it.
func (s *step) appendTo(variable, text string) error {
	path := s.env.Getenv(variable)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	return nil
}

// notReady says why a request has no runner.
func notReady(st apitype.Status) problem {
	p := problem{st.State, fmt.Sprintf("Request %s ended as %s.", st.ID, st.State)}
	if st.Error != nil {
		p = problem{st.Error.Code, fmt.Sprintf("Request %s ended as %s: %s", st.ID, st.State, st.Error.Text)}
	}
	for _, a := range st.Attempts {
		p.text += fmt.Sprintf("\nTried %s %s in %s: %s", a.Market, a.InstanceType, a.Subnet, a.Code)
	}
	return p
}
