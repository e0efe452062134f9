//go:build linux

package host

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// The files below Config.Hooks.
const (
	startedHook   = "job-started.sh"
	completedHook = "job-completed.sh"
	startedFile   = "started"   // what the first writes
	completedFile = "completed" // what the second writes
	askedFile     = "asked"     // what the first asks
	answerFile    = "answer"    // what the agent answers; nobody else can write it
)

// hook is run by the runner program before the first and after the last of a
// job's steps. A hook that fails would fail the job, and one that waits would hold
// it up: a file takes the line whether the agent is there or not. The image's own
// hook comes behind it.
const hook = `#!/bin/sh
echo "$GITHUB_RUN_ID" >>%s || :
`

// asking follows hook where a job has to be let in. The runner program sets these
// variables from what GitHub told it of the job, and no workflow can change them for a hook
// (https://github.com/actions/runner, 2.336.0, src/Runner.Worker/JobHookProvider.cs and
// GitHubContext.cs). 75 times 0.2 s are longer than the agent takes for an answer: beyond
// that it is gone, and the job is refused. The image's own hook must not see anything that
// is set here, hence the subshell.
const asking = `echo "$GITHUB_REPOSITORY_ID $GITHUB_REPOSITORY_OWNER_ID $GITHUB_RUN_ID $GITHUB_RUN_ATTEMPT $GITHUB_REPOSITORY" >>%[1]s
(
n=0
until [ -s %[2]s ] || [ "$n" -ge 75 ]; do
	n=$((n + 1))
	sleep 0.2 2>/dev/null || sleep 1
done
[ "$(head -n 1 %[2]s 2>/dev/null)" = allowed ]
) || {
	echo 'This machine may not run this job.' >&2
	tail -n +2 %[2]s >&2 || :
	exit 1
}
`

// prepare makes the directories of a program, which are empty then.
func (m *Machine) prepare(who account, i image, asks bool) error {
	if err := os.RemoveAll(m.path(programDir)); err != nil {
		return err
	}
	if err := os.Mkdir(m.path(programDir), 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(m.cfg.Hooks); err != nil {
		return err
	}
	if err := os.Mkdir(m.cfg.Hooks, 0o700); err != nil {
		return err
	}
	// The user may run the hooks and write their files, and change nothing else.
	var registered apitype.Hooks
	if m.outfit.Hooks != nil {
		registered = *m.outfit.Hooks
	}
	for _, h := range []struct{ script, file, variable, registered string }{
		{startedHook, startedFile, startedVariable, registered.Started},
		{completedHook, completedFile, completedVariable, registered.Completed},
	} {
		script, file := filepath.Join(m.cfg.Hooks, h.script), filepath.Join(m.cfg.Hooks, h.file)
		text := fmt.Sprintf(hook, quote(file))
		if asks && h.script == startedHook {
			text += fmt.Sprintf(asking, quote(filepath.Join(m.cfg.Hooks, askedFile)), quote(filepath.Join(m.cfg.Hooks, answerFile)))
			if err := writable(filepath.Join(m.cfg.Hooks, askedFile), who); err != nil {
				return err
			}
		}
		text += behind(m.after(i.hook(h.variable)), m.after(h.registered))
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			return err
		}
		if err := os.Chmod(script, 0o755); err != nil {
			return err
		}
		if err := writable(file, who); err != nil {
			return err
		}
	}
	if err := os.Chown(m.cfg.Hooks, -1, int(who.GID)); err != nil {
		return err
	}
	return os.Chmod(m.cfg.Hooks, 0o750)
}

// writable makes an empty file of the user's.
func writable(file string, who account) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	return os.Chown(file, int(who.UID), int(who.GID))
}

// quote makes a text one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// hook returns the image's script for a variable that names one; empty: there is
// none.
func (i image) hook(variable string) string {
	script := i.Variables[variable]
	for _, l := range i.lines() {
		if l.name == variable {
			script = l.value // an empty one unsets it
		}
	}
	return script
}

// after returns the end of a hook of ours: it becomes the image's hook, run as the
// runner program would run it (src/Runner.Common/HostContext.cs,
// GetDefaultShellForScript, and src/Runner.Worker/Handlers/ScriptHandlerHelpers.cs).
// Its process, environment and directory stay what they are, and its exit code
// decides. Nothing may be set before: the script would see it.
func (m *Machine) after(script string) string {
	if script == "" || strings.HasPrefix(filepath.Clean(script), m.cfg.Hooks+"/") {
		return "" // ours in an image that was made of a machine of ours would call themselves
	}
	word := quote(script)
	switch filepath.Ext(script) {
	case ".sh":
		return "command -v bash >/dev/null && exec bash -e " + word + "\nexec sh -e " + word + "\n"
	case ".ps1":
		command := quote(". '" + script + "'")
		return "command -v pwsh >/dev/null && exec pwsh -command " + command + "\nexec powershell -command " + command + "\n"
	case ".js":
		return "exec " + quote(m.node()) + " " + word + "\n"
	}
	return "echo " + quote(script+" is no script: GitHub's runner program wants .sh, .ps1 or .js") + " >&2\nexit 1\n"
}

// behind returns the end of a hook of ours that has the image's and the registration's
// behind it, in this order: the second runs if the first did not fail, and once if they
// are the same.
func behind(image, registered string) string {
	if image == "" || registered == "" || image == registered {
		return cmp.Or(image, registered)
	}
	return "(\n" + image + ") || exit\n" + registered
}

// node returns the Node.js that the runner program runs scripts with: the one that
// 2.336.0 does, or else the newest that there is.
func (m *Machine) node() string {
	found, _ := filepath.Glob(filepath.Join(m.cfg.Runner, "externals", "node[0-9][0-9]", "bin", "node"))
	usual := filepath.Join(m.cfg.Runner, "externals", "node20", "bin", "node")
	if len(found) == 0 || slices.Contains(found, usual) {
		return usual
	}
	return found[len(found)-1]
}
