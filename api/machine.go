package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// boot answers a machine's first call: with the config, later, or never.
func (s *server) boot(ctx context.Context, c *call, b apitype.Boot) (apitype.Booted, error) {
	token := secret.New(b.Token)
	c.bearer = b.Token
	switch {
	case !secretForm.Fits(b.Token):
		return apitype.Booted{}, invalid("token", "Want the token of the user data.")
	case !nonceForm.Fits(b.Nonce):
		return apitype.Booted{}, invalid("nonce", "Want 26 to 128 of A-Z, a-z, 0-9, - and _.")
	case !instanceForm.Fits(b.InstanceID):
		return apitype.Booted{}, invalid("instance_id", "Want i-….")
	}
	c.aboutRunner()
	nonceHash := keys.HashNonce(b.Nonce)
	return decide(func() (apitype.Booted, error) {
		run, _, err := c.runner(ctx)
		if err != nil {
			return apitype.Booted{}, err
		}
		// Signed for absent runners too, so that they take as long.
		kid := run.Launch.KeyID
		if run.Version == 0 {
			kid = s.Keys.Current()
		}
		want, err := s.Keys.Boot(kid, run.ID, run.Index)
		if err != nil || !want.Equal(token.Reveal()) || run.Version == 0 {
			c.deny("not the runner's boot token")
			return apitype.Booted{}, unauthenticated()
		}
		items, err := c.get(ctx, store.Ref{Kind: store.KindLock, ID: run.Lock})
		if err != nil {
			return apitype.Booted{}, err
		}
		now := s.Now()
		d, answer := store.Case{Runner: run}.With(items...).Boot(now, s.Limits, nonceHash, b.InstanceID)
		if err := c.apply(ctx, d); err != nil {
			return apitype.Booted{}, err
		}
		return s.bootAnswer(ctx, c, now, d, answer, b.InstanceID)
	})
}

// bootAnswer answers a boot call that is decided.
func (s *server) bootAnswer(ctx context.Context, c *call, now time.Time, d store.Decision, answer store.BootAnswer, instance string) (apitype.Booted, error) {
	run := d.Runner
	switch answer {
	case store.BootGo:
		c.allow("boot token")
		env, err := s.environment(ctx, run.Account)
		if err != nil {
			return apitype.Booted{}, err
		}
		booted, err := s.booted(now, run, d.Lock)
		booted.Environment = env
		return booted, err
	case store.BootLater:
		c.allow("boot token")
		return apitype.Booted{}, &problem{code: apitype.CodeTooEarly, detail: "Send the same call again after Retry-After.", after: s.patience(now, run)}
	case store.BootCompromised:
		c.deny("another nonce or instance")
		c.alarm(d.Alarm, "boot token used twice", slog.String("runner", run.ID), slog.String("request", run.Request),
			slog.String("instance", run.InstanceID), slog.String("first", run.Boot.InstanceID), slog.String("now", instance))
		return apitype.Booted{}, &problem{code: apitype.CodeCompromised, detail: "Power off."}
	}
	c.deny("not wanted any more")
	return apitype.Booted{}, gone()
}

// mostPatience is the longest pause of a machine whose config is on the way, in seconds:
// on average it waits half of a pause in vain, which is little beside its boot.
const mostPatience = 15

// patience returns after how many seconds a machine may ask for its config again: when a
// worker is to try for it, and up to a quarter later, so that many do not come at once.
func (s *server) patience(now time.Time, run store.Runner) int {
	after := min(max(pollAfter, int(run.WaitUntil.Sub(now)/time.Second)), mostPatience)
	var b [1]byte
	if _, err := io.ReadFull(s.Random, b[:]); err == nil {
		after += int(b[0]) % (after/4 + 1)
	}
	return after
}

func tooEarly() error {
	return &problem{code: apitype.CodeTooEarly, detail: "Send the same call again after Retry-After."}
}

func (s *server) booted(now time.Time, run store.Runner, lock store.Lock) (apitype.Booted, error) {
	config, err := s.Keys.Open(run.Launch.KeyID, run.ID, run.Config.N, run.Config.Sealed)
	if err != nil {
		return apitype.Booted{}, err
	}
	session, err := s.Keys.Session(run.Launch.KeyID, run.ID, run.Boot.NonceHash)
	if err != nil {
		return apitype.Booted{}, err
	}
	return apitype.Booted{
		Session: session.Reveal(), Config: config.Reveal(), N: run.Config.N, Mode: run.Mode,
		HeartbeatS: apitype.InSeconds(s.Limits.Heartbeat), IdleS: apitype.InSeconds(s.Limits.Idle),
		Lock: run.Lock, Programs: s.Programs, Orders: orders(now, run, lock, store.OrderGo),
	}, nil
}

// environment returns the variables that an account's registration has for jobs. An
// account that was removed since has none.
func (s *server) environment(ctx context.Context, account string) (map[string]string, error) {
	a, err := s.Accounts.Account(ctx, account)
	if err != nil && !errors.Is(err, store.ErrNoAccount) {
		return nil, outage(fmt.Errorf("environment of account %s: %w", account, err))
	}
	return a.Environment, nil
}

