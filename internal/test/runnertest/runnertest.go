// Package runnertest is a stand-in of GitHub's runner program, as far as those who
// start it can see: what it prints and when, its exit codes, its files and what
// becomes of its environment, its hooks. It follows actions/runner 2.336.0. In the
// place of a server stands a script that the test writes.
package runnertest

import "strings"

// Version is the version that the stand-in says it has.
const Version = "2.336.0"

// File is a file of the program.
type File struct {
	Name string // below the program's directory
	Text string
}

// Files returns the program's files, all of them executable. listener is a script
// for bash, which decides what the listener does with these functions. Each writes
// to where the real one does.
//
//	connected        says that it has reached GitHub
//	listening        says that it listens. The real one has not polled yet then
//	config           prints the just-in-time config
//	refused          ends: GitHub refuses the version
//	refused_as CODE  likewise, as programs before 2.333.0 did: with 1, or 2
//	forgotten        ends: GitHub knows the registration no more
//	job NAME RUN CMD runs a job: the hooks, and between them CMD in its workspace
//	say TEXT         prints a line with the time
//
// The script's own exit code is the listener's.
func Files(listener string) []File {
	return []File{
		{"run.sh", runSh},
		{"run-helper.sh.template", runHelper},
		{"safe_sleep.sh", safeSleep},
		{"bin/Runner.Listener", strings.Replace(prelude, "VERSION", Version, 1) + listener},
	}
}

// runSh starts the helper for as long as that ends with 2, and hides every other
// code but 7 (src/Misc/layoutroot/run.sh). Without RUNNER_MANUALLY_TRAP_SIG a
// signal ends run.sh itself and reaches nothing below it; with it, SIGINT goes to
// the helper's process group.
const runSh = `#!/bin/bash
cd "$(dirname "$(readlink -f "$0")")" || exit 1
too_old() { [ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" = 1 ] && [ "$1" -eq 7 ]; }
if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
	set -m
	trap 'kill -INT -$helper' INT TERM
fi
while cp -f run-helper.sh.template run-helper.sh; do
	if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
		./run-helper.sh & helper=$!
		wait $helper
		code=$?
	else
		./run-helper.sh
		code=$?
	fi
	if [ $code -eq 2 ]; then
		echo 'Restarting runner...'
		continue
	fi
	echo 'Exiting runner...'
	if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
		trap - INT TERM
		too_old $code || wait $helper
		exit $code
	fi
	too_old $code && exit $code
	exit 0
done
exit 1
`

// runHelper gives the listener's exit codes their meaning
// (src/Misc/layoutroot/run-helper.sh.template).
const runHelper = `#!/bin/bash
if [ "$(id -u)" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then
	echo 'Must not run interactively with sudo'
	exit 1
fi
./bin/Runner.Listener run
code=$?
if [ $code -eq 7 ] && [ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" = 1 ]; then
	echo "Runner listener exit with deprecated version exit code: $code."
	exit $code
fi
case $code in
0) echo 'Runner listener exit with 0 return code, stop the service, no retry needed.' ;;
1) echo 'Runner listener exit with terminated error, stop the service, no retry needed.' ;;
2)
	echo 'Runner listener exit with retryable error, re-launch runner in 5 seconds.'
	./safe_sleep.sh 5
	exit 2
	;;
3 | 4)
	echo 'Runner listener exit because of updating, re-launch runner after successful update'
	for i in {0..30}; do
		if [ -f update.finished ]; then
			echo 'Update finished successfully.'
			rm update.finished
			break
		fi
		./safe_sleep.sh 1
	done
	exit 2
	;;
5) echo 'Runner listener exit with Session Conflict error, stop the service, no retry needed.' ;;
*) echo "Exiting with unknown error code: $code" ;;
esac
exit 0
`

// safeSleep is fifty times as fast as the real one: a test need not wait.
const safeSleep = `#!/bin/bash
sleep "0.0$((2 * $1))"
`

