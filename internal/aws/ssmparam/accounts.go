package ssmparam

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var _ store.Accounts = (*Parameters)(nil)

// listing is the accounts' ids, as they were listed.
type listing struct {
	ids      []string
	listedAt time.Time
}

// Account implements store.Accounts: it reads <prefix>/accounts/<id> by
// store.ParseAccount. A registration with a fault is an error that names it, and
// one alarm for each version of it. Whatever ids callers make up, they cost two
// reads in ten seconds: what a listing of that age does not have is not looked for.
func (p *Parameters) Account(ctx context.Context, id string) (store.Account, error) {
	l, listed := p.ids.Peek(struct{}{})
	listed = listed && p.now().Before(l.listedAt.Add(againIn)) // else SSM is away
	if !store.ValidAccountID(id) || listed && !slices.Contains(l.ids, id) {
		return store.Account{}, fmt.Errorf("account %.20q: %w", id, store.ErrNoAccount)
	}
	name := p.accounts() + id
	got, err := p.reader.read(ctx, name, false)
	if errors.Is(err, ErrNoParameter) {
		_, _ = p.listed(ctx, true) // for those that come next: this answer stands without it
		return store.Account{}, fmt.Errorf("%w: %w", store.ErrNoAccount, err)
	}
	if err != nil {
		return store.Account{}, err
	}
	a, err := store.ParseAccount(id, []byte(got.text.Reveal()))
	if err != nil {
		err = fmt.Errorf("parameter %s: %w: %w", name, store.ErrUnusable, err)
		p.complain(name, got.version, err)
		return store.Account{}, err
	}
	return a, nil
}

func (p *Parameters) accounts() string { return p.prefix + "/accounts/" }

// complain raises an alarm, once for each version of a parameter.
func (p *Parameters) complain(name string, version int64, err error) {
	p.mu.Lock()
	told, known := p.told[name]
	p.told[name] = version
	p.mu.Unlock()
	if !known || told != version {
		store.AlarmAccess.Raise(context.Background(), p.log, "registration cannot be used", "parameter", name, "version", version, "error", err)
	}
}

// List implements store.Accounts. The ids are kept for five minutes, as parameters
// are, so that a call which names no account seldom waits for a list. That there are
// none is kept for ten seconds: the first account should not have to wait.
func (p *Parameters) List(ctx context.Context) ([]string, error) { return p.listed(ctx, false) }

// listed returns the ids; fresh lists them again.
func (p *Parameters) listed(ctx context.Context, fresh bool) ([]string, error) {
	l, err := p.ids.Get(ctx, struct{}{}, fresh, func(ctx context.Context, last listing) (listing, time.Time, error) {
		ids, err := p.listIDs(ctx)
		now := p.now()
		switch {
		case err == nil && len(ids) == 0:
			return listing{ids, now}, now.Add(againIn), nil
		case err == nil:
			return listing{ids, now}, now.Add(keepFor), nil
		case final(err) == nil && !last.listedAt.IsZero() && now.Before(last.listedAt.Add(staleFor)):
			p.log.Warn("registrations cannot be listed; the last list is used", "listed_at", last.listedAt, "error", err)
			return last, now.Add(againIn), nil
		}
		return listing{}, time.Time{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("list registrations below %s: %w", p.accounts(), err)
	}
	return slices.Clone(l.ids), nil
}

func (p *Parameters) listIDs(ctx context.Context) ([]string, error) {
	// Names alone are wanted: nothing is decrypted.
	in := &ssm.GetParametersByPathInput{Path: new(strings.TrimSuffix(p.accounts(), "/")), MaxResults: new(int32(10))} // 10 is SSM's most
	var ids []string
	for {
		out, err := p.list(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, found := range out.Parameters {
			if found.Name == nil {
				continue
			}
			id := strings.TrimPrefix(*found.Name, p.accounts())
			if !store.ValidAccountID(id) {
				p.complain(*found.Name, found.Version, errors.New("want a name of twelve digits, the account's id"))
				continue
			}
			ids = append(ids, id)
		}
		if out.NextToken == nil || *out.NextToken == "" {
			slices.Sort(ids)
			return ids, nil
		}
		in.NextToken = out.NextToken
	}
}
