//go:build linux

package runtimeapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one run of the program, with a Runtime API of its own.
type process struct {
	f      *Function
	server *httptest.Server
	began  time.Time

	initError chan error
	ended     chan struct{}    // closed when it has ended
	events    chan *invocation // what it is to be sent, while it waits

	mu      sync.Mutex
	cmd     *exec.Cmd
	init    time.Duration // until it first asked for an event; 0: it has not yet
	waiting chan struct{} // closed once it asks for the next event
	current *invocation   // sent, but not answered yet
	err     error         // how it ended
}

type invocation struct {
	id, trace string
	payload   []byte
	deadline  time.Time
	result    chan result // takes one without a reader
}

type result struct {
	answer []byte
	err    error
}

// start runs the program of f.
func start(f *Function) (*process, error) {
	p := &process{
		f:         f,
		initError: make(chan error, 1),
		ended:     make(chan struct{}),
		events:    make(chan *invocation),
		waiting:   make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", p.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", p.response)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", p.failure)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", p.initFailure)
	p.server = httptest.NewServer(mux)
	root := filepath.Dir(f.cfg.Program)
	p.cmd = exec.Command(f.cfg.Program)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = root, f.cfg.Log, f.cfg.Log
	// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
	p.cmd.Env = append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(p.server.URL, "http://"),
		"AWS_LAMBDA_FUNCTION_NAME=" + f.cfg.Name, "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_REGION=" + f.cfg.Region, "AWS_DEFAULT_REGION=" + f.cfg.Region, "AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023",
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand", "LAMBDA_TASK_ROOT=" + root, "_HANDLER=bootstrap",
		"PATH=" + os.Getenv("PATH"), "TZ=:UTC", "LANG=en_US.UTF-8",
	}, f.cfg.Env...)
	// It must not outlive these tests, however they end. The kernel watches the
	// thread that started it, so that thread waits.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.mu.Lock()
		p.began = time.Now()
		err := p.cmd.Start()
		p.mu.Unlock()
		started <- err
		if err != nil {
			return
		}
		err = p.cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.ended)
		p.server.CloseClientConnections()
		p.server.Close()
	}()
	if err := <-started; err != nil {
		p.server.Close()
		return nil, err
	}
	return p, nil
}

func (p *process) isOver() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// kill ends p, and waits until it has.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

// exitError is how p ended on its own.
func (p *process) exitError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := "exit status 0"
	if p.err != nil {
		text = p.err.Error()
	}
	return &Error{"Runtime.ExitError", "Runtime exited: " + text}
}

// asked is closed once p asks for the next event; began says whether it ever did.
func (p *process) asked() (asked <-chan struct{}, began bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting, p.init > 0
}

// send gives an event to p, which waits for one, and lets it continue.
func (p *process) send(inv *invocation) {
	p.mu.Lock()
	p.waiting = make(chan struct{})
	p.mu.Unlock()
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may have been killed
	select {
	case p.events <- inv:
	case <-p.ended:
	}
}

// next answers with an event, once there is one. Until then p is frozen, as it
// would be in Lambda: nothing that a handler left behind runs.
func (p *process) next(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	select {
	case <-p.waiting:
		p.mu.Unlock()
		http.Error(w, "it asked already", http.StatusForbidden)
		return
	default:
	}
	if p.init == 0 {
		p.init = time.Since(p.began)
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	close(p.waiting)
	p.mu.Unlock()
	var inv *invocation
	select {
	case inv = <-p.events:
	case <-p.ended:
		return
	}
	p.mu.Lock()
	p.current = inv
	p.mu.Unlock()
	h := w.Header()
	h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", p.f.ARN())
	h.Set("Lambda-Runtime-Trace-Id", inv.trace)
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(inv.payload)
}

func (p *process) response(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	if len(body) > maxAnswer {
		err = &Error{"Function.ResponseSizeTooLarge", fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", maxAnswer)}
		p.answer(w, r, result{err: err}, http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.answer(w, r, result{answer: body}, http.StatusAccepted)
}

func (p *process) failure(w http.ResponseWriter, r *http.Request) {
	p.answer(w, r, result{err: reported(r)}, http.StatusAccepted)
}

func (p *process) initFailure(w http.ResponseWriter, r *http.Request) {
	select {
	case p.initError <- reported(r):
		w.WriteHeader(http.StatusAccepted)
	default:
		http.Error(w, "a second init error", http.StatusForbidden)
	}
}

// answer ends the invocation that a request names.
func (p *process) answer(w http.ResponseWriter, r *http.Request, what result, status int) {
	p.mu.Lock()
	inv := p.current
	if inv != nil && inv.id == r.PathValue("id") {
		p.current = nil
	} else {
		inv = nil
	}
	p.mu.Unlock()
	if inv == nil {
		http.Error(w, `{"errorType":"InvalidRequestID","errorMessage":"Invalid request ID"}`, http.StatusBadRequest)
		return
	}
	w.WriteHeader(status)
	inv.result <- what
}

// reported is the error that a function posts.
func reported(r *http.Request) error {
	var e struct{ ErrorType, ErrorMessage string }
	if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(&e); err != nil {
		return &Error{"Runtime.BadError", "the function posted an error that is not JSON: " + err.Error()}
	}
	return &Error{e.ErrorType, e.ErrorMessage}
}

// stats reads what proc(5) has of p.
func (p *process) stats() (Stats, error) {
	p.mu.Lock()
	s := Stats{Init: p.init}
	p.mu.Unlock()
	dir := "/proc/" + strconv.Itoa(p.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Stats{}, fmt.Errorf("read the memory of the program: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kB, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			s.RSS = kB << 10
		case "VmHWM":
			s.Peak = kB << 10
		}
	}
	threads, err := filepath.Glob(dir + "/task/*/schedstat")
	if err != nil {
		return Stats{}, err
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return Stats{}, fmt.Errorf("read the time of a thread: %w", err)
		}
		on, _, _ := strings.Cut(string(b), " ") // nanoseconds on a processor
		ns, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			return Stats{}, fmt.Errorf("%s: %w", name, err)
		}
		s.CPU += time.Duration(ns)
	}
	if s.RSS == 0 || s.CPU == 0 {
		return Stats{}, errors.New("the program does not run")
	}
	return s, nil
}
