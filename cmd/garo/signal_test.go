package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// program is a garo that runs.
type program struct {
	*exec.Cmd
	out, err output
}

// output is what a program has printed; it is safe to read while it prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// begin starts garo in a directory. It does not outlive the test.
func begin(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // t.Context ends before the cleanup begins
	p := &program{Cmd: exec.CommandContext(ctx, "garo", args...)}
	p.Dir, p.Stdout, p.Stderr = dir, &p.out, &p.err
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.Wait() // it has ended, on its own or now
		if t.Failed() {
			t.Logf("garo %q printed:\n%s%s", args, &p.out, &p.err)
		}
	})
	return p
}

// serve starts garo local in a new directory, and returns it when it listens.
func serve(t *testing.T, args ...string) *program {
	t.Helper()
	p := begin(t, t.TempDir(), append([]string{"local", "--addr", "127.0.0.1:0", "--quiet"}, args...)...)
	until(t, "garo local to listen", func() bool {
		_, err := os.Stat(filepath.Join(p.Dir, ".garo", "url"))
		return err == nil
	})
	return p
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// status waits until p ends, and returns its exit status; -1: by a signal.
func (p *program) status(t *testing.T) int {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	select {
	case err := <-done:
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return e.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return 0
	case <-time.After(patience):
		t.Fatalf("garo %q does not end", p.Args[1:])
		return 0
	}
}

// request returns the one request that there is, with its story.
func request(t *testing.T, dir string) (s apitype.Status) {
	t.Helper()
	garo := func(into any, args ...string) {
		c := exec.CommandContext(t.Context(), "garo", append(args, "--json")...)
		c.Dir = dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("garo %q: %v", args, err)
		}
		if err := json.Unmarshal(out, into); err != nil {
			t.Fatalf("garo %q: %v", args, err)
		}
	}
	var all []apitype.Status
	if garo(&all, "list"); len(all) == 0 {
		return s
	}
	garo(&s, "status", all[0].ID)
	return s
}

func TestInterruptedStartCancelsItsRequest(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			system := serve(t, "--boot-time", "1h")
			start := begin(t, system.Dir, "start", "--repo", "acme/shop", "--wait")
			until(t, "the request to wait for its machine", func() bool { return strings.Contains(start.err.String(), "instance i-") })
			if err := start.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if got := start.status(t); got != 130 {
				t.Errorf("status of the interrupted start = %d, want 130", got)
			}
			s := request(t, system.Dir)
			if s.State != "cancelled" || s.Runner == nil || s.Runner.State != "draining" {
				t.Errorf("request = %s, its runner %+v; want it cancelled, and the runner draining", s.State, s.Runner)
			}
			if got, want := start.err.String(), "garo: interrupted: request "+s.ID+" is cancelled\n"; !strings.HasSuffix(got, want) {
				t.Errorf("stderr = %q, want it to end %q", got, want)
			}
		})
	}
}

// Where the cancelling hangs, the second signal is the end.
func TestSecondInterruptEndsAtOnce(t *testing.T) {
	t.Parallel()
	system := serve(t, "--boot-time", "1h")
	start := begin(t, system.Dir, "start", "--repo", "acme/shop", "--wait")
	until(t, "the request to wait for its machine", func() bool { return strings.Contains(start.err.String(), "instance i-") })
	if err := system.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(patience, func() { _ = start.Process.Kill() })
	defer stop.Stop()
	go func() {
		for start.Process.Signal(syscall.SIGINT) == nil {
			time.Sleep(100 * time.Millisecond)
		}
	}()
	err := start.Wait()
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok || e.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("start ended with %v, want by the signal", err)
	}
	if err := system.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptedWaitLeavesTheRequest(t *testing.T) {
	t.Parallel()
	system := serve(t, "--boot-time", "1h")
	if got := begin(t, system.Dir, "start", "--repo", "acme/shop").status(t); got != 0 {
		t.Fatalf("status of the start = %d, want 0", got)
	}
	wait := begin(t, system.Dir, "wait", request(t, system.Dir).ID)
	until(t, "the request to wait for its machine", func() bool { return strings.Contains(wait.err.String(), "instance i-") })
	if err := wait.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := wait.status(t); got != 130 {
		t.Errorf("status of the interrupted wait = %d, want 130", got)
	}
	if got := request(t, system.Dir).State; got != "waiting" {
		t.Errorf("request = %s, want it still waiting", got)
	}
	if got := wait.err.String(); !strings.HasSuffix(got, "\ngaro: interrupted\n") {
		t.Errorf("stderr = %q, want it to end with garo: interrupted", got)
	}
}

