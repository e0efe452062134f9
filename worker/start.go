package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// start is one start message of the batch.
type start struct {
	queue.Message
	err  *error
	done bool
	// until is when the request is to be looked at again, if it was told to wait.
	until time.Time
	// drive is the runner whose launch goes on for this message.
	drive *launching
}

// group is what is committed together: everything that is decided from one lock,
// or all the intents of one account.
type group struct {
	store.Batch
	members []*start
	// after is called once the commit is done.
	after []func()
}

// round is one pass over the messages that are not settled yet: a copy of the
// items, on which each message is decided in turn, as if those before it were
// committed already.
type round struct {
	*invocation
	now      time.Time
	requests map[string]*store.Request
	locks    map[string]*store.Lock
	pulses   map[string]*store.Pulse
	quotas   map[string]*store.Quota
	groups   []*group
	byName   map[string]*group
}

// starts settles all start messages of the batch, and then drives the launches
// that came of it, side by side.
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
		if s.drive != nil {
			wg.Go(func() { in.guard(s.err, func() error { return in.drive(ctx, s.drive) }) })
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
		quotas: map[string]*store.Quota{}, byName: map[string]*group{},
	}
	var refs []store.Ref
	for _, s := range open {
		refs = append(refs, store.Ref{Kind: store.KindRequest, ID: s.ID}, store.Ref{Kind: store.KindLock, ID: s.Lock},
			store.Ref{Kind: store.KindPulse, ID: s.Lock}, store.Ref{Kind: store.KindQuota, ID: s.Account})
	}
	if err := r.get(ctx, refs); err != nil {
		return fmt.Errorf("read %d requests: %w", len(open), err)
	}
	for _, s := range open {
		var err error
		if in.guard(&err, func() error { return in.decideOne(ctx, r, s) }); err != nil {
			*s.err, s.done = err, true
		}
	}
	for _, g := range r.groups {
		err := in.session.Commit(ctx, g.Changes...)
		switch {
		case err == nil:
			for _, s := range g.members {
				s.done = true
			}
			for _, f := range g.after {
				f()
			}
		case errors.Is(err, store.ErrConflict):
			in.Log.Debug("lost a commit", "members", len(g.members), "error", err)
		default:
			// It may have happened: what is decided next is read anew.
			in.Log.Warn("commit without an answer", "members", len(g.members), "error", err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// get adds the items of refs to the round.
func (r *round) get(ctx context.Context, refs []store.Ref) error {
	slices.SortFunc(refs, func(a, b store.Ref) int { return strings.Compare(a.String(), b.String()) })
	items, err := r.Store.Get(ctx, slices.Compact(refs)...)
	if err != nil {
		return err
	}
	for _, i := range items {
		r.set(i)
	}
	return nil
}

// set makes i what is decided from next.
func (r *round) set(i store.Item) {
	switch i := i.(type) {
	case *store.Request:
		r.requests[i.ID] = i
	case *store.Lock:
		r.locks[i.Key] = i
	case *store.Pulse:
		r.pulses[i.Key] = i
	case *store.Quota:
		r.quotas[i.Account] = i
	}
}

// put adds what was decided for s to the group of that name, and makes it what is
// decided from next.
func (r *round) put(name string, s *start, d store.Decision) *group {
	g := r.group(name, s)
	g.Add(d)
	for _, c := range d.Changes {
		r.set(c.Item)
	}
	return g
}

// group returns the group of that name, with s as a member.
func (r *round) group(name string, s *start) *group {
	g := r.byName[name]
	if g == nil {
		g = &group{}
		r.byName[name] = g
		r.groups = append(r.groups, g)
	}
	g.members = append(g.members, s)
	return g
}

// decideOne decides one start message.
func (in *invocation) decideOne(ctx context.Context, r *round, s *start) error {
	log := in.Log.With("request", s.ID, "trace", s.Trace)
	req := r.requests[s.ID]
	switch {
	case req.Version == 0:
		in.alarm(store.AlarmUnknown, "message for a request that is not recorded", "request", s.ID, "trace", s.Trace)
		return fmt.Errorf("request %s is not recorded", s.ID)
	case req.State == store.Waiting && r.intended(req):
		s.done = true // by an earlier message of this batch
		return nil
	case req.State == store.Waiting:
		s.done = true
		v := &launching{Case: store.Case{Request: *req, Runner: store.Runner{ID: req.Runner, Lock: req.LockKey()}}}
		return in.takeOver(ctx, v, s)
	case req.State != store.Accepted, req.DueAt.After(r.now.Add(early)):
		s.done = true
		if req.State == store.Accepted && req.DueAt.Equal(s.until) { // by us: the answer was lost
			in.held(ctx, store.Case{Request: *req}.Held())
		}
		return nil
	case req.LockKey() != s.Lock || req.Account != s.Account:
		return fmt.Errorf("message for request %s names another lock or account", s.ID)
	}
	if req.Overdue(r.now) {
		r.put("request "+req.ID, s, store.Case{Request: *req}.Expire(r.now, in.Limits))
		return nil
	}
	shareable := store.Shareable(r.now, in.Limits, *req, *r.locks[s.Lock], *r.pulses[s.Lock])
	if shareable && !r.locks[s.Lock].Confirmed(r.now, in.Limits) {
		if shareable = in.reconfirm(ctx, r, s, req, r.locks[s.Lock]); !shareable {
			return nil
		}
	}
	lock := r.locks[s.Lock]
	switch {
	case shareable:
		name := "lock " + lock.Key
		if r.launches(lock) {
			name = "account " + req.Account
		}
		d := store.Case{Request: *req, Lock: *lock}.Share(r.now, in.Limits)
		g := r.put(name, s, d)
		g.after = append(g.after, func() { log.Info("shares", "runner", d.Request.Runner, "state", string(d.Request.State)) })
		return nil
	case !lock.Free():
		return in.blocked(ctx, r, s, req, lock, r.pulses[s.Lock])
	}
	return in.intend(ctx, r, s, req, lock)
}

// intended reports whether this round has made the request wait.
func (r *round) intended(req *store.Request) bool {
	for _, g := range r.groups {
		for _, c := range g.Changes {
			if c.Item == store.Item(req) {
				return true
			}
		}
	}
	return false
}

// launches reports whether this round has an intent on the lock.
func (r *round) launches(l *store.Lock) bool {
	for _, g := range r.groups {
		for _, c := range g.Changes {
			if run, ok := c.Item.(*store.Runner); ok && run.ID == l.Runner && run.Version == 0 {
				return true
			}
		}
	}
	return false
}

// blocked deals with a lock that names a runner which is neither to be shared nor
// given up yet: it is drained if it may be, and the message is decided again; or
// the request waits.
func (in *invocation) blocked(ctx context.Context, r *round, s *start, req *store.Request, lock *store.Lock, pulse *store.Pulse) error {
	run, err := store.Read[store.Runner](ctx, in.Store, lock.Runner)
	if err != nil {
		return fmt.Errorf("read runner %s: %w", lock.Runner, err)
	}
	var launcher store.Request
	if run.Version != 0 {
		if launcher, err = store.Read[store.Request](ctx, in.Store, run.Request); err != nil {
			return fmt.Errorf("read request %s: %w", run.Request, err)
		}
	}
	d := store.Case{Request: launcher, Runner: run, Lock: *lock, Pulse: *pulse}.Unblock(r.now, in.Limits)
	if d.Wait.For != "" {
		in.hold(ctx, r, s, req, d.Wait)
		return nil
	}
	in.drained(ctx, req, d)
	return nil // whatever the commit answers, the message is decided again
}

// drained commits a runner that drains for a request that it cannot serve.
func (in *invocation) drained(ctx context.Context, req *store.Request, d store.Decision) {
	if err := in.session.Commit(ctx, d.Changes...); err == nil {
		in.Log.Info("drains", "runner", d.Runner.ID, "reason", d.Runner.End.Code, "for", req.ID, "trace", req.Trace)
	}
}

// hold keeps the request accepted until then.
func (in *invocation) hold(ctx context.Context, r *round, s *start, req *store.Request, w store.Wait) {
	w.Until = w.Until.Add(in.jitter(in.Limits.PollResend)) // those who wait for one thing do not all come at once
	d := store.Case{Request: *req}.Hold(r.now, w)
	s.until = d.Request.DueAt
	g := r.put("request "+req.ID, s, d)
	g.after = append(g.after, func() { in.held(ctx, d) })
}

// held sends the message of a request that waits.
func (in *invocation) held(ctx context.Context, d store.Decision) {
	req := d.Request
	in.Log.Info("waits", "request", req.ID, "trace", req.Trace, "for", req.Wait, "until", req.DueAt)
	in.sendAll(ctx, d)
}

// intend plans a machine for the request and adds the intent to the commit of
// its account.
func (in *invocation) intend(ctx context.Context, r *round, s *start, req *store.Request, lock *store.Lock) error {
	account, err := in.Accounts.Account(ctx, req.Account)
	switch {
	case errors.Is(err, store.ErrNoAccount):
		in.refuse(r, s, req, store.Failure{Code: "account_unknown", Text: "Account " + req.Account + " is no longer registered."})
		return nil
	case err != nil:
		in.alarm(store.AlarmAccess, "registration cannot be read", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", err)
		in.hold(ctx, r, s, req, store.Wait{For: store.WaitOutage, Until: r.now.Add(in.Limits.Waits[0])})
		return nil
	}
	quota := r.quotas[req.Account]
	id, err := keys.NewID(in.Random)
	if err != nil {
		return err
	}
	plan, err := account.Plan(*req, uint(id[0]))
	if err != nil {
		in.refuse(r, s, req, store.Failure{Code: "not_allowed", Text: err.Error() + "."})
		return nil
	}
	launch, err := in.freeze(ctx, *req, account, id)
	if err != nil {
		if errors.Is(err, fleet.ErrRefused) {
			in.alarm(store.AlarmAccess, "account refuses", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", err)
			in.refuse(r, s, req, store.Failure{Code: store.EndLaunchDenied, Text: refusalText(err)})
			return nil
		}
		in.Log.Warn("image not resolved", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", err)
		in.hold(ctx, r, s, req, store.Wait{For: store.WaitOutage, Until: r.now.Add(in.Limits.Waits[0])})
		return nil
	}
	if why, refused := quota.Refuses(r.now, launch.Image, in.ProgramKey); refused {
		in.refuse(r, s, req, why)
		return nil
	}
	d := store.Case{Request: *req, Lock: *lock, Quota: *quota}.Begin(r.now, in.Limits, store.Intent{
		Runner: id, ControlPlane: in.ControlPlane, MaxRunners: account.MaxRunners, Claim: in.claim(),
		Plan: in.capacity.sorted(r.now, req.Account, req.Region, req.Prefer(plan)), Launch: launch,
		Slots: store.Slots{Pacing: account.Pacing, Latest: in.deadline.Add(-lastLaunch)},
	})
	if d.Wait.For != "" {
		in.hold(ctx, r, s, req, d.Wait)
		return nil
	}
	g := r.put("account "+req.Account, s, d)
	g.after = append(g.after, func() {
		run := d.Runner
		in.Log.Info("launches", "request", req.ID, "runner", run.ID, "trace", req.Trace, "placement", run.Placement().String())
		in.first(run.ID)
		v := &launching{Case: *d.Case, pacing: account.Pacing}
		v.Case = v.With(r.locks[run.Lock], r.quotas[run.Account]) // as later messages of the batch left them
		s.drive = v
	})
	return nil
}

// refuse fails the request: no machine could ever be launched for it.
func (in *invocation) refuse(r *round, s *start, req *store.Request, why store.Failure) {
	g := r.put("request "+req.ID, s, store.Case{Request: *req}.Fail(r.now, in.Limits, why))
	g.after = append(g.after, func() {
		in.Log.Info("refused", "request", req.ID, "trace", req.Trace, "code", why.Code, "text", why.Text)
	})
}

// imageOf returns the image that a request is to have, an AMI id or the path of an
// SSM parameter.
func imageOf(req store.Request, region store.Region) string {
	if req.Machine.Image == "" && len(region.Images) > 0 {
		return region.Images[0]
	}
	return req.Machine.Image
}

// freeze resolves everything that the launch of a runner is made of.
func (in *invocation) freeze(ctx context.Context, req store.Request, a store.Account, runner string) (store.Launch, error) {
	region := a.Regions[req.Region]
	image := imageOf(req, region)
	ami, err := in.Fleet.Image(ctx, fleet.Place{Account: req.Account, Region: req.Region}, image)
	if err != nil {
		return store.Launch{}, fmt.Errorf("image %s: %w", image, err)
	}
	groups := req.Machine.SecurityGroups
	if len(groups) == 0 {
		groups = region.SecurityGroups
	}
	return store.Launch{
		Image: ami, SecurityGroups: groups, InstanceProfile: region.InstanceProfile,
		Tags: map[string]string{
			"Name":                "garo " + req.Repository.Name,
			fleet.TagControlPlane: in.ControlPlane,
			fleet.TagRunner:       runner,
			fleet.TagRequest:      req.ID,
			fleet.TagRepository:   req.Repository.Name,
		},
		Script: bootstrap.Current, APIURL: in.APIURL, AgentSHA256: in.Agents,
		HardS: int(a.Hard(in.Limits) / time.Second), KeyID: in.Keys.Current(),
	}, nil
}
