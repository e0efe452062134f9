// Package npmtest installs what tests need of npm: pinned by a lockfile with hashes,
// without install scripts, and once for all runs of a user.
package npmtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// installFor is for some 70 MB over a slow line.
const installFor = 5 * time.Minute

// Install puts what the lockfile of dir has where the next run finds it: into a folder of
// that name and the lockfile's hash in the user's cache. It returns the folder, in which
// is node_modules. It fails where node or npm is missing, or the registry does not answer.
// Runs at the same time do no harm to each other.
func Install(ctx context.Context, name, dir string) (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	files := map[string][]byte{}
	hash := sha256.New()
	for _, file := range []string{".npmrc", "package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return "", err
		}
		files[file] = b
		fmt.Fprintf(hash, "%s %d\n%s", file, len(b), b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "garo")
	out := filepath.Join(parent, fmt.Sprintf("%s-%x", name, hash.Sum(nil)[:8]))
	if _, err := os.Stat(out); err == nil {
		return out, nil // it is there as a whole, or not at all
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(parent, name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	for file, b := range files {
		if err := os.WriteFile(filepath.Join(scratch, file), b, 0o644); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, installFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci")
	cmd.Dir, cmd.WaitDelay = scratch, 10*time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, said)
	}
	if err := os.Rename(scratch, out); err != nil {
		if _, serr := os.Stat(out); serr != nil { // nobody else was faster
			return "", err
		}
	}
	return out, nil
}
