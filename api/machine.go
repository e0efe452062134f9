package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
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
		lock := *items[0].(*store.Lock)
		now := s.Now()
		run, lock, verdict, wroteRunner, wroteLock := store.BootCall(now, run, lock, nonceHash, b.InstanceID)
		var changes []store.Change
		if wroteRunner {
			changes = append(changes, store.Put(&run))
		}
		switch {
		case wroteLock:
			changes = append(changes, store.Put(&lock))
		case verdict == store.BootGo:
			changes = append(changes, store.Check(&lock))
		}
		if err := c.commit(ctx, changes...); err != nil {
			return apitype.Booted{}, err
		}
		switch verdict {
		case store.BootGo:
			c.allow("boot token")
			env, err := s.environment(ctx, run.Account)
			if err != nil {
				return apitype.Booted{}, err
			}
			booted, err := s.booted(now, run, lock)
			booted.Environment = env
			return booted, err
		case store.BootLater:
			c.allow("boot token")
			return apitype.Booted{}, tooEarly()
		case store.BootCompromised:
			c.deny("another nonce or instance")
			c.alarm(store.AlarmCompromised, "boot token used twice", slog.String("runner", run.ID), slog.String("request", run.Request),
				slog.String("instance", run.InstanceID), slog.String("first", run.Boot.InstanceID), slog.String("now", b.InstanceID))
			return apitype.Booted{}, &problem{code: apitype.CodeCompromised, detail: "Power off."}
		}
		c.deny("not wanted any more")
		return apitype.Booted{}, gone()
	})
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
func (c *call) session(ctx context.Context) (store.Runner, store.Lock, store.Pulse, error) {
	var with []store.Ref
	if hint := c.Header.Get(apitype.LockHeader); len(hint) <= maxLock && lockForm.Fits(hint) {
		with = lockAndPulse(hint)
	}
	run, items, err := c.runner(ctx, with...)
	if err != nil {
		return store.Runner{}, store.Lock{}, store.Pulse{}, err
	}
	kid := run.Launch.KeyID
	if run.Version == 0 {
		kid = c.server.Keys.Current()
	}
	want, err := c.server.Keys.Session(kid, run.ID, run.Boot.NonceHash)
	if err != nil || !want.Equal(c.bearer) || run.Boot.NonceHash == "" {
		c.deny("not the runner's session")
		return store.Runner{}, store.Lock{}, store.Pulse{}, unauthenticated()
	}
	c.allow("session")
	if with == nil || with[0].ID != run.Lock {
		if items, err = c.get(ctx, lockAndPulse(run.Lock)...); err != nil {
			return store.Runner{}, store.Lock{}, store.Pulse{}, err
		}
	}
	return run, *items[0].(*store.Lock), *items[1].(*store.Pulse), nil
}

func lockAndPulse(key string) []store.Ref {
	return []store.Ref{{Kind: store.KindLock, ID: key}, {Kind: store.KindPulse, ID: key}}
}

var eventKinds = []string{store.EventHeartbeat, store.EventBooting, store.EventOnline, store.EventJobStarted,
	store.EventJobDone, store.EventIdle, store.EventDraining, store.EventNote}

const (
	maxDetail = 4 << 10 // bytes; fifty entries of a history stay far below DynamoDB's 400 KB
	maxReason = 32      // bytes: reasons are words
)

