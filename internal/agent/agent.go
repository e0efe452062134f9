// Package agent is what runs on a machine: it boots with the machine's token,
// starts the runner program with the config that it is given, reports what
// happens, obeys, and always ends the machine.
//
// It decides on its own only what shortens the machine's life. The machine and
// the runner program are behind two small interfaces, so that the same code runs
// on EC2 and on simulated machines.
package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// Machine is what the agent needs of the machine that it runs on. All of it is
// called on the goroutine of Run, one call after another.
type Machine interface {
	// Load returns what Save kept last; nil when nothing was. It is readable by
	// root alone and outlives the agent's process.
	Load() ([]byte, error)
	Save([]byte) error
	// SetTimer arms the timer that powers the machine off whatever becomes of
	// the agent. It can be set again, to an earlier time only.
	SetTimer(at time.Time) error
	// PowerOff ends the machine. It returns once that is under way.
	PowerOff(reason string)
	// Notices delivers what EC2 announces: that it will reclaim the machine.
	Notices() <-chan Notice
	// Start starts the runner program for one job, as an unprivileged user, with
	// the config in its environment alone, and with these variables beside those
	// that the machine has for it. If asks is set, its job waits for Admit before its
	// first step, and the program is an Admitter. The program outlives ctx, and the
	// agent's process too.
	Start(ctx context.Context, config secret.Text, environment map[string]string, asks bool) (Program, error)
	// Running returns the runner program that an earlier process of the agent
	// started, or nil. It may tell again what it told that process, and may have
	// exited meanwhile.
	Running() Program
	// Clean wipes the work directory and ends every process that a job left.
	Clean() error
}

// Notice is an announcement of EC2.
type Notice struct {
	Kind string    // NoticeSpot or NoticeRebalance
	At   time.Time // when
}

// What EC2 announces.
const (
	NoticeSpot      = "spot"      // the machine will be reclaimed
	NoticeRebalance = "rebalance" // it is likely to be
)

// Program is one run of the runner program: one registration, at most one job.
type Program interface {
	// Events delivers what the program does, and is closed when it has exited.
	Events() <-chan ProgramEvent
	// ExitCode is valid once Events is closed.
	ExitCode() int
}

// Printer is a Program that can tell what it printed.
type Printer interface {
	// Output returns the last lines, once Events is closed. They may have secrets
	// in them.
	Output() string
}

// ProgramEvent is something that the runner program does.
type ProgramEvent struct {
	Kind  ProgramEventKind
	RunID string // of JobStarted; empty: not known yet, and a second one may tell
	Cut   bool   // of JobDone: the program ended before the job's last step
	// Job is what Asks asks about. Zero, in part or whole: the program does not tell.
	Job apitype.Admission
}

// ProgramEventKind says what the runner program did.
type ProgramEventKind string

// What the runner program does.
const (
	Connected  ProgramEventKind = "connected" // it says that it listens for a job
	JobStarted ProgramEventKind = "job_started"
	JobDone    ProgramEventKind = "job_done"
	Asks       ProgramEventKind = "asks" // its job waits to be told whether it may run
)

// ExitTooOld is the exit code of a runner program that GitHub refuses for its
// age, when ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1 is set
// (https://github.com/actions/runner, src/Runner.Common/Constants.cs).
const ExitTooOld = 7

// ErrSetup is wrapped by the error of an Install that could not do what the outfit wants.
var ErrSetup = errors.New("set-up")

// Config is what an agent is made of. Only the first four fields are needed. Of
// HTTP the transport counts: no redirect is followed, and each call has its limit.
type Config struct {
	Document   bootstrap.Document
	InstanceID string
	Machine    Machine
	HTTP       *http.Client

	// Identity returns AWS's word for the instance, as apitype.Boot has it. It is asked
	// before each boot call, and gives up within seconds. nil: there is none.
	Identity func(ctx context.Context) (string, error)

	// Install makes the machine ready for a runner program, before one is started. It sees
	// to it that there is one, the image's, or else p, which is zero when the API names
	// none; and to all that o wants. It returns what it did of o, for people, and an error
	// that wraps ErrSetup if that failed. It runs beside Run, which waits for it. After a
	// restart of the agent it is called again, and does nothing twice. nil: nothing is
	// needed, and nothing is done of o.
	Install func(ctx context.Context, p apitype.RunnerProgram, o apitype.Outfit) (did string, err error)

	Random io.Reader        // nil: crypto/rand.Reader
	Now    func() time.Time // nil: time.Now; for timestamps, not for waiting
	Log    *slog.Logger     // nil: none
}
