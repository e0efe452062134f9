//go:build linux

package machinetest

import (
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// site is a network namespace of this process: there the control plane and the
// stand-ins listen, at the far end of every machine's links.
type site struct {
	work chan func()
}

// newSite makes one. It goes with the test, or with the process, however that ends.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{work: make(chan func())}
	began := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		began <- err
		if err != nil {
			return
		}
		for work := range s.work {
			work()
		}
	}()
	if err := <-began; err != nil {
		t.Fatalf("make a network: %v", err)
	}
	t.Cleanup(func() { close(s.work) })
	s.ip(t, "link", "set", "lo", "up")
	for _, address := range []string{controlAddress, metadataAddress} {
		s.ip(t, "address", "add", address+"/32", "dev", "lo")
	}
	return s
}

const (
	controlAddress  = "10.99.0.1"
	metadataAddress = "169.254.169.254"
)

// do runs f inside of the network.
func (s *site) do(f func()) {
	done := make(chan struct{})
	s.work <- func() { defer close(done); f() }
	<-done
}

func (s *site) ip(t *testing.T, args ...string) {
	t.Helper()
	var out []byte
	var err error
	s.do(func() { out, err = exec.Command("ip", args...).CombinedOutput() })
	if err != nil {
		t.Errorf("ip %q: %v\n%s", args, err, out)
	}
}

func (s *site) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	s.do(func() { l, err = net.Listen("tcp4", address) })
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	return l
}
