//go:build linux

package host

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// cleanTimeout is how long what was killed may take to be gone: a process that
	// waits for a disk dies only afterwards.
	cleanTimeout = 10 * time.Second
	cleanPeriod  = 50 * time.Millisecond
	// trashPrefix begins the names of what was a work directory and is being deleted.
	trashPrefix = ".garo-trash-"
)

// leftovers are what a job and its registration leave in the runner program's
// directory.
var leftovers = []string{".runner", ".credentials", ".credentials_rsaparams", ".runner_migrated", ".credentials_migrated"}

// Clean implements agent.Machine. It ends every process of the runner's control
// group and of its user, the runner program among them. The work directory is gone when Clean returns; what
// was in it is deleted afterwards, where only root can reach it.
func (m *Machine) Clean() error {
	who, err := lookup(m.cfg.User)
	if err != nil {
		return err
	}
	last := m.unfollow()
	if err := m.endGroup(); err != nil {
		return err
	}
	err = wait("the processes of "+who.Name, func() (bool, error) {
		pids, err := processes(m.proc, who.UID)
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, err
			}
		}
		return len(pids) == 0, err
	})
	if err != nil {
		return err
	}
	if err := wait("the keeper", func() (bool, error) { return m.over(last), nil }); err != nil {
		return err
	}
	if err := os.RemoveAll(m.path(programDir)); err != nil {
		return err
	}
	for _, name := range leftovers {
		if err := os.RemoveAll(filepath.Join(m.cfg.Runner, name)); err != nil {
			return err
		}
	}
	if err := m.wipe(filepath.Join(m.cfg.Runner, "_work")); err != nil || !mounted(m.cfg.Ephemeral, m.proc) {
		return err
	}
	return m.wipe(filepath.Join(m.cfg.Ephemeral, workDir)) // whose link is gone
}

// wait looks until done says so.
func wait(what string, done func() (bool, error)) error {
	for deadline := time.Now().Add(cleanTimeout); ; time.Sleep(cleanPeriod) {
		ok, err := done()
		if err != nil {
			return fmt.Errorf("end %s: %w", what, err)
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("end %s: still there after %v", what, cleanTimeout)
		}
	}
}

// processes returns the ids of the processes that a user runs, in order.
func processes(proc string, uid uint32) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join(proc, e.Name(), "status"))
		if err != nil {
			continue // it has just ended
		}
		if runs(status, strconv.FormatUint(uint64(uid), 10)) {
			pids = append(pids, pid)
		}
	}
	return slices.Sorted(slices.Values(pids)), nil
}

// runs reports whether a process is a user's, by its real or effective id, and
// has not ended yet.
func runs(status []byte, uid string) bool {
	mine := false
	for line := range bytes.Lines(status) {
		switch fields := strings.Fields(string(line)); {
		case len(fields) >= 2 && fields[0] == "State:" && fields[1] == "Z":
			return false // it waits to be reaped, and runs nothing
		case len(fields) >= 3 && fields[0] == "Uid:":
			mine = fields[1] == uid || fields[2] == uid
		}
	}
	return mine
}

// wipe moves a directory out of reach, and begins to delete it and what an
// earlier process of the agent did not get to.
func (m *Machine) wipe(dir string) error {
	base := filepath.Dir(dir)
	trash, err := os.MkdirTemp(base, trashPrefix)
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(trash, "work")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	m.wg.Go(func() {
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), trashPrefix) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(base, e.Name())); err != nil {
				m.log.Warn("work directory not deleted", slog.Any("error", err))
			}
		}
	})
	return nil
}
