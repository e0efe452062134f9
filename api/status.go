package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// status answers where a request stands. A poll also helps it on: what its
// runner has come to is settled, and a start message that nothing took up is
// sent again, once.
func (s *server) status(ctx context.Context, c *call, _ none) (apitype.Status, error) {
	id := c.PathValue("id")
	v, err := c.viewer(ctx, id)
	if err != nil {
		return apitype.Status{}, err
	}
	c.about("request", id)
	r, err := c.request(ctx, v, id)
	if err != nil {
		return apitype.Status{}, err
	}
	run, lock, err := c.runnerOf(ctx, r)
	if err != nil {
		return apitype.Status{}, err
	}
	r = s.poll(ctx, c, store.Case{Request: r, Runner: run})
	if run.ID != r.Runner {
		run, lock = store.Runner{}, store.Lock{} // settled, and given up
	}
	if !r.State.Final() {
		c.retryAfter = pollAfter
	}
	return statusOf(r, run, lock), nil
}

// runnerOf reads the runner of r and its lock; without one, both are absent.
func (c *call) runnerOf(ctx context.Context, r store.Request) (store.Runner, store.Lock, error) {
	if r.Runner == "" {
		return store.Runner{}, store.Lock{Key: r.LockKey()}, nil
	}
	items, err := c.get(ctx, store.Ref{Kind: store.KindRunner, ID: r.Runner}, store.Ref{Kind: store.KindLock, ID: r.LockKey()})
	if err != nil {
		return store.Runner{}, store.Lock{}, err
	}
	run, lock := *items[0].(*store.Runner), *items[1].(*store.Lock)
	if run.Version == 0 || run.Lock == lock.Key {
		return run, lock, nil
	}
	// It was launched for another workflow job, whose lock names it.
	items, err = c.get(ctx, store.Ref{Kind: store.KindLock, ID: run.Lock})
	if err != nil {
		return store.Runner{}, store.Lock{}, err
	}
	return run, *items[0].(*store.Lock), nil
}

// poll records what a request has come to, as well as it can: what is settled is true
// whether it is recorded now or by the next one who looks. It returns the request to
// answer.
func (s *server) poll(ctx context.Context, c *call, cs store.Case) store.Request {
	d := cs.Poll(s.Now(), s.Limits)
	err := c.apply(ctx, d)
	if err == nil {
		return d.Request
	}
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if !ok {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "request not committed", slog.String("request", d.Request.ID), slog.String("trace", c.trace), slog.Any("error", err))
		return d.Request
	}
	now := cs.With(conflict.Current...)
	if now.Request.Version == 0 {
		return d.Request
	}
	return now.Settle(s.Now(), s.Limits).Request
}

// stop ends a request, and its runner if no other request uses it.
func (s *server) stop(ctx context.Context, c *call, _ none) (apitype.Stopped, error) {
	force := false
	if c.query.Has("force") {
		switch c.query.Get("force") {
		case "true":
			force = true
		case "false":
		default:
			return apitype.Stopped{}, invalid("force", "Want true or false.")
		}
	}
	id := c.PathValue("id")
	v, err := c.viewer(ctx, id)
	if err != nil {
		return apitype.Stopped{}, err
	}
	c.about("request", id)
	c.status = http.StatusAccepted
	return decide(func() (apitype.Stopped, error) {
		r, err := c.request(ctx, v, id)
		if err != nil {
			return apitype.Stopped{}, err
		}
		run, lock, err := c.runnerOf(ctx, r)
		if err != nil {
			return apitype.Stopped{}, err
		}
		d := store.Case{Request: r, Runner: run, Lock: lock}.Stop(s.Now(), s.Limits, printable(v.by, 128), force)
		if err := c.apply(ctx, d); err != nil {
			return apitype.Stopped{}, err
		}
		return apitype.Stopped{
			ID: r.ID, State: string(d.Request.State),
			Draining: run.Version != 0 && run.ID == d.Request.Runner && !d.Runner.State.Usable(),
		}, nil
	})
}
