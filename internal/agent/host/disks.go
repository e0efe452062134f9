//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// ownDisks are the names that udev gives the disks which an instance type has of its
	// own, beside those of their partitions
	// (https://github.com/awslabs/amazon-eks-ami, templates/shared/runtime/bin/setup-local-disks).
	ownDisks = "nvme-Amazon_EC2_NVMe_Instance_Storage_*"
	// array is the volume of several disks.
	array = "/dev/md/garo"
	// workDir is the jobs' work directory on the volume, dockerDirs those that Docker and
	// its containerd keep all in.
	workDir = "work"
)

var dockerDirs = []string{"docker", "containerd"}

// disks makes one volume of the machine's own disks, where it has any, and puts Docker's
// data on it. What an image has there is not seen any more.
func (f *outfitter) disks(ctx context.Context) error {
	if f.o.InstanceStore == "" || mounted(f.m.cfg.Ephemeral, f.m.proc) {
		return nil
	}
	began := time.Now()
	disks, err := disksIn(f.m.byID)
	if err != nil {
		return err
	}
	if len(disks) == 0 {
		f.did = append(f.did, "no instance store")
		return nil
	}
	volume := disks[0]
	if len(disks) > 1 {
		if err := f.packages(ctx, "mdadm"); err != nil {
			return err
		}
		volume = array
		if _, err := os.Stat(array); errors.Is(err, fs.ErrNotExist) { // else an earlier process of the agent made it
			create := []string{"--create", array, "--run", "--level=0", fmt.Sprintf("--raid-devices=%d", len(disks))}
			if err := f.run(ctx, "disks.log", "mdadm", slices.Concat(create, disks)...); err != nil {
				return fmt.Errorf("mdadm: %w", err)
			}
		}
	}
	// Nothing is on them that anyone waits for: no discarding, and no writing of tables
	// that are written when they are needed.
	if err := f.run(ctx, "disks.log", "mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", volume); err != nil {
		return fmt.Errorf("mkfs.ext4 %s: %w", volume, err)
	}
	if err := os.MkdirAll(f.m.cfg.Ephemeral, 0o755); err != nil {
		return err
	}
	if err := f.run(ctx, "disks.log", "mount", "-o", "noatime", volume, f.m.cfg.Ephemeral); err != nil {
		return fmt.Errorf("mount %s: %w", volume, err)
	}
	if err := f.moveDocker(ctx); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	f.did = append(f.did, fmt.Sprintf("instance store of %d disks mounted in %.1f s", len(disks), time.Since(began).Seconds()))
	return nil
}

// moveDocker has Docker keep its data on the volume, whether it is installed by now or
// will be. One that runs is stopped for that, and started again.
func (f *outfitter) moveDocker(ctx context.Context) error {
	runs := f.run(ctx, "disks.log", "systemctl", "is-active", "--quiet", "docker") == nil
	if runs {
		if err := f.run(ctx, "disks.log", "systemctl", "stop", "docker.socket", "docker", "containerd"); err != nil {
			return err
		}
	}
	for _, name := range dockerDirs {
		on, at := filepath.Join(f.m.cfg.Ephemeral, name), filepath.Join(f.m.lib, name)
		if err := errors.Join(os.MkdirAll(on, 0o711), os.MkdirAll(at, 0o711)); err != nil { // as Docker makes its own
			return err
		}
		if err := f.run(ctx, "disks.log", "mount", "--bind", on, at); err != nil {
			return err
		}
	}
	if runs {
		return f.run(ctx, "disks.log", "systemctl", "start", "docker")
	}
	return nil
}

// disksIn returns the disks in a directory of names, each once and in order.
func disksIn(byID string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(byID, ownDisks))
	if err != nil {
		return nil, err
	}
	var disks []string
	for _, name := range names {
		if strings.Contains(filepath.Base(name), "-part") {
			continue
		}
		disk, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, err
		}
		disks = append(disks, disk)
	}
	slices.Sort(disks)
	return slices.Compact(disks), nil
}

// mounted reports whether something is mounted at a place.
func mounted(at, proc string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "self", "mounts"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == at {
			return true
		}
	}
	return false
}

// linkWork makes the jobs' work directory, where it is not to be where the runner program
// makes it: on the machine's own disks. A job may have changed what is there.
func linkWork(m *Machine, who account) error {
	if m.outfit.InstanceStore == "" || !mounted(m.cfg.Ephemeral, m.proc) {
		return nil
	}
	on, at := filepath.Join(m.cfg.Ephemeral, workDir), filepath.Join(m.cfg.Runner, "_work")
	if err := os.MkdirAll(on, 0o755); err != nil {
		return err
	}
	if err := os.Lchown(on, int(who.UID), int(who.GID)); err != nil {
		return err
	}
	if to, err := os.Readlink(at); err == nil && to == on {
		return nil
	}
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	return errors.Join(os.Symlink(on, at), os.Lchown(at, int(who.UID), int(who.GID)))
}
