package api

import "strings"

// Patterns returns the patterns of all routes.
func Patterns() []string {
	var out []string
	for _, r := range (&server{}).routes() {
		out = append(out, strings.TrimSuffix(r.pattern, "{$}"))
	}
	return out
}
