package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// refused are the credentials that GitHub refused, until when each is passed over.
	refused map[leaser]time.Time
}

// leaser is whose credentials register, or which one, and where.
type leaser struct{ credential, scope string }

// credentialsOf names all credentials of an account as one leaser does.
func credentialsOf(a store.Account) string { return strings.Join(a.CredentialNames(), " ") }

// passFor is how long a credential is passed over that GitHub refused, while others work: a
// person needs minutes to put it right, and each try costs a start a second, and an alarm.
const passFor = 10 * time.Minute

// refuse passes a credential over in a scope for a while.
func (p *points) refuse(now time.Time, of leaser) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused == nil {
		p.refused = map[leaser]time.Time{}
	}
	maps.DeleteFunc(p.refused, func(_ leaser, until time.Time) bool { return !now.Before(until) })
	p.refused[of] = now.Add(passFor)
}

// serving returns those of the credentials that GitHub did not refuse in a scope lately.
// others: it did not refuse all of them; else each is tried again.
func (p *points) serving(now time.Time, names []string, scope string) (serve []string, others bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		if !now.Before(p.refused[leaser{name, scope}]) {
			serve = append(serve, name)
		}
	}
	if serve == nil {
		return names, false
	}
	return serve, true
}

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

// lease leases registrations of the account's credentials, by one write. What it decides is
// committed on its own, before all that follows from it: accounts that share a credential
// would conflict with each other's intents. Leases whose commit was not answered are lost.
func (in *invocation) lease(ctx context.Context, now time.Time, account store.Account, ws ...store.LeaseWish) ([]grant, error) {
	grants := make([]grant, len(ws))
	names := account.CredentialNames()
	err := in.onPoints(ctx, func(known func(string) store.Points) []store.Change {
		changed := map[string]store.Change{}
		of := func(name string) store.Points {
			if c, ok := changed[name]; ok {
				return *c.Item.(*store.Points)
			}
			return known(name)
		}
		for i, w := range ws {
			var scope *store.Points
			if len(names) > 1 {
				scope = new(of(store.ScopePoints(w.Scope)))
			}
			var from []store.Points
			serve, _ := in.points.serving(now, names, w.Scope)
			for _, name := range serve {
				from = append(from, of(name))
			}
			var d store.Decision
			d, grants[i].Lease = store.LeaseOf(now, in.Limits, from, scope, w)
			grants[i].wait = d.Wait
			for _, c := range d.Changes {
				changed[c.Item.Ref().ID] = c
			}
		}
		var all []store.Change
		for _, name := range slices.Sorted(maps.Keys(changed)) {
			all = append(all, changed[name])
		}
		return all
	})
	return grants, err
}

// rest has all workers leave GitHub alone with a credential for as long as it asked for. If
// that cannot be written, the next one that calls gets the same answer.
func (in *invocation) rest(ctx context.Context, credential string, until time.Time) {
	now := in.Now()
	err := in.onPoints(ctx, func(known func(string) store.Points) []store.Change {
		return known(credential).Rest(now, in.Limits, until).Changes
	})
	if err != nil {
		in.Log.Warn("GitHub's limit is not written down", "credential", credential, "until", until, "error", err)
	}
}

// onPoints commits what decide makes of points, which it gets by their names.
func (in *invocation) onPoints(ctx context.Context, decide func(known func(name string) store.Points) []store.Change) error {
	for try := 1; ; try++ {
		changes := decide(in.points.of)
		if len(changes) == 0 {
			return nil
		}
		err := in.session.Commit(ctx, changes...)
		lost, conflict := errors.AsType[*store.ConflictError](err)
		switch {
		case err == nil:
			for _, c := range changes {
				in.points.learn(c.Item)
			}
			return nil
		case conflict:
			in.points.learn(lost.Current...)
		}
		if try == maxLeaseTries || ctx.Err() != nil || in.left() < lastCommit {
			return fmt.Errorf("lease a registration from %s: %w", changes[0].Item.Ref(), err)
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

// launchable returns the starts that are going to be launched as it looks, by the
// credentials of their accounts, each with one of their accounts. What it does not foresee leases for itself.
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
			of := credentialsOf(account)
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
		req := r.requests[s.ID].Following(account)
		s.leaser = leaser{credentialsOf(account), req.Where().Key()}
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

// serves reports whether an account still has the credential of a runner's lease, which
// GitHub did not refuse lately.
func (in *invocation) serves(account store.Account, r store.Runner) bool {
	serve, _ := in.points.serving(in.Now(), account.CredentialNames(), r.Where().Key())
	return slices.Contains(serve, r.Lease.Credential)
}

// permitted returns the lease by which the runner may be registered now: the one that it
// has, or a new one. If there is none, it waits.
func (v *launching) permitted(ctx context.Context) (l store.Lease, ok bool, err error) {
	now := v.Now()
	l = v.Runner.Lease
	switch {
	case v.account.ID == "": // of an account that cannot be read, GitHub hears nothing
		return l, true, nil
	case !v.serves(v.account, v.Runner):
	case l.Usable(now):
		return l, true, nil
	case l.Soon(now):
		ok, err = v.comes(ctx, l, store.Pause{})
		return l, ok, err
	}
	grants, err := v.lease(ctx, now, v.account, store.LeaseWish{Scope: v.Runner.Where().Key(), Waited: true, Runs: v.Runner.Config.N > 0})
	l = grants[0].Lease
	switch {
	case err != nil:
		v.Log.Warn("no lease", "account", v.Runner.Account, "runner", v.Runner.ID, "trace", v.Runner.Trace, "error", err)
		return l, false, v.wait(ctx, store.WaitOutage, v.Limits.PollResend)
	case grants[0].wait.For != "":
		return l, false, v.later(ctx, store.Pause{Wait: grants[0].wait})
	case l.Soon(v.Now()):
		ok, err = v.comes(ctx, l, store.Pause{Lease: l})
		return l, ok, err
	}
	return l, true, nil
}

// comes waits for the time of a lease, in place if it is at hand, and reports whether that
// is over. Else the runner waits, as p says. Its message is due half of what is at hand
// before the lease is usable: a delay in whole seconds, and messages that are gathered for
// one, make it later. One that is early is waited for in place.
func (v *launching) comes(ctx context.Context, l store.Lease, p store.Pause) (bool, error) {
	if !v.Limits.AtHand(v.Now(), l.From()) {
		p.Wait = store.Wait{For: store.WaitGitHub, Until: l.From().Add(-v.Limits.InHand / 2)}
		return false, v.later(ctx, p)
	}
	if err := sleep.For(ctx, l.From().Sub(v.Now())); err != nil {
		return false, err
	}
	return true, nil
}
