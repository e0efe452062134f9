//go:build linux

package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
)

// withDisks is a machine with so many disks of its own, and one of EBS.
func withDisks(t *testing.T, n int) (*box, *Machine) {
	t.Helper()
	b := newBox(t)
	for _, tool := range []string{"mdadm", "mkfs.ext4", "mount", "apt-get"} {
		b.command(tool, "exit 0")
	}
	b.command("systemctl", "exit 3") // docker is not there
	if err := os.MkdirAll(filepath.Join(b.dir, "by-id"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(name, to string) {
		b.write(to, "", 0o600)
		if err := os.Symlink(filepath.Join(b.dir, to), filepath.Join(b.dir, "by-id", name)); err != nil {
			t.Fatal(err)
		}
	}
	link("nvme-Amazon_Elastic_Block_Store_vol0abc", "ebs")
	for i := range n {
		id, disk := "nvme-Amazon_EC2_NVMe_Instance_Storage_AWS"+string(rune('0'+i)), "nvme"+string(rune('0'+i))+"n1"
		link(id, disk)
		link(id+"-ns-1", disk) // udev has two names of each
		link(id+"-part1", disk+"p1")
	}
	b.cfg.Ephemeral = filepath.Join(b.dir, "ephemeral")
	m := b.open()
	m.byID, m.lib = filepath.Join(b.dir, "by-id"), filepath.Join(b.dir, "lib")
	b.write("runner/run.sh", "#!/bin/sh\n", 0o755)
	return b, m
}

var mount = apitype.Outfit{InstanceStore: "mount"}

func TestOwnDisksBecomeOneVolume(t *testing.T) {
	const (
		options = "-q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 "
		docker  = "systemctl is-active --quiet docker\n"
		binds   = "mount --bind DIR/ephemeral/docker DIR/lib/docker\nmount --bind DIR/ephemeral/containerd DIR/lib/containerd\n"
	)
	for name, c := range map[string]struct {
		disks       int
		calls, note string
	}{
		"None": {0, "", "no instance store"},
		"One":  {1, "mkfs.ext4 " + options + "DIR/nvme0n1\nmount -o noatime DIR/nvme0n1 DIR/ephemeral\n" + docker + binds, "instance store of 1 disks mounted in "},
		"Three": {3, "mdadm --create /dev/md/garo --run --level=0 --raid-devices=3 DIR/nvme0n1 DIR/nvme1n1 DIR/nvme2n1\nmkfs.ext4 " + options +
			"/dev/md/garo\nmount -o noatime /dev/md/garo DIR/ephemeral\n" + docker + binds, "instance store of 3 disks mounted in "},
	} {
		t.Run(name, func(t *testing.T) {
			b, m := withDisks(t, c.disks)
			did, err := m.Install(t.Context(), apitype.RunnerProgram{}, mount)
			if want := strings.ReplaceAll(c.calls, "DIR", b.dir); err != nil || b.read("calls") != want {
				t.Errorf("Install = %v, and called:\n%s\nwant:\n%s", err, b.read("calls"), want)
			}
			if !strings.Contains(did, c.note) {
				t.Errorf("it says that it did %q, want %q", did, c.note)
			}
		})
	}
}

func TestDockerThatRunsMovesToo(t *testing.T) {
	b, m := withDisks(t, 1)
	b.command("systemctl", "exit 0")
	if _, err := m.Install(t.Context(), apitype.RunnerProgram{}, mount); err != nil {
		t.Fatal(err)
	}
	calls := b.read("calls")
	stop, bind, begin := strings.Index(calls, "systemctl stop docker.socket docker containerd\n"), strings.Index(calls, "mount --bind"), strings.Index(calls, "systemctl start docker\n")
	if stop < 0 || bind < stop || begin < bind {
		t.Errorf("called:\n%s\nwant docker stopped, moved and started", calls)
	}
}

func TestDisksThatCannotBeUsedAreHeard(t *testing.T) {
	for tool, says := range map[string]string{"mdadm": "instance_store: mdadm: exit status 1; it printed: no room", "mkfs.ext4": "instance_store: mkfs.ext4 /dev/md/garo: exit", "mount": "instance_store: mount /dev/md/garo: exit"} {
		b, m := withDisks(t, 2)
		b.command(tool, "echo no room; exit 1")
		if _, err := m.Install(t.Context(), apitype.RunnerProgram{}, mount); !errors.Is(err, agent.ErrSetup) || !strings.Contains(err.Error(), says) {
			t.Errorf("Install with a %s that fails = %v, want %q", tool, err, says)
		}
	}
}

// The jobs' work directory is on the volume, is the user's, and is wiped between jobs,
// whatever a job made of its link.
func TestWorkDirectoryIsOnTheVolume(t *testing.T) {
	b, m := withDisks(t, 1)
	proc := m.proc
	if err := errors.Join(os.MkdirAll(filepath.Join(b.dir, "proc/self"), 0o755), os.MkdirAll(b.cfg.Ephemeral, 0o755)); err != nil {
		t.Fatal(err)
	}
	m.proc, m.outfit = filepath.Join(b.dir, "proc"), mount
	who, err := lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	at, on := filepath.Join(b.cfg.Runner, "_work"), filepath.Join(b.cfg.Ephemeral, "work")
	if err := linkWork(m, who); err != nil { // nothing is mounted
		t.Fatal(err)
	}
	if _, err := os.Lstat(at); err == nil {
		t.Error("there is a work directory, and no volume for it")
	}
	b.write("proc/self/mounts", "/dev/nvme1n1 "+b.cfg.Ephemeral+" ext4 rw 0 0\n", 0o644)
	for _, spoil := range []func() error{
		func() error { return nil },
		func() error { return errors.Join(os.Remove(at), os.Mkdir(at, 0o755)) },
		func() error { return errors.Join(os.Remove(at), os.Symlink("/etc", at)) },
	} {
		if err := linkWork(m, who); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(at); err != nil || to != on {
			t.Errorf("the work directory leads to %q, %v; want %s", to, err, on)
		}
		b.write("ephemeral/work/left", "x", 0o644)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
	}
	m.proc = proc
	b.write("proc/self/mounts", "", 0o644)
	if err := m.wipe(on); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(on); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the job: %v, want the work directory gone", err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Errorf("what a link of a job leads to: %v", err)
	}
}
