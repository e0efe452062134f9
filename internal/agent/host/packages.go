//go:build linux

package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// packageTries is how often a package manager is run, with a pause of two seconds after
// the first that doubles: another program, which the image starts at boot, may hold its
// lock, and mirrors stumble.
const packageTries = 4

// needed is what one of store.Packages means on a machine.
type needed struct {
	commands []string // it is there if all of these are
	apt, dnf []string // what it is called; see distributions
	service  string   // to be started; empty: none
}

// known has a row for each of store.Packages. The names are those of Ubuntu 22.04 and
// 24.04 and Debian 12 (https://packages.ubuntu.com, https://packages.debian.org) and of
// Amazon Linux 2023
// (https://docs.aws.amazon.com/linux/al2023/release-notes/all-packages-AL2023.9.html).
var known = map[string]needed{
	"build-tools": {commands: []string{"gcc", "g++", "make"}, apt: []string{"build-essential"}, dnf: []string{"gcc", "gcc-c++", "make"}},
	"docker":      {commands: []string{"docker"}, apt: []string{"docker.io"}, dnf: []string{"docker"}, service: "docker"},
	"git":         {commands: []string{"git"}, apt: []string{"git"}, dnf: []string{"git"}},
	"git-lfs":     {commands: []string{"git-lfs"}, apt: []string{"git-lfs"}, dnf: []string{"git-lfs"}},
	"jq":          {commands: []string{"jq"}, apt: []string{"jq"}, dnf: []string{"jq"}},
	"make":        {commands: []string{"make"}, apt: []string{"make"}, dnf: []string{"make"}},
	"mdadm":       {commands: []string{"mdadm"}, apt: []string{"mdadm"}, dnf: []string{"mdadm"}},
	"python3":     {commands: []string{"python3"}, apt: []string{"python3"}, dnf: []string{"python3"}},
	"rsync":       {commands: []string{"rsync"}, apt: []string{"rsync"}, dnf: []string{"rsync"}},
	"sudo":        {commands: []string{"sudo"}, apt: []string{"sudo"}, dnf: []string{"sudo"}},
	"unzip":       {commands: []string{"unzip"}, apt: []string{"unzip"}, dnf: []string{"unzip"}},
	"zip":         {commands: []string{"zip"}, apt: []string{"zip"}, dnf: []string{"zip"}},
	"zstd":        {commands: []string{"zstd"}, apt: []string{"zstd"}, dnf: []string{"zstd"}},
}

// there reports whether a machine has all of it.
func (n needed) there() bool {
	return !slices.ContainsFunc(n.commands, func(c string) bool { _, err := exec.LookPath(c); return err != nil })
}

// names returns the package manager's names in a distribution, by the ID of its
// os-release. It has none for one that nobody has looked at.
func (n needed) names(distribution string) []string {
	switch distribution {
	case "ubuntu", "debian":
		return n.apt
	case "amzn":
		return n.dnf
	}
	return nil
}

// packages installs what is wanted and missing, and starts what has a service.
func (f *outfitter) packages(ctx context.Context, wanted ...string) error {
	var missing, install []string
	distribution := osRelease(f.m.etc)
	for _, p := range wanted {
		n, ok := known[p]
		if !ok {
			return fmt.Errorf("%s: this agent does not know it", p)
		}
		if n.there() {
			continue
		}
		names := n.names(distribution)
		if len(names) == 0 {
			return fmt.Errorf("%s: what it is called in %q is not known: install it in the image, or by the script", p, distribution)
		}
		missing, install = append(missing, p), append(install, names...)
	}
	began := time.Now()
	if err := f.install(ctx, distribution, install); err != nil {
		return err
	}
	for _, p := range missing {
		if !known[p].there() {
			return fmt.Errorf("%s: it was installed, and is not on the PATH", p)
		}
	}
	for _, p := range wanted {
		if service := known[p].service; service != "" {
			if err := f.run(ctx, "packages.log", "systemctl", "start", service); err != nil {
				return fmt.Errorf("start %s: %w", service, err)
			}
		}
	}
	if len(missing) > 0 {
		f.did = append(f.did, fmt.Sprintf("packages %s installed in %.1f s", strings.Join(missing, ", "), time.Since(began).Seconds()))
	}
	return nil
}

// install runs the package manager of a distribution.
func (f *outfitter) install(ctx context.Context, distribution string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	commands := [][]string{
		{"apt-get", "-q", "update"},
		slices.Concat([]string{"apt-get", "-q", "-y", "--no-install-recommends", "install"}, names),
	}
	if distribution == "amzn" {
		commands = [][]string{slices.Concat([]string{"dnf", "-q", "-y", "--setopt=install_weak_deps=False", "install"}, names)}
	}
	for _, c := range commands {
		pause := 2 * time.Second
		for try := 1; ; try++ {
			err := f.run(ctx, "packages.log", c[0], c[1:]...)
			if err == nil {
				break
			}
			if try == packageTries || ctx.Err() != nil || sleep.For(ctx, pause) != nil {
				return fmt.Errorf("%s: %w", strings.Join(c, " "), err)
			}
			pause *= 2
		}
	}
	return nil
}

// osRelease returns the ID of a distribution
// (https://www.freedesktop.org/software/systemd/man/latest/os-release.html); empty: the
// machine does not say.
func osRelease(etc string) string {
	b, err := os.ReadFile(filepath.Join(etc, "os-release"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return parseEnvironment(b)["ID"]
}

// sum is the SHA-256 of some bytes, in hex.
func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
