// Package doctor examines a control plane and its accounts: whether a machine could be
// launched, reach the API and register at GitHub, and what is in the way if not.
//
// It promises to leave nothing behind: it asks EC2 by dry runs, and what it registers at
// GitHub it deletes. What is read is read here, at the edge; what it means is decided by the
// judge functions, which are pure. A thing that could not be read is a finding, not an
// error: an outage of one part never hides the others.
package doctor

import (
	"context"
	"errors"
	"iter"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Fleet is what is asked of EC2.
type Fleet interface {
	fleet.Inspector
	Image(ctx context.Context, at fleet.Place, image string) (string, error)
	RootVolume(ctx context.Context, at fleet.Place, ami string) (store.Root, error)
}

// Records is what is read of the store.
type Records interface {
	Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error)
	List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error]
}

// Config is what a Doctor is made of. Every field without a default is needed.
type Config struct {
	Accounts store.Accounts
	Fleet    Fleet
	GitHub   GitHub
	Records  Records
	// Keys reads the control plane's keys. What it kept may be minutes old.
	Keys func(context.Context) (*keys.Ring, error)
	// Vouches reports whether AWS's certificate for a region is known, without which no
	// machine boots there.
	Vouches      func(region string) bool
	ControlPlane string
	APIURL       string
	// HTTP calls the API at APIURL, as machines do. nil: http.DefaultClient.
	HTTP *http.Client
	Now  func() time.Time // nil: time.Now
}

// Doctor examines. It is safe for concurrent use.
type Doctor struct{ Config }

// New returns a Doctor. It calls nobody.
func New(c Config) *Doctor {
	if c.HTTP == nil {
		c.HTTP = http.DefaultClient
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Doctor{c}
}

// Parts returns what an examination of an account and region consists of, in order: of all
// accounts if account is empty, and of all its regions if region is. An account that cannot
// be read has no regions; what is wrong with it is a finding.
func (d *Doctor) Parts(ctx context.Context, account, region string) []store.Part {
	parts := []store.Part{{}}
	accounts := []string{account}
	if account == "" {
		accounts, _ = d.Accounts.List(ctx) // the first part tells of the error
	}
	for _, id := range accounts {
		parts = append(parts, store.Part{Account: id})
		a, err := d.Accounts.Account(ctx, id)
		switch {
		case err != nil:
		case region != "":
			parts = append(parts, store.Part{Account: id, Region: region})
		default:
			for _, r := range slices.Sorted(maps.Keys(a.Regions)) {
				parts = append(parts, store.Part{Account: id, Region: r})
			}
		}
	}
	return parts
}

// Visit is one part of a check that is examined.
type Visit struct {
	store.Part
	Check string // the id of the check, and
	Try   int    // the how-manyeth try of it: what is registered for it is named after both
	// Lease leases a registration at GitHub, and returns its time. leased is false if there is
	// none to lease now; at is then when to ask again. nil: none is needed.
	Lease func(ctx context.Context, a store.Account, scope string) (at time.Time, leased bool, err error)
}

// Examine returns what is found of a part, at least one finding. It returns soon after ctx
// ends, with what it could not read as findings too.
func (d *Doctor) Examine(ctx context.Context, v Visit) []store.Finding {
	switch {
	case v.Account == "":
		return d.controlPlane(ctx)
	case v.Region == "":
		return d.account(ctx, v)
	}
	return d.region(ctx, fleet.Place{Account: v.Account, Region: v.Region})
}

// The checks, by their names in findings.
const (
	Keys          = "keys"
	Registrations = "registrations"
	API           = "api"
	Clock         = "clock"
	Registration  = "registration"
	Role          = "role"
	ExternalID    = "external_id"
	Recorded      = "recorded_refusals"
	RegionCheck   = "region"
	Image         = "image"
	Subnet        = "subnet"
	DryRun        = "dry_run"
)

func ok(check, about, evidence string) store.Finding {
	return store.Finding{Check: check, About: about, Result: store.ResultOK, Evidence: evidence}
}

func warn(check, about, evidence, remedy string) store.Finding {
	return store.Finding{Check: check, About: about, Result: store.ResultWarn, Evidence: evidence, Remedy: remedy}
}

func failed(check, about, evidence, remedy string) store.Finding {
	return store.Finding{Check: check, About: about, Result: store.ResultFailed, Evidence: evidence, Remedy: remedy}
}

func skipped(check, about, why string) store.Finding {
	return store.Finding{Check: check, About: about, Result: store.ResultSkipped, Evidence: why}
}

// unread is the finding about something that nobody answered for. It may pass on its own.
func unread(check, about string, err error) store.Finding {
	if errors.Is(err, context.DeadlineExceeded) {
		return warn(check, about, "No answer in time.", again)
	}
	return warn(check, about, "It could not be looked at: "+err.Error()+".", again)
}

const again = "Run garo doctor again. If it stays so, look at the state of the service, and at the worker's way to it."
