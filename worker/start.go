package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// start is one start message of the batch.
type start struct {
	queue.Message
	err  *error
	done bool
	// until is when a worker looks at the request again, if it has to wait.
	until time.Time
	// drive is the runner whose launch continues for this message.
	drive *launching
	// lease is that of its registration, until its intent may have been committed.
	lease  store.Lease
	leaser leaser
	// leasing is how the round gets it, and noLease what it has to wait for if there is none.
	leasing *leasing
	noLease store.Wait
}

// starts settles all start messages of the batch, and then drives the launches
// that follow from it, side by side.
func (in *invocation) starts(ctx context.Context, all []*start) {
	for try := 1; ; try++ {
		var open []*start
		for _, s := range all {
			if !s.done {
				open = append(open, s)
			}
		}
		if len(open) == 0 {
			break
		}
		if try > 1 && in.left() < lastCommit {
			for _, s := range open {
				in.send(ctx, s.Message, in.Now().Add(time.Second+in.jitter(2*time.Second)))
				*s.err, s.done = errLater, true
			}
			break
		}
		if try > 1 {
			if err := in.backoff(ctx, try); err != nil {
				fail(open, err)
				break
			}
		}
		if err := in.decide(ctx, open); err != nil {
			fail(open, err)
			break
		}
	}
	var wg sync.WaitGroup
	for _, s := range all {
		if s.drive == nil && s.lease != (store.Lease{}) {
			in.points.keep(s.leaser, s.lease)
		}
		if s.drive != nil {
			wg.Go(func() { in.guard(s.err, func() error { return s.drive.drive(ctx) }) })
		}
	}
	wg.Wait()
}

func fail(open []*start, err error) {
	for _, s := range open {
		*s.err, s.done = err, true
	}
}

