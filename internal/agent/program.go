package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// installed is the outcome of an Install.
type installed struct {
	did string
	err error
}

// install begins to make the machine ready for a runner program. Calls and what EC2
// announces continue meanwhile.
func (a *Agent) install(ctx context.Context) {
	done := make(chan installed, 1)
	a.installing = done
	p, o := a.s.Program, a.s.Outfit
	go func() {
		ctx, cancel := context.WithTimeout(ctx, installLimit)
		defer cancel()
		did, err := a.cfg.Install(ctx, p, o)
		done <- installed{did, err}
	}()
}

// hasInstalled takes the outcome. A machine that failed at it is of no use.
func (a *Agent) hasInstalled(out installed) {
	a.installing, a.installed = nil, out.err == nil
	if out.did != "" {
		a.say(apitype.Event{Event: store.EventNote, Detail: out.did})
	}
	if out.err == nil {
		if s := a.s.Outfit.Setup; s != nil { // it is done, and long
			a.s.Outfit.Setup = &apitype.Setup{SHA256: s.SHA256, LimitS: s.LimitS}
		}
		return
	}
	if a.s.Config == "" {
		return // it drains for another reason
	}
	a.s.Config = ""
	if errors.Is(out.err, ErrSetup) {
		a.giveUp(store.EndSetup, out.err.Error())
		return
	}
	a.giveUp(store.EndAgent, fmt.Sprintf("there is no runner program: %v", out.err))
}

// start starts the runner program with the newest config. A machine that cannot
// do that cannot do it with another config either.
func (a *Agent) start(ctx context.Context) {
	a.config = a.s.Config
	p, err := a.cfg.Machine.Start(ctx, secret.New(a.s.Config), a.s.Environment, a.s.Asks)
	if err != nil {
		a.s.Config = ""
		a.giveUp(store.EndAgent, fmt.Sprintf("the runner program did not start: %v", err))
		return
	}
	a.log.Info("runner program started", slog.Int("config", a.s.N))
	a.follow(p)
}

// follow makes p the runner program that was started with the newest config.
func (a *Agent) follow(p Program) {
	a.program, a.events = p, p.Events()
	a.s.Config, a.s.Started = "", true
}

// happened takes what the runner program did; ok is false when it has exited. An
// agent that was started again may be given the orders of its predecessor.
func (a *Agent) happened(e ProgramEvent, ok bool) {
	if !ok {
		code := a.program.ExitCode()
		if p, ok := a.program.(Printer); ok && a.s.Job == "" {
			a.output = p.Output()
		}
		a.exited(fmt.Sprintf("with exit code %d", code), code)
		return
	}
	switch e.Kind {
	case Connected:
		if !a.s.Listening && a.listenAt.IsZero() {
			a.listenAt = time.Now().Add(firstPoll)
		}
	case Asks:
		a.asks(e.Job)
	case JobStarted:
		a.jobStarted(e.RunID)
	case JobDone:
		if a.s.Job == jobOver {
			return
		}
		detail := ""
		if e.Cut {
			detail = "the runner program ended before the job's last step"
		}
		a.jobOver(detail)
		a.exitBy = time.Now().Add(exitGrace)
	}
}

// listens reports that the runner program listens for a job. The API then has
// GitHub asked whether it shows the runner online.
func (a *Agent) listens() {
	a.listenAt, a.s.Listening = time.Time{}, true
	if !a.s.Online {
		a.s.Online = true
		a.idleAt = time.Now().Add(a.idleLimit())
	}
	a.say(apitype.Event{Event: store.EventOnline})
}

// jobStarted reports that the program has a job, and once more when it knows the
// job's run.
func (a *Agent) jobStarted(runID string) {
	if !a.s.Listening {
		a.listens()
	}
	if a.s.Job == "" || a.s.Job == jobRuns && a.s.RunID == "" && runID != "" {
		a.s.Job, a.s.RunID, a.s.Jobless = jobRuns, runID, 0
		a.idleAt = time.Time{}
		a.say(apitype.Event{Event: store.EventJobStarted, RunID: runID})
	}
}

// jobOver reports that the program's job is done.
func (a *Agent) jobOver(detail string) {
	a.s.Job = jobOver
	a.idleAt = time.Now().Add(a.idleLimit())
	a.say(apitype.Event{Event: store.EventJobDone, Detail: detail})
}

