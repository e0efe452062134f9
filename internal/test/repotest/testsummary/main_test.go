package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	const passes = `{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"dull\n"}
{"Action":"pass","Package":"a","Test":"TestOne"}
{"Action":"skip","Package":"a","Test":"TestTwo"}
{"Action":"pass","Package":"a","Elapsed":1.25}
{"Action":"skip","Package":"doc"}
`
	for _, c := range []struct {
		name, events string
		want         string // the totals
		good         bool
		show         []string
		hide         string // must not be shown; empty: nothing to hide
	}{
		{
			name: "PassedTestsStaySilent", events: passes, good: true,
			want: "packages: 1 passed, 0 failed, 1 without tests\n1 passed, 0 failed, 1 skipped",
			show: []string{"pass a 1.2s"}, hide: "dull",
		},
		{
			name: "SkippedTestsAreListedWithTheirReason", good: true,
			events: passes + `{"Action":"output","Package":"b","Test":"TestJava","Output":"=== RUN   TestJava\n"}
{"Action":"output","Package":"b","Test":"TestJava","Output":"    need.go:20: java is not\n"}
{"Action":"output","Package":"b","Test":"TestJava","Output":"        installed\n"}
{"Action":"output","Package":"b","Test":"TestJava","Output":"--- SKIP: TestJava (0.00s)\n"}
{"Action":"skip","Package":"b","Test":"TestJava"}
{"Action":"pass","Package":"b"}
`,
			want: "packages: 2 passed, 0 failed, 1 without tests\n1 passed, 0 failed, 2 skipped",
			show: []string{"left out:\n  a TestTwo: no reason given\n  b TestJava: need.go:20: java is not installed\n"}, hide: "SKIP",
		},
		{
			name: "FailedTestIsShownWithItsOutput",
			events: passes + `{"Action":"output","Package":"b","Test":"TestBad","Output":"got 1\n"}
{"Action":"fail","Package":"b","Test":"TestBad"}
{"Action":"output","Package":"b","Output":"-test.shuffle 7\n"}
{"Action":"fail","Package":"b"}
`,
			want: "packages: 1 passed, 1 failed, 1 without tests\n1 passed, 1 failed, 1 skipped",
			show: []string{"got 1", "-test.shuffle 7", "fail b"},
		},
		{
			name: "BrokenBuildCountsAsOneFailure",
			events: passes + `{"ImportPath":"b [b.test]","Action":"build-output","Output":"b.go:1: undefined\n"}
{"ImportPath":"b [b.test]","Action":"build-fail"}
{"Action":"start","Package":"b"}
{"Action":"fail","Package":"b","FailedBuild":"b [b.test]"}
`,
			want: "packages: 1 passed, 1 failed, 1 without tests\n1 passed, 1 failed, 1 skipped",
			show: []string{"b.go:1: undefined"},
		},
		{
			name: "TestThatNeverEndedIsShown",
			events: passes + `{"Action":"output","Package":"b","Test":"TestHangs","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"b"}
`,
			want: "packages: 1 passed, 1 failed, 1 without tests\n1 passed, 1 failed, 1 skipped",
			show: []string{"test timed out"},
		},
		{
			name:   "RunThatWasCutShortFails",
			events: passes + `{"Action":"start","Package":"b"}` + "\n",
			want:   "packages: 1 passed, 1 failed, 1 without tests\n1 passed, 1 failed, 1 skipped",
		},
		{
			name: "OtherLinesArePassedOn", events: "make: nothing to be done\n" + passes, good: true,
			want: "packages: 1 passed, 0 failed, 1 without tests\n1 passed, 0 failed, 1 skipped",
			show: []string{"make: nothing to be done"},
		},
		{
			name: "NothingAtAllIsNoSuccess", events: "",
			want: "packages: 0 passed, 0 failed, 0 without tests\n0 passed, 0 failed, 0 skipped",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var shown bytes.Buffer
			got, err := read(strings.NewReader(c.events), &shown)
			if err != nil {
				t.Fatalf("read: %v", err)
			}
			if got.String() != c.want || got.good() != c.good {
				t.Errorf("read = %q, good %v; want %q, good %v", got, got.good(), c.want, c.good)
			}
			for _, s := range c.show {
				if !strings.Contains(shown.String(), s) {
					t.Errorf("read showed %q, want %q in it", shown.String(), s)
				}
			}
			if c.hide != "" && strings.Contains(shown.String(), c.hide) {
				t.Errorf("read showed %q, want no %q in it", shown.String(), c.hide)
			}
		})
	}
}
