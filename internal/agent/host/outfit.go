//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
)

// maxSaid is how much of a command's output an error has, in bytes: a request's error
// has 4 KB in all.
const maxSaid = 3 << 10

// What the file outfitFile says, below Config.Dir, so that nothing is done twice.
const (
	outfitFile  = "outfit"
	scriptBegan = "script" // the set-up script was started
	outfitDone  = "done"
)

// outfitter makes the machine what its account wants, once.
type outfitter struct {
	m   *Machine
	who account
	o   apitype.Outfit
	did []string // for people
}

// do does all of it, in the order in which one needs the other: disks; packages, which come
// while the runner program does; that program; the script, which finds both; and the
// user's rights, which may be to what the script made. program waits for the runner
// program. What an earlier process of the agent did is not done again.
func (f *outfitter) do(ctx context.Context, program func() error) (did string, err error) {
	b, err := os.ReadFile(f.m.path(outfitFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	before, began := string(b), time.Now()
	if before == outfitDone {
		return "", program()
	}
	if err := f.disks(ctx); err != nil {
		return "", fmt.Errorf("%w: instance_store: %w", agent.ErrSetup, err)
	}
	if err := f.packages(ctx, f.o.Packages...); err != nil {
		return "", fmt.Errorf("%w: packages: %w", agent.ErrSetup, err)
	}
	if err := program(); err != nil {
		return "", err
	}
	if before == scriptBegan {
		return "", fmt.Errorf("%w: script: the agent was started again while it ran, and does not run it twice", agent.ErrSetup)
	}
	if err := f.script(ctx); err != nil {
		return "", fmt.Errorf("%w: script: %w", agent.ErrSetup, err)
	}
	if err := f.user(ctx); err != nil {
		return "", fmt.Errorf("%w: job_user: %w", agent.ErrSetup, err)
	}
	if err := f.note(outfitDone); err != nil || len(f.did) == 0 {
		return "", err
	}
	did = fmt.Sprintf("set up in %.1f s: %s", time.Since(began).Seconds(), strings.Join(f.did, "; "))
	f.m.log.Info(did)
	return did, nil
}

func (f *outfitter) note(what string) error { return writeFile(f.m.path(outfitFile), []byte(what)) }

// script runs the set-up script as root. It is beside the runner program, since /run may
// allow no programs.
func (f *outfitter) script(ctx context.Context) error {
	s := f.o.Setup
	if s == nil {
		return nil
	}
	if got := sum(s.Script); got != s.SHA256 {
		return fmt.Errorf("it is not the one that the registration names: its %d bytes have the SHA-256 %s, want %s", len(s.Script), got, s.SHA256)
	}
	name := f.m.cfg.Runner + ".setup"
	if err := os.WriteFile(name, s.Script, 0o700); err != nil {
		return err
	}
	defer os.Remove(name)
	if err := f.note(scriptBegan); err != nil {
		return err
	}
	limit := s.LimitS.Duration()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %v", limit))
	defer cancel()
	began := time.Now()
	if err := f.run(ctx, "setup.log", name); err != nil {
		return err
	}
	f.did = append(f.did, fmt.Sprintf("script run in %.1f s", time.Since(began).Seconds()))
	return nil
}

// user gives the user that runs jobs what it may do beyond the image. A right that an
// image brings is the image's; one that another machine of ours left in it is taken away.
func (f *outfitter) user(ctx context.Context) error {
	u := f.o.JobUser
	if u == nil {
		u = &apitype.JobUser{}
	}
	for _, g := range u.Groups {
		if err := f.run(ctx, "groups.log", "usermod", "--append", "--groups", g, f.who.Name); err != nil {
			return fmt.Errorf("group %s: %w: have the image, a package or the script make it", g, err)
		}
		f.did = append(f.did, "group "+g)
	}
	file := filepath.Join(f.m.etc, "sudoers.d", "garo-job-user")
	if !u.Sudo {
		return os.RemoveAll(file)
	}
	if _, err := exec.LookPath("sudo"); err != nil {
		return errors.New("sudo: the machine has none: name it in packages, or install it in the image")
	}
	if err := os.WriteFile(file, []byte(f.who.Name+" ALL=(ALL) NOPASSWD:ALL\n"), 0o440); err != nil {
		return fmt.Errorf("sudo: %w", err)
	}
	if err := f.run(ctx, "sudo.log", "sudo", "--non-interactive", "--user", f.who.Name, "sudo", "--non-interactive", "true"); err != nil {
		return fmt.Errorf("sudo: %w", err)
	}
	f.did = append(f.did, "sudo")
	return nil
}

// run runs a command of the system as a service would have it run: with the usual umask
// and environment, no input, and as likely to end as others when memory runs out. What it
// prints goes into a file below Config.Dir, and is in an error. It ends when the command
// does, whatever that leaves running, or with ctx, and then with all of it.
func (f *outfitter) run(ctx context.Context, log, name string, args ...string) error {
	out, err := os.OpenFile(f.m.path(log), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	const plain = `umask 022; echo 0 >/proc/$$/oom_score_adj; exec "$@"`
	cmd := exec.CommandContext(ctx, "/bin/sh", slices.Concat([]string{"-c", plain, "sh", name}, args)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	env := map[string]string{"PATH": joinPath(os.Getenv("PATH"), usualPath), "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
	for _, name := range proxyVariables {
		if v := f.m.getenv(name); v != "" {
			env[name] = v
		}
	}
	cmd.Env = list(env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err = cmd.Run(); err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	f.m.log.Warn("command failed", slog.String("command", filepath.Base(name)), slog.Any("error", err))
	if said := lastWords(out); said != "" {
		return fmt.Errorf("%w; it printed: %s", err, said)
	}
	return err
}

// lastWords returns the end of what a command printed, in one line: where the last whole
// lines are too long, without their beginning.
func lastWords(out *os.File) string {
	info, err := out.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(info.Size(), maxSaid))
	n, _ := out.ReadAt(b, info.Size()-int64(len(b))) // as much as can be read
	var lines []string
	for l := range strings.Lines(strings.ToValidUTF8(string(b[:n]), "?")) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	said := strings.Join(lines, " | ")
	return said[max(0, len(said)-maxSaid):]
}
