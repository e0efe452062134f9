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
	now := s.Now()
	if settled, changed, again := store.Settle(now, s.Limits, r, run); changed {
		r = s.settle(ctx, c, settled, run, again)
	} else if r.Unpicked(now, s.Limits) {
		if sent := r.Sent(now); c.try(ctx, &sent) == nil {
			r = sent
			s.send(ctx, c, r, 0)
		}
	}
	if run.ID != r.Runner {
		run, lock = store.Runner{}, store.Lock{} // settled, and given up
	}
	if !r.State.Final() {
		c.retryAfter = pollAfter
	}
	return view(r, run, lock), nil
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
	return *items[0].(*store.Runner), *items[1].(*store.Lock), nil
}

// settle records what a request has come to, as well as it can: what is settled
// is true whether it is recorded now or by the next one who looks. It returns
// the request to answer.
func (s *server) settle(ctx context.Context, c *call, settled store.Request, run store.Runner, again bool) store.Request {
	err := c.try(ctx, &settled)
	if err == nil && again {
		s.send(ctx, c, settled, settled.DueAt.Sub(s.Now()))
	}
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if !ok || len(conflict.Current) != 1 {
		return settled
	}
	current, ok := conflict.Current[0].(*store.Request)
	if !ok || current.Version == 0 {
		return settled
	}
	r, _, _ := store.Settle(s.Now(), s.Limits, *current, run)
	return r
}

// try commits r for its own sake: the answer does not depend on it.
func (c *call) try(ctx context.Context, r *store.Request) error {
	err := c.commit(ctx, store.Put(r))
	if err != nil && !errors.Is(err, store.ErrConflict) {
		c.server.Log.LogAttrs(ctx, slog.LevelWarn, "request not committed", slog.String("request", r.ID), slog.String("trace", c.trace), slog.Any("err", err))
	}
	return err
}

// stop ends a request, and its runner if that is nobody else's.
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
		now := s.Now()
		r, settled, _ := store.Settle(now, s.Limits, r, run)
		r, run, lock, stopped, drained, freed := store.Stop(now, s.Limits, r, run, lock, printable(v.by, 128), force)
		var changes []store.Change
		if settled || stopped {
			changes = append(changes, store.Put(&r))
		}
		if drained {
			changes = append(changes, store.Put(&run))
		}
		if freed {
			changes = append(changes, store.Put(&lock))
		}
		if err := c.commit(ctx, changes...); err != nil {
			return apitype.Stopped{}, err
		}
		return apitype.Stopped{
			ID: r.ID, State: string(r.State),
			Draining: run.Version != 0 && run.ID == r.Runner && !run.State.Usable(),
		}, nil
	})
}