// With EC2's pace, launches wait for their slots when the system stops: it does not
// wait for them, and the next start continues.
func TestBusySystemStopsWithinSecondsAndGoesOn(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			system := serve(t, "--ec2-pacing", "--boot-time", "0s")
			var starts sync.WaitGroup
			for range 12 {
				starts.Go(func() {
					c := exec.CommandContext(t.Context(), "garo", "start", "--repo", "acme/shop", "--mode", "ephemeral")
					c.Dir = system.Dir
					if out, err := c.CombinedOutput(); err != nil {
						t.Errorf("garo start: %v: %s", err, out)
					}
				})
			}
			starts.Wait()
			began := time.Now()
			if err := system.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if got := system.status(t); got != 0 {
				t.Errorf("status of the stopped system = %d, want 0", got)
			}
			// 3 s are granted to what is under way; the rest is for a slow machine.
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("the system took %s to stop, want seconds", took)
			}
			again := begin(t, system.Dir, "local", "--addr", "127.0.0.1:0", "--quiet", "--boot-time", "0s")
			until(t, "the system to listen again", func() bool {
				_, err := os.Stat(filepath.Join(again.Dir, ".garo", "url"))
				return err == nil
			})
			c := exec.CommandContext(t.Context(), "garo", "list", "--json")
			c.Dir = system.Dir
			out, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			var all []apitype.Status
			if err := json.Unmarshal(out, &all); err != nil || len(all) != 12 {
				t.Errorf("after the stop there are %d requests, %v; want 12", len(all), err)
			}
		})
	}
}

// A demonstration that is interrupted leaves no directory behind.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	ctx := t.Context()
	p := &program{Cmd: exec.CommandContext(ctx, "garo", "demo")}
	p.Env = append(os.Environ(), "TMPDIR="+tmp)
	p.Stdout, p.Stderr = &p.out, &p.err
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the story to begin", func() bool { return strings.Contains(p.out.String(), "POST /start") })
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := p.status(t); got != 130 {
		t.Errorf("status = %d, want 130; stderr %q", got, &p.err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("%d files are left in the temporary directory, %v; want none", len(left), err)
	}
}

// A stall of this machine must not look like a broken promise: for two seconds at
// a time, nothing of the story moves, and then all of its clocks have.
func TestDemoHoldsOnAMachineThatStalls(t *testing.T) {
	t.Parallel()
	p := begin(t, t.TempDir(), "demo", "--dir", "records")
	stalls := make(chan int, 1)
	go func() {
		r, n := rand.New(rand.NewPCG(1, 1)), 0
		for ; n < 6; n++ {
			time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			if p.Process.Signal(syscall.SIGSTOP) != nil {
				break
			}
			time.Sleep(2 * time.Second)
			if p.Process.Signal(syscall.SIGCONT) != nil {
				break
			}
		}
		stalls <- n
	}()
	if got := p.status(t); got != 0 || !strings.Contains(p.out.String(), "\nEverything held, ") {
		t.Errorf("status = %d, want 0 and everything held", got)
	}
	if got := <-stalls; got != 6 {
		t.Errorf("the demonstration was over after %d stalls, want 6", got)
	}
}
