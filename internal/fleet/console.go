package fleet

import (
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// MaxConsole is the most bytes that Console returns: EC2 keeps the newest 64 KB
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html).
const MaxConsole = 64 << 10

// escapes are what moves a terminal's cursor and colours its text, and the titles that it
// is given (ECMA-48, sections 5.4 and 5.6).
var escapes = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])")
})

// Printed makes plain text of what a console shows: lines of printable characters, each
// ended by a newline and none empty, without escape sequences, and of more than MaxConsole
// bytes the last whole lines. Whatever a machine prints, it does nothing to the terminal of
// who reads it.
func Printed(raw string) string {
	raw = escapes().ReplaceAllString(strings.ToValidUTF8(raw, "?"), "")
	var out strings.Builder
	for line := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.Map(func(r rune) rune {
			if r == '\t' {
				return ' '
			}
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, line)
		if line = strings.TrimRight(line, " "); line != "" {
			out.WriteString(line + "\n")
		}
	}
	return lastLines(out.String(), MaxConsole)
}

// lastLines returns the last whole lines of s that have at most so many bytes together; of a
// last line that is longer, its end.
func lastLines(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = strings.ToValidUTF8(s[len(s)-most:], "")
	if _, rest, ok := strings.Cut(s, "\n"); ok && rest != "" {
		return rest
	}
	return s
}
