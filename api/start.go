package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// start records a request and tells the worker. Whoever repeats the call gets
// the record that the first one made: the commit demands that there is none.
func (s *server) start(ctx context.Context, c *call, body apitype.Start) (apitype.Started, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return apitype.Started{}, err
	}
	labels, err := checkStart(body)
	if err != nil {
		return apitype.Started{}, err
	}
	account, repo, err := s.place(ctx, c, who, body)
	if err != nil {
		return apitype.Started{}, err
	}
	r, err := s.wish(who, account, repo, labels, body)
	if err != nil {
		return apitype.Started{}, err
	}
	c.about("account", account.ID)
	c.about("repository", repo.ID)
	v := Authorize(s.Limits, who, account, r)
	if !v.Allowed {
		c.deny(v.Reason)
		return apitype.Started{}, forbidden(v.Field, v.Text)
	}
	c.allow(v.Reason)
	giveUp := s.Limits.GiveUp
	if body.GiveUp != 0 {
		giveUp = time.Duration(body.GiveUp) * time.Second
	}
	key := body.IdempotencyKey
	if key == "" && who.Kind == Operator {
		if key, err = keys.NewID(s.Random); err != nil {
			return apitype.Started{}, err
		}
	}
	cl := who.Claims
	now := s.Now()
	d := store.Case{Request: r}.Accept(now, store.Identity{
		ID:    s.Keys.RequestID(repo.Key(), cl.RunID, cl.RunAttempt, cl.CheckRunID, key),
		Trace: c.trace, BodyHash: bodyHash(r, giveUp), GiveUp: giveUp, OwnLabel: s.Keys.OwnLabel,
	})
	r = d.Request
	c.about("request", r.ID)
	err = c.apply(ctx, d)
	if conflict, ok := errors.AsType[*store.ConflictError](err); ok {
		return s.replayed(c, r, conflict)
	}
	if err != nil {
		return apitype.Started{}, err
	}
	c.status = http.StatusAccepted
	return s.started(r, now), nil
}

// replayed answers a call whose request exists already.
func (s *server) replayed(c *call, r store.Request, conflict *store.ConflictError) (apitype.Started, error) {
	for _, i := range conflict.Current {
		was, ok := i.(*store.Request)
		if !ok || was.ID != r.ID || was.Version == 0 {
			continue
		}
		if was.BodyHash != r.BodyHash {
			return apitype.Started{}, &problem{
				code: apitype.CodeMismatch, field: "idempotency_key",
				detail: "This key, or none, was used by the same job with another body. Use another key for another request.",
			}
		}
		c.status = http.StatusAccepted
		if was.State.Final() {
			c.status = http.StatusOK
		}
		return s.started(*was, s.Now()), nil
	}
	return apitype.Started{}, conflict
}

func (s *server) started(r store.Request, now time.Time) apitype.Started {
	return apitype.Started{
		ID: r.ID, State: string(r.State), OwnLabel: r.OwnLabel, RunsOn: r.RunsOn(), Labels: list(r.Labels),
		StatusURL:   s.URL + "/status/" + r.ID,
		StatusToken: s.Keys.Status(r.ID, now.Add(s.Limits.StatusToken)).Reveal(),
		RetryAfter:  pollAfter,
	}
}

