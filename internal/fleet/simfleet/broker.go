package simfleet

import (
	"context"
	"errors"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// Broker is the side of GitHub that runner programs talk to. It is safe for
// concurrent use.
type Broker interface {
	// Connect opens the session of the registration that is in a just-in-time
	// config. It fails with ErrDeleted, ErrUnknownConfig or ErrTooOld; any other
	// error is an outage, after which the runner program tries again.
	Connect(ctx context.Context, config string) (Session, error)
}

// Session is one connected runner program, online from Connect to Close.
type Session interface {
	// Wait returns the job that GitHub gives this runner, once there is one. It
	// fails with ErrDeleted or ErrTooOld; any other error is an outage.
	Wait(ctx context.Context) (Job, error)
	// Watch asks GitHub on while a job runs. It returns when GitHub refuses to be
	// asked, with an error as Wait's, or when ctx ends, with an error of that.
	Watch(ctx context.Context) error
	// Done says that the job is completed. Errors are as with Wait.
	Done(ctx context.Context, j Job) error
	// Close cuts the connection: GitHub sees the runner offline.
	Close()
}

// Job is what GitHub gives a runner to run.
type Job struct {
	ID       string
	RunID    string        // of the workflow run
	Duration time.Duration // how long it takes
	// Asks is what its machine asks by before the first step, if it has to.
	Asks apitype.Admission
	// Refused: its machine was not let run it, so that it failed before its first step.
	Refused bool
}

// The answers of a Broker that end a runner program.
var (
	// ErrDeleted: the registration was deleted; the runner program exits with 0.
	ErrDeleted = errors.New("runner registration was deleted")
	// ErrUnknownConfig: GitHub never made this config, or it was used before; the
	// runner program exits with 1.
	ErrUnknownConfig = errors.New("runner config is not valid")
	// ErrTooOld: GitHub takes this version no more; exit code agent.ExitTooOld.
	ErrTooOld = errors.New("runner version is too old")
)
