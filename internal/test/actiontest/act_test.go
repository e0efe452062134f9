package actiontest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// run is one run of a workflow by act.
type run struct {
	cmd    *exec.Cmd
	out    output
	status int
	// jobs has the result of each job that ran, one for each entry of a matrix. A
	// job that act skips, because it knows no label of its runs-on, is not in it.
	jobs map[string][]string
	log  string // what steps printed, and act said
}

// start has act run a workflow of the examples, or with a slash a file of its own,
// as if a commit was pushed. It ends with the test.
func start(t *testing.T, s *system, workflow string, labels []string, env ...string) *run {
	t.Helper()
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(workflow, "\n") {
		b, err := os.ReadFile(filepath.Join(root, ".github", "workflows", "examples", workflow))
		if err != nil {
			t.Fatal(err)
		}
		workflow = string(b)
	}
	repo := filepath.Join(dir, "repo")
	if err := os.MkdirAll(filepath.Join(repo, ".github", "workflows"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(repo, ".github", "workflows", "w.yml"), []byte(workflow), 0o600); err != nil {
		t.Fatal(err)
	}
	// act asks the repository for its revision, and whom it belongs to.
	base := []string{"HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, "cache"), "XDG_CONFIG_HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "GIT_CONFIG_NOSYSTEM=1"}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"remote", "add", "origin", "https://github.com/acme/shop"}, {"add", "."},
		{"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x"},
	} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Env = repo, base
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	args := []string{
		"push", "--json", "--action-offline-mode", "-P", "ubuntu-latest=-self-hosted", "--var", "GARO_URL=" + s.url,
		"--local-repository", "alphagov/github-actions-runner-orchestration@v1=" + root,
	}
	for _, l := range labels {
		args = append(args, "-P", l+"=-self-hosted")
	}
	for _, e := range env {
		args = append(args, "--env", e)
	}
	r := &run{cmd: exec.Command(act, args...)}
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = repo, base, &r.out, &r.out
	r.cmd.WaitDelay = 10 * time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.jobs == nil { // the test failed before it waited
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
			t.Logf("act printed:\n%s", &r.out)
		}
	})
	return r
}

// wait returns the run when it is over. No secret may be in what it printed.
func (r *run) wait(t *testing.T) *run {
	t.Helper()
	kill := time.AfterFunc(patience, func() { _ = r.cmd.Process.Signal(syscall.SIGQUIT) })
	defer kill.Stop()
	err := r.cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		r.status = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	r.jobs = map[string][]string{}
	var log strings.Builder
	for line := range strings.Lines(r.out.String()) {
		var entry struct{ Msg, Job, JobResult string }
		if json.Unmarshal([]byte(line), &entry) != nil {
			log.WriteString(line)
			continue
		}
		log.WriteString(strings.TrimRight(entry.Msg, "\n") + "\n")
		if entry.JobResult != "" {
			job := strings.TrimRight(entry.Job[strings.Index(entry.Job, "/")+1:], "-0123456789 ")
			r.jobs[job] = append(r.jobs[job], entry.JobResult)
		}
	}
	r.log = log.String()
	for _, secret := range []string{"garo_st_", "eyJ"} { // a status token, an ID token
		if i := strings.Index(r.log, secret); i >= 0 {
			t.Errorf("the log shows %q", r.log[max(0, i-80):i+len(secret)])
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("act %q ended with status %d and jobs %q, and printed:\n%s", r.cmd.Args[1:], r.status, r.jobs, r.log)
		}
	})
	return r
}

// says fails the test unless the log has each of the texts.
func (r *run) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.log, text) {
			t.Errorf("the log does not say %q", text)
		}
	}
}

// ran fails the test unless exactly these jobs ran, so often, with that result.
func (r *run) ran(t *testing.T, result string, want map[string]int) {
	t.Helper()
	if (r.status == 0) != (result == "success") {
		t.Errorf("act ended with status %d, want one that says %s", r.status, result)
	}
	for job, results := range r.jobs {
		if len(results) != want[job] {
			t.Errorf("job %s ran %d times, want %d", job, len(results), want[job])
		}
		for _, got := range results {
			if got != result {
				t.Errorf("job %s: %s, want %s", job, got, result)
			}
		}
	}
	for job, n := range want {
		if r.jobs[job] == nil {
			t.Errorf("job %s did not run, want %d times", job, n)
		}
	}
}
