//go:build linux

package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// usualPath is the PATH of a machine whose image says nothing.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Variables that the runner program reads
// (https://github.com/actions/runner, 2.336.0, src/Runner.Worker/JobExtension.cs,
// src/Runner.Common/Constants.cs, src/Runner.Listener/CommandSettings.cs).
const (
	startedVariable   = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
	completedVariable = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"
	tooOldVariable    = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"
	inputPrefix       = "ACTIONS_RUNNER_INPUT_" // whatever the case of its letters
	configVariable    = inputPrefix + "JITCONFIG"
)

// proxyVariables are read by the runner program, by Go and by curl, in small
// letters, in capitals, or both.
var proxyVariables = []string{
	"http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
}

// loginVariables are those of a login that count. Beside proxies and hooks they are
// what GitHub's own set-up takes from the login in which a runner is configured
// (src/Misc/layoutroot/env.sh): with a just-in-time config nobody runs that.
var loginVariables = append([]string{
	"PATH", "LANG", "JAVA_HOME", "ANT_HOME", "M2_HOME", "ANDROID_HOME", "ANDROID_SDK_ROOT", "GRADLE_HOME",
	"NVM_BIN", "NVM_PATH", "LD_LIBRARY_PATH", "PERL5LIB", startedVariable, completedVariable,
}, proxyVariables...)

// image is what a machine's image brings for the runner program.
type image struct {
	// Variables are those of /etc/environment, and what counts of a login. PATH has
	// the directories of both, and those of the program's .path before them.
	Variables map[string]string `json:"variables"`
	// DotEnv is the file .env beside the program, whose lines the program loads over
	// its environment. nil: there is none.
	DotEnv []byte `json:"dot_env"`
}

// Files beside the runner program.
const (
	dotEnv      = ".env"
	dotEnvImage = ".env.image" // the image's .env, if ours has less
	dotPath     = ".path"
	// dotEnvMark is the first line of a .env of ours. The program sets nothing by a
	// line without "=".
	dotEnvMark = "# Some lines are taken out on this machine. The whole file is beside it: .env.image"
)

// image returns what the image brings. It is read once, before the first job, and
// kept where only root can reach it: what a job changes is not of the image.
func (m *Machine) image(who account) image {
	var i image
	if b, err := os.ReadFile(m.path("image")); err == nil && json.Unmarshal(b, &i) == nil {
		return i
	}
	system := map[string]string{}
	for _, name := range proxyVariables { // systemd can give them to every service
		if v := m.getenv(name); v != "" {
			system[name] = v
		}
	}
	if b, err := os.ReadFile(filepath.Join(m.etc, "environment")); err == nil {
		maps.Copy(system, parseEnvironment(b))
	}
	ctx, cancel := context.WithTimeout(m.ctx, loginTimeout)
	defer cancel()
	login, err := m.login(ctx, who, system)
	if err != nil {
		m.log.Warn("no login shell: what /etc/profile sets is not known", slog.Any("err", err))
	}
	i.Variables = maps.Clone(system)
	for _, name := range loginVariables {
		if v := login[name]; v != "" {
			i.Variables[name] = v
		}
	}
	path, _ := os.ReadFile(filepath.Join(m.cfg.Runner, dotPath)) // most images have none
	i.Variables["PATH"] = joinPath(strings.TrimSpace(string(path)), login["PATH"], system["PATH"], usualPath)
	i.DotEnv = m.imageDotEnv()
	return i
}

// imageDotEnv returns the image's .env. An image that was made of a machine of ours
// has it under another name.
func (m *Machine) imageDotEnv() []byte {
	b, err := os.ReadFile(filepath.Join(m.cfg.Runner, dotEnv))
	if err != nil {
		return nil
	}
	if bytes.HasPrefix(b, []byte(dotEnvMark+"\n")) {
		if whole, err := os.ReadFile(filepath.Join(m.cfg.Runner, dotEnvImage)); err == nil {
			return whole
		}
	}
	return b
}

// keep makes i what image returns from now on.
func (m *Machine) keep(i image) error {
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return writeFile(m.path("image"), b)
}

