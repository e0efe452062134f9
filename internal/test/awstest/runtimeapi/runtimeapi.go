//go:build linux

// Package runtimeapi runs the program of a Lambda function as Lambda does, on this
// machine: it serves the Runtime API, sends one event after another, kills the
// program at the deadline of an invocation and starts it afresh for the next, and
// freezes it whenever it waits for an event. It counts the invocations of a chain,
// through SQS too, and refuses a loop. It measures what it runs.
//
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
package runtimeapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	// initLimit is how long Lambda gives a program until its first GET of next.
	// https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
	initLimit = 10 * time.Second
	// maxAnswer is the most bytes of an answer, and of an event.
	// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
	maxAnswer = 6 << 20
)

// Config says what to run.
type Config struct {
	Program string        // path of the bootstrap; the folder it is in is the function's
	Name    string        // of the function
	Region  string        // empty: eu-west-2
	Account string        // empty: 123456789012
	Timeout time.Duration // of one invocation
	// Recursion says that the function may be invoked in a loop, as its recursion
	// configuration can: else the 17th invocation of one chain is refused.
	Recursion bool
	Env       []string  // NAME=value, beside those that Lambda sets
	Log       io.Writer // what the program prints; nil: the log of the test
}

// Function is one execution environment of a function: it has one invocation at a
// time. It is safe for concurrent use.
type Function struct {
	cfg  Config
	turn chan struct{} // holds one value while nobody has the function

	mu   sync.Mutex
	proc *process // nil: none was started yet
	last time.Duration
}

// Error is how an invocation failed, in Lambda's words.
type Error struct {
	Type    string // such as Runtime.ExitError, Sandbox.Timedout or what the function says
	Message string
}

func (e *Error) Error() string { return e.Type + ": " + e.Message }

// New returns a function that is not started yet. It ends with the test.
func New(t testing.TB, cfg Config) *Function {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = t.Output()
	}
	if cfg.Region == "" {
		cfg.Region = "eu-west-2"
	}
	if cfg.Account == "" {
		cfg.Account = "123456789012"
	}
	if cfg.Timeout <= 0 {
		t.Fatalf("function %s: want the timeout of an invocation", cfg.Name)
	}
	program, err := filepath.Abs(cfg.Program)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Program = program
	f := &Function{cfg: cfg, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	t.Cleanup(f.Kill)
	return f
}

// ARN is the function's.
func (f *Function) ARN() string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", f.cfg.Region, f.cfg.Account, f.cfg.Name)
}

// Init starts the program, unless it runs, and waits until it asks for an event.
// It fails with an *Error.
func (f *Function) Init(ctx context.Context) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	_, err := f.ready(ctx)
	return err
}

// Invoke sends an event, once it is the function's turn, and returns the answer.
// It starts the program if it does not run. It fails with an *Error; if ctx ends
// first, the program is killed.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	return f.InvokeAfter(ctx, payload, "")
}

// InvokeAfter is Invoke for an event that came with the trace of an earlier
// invocation: it continues that chain. Where Lambda would see a loop, it fails
// with RecursiveInvocationException, and the program does not see the event.
func (f *Function) InvokeAfter(ctx context.Context, payload []byte, trace string) ([]byte, error) {
	if len(payload) > maxAnswer {
		return nil, fmt.Errorf("invoke %s: an event of %d bytes, at most %d", f.cfg.Name, len(payload), maxAnswer)
	}
	if err := f.take(ctx); err != nil {
		return nil, err
	}
	defer f.give()
	began := time.Now()
	trace, err := f.follow(began, trace)
	if err != nil {
		return nil, err
	}
	p, err := f.ready(ctx)
	if err != nil {
		return nil, err
	}
	began = time.Now()
	inv := &invocation{
		id:       token(16),
		trace:    trace,
		payload:  payload,
		deadline: began.Add(f.cfg.Timeout),
		result:   make(chan result, 1),
	}
	p.send(inv)
	timeout := time.NewTimer(f.cfg.Timeout)
	defer timeout.Stop()
	select {
	case r := <-inv.result:
		f.mu.Lock()
		f.last = time.Since(began)
		f.mu.Unlock()
		return r.answer, r.err
	case <-p.ended:
		return nil, p.exitError()
	case <-timeout.C:
		p.kill()
		return nil, &Error{"Sandbox.Timedout", fmt.Sprintf("RequestId: %s Error: Task timed out after %v", inv.id, f.cfg.Timeout)}
	case <-ctx.Done():
		p.kill()
		return nil, ctx.Err()
	}
}

// Kill ends the program at once, as when Lambda takes an environment away; an
// invocation fails with Runtime.ExitError. The next one starts the program afresh.
func (f *Function) Kill() {
	f.mu.Lock()
	p := f.proc
	f.mu.Unlock()
	if p != nil {
		p.kill()
	}
}

// take waits until nobody else has the function.
func (f *Function) take(ctx context.Context) error {
	select {
	case <-f.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Function) give() { f.turn <- struct{}{} }

// ready returns a process that waits for an event.
func (f *Function) ready(ctx context.Context) (*process, error) {
	f.mu.Lock()
	p := f.proc
	f.mu.Unlock()
	if p == nil || p.isOver() {
		var err error
		if p, err = start(f); err != nil {
			return nil, fmt.Errorf("start %s: %w", f.cfg.Name, err)
		}
		f.mu.Lock()
		f.proc = p
		f.mu.Unlock()
	}
	asked, began := p.asked()
	limit := time.NewTimer(initLimit)
	defer limit.Stop()
	select {
	case <-asked:
		return p, nil
	case err := <-p.initError:
		p.kill()
		return nil, err
	case <-p.ended:
		if began { // and ended after its last answer: Lambda starts another
			return f.ready(ctx)
		}
		select {
		case err := <-p.initError: // reported before it ended
			return nil, err
		default:
			return nil, p.exitError()
		}
	case <-limit.C:
		p.kill()
		return nil, &Error{"Sandbox.Timedout", fmt.Sprintf("%s did not ask for an event within %v", f.cfg.Name, initLimit)}
	case <-ctx.Done():
		p.kill()
		return nil, ctx.Err()
	}
}

// Stats are what a running program has cost so far.
type Stats struct {
	Init       time.Duration // from its start until it first asked for an event
	Invocation time.Duration // of the last one that was answered
	CPU        time.Duration // of all its threads that live
	RSS, Peak  int64         // bytes
}

// Stats measures the program, which must run.
func (f *Function) Stats() (Stats, error) {
	f.mu.Lock()
	p, last := f.proc, f.last
	f.mu.Unlock()
	if p == nil {
		return Stats{}, errors.New("the program was not started yet")
	}
	s, err := p.stats()
	s.Invocation = last
	return s, err
}

// token returns so many random bytes in hexadecimal.
func token(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
