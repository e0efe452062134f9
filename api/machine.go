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
	if !bootForm.Fits(b.Token) {
		c.deny("not a boot token")
		return apitype.Booted{}, unauthenticated()
	}
	if err := c.machine(b.Token); err != nil {
		return apitype.Booted{}, err
	}
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
		if err := s.vouched(run, nonceHash, b); err != nil {
			return apitype.Booted{}, c.foreign(run, b.InstanceID, err)
		}
		a, err := s.account(ctx, run.Account)
		if err != nil {
			return apitype.Booted{}, err
		}
		if lacks := unknownParts(a.Outfit, c.Header.Get(apitype.OptionsHeader)); len(lacks) > 0 {
			return apitype.Booted{}, c.tooPlain(run, lacks)
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
		return s.bootAnswer(ctx, c, now, d, answer, a, b.InstanceID)
	})
}

// bootAnswer answers a boot call that is decided.
func (s *server) bootAnswer(ctx context.Context, c *call, now time.Time, d store.Decision, answer store.BootAnswer, a store.Account, instance string) (apitype.Booted, error) {
	run := d.Runner
	switch answer {
	case store.BootGo:
		c.allow("boot token")
		outfit, err := s.outfit(ctx, a.Outfit)
		if err != nil {
			return apitype.Booted{}, err
		}
		booted, err := s.booted(now, run, d.Lock)
		booted.Environment, booted.Outfit = a.Environment, outfit
		return booted, err
	case store.BootLater:
		c.allow("boot token")
		return apitype.Booted{}, &problem{code: apitype.CodeTooEarly, detail: "Send the same call again after Retry-After.", after: s.patience(now, run)}
	case store.BootForeign:
		return apitype.Booted{}, c.foreign(run, instance, errors.New("another instance was launched"))
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

// patience returns after how many seconds a machine may ask for its config again. For one
// that has a lease, that is when it is registered: at least half a second after the lease is
// usable, since a pause is rounded. For others it is when a worker is to try for it, and up
// to a quarter later, so that many do not come at once; leases are apart already.
func (s *server) patience(now time.Time, run store.Runner) int {
	if left := run.Lease.At.Sub(now); left > 0 {
		return min(max(pollAfter, int(left.Round(time.Second)/time.Second)), mostPatience)
	}
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
		Lock: run.Lock, Programs: s.Programs, Asks: run.OfJob(), Orders: orders(now, run, lock, store.OrderGo),
	}, nil
}

// account returns an account's registration as it is now, for what its machines are to
// be. One that was removed says nothing of that: its machine asks again, until the
// registration is back or the boot limit ends it.
func (s *server) account(ctx context.Context, id string) (store.Account, error) {
	a, err := s.Accounts.Account(ctx, id)
	if errors.Is(err, store.ErrNoAccount) {
		return store.Account{}, tooEarly()
	}
	if err != nil {
		return store.Account{}, outage(fmt.Errorf("account %s of a machine: %w", id, err))
	}
	return a, nil
}

func orders(now time.Time, run store.Runner, lock store.Lock, order store.Order) apitype.Orders {
	o := apitype.Orders{Order: string(order), HardS: apitype.InSeconds(run.Hard.Sub(now))}
	if lock.Names(run.ID) {
		o.Exp = lock.Exp
	}
	return o
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
	if err := c.holder(); err != nil {
		return apitype.Orders{}, err
	}
	if err := checkEvent(e); err != nil {
		return apitype.Orders{}, err
	}
	said := store.Event{Kind: e.Event, Counter: e.Counter, RunID: e.RunID, Reason: e.Reason, Detail: printable(e.Detail, maxDetail)}
	return decide(func() (apitype.Orders, error) {
		cs, err := c.session(ctx)
		if err != nil {
			return apitype.Orders{}, err
		}
		if said.ForPeople() {
			said.LeftOut = s.machines.leftOut(cs.Runner.ID, c.bearer)
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
		if said.ForPeople() {
			left := said.LeftOut + 1
			if d.Runner.Counter == said.Counter {
				left = 0 // it was taken, and tells of the others
			}
			s.machines.setLeftOut(d.Runner.ID, c.bearer, left)
		}
		switch {
		case order == store.OrderGone:
			return apitype.Orders{}, gone()
		case d.Wait.For == store.OverBudget:
			return apitype.Orders{}, c.overBudget(d.Wait, now)
		}
		return orders(now, d.Runner, d.Lock, order), nil
	})
}

// overBudget refuses an event that the runner's budget has no room for.
func (c *call) overBudget(w store.Wait, now time.Time) error {
	c.deny("over the runner's budget")
	return throttled(w.Until.Sub(now), "This machine has said more than is written down.")
}

// next answers the next config of a shared machine, or has the worker mint it.
func (s *server) next(ctx context.Context, c *call, b apitype.Next) (apitype.NextConfig, error) {
	if err := c.holder(); err != nil {
		return apitype.NextConfig{}, err
	}
	if b.N < 1 {
		return apitype.NextConfig{}, invalid("n", "Want the number after that of the last config.")
	}
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
		order := store.OrderFor(now, run, cs.Lock)
		if order == store.OrderGone {
			return apitype.NextConfig{}, gone()
		}
		d, verdict := cs.Next(now, s.Limits, b.N)
		if err := c.apply(ctx, d); err != nil {
			return apitype.NextConfig{}, err
		}
		if d.Alarm != "" {
			c.alarm(d.Alarm, "machine asks for configs", slog.String("runner", run.ID), slog.String("request", run.Request))
		}
		if d.Wait.For == store.OverBudget {
			return apitype.NextConfig{}, c.overBudget(d.Wait, now)
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
