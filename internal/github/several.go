package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// passFor is how long a credential that GitHub refused is asked last: a person needs
// minutes to put it right, and each try is a call for nothing, and an alarm.
const passFor = 10 * time.Minute

// refusals remembers, for this process alone, what credentials were refused for.
type refusals struct {
	mu    sync.Mutex
	until map[Access]time.Time
}

// key is what a refusal is about, for all that have the same credential.
func (a Access) key() Access {
	return Access{Credential: a.Credential, Repository: a.Repository, Right: a.Right}
}

// has reports whether a call was refused lately.
func (r *refusals) has(a Access, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.until[a.key()])
}

// add notes a refusal, and reports whether it is new.
func (r *refusals) add(a Access, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := now.Before(r.until[a.key()])
	if !known {
		for k, until := range r.until {
			if !now.Before(until) {
				delete(r.until, k)
			}
		}
		r.until[a.key()] = now.Add(passFor)
	}
	return !known
}

// strict reports whether the call is for one credential alone: a registration is leased from
// it, and its limits are its own.
func (o op) strict() bool { return o == mint || o == rates }

// do makes one call, with the credential of the errand first and then, where that is
// refused, limited or sees nothing, with the account's others. Those that were refused lately
// come last, and else who has most of its hour left first. That GitHub does not have
// something is an answer if the named credential says so, or all that serve do. What fails,
// save for the credential, is an *Error.
func (c *Client) do(ctx context.Context, e errand, ask ask) (*gogithub.Response, error) {
	if e.access.Right != AsApp && !ids.Fits(e.id) {
		return nil, fmt.Errorf("%w: %.20q is no id of GitHub's", &Error{Kind: ErrRefused, Op: e.what}, e.id)
	}
	named := e.access.Credential
	names, several, err := c.order(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("%s: credential: %w", e.what, err)
	}
	var limited, absent, denied error
	for _, name := range names {
		e.access.Credential = name
		resp, err := c.by(ctx, e, ask)
		switch {
		case err == nil || !several || ctx.Err() != nil:
			return resp, err
		case errors.Is(err, ErrLimited) && !errors.Is(err, ErrFull):
			limited = sooner(limited, err)
		case errors.Is(err, ErrDenied), errors.Is(err, ErrNotFound) && (e.op == mint || e.op == groups):
			denied = err
			c.passOver(ctx, e, err)
		case errors.Is(err, ErrNotFound) && name != named:
			absent = err
		default:
			return nil, err
		}
	}
	return nil, cmp.Or(limited, absent, denied)
}

// sooner returns the one of two limits that ends first.
func sooner(a, b error) error {
	ae, _ := errors.AsType[*Error](a)
	be, ok := errors.AsType[*Error](b)
	if ae == nil || ok && be.RetryAt.Before(ae.RetryAt) {
		return b
	}
	return a
}

// order returns the credentials to try for an errand, one after another, and whether the
// account has several.
func (c *Client) order(ctx context.Context, e errand) (names []string, several bool, err error) {
	if c.names == nil || e.access.Right == AsApp { // which the account's one App is asked as
		return []string{""}, false, nil
	}
	all, err := c.names(ctx, e.access.Account)
	if err != nil {
		return nil, false, err
	}
	named := e.access.Credential
	switch {
	case len(all) == 1:
		return all, false, nil
	case e.op.strict() && named != "":
		if !slices.Contains(all, named) {
			return nil, false, &Error{Kind: ErrDenied, Op: fmt.Sprintf("use credential %s, which the registration of account %s does not name", named, e.access.Account)}
		}
		return []string{named}, true, nil
	}
	type rank struct {
		name  string
		class int // 0: the named one; 1: another; 2: refused lately
		left  float64
	}
	var ranks []rank
	now := c.now()
	for _, name := range all {
		r := rank{name: name, class: 1}
		e.access.Credential = name
		switch {
		case c.refused.has(e.access, now):
			r.class = 2
		case name == named:
			r.class = 0
		}
		r.left = c.limit.left(e.access.purse(), now)
		ranks = append(ranks, r)
	}
	slices.SortStableFunc(ranks, func(a, b rank) int { return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(b.left, a.left)) })
	for _, r := range ranks {
		names = append(names, r.name)
	}
	return names, true, nil
}

// passOver has a refused credential asked last for a while, and tells people, once in that time.
func (c *Client) passOver(ctx context.Context, e errand, err error) {
	if c.refused.add(e.access, c.now()) {
		store.AlarmGitHub.Raise(context.WithoutCancel(ctx), c.log, "GitHub refuses one of the account's credentials; the others stand in", "account", e.access.Account,
			"credential", e.access.Credential, "for", e.access.Name, "right", string(e.access.Right), "error", err)
	}
}

// By names the credential by which GitHub gave an answer that is an error. Empty: it has no name.
func By(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Credential
	}
	return ""
}
