package simfleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// scripted is a Broker and its Session: each call takes the next error of its
// list, and none when that is used up.
type scripted struct {
	connect, wait, done []error
	refused             time.Duration // after so long a watch ends with ErrTooOld; 0: it does not
	forgotten           bool          // a watch ends at once with ErrDeleted
	job                 Job
	started             time.Time
	calls               []string
}

func (s *scripted) call(name string, errs *[]error) error {
	s.calls = append(s.calls, fmt.Sprintf("%s@%v", name, time.Since(s.started)))
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

func (s *scripted) Connect(context.Context, string) (Session, error) {
	return s, s.call("connect", &s.connect)
}

func (s *scripted) Wait(context.Context) (Job, error) { return s.job, s.call("wait", &s.wait) }

func (s *scripted) Watch(ctx context.Context) error {
	switch {
	case s.forgotten:
		return ErrDeleted
	case s.refused > 0:
		if err := sleep.For(ctx, s.refused); err != nil {
			return err
		}
		return ErrTooOld
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *scripted) Done(_ context.Context, j Job) error {
	if j != s.job {
		return errors.New("another job")
	}
	return s.call("done", &s.done)
}

func (s *scripted) Close() { _ = s.call("close", new([]error)) }

func TestRunnerProgramExits(t *testing.T) {
	outage := errors.New("GitHub is away")
	wrapped := fmt.Errorf("connect: %w", ErrTooOld)
	for _, c := range []struct {
		name   string
		broker *scripted
		code   int
		events []agent.ProgramEventKind
		calls  []string
	}{
		{
			"after its job", &scripted{}, 0,
			[]agent.ProgramEventKind{agent.Connected, agent.JobStarted, agent.JobDone},
			[]string{"connect@0s", "wait@0s", "done@1m0s", "close@1m0s"},
		},
		{
			"registration deleted before it connects", &scripted{connect: []error{ErrDeleted}}, 0,
			nil, []string{"connect@0s"},
		},
		{
			"registration deleted while it waits", &scripted{wait: []error{ErrDeleted}}, 0,
			[]agent.ProgramEventKind{agent.Connected}, []string{"connect@0s", "wait@0s", "close@0s"},
		},
		{
			"registration deleted while it works", &scripted{done: []error{ErrDeleted}}, 0,
			[]agent.ProgramEventKind{agent.Connected, agent.JobStarted}, []string{"connect@0s", "wait@0s", "done@1m0s", "close@1m0s"},
		},
		{
			"config unknown", &scripted{connect: []error{ErrUnknownConfig}}, 1,
			nil, []string{"connect@0s"},
		},
		{
			"too old", &scripted{connect: []error{wrapped}}, agent.ExitTooOld,
			nil, []string{"connect@0s"},
		},
		{
			"too old, as it learns when it polls", &scripted{wait: []error{wrapped}}, agent.ExitTooOld,
			[]agent.ProgramEventKind{agent.Connected}, []string{"connect@0s", "wait@0s", "close@0s"},
		},
		{
			"too old, while it works", &scripted{refused: 20 * time.Second}, agent.ExitTooOld,
			[]agent.ProgramEventKind{agent.Connected, agent.JobStarted}, []string{"connect@0s", "wait@0s", "close@20s"},
		},
		{
			"after its job, though GitHub forgot it meanwhile", &scripted{forgotten: true}, 0,
			[]agent.ProgramEventKind{agent.Connected, agent.JobStarted, agent.JobDone},
			[]string{"connect@0s", "wait@0s", "done@1m0s", "close@1m0s"},
		},
		{
			"after outages", &scripted{connect: []error{outage, outage}, wait: []error{outage}, done: []error{outage}}, 0,
			[]agent.ProgramEventKind{agent.Connected, agent.JobStarted, agent.JobDone},
			[]string{"connect@0s", "connect@15s", "connect@30s", "wait@30s", "wait@45s", "done@1m45s", "done@2m0s", "close@2m0s"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.broker.started = time.Now()
				c.broker.job = Job{ID: "j1", RunID: "run-1", Duration: time.Minute}
				p := newProgram(false)
				if !p.running() {
					t.Error("running = false before it ran")
				}
				p.run(t.Context(), c.broker, "config")
				var events []agent.ProgramEventKind
				for e := range p.Events() {
					events = append(events, e.Kind)
					if want := map[bool]string{true: "run-1"}[e.Kind == agent.JobStarted]; e.RunID != want {
						t.Errorf("event %s has run id %q, want %q", e.Kind, e.RunID, want)
					}
				}
				if p.running() || p.ExitCode() != c.code {
					t.Errorf("running = %v, exit code %d; want exit with %d", p.running(), p.ExitCode(), c.code)
				}
				if !slices.Equal(events, c.events) {
					t.Errorf("events = %v, want %v", events, c.events)
				}
				if !slices.Equal(c.broker.calls, c.calls) {
					t.Errorf("calls = %v, want %v", c.broker.calls, c.calls)
				}
			})
		})
	}
}

func TestRunnerProgramEndsWithItsMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		b := &scripted{started: time.Now(), job: Job{Duration: time.Hour}}
		p := newProgram(false)
		p.run(ctx, b, "config")
		if p.ExitCode() == 0 {
			t.Error("exit code = 0, want that of a killed program")
		}
		if want := []string{"connect@0s", "wait@0s", "close@10s"}; !slices.Equal(b.calls, want) {
			t.Errorf("calls = %v, want %v", b.calls, want)
		}
	})
}

func TestMachineRunsOneProgramAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{f: &Fleet{broker: &scripted{started: time.Now(), job: Job{Duration: time.Minute}}}}
		m.on, m.off = context.WithCancel(t.Context())
		if err := m.Clean(); err != nil {
			t.Errorf("Clean before any program: %v", err)
		}
		first, err := m.Start(t.Context(), secret.New("config 1"), nil, false)
		if err != nil {
			t.Fatalf("Start: %v", err)
		}
		if _, err := m.Start(t.Context(), secret.New("config 2"), nil, false); err == nil {
			t.Error("Start while a program runs = nil, want an error")
		}
		if err := m.Clean(); err == nil {
			t.Error("Clean while a program runs = nil, want an error")
		}
		for range first.Events() { // until it exits
		}
		if err := m.Clean(); err != nil {
			t.Errorf("Clean after the program: %v", err)
		}
		if _, err := m.Start(t.Context(), secret.New("config 2"), nil, false); err != nil {
			t.Errorf("Start after the program: %v", err)
		}
		m.stop()
		if _, err := m.Start(t.Context(), secret.New("config 3"), nil, false); err == nil {
			t.Error("Start without power = nil, want an error")
		}
	})
}