func checkEvent(e apitype.Event) error {
	switch {
	case !slices.Contains(eventKinds, e.Event):
		return invalid("event", "Want one of heartbeat, booting, online, job_started, job_done, idle, draining and note.")
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
		run, lock, pulse, err := c.session(ctx)
		if err != nil {
			return apitype.Orders{}, err
		}
		now := s.Now()
		heard := store.Hear(now, s.Limits, said, run, lock, pulse)
		var changes []store.Change
		if heard.Runner != nil {
			run = *heard.Runner
			changes = append(changes, store.Put(&run))
		}
		switch {
		case heard.Lock != nil:
			lock = *heard.Lock
			changes = append(changes, store.Put(&lock))
		case heard.CheckLock:
			changes = append(changes, store.Check(&lock))
		}
		if heard.Pulse != nil {
			changes = append(changes, store.Put(heard.Pulse))
		}
		var launcher store.Request
		again := false
		if heard.GaveUp {
			items, err := c.get(ctx, store.Ref{Kind: store.KindQuota, ID: run.Account}, store.Ref{Kind: store.KindRequest, ID: run.Request})
			if err != nil {
				return apitype.Orders{}, err
			}
			if heard.TooOld {
				quota := items[0].(*store.Quota).Refuse(now, run, s.programKey)
				changes = append(changes, store.Put(&quota))
			}
			var settled bool
			if launcher, settled, again = store.Settle(now, s.Limits, *items[1].(*store.Request), run); settled {
				changes = append(changes, store.Put(&launcher))
			}
		}
		if err := c.commit(ctx, changes...); err != nil {
			return apitype.Orders{}, err
		}
		if heard.Alarm != "" {
			c.alarm(heard.Alarm, "machine reports "+e.Event, slog.String("runner", run.ID), slog.String("request", run.Request), slog.String("run", e.RunID))
		}
		if again {
			s.send(ctx, c, launcher, launcher.DueAt.Sub(now))
		}
		if heard.Confirm {
			s.tell(ctx, c, queue.Message{Kind: queue.Resume, ID: run.ID, Trace: run.Trace})
		}
		if heard.Order == store.OrderGone {
			return apitype.Orders{}, gone()
		}
		return orders(now, run, lock, heard.Order), nil
	})
}

// next answers the next config of a shared machine, or has the worker mint it.
func (s *server) next(ctx context.Context, c *call, b apitype.Next) (apitype.NextConfig, error) {
	if b.N < 1 {
		return apitype.NextConfig{}, invalid("n", "Want the number after that of the last config.")
	}
	c.aboutRunner()
	return decide(func() (apitype.NextConfig, error) {
		run, lock, _, err := c.session(ctx)
		if err != nil {
			return apitype.NextConfig{}, err
		}
		if b.N > run.Config.N+1 {
			return apitype.NextConfig{}, invalid("n", "Want the number after that of the last config.")
		}
		now := s.Now()
		asked := now.Sub(run.UpdatedAt)
		order := store.OrderFor(run, lock)
		if order == store.OrderGone {
			return apitype.NextConfig{}, gone()
		}
		run, lock, ready, wanted, changed := store.NextCall(now, run, lock, b.N)
		switch {
		case ready:
			config, err := s.Keys.Open(run.Launch.KeyID, run.ID, run.Config.N, run.Config.Sealed)
			if err != nil {
				return apitype.NextConfig{}, err
			}
			return apitype.NextConfig{Config: config.Reveal(), N: run.Config.N, Orders: orders(now, run, lock, order)}, nil
		case wanted:
			if changed {
				if err := c.commit(ctx, store.Put(&run), store.Put(&lock)); err != nil {
					return apitype.NextConfig{}, err
				}
			}
			// A repeated call tells the worker again, as its message may be lost:
			// unless one is at it, or waits and will come back by itself.
			if changed || asked >= s.Limits.Heartbeat/2 && !run.Held(now, "") && !now.Before(run.WaitUntil) {
				s.tell(ctx, c, queue.Message{Kind: queue.Next, ID: run.ID, N: run.Wanted, Trace: run.Trace})
			}
			return apitype.NextConfig{}, tooEarly()
		}
		if order == store.OrderGo {
			order = store.OrderDrain
		}
		return apitype.NextConfig{Orders: orders(now, run, lock, order)}, nil
	})
}

// tell sends the worker a message about a runner. The record is what counts: the
// reaper sends a lost one again.
func (s *server) tell(ctx context.Context, c *call, m queue.Message) {
	if err := s.Queue.Send(ctx, m, 0); err != nil {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "message not sent", slog.String("kind", string(m.Kind)), slog.String("runner", m.ID), slog.String("trace", c.trace), slog.Any("err", err))
	}
}
