//go:build linux

package machinetest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// initArgument is the one argument with which this program is a machine's first process.
const initArgument = "machine"

// namespaces are what a machine has of its own.
const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// power is what a machine's first process gets, as JSON in a line of its
// standard input, once the machine is connected.
type power struct {
	Dir      string     // on the computer; the machine sees Dir/share as /machine
	Root     string     // on the computer: what the machine's root is made of
	UserData []byte     // what it executes
	Network  [][]string // arguments of ip
	Systemd  bool       // it has a systemd, of a kind
	Control  bool       // it has a control group of its own, whose root it sees
	Before   string     // a shell script that makes the image
}

// powerOn is the life of a machine's first process: it makes the root, executes
// the user data as cloud-init does, and reaps what is left, until it has to
// power off. With it, everything on the machine ends.
func powerOn() error {
	var p power
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, &p); err != nil {
		return err
	}
	off := make(chan os.Signal, 1)
	signal.Notify(off, syscall.SIGTERM)
	if err := p.root(); err != nil {
		return err
	}
	for _, args := range p.Network {
		if err := run("ip", args...); err != nil {
			return err
		}
	}
	if err := run("/bin/sh", "-c", p.Before); err != nil {
		return err
	}
	if err := p.cloudInit(); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		select {
		case <-off:
			return nil
		case <-ended:
		}
	}
}

// root makes the machine's root, and makes it this process's.
func (p power) root() error {
	scratch, root := filepath.Join(p.Dir, "scratch"), filepath.Join(p.Dir, "root")
	at := func(name string) string { return filepath.Join(root, name) }
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"scratch", scratch, "tmpfs", 0, "mode=755"},
		{"root", root, "overlay", 0, fmt.Sprintf("lowerdir=%[2]s,upperdir=%[1]s/upper,workdir=%[1]s/work", scratch, p.Root)},
		{"proc", at("proc"), "proc", 0, ""},
		{"sys", at("sys"), "sysfs", 0, ""},
		{"/dev", at("dev"), "", syscall.MS_BIND | syscall.MS_REC, ""},
		{"run", at("run"), "tmpfs", 0, "mode=755"},
		{"tmp", at("tmp"), "tmpfs", 0, "mode=1777"},
		{filepath.Join(p.Dir, "share"), at("machine"), "", syscall.MS_BIND, ""},
	} {
		if m.target == root {
			for _, dir := range []string{"upper", "work"} {
				if err := os.Mkdir(filepath.Join(scratch, dir), 0o755); err != nil {
					return err
				}
			}
		}
		if m.target != "/" {
			if err := os.MkdirAll(m.target, 0o755); err != nil {
				return err
			}
		}
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if p.Control {
		if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("control groups: %w", err)
		}
		if err := syscall.Mount("cgroup2", at("sys/fs/cgroup"), "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount control groups: %w", err)
		}
	}
	if err := syscall.Chroot(root); err != nil {
		return err
	}
	return os.Chdir("/")
}

// The machine's commands. Each notes its call; what powers off does so for real.
var commands = map[string]string{
	"shutdown": `
case $2 in
now) kill -TERM 1 ;;
+*) setsid sh -c "sleep $((${2#+} * 60)); echo the timer >>/machine/calls; kill -TERM 1" >/dev/null 2>&1 </dev/null & ;;
esac`,
	"poweroff": "\nkill -TERM 1",
	"systemd-run": `
for arg; do
	case $arg in
	--on-active=*) setsid sh -c "sleep ${arg#*=}; echo the timer >>/machine/calls; kill -TERM 1" >/dev/null 2>&1 </dev/null & ;;
	esac
done`,
	"systemctl": `
case $1 in
poweroff) kill -TERM 1 ;;
is-active) exit 3 ;;
start)
	command=$(sed -n 's/^ExecStart=//p' "/etc/systemd/system/$2")
	[ -n "$command" ] || exit 1
	setsid sh -c "until $command; do echo \"$2 failed\" >>/machine/calls; sleep 1; done" >>/machine/console 2>&1 </dev/null &
	;;
esac`,
}

// cloudInit executes the user data.
func (p power) cloudInit() error {
	for name, body := range commands {
		text := "#!/bin/sh\necho \"" + name + " $*\" >>/machine/calls" + body + "\n"
		if err := os.WriteFile(filepath.Join("/usr/local/sbin", name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	if p.Systemd {
		if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
			return err
		}
	}
	const dir = "/var/lib/cloud/instance/scripts"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	script := filepath.Join(dir, "part-001")
	if err := os.WriteFile(script, p.UserData, 0o700); err != nil {
		return err
	}
	console, err := os.OpenFile("/machine/console", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	child, err := os.StartProcess(script, []string{script}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}, Files: []*os.File{null, console, console},
	})
	if err != nil {
		return err
	}
	return child.Release()
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}
