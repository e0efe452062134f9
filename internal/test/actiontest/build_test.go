package actiontest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// withoutProgram is what GitHub's runner tells a job on a machine that has no garo
// of its own.
func withoutProgram(s *system) []string {
	return slices.DeleteFunc(s.environment(), func(e string) bool { return strings.HasPrefix(e, "GARO_PATH=") })
}

// caches are Go's, where this test's own program was built: with nothing in them a
// build takes a minute or two, and the network.
func caches(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		dir, err := goCommand(nil, "env", name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name+"="+dir)
	}
	return append(out, "GOPROXY=off", "GOOS=plan9", "GOFLAGS=-mod=vendor") // the last two are the job's, for its own builds
}

const twice = `on: push
jobs:
  runner:
    runs-on: ubuntu-latest
    steps:
      - id: garo
        uses: alphagov/github-actions-runner-orchestration/client/action@v1
        with:
          url: ${{ vars.GARO_URL }}
          mode: ephemeral
      - uses: alphagov/github-actions-runner-orchestration/client/action@v1
        with:
          url: ${{ vars.GARO_URL }}
          command: status
          id: ${{ steps.garo.outputs.id }}
`

// The repository's own commit belongs to no release: nothing is downloaded, and one
// build serves all steps of the job and its end.
func TestActionOfAnyCommitBuildsTheProgramOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1s")
	r := start(t, s, twice, nil, append(withoutProgram(s), caches(t)...)...).wait(t)
	r.ran(t, "success", map[string]int{"runner": 1})
	r.says(t, "belongs to no release: garo is built from its sources", "The job has what it asked for")
	if n := strings.Count(r.log, "Built garo in "); n != 1 {
		t.Errorf("garo was built %d times, want once for two steps and their ends", n)
	}
	if all := s.requests(t); len(all) != 1 || all[0].State != "ready" {
		t.Errorf("requests = %+v, want one that is ready", all)
	}
}

func TestActionOfAnyCommitSaysThatItNeedsGo(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	s := newSystem(t)
	files := t.TempDir()
	bin := filepath.Join(files, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(node, filepath.Join(bin, "node")); err != nil {
		t.Fatal(err)
	}
	main, out := shell(t, s, files, "main", "GARO_PATH=", "PATH="+bin)
	_ = main.Wait()
	if got := main.ProcessState.ExitCode(); got != 1 {
		t.Errorf("status = %d, want 1", got)
	}
	for _, want := range []string{"::error title=GARO%3A no_program::", "add actions/setup-go before this step", "docs/action.md#no_program"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the step printed %q, want it to say %q", out, want)
		}
	}
	if _, err := os.Stat(filepath.Join(files, "state")); !os.IsNotExist(err) {
		t.Errorf("a state was saved (%v), want none: nothing was asked for", err)
	}
	if all := s.requests(t); len(all) != 0 {
		t.Errorf("%d requests, want none", len(all))
	}
}
