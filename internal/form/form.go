// Package form checks the form of identifiers: which characters they have, in which
// order, and how many. It promises no more than that, byte by byte and in ASCII, so
// that whatever only looks like an allowed character is refused.
//
// A Form is data. A program that declares one does nothing for it when it starts,
// while a regular expression is compiled even if no call ever needs it. What a Form
// cannot say is a function beside its use, or a regular expression that is compiled
// when it is first needed.
package form

import "strings"

// Class is a set of characters, as pairs of the first and the last of a range: "az__"
// is a lower-case letter or an underscore.
type Class string

// The classes that most forms are made of.
const (
	Digit  Class = "09"
	Lower  Class = "az"
	Letter Class = "azAZ"
)

func (c Class) has(b byte) bool {
	for i := 0; i < len(c); i += 2 {
		if c[i] <= b && b <= c[i+1] {
			return true
		}
	}
	return false
}

// Part is one stretch of a Form: a text, or characters of a class.
type Part struct {
	Text string

	Of       Class
	Min, Max int // how many of them; Max 0: no bound
}

// Form is what an identifier consists of, from its first character to its last. Each
// part takes as many characters as it can, and gives none back to the next.
type Form []Part

// Fits reports whether s has the form.
func (f Form) Fits(s string) bool {
	for _, p := range f {
		rest, ok := strings.CutPrefix(s, p.Text)
		if !ok {
			return false
		}
		n := 0
		for n < len(rest) && (n < p.Max || p.Max == 0) && p.Of.has(rest[n]) {
			n++
		}
		if n < p.Min {
			return false
		}
		s = rest[n:]
	}
	return s == ""
}

// Forms that several packages check.
var (
	// SHA256 is a hash in lower-case hex.
	SHA256 = Form{{Of: Digit + "af", Min: 64, Max: 64}}
	// GitHubID is an id of GitHub's: a number that 64 bits hold has at most 20 digits.
	GitHubID = Form{{Of: Digit, Min: 1, Max: 20}}
	// AWSAccount is the id of an AWS account.
	AWSAccount = Form{{Of: Digit, Min: 12, Max: 12}}
)
