package awstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// files has, for each stand-in, what is installed with its hashes, and the small
// program that serves it on loopback alone.
//
//go:embed standins
var files embed.FS

const (
	// installFor is for some 50 MB over a slow line.
	installFor = 10 * time.Minute
	// installed is made last in the folder of a stand-in that is whole.
	installed = "installed"
)

// damagedError says that what a registry gave is not what the hashes are of.
type damagedError struct{ text string }

func (e *damagedError) Error() string { return e.text }

// folder is where s is installed: named by its version and by the hash of all
// that decides what is in it. It need not exist.
func (s *standin) folder() (string, error) {
	parent := os.Getenv("GARO_STANDINS")
	if parent == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w; set GARO_STANDINS to a folder for the stand-ins of AWS", err)
		}
		parent = filepath.Join(cache, "garo", "standins")
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	err = s.each(func(name string, text []byte) error {
		fmt.Fprintf(hash, "%s %d\n%s", name, len(text), text)
		return nil
	})
	return filepath.Join(parent, fmt.Sprintf("%s-%x", s.name, hash.Sum(nil)[:4])), err
}

// each calls f for the files of s, in the order of their names.
func (s *standin) each(f func(name string, text []byte) error) error {
	dir := path.Join("standins", strings.Split(s.name, "-")[0])
	entries, err := files.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := fs.ReadFile(files, path.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if err := f(e.Name(), text); err != nil {
			return err
		}
	}
	return nil
}

// ensure installs s unless it is installed, and returns its folder. Test binaries
// that do so at the same time wait for the first.
func (s *standin) ensure() (dir string, err error) {
	if dir, err = s.folder(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // which unlocks it
	if err := flock(lock); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(filepath.Join(dir, installed)); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil { // what an interrupted run left
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	err = s.each(func(name string, text []byte) error {
		return os.WriteFile(filepath.Join(dir, name), text, 0o644)
	})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), installFor)
	defer cancel()
	if err := s.install(ctx, dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, installed), nil, 0o644)
}

// flock waits until this process alone has the lock on f.
func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// run runs an installer. Its last words are in the error.
func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if len(out) > shown {
		out = out[len(out)-shown:]
	}
	text := fmt.Sprintf("%s in %s: %v: is its package registry within reach, and set up for it?\n%s", program, dir, err, out)
	if bytes.Contains(out, []byte("DO NOT MATCH THE HASHES")) { // pip's words
		return &damagedError{text}
	}
	return errors.New(text)
}

// pip installs requirements.txt into a virtual environment.
func pip(ctx context.Context, dir string) error {
	if err := run(ctx, dir, "python3", "-m", "venv", "venv"); err != nil {
		return err
	}
	return run(ctx, dir, filepath.Join(dir, "venv", "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"--require-hashes", "--only-binary", ":all:", "--requirement", "requirements.txt")
}

func python(dir string) []string {
	return []string{filepath.Join(dir, "venv", "bin", "python"), filepath.Join(dir, "serve.py")}
}

// maven copies what pom.xml depends on into lib, and compares it with SHA256SUMS.
func maven(ctx context.Context, dir string) error {
	err := run(ctx, dir, "mvn", "--batch-mode", "--quiet", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib")
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		return err
	}
	return verify(os.DirFS(filepath.Join(dir, "lib")), string(sums))
}

// verify compares the files in lib, each and all, with lines as sha256sum prints them.
func verify(lib fs.FS, sums string) error {
	want := map[string]string{}
	for line := range strings.Lines(sums) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			return fmt.Errorf("SHA256SUMS has %q, want a hash and a name", line)
		}
		want[name] = sum
	}
	entries, err := fs.ReadDir(lib, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := fs.ReadFile(lib, e.Name())
		if err != nil {
			return err
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(text)); got != want[e.Name()] {
			return &damagedError{fmt.Sprintf("%s: SHA-256 = %s, want %q", e.Name(), got, want[e.Name()])}
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		return &damagedError{fmt.Sprintf("files that SHA256SUMS lists and mvn did not bring: %v", want)}
	}
	return nil
}

// java runs Serve.java from its source. The compiler's first stage is enough for
// the short life of a stand-in, and halves the time until it serves.
func java(dir string) []string {
	lib := filepath.Join(dir, "lib")
	return []string{
		"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m",
		"-Dsqlite4java.library.path=" + lib, "-Djava.library.path=" + lib,
		"-cp", filepath.Join(lib, "*"), filepath.Join(dir, "Serve.java"),
	}
}
