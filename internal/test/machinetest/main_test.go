//go:build linux

package machinetest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A machine's first process is this program again, and its mounts are those of
// the thread that it began with.
func init() { runtime.LockOSThread() }

// parallel is how many tests run at once: most of their time is waiting, on any
// number of processors.
const parallel = "4"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == initArgument {
		if err := powerOn(); err != nil {
			fmt.Fprintln(os.Stderr, "machine:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program is the agent as the API serves it.
type program struct {
	path   string
	sha256 string
	gzip   []byte
}

var built struct {
	once sync.Once
	dir  string
	program
	err error
}

// agentProgram builds the agent, once.
func agentProgram(t *testing.T) program {
	t.Helper()
	built.once.Do(func() { built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.program
}

func build() error {
	dir, err := os.MkdirTemp("", "garo-machinetest-")
	if err != nil {
		return err
	}
	built.dir, built.path = dir, filepath.Join(dir, "garo-agent")
	b, err := compile(built.path, runtime.GOARCH)
	if err != nil {
		return err
	}
	built.sha256 = fmt.Sprintf("%x", sha256.Sum256(b))
	built.gzip, err = zip(b)
	return err
}

// compile builds the agent as it is released, and returns it.
func compile(path, arch string) ([]byte, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "../../../cmd/garo-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return os.ReadFile(path)
}

func zip(b []byte) ([]byte, error) {
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return z.Bytes(), nil
}

// able reports whether machines can be made here. Where they have to be, the test
// fails if not.
func able(t *testing.T) bool {
	t.Helper()
	why := ""
	for _, tool := range []string{"ip", "curl", "useradd", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			why = tool + " is not installed"
		}
	}
	if os.Geteuid() != 0 {
		why = "this needs root"
	} else if why == "" {
		cmd := exec.Command("mount", "-t", "tmpfs", "none", "/tmp")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			why = fmt.Sprintf("no namespaces: %v: %s", err, strings.TrimSpace(string(out)))
		}
	}
	switch {
	case why == "":
		return true
	case os.Geteuid() == 0 && os.Getenv("CI") == "true":
		t.Fatalf("no machine can be made: %s", why)
	default:
		t.Logf("NOTHING TESTED: no machine can be made: %s", why)
	}
	return false
}
