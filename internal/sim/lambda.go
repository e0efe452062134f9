package sim

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// workers is how many workers run at once: the maximum concurrency of the event source.
const workers = 10

// lambda runs the worker and the reaper as Lambda does.
type lambda struct {
	w *World
	// working and reaping have a token each, without which no messages are handed
	// out and no runs begin.
	working, reaping chan struct{}

	mu      sync.Mutex
	reapers []*reaping // environments that no run is in
}

func newLambda(w *World) *lambda {
	l := &lambda{w: w, working: make(chan struct{}, 1), reaping: make(chan struct{}, 1)}
	l.Resume(kernel.Worker)
	l.Resume(kernel.Reaper)
	return l
}

// Pause lets no worker at the queue, or the reaper make no further run, until
// Resume. What is under way continues.
func (l *lambda) Pause(part string) { <-l.token(part) }

// Resume ends a Pause.
func (l *lambda) Resume(part string) { l.token(part) <- struct{}{} }

func (l *lambda) token(part string) chan struct{} {
	if part == kernel.Worker {
		return l.working
	}
	return l.reaping
}

// process is a warm worker: it handles one batch after another, and what it
// learns on the way dies with it.
type process struct {
	worker   *worker.Worker
	inv      *kernel.Invocation // the current one, or the one that it died in
	deployed int                // with which deployment
}

// source hands messages to workers until the context ends, as Lambda's event
// source does: in batches, to so many processes at once, deleting what did not fail.
func (l *lambda) source(ctx context.Context) {
	free := make(chan *process, workers)
	for range workers {
		free <- l.w.process()
	}
	for {
		var p *process
		select {
		case p = <-free:
		case <-ctx.Done():
			return
		}
		batch, err := l.receive(ctx)
		if err != nil {
			return
		}
		p.inv = l.w.Invoke(kernel.Worker, "")
		l.w.Go(func() {
			if alive := l.handle(p, batch); !alive || p.deployed != l.w.deployment().n {
				p = l.w.process()
			}
			free <- p
		})
	}
}

// receive waits for messages, and for the workers to be let at them.
func (l *lambda) receive(ctx context.Context) ([]queue.Delivery, error) {
	for {
		select {
		case <-l.working:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		ds, err := l.w.Queue.Receive(ctx, setting.Batch, 20*time.Second)
		if missing := setting.Batch - len(ds); err == nil && missing > 0 && missing < setting.Batch && l.w.cfg.Window > 0 {
			time.Sleep(l.w.cfg.Window)
			var more []queue.Delivery
			more, err = l.w.Queue.Receive(ctx, missing, 0)
			ds = append(ds, more...)
		}
		if err == nil && len(ds) > 0 && l.w.cfg.Deliver != nil {
			ds = l.w.cfg.Deliver(l.w, ds)
		}
		l.working <- struct{}{}
		if err != nil || len(ds) > 0 {
			return ds, err
		}
	}
}

// handle makes one invocation of a worker, and reports whether it survived.
func (l *lambda) handle(p *process, batch []queue.Delivery) bool {
	ctx, cancel := p.inv.Context(context.Background(), worker.Timeout)
	defer cancel()
	done := make(chan []string, 1)
	l.w.Go(func() {
		failed := p.worker.Handle(ctx, batch)
		p.inv.Return()
		done <- failed
	})
	var failed []string
	select {
	case failed = <-done:
	case <-p.inv.Died():
	}
	if p.inv.Dead() {
		return false
	}
	for _, d := range batch {
		if !slices.Contains(failed, d.ID) {
			l.delete(d)
		}
	}
	return true
}

// delete ends a message that was handled.
func (l *lambda) delete(d queue.Delivery) {
	e := &kernel.Effect{Part: kernel.Source, To: kernel.ToQueue, Op: kernel.Delete, What: "message", On: d.ID}
	_, _ = kernel.Do(context.Background(), l.w.Kernel, e, func(ctx context.Context) (none, error) { // without it, it comes again
		return none{}, l.w.Queue.Delete(ctx, d)
	})
}

// rounds has the reaper make its runs until the context ends. One that takes too
// long overlaps with the next.
func (l *lambda) rounds(ctx context.Context) {
	tick := time.NewTicker(l.w.Limits.ReaperPeriod)
	defer tick.Stop()
	at := []time.Duration{0}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if l.w.cfg.Rounds != nil {
			at = l.w.cfg.Rounds(n)
		}
		select {
		case <-l.reaping:
			l.reaping <- struct{}{}
			for _, after := range at {
				for shard := range max(1, l.w.cfg.Shards) {
					l.w.Go(func() {
						time.Sleep(after + time.Duration(shard)*time.Microsecond)     // so that they begin in one order
						_, _ = l.reap(reaper.Shard{Index: shard, Of: l.w.cfg.Shards}) // what failed is in the log
					})
				}
			}
		default: // it is paused
		}
	}
}

// Reap makes a run of the whole reaper now. A run that is killed has no report.
func (l *lambda) Reap() (reaper.Report, error) { return l.reap(reaper.Shard{}) }

// reap makes a run of a shard now.
func (l *lambda) reap(shard reaper.Shard) (reaper.Report, error) {
	inv := l.w.Invoke(kernel.Reaper, "")
	p := l.environment(inv)
	ctx, cancel := inv.Context(context.Background(), setting.ReaperTime)
	defer cancel()
	ended := l.w.Reaping()
	report, err := p.reaper.RunShard(ctx, shard)
	inv.Return()
	if inv.Dead() {
		return reaper.Report{}, kernel.ErrDead
	}
	if shard.Of < 2 { // another shard does what this one leaves
		ended(report, err)
	}
	if l.w.cfg.Warm {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.reapers = append(l.reapers, p)
	}
	return report, err
}

// reaping is an environment that the reaper runs in, again and again.
type reaping struct {
	reaper *reaper.Reaper
	inv    *kernel.Invocation // the current run, or the last one
}

// environment returns one for a run: the one that was left last, if there is any.
func (l *lambda) environment(inv *kernel.Invocation) *reaping {
	l.mu.Lock()
	if n := len(l.reapers); n > 0 {
		p := l.reapers[n-1]
		l.reapers = l.reapers[:n-1]
		p.inv = inv
		l.mu.Unlock()
		return p
	}
	l.mu.Unlock()
	p := &reaping{inv: inv}
	cfg := l.w.reaper
	cfg.Random = l.w.Random(inv.Name)
	cfg.Log = l.w.log.logger(inv.Name, func() bool { return p.inv.Dead() })
	cfg.Now = l.w.Clock(kernel.Reaper)
	p.reaper = reaper.New(cfg)
	return p
}
