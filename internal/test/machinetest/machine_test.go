//go:build linux

package machinetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for a loaded computer: nothing here takes ten seconds. It is less than
// machineLimit, so that a test says what it waits for.
const patience = 2 * time.Minute

// machine is one machine, from its launch on.
type machine struct {
	t        *testing.T
	world    *world
	n        int // of the world's machines, from 1
	id       string
	dir      string
	userData []byte
	image    image
	began    time.Time // when its user data did, about
	ended    chan struct{}
	init     *exec.Cmd
	control  string   // the directory of its control group; empty: it has none
	spaces   []string // its process namespace, as the computer names it

	mu    sync.Mutex
	spot  string // what EC2 announces: spot/instance-action; empty: nothing
	rebal string // events/recommendations/rebalance
}

// image is what a machine has before its user data runs.
type image struct {
	systemd bool
	program bool   // the runner program is baked in
	agent   bool   // the agent is baked in
	root    string // the directory of another root than this computer's, which is as it is; empty: this computer's
	before  string // more, as a shell script
	after   string // likewise, once the programs are there
}

// machineLimit bounds a machine's life here whatever becomes of the test.
const machineLimit = 3 * time.Minute

// start powers the machine on. It returns when it is connected.
func (m *machine) start() error {
	for _, dir := range []string{"share", "scratch", "root"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o700); err != nil {
			return err
		}
	}
	root, before := "/", "rm -rf /opt/actions-runner /opt/garo; ! id runner >/dev/null 2>&1 || userdel -f runner\n"
	if m.image.root != "" {
		root, before = m.image.root, ""
	}
	before += m.image.before
	if m.image.program {
		if err := os.WriteFile(m.share("image.tar.gz"), m.world.tarball, 0o600); err != nil {
			return err
		}
		before += "\nuseradd --create-home --shell /bin/bash runner && mkdir /opt/actions-runner &&" +
			"tar -xzf /machine/image.tar.gz -C /opt/actions-runner && chown -R runner: /opt/actions-runner"
	}
	if m.image.agent {
		if err := os.WriteFile(m.share("agent.gz"), m.world.agent.gzip, 0o600); err != nil {
			return err
		}
		before += "\nmkdir /opt/garo && gzip -dc /machine/agent.gz >/opt/garo/agent && chmod 0755 /opt/garo/agent"
	}
	before += "\n" + m.image.after
	console, err := os.OpenFile(m.share("console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	m.init = exec.Command(self, initArgument)
	stdin, err := m.init.StdinPipe()
	if err != nil {
		return err
	}
	m.init.Stdout, m.init.Stderr = console, console
	m.init.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	m.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if parent := controlGroups(); parent != "" {
		m.control = filepath.Join(parent, fmt.Sprintf("garo-machinetest-%d-%s", os.Getpid(), m.id))
		if err := os.Mkdir(m.control, 0o755); err != nil {
			return err
		}
		d, err := os.Open(m.control)
		if err != nil {
			return err
		}
		defer d.Close()
		m.init.SysProcAttr.UseCgroupFD, m.init.SysProcAttr.CgroupFD = true, int(d.Fd())
	}
	m.world.site.do(func() { err = m.init.Start() }) // on the thread that lives as long as the test: its death is the machine's
	if err != nil {
		return err
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", m.init.Process.Pid))
	if err != nil {
		return err
	}
	m.spaces = append(m.spaces, space)
	go m.wait()
	net, meta := fmt.Sprintf("10.99.%d.", m.n), fmt.Sprintf("10.98.%d.", m.n)
	ip := func(args ...string) { m.world.site.ip(m.t, args...) }
	pid := strconv.Itoa(m.init.Process.Pid)
	for _, link := range []struct{ name, end, prefix string }{{m.link(), "eth0", net}, {"imds" + strconv.Itoa(m.n), "imds0", meta}} {
		ip("link", "add", link.name, "type", "veth", "peer", "name", link.end, "netns", pid)
		ip("address", "add", link.prefix+"1/24", "dev", link.name)
		ip("link", "set", link.name, "up")
	}
	b, err := json.Marshal(power{
		Dir: m.dir, Root: root, UserData: m.userData, Systemd: m.image.systemd, Control: m.control != "", Before: before,
		Network: [][]string{
			{"link", "set", "lo", "up"},
			{"address", "add", net + "2/24", "dev", "eth0"},
			{"link", "set", "eth0", "up"},
			{"route", "add", "default", "via", net + "1"},
			{"address", "add", meta + "2/24", "dev", "imds0"},
			{"link", "set", "imds0", "up"},
			{"route", "add", metadataAddress, "via", meta + "1"},
		},
	})
	if err != nil {
		return err
	}
	m.began = time.Now()
	_, err = stdin.Write(append(b, '\n'))
	return errors.Join(err, stdin.Close())
}

// link is the name of the machine's link to the network, at its far end.
func (m *machine) link() string { return "net" + strconv.Itoa(m.n) }

// network cuts the machine off from everything but its metadata, or connects it again.
func (m *machine) network(up bool) {
	state := map[bool]string{true: "up", false: "down"}[up]
	m.world.site.ip(m.t, "link", "set", m.link(), state)
}

// wait waits for the machine's end.
func (m *machine) wait() {
	limit := time.AfterFunc(machineLimit, func() { _ = m.init.Process.Kill() })
	defer limit.Stop()
	_ = m.init.Wait() // what it says is on the console
	if m.control != "" {
		for range 100 { // the processes may take a moment to be gone
			if removeGroups(m.control) == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	close(m.ended)
}

func removeGroups(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, name)
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		err = errors.Join(err, os.Remove(d))
	}
	return err
}

// controlGroups returns where this computer has control groups of version 2.
func controlGroups() string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			if probe := filepath.Join(fields[4], fmt.Sprintf("garo-machinetest-%d", os.Getpid())); os.Mkdir(probe, 0o755) == nil && os.Remove(probe) == nil {
				return fields[4]
			}
		}
	}
	return ""
}

