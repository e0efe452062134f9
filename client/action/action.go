// Package action is the GitHub Action: what its Node.js shell has done by the
// program garo. It asks for runners, waits for them with a line for each change,
// and leaves outputs, a summary and, should it fail, what to do.
//
// It promises that a cancelled job leaves no request behind: before it asks for
// anything it saves what it will ask for, an interruption cancels that, and where
// that comes too late, the step that GitHub runs at the end of the job does. What
// is shown never has a secret, and what others wrote is never taken for a command
// of the log or for markup of the summary.
package action

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/alphagov/github-actions-runner-orchestration/client"
)

// Env is what surrounds a step. All of it is needed.
type Env struct {
	Getenv func(name string) string // the step's variables, as GitHub documents them
	Stdout io.Writer                // the step's log
	// Connect returns a client of the API at url that calls as this job. mask is to
	// be told of each token before it is used.
	Connect func(url string, mask func(client.Token)) *client.Client
}

// ErrTold ends a step that failed: its log says why.
var ErrTold = errors.New("the step's log says why")

// ErrCancelled ends a step whose job was cancelled.
var ErrCancelled = errors.New("cancelled")

// step is one run of the action.
type step struct {
	env Env
	in  inputs

	mu sync.Mutex // guards the log
}

// Main carries out what the inputs ask for. When ctx ends, it cancels what is not
// ready yet, and returns within lastCall.
func Main(ctx context.Context, env Env) error {
	s := &step{env: env}
	var err error
	if s.in, err = readInputs(env.Getenv); err != nil {
		return s.fail(problem{"bad_input", err.Error()})
	}
	switch s.in.command {
	case stop:
		return s.stop(ctx)
	case status:
		return s.status(ctx)
	}
	return s.start(ctx)
}

func (s *step) connect(url string) *client.Client { return s.env.Connect(url, s.mask) }
