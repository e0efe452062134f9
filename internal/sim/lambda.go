package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

const (
	// apiTime and reaperTime are what a call of the API and a run of the reaper
	// may take.
	apiTime    = 10 * time.Second
	reaperTime = 50 * time.Second
	// visibility hides a message for longer than a worker may take.
	visibility = worker.Timeout + 15*time.Second
	// batch is how many messages a worker is given at once.
	batch = 10
	// workers is how many workers run at once: the cap of the event source.
	workers = 5
	// killLate is how long after its deadline Lambda kills an invocation, as
	// others measured it.
	killLate = 700 * time.Millisecond
)

// invocation is one run of the worker or the reaper, or one call of the API.
type invocation struct {
	part, name string
	call       string        // of the API: what is called
	dead       chan struct{} // closed when it is
	returned   atomic.Bool   // it has answered: whatever it calls now, no goroutine of it may
	world      *World
	began      time.Time
}

type invocationKey struct{}

// invocationOf returns who makes a call; nil: no invocation does.
func invocationOf(ctx context.Context) *invocation {
	inv, _ := ctx.Value(invocationKey{}).(*invocation)
	return inv
}

// invoke begins an invocation.
func (w *World) invoke(part, call string) *invocation {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.invoked[part]++
	return &invocation{part: part, name: fmt.Sprintf("%s-%d", part, w.invoked[part]), call: call, dead: make(chan struct{}), world: w, began: time.Now()}
}

// context returns what the invocation runs in: it ends at the deadline, and the
// invocation with it, a little late.
func (inv *invocation) context(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, invocationKey{}, inv), limit)
	end := time.AfterFunc(limit+inv.world.cfg.KillLate, inv.kill)
	return ctx, func() {
		end.Stop()
		cancel()
	}
}

// kill ends the invocation where it is.
func (inv *invocation) kill() {
	inv.world.mu.Lock()
	defer inv.world.mu.Unlock()
	if !inv.isDead() {
		close(inv.dead)
	}
}

// killed ends an invocation by a fate.
func (w *World) killed(inv *invocation, e *Effect) {
	inv.kill()
	w.crashed(e)
}

func (inv *invocation) isDead() bool {
	if inv == nil {
		return false
	}
	select {
	case <-inv.dead:
		return true
	default:
		return false
	}
}

// stand waits as a process does that gets no time to run: only its death ends it.
func (inv *invocation) stand(d time.Duration) {
	if inv == nil {
		time.Sleep(d)
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-inv.dead:
	}
}

// travel waits while a call is on its way, unless the caller stops waiting. One
// that is dead is told at once, so that it can be forgotten.
func (inv *invocation) travel(ctx context.Context, d time.Duration) error {
	var dead chan struct{}
	if inv != nil {
		dead = inv.dead
	}
	if inv.isDead() {
		return errDead
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-dead:
		return errDead
	}
}

// process is a warm worker: it handles one batch after another, and what it
// learns on the way dies with it.
type process struct {
	worker   *worker.Worker
	inv      *invocation // the current one, or the one that it died in
	deployed int         // with which deployment
}

// source hands messages to workers until the context ends, as Lambda's event
// source does: in batches, to so many processes at once, deleting what did not fail.
func (w *World) source(ctx context.Context) {
	free := make(chan *process, workers)
	for range workers {
		free <- w.process()
	}
	for {
		var p *process
		select {
		case p = <-free:
		case <-ctx.Done():
			return
		}
		batch, err := w.receive(ctx)
		if err != nil {
			return
		}
		p.inv = w.invoke(Worker, "")
		w.wg.Go(func() {
			if alive := w.handle(p, batch); !alive || p.deployed != w.deployment().n {
				p = w.process()
			}
			free <- p
		})
	}
}

