// Package reach reads registrations for the ends of runners: while that of an account is
// gone, or has a fault, it stands in with what the account's record keeps of the last
// launch.
//
// It promises that what it makes up is closed: nothing is launched by it.
package reach

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Accounts is a store.Accounts that has the accounts of live runners too. Each field is
// needed but Now. It is safe for concurrent use if what it is made of is.
type Accounts struct {
	store.Accounts // the registrations as they are
	Records        interface {
		Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error)
	}
	// Keys reads the control plane's keys, when an external id has to be opened.
	Keys func(context.Context) (*keys.Ring, error)
	Now  func() time.Time // nil: time.Now
}

// Account implements store.Accounts. The record is read only for an account without a
// registration that can be used; an error of that is an outage.
func (a Accounts) Account(ctx context.Context, id string) (store.Account, error) {
	account, err := a.Accounts.Account(ctx, id)
	if !errors.Is(err, store.ErrNoAccount) && !errors.Is(err, store.ErrUnusable) || !store.ValidAccountID(id) {
		return account, err
	}
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	items, gerr := a.Records.Get(ctx, store.Ref{Kind: store.KindQuota, ID: id})
	if gerr != nil {
		return store.Account{}, fmt.Errorf("read how account %s is reached: %w", id, gerr)
	}
	r, ok := items[0].(*store.Quota).Reached(now())
	if !ok {
		return store.Account{}, err
	}
	ring, kerr := a.Keys(ctx)
	if kerr != nil {
		return store.Account{}, fmt.Errorf("read the keys: %w", kerr)
	}
	externalID, kerr := ring.OpenExternalID(r.KeyID, id, r.Sealed)
	if kerr != nil {
		return store.Account{}, fmt.Errorf("%w; nor as it was at the last launch: %w", err, kerr)
	}
	return r.Account(id, externalID), nil
}
