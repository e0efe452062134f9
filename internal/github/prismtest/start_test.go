package prismtest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

const (
	// installFor is for some 70 MB over a slow line; startFor is for three seconds
	// of work on a machine that does much else.
	installFor = 5 * time.Minute
	startFor   = 2 * time.Minute
)

// untilAlone runs a program as node does, until its standard input ends: nothing
// is left behind if the tests are killed.
const untilAlone = `process.stdin.on("end", () => process.exit()).resume(); require(process.argv[1])`

var listening = regexp.MustCompile(`Prism is listening on (http://127\.0\.0\.1:\d+)`)

// start starts Prism on this machine alone, and returns its URL; empty: there is
// none here. It ends with the test.
func start(t *testing.T, args ...string) string {
	t.Helper()
	dir, err := install(t.Context())
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
	if _, err := cmd.StdinPipe(); err != nil { // open until Wait, or until this process is no more
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

// install puts Prism, as the lockfile has it, where the next run finds it, and
// returns the directory.
func install(ctx context.Context) (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	files := map[string][]byte{}
	hash := sha256.New()
	for _, name := range []string{".npmrc", "package.json", "package-lock.json"} {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		files[name] = b
		fmt.Fprintf(hash, "%s %d\n%s", name, len(b), b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "garo")
	dir := filepath.Join(parent, fmt.Sprintf("prism-%x", hash.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // it is there as a whole, or not at all
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(parent, "prism-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(scratch, name), b, 0o644); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, installFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci")
	cmd.Dir, cmd.WaitDelay = scratch, 10*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(scratch, dir); err != nil {
		if _, serr := os.Stat(dir); serr != nil { // nobody else was faster
			return "", err
		}
	}
	return dir, nil
}
