//go:build linux

package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"strconv"
)

// account is the user that the runner program runs as.
type account struct {
	Name   string
	Home   string
	UID    uint32
	GID    uint32
	Groups []uint32
}

func lookup(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("groups of %s: %w", name, err)
	}
	a := account{Name: u.Username, Home: u.HomeDir}
	var numbers []uint32
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("ids of %s: %w", name, err)
		}
		numbers = append(numbers, uint32(n))
	}
	a.UID, a.GID, a.Groups = numbers[0], numbers[1], numbers[2:]
	if a.UID == 0 {
		return account{}, fmt.Errorf("user %s is root", name)
	}
	return a, nil
}

// account returns the user that runs the runner program, whom it first makes if
// there is none: stock images have no such user.
func (m *Machine) account() (account, error) {
	who, err := lookup(m.cfg.User)
	if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
		if err := m.run("useradd", "--create-home", "--shell", "/bin/bash", m.cfg.User); err != nil {
			return account{}, err
		}
		m.log.Info("user made", slog.String("user", m.cfg.User))
		who, err = lookup(m.cfg.User)
	}
	return who, err
}

// variables are those of every process of a user.
func (a account) variables() map[string]string {
	return map[string]string{"HOME": a.Home, "USER": a.Name, "LOGNAME": a.Name}
}
