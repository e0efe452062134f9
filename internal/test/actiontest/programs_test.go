// Package actiontest runs the GitHub Action as its users do: nektos/act runs the
// example workflows with the real action, the real program garo, a GARO of one
// machine, and an issuer that signs tokens as GitHub does. The Node.js shell and
// the cancellation of jobs are also run without act, as GitHub's runner runs them.
// It needs node, and says so where there is none.
package actiontest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait for something that must come: far more than it
// takes, since other tests may have the processors.
const patience = 2 * time.Minute

// The programs that the tests run, and the root of the repository.
var garo, act, root string

func TestMain(m *testing.M) {
	status, err := prepare(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "actiontest:", err)
		status = 1
	}
	os.Exit(status)
}

// prepare builds the programs and runs the tests.
func prepare(m *testing.M) (status int, err error) {
	if root, err = filepath.Abs("../../.."); err != nil {
		return 0, err
	}
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			return 0, err
		}
		fmt.Println("NOT RUN, for lack of Node.js:", err)
		return 0, nil
	}
	dir, err := os.MkdirTemp("", "actiontest-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	garo = filepath.Join(dir, "garo")
	// As the action builds it: the tests of that find all but the linking done.
	if _, err := goCommand([]string{"CGO_ENABLED=0"}, "build", "-trimpath", "-buildvcs=false", "-o", garo, "./cmd/garo"); err != nil {
		return 0, err
	}
	// go keeps the program that it builds of a tool, and says where.
	if act, err = goCommand(nil, "tool", "-modfile=tools/go.mod", "-n", "act"); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func goCommand(env []string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// until waits for what must come.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
