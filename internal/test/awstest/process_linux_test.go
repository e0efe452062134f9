package awstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestEachServesOnLoopbackAloneAndIsStartedOnce(t *testing.T) {
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			server := s.use(t)
			if again := s.use(t); again != server {
				t.Errorf("second use = %v, want the same process", again)
			}
			rss, open := facts(t, server.child.cmd.Process.Pid)
			t.Logf("%s served after %v with %d MB", s.name, server.took.Round(time.Millisecond), rss>>10)
			if len(open) == 0 {
				t.Errorf("no listening sockets found")
			}
			for _, addr := range open {
				if !addr.IP.IsLoopback() {
					t.Errorf("listens on %v, want loopback alone", addr)
				}
			}
		})
	}
}

// facts returns the resident memory of a process in kB, and what it listens on,
// as proc(5) describes them.
func facts(t *testing.T, pid int) (rss int, open []*net.TCPAddr) {
	t.Helper()
	proc := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			rss, _ = strconv.Atoi(f[1])
		}
	}
	fds, err := filepath.Glob(proc + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil { // else it was closed since
			ours[to] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(proc + "/net/" + table)
		if err != nil {
			continue // a machine without IPv6
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if f[3] != "0A" || !ours["socket:["+f[9]+"]"] {
				continue
			}
			hex, port, _ := strings.Cut(f[1], ":")
			p, _ := strconv.ParseUint(port, 16, 16)
			open = append(open, &net.TCPAddr{IP: address(t, hex), Port: int(p)})
		}
	}
	return rss, open
}

// address reads an address as the kernel prints it: words of 32 bits, each with
// the bytes of a little-endian machine in reverse.
func address(t *testing.T, hex string) net.IP {
	t.Helper()
	var ip net.IP
	for ; hex != ""; hex = hex[8:] {
		w, err := strconv.ParseUint(hex[:8], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		ip = append(ip, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	return ip
}

func TestStandinEndsWithItsTestBinaryEvenKilled(t *testing.T) {
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.use(t) // it is installed
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), aloneFor+"="+s.name)
			cmd.Stderr = t.Output()
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pid int
			if _, err := fmt.Fscan(out, &pid); err != nil {
				t.Fatalf("read the process id of the stand-in: %v", err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it says that it was killed
			for deadline := time.Now().Add(time.Minute); alive(pid); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("process %d of %s lives a minute after its parent was killed", pid, s.name)
				}
			}
		})
	}
}

// alive reports whether a process runs that nobody has to wait for.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
