package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
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

// grant answers a wish: a lease, or what has to be waited for.
type grant struct {
	store.Lease
	wait store.Wait
}

// lease leases registrations of the account's credential, by one write. What it decides is
// committed on its own, before all that follows from it: accounts that share a credential
// would conflict with each other's intents. Leases whose commit was not answered are lost.
func (in *invocation) lease(ctx context.Context, now time.Time, account store.Account, ws ...store.LeaseWish) ([]grant, error) {
	grants := make([]grant, len(ws))
	err := in.onPoints(ctx, account, func(p store.Points) (d store.Decision) {
		for i, w := range ws {
			d, grants[i].Lease = p.Lease(now, in.Limits, w)
			grants[i].wait = d.Wait
			p = *d.Changes[0].Item.(*store.Points)
		}
		return d
	})
	return grants, err
}

// rest has all workers leave GitHub alone for as long as it asked for. If that cannot be
// written, the next one that calls gets the same answer.
func (in *invocation) rest(ctx context.Context, account store.Account, until time.Time) {
	now := in.Now()
	err := in.onPoints(ctx, account, func(p store.Points) store.Decision {
		return p.Rest(now, in.Limits, until)
	})
	if err != nil {
		in.Log.Warn("GitHub's limit is not written down", "account", account.ID, "until", until, "error", err)
	}
}

// onPoints commits what decide makes of the points of the account's credential.
func (in *invocation) onPoints(ctx context.Context, account store.Account, decide func(p store.Points) store.Decision) error {
	credential := account.Credential()
	for try := 1; ; try++ {
		d := decide(in.points.of(credential))
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

// leasing is leases on their way.
type leasing struct {
	sync.WaitGroup
	err error
}

// launchable returns the starts that are going to be launched as it looks, by their
// credentials, each with one of their accounts. What it does not foresee leases for itself.
func (r *round) launchable(ctx context.Context, open []*start) (accounts map[string]store.Account, starts map[string][]*start) {
	accounts, starts = map[string]store.Account{}, map[string][]*start{}
	quotas, locks := map[string]store.Quota{}, map[string]bool{}
	for _, s := range open {
		req, lock := r.requests[s.ID], r.locks[s.Lock]
		if req.State != store.Accepted || req.Account != s.Account || req.DueAt.After(r.now.Add(early)) || req.Overdue(r.now) || !lock.Free() || locks[s.Lock] {
			continue
		}
		account, err := r.account(ctx, req.Account)
		if err != nil || account.Closed {
			continue
		}
		quota, ok := quotas[account.ID]
		if !ok {
			quota = *r.quotas[account.ID]
		}
		turn, quota := quota.Turn(r.now, *req, account.Pace(r.Limits))
		quotas[account.ID] = quota
		if turn.Taken() {
			of := account.Credential()
			accounts[of], starts[of], locks[s.Lock] = account, append(starts[of], s), true
		}
	}
	return accounts, starts
}

// leasing gets starts the leases of their registrations, unless they have them, while their
// launches are put together: those that are spare, and new ones by one write. Who calls it
// waits for it.
func (r *round) leasing(ctx context.Context, account store.Account, starts ...*start) *leasing {
	var l leasing
	var without []*start
	var ws []store.LeaseWish
	for _, s := range starts {
		s.leasing = &l
		if s.lease.Usable(r.Now()) || s.lease.Soon(r.Now()) {
			continue
		}
		req := r.requests[s.ID]
		s.leaser = leaser{account.Credential(), req.Where().Key()}
		if spare, ok := r.invocation.points.take(r.Now(), s.leaser); ok {
			s.lease = spare
			continue
		}
		without = append(without, s)
		ws = append(ws, store.LeaseWish{Scope: s.leaser.scope, Waited: req.Wait == store.WaitGitHub, Launches: true})
	}
	if len(ws) == 0 {
		return &l
	}
	l.Go(func() {
		r.guard(&l.err, func() error {
			grants, err := r.lease(ctx, r.now, account, ws...)
			if err != nil {
				return err
			}
			for i, s := range without {
				s.lease, s.noLease = grants[i].Lease, grants[i].wait
			}
			return nil
		})
	})
	return &l
}

// leased waits for a lease, and reports whether there is one: else the request waits, or,
// when the points could not be written, is left open, to be decided again.
func (r *round) leased(ctx context.Context, s *start, req *store.Request) bool {
	s.leasing.Wait()
	switch {
	case s.leasing.err != nil:
		r.Log.Warn("no lease", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", s.leasing.err)
		return false
	case s.noLease.For != "":
		r.keep(ctx, s, req, s.noLease)
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
		return v.comes(ctx, l, store.Pause{})
	}
	grants, err := v.lease(ctx, now, v.account, store.LeaseWish{Scope: v.Runner.Where().Key(), Waited: true, Runs: v.Runner.Config.N > 0})
	l = grants[0].Lease
	switch {
	case err != nil:
		v.Log.Warn("no lease", "account", v.Runner.Account, "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
		return false, v.wait(ctx, store.WaitOutage, v.Limits.PollResend)
	case grants[0].wait.For != "":
		return false, v.later(ctx, store.Pause{Wait: grants[0].wait})
	case l.Soon(v.Now()):
		return v.comes(ctx, l, store.Pause{Lease: l})
	}
	return true, nil
}

// comes waits for the time of a lease, in place if it is at hand, and reports whether that
// is over. Else the runner waits, as p says.
func (v *launching) comes(ctx context.Context, l store.Lease, p store.Pause) (bool, error) {
	if !v.Limits.AtHand(v.Now(), l.From()) {
		p.Wait = store.Wait{For: store.WaitGitHub, Until: l.At}
		return false, v.later(ctx, p)
	}
	if err := sleep.For(ctx, l.From().Sub(v.Now())); err != nil {
		return false, err
	}
	return true, nil
}
