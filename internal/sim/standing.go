package sim

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/reach"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// standing is how the control plane stands with the account.
type standing struct {
	mu      sync.Mutex
	removed bool   // there is no registration
	refused bool   // the role of the account trusts the control plane no more
	volume  int    // GiB of the root volume that the registration names by now; zero: as the world began
	role    string // that is registered, and trusts the control plane; empty: the usual one
	// organization: runners register in the organization; both: they did in either scope.
	organization, both bool
	moved              time.Time // when the registration last said so of another
}

// RegisterIn has the registration of the account say whether runners register in the
// organization, or in the repository.
func (s *standing) RegisterIn(organization bool) {
	s.set(func() {
		s.both, s.organization, s.moved = s.both || s.organization != organization, organization, time.Now()
	})
}

// registers returns where runners register, and since when.
func (s *standing) registers() (store.Scope, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.organization {
		return store.Scope{}, s.moved
	}
	return setting.Organization, s.moved
}

// InOrganization reports whether runners register in the organization now, and whether
// they did so in both scopes.
func (s *standing) InOrganization() (now, both bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.organization, s.both
}

// Remove deletes the registration of the account, as somebody may while its runners
// live.
func (w *World) Remove() {
	w.Unreached()
	w.set(func() { w.removed = true })
}

// Register brings the registration back.
func (s *standing) Register() { s.set(func() { s.removed = false }) }

// RegisterWith brings it back with another role, which alone trusts the control plane.
func (s *standing) RegisterWith(role string) { s.set(func() { s.removed, s.role = false, role }) }

func (s *standing) registeredRole() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role
}

// Enlarge has the registration name another size of root volumes.
func (s *standing) Enlarge(gb int) { s.set(func() { s.volume = gb }) }

func (s *standing) registeredVolume() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.volume
}

// Distrust takes the control plane out of the role's trust policy.
func (w *World) Distrust() {
	w.Unreached()
	w.set(func() { w.refused = true })
}

// Trust puts it back.
func (s *standing) Trust() { s.set(func() { s.refused = false }) }

func (s *standing) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *standing) is() (removed, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed, s.refused
}

// registered is the registration as it is: to read it is no effect.
type registered struct{ w *World }

func (r registered) Account(ctx context.Context, id string) (store.Account, error) {
	if known, _ := r.List(ctx); !slices.Contains(known, id) {
		return store.Account{}, fmt.Errorf("account %.20q: %w", id, store.ErrNoAccount)
	}
	a := r.w.Account
	a.ID, a.RoleARN = id, r.w.registeredRole()
	if now, _ := r.w.InOrganization(); now {
		a.Scope, a.Modes = setting.Organization, []string{store.Ephemeral}
	}
	if gb := r.w.registeredVolume(); gb > 0 {
		a.Regions = maps.Clone(a.Regions)
		region := a.Regions[setting.Region]
		region.RootVolume.SizeGB = gb
		a.Regions[setting.Region] = region
	}
	return a, nil
}

func (r registered) List(context.Context) ([]string, error) {
	if removed, _ := r.w.is(); removed {
		return nil, nil
	}
	if r.w.cfg.Neighbour {
		return []string{setting.AccountID, setting.NeighbourID}, nil
	}
	return []string{setting.AccountID}, nil
}

// takeOn takes on the role of the account, as package assume does for each call of EC2,
// and for the parameter with GitHub's credential.
func (w *World) takeOn(ctx context.Context, account string) error {
	var known store.Accounts = registered{w}
	if strings.HasPrefix(kernel.By(ctx), kernel.Reaper) {
		known = reach.Accounts{Accounts: known, Records: w.Store(), Keys: func(context.Context) (*keys.Ring, error) { return w.deployment().keys, nil }}
	}
	a, err := known.Account(ctx, account)
	if err == nil {
		err = w.assume(a)
	}
	if err != nil {
		return fmt.Errorf("take on the role of account %s: %w", account, err)
	}
	return nil
}

// assume is STS.
func (w *World) assume(a store.Account) error {
	if _, refused := w.is(); refused || a.RoleARN != w.registeredRole() || !a.ExternalID.Equal(externalID) {
		return &fleet.Error{Kind: fleet.ErrRefused, Code: "AccessDenied", Text: "Role GitHubRunnerAssumeRole of account " + a.ID + " cannot be assumed: check that it exists."}
	}
	return nil
}

// credential takes on the role for GitHub's credential, as package github tells of it.
func (w *World) credential(ctx context.Context, account string) error {
	if err := w.takeOn(ctx, account); err != nil {
		return fmt.Errorf("%w: %w", &github.Error{Kind: github.ErrDenied, Op: "read parameter /github/runner/pat of account " + account}, err)
	}
	return nil
}

// failing yields an error alone.
func failing[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, err)
	}
}

// atEC2 makes a call of EC2, with the role of its account.
func atEC2[T any](ctx context.Context, w *World, at fleet.Place, e *kernel.Effect, call func(context.Context) (T, error)) (T, error) {
	e.To = kernel.ToEC2
	return kernel.Do(ctx, w.Kernel, e, func(ctx context.Context) (v T, err error) {
		if err := w.takeOn(ctx, at.Account); err != nil {
			return v, err
		}
		return call(ctx)
	})
}

// atGitHub makes a call of GitHub, with the credential of the scope's account.
func atGitHub[T any](ctx context.Context, w *World, in github.Scope, e *kernel.Effect, call func(context.Context) (T, error)) (T, error) {
	e.To = kernel.ToGitHub
	return kernel.Do(ctx, w.Kernel, e, func(ctx context.Context) (v T, err error) {
		if err := w.credential(ctx, in.Account); err != nil {
			return v, err
		}
		return call(ctx)
	})
}
