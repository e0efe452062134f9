package awstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Need leaves the test out if a program is not installed. With CI=true it fails
// the test instead: there nothing may be left out. This file is the one place of
// the repository that skips tests, and make test lists what was.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			absent(t, fmt.Errorf("%w: install it to run this test", err))
		}
	}
}

// absent ends the test, since what it needs is not here. What is here but is not
// what it should be is a failure anywhere.
func absent(t testing.TB, why error) {
	t.Helper()
	if _, damaged := errors.AsType[*damagedError](why); damaged || os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}
