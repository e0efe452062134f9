package prismtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/npmtest"
)

const (
	// startFor is for three seconds of work on a machine that does much else.
	startFor = 2 * time.Minute
)

// untilAlone runs a program as node does, until its standard input ends: nothing
// is left behind if the tests are killed.
const untilAlone = `process.stdin.on("end", () => process.exit()).resume(); require(process.argv[1])`

var listening = regexp.MustCompile(`Prism is listening on (http://127\.0\.0\.1:\d+)`)

// start starts Prism on this machine alone, and returns its URL; empty: there is
// none here. It ends with the test.
func start(t *testing.T, args ...string) string {
	t.Helper()
	dir, err := npmtest.Install(t.Context(), "prism", ".")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("install Prism: %v", err)
		}
		t.Logf("NOT RUN, for lack of Prism: %v", err)
		return ""
	}
	program := filepath.Join(dir, "node_modules", "@stoplight", "prism-cli", "dist", "index.js")
	args = append([]string{"-e", untilAlone, program, args[0], "--host", "127.0.0.1", "--port", "0", "--errors"}, args[1:]...)
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.WaitDelay = 10 * time.Second
	if _, err := cmd.StdinPipe(); err != nil { // open until Wait, or until this process has ended
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Prism: %v", err)
	}
	url := make(chan string, 1)
	ended := make(chan struct{})
	go func() { // reads until the end, so that Prism never waits for a reader
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			if m := listening.FindStringSubmatch(s.Text()); m != nil {
				select {
				case url <- m[1]:
				default: // said before
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
	})
	select {
	case u := <-url:
		return u
	case <-ended:
		t.Fatal("Prism ended before it listened")
	case <-time.After(startFor):
		t.Fatalf("Prism did not listen within %v", startFor)
	}
	return ""
}