func orders(now time.Time, run store.Runner, lock store.Lock, order store.Order) apitype.Orders {
	o := apitype.Orders{Order: string(order), HardS: apitype.InSeconds(run.Hard.Sub(now))}
	if lock.Names(run.ID) {
		o.Exp = lock.Exp
	}
	return o
}

// runner reads the runner of the path, and others in the same read. A runner
// that no id can name is absent too, and so are then the others.
func (c *call) runner(ctx context.Context, others ...store.Ref) (store.Runner, []store.Item, error) {
	id := c.PathValue("id")
	if !keys.ValidID(id) {
		return store.Runner{}, nil, nil
	}
	items, err := c.get(ctx, append([]store.Ref{{Kind: store.KindRunner, ID: id}}, others...)...)
	if err != nil {
		return store.Runner{}, nil, err
	}
	return *items[0].(*store.Runner), items[1:], nil
}

func (c *call) aboutRunner() {
	if id := c.PathValue("id"); keys.ValidID(id) {
		c.about("runner", id)
	}
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

const (
	maxDetail = 4 << 10 // bytes; fifty entries of a history stay far below DynamoDB's 400 KB
	maxReason = 32      // bytes: reasons are words
)

func checkEvent(e apitype.Event) error {
	switch {
	case !slices.Contains(store.EventKinds, e.Event):
		last := len(store.EventKinds) - 1
		return invalid("event", "Want one of %s and %s.", strings.Join(store.EventKinds[:last], ", "), store.EventKinds[last])
	case e.Counter < 0:
		return invalid("counter", "Want a number that rises from zero.")
	case e.RunID != "" && !form.GitHubID.Fits(e.RunID):
		return invalid("run_id", "Want digits.")
	case len(e.Reason) > maxReason:
		return invalid("reason", "Want a word of at most %d bytes.", maxReason)
	case len(e.Detail) > maxDetail:
		return invalid("detail", "Want at most %d bytes.", maxDetail)
	}
	return nil
}

// event takes what a machine says, and answers what it is to do.
func (s *server) event(ctx context.Context, c *call, e apitype.Event) (apitype.Orders, error) {
	if err := checkEvent(e); err != nil {
		return apitype.Orders{}, err
	}
	c.aboutRunner()
	said := store.Event{Kind: e.Event, Counter: e.Counter, RunID: e.RunID, Reason: e.Reason, Detail: printable(e.Detail, maxDetail)}
	return decide(func() (apitype.Orders, error) {
		cs, err := c.session(ctx)
		if err != nil {
			return apitype.Orders{}, err
		}
		now := s.Now()
		d, order := cs.ApplyEvent(now, s.Limits, said, s.programKey)
		if d.Need != nil {
			items, err := c.get(ctx, d.Need...)
			if err != nil {
				return apitype.Orders{}, err
			}
			d, order = cs.With(items...).ApplyEvent(now, s.Limits, said, s.programKey)
		}
		if err := c.apply(ctx, d); err != nil {
			return apitype.Orders{}, err
		}
		if d.Alarm != "" {
			c.alarm(d.Alarm, "machine reports "+e.Event, slog.String("runner", d.Runner.ID), slog.String("request", d.Runner.Request), slog.String("run", e.RunID))
		}
		if order == store.OrderGone {
			return apitype.Orders{}, gone()
		}
		return orders(now, d.Runner, d.Lock, order), nil
	})
}

// next answers the next config of a shared machine, or has the worker mint it.
func (s *server) next(ctx context.Context, c *call, b apitype.Next) (apitype.NextConfig, error) {
	if b.N < 1 {
		return apitype.NextConfig{}, invalid("n", "Want the number after that of the last config.")
	}
	c.aboutRunner()
	return decide(func() (apitype.NextConfig, error) {
		cs, err := c.session(ctx)
		if err != nil {
			return apitype.NextConfig{}, err
		}
		run := cs.Runner
		if b.N > run.Config.N+1 {
			return apitype.NextConfig{}, invalid("n", "Want the number after that of the last config.")
		}
		now := s.Now()
		order := store.OrderFor(run, cs.Lock)
		if order == store.OrderGone {
			return apitype.NextConfig{}, gone()
		}
		d, verdict := cs.Next(now, s.Limits, b.N)
		if err := c.apply(ctx, d); err != nil {
			return apitype.NextConfig{}, err
		}
		switch verdict {
		case store.NextReady:
			config, err := s.Keys.Open(run.Launch.KeyID, run.ID, run.Config.N, run.Config.Sealed)
			if err != nil {
				return apitype.NextConfig{}, err
			}
			return apitype.NextConfig{Config: config.Reveal(), N: run.Config.N, Orders: orders(now, run, d.Lock, order)}, nil
		case store.NextLater:
			return apitype.NextConfig{}, tooEarly()
		}
		if order == store.OrderGo {
			order = store.OrderDrain
		}
		return apitype.NextConfig{Orders: orders(now, run, d.Lock, order)}, nil
	})
}
