//go:build linux

package host

import (
	"context"
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

// closeMetadata keeps a user from the instance metadata service, in each of the
// system's ways that works: a packet filter, which stock images may not have, and a
// routing rule. What sets up filters or routes on a machine drops what it does not
// know, so that one of the two may go while the other stays. It is called before
// each program, and repairs what went. An error says that none of them works.
func (m *Machine) closeMetadata(uid uint32) error {
	owner, uids := fmt.Sprint(uid), fmt.Sprintf("%d-%[1]d", uid)
	iptables := func(name, to string) error {
		rule := []string{"OUTPUT", "-d", to, "-m", "owner", "--uid-owner", owner, "-j", "REJECT"}
		if m.run(name, append([]string{"-w", "5", "-C"}, rule...)...) == nil {
			return nil // it is there
		}
		return m.run(name, append([]string{"-w", "5", "-I"}, rule...)...)
	}
	// systemd-networkd drops every rule that it has not made when it starts, but those
	// of the kernel (systemd, src/network/networkd-routing-policy-rule.c at commit
	// 735726898f82, manager_mark_routing_policy_rules). The priority puts the rule
	// before those by a source address, by which a job might go around it.
	rule := func(to string, options ...string) error {
		args := append(options, "rule", "add", "pref", "1", "to", to, "uidrange", uids, "prohibit", "protocol", "kernel")
		if err := m.run("ip", args...); err != nil && !strings.Contains(err.Error(), "File exists") {
			return err
		}
		return nil
	}
	var by []string
	var errs []error
	did := func(name string, err error, six func() error) bool {
		if err != nil {
			errs = append(errs, err)
			return false
		}
		if err := six(); err != nil { // a machine may have no IPv6
			m.log.Info("metadata service not closed for IPv6", slog.Any("error", err))
		}
		by = append(by, name)
		return true
	}
	filtered := did("nft", m.run("nft", fmt.Sprintf("add table inet garo; flush table inet garo; "+
		"add chain inet garo output { type filter hook output priority 0; }; "+
		"add rule inet garo output meta skuid %[1]d ip daddr %[2]s reject; "+
		"add rule inet garo output meta skuid %[1]d ip6 daddr %[3]s reject", uid, metadata4, metadata6)), func() error { return nil })
	if !filtered {
		did("iptables", iptables("iptables", metadata4), func() error { return iptables("ip6tables", metadata6) })
	}
	did("ip", rule(metadata4), func() error { return rule(metadata6, "-6") })
	if len(by) == 0 {
		return errors.Join(errs...)
	}
	m.log.Info("metadata service closed to the runner's user", slog.String("by", strings.Join(by, ",")))
	return nil
}

// guardMetadata closes the metadata service to jobs, unless the machine's role is for
// them. What a job could read there is worth nothing to it but the credentials of a role:
// a machine that has one, and cannot be closed, is of no use, while any other serves too.
func guardMetadata(ctx context.Context, m *Machine, uid uint32) error {
	if m.outfit.JobsRole {
		m.log.Info("metadata service open to the runner's user, as the account wants it")
		return nil
	}
	err := m.closeMetadata(uid)
	if err == nil {
		return nil
	}
	if _, absent := m.imds.get(ctx, "meta-data/iam/info"); absent == nil {
		return fmt.Errorf("the metadata service cannot be closed to jobs, and the machine has a role: install nftables or iproute2 in the image, or set jobs_role: %w", err)
	}
	m.log.Warn("the metadata service is open to the runner's user", slog.Any("error", err))
	return nil
}