// prelude is what the listener and the worker do whatever happens.
//
//   - .env beside the program is loaded over the environment, an empty value unsets
//     (src/Runner.Listener/Program.cs, LoadAndSetEnv).
//   - ACTIONS_RUNNER_INPUT_… is taken out of the environment
//     (src/Runner.Listener/CommandSettings.cs), and the just-in-time config written
//     beside the program (src/Runner.Listener/Runner.cs, ExecuteCommand).
//   - What is printed, in this order: src/Runner.Listener/MessageListener.cs,
//     Runner.cs (RunAsync) and JobDispatcher.cs.
//   - A refused version ends with 7 if the environment, with .env in it, asks for
//     that, and else with 1 (src/Runner.Listener/Program.cs).
//   - A job's variables GITHUB_… are those of its context, for hooks too, whatever the
//     workflow sets (src/Runner.Worker/GitHubContext.cs, Handlers/ScriptHandler.cs). Each
//     job is of acme/shop, which has the number 1001.
//   - A hook has to be there and to end in .sh, .ps1 or .js; a script of sh is run
//     by "bash -e", or "sh -e" where there is no bash
//     (src/Runner.Worker/JobHookProvider.cs, src/Runner.Common/HostContext.cs,
//     GetDefaultShellForScript). When the first fails, no step runs, but the second
//     hook does, and each that fails fails the job (src/Runner.Worker/JobExtension.cs).
const prelude = `#!/bin/bash
cd "$(dirname "$0")/.." || exit 1
if [ -f .env ]; then
	while IFS= read -r line || [ -n "$line" ]; do
		line=${line%$'\r'}
		name=${line%%=*}
		if [ -z "$name" ] || [ "$name" = "$line" ]; then continue; fi
		if [ -n "${line#*=}" ]; then export "$name=${line#*=}"; else unset "$name"; fi
	done <.env 2>/dev/null
fi
jit=$ACTIONS_RUNNER_INPUT_JITCONFIG
for name in "${!ACTIONS_RUNNER_INPUT_@}"; do unset "$name"; done
[ -n "$jit" ] || { echo 'Runner is not configured.' >&2; exit 1; }
echo x >.runner && echo x >.credentials && echo x >.credentials_rsaparams || exit 1
mkdir -p _work/_temp || { echo "Fail to create and validate runner's work directory '$PWD/_work'." >&2; exit 1; }

config() { printf %s "$jit"; }
say() { echo "$(date -u '+%Y-%m-%d %H:%M:%SZ'): $1"; }
connected() { echo; echo '√ Connected to GitHub'; echo; }
listening() { echo "Current runner version: 'VERSION'"; say 'Listening for Jobs'; }
refused() {
	echo 'An error occurred: Runner version v2.300.0 is deprecated and cannot receive messages.' >&2
	case $ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE in
	1 | [Tt][Rr][Uu][Ee]) exit 7 ;;
	esac
	exit 1
}
refused_as() {
	echo 'An error occured: Runner version v2.300.0 is deprecated and cannot receive messages.' >&2
	exit "$1"
}
forgotten() {
	echo 'Runner registration was not found.' >&2
	exit 0
}
hook() {
	[ -n "$1" ] || return 0
	[ -f "$1" ] || { echo "File doesn't exist"; return 1; }
	case $1 in
	*.sh) "$(command -v bash || command -v sh)" -e "$1" ;;
	*) echo "$1 is not a valid path to a script. Make sure it ends in '.sh', '.ps1' or '.js'."; return 1 ;;
	esac
}
worker() {
	export GITHUB_REPOSITORY_ID=1001 GITHUB_REPOSITORY=acme/shop GITHUB_REPOSITORY_OWNER_ID=55 GITHUB_RUN_ATTEMPT=1
	export GITHUB_ACTIONS=true CI=true GITHUB_RUN_ID=$1 GITHUB_WORKSPACE=$PWD/_work/shop RUNNER_TEMP=$PWD/_work/_temp
	mkdir -p _work/shop && cd _work/shop || return 1
	local result=0
	hook "$ACTIONS_RUNNER_HOOK_JOB_STARTED" || result=1
	[ $result -ne 0 ] || eval "$2" || result=1
	hook "$ACTIONS_RUNNER_HOOK_JOB_COMPLETED" || result=1
	return $result
}
job() {
	local result=Succeeded
	say "Running job: $1"
	(worker "$2" "$3") >>_work/_temp/out 2>&1 || result=Failed
	say "Job $1 completed with result: $result"
}
`
