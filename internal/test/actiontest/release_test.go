package actiontest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// fakeGo stands for the compiler: its programs say what they were built for.
const fakeGo = `#!/bin/sh
if [ "$1" = env ]; then
	echo go1.26.8
	exit
fi
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\necho "%s %s cgo %s"\n' "$GOOS" "$GOARCH" "$CGO_ENABLED" >"$2"
`

// pin runs pin.sh on a copy of what it writes to, and returns that.
func pin(t *testing.T, version string) (path string, err error) {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile(filepath.Join(root, "client", "action", "pin.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"client/action/pin.sh": string(script), "client/action/node/release.json": "before", "bin/go": fakeGo} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "client", "action", "pin.sh"), version)
	cmd.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(dir, "client", "action", "node", "release.json"), err
}

func TestPinnedReleaseHasTheSumOfEachProgram(t *testing.T) {
	t.Parallel()
	path, err := pin(t, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Version, Go string
		SHA256      map[string]string
	}
	decode(t, path, &got)
	if got.Version != "v1.2.3" || got.Go != "go1.26.8" || len(got.SHA256) != 6 {
		t.Errorf("release.json = %+v, want v1.2.3, go1.26.8 and six sums", got)
	}
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			name := "garo_" + system + "_" + arch
			if system == "windows" {
				name += ".exe"
			}
			want := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "#!/bin/sh\necho \"%s %s cgo 0\"\n", system, arch)))
			if got.SHA256[name] != want {
				t.Errorf("sum of %s = %q, want %s", name, got.SHA256[name], want)
			}
		}
	}
}

func TestVersionThatIsNoneIsNotPinned(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "1.2.3", "v1.2", "v1.2.3-rc.1", "v1.2.3\", \"x"} {
		path, err := pin(t, version)
		if err == nil {
			t.Errorf("pin.sh %q pins it", version)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "before" {
			t.Errorf("pin.sh %q writes %q, %v; want nothing", version, b, err)
		}
	}
}

// host is a release, behind a redirect as GitHub's are.
func host(t *testing.T, program []byte) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/v9.9.9/", http.RedirectHandler("/storage", http.StatusFound))
	mux.HandleFunc("/storage", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(program) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// fetchAndRun is what the shell does when the release is elsewhere than at GitHub.
const fetchAndRun = `const [shell, base, dir, release] = process.argv.slice(1)
const { find, execute } = require(shell)
find({ env: {}, release: JSON.parse(release), dir, base, pause: 1 })
  .then(file => execute(file, ['version']))
  .then(code => { process.exitCode = code }, err => { console.log(err.message); process.exitCode = 9 })`

func TestProgramOfTheReleaseIsRunOnlyIfItIsThePinnedOne(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(garo)
	if err != nil {
		t.Fatal(err)
	}
	name := "garo_" + runtime.GOOS + "_" + runtime.GOARCH
	release, err := json.Marshal(map[string]any{"version": "v9.9.9", "sha256": map[string]string{name: fmt.Sprintf("%x", sha256.Sum256(program))}})
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(program)
	changed[len(changed)-1] ^= 1
	for what, tc := range map[string]struct {
		served []byte
		status int
		says   string
		kept   int
	}{
		"pinned":    {program, 0, "garo ", 1},
		"changed":   {changed, 9, "it is not run", 0},
		"truncated": {program[:len(program)/2], 9, "it is not run", 0},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "garo")
			cmd := exec.CommandContext(t.Context(), "node", "-e", fetchAndRun, filepath.Join(root, "client", "action", "node", "garo.js"), host(t, tc.served), dir, string(release))
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != tc.status || !strings.Contains(string(out), tc.says) {
				t.Errorf("status %d, want %d; it printed %q, want %q", got, tc.status, out, tc.says)
			}
			left, err := os.ReadDir(dir)
			if err != nil && !os.IsNotExist(err) || len(left) != tc.kept {
				t.Errorf("%d files are kept, want %d (%v)", len(left), tc.kept, err)
			}
		})
	}
}
