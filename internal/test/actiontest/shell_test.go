package actiontest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// shell runs a stage of the action as GitHub's runner does: node, in its own
// process, with files for what it leaves.
func shell(t *testing.T, s *system, files, stage string, env ...string) (*exec.Cmd, *output) {
	t.Helper()
	var out output
	cmd := exec.Command("node", filepath.Join(root, "client", "action", "node", stage+".js"))
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + files, "RUNNER_TEMP=" + files, "GITHUB_ACTION=garo", "INPUT_URL=" + s.url, "INPUT_MODE=ephemeral",
		"GITHUB_STATE=" + filepath.Join(files, "state"), "GITHUB_OUTPUT=" + filepath.Join(files, "output"),
		"GITHUB_STEP_SUMMARY=" + filepath.Join(files, "summary"),
	}, append(s.environment(), env...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", stage, &out)
		}
	})
	return cmd, &out
}

// saved returns what the runner would hand to the step at the end of the job.
func saved(t *testing.T, files string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(files, "state"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "STATE_" + lines[len(lines)-1]
}

func TestCancelledStepEndsByItselfAndPostFindsNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1h")
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			files := t.TempDir()
			main, out := shell(t, s, files, "main", "GITHUB_ACTION="+signal.String())
			until(t, "the machine", func() bool { return strings.Contains(out.String(), "instance i-") })
			if err := main.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = main.Wait()
			if got := main.ProcessState.ExitCode(); got != 130 {
				t.Errorf("status = %d, want 130", got)
			}
			q := s.requests(t)[0]
			if q.State != "cancelled" || !strings.Contains(out.String(), "request "+q.ID+" is cancelled; its runner ends") {
				t.Errorf("request = %s, want it cancelled, and the log to say so", q.State)
			}
			post, said := shell(t, s, files, "post", saved(t, files))
			if err := post.Wait(); err != nil || !strings.Contains(said.String(), "nothing to cancel") {
				t.Errorf("post: %v, want it to find nothing", err)
			}
		})
	}
}

// A runner that is killed together with its step, and a step that could not reach
// the API any more, leave the rest to post.
func TestPostCancelsWhatAKilledStepLeft(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1h")
	files := t.TempDir()
	main, out := shell(t, s, files, "main")
	until(t, "the machine", func() bool { return strings.Contains(out.String(), "instance i-") })
	s.stop() // so that the program cannot do it when its shell is gone
	if err := main.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = main.Wait() // which returns when the program has ended, too
	if !strings.Contains(out.String(), "the end of the job does the rest") {
		t.Error("the program does not say that it could not cancel")
	}
	s.begin(t)
	if got := s.requests(t)[0].State; got != "waiting" {
		t.Errorf("request = %s before post, want it still waiting", got)
	}
	post, _ := shell(t, s, files, "post", saved(t, files))
	if err := post.Wait(); err != nil {
		t.Errorf("post: %v", err)
	}
	if got := s.requests(t)[0].State; got != "cancelled" {
		t.Errorf("request = %s after post, want cancelled", got)
	}
}

func TestJobThatDidNotWaitIsCancelledIfItEndedBadly(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "--boot-time", "1h")
	for status, want := range map[string]string{"success": "waiting", "failure": "cancelled", "cancelled": "cancelled"} {
		t.Run(status, func(t *testing.T) {
			files := t.TempDir()
			main, _ := shell(t, s, files, "main", "INPUT_WAIT=false", "GITHUB_ACTION="+status)
			if err := main.Wait(); err != nil {
				t.Fatal(err)
			}
			id := s.requests(t)[0].ID
			until(t, "the request to wait for its machine", func() bool { return s.request(t, id).State == "waiting" })
			post, _ := shell(t, s, files, "post", saved(t, files), "INPUT_WAIT=false", "INPUT_JOB-STATUS="+status)
			if err := post.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := s.request(t, id).State; got != want {
				t.Errorf("request = %s, want %s", got, want)
			}
		})
	}
}

// What the action itself adds to the time that a runner takes is printed with -v:
// parts of a second. How long it takes here depends on what else this machine does.
func TestOverheadIsMeasured(t *testing.T) {
	s := newSystem(t, "--boot-time", "1s")
	api, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var first, last atomic.Int64 // when the first call came, and when the last answer went
	proxy := httputil.NewSingleHostReverseProxy(api)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first.CompareAndSwap(0, time.Now().UnixNano())
		proxy.ServeHTTP(w, r)
		last.Store(time.Now().UnixNano())
	}))
	defer front.Close()
	s.issuer.Set("aud", s.url) // the address of the API itself, which is not that of the proxy
	files := t.TempDir()
	began := time.Now()
	main, out := shell(t, s, files, "main", "INPUT_URL="+front.URL)
	if err := main.Wait(); err != nil {
		t.Fatalf("main: %v\n%s", err, out)
	}
	over := time.Now()
	before, after := time.Unix(0, first.Load()).Sub(began), over.Sub(time.Unix(0, last.Load()))
	q := s.requests(t)[0]
	t.Logf("start to first call of the API: %s; last answer to exit: %s; ready to exit: %s",
		before.Round(time.Millisecond), after.Round(time.Millisecond), over.Sub(q.ReadyAt).Round(time.Millisecond))
	if before <= 0 || after <= 0 || q.ReadyAt.IsZero() {
		t.Errorf("overhead = %s and %s, ready at %s; want calls between the start and the end", before, after, q.ReadyAt)
	}
	post := exec.Command("node", filepath.Join(root, "client", "action", "node", "post.js"))
	post.Env = []string{"PATH=" + os.Getenv("PATH"), "GARO_PATH=" + garo, saved(t, files)}
	post.Stdout = io.Discard
	began = time.Now()
	if err := post.Run(); err != nil {
		t.Fatalf("post: %v", err)
	}
	t.Logf("the step at the end of the job: %s", time.Since(began).Round(time.Millisecond))
}

// The tests of the shell itself.
func TestShell(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=tap", "garo.test.js")
	cmd.Dir = filepath.Join(root, "client", "action", "node")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "\nok 13 - ") {
		t.Errorf("node --test: %v, want thirteen tests or more that pass\n%s", err, out)
	}
}
