package simfleet

import (
	"context"
	"errors"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// maxEvents is how many events one run of the runner program has at most: one of
// each kind. So it never waits for the agent to listen.
const maxEvents = 4

// unanswered is how long a job waits to be told whether it may run, as the hook of
// package host does.
const unanswered = 15 * time.Second

// reconnect is how long the runner program waits after an outage before it asks
// GitHub again: the least that actions/runner does
// (https://github.com/actions/runner, src/Runner.Listener/MessageListener.cs).
const reconnect = 15 * time.Second

// startTime is what the runner program takes to connect. The real one takes
// seconds; what matters is that its agent does something else meanwhile.
const startTime = 20*time.Millisecond + 7

// askTime is what the hook of a job that asks takes until it has. The real one takes a
// shell's time; what matters is that the agent has seen by then that the job started, or
// both would come at once and each could be first.
const askTime = 10*time.Millisecond + 3

// program is one run of the simulated runner program.
type program struct {
	events chan agent.ProgramEvent
	exited chan struct{} // closed just before events
	code   int
	asks   bool      // its job waits to be told whether it may run
	answer chan bool // has room for the one
}

var _ agent.Program = (*program)(nil)

func newProgram(asks bool) *program {
	return &program{events: make(chan agent.ProgramEvent, maxEvents), exited: make(chan struct{}), asks: asks, answer: make(chan bool, 1)}
}

var _ agent.Admitter = (*program)(nil)

// Admit implements agent.Admitter.
func (p *program) Admit(allowed bool, _ string) error {
	select {
	case p.answer <- allowed:
		return nil
	default:
		return errors.New("the job was delivered before")
	}
}

// mayRun asks whether the job may run, if it has to.
func (p *program) mayRun(ctx context.Context, job Job) (bool, error) {
	if !p.asks {
		return true, nil
	}
	if err := sleep.For(ctx, askTime); err != nil {
		return false, err
	}
	p.events <- agent.ProgramEvent{Kind: agent.Asks, Job: job.Asks}
	t := time.NewTimer(unanswered)
	defer t.Stop()
	select {
	case allowed := <-p.answer:
		return allowed, nil
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Events implements agent.Program.
func (p *program) Events() <-chan agent.ProgramEvent { return p.events }

// ExitCode implements agent.Program.
func (p *program) ExitCode() int { return p.code }

// running reports whether there is a program that has not exited.
func (p *program) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *program) run(ctx context.Context, b Broker, config string) {
	p.code = exitCode(p.pretend(ctx, b, config))
	close(p.exited)
	close(p.events)
}

// pretend connects with a config, waits for one job, and spends its time.
func (p *program) pretend(ctx context.Context, b Broker, config string) error {
	var s Session
	err := insist(ctx, func() (err error) {
		s, err = b.Connect(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	defer s.Close()
	p.events <- agent.ProgramEvent{Kind: agent.Connected}
	var job Job
	err = insist(ctx, func() (err error) {
		job, err = s.Wait(ctx)
		return err
	})
	if err != nil {
		return err
	}
	p.events <- agent.ProgramEvent{Kind: agent.JobStarted, RunID: job.RunID}
	allowed, err := p.mayRun(ctx, job)
	if err != nil {
		return err
	}
	if job.Refused = !allowed; allowed {
		if err := work(ctx, s, job); err != nil {
			return err
		}
	}
	if err := insist(ctx, func() error { return s.Done(ctx, job) }); err != nil {
		return err
	}
	p.events <- agent.ProgramEvent{Kind: agent.JobDone}
	return nil
}

// work spends the job's time, and asks GitHub on meanwhile. A version that is refused
// then cuts the job: the program ends what it runs before it exits (actions/runner
// 2.336.0, src/Runner.Listener/Runner.cs, RunAsync, and JobDispatcher.cs, ShutdownAsync).
func work(ctx context.Context, s Session, job Job) error {
	ctx, cancel := context.WithCancel(ctx)
	refused := make(chan error, 1)
	go func() { refused <- s.Watch(ctx) }()
	t := time.NewTimer(job.Duration)
	defer t.Stop()
	var err error
	select {
	case <-t.C:
	case err = <-refused:
		refused <- err
		if !errors.Is(err, ErrTooOld) { // that the registration is gone does not end a job
			err = nil
			select {
			case <-t.C:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	cancel()
	<-refused
	return err
}

// insist repeats a call to GitHub while that is away.
func insist(ctx context.Context, call func() error) error {
	for {
		err := call()
		if err == nil || errors.Is(err, ErrDeleted) || errors.Is(err, ErrUnknownConfig) || errors.Is(err, ErrTooOld) {
			return err
		}
		if err := sleep.For(ctx, reconnect); err != nil {
			return err
		}
	}
}

// exitCode is what the runner program exits with after err.
func exitCode(err error) int {
	switch {
	case err == nil, errors.Is(err, ErrDeleted):
		return 0
	case errors.Is(err, ErrTooOld):
		return agent.ExitTooOld
	default:
		return 1 // a config that is not valid, or killed
	}
}