var variableName = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]*\z`)

// parseEnvironment reads /etc/environment as a login does
// (https://github.com/linux-pam/linux-pam, modules/pam_env/pam_env.c): a variable in
// a line, maybe with "export" before it, quotes around its value, or a comment
// behind it. Nothing is expanded.
func parseEnvironment(b []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		name, value, ok := strings.Cut(line, "=")
		if !ok || !variableName.MatchString(name) {
			continue
		}
		if value != "" && strings.ContainsAny(value[:1], `"'`) {
			value = strings.TrimRight(value[1:], `"'`)
		}
		if delete(out, name); value != "" && !strings.Contains(value, "\x00") {
			out[name] = value
		}
	}
	return out
}

const (
	// loginTimeout is far above what the scripts of a login take. One that waits for
	// somebody at the keyboard does so in vain.
	loginTimeout = 5 * time.Second
	// maxLogin is far above any environment, whose limit is 2 MB with the arguments.
	maxLogin = 1 << 20
)

// login returns the environment of a login of a user, whose shell runs what is in
// /etc/profile and the user's own profile.
func (m *Machine) login(ctx context.Context, who account, system map[string]string) (map[string]string, error) {
	// What profiles print comes before the first NUL.
	cmd := exec.CommandContext(ctx, m.shell, "-l", "-c", `printf '\0'; exec /usr/bin/env -0`)
	env := map[string]string{"PATH": usualPath}
	maps.Copy(env, system)
	maps.Copy(env, who.variables())
	cmd.Env = list(env)
	if cmd.Dir = who.Home; !isDir(cmd.Dir) {
		cmd.Dir = "/"
	}
	var out bounded
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Getuid() != int(who.UID) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: who.UID, Gid: who.GID, Groups: who.Groups}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for what a profile leaves running with our pipe in its hand
	err := cmd.Run()
	_, said, ok := strings.Cut(out.String(), "\x00")
	if !ok || !strings.HasSuffix(said, "\x00") {
		return nil, fmt.Errorf("login of %s by %s: %w", who.Name, m.shell, errors.Join(err, errors.New("it does not show its environment")))
	}
	vars := map[string]string{}
	for v := range strings.SplitSeq(said, "\x00") {
		if name, value, ok := strings.Cut(v, "="); ok {
			vars[name] = value
		}
	}
	return vars, nil
}

// bounded is a buffer that takes maxLogin bytes and drops the rest.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxLogin-b.Len())])
	return len(p), nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// joinPath joins lists of directories, each directory once. What is relative would
