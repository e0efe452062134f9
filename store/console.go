package store

import (
	"cmp"
	"strings"
	"time"
)

// mostPrinted bounds what an error has of a console, in bytes: some twenty lines, and half
// of what a request's error may have in all.
const mostPrinted = 2 << 10

// NotBooted reports whether the runner of the case drains now since its machine did not
// boot, so that what that printed on its console belongs into the error.
func NotBooted(now time.Time, lim Limits, c Case) bool {
	return c.Runner.InstanceID != "" && DrainReason(now, lim, c.Runner, c.Lock, c.Pulse, c.Request) == EndNoBoot
}

// Console says what the console of a machine shows that did not boot: the last of the
// lines that it printed, or why nobody knows them. unread is why they could not be read; nil:
// they were.
func Console(printed string, unread error) string {
	if unread != nil {
		return "Its console could not be read: " + sentence(unread.Error())
	}
	lines := strings.FieldsFunc(printed, func(r rune) bool { return r == '\n' })
	said, first := "", len(lines)
	for first > 0 && len(said)+len(lines[first-1]) <= mostPrinted {
		first--
		said = lines[first] + " | " + said
	}
	switch {
	case len(lines) == 0:
		return "Its console shows nothing."
	case said == "": // one line is longer than all that there is room for
		last := lines[len(lines)-1]
		said = strings.ToValidUTF8(last[len(last)-mostPrinted:], "")
	}
	return "Its console ends with: " + strings.TrimSuffix(said, " | ")
}

// sentence ends s with a full stop.
func sentence(s string) string { return strings.TrimSuffix(s, ".") + "." }

// notBooted returns why a runner drains, by its code, with what its machine's console shows
// if it did not boot; empty: nobody looked.
func notBooted(code, console string) Failure {
	why := NewEnd(code)
	if code == EndNoBoot {
		why.Text += " " + cmp.Or(console, "Its console was not read.")
	}
	return why
}
