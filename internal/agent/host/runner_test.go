//go:build linux

package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/runnertest"
)

// install makes the stand-in of GitHub's runner program the box's.
func (b *box) install(listener string) {
	b.Helper()
	who, err := lookup(b.cfg.User)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.cfg.Runner, "bin"), 0o755); err != nil {
		b.Fatal(err)
	}
	for _, f := range runnertest.Files(listener) {
		b.write("runner/"+f.Name, f.Text, 0o755)
	}
	for _, name := range []string{"", "bin"} { // the keeper's umask is none of the test's business
		if err := os.Chown(filepath.Join(b.cfg.Runner, name), int(who.UID), int(who.GID)); err != nil {
			b.Fatal(err)
		}
	}
}

// told is what a program did, in words, and whether its job was cut.
type told struct {
	words string
	cut   bool
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// listen returns what a program does until it has exited.
func listen(t *testing.T, p agent.Program) told {
	t.Helper()
	var out told
	var words []string
	for e := range p.Events() {
		words = append(words, strings.TrimSpace(string(e.Kind)+" "+e.RunID))
		out.cut = out.cut || e.Cut
	}
	// That a job has started may be known before its run is.
	out.words = strings.ReplaceAll(strings.Join(words, ", "), "job_started, job_started ", "job_started ")
	return out
}

// Every order in which the real program prints, runs hooks and exits, and what is
// understood of it.
func TestRunnerProgramIsUnderstood(t *testing.T) {
	const (
		listens = "connected; listening\n"
		works   = "job build 77 true\n"
	)
	for name, c := range map[string]struct {
		listener string
		env      string // .env
		etc      string // /etc/environment
		words    string
		cut      bool
		code     int
		after    string // what it printed in the end, if that counts
	}{
		"AJob":                            {listener: listens + works, words: "connected, job_started 77, job_done"},
		"AJobThatFails":                   {listener: listens + "job build 77 false\n", words: "connected, job_started 77, job_done"},
		"AJobOfAnOddName":                 {listener: listens + "job 'a: \"b\" $(c)' 77 true\n", words: "connected, job_started 77, job_done"},
		"NoJobForAForgottenOne":           {listener: listens + "sleep 0.3; forgotten\n", words: "connected"},
		"ForgottenBeforeItListens":        {listener: "forgotten\n", words: ""},
		"TooOldAtOnce":                    {listener: listens + "refused\n", words: "connected", code: agent.ExitTooOld, after: "is deprecated"},
		"TooOldAfterAWhile":               {listener: listens + "sleep 0.3; refused\n", words: "connected", code: agent.ExitTooOld, after: "is deprecated"},
		"TooOldAfterAJob":                 {listener: listens + works + "refused\n", words: "connected, job_started 77, job_done", code: agent.ExitTooOld},
		"TooOldInAJob":                    {listener: listens + "(job build 77 'sleep 300') & until grep -q 77 '" + "HOOKS/started'; do sleep 0.05; done; sleep 0.3; refused\n", words: "connected, job_started 77, job_done", cut: true, code: agent.ExitTooOld},
		"TooOldBeforeItListens":           {listener: "connected; refused\n", words: "", code: agent.ExitTooOld},
		"TooOldWhateverTheImageWants":     {listener: listens + "refused\n", env: "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=\n", words: "connected", code: agent.ExitTooOld},
		"TooOldBeforeThereWasACode":       {listener: listens + "refused_as 1\n", words: "connected", code: agent.ExitTooOld, after: "terminated error"},
		"Terminated":                      {listener: listens + "exit 1\n", words: "connected", after: "terminated error"},
		"SessionConflict":                 {listener: "connected; exit 5\n", words: "", after: "Session Conflict"},
		"ConfigurationRefreshed":          {listener: listens + "exit 6\n", words: "connected", after: "unknown error code: 6"},
		"Crashed":                         {listener: listens + "kill -SEGV $$\n", words: "connected", after: "unknown error code: 139"},
		"CrashedInAJob":                   {listener: listens + "say 'Running job: build'; kill -SEGV $$\n", words: "connected, job_started, job_done", cut: true},
		"RestartedByItself":               {listener: "[ -e again ] || { >again; exit 2; }\n" + listens + works, words: "connected, job_started 77, job_done"},
		"RestartedAfterItListened":        {listener: listens + "[ -e again ] || { >again; exit 2; }\n" + works, words: "connected, job_started 77, job_done"},
		"Updated":                         {listener: "[ -e again ] || { >again; >update.finished; exit 3; }\n" + listens + works, words: "connected, job_started 77, job_done"},
		"UpdatedForItsOneJob":             {listener: "[ -e again ] || { >again; >update.finished; exit 4; }\n" + listens + works, words: "connected, job_started 77, job_done"},
		"AJobThatEndsInItsSetUp":          {listener: listens + "say 'Running job: build'; say 'Job build completed with result: Failed'\n", words: "connected, job_started, job_done"},
		"AJobWhoseConfigIsInTheImage":     {listener: listens + "[ \"$(config)\" = canary-config ] && " + works, env: "ACTIONS_RUNNER_INPUT_JITCONFIG=other\nactions_runner_input_jitconfig=other\n", words: "connected, job_started 77, job_done"},
		"TooOldInAnImageThatTrapsSignals": {listener: listens + "refused\n", etc: "RUNNER_MANUALLY_TRAP_SIG=1\n", words: "connected", code: agent.ExitTooOld},
		"AJobOfAnImageThatTrapsSignals":   {listener: listens + works, etc: "RUNNER_MANUALLY_TRAP_SIG=1\n", words: "connected, job_started 77, job_done"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.install(strings.ReplaceAll(c.listener, "HOOKS", strings.ReplaceAll(b.cfg.Hooks, "'", `'\''`)))
			if c.env != "" {
				b.write("runner/.env", c.env, 0o644)
			}
			b.write("etc/environment", c.etc, 0o644)
			p := start(t, b.open())
			got := listen(t, p)
			if want := (told{c.words, c.cut}); got != want || p.ExitCode() != c.code {
				t.Errorf("the program did %+v and exited with %d, want %+v and %d; it printed:\n%s", got, p.ExitCode(), want, c.code, b.read("run/program/log"))
			}
			if printed := b.read("run/program/log"); !strings.Contains(printed, c.after) {
				t.Errorf("it printed:\n%s\nwant %q", printed, c.after)
			}
		})
	}
}