// receive waits for messages, and for the workers to be let at them.
func (w *World) receive(ctx context.Context) ([]queue.Delivery, error) {
	for {
		select {
		case <-w.working:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		ds, err := w.Queue.Receive(ctx, batch, 20*time.Second)
		if err == nil && len(ds) > 0 && w.cfg.Deliver != nil {
			ds = w.cfg.Deliver(w, ds)
		}
		w.working <- struct{}{}
		if err != nil || len(ds) > 0 {
			return ds, err
		}
	}
}

// handle makes one invocation of a worker, and reports whether it survived.
func (w *World) handle(p *process, batch []queue.Delivery) bool {
	ctx, cancel := p.inv.context(context.Background(), worker.Timeout)
	defer cancel()
	done := make(chan []string, 1)
	w.wg.Go(func() {
		failed := p.worker.Handle(ctx, batch)
		p.inv.returned.Store(true)
		done <- failed
	})
	var failed []string
	select {
	case failed = <-done:
	case <-p.inv.dead:
	}
	if p.inv.isDead() {
		return false
	}
	for _, d := range batch {
		if !slices.Contains(failed, d.ID) {
			w.delete(d)
		}
	}
	return true
}

// delete ends a message that was handled.
func (w *World) delete(d queue.Delivery) {
	e := &Effect{Part: Source, To: ToQueue, Op: Delete, What: "message", On: d.ID}
	_, _ = do(context.Background(), w, e, func(ctx context.Context) (none, error) { // without it, it comes again
		return none{}, w.Queue.Delete(ctx, d)
	})
}

// rounds has the reaper make its runs until the context ends. One that takes too
// long overlaps with the next.
func (w *World) rounds(ctx context.Context) {
	tick := time.NewTicker(w.Limits.ReaperPeriod)
	defer tick.Stop()
	at := []time.Duration{0}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w.cfg.Rounds != nil {
			at = w.cfg.Rounds(n)
		}
		select {
		case <-w.reaping:
			w.reaping <- struct{}{}
			for _, after := range at {
				w.wg.Go(func() {
					time.Sleep(after)
					_, _ = w.Reap() // what failed is in the log
				})
			}
		default: // it is paused
		}
	}
}

// Reap makes a run of the reaper now. A run that is killed has no report.
func (w *World) Reap() (reaper.Report, error) {
	inv := w.invoke(Reaper, "")
	p := w.environment(inv)
	ctx, cancel := inv.context(context.Background(), reaperTime)
	defer cancel()
	w.checkTimers()
	due := w.dueNow()
	report, err := p.reaper.Run(ctx)
	inv.returned.Store(true)
	if inv.isDead() {
		return reaper.Report{}, errDead
	}
	w.reaped(due, report, err)
	if w.cfg.Warm {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reapers = append(w.reapers, p)
	}
	return report, err
}

// reaping is an environment that the reaper runs in, again and again.
type reaping struct {
	reaper *reaper.Reaper
	inv    *invocation // the current run, or the last one
}

// environment returns one for a run: the one that was left last, if there is any.
func (w *World) environment(inv *invocation) *reaping {
	w.mu.Lock()
	if n := len(w.reapers); n > 0 {
		p := w.reapers[n-1]
		w.reapers = w.reapers[:n-1]
		p.inv = inv
		w.mu.Unlock()
		return p
	}
	w.mu.Unlock()
	p := &reaping{inv: inv}
	cfg := w.reaper
	cfg.Random = w.random(inv.name)
	cfg.Log = w.logger(inv.name, func() bool { return p.inv.isDead() })
	cfg.Now = w.clock(Reaper)
	p.reaper = reaper.New(cfg)
	return p
}

// door is the way to the API: an http.RoundTripper for those of one part. Each
// call is an invocation of the API, on the caller's goroutine.
type door struct {
	world *World
	part  string
}

// RoundTrip implements http.RoundTripper.
func (d door) RoundTrip(req *http.Request) (*http.Response, error) {
	w := d.world
	body, err := takeBody(req)
	if err != nil {
		return nil, err
	}
	what, on := describe(req, body)
	return do(req.Context(), w, &Effect{Part: d.part, To: ToAPI, Op: Call, What: what, On: on}, func(ctx context.Context) (*http.Response, error) {
		w.asks(req, what, on, body)
		inv := w.invoke(API, what)
		ctx, cancel := inv.context(ctx, apiTime) // the API goes on when its caller has gone
		defer cancel()
		req := req.WithContext(ctx)
		req.Body = io.NopCloser(bytes.NewReader(body))
		res, err := memhttp.Transport{Handler: w.handler()}.RoundTrip(req)
		inv.returned.Store(true)
		if inv.isDead() {
			return nil, errors.New("connection reset")
		}
		if err == nil {
			w.tells(what, on, body, res.StatusCode)
		}
		if err == nil && d.part == Client {
			err = w.overhear("the answer to "+what, res)
		}
		return res, err
	})
}

// overhear keeps what callers are shown.
func (w *World) overhear(where string, res *http.Response) error {
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(b))
	w.said(where, b)
	return err
}

// takeBody reads the body of a request, so that it can be sent twice.
func takeBody(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	defer req.Body.Close()
	return io.ReadAll(req.Body)
}

// describe says what a call of the API is, and which record it is about.
func describe(req *http.Request, body []byte) (what, on string) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	what = req.Method + " " + parts[0]
	if len(parts) > 1 {
		on = parts[1]
	}
	if len(parts) == 3 {
		what = parts[2]
	}
	if what != "events" {
		return what, on
	}
	var e struct{ Event string }
	if json.Unmarshal(body, &e) == nil {
		what = "event " + e.Event
	}
	return what, on
}
