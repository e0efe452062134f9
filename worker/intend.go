package worker

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// intend plans a machine for the request and adds the intent to the commit of
// its account.
func (r *round) intend(ctx context.Context, s *start, req *store.Request, lock *store.Lock) error {
	account, ok := r.registration(ctx, s, req)
	if !ok {
		return nil
	}
	req = new(req.Following(account))
	quota := r.quotas[req.Account]
	id, err := keys.NewID(r.Random)
	if err != nil {
		return err
	}
	plan := r.plan(ctx, s, account, req, uint(id[0]))
	if plan == nil {
		return nil
	}
	if r.lines(ctx, s, account, store.Case{Request: *req, Lock: *lock, Quota: *quota}) {
		return nil
	}
	if req.OfJob() && !r.wanted(ctx, s, account, req) {
		return nil
	}
	if s.leasing == nil {
		defer r.leasing(ctx, account, s).Wait()
	}
	launch, err := r.freeze(ctx, *req, account, id)
	if err != nil {
		r.unfrozen(ctx, s, req, err)
		return nil
	}
	if why, refused := quota.Refuses(r.now, launch.Image, r.ProgramKey); refused {
		r.refuse(s, req, why)
		return nil
	}
	launch.BootLimitsS = account.BootLimits(plan, r.Limits)
	sealed, err := r.keys().SealExternalID(r.Random, launch.KeyID, account.ID, account.ExternalID)
	if err != nil {
		return err
	}
	if !r.leased(ctx, s, req) {
		return nil
	}
	d := store.Case{Request: *req, Lock: *lock, Quota: *quota}.Begin(r.now, r.Limits, store.Intent{
		Runner: id, ControlPlane: r.ControlPlane, MaxRunners: account.MaxRunners, Claim: r.claim(),
		Reach: store.ReachOf(account, req.Region, launch.KeyID, sealed),
		Plan:  r.capacity.sorted(r.now, req.Account, req.Region, req.Prefer(plan)), Launch: launch,
		Pacing: account.Pace(r.Limits), Lease: s.lease,
	})
	if d.Wait.For != "" {
		r.keep(ctx, s, req, d.Wait)
		return nil
	}
	g := r.put("account "+req.Account, s, d)
	g.after = append(g.after, func() { r.begun(s, d, account) })
	return nil
}

// plan returns the placements to try for the request, spread over the subnets; nil: there are
// none now or ever, which is decided.
func (r *round) plan(ctx context.Context, s *start, account store.Account, req *store.Request, spread uint) []store.Placement {
	types, err := r.chosen(ctx, account, *req)
	switch {
	case err != nil:
		r.unfrozen(ctx, s, req, err)
		return nil
	case types != nil && len(types) == 0:
		r.refuse(s, req, store.NoType(*req))
		return nil
	}
	plan, err := account.Plan(*req, spread, types)
	if err != nil {
		r.refuse(s, req, store.Failure{Code: "not_allowed", Text: err.Error() + "."})
		return nil
	}
	return plan
}

// begun takes the start on to the launch, once its intent is committed.
func (r *round) begun(s *start, d store.Decision, account store.Account) {
	run, req := d.Runner, d.Request
	r.Log.Info("launches", "request", req.ID, "runner", run.ID, "trace", req.Trace, "placement", run.Placement().String())
	if req.Starved() {
		r.alarm(store.AlarmJobWaits, "a job lost its machines, and gets the next: "+req.Lost, "request", req.ID, "job", req.Job.ID, "url", req.Job.URL,
			"machines", req.Tries, "repository", req.Repository.Name, "trace", req.Trace)
	}
	r.first(run.ID)
	v := &launching{invocation: r.invocation, Case: *d.Case, account: account}
	v.Case = v.With(r.locks[run.Lock], r.quotas[run.Account]) // as later messages of the batch left them
	s.drive = v
}

// unfrozen refuses the request for which no launch could be put together since the account
// refuses us, and holds one for which something did not answer.
func (r *round) unfrozen(ctx context.Context, s *start, req *store.Request, err error) {
	if !errors.Is(err, fleet.ErrRefused) {
		r.Log.Warn("launch not put together", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", err)
		r.hold(ctx, s, req, store.Wait{For: store.WaitOutage, Until: r.now.Add(r.Limits.Waits[0])})
		return
	}
	if r.quotas[req.Account].Unreached(r.now, false).Alarm != "" { // else the reaper has raised it already
		r.alarm(store.AlarmAccess, "account refuses", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", err)
	}
	r.refuse(s, req, store.Failure{Code: store.EndLaunchDenied, Text: refusalText(err)})
}

// refuse fails the request: no machine could ever be launched for it.
func (r *round) refuse(s *start, req *store.Request, why store.Failure) {
	g := r.put("request "+req.ID, s, store.Case{Request: *req}.Fail(r.now, r.Limits, why))
	g.after = append(g.after, func() {
		r.Log.Info("refused", "request", req.ID, "trace", req.Trace, "code", why.Code, "text", why.Text)
	})
}
