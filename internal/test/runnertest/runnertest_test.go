package runnertest_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/runnertest"
)

// program unpacks the stand-in, and returns the command that starts it.
func program(t *testing.T, listener string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range runnertest.Files(listener) {
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(f.Text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "run.sh"))
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "RUNNER_ALLOW_RUNASROOT=1", "ACTIONS_RUNNER_INPUT_JITCONFIG=config"}, env...)
	return cmd, dir
}

// What becomes of each exit code of the listener, as the comments of run.sh and of its
// helper in actions/runner say.
func TestExitCodesOfTheListener(t *testing.T) {
	const wanted = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1"
	for _, env := range [][]string{nil, {wanted}, {"RUNNER_MANUALLY_TRAP_SIG=1"}, {wanted, "RUNNER_MANUALLY_TRAP_SIG=1"}} {
		for listener, want := range map[string]string{
			"exit 0": "no retry needed", "exit 1": "terminated error", "exit 5": "Session Conflict", "exit 6": "unknown error code: 6",
			"exit 7": "7", "kill -KILL $$": "unknown error code: 137",
			"[ -e again ] && exit 0; >again; exit 2":                   "Restarting runner...",
			"[ -e again ] && exit 0; >again; >update.finished; exit 3": "Update finished",
			"[ -e again ] && exit 0; >again; >update.finished; exit 4": "Update finished",
		} {
			cmd, _ := program(t, listener+"\n", env...)
			out, _ := cmd.CombinedOutput()
			code := 0
			if listener == "exit 7" && strings.Contains(strings.Join(env, " "), wanted) {
				code = 7
			}
			if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
				t.Errorf("%v: after %q, run.sh ends with %d and prints:\n%s\nwant %d and %q", env, listener, got, out, code, want)
			}
		}
	}
}

func TestProgramWithoutAConfigIsNotConfigured(t *testing.T) {
	cmd, _ := program(t, "listening\n", "ACTIONS_RUNNER_INPUT_JITCONFIG=")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Runner is not configured.") || strings.Contains(string(out), "Listening") {
		t.Errorf("it prints:\n%s\nand ends with %v", out, err)
	}
}

func TestLinesOfAJobComeInTheRealOrder(t *testing.T) {
	cmd, _ := program(t, "connected; listening; job 'a job' 7 'echo not shown'\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	rest := string(out)
	for _, want := range []string{
		"√ Connected to GitHub\n", "Current runner version: '" + runnertest.Version + "'\n", "Z: Listening for Jobs\n",
		"Z: Running job: a job\n", "Z: Job a job completed with result: Succeeded\n", "Exiting runner...\n",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("it prints:\n%s\nwant %q in its place", out, want)
		}
		rest = after
	}
	if strings.Contains(string(out), "not shown") {
		t.Errorf("it prints what its job does:\n%s", out)
	}
}

// With RUNNER_MANUALLY_TRAP_SIG, run.sh hands SIGTERM on as SIGINT.
func TestSignalReachesTheListenerIfRunShTrapsIt(t *testing.T) {
	cmd, _ := program(t, "trap 'echo interrupted; exit 0' INT; echo ready; while :; do sleep 0.05; done\n", "RUNNER_MANUALLY_TRAP_SIG=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	interrupted := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch lines.Text() {
		case "ready":
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		case "interrupted":
			interrupted = true
		}
	}
	if err := cmd.Wait(); !interrupted {
		t.Errorf("it ends with %v, want the listener interrupted", err)
	}
}
