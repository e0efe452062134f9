// Package formtest holds checks of a form against the regular expression that says
// the same.
package formtest

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	samples = 6   // texts that match: some short, some long
	edge    = 40  // characters at either end of a text that are changed; what is between is like them
	longest = 260 // beyond the bound of any form here, which is 255
	parts   = 14  // one more than the most levels of a path
)

// odd are the first and the last of each class, their neighbours, and what is no
// ASCII: some of it becomes ASCII when case is folded.
var odd = []string{
	"/", "0", "1", "2", "7", "8", "9", ":", "@", "A", "F", "G", "Z", "[", "\\", "]", "^", "_", "`", "a", "f", "g", "i", "z", "{", "~",
	"-", ".", ",", ";", "!", "#", "+", "=", "$", " ", "\n", "\x00", "\x7f", "\x80", "\xff", "é", "K", "ſ", "٣", "s", "//", "::",
}

// Same tests that fits accepts what pattern matches and nothing else. It tries texts
// that match, with each character changed or left out, each stretch left out or said
// again, and each character said until it is beyond every bound.
func Same(t *testing.T, name string, fits func(string) bool, pattern string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		re := regexp.MustCompile(pattern)
		accepted, refused := 0, 0
		check := func(s string) {
			want := re.MatchString(s)
			if got := fits(s); got != want {
				t.Fatalf("%q fits: %v, want %v, as %s says", s, got, want, pattern)
			}
			if want {
				accepted++
			} else {
				refused++
			}
		}
		check("")
		matching := rapid.StringMatching(pattern)
		for seed := range samples {
			s := matching.Example(seed)
			check(s)
			for i := range len(s) + 1 {
				if edge < i && i < len(s)-edge {
					continue
				}
				for _, o := range odd {
					check(s[:i] + o + s[i:])
					if i < len(s) {
						check(s[:i] + o + s[i+1:])
					}
				}
				for j := i + 1; j <= len(s); j++ {
					check(s[:i] + s[j:])
					check(s[:j] + s[i:])
				}
				if i == len(s) {
					continue
				}
				for n := 2; n <= longest; n++ {
					check(s[:i] + strings.Repeat(s[i:i+1], n) + s[i+1:])
				}
				for n := 2; n <= parts; n++ {
					check(strings.Repeat(s[:i], n) + s[i:])
					check(s[:i] + strings.Repeat(s[i:], n))
				}
			}
		}
		if accepted == 0 || refused == 0 {
			t.Errorf("%d texts matched and %d did not, want some of both", accepted, refused)
		}
	})
}
