//go:build linux

package runtimeapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
)

type reply struct {
	Said, RequestID, ARN, Trace string
	Remaining                   time.Duration
	Background, PID             int
}

// program is the path of the function of testdata, built.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "garo-runtimeapi-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "bootstrap")
	code := 1
	if out, err := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", program, "./testdata/function").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the function: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// function has a minute for an invocation, and prints into the returned buffer.
func function(t *testing.T, change func(*runtimeapi.Config)) (*runtimeapi.Function, *log) {
	t.Helper()
	out := new(log)
	cfg := runtimeapi.Config{Program: program, Name: "garo-test", Timeout: time.Minute, Log: out}
	if change != nil {
		change(&cfg)
	}
	return runtimeapi.New(t, cfg), out
}

// log can be read while it is written to.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func do(t *testing.T, f *runtimeapi.Function, order string) reply {
	t.Helper()
	b, err := f.Invoke(t.Context(), []byte(`{"Do":"`+order+`"}`))
	if err != nil {
		t.Fatalf("Invoke %s: %v", order, err)
	}
	var r reply
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("Invoke %s = %s: %v", order, b, err)
	}
	return r
}

// fails checks that an invocation ends with an error of a type.
func fails(t *testing.T, f *runtimeapi.Function, order, kind, text string) {
	t.Helper()
	b, err := f.Invoke(t.Context(), []byte(`{"Do":"`+order+`"}`))
	if e, ok := errors.AsType[*runtimeapi.Error](err); !ok || e.Type != kind || !strings.Contains(e.Message, text) {
		t.Errorf("Invoke %s = %s, %v; want %s: %s", order, b, err, kind, text)
	}
}

func TestFunctionIsInvokedAsByLambda(t *testing.T) {
	f, out := function(t, nil)
	first, second := do(t, f, "echo"), do(t, f, "again")
	if first.Said != "echo" || second.Said != "again" || first.PID != second.PID {
		t.Errorf("answers = %+v and %+v, want those of one process", first, second)
	}
	if first.RequestID == second.RequestID || len(first.RequestID) != 32 {
		t.Errorf("request ids = %s and %s, want two", first.RequestID, second.RequestID)
	}
	if first.ARN != f.ARN() || f.ARN() != "arn:aws:lambda:eu-west-2:123456789012:function:garo-test" {
		t.Errorf("ARN = %s, want %s", first.ARN, f.ARN())
	}
	if !regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0;Lineage=[0-9a-f]{8}:1$`).MatchString(first.Trace) || first.Trace == second.Trace {
		t.Errorf("traces = %s and %s, want two of X-Ray's form", first.Trace, second.Trace)
	}
	if first.Remaining <= 0 || first.Remaining > time.Minute {
		t.Errorf("time that remained = %v, want some of a minute", first.Remaining)
	}
	f.Kill() // and all it printed is there
	if !strings.Contains(out.String(), "order: again") {
		t.Errorf("log = %q, want what the program printed", out)
	}
}

func TestFunctionFailsAsInLambda(t *testing.T) {
	f, _ := function(t, nil)
	fails(t, f, "fail", "errorString", "no such order")
	before := do(t, f, "echo").PID
	fails(t, f, "large", "Function.ResponseSizeTooLarge", "6291456")
	for _, order := range []string{"exit", "panic"} {
		kind, text := "Runtime.ExitError", "exit status 4"
		if order == "panic" { // which aws-lambda-go reports before it ends
			kind, text = "string", "told to"
		}
		fails(t, f, order, kind, text)
		after := do(t, f, "echo").PID
		if after == before {
			t.Errorf("process after %s = the same, want a fresh one", order)
		}
		before = after
	}
	if _, err := f.Invoke(t.Context(), make([]byte, 6<<20+1)); err == nil {
		t.Error("Invoke with more than 6 MB = nil, want an error")
	}
}

func TestFunctionIsKilledAtItsDeadline(t *testing.T) {
	f, _ := function(t, func(c *runtimeapi.Config) { c.Timeout = 2 * time.Second })
	before := do(t, f, "echo").PID
	fails(t, f, "sleep", "Sandbox.Timedout", "timed out after 2s")
	if after := do(t, f, "echo").PID; after == before {
		t.Error("process after the deadline = the same, want a fresh one")
	}
}

func TestKillEndsAnInvocation(t *testing.T) {
	f, out := function(t, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := f.Invoke(context.Background(), []byte(`{"Do":"sleep"}`))
		ended <- err
	}()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), "order: sleep"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the invocation did not begin within a minute")
		}
	}
	f.Kill()
	if e, ok := errors.AsType[*runtimeapi.Error](<-ended); !ok || e.Type != "Runtime.ExitError" || !strings.Contains(e.Message, "killed") {
		t.Errorf("killed invocation = %v, want Runtime.ExitError", e)
	}
	do(t, f, "echo")

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := f.Invoke(ctx, []byte(`{"Do":"sleep"}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Invoke whose caller gives up = %v, want its deadline", err)
	}
	do(t, f, "echo")
}