// depend on where a program is started, and is left out.
func joinPath(lists ...string) string {
	var dirs []string
	for _, l := range lists {
		for dir := range strings.SplitSeq(l, ":") {
			if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return strings.Join(dirs, ":")
}

// variables are those of every process of a user.
func (a account) variables() map[string]string {
	return map[string]string{"HOME": a.Home, "USER": a.Name, "LOGNAME": a.Name}
}

// list returns variables as a process takes them, in order.
func list(env map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// environment returns the environment of the runner program, from what counts least
// on: what every image may change, the image's, the user's, the registration's, ours.
func (i image) environment(who account, ours, registered map[string]string) map[string]string {
	env := map[string]string{"LANG": "C.UTF-8"}
	if !hasICU() { // .NET refuses to start without it, unless this says to do without
		env["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1"
	}
	for name, value := range i.Variables {
		if !taken(name, ours, registered) {
			env[name] = value
		}
	}
	maps.Copy(env, who.variables())
	maps.Copy(env, registered)
	maps.Copy(env, ours)
	return env
}

// taken reports whether a variable of the image must not be set, since it would
// change what we or the registration say.
func taken(name string, ours, registered map[string]string) bool {
	if _, ok := ours[name]; ok || strings.HasPrefix(strings.ToUpper(name), inputPrefix) {
		return true
	}
	if slices.Contains(proxyVariables, name) { // programs read both, and differ in which wins
		_, small := registered[strings.ToLower(name)]
		_, capital := registered[strings.ToUpper(name)]
		return small || capital
	}
	_, ok := registered[name]
	return ok
}

// noProxy returns what no_proxy has to be, where there is a proxy: with the instance
// metadata service in it, since a proxy would answer with its own, or with nothing.
// It is empty where there is none.
func noProxy(env map[string]string) string {
	proxied := slices.ContainsFunc(proxyVariables, func(name string) bool {
		return !strings.EqualFold(name, "no_proxy") && env[name] != ""
	})
	if !proxied {
		return ""
	}
	hosts := env["no_proxy"]
	if hosts == "" { // the runner program reads them in this order
		hosts = env["NO_PROXY"]
	}
	for _, host := range []string{metadata4, metadata6} {
		if !slices.ContainsFunc(strings.Split(hosts, ","), func(h string) bool { return strings.TrimSpace(h) == host }) {
			hosts = strings.TrimPrefix(hosts+","+host, ",")
		}
	}
	return hosts
}

// proxies are the proxy variables that the runner program has in the end.
func (i image) proxies(registered map[string]string) map[string]string {
	env := map[string]string{}
	maps.Copy(env, i.Variables)
	for _, l := range i.lines() {
		env[l.name] = l.value
	}
	maps.DeleteFunc(env, func(name, _ string) bool {
		return !slices.Contains(proxyVariables, name) || taken(name, nil, registered)
	})
	for _, name := range proxyVariables {
		if v := registered[name]; v != "" {
			env[name] = v
		}
	}
	return env
}

// Proxies returns the variables by which the image names its proxies, for the
// agent's own calls. It is empty where there are none, and makes the runner's user
// if there is no such user.
func (m *Machine) Proxies() (map[string]string, error) {
	who, err := m.account()
	if err != nil {
		return nil, fmt.Errorf("proxies of the image: %w", err)
	}
	i := m.image(who)
	found := map[string]string{}
	for _, v := range i.lines() {
		if slices.Contains(proxyVariables, v.name) {
			found[v.name] = v.value
		}
	}
	for _, name := range proxyVariables {
		if v := i.Variables[name]; v != "" {
			found[name] = v
		}
	}
	if hosts := noProxy(found); hosts != "" {
		found["no_proxy"], found["NO_PROXY"] = hosts, hosts
	}
	maps.DeleteFunc(found, func(_, value string) bool { return value == "" })
	return found, nil
}

// line is a line of .env, and the variable that it sets; no name: none.
type line struct{ text, name, value string }

// lines reads .env as the runner program does
// (https://github.com/actions/runner, 2.336.0, src/Runner.Listener/Program.cs).
func (i image) lines() []line {
	text := strings.TrimPrefix(string(i.DotEnv), "\ufeff")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	var out []line
	for l := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		name, value, ok := strings.Cut(l, "=")
		if !ok {
			name = ""
		}
		out = append(out, line{l, name, value})
	}
	return out
}

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

// setDotEnv makes .env beside the runner program the image's, without the lines that
// would change what we or the registration say. What a job left there is gone.
func (m *Machine) setDotEnv(who account, i image, ours, registered map[string]string) error {
	name := filepath.Join(m.cfg.Runner, dotEnv)
	info, err := os.Lstat(name)
	there := err == nil
	if i.DotEnv == nil {
		if there {
			return os.RemoveAll(name)
		}
		return nil
	}
	want, whole := []string{dotEnvMark}, true
	for _, l := range i.lines() {
		if l.name != "" && taken(l.name, ours, registered) {
			whole = false
			continue
		}
		want = append(want, l.text)
	}
	text := []byte(strings.Join(want, "\n") + "\n")
	if whole {
		text = i.DotEnv
	}
	// Nothing but a plain file is read: it may be a job's.
	if there && info.Mode().IsRegular() && info.Size() == int64(len(text)) {
		if b, err := os.ReadFile(name); err == nil && bytes.Equal(b, text) {
			return nil
		}
	}
	if !whole {
		if err := m.replace(dotEnvImage, i.DotEnv, who); err != nil {
			return err
		}
	}
	return m.replace(dotEnv, text, who)
}

// replace makes a file beside the runner program, which its user may read. That
// user owns the directory: no name in it is followed.
func (m *Machine) replace(name string, b []byte, who account) error {
	f, err := os.CreateTemp(m.cfg.Runner, trashPrefix) // cleaned away if this is as far as it gets
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chown(-1, int(who.GID)), f.Chmod(0o640), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	name = filepath.Join(m.cfg.Runner, name)
	if info, err := os.Lstat(name); err == nil && info.IsDir() {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), name)
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

// shell returns the shell that shows a login's environment.
func shell() string {
	const bash = "/bin/bash"
	if _, err := os.Stat(bash); errors.Is(err, fs.ErrNotExist) {
		return "/bin/sh"
	}
	return bash
}
