package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// start records a request and sends its message to a worker. A call that is repeated
// gets the record that the first one made: the commit demands that there is none.
func (s *server) start(ctx context.Context, c *call, body apitype.Start) (apitype.Started, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return apitype.Started{}, err
	}
	labels, err := checkStart(body)
	if err != nil {
		return apitype.Started{}, err
	}
	w, err := s.wish(c, who, labels, body)
	if err != nil {
		return apitype.Started{}, err
	}
	account, repo, err := s.place(ctx, c, who, body)
	if err != nil {
		return apitype.Started{}, err
	}
	r, err := s.intake.Complete(account, repo, w)
	if err != nil {
		return apitype.Started{}, c.refusal(err)
	}
	c.about("account", account.ID)
	c.about("repository", repo.ID)
	v := Authorize(s.Limits, who, account, r)
	if !v.Allowed {
		c.deny(v.Reason)
		return apitype.Started{}, forbidden(v.Field, v.Text)
	}
	c.allow(v.Reason)
	now := s.Now()
	d := s.intake.Accept(now, r, w)
	c.about("request", d.Request.ID)
	if err := s.admit(ctx, c, account, d); err != nil {
		return s.replayed(c, d, err)
	}
	c.status = http.StatusAccepted
	return s.started(d.Request, now), nil
}

// admit commits and sends a request if its repository has room for one more. A call
// that is repeated gets its record also when there is none: it is read then.
func (s *server) admit(ctx context.Context, c *call, a store.Account, d store.Decision) error {
	err := s.intake.Open.Admit(ctx, a, d.Request.Repository, func() error { return c.apply(ctx, d) }, func(err error) {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "open requests not counted", slog.String("trace", c.trace), slog.Any("error", err))
	})
	no, ok := errors.AsType[*intake.Refusal](err)
	if _, told := errors.AsType[*problem](err); told || !ok && errors.Is(err, store.ErrConflict) || err == nil {
		return err
	}
	if !ok {
		return outage(err)
	}
	items, err := c.get(ctx, d.Request.Ref())
	if err != nil {
		return err
	}
	if items[0].Base().Version > 0 {
		return &store.ConflictError{Current: items}
	}
	c.deny(no.Reason)
	return throttled(no.Full, no.Text)
}

// replayed answers a call whose request exists already.
func (s *server) replayed(c *call, d store.Decision, err error) (apitype.Started, error) {
	was, ok, err := intake.Replayed(d, err)
	switch {
	case errors.Is(err, intake.ErrMismatch):
		return apitype.Started{}, &problem{
			code: apitype.CodeMismatch, field: "idempotency_key",
			detail: "This key, or none, was used by the same job with another body. Use another key for another request.",
		}
	case !ok:
		return apitype.Started{}, err
	}
	c.status = http.StatusAccepted
	if was.State.Final() {
		c.status = http.StatusOK
	}
	return s.started(was, s.Now()), nil
}

func (s *server) started(r store.Request, now time.Time) apitype.Started {
	return apitype.Started{
		ID: r.ID, State: string(r.State), OwnLabel: r.OwnLabel, RunsOn: r.RunsOn(), Labels: list(r.Labels),
		StatusURL:   s.URL + "/status/" + r.ID,
		StatusToken: apitype.Token(s.Keys.Status(r.ID, now.Add(s.Limits.StatusToken)).Reveal()),
		RetryAfter:  pollAfter,
	}
}

// machineOf returns what a body says of the machine.
func machineOf(b apitype.Start) store.Machine {
	return store.Machine{
		InstanceTypes: b.InstanceTypes, Image: b.ImageID, Subnets: b.Subnets, SecurityGroups: b.SecurityGroups, RootVolumeGB: b.RootVolumeGB, Tags: b.Tags,
		CPU: b.CPU, MemoryGB: b.Memory, GPU: b.GPU, Arch: b.Arch,
	}
}

// wish returns what a body asks for. An operator that names no key wishes for something
// new with each call.
func (s *server) wish(c *call, who Caller, labels []string, b apitype.Start) (intake.Wish, error) {
	w := intake.Wish{
		Caller: printable(who.String(), 128), Trace: c.trace, Key: b.IdempotencyKey,
		Account: b.AccountID, Region: b.Region, Regions: b.Regions, Type: b.Type, Mode: b.Mode, Labels: labels,
		Machine:  machineOf(b),
		TimeoutS: b.Timeout, GiveUp: time.Duration(b.GiveUp) * time.Second,
	}
	switch who.Kind {
	case Operator:
		if w.Key == "" {
			var err error
			if w.Key, err = keys.NewID(s.Random); err != nil {
				return w, err
			}
		}
	case GitHub:
		cl := who.Claims
		w.Origin = store.Origin{
			RunID: cl.RunID, RunAttempt: cl.RunAttempt, CheckRunID: cl.CheckRunID, Actor: printable(cl.Actor, 128), Event: cl.Event,
			Ref: printable(cl.Ref, 256), Workflow: printable(cl.Workflow, 256), Environment: printable(cl.Environment, 256),
		}
	}
	return w, nil
}

// place finds the account to launch into, and the repository to launch for: a
// workflow's own, an operator's by the name that the account is registered for.
func (s *server) place(ctx context.Context, c *call, who Caller, b apitype.Start) (store.Account, store.Repository, error) {
	repo := who.Claims.repository()
	serves := func(a store.Account) (store.Repository, bool) { return repo, a.Serves(repo) }
	switch {
	case who.Kind == Operator && b.Repo == "":
		return store.Account{}, repo, invalid("repo", "Name the repository: an operator's token belongs to none.")
	case who.Kind == Operator:
		serves = func(a store.Account) (store.Repository, bool) { return intake.Named(a, b.Repo) }
	case b.Repo != "" && b.Repo != who.Claims.Repository:
		c.deny("another repository")
		return store.Account{}, repo, forbidden("repo", "A workflow gets runners for its own repository only. Leave repo out.")
	}
	account, repo, err := s.intake.Place(ctx, b.AccountID, serves)
	return account, repo, c.refusal(err)
}

// refusal returns how the intake's error is answered.
func (c *call) refusal(err error) error {
	r, ok := errors.AsType[*intake.Refusal](err)
	switch {
	case !ok:
		return outage(err)
	case r.Invalid:
		return invalid(r.Field, "%s", r.Text)
	}
	c.deny(r.Reason)
	return forbidden(r.Field, r.Text)
}
