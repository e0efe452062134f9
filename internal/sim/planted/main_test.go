package main

import "testing"

func TestViolationCountsFromTheStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, out string
		start     int
		seeds     int
		what      string
		bad       bool
	}{
		{name: "First", out: "x\nviolation: seed 7: two machines\ny\n", start: 7, seeds: 1, what: "two machines"},
		{name: "Later", out: "violation: seed 1000041: the quota\n", start: 1000001, seeds: 41, what: "the quota"},
		{name: "NoSeed", out: "FAIL\n", start: 1, bad: true},
		{name: "EarlierSeed", out: "violation: seed 6: two machines\n", start: 7, bad: true},
	} {
		seeds, what, err := violation(c.out, c.start)
		if seeds != c.seeds || what != c.what || (err != nil) != c.bad {
			t.Errorf("%s: violation = %d, %q, %v, want %d, %q, an error %t", c.name, seeds, what, err, c.seeds, c.what, c.bad)
		}
	}
}

func TestSumCountsWhatSeedsCaught(t *testing.T) {
	t.Parallel()
	for want, medians := range map[string][]int{
		"planted 4, caught 3 (75 %), median seeds 9": {2, 9, 100},
		"planted 4, caught 0 (0 %), median seeds 0":  nil,
	} {
		if got := sum(4, medians); got != want {
			t.Errorf("sum = %q, want %q", got, want)
		}
	}
}

func TestRowTellsWhatCaughtABug(t *testing.T) {
	t.Parallel()
	b := plant("QuotaOffByOne", "one | two", edit("store/launch.go", "a", "b"), edit("store/quota.go", "c", "d"))
	for want, o := range map[string]outcome{
		`| QuotaOffByOne | one \| two | store/launch.go, store/quota.go | [3 1 2] 11 live | 2 | - |`:       {counts: []int{3, 1, 2}, median: 2, what: "11 live"},
		`| QuotaOffByOne | one \| two | store/launch.go, store/quota.go | no | 0 | directed, exhaustive |`: {asked: true, others: []string{"directed", "exhaustive"}},
		`| QuotaOffByOne | one \| two | store/launch.go, store/quota.go | no | 0 | none |`:                 {asked: true},
	} {
		if got := o.row(b); got != want {
			t.Errorf("row = %s, want %s", got, want)
		}
	}
}
