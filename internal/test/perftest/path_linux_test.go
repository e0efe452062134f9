package perftest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// drawn returns a path from a drawing of its calls, a line each: a call lasts from
// its first letter to its last.
func drawn(lines ...string) path {
	var p path
	at := func(column int) time.Time { return time.Unix(int64(column), 0) }
	for _, l := range lines {
		action := strings.TrimSpace(l)
		p = append(p, call{dynamoDB, action, at(strings.Index(l, action)), at(len(l))})
	}
	return p
}

func TestCallsOneAfterAnother(t *testing.T) {
	for _, c := range []struct {
		name string
		path path
		k    int
		want string
	}{
		{"None", nil, 0, ""},
		{"One", drawn("aa"), 1, "aa"},
		{"Sequence", drawn("aa", "  bb", "    cc"), 3, "aa → bb → cc"},
		{"Together", drawn("aa", "aa", " cc"), 1, "aa + aa + cc"},
		{"BranchesOfTwo", drawn("aaaa", "bb", "  cccc", "    dd"), 2, "aaaa + bb → cccc + dd"},
		{"LongestWay", drawn("a", " bbbbbbbb", " c", "  d", "   e"), 4, "a → bbbbbbbb + c → d → e"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if k := c.path.until(""); k != c.k {
				t.Errorf("k = %d, want %d", k, c.k)
			}
			if got := c.path.String(); got != c.want {
				t.Errorf("path = %s, want %s", got, c.want)
			}
		})
	}
}

func TestWhatIsAboveItsBoundIsReported(t *testing.T) {
	p := drawn("RunInstances", "            mint", "                z")
	p[1].service = github
	for _, c := range []struct {
		bound bounds
		want  string
	}{
		{bounds{}, ""},
		{bounds{aws: 2, github: 1, k: 3, launched: 1}, ""},
		{bounds{aws: 1}, "2 calls of AWS, want at most 1"},
		{bounds{k: 2}, "3 calls one after another, want at most 2"},
	} {
		got := row{what: "x", path: p, bound: c.bound}.beyond()
		if len(got) > 1 || !strings.Contains(fmt.Sprint(got), c.want) || c.want == "" && len(got) > 0 {
			t.Errorf("beyond %+v = %q, want %q", c.bound, got, c.want)
		}
	}
}
