package api

import (
	"context"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// machine refuses a call of a machine that cannot be one, or one too many, before
// anything is read.
func (c *call) machine(token string) error {
	id := c.PathValue("id")
	if !keys.ValidID(id) {
		c.deny("no runner can have this id")
		return unauthenticated()
	}
	c.about("runner", id)
	return c.server.machines.take(id, token)
}

// holder is machine for a call that carries a session token.
func (c *call) holder() error {
	if !sessionForm.Fits(c.bearer) {
		c.deny("not a session token")
		return unauthenticated()
	}
	return c.machine(c.bearer)
}

// runner reads the runner of the path, and others in the same read.
func (c *call) runner(ctx context.Context, others ...store.Ref) (store.Runner, []store.Item, error) {
	items, err := c.get(ctx, append([]store.Ref{{Kind: store.KindRunner, ID: c.PathValue("id")}}, others...)...)
	if err != nil {
		return store.Runner{}, nil, err
	}
	return *items[0].(*store.Runner), items[1:], nil
}

// session reads the runner of the path, its lock and its pulse for the machine
// whose session token the call carries. They are one read when the call says
// which lock that is; what it says is believed only if the runner agrees.
func (c *call) session(ctx context.Context) (store.Case, error) {
	var with []store.Ref
	if hint := c.Header.Get(apitype.LockHeader); len(hint) <= maxLock && lockForm.Fits(hint) {
		with = lockAndPulse(hint)
	}
	run, items, err := c.runner(ctx, with...)
	if err != nil {
		return store.Case{}, err
	}
	kid := run.Launch.KeyID
	if run.Version == 0 {
		kid = c.server.Keys.Current()
	}
	want, err := c.server.Keys.Session(kid, run.ID, run.Boot.NonceHash)
	if err != nil || !want.Equal(c.bearer) || run.Boot.NonceHash == "" {
		c.deny("not the runner's session")
		return store.Case{}, unauthenticated()
	}
	c.allow("session")
	if with == nil || with[0].ID != run.Lock {
		if items, err = c.get(ctx, lockAndPulse(run.Lock)...); err != nil {
			return store.Case{}, err
		}
	}
	return store.Case{Runner: run}.With(items...), nil
}

func lockAndPulse(key string) []store.Ref {
	return []store.Ref{{Kind: store.KindLock, ID: key}, {Kind: store.KindPulse, ID: key}}
}
