//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// groupName is the control group that the runner program and whatever its jobs
// start run in, as root too: what a job starts cannot leave it without root. It is
// beside the services of the system, so that a restart of the agent's does not
// touch it.
const groupName = "garo-runner"

// group makes the control group and returns its directory. It is empty where
// there are no control groups of version 2 that can be ended as one (Linux 5.14):
// a job's processes are found by their user alone there.
func (m *Machine) group() string {
	if m.groups == "" {
		return ""
	}
	dir := filepath.Join(m.groups, groupName)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return ""
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		_ = os.Remove(dir)
		return ""
	}
	return dir
}

// endGroup ends every process of the control group and removes it, if there is one.
// It is never used again: Linux (6.18 does) may take a process that is started
// into a group that was ended before for one of those that were to end.
func (m *Machine) endGroup() error {
	dir := m.group()
	if dir == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("end the processes of a job: %w", err)
	}
	return wait("the processes of "+groupName, func() (bool, error) {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.events")); err != nil || !strings.Contains(string(b), "populated 0") {
			return false, err
		}
		return removeGroup(dir) == nil, nil
	})
}

// removeGroup removes a control group and those that a job made below it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// The addresses of the instance metadata service
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html).
const (
	metadata4 = "169.254.169.254"
	metadata6 = "fd00:ec2::254"
)

// closeMetadata keeps a user from the instance metadata service, by the first of
// the system's ways that works: packet filters, or else a routing rule, which
// stock images have that come without any. What a job could read there is worth
// nothing to it, so that a machine without any of them goes on.
func (m *Machine) closeMetadata(uid uint32) {
	done := m.path("metadata-closed")
	if _, err := os.Stat(done); err == nil {
		return
	}
	owner, uids := fmt.Sprint(uid), fmt.Sprintf("%d-%[1]d", uid)
	var errs []error
	for _, way := range [][][]string{
		{{"nft", fmt.Sprintf("add table inet garo; flush table inet garo; "+
			"add chain inet garo output { type filter hook output priority 0; }; "+
			"add rule inet garo output meta skuid %[1]d ip daddr %[2]s reject; "+
			"add rule inet garo output meta skuid %[1]d ip6 daddr %[3]s reject", uid, metadata4, metadata6)}},
		{
			{"iptables", "-w", "5", "-I", "OUTPUT", "-d", metadata4, "-m", "owner", "--uid-owner", owner, "-j", "REJECT"},
			{"ip6tables", "-w", "5", "-I", "OUTPUT", "-d", metadata6, "-m", "owner", "--uid-owner", owner, "-j", "REJECT"},
		},
		{
			{"ip", "rule", "add", "to", metadata4, "uidrange", uids, "prohibit"},
			{"ip", "-6", "rule", "add", "to", metadata6, "uidrange", uids, "prohibit"},
		},
	} {
		err := m.run(way[0][0], way[0][1:]...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, also := range way[1:] { // a machine may have no IPv6
			if err := m.run(also[0], also[1:]...); err != nil {
				m.log.Info("metadata service not closed for IPv6", slog.Any("err", err))
			}
		}
		if err := writeFile(done, nil); err != nil {
			m.log.Warn("not noted that the metadata service is closed", slog.Any("err", err))
		}
		m.log.Info("metadata service closed to the runner's user", slog.String("by", way[0][0]))
		return
	}
	m.log.Warn("the metadata service is open to the runner's user", slog.Any("err", errors.Join(errs...)))
}
