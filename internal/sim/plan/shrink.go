package plan

import "slices"

// Shrink leaves out of a seed's requests and faults what a breach does not need,
// as far as so many plays show: half of them at once, then less and less, down to
// one by one. It returns what is left, with which the promise still breaks.
func Shrink(met []string, plays int, breaks func(only []string) bool) []string {
	for size := (len(met) + 1) / 2; size > 0 && len(met) > 0; {
		smaller := false
		for from := 0; from < len(met); {
			if plays == 0 {
				return met
			}
			plays--
			rest := slices.Concat(met[:from], met[min(from+size, len(met)):])
			if len(rest) == 0 {
				rest = []string{} // nil would stand for all
			}
			if breaks(rest) {
				met, smaller = rest, true
			} else {
				from += size
			}
		}
		switch {
		case size > 1:
			size = (size + 1) / 2
		case !smaller:
			return met
		}
	}
	return met
}
