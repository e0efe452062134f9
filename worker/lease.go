package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// points remembers, for this process alone, what credentials may still register, as it was
// read or written last: a lease then takes one call. What another process wrote since, a
// conflict tells.
type points struct {
	mu    sync.Mutex
	known map[string]store.Points
	// spare are leases whose starts had to wait after all, for others of the same scope.
	spare map[leaser][]store.Lease
}

// leaser is whose credential registers, and where.
type leaser struct{ credential, scope string }

// keep has a lease that nobody used serve another request.
func (p *points) keep(of leaser, l store.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare == nil {
		p.spare = map[leaser][]store.Lease{}
	}
	p.spare[of] = append(p.spare[of], l)
}

// take returns a lease that was kept and has not expired.
func (p *points) take(now time.Time, of leaser) (store.Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.spare[of]) > 0 {
		l := p.spare[of][0]
		p.spare[of] = p.spare[of][1:]
		if l.Usable(now) || l.Soon(now) {
			return l, true
		}
	}
	delete(p.spare, of)
	return store.Lease{}, false
}

func (p *points) of(credential string) store.Points {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.known[credential]; ok {
		return known
	}
	return store.Points{Credential: credential}
}

func (p *points) learn(items ...store.Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range items {
		if i, ok := i.(*store.Points); ok {
			if p.known == nil {
				p.known = map[string]store.Points{}
			}
			p.known[i.Credential] = *i
		}
	}
}

// maxLeaseTries is how often a lease is tried for that others were faster with: of ten
// workers all may be, and after each the losers are fewer.
const maxLeaseTries = 12

// lease leases a registration of the account's credential, or has to wait. What it decides
// is committed on its own, before all that follows from it: accounts that share a credential
// would conflict with each other's intents. A lease whose commit was not answered is lost.
func (in *invocation) lease(ctx context.Context, now time.Time, account store.Account, w store.LeaseWish) (l store.Lease, wait store.Wait, err error) {
	err = in.onPoints(ctx, account, func(p store.Points) (d store.Decision) {
		d, l = p.Lease(now, in.Limits, w)
		return d
	}, &wait)
	return l, wait, err
}

// rest has all workers leave GitHub alone for as long as it asked for. If that cannot be
// written, the next one that calls gets the same answer.
func (in *invocation) rest(ctx context.Context, account store.Account, until time.Time) {
	now := in.Now()
	err := in.onPoints(ctx, account, func(p store.Points) store.Decision {
		return p.Rest(now, in.Limits, until)
	}, new(store.Wait))
	if err != nil {
		in.Log.Warn("GitHub's limit is not written down", "account", account.ID, "until", until, "error", err)
	}
}

// onPoints commits what decide makes of the points of the account's credential, and returns
// what has to be waited for.
func (in *invocation) onPoints(ctx context.Context, account store.Account, decide func(p store.Points) store.Decision, wait *store.Wait) error {
	credential := account.Credential()
	for try := 1; ; try++ {
		d := decide(in.points.of(credential))
		*wait = d.Wait
		if len(d.Changes) == 0 {
			return nil
		}
		err := in.session.Commit(ctx, d.Changes...)
		lost, conflict := errors.AsType[*store.ConflictError](err)
		switch {
		case err == nil:
			in.points.learn(d.Changes[0].Item)
			return nil
		case conflict:
			in.points.learn(lost.Current...)
		}
		if try == maxLeaseTries || ctx.Err() != nil || in.left() < lastCommit {
			return fmt.Errorf("lease a registration of credential %s: %w", credential, err)
		}
		if err := in.backoff(ctx, try); err != nil {
			return err
		}
	}
}

// leasing is a lease on its way.
type leasing struct {
	sync.WaitGroup
	wait store.Wait
	err  error
}

// leasing gets a start the lease of its registration, unless it has one, while its launch
// is put together: one that is spare, or a new one. Who calls it waits for it.
func (r *round) leasing(ctx context.Context, s *start, req *store.Request, account store.Account) *leasing {
	var l leasing
	if s.lease.Usable(r.Now()) || s.lease.Soon(r.Now()) {
		return &l
	}
	s.leaser = leaser{account.Credential(), req.Where().Key()}
	if spare, ok := r.invocation.points.take(r.Now(), s.leaser); ok {
		s.lease = spare
		return &l
	}
	l.Go(func() {
		r.guard(&l.err, func() (err error) {
			w := store.LeaseWish{Scope: s.leaser.scope, Waited: req.Wait == store.WaitGitHub, Launches: true}
			s.lease, l.wait, err = r.lease(ctx, r.now, account, w)
			return err
		})
	})
	return &l
}

// leased waits for a lease, and reports whether there is one: else the request waits, or,
// when the points could not be written, is left open, to be decided again.
func (r *round) leased(ctx context.Context, s *start, req *store.Request, l *leasing) bool {
	l.Wait()
	switch {
	case l.err != nil:
		r.Log.Warn("no lease", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", l.err)
		return false
	case l.wait.For != "":
		r.keep(ctx, s, req, l.wait)
		return false
	}
	return true
}

// permitted reports whether the runner may be registered now: by the lease that it has, or
// a new one. If not, it waits.
func (v *launching) permitted(ctx context.Context) (bool, error) {
	now := v.Now()
	l := v.Runner.Lease
	switch {
	case l.Usable(now) || v.account.ID == "": // of an account that cannot be read, GitHub hears nothing
		return true, nil
	case l.Soon(now):
		return false, v.later(ctx, store.Pause{Wait: store.Wait{For: store.WaitGitHub, Until: l.At}})
	}
	l, wait, err := v.lease(ctx, now, v.account, store.LeaseWish{Scope: v.Runner.Where().Key(), Waited: true})
	switch {
	case err != nil:
		v.Log.Warn("no lease", "account", v.Runner.Account, "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
		return false, v.wait(ctx, store.WaitOutage, v.Limits.PollResend)
	case wait.For != "":
		return false, v.later(ctx, store.Pause{Wait: wait})
	case l.Soon(v.Now()):
		return false, v.later(ctx, store.Pause{Wait: store.Wait{For: store.WaitGitHub, Until: l.At}, Lease: l})
	}
	return true, nil
}
