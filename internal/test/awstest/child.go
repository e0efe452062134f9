package awstest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	// startFor is for a JVM on a machine that does much else; alone it needs two seconds.
	startFor = 2 * time.Minute
	// shown is how much of a log is worth reading.
	shown = 16 << 10
)

var listening = regexp.MustCompile(`(?m)^listening on (127\.0\.0\.1:\d+)\r?$`)

// child is a process that ends on its own when this one does: it reads its
// standard input until that ends.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer // open as long as this process lives
	log   *os.File  // without a name: gone when both processes are
}

// start starts s and waits until it serves.
func (s *standin) start() (*Server, error) {
	dir, err := s.ensure()
	if err != nil {
		return nil, fmt.Errorf("install %s: %w", s.name, err)
	}
	began := time.Now()
	c, err := spawn(dir, s.command(dir))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	url, err := c.await(s.health)
	if err != nil {
		_ = c.cmd.Process.Kill()
		return nil, fmt.Errorf("start %s: %w; it logged:\n%s", s.name, err, c.tail(0))
	}
	return &Server{URL: url, standin: s, child: c, took: time.Since(began)}, nil
}

func spawn(dir string, command []string) (*child, error) {
	log, err := os.CreateTemp("", "garo-standin-*.log")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(log.Name()); err != nil {
		return nil, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	// What a stand-in would read from the environment of its users stays out.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "AWS_") && !strings.HasPrefix(name, "MOTO_") && !strings.HasPrefix(name, "MINISTACK_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "AWS_EC2_METADATA_DISABLED=true")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd, stdin, log}, nil
}

// await returns the URL that c serves, once it answers at a path.
func (c *child) await(path string) (url string, err error) {
	for deadline := time.Now().Add(startFor); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var status syscall.WaitStatus
		if pid, werr := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WNOHANG, nil); werr == nil && pid != 0 {
			return "", fmt.Errorf("it ended with status %d", status.ExitStatus())
		}
		m := listening.FindSubmatch(c.tail(0))
		if m == nil {
			continue
		}
		url = "http://" + string(m[1])
		resp, rerr := once.Get(url + path)
		if rerr == nil {
			return url, resp.Body.Close()
		}
		err = rerr
	}
	return "", fmt.Errorf("not ready within %v: %w", startFor, err)
}

// logged is how long the log is.
func (c *child) logged() int64 {
	info, err := c.log.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// tail returns the end of the log, from an offset on.
func (c *child) tail(from int64) []byte {
	from = max(from, c.logged()-shown)
	b, err := io.ReadAll(io.NewSectionReader(c.log, from, shown))
	if err != nil {
		return fmt.Appendf(nil, "read its log: %v", err)
	}
	return bytes.TrimSpace(b)
}
