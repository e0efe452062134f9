//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// Config says where things are. All fields are needed but Log and API.
type Config struct {
	Dir    string // of the agent: root's alone, and gone after a reboot
	Hooks  string // of what the runner's user may reach; likewise gone
	Runner string // where the runner program is, owned by its user
	User   string // who runs it
	// Ephemeral is where the volume of the machine's own disks is mounted, if it is.
	Ephemeral string
	Metadata  string // base URL of the instance metadata service
	// API is the base URL of the API, which jobs reach past the registration's proxies if
	// the agent does without a proxy. Empty: not known.
	API string
	Log *slog.Logger
}

// Machine is the machine that this process runs on. It implements agent.Machine.
type Machine struct {
	cfg     Config
	log     *slog.Logger
	imds    *metadata
	notices chan agent.Notice
	proc    string // where the kernel shows processes
	groups  string // and control groups
	etc     string // /etc
	lib     string // /var/lib
	byID    string // where udev names disks
	shell   string // what a login runs
	getenv  func(string) string

	stop    context.CancelFunc
	ctx     context.Context // of the goroutines
	wg      sync.WaitGroup
	program *program       // the one that is followed; nil: none
	outfit  apitype.Outfit // of Install, which comes before Start in each process
}

var _ agent.Machine = (*Machine)(nil)

// Open prepares the directory and begins to listen for EC2's announcements. The
// caller has to call Close.
func Open(c Config) (*Machine, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open machine: %w", err)
	}
	if err := os.Chmod(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open machine: %w", err)
	}
	m := &Machine{cfg: c, log: c.Log, imds: newMetadata(c.Metadata), notices: make(chan agent.Notice, 2), proc: "/proc", groups: "/sys/fs/cgroup",
		etc: "/etc", lib: "/var/lib", byID: "/dev/disk/by-id", shell: shell(), getenv: os.Getenv}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.wg.Go(func() { m.watch(m.ctx, newMetadata(c.Metadata)) }) // a token of its own
	return m, nil
}

// Close ends what this process does for the machine. A runner program runs on.
func (m *Machine) Close() {
	m.stop()
	m.wg.Wait()
}

func (m *Machine) path(name string) string { return filepath.Join(m.cfg.Dir, name) }

// Load implements agent.Machine.
func (m *Machine) Load() ([]byte, error) {
	b, err := os.ReadFile(m.path("state"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Save implements agent.Machine.
func (m *Machine) Save(b []byte) error { return writeFile(m.path("state"), b) }

// writeFile replaces a file in one step, readable by its owner alone. The disk
// need not have it: what the machine keeps need not outlive a crash of it.
func writeFile(name string, b []byte) error {
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// InstanceID returns the id of this instance, which it asks EC2 for once. It
// tries until ctx ends.
func (m *Machine) InstanceID(ctx context.Context) (string, error) {
	if b, err := os.ReadFile(m.path("instance-id")); err == nil && instanceID.Match(b) {
		return string(b), nil
	}
	for {
		id, err := m.imds.instanceID(ctx)
		if err == nil {
			return id, writeFile(m.path("instance-id"), []byte(id))
		}
		if sleep.For(ctx, time.Second) != nil { // the network may come up after the agent
			return "", fmt.Errorf("instance id: %w", err)
		}
	}
}

// Identity returns AWS's word for this instance, as it is now. It asks once.
func (m *Machine) Identity(ctx context.Context) (string, error) { return m.imds.identity(ctx) }

// SetTimer implements agent.Machine. Timers are never taken back: the earliest
// powers the machine off. The start script has set one before.
func (m *Machine) SetTimer(at time.Time) error {
	if b, err := os.ReadFile(m.path("timer")); err == nil {
		if armed, err := strconv.ParseInt(string(b), 10, 64); err == nil && at.Unix() >= armed {
			return nil
		}
	}
	left := max(time.Until(at), time.Second)
	// A timer of systemd is exact, and needs no logind; shutdown counts minutes.
	err := m.run("systemd-run", "--quiet", fmt.Sprintf("--on-active=%d", int64(math.Ceil(left.Seconds()))),
		"--timer-property=AccuracySec=1s", "systemctl", "poweroff")
	if err != nil {
		if also := m.run("shutdown", "-P", fmt.Sprintf("+%d", int64(math.Ceil(left.Minutes())))); also != nil {
			return fmt.Errorf("set timer: %w", errors.Join(err, also))
		}
	}
	return writeFile(m.path("timer"), strconv.AppendInt(nil, at.Unix(), 10))
}

// PowerOff implements agent.Machine.
func (m *Machine) PowerOff(reason string) {
	var errs []error
	for _, args := range [][]string{{"shutdown", "-P", "now"}, {"systemctl", "poweroff"}, {"poweroff", "-f"}} {
		err := m.run(args[0], args[1:]...)
		if err == nil {
			return
		}
		errs = append(errs, err)
	}
	m.log.Error("the machine does not power off, its timer will", slog.String("reason", reason), slog.Any("error", errors.Join(errs...)))
}

// run runs a command of the system. Ten seconds are far more than any of them takes.
func (m *Machine) run(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		said := strings.TrimSpace(string(out[:min(len(out), 200)]))
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return nil
}

// Notices implements agent.Machine.
func (m *Machine) Notices() <-chan agent.Notice { return m.notices }