// exited deals with the end of the runner program, which is the end of its config:
// an ephemeral machine is done, a shared one asks for the next config unless it
// drains. A program that GitHub refuses for its version would be refused again,
// whatever it did before.
func (a *Agent) exited(how string, code int) {
	a.program, a.events, a.exitBy, a.listenAt, a.question = nil, nil, time.Time{}, time.Time{}, nil
	detail := "the runner program ended " + how
	a.log.Info(detail, slog.Int("config", a.s.N), slog.String("job", a.s.Job))
	if a.s.Job == jobRuns {
		a.jobOver(detail)
	}
	hadJob := a.s.Job == jobOver
	output := a.output
	a.output = ""
	a.s.Started, a.s.Listening, a.s.Job, a.s.RunID = false, false, "", ""
	switch {
	case code == ExitTooOld:
		a.giveUp(store.EndTooOld, a.withOutput(detail, output))
	case hadJob && a.s.Mode == store.Ephemeral:
		a.finish("the job is done")
	case hadJob:
		a.s.Dirty = !a.s.Draining
	case a.s.Draining:
		// Its registration was deleted, which is what draining waits for.
	case a.s.Mode == store.Ephemeral:
		a.giveUp(store.EndAgent, a.withOutput(detail+", without a job", output))
	case !a.s.Online:
		// Requests wait for its first config, and a runner that was not online gets no other.
		a.giveUp(store.EndAgent, a.withOutput(detail+", before it listened", output))
	case a.s.Jobless == maxJobless:
		a.giveUp(store.EndAgent, a.withOutput(fmt.Sprintf("%s, as %d before it, without a job", detail, maxJobless), output))
	default:
		a.s.Jobless++
		a.s.Dirty = true
	}
}

// clean wipes what the last job left, and then asks for the next config. A
// machine that cannot be wiped gets no further job.
func (a *Agent) clean(context.Context) {
	a.s.Dirty = false
	if err := a.cfg.Machine.Clean(); err != nil {
		a.giveUp(store.EndAgent, fmt.Sprintf("the machine was not wiped: %v", err))
		return
	}
	a.s.Asking, a.askAt = true, time.Time{}
}

// drain sees to it that no further job begins here. A runner program that runs is
// left alone: GitHub may have handed it a job a moment ago, and it exits when its
// registration is deleted.
func (a *Agent) drain(why string) {
	if a.s.Draining {
		return
	}
	a.log.Info("draining", slog.String("reason", why))
	a.s.Draining, a.s.Asking, a.s.Dirty, a.s.Config = true, false, false, ""
}

// giveUp ends a machine that no runner program runs on.
func (a *Agent) giveUp(reason, detail string) {
	a.say(apitype.Event{Event: store.EventDraining, Reason: reason, Detail: detail})
	a.drain(reason)
	a.finish(reason)
}

// finish powers the machine off as soon as every event is answered.
func (a *Agent) finish(reason string) {
	a.s.End = reason
	a.endBy = time.Now().Add(lastWords)
}

func (a *Agent) end(context.Context) { a.powerOff(a.s.End) }

func (a *Agent) powerOff(reason string) {
	a.log.Info("powering off", slog.String("reason", reason))
	a.off = true
	a.cfg.Machine.PowerOff(reason)
}

// noticed deals with an announcement of EC2. A machine that is only likely to be
// reclaimed continues: most are not.
func (a *Agent) noticed(n Notice, ok bool) {
	if !ok {
		a.notices = nil // there is nothing more to come
		return
	}
	a.log.Info("EC2 announces", slog.String("kind", n.Kind), slog.Time("at", n.At))
	if n.Kind == NoticeRebalance && a.s.Session != "" && !a.s.Spot {
		a.say(apitype.Event{Event: store.EventNote, Detail: "EC2 is likely to reclaim the machine"})
	}
	if n.Kind != NoticeSpot || a.s.Spot {
		return
	}
	a.s.Spot = true
	a.say(apitype.Event{Event: store.EventDraining, Reason: store.EndSpot, Detail: "EC2 reclaims the machine at " + n.At.UTC().Format(time.RFC3339)})
	a.drain(store.EndSpot)
}

// sayIdle says that no job runs: before draining, to be told whether to drain;
// while draining, once, when no runner program is left that could be given one.
func (a *Agent) sayIdle(context.Context) {
	a.idleAt = time.Time{}
	a.s.SaidIdle = a.s.Draining
	a.say(apitype.Event{Event: store.EventIdle})
}

func (a *Agent) idleLimit() time.Duration {
	if d := a.s.IdleS.Duration(); d > 0 {
		return d
	}
	return store.DefaultLimits().Idle
}

// beatLater sets when the next heartbeat is due: a tenth earlier or later than
// the others', so that machines that booted together do not call together.
func (a *Agent) beatLater() {
	d := a.s.HeartbeatS.Duration()
	if d <= 0 {
		d = store.DefaultLimits().Heartbeat
	}
	a.beatAt = time.Now().Add(time.Duration(float64(d) * (0.9 + 0.2*a.fraction())))
}
