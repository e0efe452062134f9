package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// filter returns what the parameters of a list mean to who may see v.
func (s *server) filter(ctx context.Context, c *call, v sight, kind store.Kind) (store.Filter, error) {
	f := store.Filter{Kind: kind, Look: looked}
	for _, p := range []struct {
		name, want string
		fits       func(string) bool
		into       *string
	}{
		{"repository", "Want owner/name, or the repository's numeric id.", isRepository, &f.Repository},
		{"account", "Want the twelve digits of an AWS account.", form.AWSAccount.Fits, &f.Account},
		{"region", "Want the name of an AWS region, such as eu-west-2.", isRegion, &f.Region},
		{"after", "Want the after of another page.", cursorForm.Fits, &f.After},
	} {
		if !c.query.Has(p.name) {
			continue
		}
		if *p.into = c.query.Get(p.name); !p.fits(*p.into) {
			return f, invalid(p.name, "%s", p.want)
		}
	}
	if c.query.Has("since") {
		since, err := time.Parse(time.RFC3339, c.query.Get("since"))
		if err != nil {
			return f, invalid("since", "Want a time such as 2026-03-01T12:00:00Z.")
		}
		f.Since = since
	}
	var err error
	if f.States, err = states(c, kind); err != nil {
		return f, err
	}
	if f.Whole() {
		f.Look = read
	}
	return s.ofRepository(ctx, c, v, f)
}

// isRepository reports whether s is a repository's name or id.
func isRepository(s string) bool { return repoForm.Fits(s) || form.GitHubID.Fits(s) }

// states returns the states that a list is narrowed to. None: all.
func states(c *call, kind store.Kind) ([]string, error) {
	var known, some []string
	word := "live" // of runners: all that are not over
	if kind == store.KindRequest {
		for _, state := range store.RequestStates {
			known = append(known, string(state))
		}
		word, some = "failed", []string{string(store.Failed), string(store.Expired)}
	} else {
		for _, state := range store.RunnerStates {
			known = append(known, string(state))
			if !state.Final() {
				some = append(some, string(state))
			}
		}
	}
	if c.query.Has(word) {
		switch c.query.Get(word) {
		case "true":
			if c.query.Has("state") {
				return nil, invalid(word, "Want this or state, not both.")
			}
			return some, nil
		case "false":
		default:
			return nil, invalid(word, "Want true or false.")
		}
	}
	if !c.query.Has("state") {
		return nil, nil
	}
	state := c.query.Get("state")
	if !slices.Contains(known, state) {
		return nil, invalid("state", "Want one of %v.", known)
	}
	return []string{state}, nil
}

// ofRepository narrows f to what v may see, and makes an id of a repository's name: by
// the registrations, or by the newest request of that name. So a repository is found with
// the records that it has under former names.
func (s *server) ofRepository(ctx context.Context, c *call, v sight, f store.Filter) (store.Filter, error) {
	wanted := f.Repository
	if !v.all {
		f.Repository = v.repo.ID
		if wanted != "" && wanted != v.repo.ID && wanted != v.repo.Name {
			return f, invalid("repository", "This token sees the records of its own repository alone.")
		}
		return f, nil
	}
	if wanted == "" || form.GitHubID.Fits(wanted) {
		return f, nil
	}
	ids, err := s.Accounts.List(ctx)
	if err != nil {
		return f, outage(fmt.Errorf("list accounts: %w", err))
	}
	for _, id := range ids {
		a, err := s.Accounts.Account(ctx, id)
		if err != nil {
			continue // closed or unusable: another one, or the records, may know the name
		}
		if repo, ok := intake.Named(a, wanted); ok {
			f.Repository = repo.ID
			return f, nil
		}
	}
	for i, err := range c.store.List(ctx, store.Filter{Kind: store.KindRequest, Name: wanted, Limit: 1, Look: read}) {
		if _, more := errors.AsType[*store.MoreError](err); more {
			break
		}
		if err != nil {
			return f, outage(err)
		}
		f.Repository = repositoryOf(i).ID
		return f, nil
	}
	return f, invalid("repository", "No registration and none of the newest %d requests has this name. Give the repository's numeric id.", read)
}