// decide reads what the open messages name, decides them one after another, and
// commits group by group. What lost its commit stays open.
func (in *invocation) decide(ctx context.Context, open []*start) error {
	r := &round{
		invocation: in, now: in.Now(),
		requests: map[string]*store.Request{}, locks: map[string]*store.Lock{}, pulses: map[string]*store.Pulse{},
		quotas: map[string]*store.Quota{}, accounts: map[string]store.Account{}, images: map[wanted]resolved{}, byName: map[string]*group{}, given: map[string]bool{},
	}
	var refs []store.Ref
	for _, s := range open {
		refs = append(refs, store.Ref{Kind: store.KindRequest, ID: s.ID}, store.Ref{Kind: store.KindLock, ID: s.Lock},
			store.Ref{Kind: store.KindPulse, ID: s.Lock}, store.Ref{Kind: store.KindQuota, ID: s.Account})
	}
	if err := r.get(ctx, refs); err != nil {
		return fmt.Errorf("read %d requests: %w", len(open), err)
	}
	r.decideAll(ctx, open)
	for _, g := range r.groups {
		var err error
		if len(g.Changes) > 0 { // one that came a moment before its slot is held as it was
			err = in.session.Commit(ctx, g.Changes...)
		}
		switch {
		case err == nil:
			for _, s := range g.members {
				s.done = true
			}
			for _, f := range g.after {
				f()
			}
			r.sends(ctx, g.held...)
		case errors.Is(err, store.ErrConflict):
			in.Log.Debug("lost a commit", "members", len(g.members), "error", err)
		default:
			// It may have happened: what is decided next is read again.
			in.Log.Warn("commit without an answer", "members", len(g.members), "error", err)
			for _, s := range g.members {
				s.lease = store.Lease{}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// decideAll decides the messages one after another, while those that are going to launch
// lease their registrations together.
func (r *round) decideAll(ctx context.Context, open []*start) {
	for _, s := range open {
		s.leasing, s.noLease = nil, store.Wait{}
	}
	accounts, launchable := r.launchable(ctx, open)
	for _, of := range slices.Sorted(maps.Keys(launchable)) {
		defer r.leasing(ctx, accounts[of], launchable[of]...).Wait()
	}
	for _, s := range open {
		var err error
		if r.guard(&err, func() error { return r.decideOne(ctx, s) }); err != nil {
			*s.err, s.done = err, true
		}
	}
}

// decideOne decides one start message.
func (r *round) decideOne(ctx context.Context, s *start) error {
	req := r.requests[s.ID]
	switch {
	case req.Version == 0:
		r.alarm(store.AlarmUnknown, "message for a request that is not recorded", "request", s.ID, "trace", s.Trace)
		return fmt.Errorf("request %s is not recorded", s.ID)
	case req.State == store.Waiting && r.writes(req):
		s.done = true // by an earlier message of this batch
		return nil
	case req.State == store.Waiting:
		s.done = true
		v := &launching{invocation: r.invocation, Case: store.Case{Request: *req, Runner: store.Runner{ID: req.Runner, Lock: req.LockKey()}}}
		return v.takeOver(ctx, s)
	case req.State != store.Accepted, req.DueAt.After(r.now.Add(early)):
		s.done = true
		if req.State == store.Accepted && req.DueAt.Equal(s.until) { // by us: the answer was lost
			r.sends(ctx, store.Case{Request: *req}.Held())
		}
		return nil
	case req.OfJob() && req.LockKey() != s.Lock:
		s.done = true // the message of a launch that was given up
		return nil
	case req.LockKey() != s.Lock || req.Account != s.Account:
		return fmt.Errorf("message for request %s names another lock or account", s.ID)
	case req.Overdue(r.now):
		r.put("request "+req.ID, s, store.Case{Request: *req}.Expire(r.now, r.Limits))
		return nil
	}
	return r.find(ctx, s, req)
}

// find gives an accepted request the runner of its lock, or has one launched.
func (r *round) find(ctx context.Context, s *start, req *store.Request) error {
	if req.OfJob() && r.giveSpare(ctx, s, req) {
		return nil
	}
	shareable := store.Shareable(r.now, r.Limits, *req, *r.locks[s.Lock], *r.pulses[s.Lock])
	if shareable && !r.locks[s.Lock].Confirmed(r.now, r.Limits) && !r.reconfirm(ctx, s, req, r.locks[s.Lock]) {
		return nil
	}
	lock := r.locks[s.Lock]
	switch {
	case shareable:
		r.share(s, req, lock)
		return nil
	case !lock.Free():
		return r.blocked(ctx, s, req, lock, r.pulses[s.Lock])
	case !r.Identity.Has(req.Region):
		r.unvouched(s, req)
		return nil
	}
	return r.intend(ctx, s, req, lock)
}

// share gives the request the runner of the lock.
func (r *round) share(s *start, req *store.Request, lock *store.Lock) {
	name := "lock " + lock.Key
	if r.launches(lock) {
		name = "account " + req.Account
	}
	d := store.Case{Request: *req, Lock: *lock}.Share(r.now, r.Limits)
	g := r.put(name, s, d)
	g.after = append(g.after, func() {
		r.Log.Info("shares", "request", s.ID, "trace", s.Trace, "runner", d.Request.Runner, "state", string(d.Request.State))
	})
}

// blocked deals with a lock that names a runner which is neither to be shared nor
// given up yet: it is drained if it may be, and the message is decided again; or
// the request waits.
func (r *round) blocked(ctx context.Context, s *start, req *store.Request, lock *store.Lock, pulse *store.Pulse) error {
	if r.writes(lock) {
		return nil // another message of this batch shares it: that is committed first, and this message decided again
	}
	run, err := store.Read[store.Runner](ctx, r.Store, lock.Runner)
	if err != nil {
		return fmt.Errorf("read runner %s: %w", lock.Runner, err)
	}
	var launcher store.Request
	if run.Version != 0 {
		if launcher, err = store.Read[store.Request](ctx, r.Store, run.Request); err != nil {
			return fmt.Errorf("read request %s: %w", run.Request, err)
		}
	}
	c := store.Case{Request: launcher, Runner: run, Lock: *lock, Pulse: *pulse}
	d := c.Unblock(r.now, r.Limits, r.console(ctx, c))
	if d.Wait.For != "" {
		r.hold(ctx, s, req, d.Wait)
		return nil
	}
	r.drained(ctx, req, d)
	return nil // whatever the commit answers, the message is decided again
}

// console says what the machine of a runner printed, if it drains now since that did not boot.
func (r *round) console(ctx context.Context, c store.Case) string {
	if !store.NotBooted(r.now, r.Limits, c) || r.left() < lastLaunch {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, readConsole)
	defer cancel()
	return store.Console(r.Fleet.Console(ctx, fleet.PlaceOf(c.Runner), c.Runner.InstanceID))
}

// drained commits a runner that drains for a request that it cannot serve.
func (in *invocation) drained(ctx context.Context, req *store.Request, d store.Decision) {
	if err := in.session.Commit(ctx, d.Changes...); err == nil {
		in.Log.Info("drains", "runner", d.Runner.ID, "reason", d.Runner.End.Code, "for", req.ID, "trace", req.Trace)
	}
}

// hold keeps the request accepted until then.
func (r *round) hold(ctx context.Context, s *start, req *store.Request, w store.Wait) {
	w.Until = w.Until.Add(r.jitter(r.Limits.PollResend)) // those who wait for one thing do not all come at once
	r.keep(ctx, s, req, w)
}

// keep is hold, to the moment.
func (r *round) keep(ctx context.Context, s *start, req *store.Request, w store.Wait) {
	d := store.Case{Request: *req}.Hold(r.now, w)
	s.until = d.Request.DueAt
	g := r.put("request "+req.ID, s, d)
	g.held = append(g.held, d)
}

// sends sends the messages of requests that wait, side by side: a batch has many, and
// launches come after them.
func (in *invocation) sends(ctx context.Context, all ...store.Decision) {
	var wg sync.WaitGroup
	for _, d := range all {
		req := d.Request
		in.Log.Info("waits", "request", req.ID, "trace", req.Trace, "for", req.Wait, "until", req.DueAt)
		wg.Go(func() { in.guard(new(error), func() error { in.sendAll(ctx, d); return nil }) })
	}
	wg.Wait()
}