// over reports whether the machine has ended.
func (m *machine) over() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// kill ends the machine, as EC2 does.
func (m *machine) kill() {
	_ = m.init.Process.Kill()
	<-m.ended
}

// wantOff waits until the machine has ended, and checks that it was by its own power switch.
func (m *machine) wantOff() {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(patience):
		m.t.Fatalf("machine %d is still on", m.n)
	}
	if calls := m.calls(); !strings.HasSuffix(calls, "shutdown -P now\n") {
		m.t.Errorf("machine %d ended without its power switch; it called:\n%s", m.n, calls)
	}
}

func (m *machine) share(name string) string { return filepath.Join(m.dir, "share", name) }

func (m *machine) read(name string) string {
	b, err := os.ReadFile(m.share(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Errorf("read: %v", err)
	}
	return string(b)
}

// calls is what the machine called of its system, line by line.
func (m *machine) calls() string { return m.read("calls") }

// console is what the machine said.
func (m *machine) console() string { return m.read("console") }

// see waits for a text on the console.
func (m *machine) see(text string) {
	m.t.Helper()
	eventually(m.t, fmt.Sprintf("%q on the console of machine %d", text, m.n), func() bool { return strings.Contains(m.console(), text) })
}

// process is a process of a machine.
type process struct {
	pid     int // on this computer
	command string
}

// processes returns what runs on the machine.
func (m *machine) processes() []process {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		m.t.Fatal(err)
	}
	var all []process
	for _, name := range names {
		space, err := os.Readlink(name + "/ns/pid")
		if err != nil || !slices.Contains(m.spaces, space) {
			continue
		}
		line, err := os.ReadFile(name + "/cmdline")
		if err != nil || len(line) == 0 {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, process{pid, strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))})
	}
	return all
}

// running returns the process whose command begins like that; 0: there is none.
func (m *machine) running(command string) int {
	for _, p := range m.processes() {
		if strings.HasPrefix(p.command, command) {
			return p.pid
		}
	}
	return 0
}

// killAgent kills the agent's process, and waits for the next one.
func (m *machine) killAgent() {
	m.t.Helper()
	pid := m.cutAgent()
	eventually(m.t, "the agent is started again", func() bool { now := m.running(agentCommand); return now != 0 && now != pid })
}

// cutAgent kills the agent's process, and returns its pid. The next one may be over soon.
func (m *machine) cutAgent() (pid int) {
	m.t.Helper()
	eventually(m.t, "the agent runs", func() bool { pid = m.running(agentCommand); return pid != 0 })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	return pid
}

const agentCommand = "/opt/garo/agent -document"

// eventually waits for something.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// file is a text that several may write and read.
type file struct {
	mu   sync.Mutex
	text bytes.Buffer
}

var _ io.Writer = (*file)(nil)

func (f *file) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.Write(b)
}

func (f *file) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}