// A listener that always ends with 2 is started again for ever, and never exits.
func TestRunnerProgramThatRestartsForEverNeverExits(t *testing.T) {
	b := newBox(t)
	b.install("echo once >>starts; exit 2\n")
	p := start(t, b.open())
	eventually(t, "the third start of the listener", func() bool { return strings.Count(b.read("runner/starts"), "once") > 2 })
	select {
	case e, open := <-p.Events():
		t.Errorf("the program told %+v (%v), want nothing", e, open)
	default:
	}
	b.write("runner/bin/Runner.Listener", "#!/bin/sh\nexit 0\n", 0o755)
	if got := listen(t, p); got.words != "" || p.ExitCode() != 0 {
		t.Errorf("the program did %+v and exited with %d, want nothing and 0", got, p.ExitCode())
	}
}

// An old listener that is refused ends with 2, and is started again for ever. It is
// over all the same.
func TestRefusedRunnerProgramThatRestartsForEverIsTooOld(t *testing.T) {
	b := newBox(t)
	b.install("connected; listening; refused_as 2\n")
	m := b.open()
	p := start(t, m)
	if got := listen(t, p); got.words != "connected" || p.ExitCode() != agent.ExitTooOld {
		t.Errorf("the program did %+v and exited with %d, want connected and %d", got, p.ExitCode(), agent.ExitTooOld)
	}
	m.Close()
	if p = b.open().Running(); p == nil {
		t.Fatal("Running = none, want the program, whose keeper lives")
	}
	if got := listen(t, p); got.words != "connected" || p.ExitCode() != agent.ExitTooOld {
		t.Errorf("to the next agent, the program did %+v and exited with %d, want connected and %d", got, p.ExitCode(), agent.ExitTooOld)
	}
	b.write("runner/bin/Runner.Listener", "#!/bin/sh\nexit 0\n", 0o755)
	eventually(t, "the end of run.sh", func() bool { return b.read("run/program/exit") == "0" })
}

// A signal to run.sh alone ends run.sh, and the listener runs on without it.
func TestSignalEndsRunShAndNotTheListener(t *testing.T) {
	b := newBox(t)
	b.install("echo $$ >listener; ps -o ppid= -p $PPID >run; >ready; exec sleep 300\n")
	p := start(t, b.open())
	eventually(t, "the start of the listener", func() bool { _, err := os.Stat(filepath.Join(b.cfg.Runner, "ready")); return err == nil })
	listener, run := number(t, b.read("runner/listener")), number(t, b.read("runner/run"))
	if err := syscall.Kill(run, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := listen(t, p); got.words != "" || p.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("the program did %+v and exited with %d, want nothing and 143", got, p.ExitCode())
	}
	if err := syscall.Kill(listener, syscall.SIGKILL); err != nil {
		t.Errorf("the listener is gone: %v", err)
	}
}

// imageHook writes a hook of the image, which notes what it was given.
func (b *box) imageHook(name, more string) string {
	b.Helper()
	b.write(name, "echo \"$GITHUB_RUN_ID $PWD $# $WORD\" >>'"+b.cfg.Runner+"/hooked'\n"+more, 0o644)
	return filepath.Join(b.dir, name)
}