func TestInitErrorsAreReported(t *testing.T) {
	for init, want := range map[string]runtimeapi.Error{
		"exit":   {Type: "Runtime.ExitError", Message: "exit status 3"},
		"report": {Type: "Function.NoTable", Message: "GARO_TABLE is not set"},
		"hang":   {Type: "Sandbox.Timedout", Message: "did not ask for an event"},
	} {
		t.Run(init, func(t *testing.T) {
			t.Parallel()
			f, _ := function(t, func(c *runtimeapi.Config) { c.Env = []string{"FUNCTION_INIT=" + init} })
			if init != "hang" { // which takes ten seconds
				fails(t, f, "echo", want.Type, want.Message)
			}
			err := f.Init(t.Context())
			if e, ok := errors.AsType[*runtimeapi.Error](err); !ok || e.Type != want.Type || !strings.Contains(e.Message, want.Message) {
				t.Errorf("Init = %v, want %v", err, &want)
			}
			if s, err := f.Stats(); err == nil {
				t.Errorf("Stats of no process = %+v, want an error", s)
			}
		})
	}
	f, _ := function(t, func(c *runtimeapi.Config) { c.Program += ".missing" })
	if err := f.Init(t.Context()); err == nil {
		t.Error("Init of a program that is not there = nil, want an error")
	}
}

// What a goroutine that was left behind does between two invocations depends on how
// busy this machine is; that its process is stopped does not.
func TestWaitingFunctionIsFrozen(t *testing.T) {
	f, _ := function(t, nil)
	first := do(t, f, "background")
	stopped(t, first.PID)
	second := do(t, f, "echo")
	if second.PID != first.PID {
		t.Errorf("processes %d and %d, want one that keeps running", first.PID, second.PID)
	}
	stopped(t, second.PID)
}

// stopped waits until a process is stopped, which is a moment after it has answered.
func stopped(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		// The state follows the name, which is in brackets and may hold anything.
		if state := string(b[strings.LastIndexByte(string(b), ')')+1:]); strings.HasPrefix(state, " T ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is not stopped a minute after its answer: %s", pid, b)
		}
	}
}

func TestInvocationsTakeTurns(t *testing.T) {
	f, _ := function(t, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if r := do(t, f, "echo"); r.Said != "echo" {
				t.Errorf("answer = %+v, want echo", r)
			}
		})
	}
	wg.Wait()
}

func TestStatsMeasureTheProgram(t *testing.T) {
	f, _ := function(t, nil)
	if err := f.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	idle, err := f.Stats()
	if err != nil {
		t.Fatal(err)
	}
	do(t, f, "burn")
	busy, err := f.Stats()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("asked for an event after %v, with %d kB (most: %d) and %v of a processor; burning took %v and %v",
		idle.Init, idle.RSS>>10, idle.Peak>>10, idle.CPU, busy.Invocation, busy.CPU-idle.CPU)
	if idle.Init <= 0 || idle.RSS < 1<<20 || idle.Peak < idle.RSS || idle.Invocation != 0 {
		t.Errorf("after the start = %+v, want time and memory", idle)
	}
	if busy.Invocation < 300*time.Millisecond || busy.CPU <= idle.CPU || busy.Init != idle.Init {
		t.Errorf("after 300 ms of work = %+v, want its time", busy)
	}
	f.Kill()
	if s, err := f.Stats(); err == nil {
		t.Errorf("Stats after Kill = %+v, want an error", s)
	}
}

// chain invokes f so many times, each by the trace of the one before.
func chain(t *testing.T, f *runtimeapi.Function, times int) (trace string, err error) {
	t.Helper()
	for range times {
		b, err := f.InvokeAfter(t.Context(), []byte(`{"Do":"echo"}`), trace)
		if err != nil {
			return trace, err
		}
		var r reply
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatalf("Invoke = %s: %v", b, err)
		}
		trace = r.Trace
	}
	return trace, nil
}

func TestSeventeenthInvocationOfAChainIsRefused(t *testing.T) {
	f, _ := function(t, nil)
	trace, err := chain(t, f, 16)
	if err != nil || f.Hops(trace) != 16 {
		t.Fatalf("16 invocations of one chain = %d hops, %v; want 16", f.Hops(trace), err)
	}
	root, _, _ := strings.Cut(trace, ";")
	_, err = f.InvokeAfter(t.Context(), []byte(`{"Do":"echo"}`), trace)
	if e, ok := errors.AsType[*runtimeapi.Error](err); !ok || e.Type != "RecursiveInvocationException" {
		t.Errorf("17th invocation = %v, want RecursiveInvocationException", err)
	}
	other, _ := function(t, func(c *runtimeapi.Config) { c.Name = "garo-other" })
	b, err := other.InvokeAfter(t.Context(), []byte(`{"Do":"echo"}`), trace)
	var r reply
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || !strings.HasPrefix(r.Trace, root) || other.Hops(r.Trace) != 1 || f.Hops(r.Trace) != 16 {
		t.Errorf("another function in that chain = %s, %v; want its first invocation, of %s", b, err, root)
	}
	do(t, f, "echo") // a chain of its own

	allowed, _ := function(t, func(c *runtimeapi.Config) { c.Recursion = true })
	if trace, err := chain(t, allowed, 20); err != nil || allowed.Hops(trace) != 20 {
		t.Errorf("20 invocations where recursion is allowed = %d hops, %v; want 20", allowed.Hops(trace), err)
	}
}
