//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
)

// scratch has what was built; it is gone with the test binary.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "garo-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	flag.Parse()
	// The tests wait more than they compute: for claims that lapse, above all.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err) // the flag exists, and it takes numbers
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// program returns the bootstrap of a function, in a directory that has the files
// of its zip.
func program(t *testing.T, name string) string {
	t.Helper()
	awstest.Need(t, "go")
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(scratch, name, "bootstrap")
}

// build builds the functions and the agent as make build does, for this machine; but
// they trust the certificate of the simulation in place of AWS's.
var build = sync.OnceValue(func() error {
	const module = "github.com/alphagov/github-actions-runner-orchestration/cmd/"
	names := []string{"garo-api", "garo-worker", "garo-reaper", "garo-agent"}
	bin := filepath.Join(scratch, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	trust, err := awstest.Trusting("../../..", scratch, simidentity.Own().PEM())
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", trust, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-tags=lambda.norpc", "-o", bin)
	for _, name := range names {
		cmd.Args = append(cmd.Args, module+name)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	built := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return err
		}
		built[name] = b
	}
	agents := map[string][]byte{runtime.GOARCH: built["garo-agent"]}
	api, err := bundle.API(built["garo-api"], agents)
	if err != nil {
		return err
	}
	worker, err := bundle.Worker(built["garo-worker"], agents)
	if err != nil {
		return err
	}
	for name, files := range map[string]bundle.Files{"garo-api": api, "garo-worker": worker, "garo-reaper": bundle.Reaper(built["garo-reaper"])} {
		if err := unpack(filepath.Join(scratch, name), files); err != nil {
			return err
		}
	}
	return nil
})

func unpack(dir string, files bundle.Files) error {
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			return err
		}
	}
	return nil
}
