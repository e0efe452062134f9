package agent

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

const (
	// lastWords is how long a machine that has nothing left to do tries to say so:
	// as long as an idle one may live.
	lastWords = 10 * time.Minute
	// firstPoll is how long a runner program must listen before that is reported. It
	// prints "Listening for Jobs" before it first asks GitHub for one, and a refusal,
	// which ends it, is the answer to that: one round trip, in which no job comes
	// (https://github.com/actions/runner, 2.336.0, src/Runner.Listener/Runner.cs).
	firstPoll = time.Second
	// exitGrace is how long a runner program may take to exit after its job: it
	// uploads what is left of the log.
	exitGrace = time.Minute
	// identityTries is how often in a row the metadata service is asked before a boot call
	// is made without AWS's word: the pauses between make a quarter of a minute. A machine
	// that was bound before gets its answer without; any other is refused, which the
	// operator sees.
	identityTries = 5
	// maxJobless is how many configs in a row may come to nothing: more is rather
	// a fault of the machine than bad luck.
	maxJobless = 3
	// installLimit is how long the machine may take to be ready for its runner program,
	// with what its account wants of it. A machine that is not online two minutes after
	// its boot limit is given up; this leaves it time to say why.
	installLimit = 5 * time.Minute
)

// Agent is the agent of one machine.
type Agent struct {
	*memory
	caller

	program Program             // the one that runs, or ran and is not dealt with; nil: none
	events  <-chan ProgramEvent // of program
	output  string              // of a program that exited without a job
	notices <-chan Notice

	question *apitype.Admission // what the job of program waits to be told; nil: nothing
	answerBy time.Time          // when it is refused
	off      bool               // the machine is powered off

	blind int  // how often in a row the metadata service did not answer
	plain bool // the API takes no word of AWS: it is of a version before

	installed  bool             // the machine is ready for a runner program
	installing <-chan installed // yields one outcome; nil: nothing is under way

	// When to do the next thing, by the clock of this process. Zero: never
	// for idleAt, exitBy and listenAt, at once for the others.
	beatAt   time.Time
	askAt    time.Time
	listenAt time.Time
	idleAt   time.Time
	exitBy   time.Time
	endBy    time.Time
}

// New returns the agent of a machine. Nothing happens before Run.
func New(c Config) *Agent {
	c.defaults()
	m := &memory{cfg: c, log: c.Log}
	return &Agent{memory: m, caller: newCaller(m), installed: c.Install == nil}
}

// Run takes the machine from its boot to its end, or from wherever an earlier
// process of the agent left it. It returns nil once the machine is powered off,
// and the context's error when the process is to end and the machine is not; the
// runner program is left alone then. It is to be called once.
//
// Run is one loop on the caller's goroutine. It makes one call at a time, and
// between calls it takes in what the machine and the runner program do.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.load(); err != nil {
		a.powerOff(err.Error())
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		if a.installing != nil {
			<-a.installing
		}
	}()
	a.notices = a.cfg.Machine.Notices()
	a.arm()
	a.resume()
	for !a.off {
		a.save()
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.heard() {
			continue
		}
		if do, at := a.next(time.Now()); do != nil {
			do(ctx)
		} else {
			a.wait(ctx, at)
		}
	}
	return nil
}

// resume takes up the runner program that an earlier process started.
func (a *Agent) resume() {
	if a.s.Session == "" {
		return
	}
	a.log.Info("agent started again", slog.Int("config", a.s.N), slog.String("job", a.s.Job), slog.Bool("draining", a.s.Draining))
	a.beatLater()
	a.endBy = time.Now().Add(lastWords)
	if a.s.Started || a.s.Config != "" {
		if p := a.cfg.Machine.Running(); p != nil {
			a.follow(p)
			if a.s.Job == jobOver {
				a.exitBy = time.Now().Add(exitGrace)
			}
		} else if a.s.Started {
			a.exited("while the agent was away", -1)
		}
	}
	if a.s.Online && a.s.Job != jobRuns {
		a.idleAt = time.Now().Add(a.idleLimit())
	}
}

// heard takes one thing that has happened, if any has: first what EC2 announces,
// then what the runner program does. Calls come after both.
func (a *Agent) heard() bool {
	select {
	case n, ok := <-a.notices:
		a.noticed(n, ok)
		return true
	default:
	}
	select {
	case e, ok := <-a.events:
		a.happened(e, ok)
		return true
	case out := <-a.installing:
		a.hasInstalled(out)
		return true
	default:
		return false
	}
}

// wait returns when something happens, or at a time; never, if that is zero.
func (a *Agent) wait(ctx context.Context, at time.Time) {
	var due <-chan time.Time
	if !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case n, ok := <-a.notices:
		a.noticed(n, ok)
	case e, ok := <-a.events:
		a.happened(e, ok)
	case out := <-a.installing:
		a.hasInstalled(out)
	}
}

// task is something that may be to be done.
type task struct {
	wanted bool
	at     time.Time // zero: at once
	do     func(context.Context)
}

// next returns the first thing to do now, or else when to look again.
func (a *Agent) next(now time.Time) (do func(context.Context), at time.Time) {
	for _, task := range slices.Concat(a.local(), a.remote()) {
		switch {
		case !task.wanted:
		case !task.at.After(now):
			return task.do, time.Time{}
		case at.IsZero() || task.at.Before(at):
			at = task.at
		}
	}
	return nil, at
}

// local are the tasks that need no answer of the API, the most urgent first.
func (a *Agent) local() []task {
	s := &a.s
	hasConfig, drained := s.Config != "", s.Draining && !s.SaidIdle && a.program == nil
	return []task{
		{s.End != "" && len(s.Outbox) == 0, time.Time{}, a.end},
		{s.End != "", a.endBy, a.end},
		{hasConfig && !a.installed && a.installing == nil, time.Time{}, a.install},
		{hasConfig && a.installed && a.program == nil, time.Time{}, a.start},
		{a.question != nil, a.answerBy, a.unanswered},
		{!a.exitBy.IsZero(), a.exitBy, func(context.Context) { a.exited("its job, but did not exit", -1) }},
		{!a.listenAt.IsZero(), a.listenAt, func(context.Context) { a.listens() }},
		{!a.idleAt.IsZero() && !s.Draining, a.idleAt, a.sayIdle},
		{s.Session != "" && drained && s.End == "", time.Time{}, a.sayIdle},
	}
}

// remote are the calls to the API, and cleaning, which waits for reports. They come
// after all that is local.
func (a *Agent) remote() []task {
	s := &a.s
	later := func(x, y time.Time) time.Time {
		if x.After(y) {
			return x
		}
		return y
	}
	return []task{
		{s.Session == "", a.notBefore, a.boot},
		{a.question != nil, later(a.notBefore, a.askAt), a.admission}, // a job waits for it
		{s.Session != "" && len(s.Outbox) > 0, a.notBefore, a.report},
		{s.Dirty && len(s.Outbox) == 0, time.Time{}, a.clean},
		{s.Session != "", later(a.notBefore, a.beatAt), a.heartbeat},
		{s.Asking, later(a.notBefore, a.askAt), a.ask},
	}
}
