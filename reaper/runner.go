package reaper

import (
	"context"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// around is a usable runner and what its drain is decided from.
type around struct {
	runner  store.Runner
	lock    store.Lock
	pulse   store.Pulse
	request store.Request // the one that launched it
}

// runners looks at the due runners. It drains those whose time is up, reminds the
// worker of forgotten ones, and returns those that are on their way to the end,
// those with names at GitHub that nothing needs any more, and those of which GitHub
// is to be asked whether they are online.
func (r *run) runners(ctx context.Context, refs []store.Ref) (ending, naming []*store.Runner, unconfirmed []around) {
	next := func(run *store.Runner, a around) {
		if run.State.Usable() && run.Version == a.runner.Version && a.unconfirmed(r.cfg.Now(), r.cfg.Limits) {
			unconfirmed = append(unconfirmed, a)
		}
		switch {
		case run.State == store.RunnerDraining || run.State == store.RunnerEnding:
			ending = append(ending, run)
		case run.State.Final() || len(run.Unused()) > 0:
			naming = append(naming, run)
		}
	}
	var booting []*boot
	for part := range slices.Chunk(refs, batch) {
		if r.isLate(ctx) {
			break
		}
		all, ok := read[*store.Runner](ctx, r, "runner", part...)
		if !ok {
			continue
		}
		due := slices.DeleteFunc(all, func(run *store.Runner) bool { return !isDue(run.Base(), r.cfg.Now()) })
		r.report.Runners += len(due)
		surroundings := r.around(ctx, due)
		for _, run := range due {
			a, ok := surroundings[run.ID]
			if ok && boots(*run) {
				booting = append(booting, &boot{run, a})
				continue
			}
			if ok {
				r.guard("runner", run.ID, func() { *run = r.usable(ctx, a) })
			}
			next(run, a)
		}
	}
	r.boot(ctx, booting)
	for _, b := range booting {
		next(b.runner, b.around)
	}
	return ending, naming, unconfirmed
}

// around reads, in one round trip, what is around the usable ones of the runners.
// After a failure it has none of them.
func (r *run) around(ctx context.Context, runners []*store.Runner) map[string]around {
	var refs []store.Ref
	at := map[store.Ref]int{}
	add := func(ref store.Ref) {
		if _, ok := at[ref]; !ok {
			at[ref] = len(refs)
			refs = append(refs, ref)
		}
	}
	// Two runners that took turns on one lock share it, and one read may name it once.
	for _, run := range runners {
		if run.State.Usable() {
			add(store.Ref{Kind: store.KindLock, ID: run.Lock})
			add(store.Ref{Kind: store.KindPulse, ID: run.Lock})
			add(store.Ref{Kind: store.KindRequest, ID: run.Request})
		}
	}
	items, ok := read[store.Item](ctx, r, "runner", refs...)
	if !ok {
		return nil
	}
	out := map[string]around{}
	for _, run := range runners {
		if !run.State.Usable() {
			continue
		}
		out[run.ID] = around{
			runner:  *run,
			lock:    *items[at[store.Ref{Kind: store.KindLock, ID: run.Lock}]].(*store.Lock),
			pulse:   *items[at[store.Ref{Kind: store.KindPulse, ID: run.Lock}]].(*store.Pulse),
			request: *items[at[store.Ref{Kind: store.KindRequest, ID: run.Request}]].(*store.Request),
		}
	}
	return out
}

// usable drains the runner if it has to, else reminds the worker of it if that
// seems to have forgotten it. It returns the runner as it then is.
func (r *run) usable(ctx context.Context, a around) store.Runner {
	if r.isLate(ctx) {
		return a.runner
	}
	now := r.cfg.Now()
	if reason := store.DrainReason(now, r.cfg.Limits, a.runner, a.lock, a.pulse, a.request); reason != "" {
		return r.drain(ctx, now, a, reason)
	}
	if m, ok := forgotten(now, r.cfg.Limits, a.runner, a.lock); ok {
		r.note(&a.runner, Resend, "no worker goes on with it: "+string(m.Kind))
		r.send(ctx, m, 0)
	}
	return a.runner
}

// drain commits the runner and the lock that names it. The request that nobody
// wants, the limits and a lock that names another cannot be otherwise a moment
// later; a share is excluded by the lock's version, a heartbeat by the pulse's.
func (r *run) drain(ctx context.Context, now time.Time, a around, reason string) store.Runner {
	drained, lock := store.Drain(now, a.runner, a.lock, store.NewEnd(reason))
	changes := []store.Change{store.Put(&drained)}
	if lock.State != a.lock.State {
		changes = append(changes, store.Put(&lock))
	}
	if reason == store.EndLost {
		changes = append(changes, store.Check(&a.pulse))
	}
	if !r.commit(ctx, &drained, changes...) {
		return a.runner
	}
	r.note(&drained, Drain, reason)
	if reason == store.EndCompromised {
		r.alarm(store.AlarmCompromised, drained.ID, "another machine than the launched one used the boot token",
			"runner", drained.ID, "request", drained.Request, "trace", drained.Trace)
	}
	return drained
}

// forgotten returns the message that makes a worker go on with r, if a step is
// outstanding and no worker seems to be at it: the claim is free, the time to
// wait is over, and nobody wrote the runner for a while.
func forgotten(now time.Time, lim store.Limits, r store.Runner, l store.Lock) (queue.Message, bool) {
	step := store.NextStep(now, r, l) // StepConfirm is the reaper's too: the worker's message comes again by itself
	if step == store.StepNone || step == store.StepConfirm || r.Held(now, "") ||
		now.Sub(r.WaitUntil) < lim.Resend || now.Sub(r.UpdatedAt) < lim.Resend {
		return queue.Message{}, false
	}
	return goOn(r), true
}

// goOn returns the message that asks for the next step of r.
func goOn(r store.Runner) queue.Message {
	m := queue.Message{Kind: queue.Resume, ID: r.ID, Trace: r.Trace}
	if r.State == store.RunnerOnline || r.State == store.RunnerBusy {
		m.Kind, m.N = queue.Next, r.Wanted
	}
	return m
}
