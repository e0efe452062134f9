// Package bundle is the zip of a Lambda function: the program, called bootstrap as
// the runtime provided.al2023 wants it, and beside it what the function has to know
// of the agent's programs. The API has the programs themselves, compressed, as
// agents/<arch>/<sha256>.gz, and serves them under these names; the worker has
// their names, in agents.json, and writes them into user data.
//
// It promises that both mean the same programs if they were made of the same
// files, and that the same files make the same bytes: nothing in a zip depends on
// when, where or in which order it was made.
package bundle

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

const (
	bootstrap  = "bootstrap"
	agentsDir  = "agents"
	agentsFile = "agents.json"

	// maxAgent is how large a compressed agent may be: encoded in base64 it then
	// still fits into the 6 MB that a Lambda function may answer.
	maxAgent = 4 << 20
)

// epoch is the oldest time that a zip can say, and every file's.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Files are the files of a zip by their paths in it.
type Files map[string][]byte

// API returns the files of the API's zip. agents has the agent's program by GOARCH.
func API(program []byte, agents map[string][]byte) (Files, error) {
	files := Files{bootstrap: program}
	for arch, agent := range agents {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(agent); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		if b.Len() > maxAgent {
			return nil, fmt.Errorf("the agent for %s has %d bytes compressed, and Lambda can answer %d: make it smaller", arch, b.Len(), maxAgent)
		}
		files[path.Join(agentsDir, arch, sum(agent)+".gz")] = b.Bytes()
	}
	return files, nil
}

// Worker returns the files of the worker's zip. agents has the agent's program by
// GOARCH.
func Worker(program []byte, agents map[string][]byte) (Files, error) {
	sums := map[string]string{}
	for arch, agent := range agents {
		sums[arch] = sum(agent)
	}
	b, err := json.Marshal(sums)
	if err != nil {
		return nil, err
	}
	return Files{bootstrap: program, agentsFile: append(b, '\n')}, nil
}

// Reaper returns the files of the reaper's zip.
func Reaper(program []byte) Files { return Files{bootstrap: program} }

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// Write writes the files as a zip. The program may be executed, everything be read.
func (f Files) Write(w io.Writer) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, name := range slices.Sorted(maps.Keys(f)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: epoch}
		if strings.HasSuffix(name, ".gz") {
			h.Method = zip.Store
		}
		h.SetMode(0o644)
		if name == bootstrap {
			h.SetMode(0o755)
		}
		part, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := part.Write(f[name]); err != nil {
			return err
		}
	}
	return z.Close()
}

// Dir returns the directory that the function's zip was unpacked into: that of the
// running program.
func Dir() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the program's directory: %w", err)
	}
	return filepath.Dir(program), nil
}

// errZip says what to do when files are missing beside the program.
var errZip = errors.New("deploy the whole zip that make build writes")

// Agents returns the agent's programs in the API's unpacked zip, as <arch>/<sha256>.gz.
func Agents(dir string) (fs.FS, error) {
	agents := os.DirFS(filepath.Join(dir, agentsDir))
	found, err := fs.Glob(agents, "*/*.gz")
	if err == nil && len(found) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("agents in %s: %w: %w", dir, err, errZip)
	}
	return agents, nil
}

// Sums returns the SHA-256 of the agent's programs by GOARCH, from the worker's
// unpacked zip.
func Sums(dir string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, agentsFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errZip)
	}
	var sums map[string]string
	if err := json.Unmarshal(b, &sums); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", agentsFile, err, errZip)
	}
	for _, s := range sums {
		if !form.SHA256.Fits(s) {
			return nil, fmt.Errorf("%s: %.70q is no SHA-256: %w", agentsFile, s, errZip)
		}
	}
	if len(sums) == 0 {
		return nil, fmt.Errorf("%s names no agent: %w", agentsFile, errZip)
	}
	return sums, nil
}
