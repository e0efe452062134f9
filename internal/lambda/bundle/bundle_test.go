package bundle_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
)

var (
	program = []byte("\x7fELF program")
	agents  = map[string][]byte{"amd64": []byte("\x7fELF amd64"), "arm64": []byte("\x7fELF arm64")}
)

// unpack writes a zip and unpacks it into a directory, as Lambda does.
func unpack(t *testing.T, files bundle.Files) string {
	t.Helper()
	var b bytes.Buffer
	if err := files.Write(&b); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range z.File {
		want := fs.FileMode(0o644)
		if f.Name == "bootstrap" {
			want = 0o755
		}
		if f.Mode() != want {
			t.Errorf("%s has mode %v, want %v", f.Name, f.Mode(), want)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, f.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "bootstrap")); err != nil || !bytes.Equal(got, program) {
		t.Errorf("bootstrap = %q, %v; want the program", got, err)
	}
	return dir
}

// What the worker writes into user data is what the API serves under that name.
func TestWorkerNamesWhatTheAPIServes(t *testing.T) {
	forAPI, err := bundle.API(program, agents)
	if err != nil {
		t.Fatal(err)
	}
	forWorker, err := bundle.Worker(program, agents)
	if err != nil {
		t.Fatal(err)
	}
	served, err := bundle.Agents(unpack(t, forAPI))
	if err != nil {
		t.Fatal(err)
	}
	sums, err := bundle.Sums(unpack(t, forWorker))
	if err != nil || len(sums) != len(agents) {
		t.Fatalf("Sums = %v, %v; want one for each agent", sums, err)
	}
	for arch, sum := range sums {
		b, err := fs.ReadFile(served, arch+"/"+sum+".gz")
		if err != nil {
			t.Errorf("agent of %s: %v", arch, err)
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(got, agents[arch]) || fmt.Sprintf("%x", sha256.Sum256(got)) != sum {
			t.Errorf("agent of %s = %q, %v; want its program, and its hash as the name", arch, got, err)
		}
	}
	unpack(t, bundle.Reaper(program))
}

func TestSameFilesMakeTheSameBytes(t *testing.T) {
	var first []byte
	for range 20 { // orders of a map
		files, err := bundle.API(program, agents)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := files.Write(&b); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(first, b.Bytes()) {
			t.Fatal("two zips of the same files differ")
		}
	}
}

func TestAgentThatCannotBeServedIsRefused(t *testing.T) {
	noise := make([]byte, 4<<20+1)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(noise); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.API(program, map[string][]byte{"arm64": noise}); err == nil || !strings.Contains(err.Error(), "the agent for arm64 has") {
		t.Errorf("API with an agent of more than 4 MiB compressed = %v, want an error that names it", err)
	}
	if _, err := bundle.API(program, map[string][]byte{"arm64": make([]byte, 5<<20)}); err != nil {
		t.Errorf("API with an agent that is small when compressed: %v", err)
	}
}

func TestIncompleteZipIsTold(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"NoFile":  {"", "no such file"},
		"NoJSON":  {"x", "agents.json: invalid character"},
		"NoSum":   {`{"arm64": "abc"}`, `"abc" is no SHA-256`},
		"NoAgent": {`{}`, "agents.json names no agent"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.content != "" {
				if err := os.WriteFile(filepath.Join(dir, "agents.json"), []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := bundle.Sums(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "make build") {
				t.Errorf("Sums = %v, %v; want an error that says %s and what to deploy", got, err, c.want)
			}
		})
	}
	if _, err := bundle.Agents(t.TempDir()); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("Agents of an empty directory = %v, want an error that says what to deploy", err)
	}
}

func TestDirIsThatOfTheProgram(t *testing.T) {
	dir, err := bundle.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Dir(os.Args[0]); dir != want {
		t.Errorf("Dir = %s, want %s", dir, want)
	}
}
