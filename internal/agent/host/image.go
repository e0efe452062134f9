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

// image is what a machine's image brings for the runner program.
type image struct {
	// Variables are those of /etc/environment, and what counts of a login. PATH has
	// the directories of both, and those of the program's .path before them.
	Variables map[string]string `json:"variables"`
	// DotEnv is the file .env beside the program, whose lines the program loads over
	// its environment. nil: there is none.
	DotEnv []byte `json:"dot_env"`
}

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
		m.log.Warn("no login shell: what /etc/profile sets is not known", slog.Any("error", err))
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

// loginVariables are those of a login that count. Beside proxies and hooks they are
// what GitHub's own set-up takes from the login in which a runner is configured
// (src/Misc/layoutroot/env.sh): with a just-in-time config nobody runs that.
var loginVariables = append([]string{
	"PATH", "LANG", "JAVA_HOME", "ANT_HOME", "M2_HOME", "ANDROID_HOME", "ANDROID_SDK_ROOT", "GRADLE_HOME",
	"NVM_BIN", "NVM_PATH", "LD_LIBRARY_PATH", "PERL5LIB", startedVariable, completedVariable,
}, proxyVariables...)

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

// shell returns the shell that shows a login's environment.
func shell() string {
	const bash = "/bin/bash"
	if _, err := os.Stat(bash); errors.Is(err, fs.ErrNotExist) {
		return "/bin/sh"
	}
	return bash
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