// bodyHash returns the SHA-256 of what is wished for, with all defaults filled
// in: two bodies that mean the same are the same.
func bodyHash(r store.Request, giveUp time.Duration) string {
	b, err := json.Marshal(struct {
		Account, Region, Repository, Type, Mode string
		Labels                                  []string
		Machine                                 store.Machine
		TimeoutS                                int
		GiveUp                                  time.Duration
	}{r.Account, r.Region, r.Repository.Key(), r.Type, r.Mode, r.Labels, r.Machine, r.TimeoutS, giveUp})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// wish fills in what a request asks for, with the account's defaults.
func (s *server) wish(who Caller, a store.Account, repo store.Repository, labels []string, b apitype.Start) (store.Request, error) {
	r := store.Request{
		Caller: printable(who.String(), 128), Repository: repo, Account: a.ID, Labels: labels,
		Region: cmp.Or(b.Region, a.DefaultRegion), Type: cmp.Or(b.Type, first(a.Markets)), Mode: cmp.Or(b.Mode, first(a.Modes)),
		Machine: store.Machine{
			InstanceTypes: b.InstanceTypes, Image: b.ImageID,
			Subnets: sorted(b.Subnets), SecurityGroups: sorted(b.SecurityGroups),
		},
		TimeoutS: b.Timeout,
	}
	if r.Region == "" {
		if len(a.Regions) != 1 {
			return r, invalid("region", "Name one: account %s has no default.", a.ID)
		}
		for name := range a.Regions {
			r.Region = name
		}
	}
	if r.TimeoutS == 0 {
		r.TimeoutS = max(1, int(min(s.Limits.Timeout, a.MaxTimeout(s.Limits)).Seconds()))
	}
	if who.Kind == GitHub {
		cl := who.Claims
		r.Origin = store.Origin{
			RunID: cl.RunID, RunAttempt: cl.RunAttempt, CheckRunID: cl.CheckRunID, Actor: printable(cl.Actor, 128), Event: cl.Event,
			Ref: printable(cl.Ref, 256), Workflow: printable(cl.Workflow, 256), Environment: printable(cl.Environment, 256),
		}
	}
	return r, nil
}

// place finds the account to launch into, and the repository to launch for: a
// workflow's own, an operator's by the name that the account is registered for.
func (s *server) place(ctx context.Context, c *call, who Caller, b apitype.Start) (store.Account, store.Repository, error) {
	cl := who.Claims
	repo := cl.repository()
	serves := func(a store.Account) (store.Repository, bool) { return repo, a.Serves(repo) }
	switch {
	case who.Kind == Operator && b.Repo == "":
		return store.Account{}, repo, invalid("repo", "Name the repository: an operator's token belongs to none.")
	case who.Kind == Operator:
		serves = func(a store.Account) (store.Repository, bool) { return registered(a, b.Repo) }
	case b.Repo != "" && b.Repo != cl.Repository:
		c.deny("another repository")
		return store.Account{}, repo, forbidden("repo", "A workflow gets runners for its own repository only. Leave repo out.")
	}
	ids := []string{b.AccountID}
	if b.AccountID == "" {
		var err error
		if ids, err = s.Accounts.List(ctx); err != nil {
			return store.Account{}, repo, outage(fmt.Errorf("list accounts: %w", err))
		}
	}
	var account store.Account
	found := 0
	for _, id := range ids {
		a, err := s.Accounts.Account(ctx, id)
		if errors.Is(err, store.ErrNoAccount) {
			continue
		}
		if err != nil {
			return store.Account{}, repo, outage(fmt.Errorf("account %s: %w", id, err))
		}
		if r, ok := serves(a); ok {
			account, repo = a, r
			found++
		}
	}
	switch {
	case found == 0:
		v := notServed()
		c.deny(v.Reason)
		return store.Account{}, repo, forbidden(v.Field, v.Text)
	case found > 1:
		return store.Account{}, repo, invalid("account_id", "Name one: %d accounts are registered for this repository.", found)
	}
	return account, repo, nil
}

// registered finds the repository of exactly that name in the registration.
func registered(a store.Account, name string) (store.Repository, bool) {
	i := slices.IndexFunc(a.Repositories, func(n store.Named) bool { return n.Name == name })
	if i < 0 {
		return store.Repository{}, false
	}
	owner, _, _ := strings.Cut(name, "/")
	repo := store.Repository{Server: a.Server, ID: a.Repositories[i].ID, Name: name, Owner: owner}
	if j := slices.IndexFunc(a.Owners, func(n store.Named) bool { return n.Name == owner }); j >= 0 {
		repo.OwnerID = a.Owners[j].ID
	}
	return repo, true
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }
