package reach_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/reach"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const account = "111122223333"

var (
	now     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	errAway = errors.New("away")
)

// registered answers with an error, or else with a registration.
type registered struct{ err error }

func (r registered) Account(_ context.Context, id string) (store.Account, error) {
	if r.err != nil {
		return store.Account{}, fmt.Errorf("account %s: %w", id, r.err)
	}
	return store.Account{ID: id, ExternalID: secret.New("registered")}, nil
}

func (registered) List(context.Context) ([]string, error) { return nil, nil }

// records has one quota, or an error.
type records struct {
	quota store.Quota
	err   error
	reads int
}

func (r *records) Get(_ context.Context, refs ...store.Ref) ([]store.Item, error) {
	r.reads++
	if r.err != nil {
		return nil, r.err
	}
	q := r.quota
	return []store.Item{&q}, nil
}

func ring(t *testing.T, kid string) *keys.Ring {
	t.Helper()
	r, err := keys.NewRing(secret.New(strings.Repeat("i", 32)), kid, map[string]secret.Text{kid: secret.New(strings.Repeat("k", 32))})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAccountThatIsGoneIsReachedAsAtItsLastLaunch(t *testing.T) {
	k1 := ring(t, "k1")
	sealed, err := k1.SealExternalID(rand.Reader, "k1", account, secret.New("canary"))
	if err != nil {
		t.Fatal(err)
	}
	kept := store.Quota{Account: account, Live: 1, Reach: &store.Reach{
		RoleARN: "arn:aws:iam::111122223333:role/garo", Region: "eu-west-2", Sealed: sealed, KeyID: "k1",
		GitHub: store.GitHubCredential{Parameter: "/ci/pat"}, Until: now.Add(time.Hour),
	}}
	old := kept
	old.Reach = nil
	past := kept
	past.Reach = new(*kept.Reach)
	past.Reach.Until = now
	for name, c := range map[string]struct {
		registered, records error
		quota               store.Quota
		ring                *keys.Ring
		keys                error
		want                string // external id
		err                 error
		reads               int
	}{
		"Registered":                   {quota: kept, want: "registered"},
		"RegistrationsAway":            {quota: kept, registered: errAway, err: errAway},
		"Gone":                         {quota: kept, registered: store.ErrNoAccount, want: "canary", reads: 1},
		"Faulty":                       {quota: kept, registered: store.ErrUnusable, want: "canary", reads: 1},
		"GoneAndOfTheVersionBefore":    {quota: old, registered: store.ErrNoAccount, err: store.ErrNoAccount, reads: 1},
		"GoneAndNothingNeedsItAnyMore": {quota: past, registered: store.ErrNoAccount, err: store.ErrNoAccount, reads: 1},
		"GoneAndItsKeyIsLost":          {quota: kept, registered: store.ErrNoAccount, ring: ring(t, "k2"), err: store.ErrNoAccount, reads: 1},
		"GoneAndRecordsAway":           {quota: kept, registered: store.ErrNoAccount, records: errAway, err: errAway, reads: 1},
		"GoneAndKeysAway":              {quota: kept, registered: store.ErrNoAccount, keys: errAway, err: errAway, reads: 1},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &records{quota: c.quota, err: c.records}
			a := reach.Accounts{
				Accounts: registered{c.registered}, Records: rec, Now: func() time.Time { return now },
				Keys: func(context.Context) (*keys.Ring, error) {
					if c.ring == nil {
						return k1, c.keys
					}
					return c.ring, c.keys
				},
			}
			got, err := a.Account(t.Context(), account)
			if !errors.Is(err, c.err) || c.err == nil && !got.ExternalID.Equal(c.want) || rec.reads != c.reads {
				t.Errorf("Account = %+v, %v after %d reads; want external id %q, error %v and %d", got, err, rec.reads, c.want, c.err, c.reads)
			}
			if c.want == "canary" && (!got.Closed || got.RoleARN != kept.Reach.RoleARN || got.DefaultRegion != "eu-west-2" || got.GitHub[0].Parameter != "/ci/pat") {
				t.Errorf("Account = %+v, want it closed, with role, region and credential", got)
			}
			if strings.Contains(fmt.Sprint(err), "canary") {
				t.Errorf("error %v has the external id in it", err)
			}
			if c.err == errAway && (errors.Is(err, store.ErrNoAccount) || errors.Is(err, store.ErrUnusable)) {
				t.Errorf("error %v, want it an outage", err)
			}
		})
	}
	rec := &records{}
	a := reach.Accounts{Accounts: registered{store.ErrNoAccount}, Records: rec}
	if _, err := a.Account(t.Context(), "../../x"); !errors.Is(err, store.ErrNoAccount) || rec.reads != 0 {
		t.Errorf("Account of no id = %v after %d reads, want not registered, and none", err, rec.reads)
	}
}