// Hooks of the image run as they would without ours, and ours run too.
func TestHooksOfTheImageRunBesideOurs(t *testing.T) {
	const works = "connected; listening\njob build 77 'echo step >>" + "\"$GITHUB_WORKSPACE/../../hooked\"'\n"
	for name, c := range map[string]struct {
		env    func(started, completed string) string
		more   string // of the first hook
		steps  string
		result string
	}{
		"InItsEnv": {
			env: func(s, c string) string {
				return "A=1\nACTIONS_RUNNER_HOOK_JOB_STARTED=" + s + "\nACTIONS_RUNNER_HOOK_JOB_COMPLETED=" + c + "\nWORD=kept"
			},
			steps: "hook step hook", result: "Succeeded",
		},
		"InItsEnvAsWindowsWritesIt": {
			env: func(s, c string) string {
				return "ACTIONS_RUNNER_HOOK_JOB_COMPLETED=" + c + "\r\nACTIONS_RUNNER_HOOK_JOB_STARTED=" + s + "\r\nWORD=kept\r\n"
			},
			steps: "hook step hook", result: "Succeeded",
		},
		"TheFirstAlone": {
			env:   func(s, _ string) string { return "ACTIONS_RUNNER_HOOK_JOB_STARTED=" + s + "\nWORD=kept\n" },
			steps: "hook step", result: "Succeeded",
		},
		"TheFirstUnset": {
			env: func(s, c string) string {
				return "ACTIONS_RUNNER_HOOK_JOB_STARTED=" + s + "\nACTIONS_RUNNER_HOOK_JOB_STARTED=\nACTIONS_RUNNER_HOOK_JOB_COMPLETED=" + c + "\nWORD=kept\n"
			},
			steps: "step hook", result: "Succeeded",
		},
		"OneThatFailsFailsTheJob": {
			env: func(s, c string) string {
				return "ACTIONS_RUNNER_HOOK_JOB_STARTED=" + s + "\nACTIONS_RUNNER_HOOK_JOB_COMPLETED=" + c + "\nWORD=kept\n"
			},
			more: "exit 3\n", steps: "hook hook", result: "Failed",
		},
		"OneThatIsMissingFailsTheJob": {
			env:   func(_, _ string) string { return "ACTIONS_RUNNER_HOOK_JOB_STARTED=/does/not/exist.sh\n" },
			steps: "", result: "Failed",
		},
		"OneOfNoKnownKindFailsTheJob": {
			env:   func(_, _ string) string { return "ACTIONS_RUNNER_HOOK_JOB_STARTED=/bin/true\n" },
			steps: "", result: "Failed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.install(works)
			started, completed := b.imageHook("sta'rted hook.sh", c.more), b.imageHook("completed.sh", "")
			b.write("runner/.env", c.env(started, completed), 0o644)
			b.write("runner/hooked", "", 0o666)
			if err := os.Chmod(b.cfg.Runner+"/hooked", 0o666); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time, .env is what the first left
				m := b.open()
				if got, want := listen(t, start(t, m)), (told{"connected, job_started 77, job_done", false}); got != want {
					t.Errorf("the program did %+v, want %+v", got, want)
				}
				m.Close()
			}
			line := "77 " + b.cfg.Runner + "/_work/shop 0 kept\n"
			once := strings.NewReplacer("hook", line, "step", "step\n", " ", "").Replace(c.steps)
			if got := b.read("runner/hooked"); got != once+once {
				t.Errorf("the hooks and the job did, in two jobs:\n%s\nwant:\n%s", got, once+once)
			}
			if printed := b.read("run/program/log"); !strings.Contains(printed, "completed with result: "+c.result+"\n") {
				t.Errorf("it printed:\n%s\nwant that the job %s", printed, c.result)
			}
		})
	}
}

func TestHooksOfTheRegistrationRunBehindTheImages(t *testing.T) {
	const works = "connected; listening\njob build 77 'echo step >>" + "\"$GITHUB_WORKSPACE/../../hooked\"'\n"
	for name, c := range map[string]struct {
		image, fails string // whether there is a hook of the image; what it ends with
		did          string
	}{
		"OfTheRegistrationAlone":    {did: "registered, step"},
		"Both":                      {image: "image", did: "image, registered, step"},
		"AnImagesThatFailsIsEnough": {image: "image", fails: "exit 3", did: "image"},
		"TheSameIsRunOnce":          {image: "registered", did: "registered, step"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.install(works)
			b.write("runner/hooked", "", 0o666)
			if err := os.Chmod(b.cfg.Runner+"/hooked", 0o666); err != nil {
				t.Fatal(err)
			}
			for _, hook := range []string{"image", "registered"} {
				more := ""
				if hook == c.image {
					more = c.fails
				}
				b.write(hook+".sh", "echo "+hook+" >>'"+b.cfg.Runner+"/hooked'\n"+more+"\n", 0o644)
			}
			if c.image != "" {
				b.write("runner/.env", "ACTIONS_RUNNER_HOOK_JOB_STARTED="+b.dir+"/"+c.image+".sh\n", 0o644)
			}
			m := b.open()
			if _, err := m.Install(t.Context(), apitype.RunnerProgram{}, apitype.Outfit{Hooks: &apitype.Hooks{Started: b.dir + "/registered.sh"}}); err != nil {
				t.Fatal(err)
			}
			listen(t, start(t, m))
			if got := strings.ReplaceAll(strings.TrimSpace(b.read("runner/hooked")), "\n", ", "); got != c.did {
				t.Errorf("the hooks and the job did %q, want %q", got, c.did)
			}
		})
	}
}
