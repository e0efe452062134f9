package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// GitHub is what is asked of GitHub.
type GitHub interface {
	Rates(ctx context.Context, in github.Scope) (github.Rates, error)
	Group(ctx context.Context, in github.Scope) (github.Group, error)
	Admits(ctx context.Context, in github.Scope, g github.Group) (all []github.Admitted, whole bool, err error)
	Mint(ctx context.Context, in github.Scope, name string, labels []string) (github.Minted, error)
	Find(ctx context.Context, in github.Scope, name string) (github.Runner, error)
	Delete(ctx context.Context, in github.Scope, id int64) error
	Runs(ctx context.Context, repo github.Repository, status string) iter.Seq2[github.Run, error]
	Deliveries(ctx context.Context, account, cursor string) (page []github.Delivery, next string, err error)
}

// The checks of GitHub, by their names in findings.
const (
	Credential    = "credential"
	Permissions   = "permissions"
	Group         = "runner_group"
	Registers     = "registers"
	Webhook       = "webhook"
	RunnerVersion = "runner_version"
)

// github examines whether runners of an account can be registered at GitHub, and whether
// GitHub tells of jobs. runners are the newest of the account.
func (d *Doctor) github(ctx context.Context, v Visit, a store.Account, runners []store.Runner) []store.Finding {
	versions, err := d.versions(ctx, a)
	found := []store.Finding{judgeVersions(d.Now(), versions, err)}
	in, repo, known := where(a, runners)
	if !known {
		for _, check := range []string{Credential, Permissions, Registers} {
			found = append(found, skipped(check, "", "The account is registered for owners alone, and has launched for none of their repositories lately: name one in the registration."))
		}
		return append(found, d.webhook(ctx, a))
	}
	var serve []store.GitHubCredential
	for _, c := range a.Credentials() {
		by := only(a, c, in)
		rates, err := d.GitHub.Rates(ctx, by)
		found = append(found, judgeCredential(by, rates, err))
		if errors.Is(err, github.ErrDenied) {
			found = append(found, skipped(Registers, by.Name, "GitHub refuses the credential."))
			continue
		}
		serve = append(serve, c)
	}
	if serve == nil {
		return found
	}
	if len(a.RunsOn) > 0 {
		found = append(found, judgePermissions(repo, d.mayRead(ctx, repo)))
	}
	if in.Organization {
		found = append(found, d.group(ctx, in, served(a, runners)))
	}
	for i, c := range serve {
		one := a
		one.GitHub = store.GitHubCredentials{c}
		found = append(found, d.registers(ctx, v, one, i, only(a, c, in)))
	}
	return append(found, d.webhook(ctx, a))
}

// only returns the scope for calls with one of an account's credentials, which its name
// tells if there are several.
func only(a store.Account, c store.GitHubCredential, in github.Scope) github.Scope {
	in = in.With(a.CredentialName(c))
	if len(a.GitHub) > 1 {
		in.Name += ", " + in.Credential
	}
	return in
}

// where returns where runners of an account register, and a repository of it.
func where(a store.Account, runners []store.Runner) (in github.Scope, repo github.Repository, known bool) {
	repo.Account = a.ID
	switch {
	case len(a.Repositories) > 0:
		repo.ID, repo.Name, known = a.Repositories[0].ID, a.Repositories[0].Name, true
	case len(runners) > 0:
		repo.ID, repo.Name, known = runners[0].Repository.ID, runners[0].Repository.Name, true
	}
	if a.Scope.Kind == store.OrganizationScope {
		return github.Scope{Organization: true, ID: a.Scope.ID, Name: a.Scope.Name, Group: a.Scope.Group, Account: a.ID}, repo, known
	}
	return github.Scope{ID: repo.ID, Name: repo.Name, Account: a.ID}, repo, known
}

func judgeCredential(in github.Scope, r github.Rates, err error) store.Finding {
	switch {
	case errors.Is(err, github.ErrNotFound):
		return ok(Credential, in.Name, "It is valid, and this server counts no calls.")
	case errors.Is(err, github.ErrDenied):
		return failed(Credential, in.Name, err.Error()+".", "Check the credential's parameter, its expiry, and where it may act: docs/github.md has the permissions.")
	case err != nil:
		return ghUnread(Credential, in.Name, err)
	case r.Core.Limit > 0 && r.Core.Remaining*10 < r.Core.Limit:
		return warn(Credential, in.Name, fmt.Sprintf("It is valid, and %d of %d calls are left until %s.", r.Core.Remaining, r.Core.Limit, clock(r.Core.Reset)),
			"Look for what else uses the credential: docs/github.md has what GARO needs of it.")
	}
	return ok(Credential, in.Name, fmt.Sprintf("It is valid: %d of %d calls are left until %s.", r.Core.Remaining, r.Core.Limit, clock(r.Core.Reset)))
}

// mayRead asks for the runs of a repository, of which none needs to be there.
func (d *Doctor) mayRead(ctx context.Context, repo github.Repository) error {
	for _, err := range d.GitHub.Runs(ctx, repo, github.StatusQueued) {
		return err
	}
	return nil
}

func judgePermissions(repo github.Repository, err error) store.Finding {
	switch {
	case errors.Is(err, github.ErrDenied), errors.Is(err, github.ErrNotFound), errors.Is(err, github.ErrRefused):
		return failed(Permissions, repo.Name, "Workflow runs cannot be read: "+err.Error()+".", "Give the App, or the token, the permission Actions: read, in the repositories that runs_on serves: docs/github.md has all of them.")
	case err != nil:
		return ghUnread(Permissions, repo.Name, err)
	}
	return ok(Permissions, repo.Name, "Workflow runs and jobs can be read.")
}

const (
	// mostNames is of how many tries before this one it looks for what they left.
	mostNames = 5
	// cleanup is what the deletion of a registration may take when all else is out of time.
	cleanup = 5 * time.Second
	// mostWait is how long a lease may be ahead, that others do not wait for a check.
	mostWait = 3 * time.Second
)

// namesEach is how far apart the names are that credentials register: a check ends long before
// so many tries.
const namesEach = 1000

// nameOf returns the name that a try of a check registers with the nth credential that serves.
func (d *Doctor) nameOf(v Visit, try, nth int) string {
	return store.GitHubNameFor(d.ControlPlane, v.Check, nth*namesEach+try)
}

// registers registers a runner that no machine will ever be, and deletes it.
func (d *Doctor) registers(ctx context.Context, v Visit, a store.Account, nth int, in github.Scope) store.Finding {
	if v.Lease != nil {
		at, leased, err := v.Lease(ctx, a, leaseKey(a, in))
		switch {
		case err != nil:
			return ghUnread(Registers, in.Name, err)
		case !leased || at.Sub(d.Now()) > mostWait:
			return skipped(Registers, in.Name, "GitHub registers other runners until "+clock(at)+".")
		case sleep.For(ctx, max(0, at.Sub(d.Now()))) != nil:
			return skipped(Registers, in.Name, "There was no time left.")
		}
	}
	if err := d.forgetAll(ctx, v, nth, in); err != nil {
		return judgeRegisters(in, err, nil)
	}
	name := d.nameOf(v, v.Try, nth) // of one try alone: it is never registered again
	minted, err := d.GitHub.Mint(ctx, in, name, []string{name})
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	switch {
	case err == nil:
		return judgeRegisters(in, nil, insist(after, func() error { return d.GitHub.Delete(after, in, minted.RunnerID) }))
	case errors.Is(err, github.ErrUnknown), errors.Is(err, github.ErrNameTaken): // it may be registered; a call that GitHub got twice is answered so
		return judgeRegisters(in, err, insist(after, func() error { return d.forget(after, in, name) }))
	}
	return judgeRegisters(in, err, nil)
}

// insist makes a call again after half a second and after a second, if it does not succeed:
// what is left at GitHub is there for a day.
func insist(ctx context.Context, call func() error) error {
	err := call()
	for n := 1; n <= 2 && err != nil && !errors.Is(err, github.ErrNotFound) && sleep.For(ctx, time.Duration(n)*time.Second/2) == nil; n++ {
		err = call()
	}
	return err
}

// leaseKey names the scope of a lease as the worker's own leases do.
func leaseKey(a store.Account, in github.Scope) string {
	kind := store.RepositoryScope
	if in.Organization {
		kind = store.OrganizationScope
	}
	return store.Scope{Server: a.Server, Kind: kind, ID: in.ID}.Key()
}

// forgetAll deletes what workers that died with this check have left at GitHub. One try
// that is older still is the reaper's, which ends what no record names where a runner was
// within a day, and GitHub's, which deletes a runner that has not connected for a day
// (https://docs.github.com/en/actions/reference/runners/self-hosted-runners).
func (d *Doctor) forgetAll(ctx context.Context, v Visit, nth int, in github.Scope) error {
	for n := max(1, v.Try-mostNames); n < v.Try; n++ {
		if err := d.forget(ctx, in, d.nameOf(v, n, nth)); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes the registration of a name, if there is one.
func (d *Doctor) forget(ctx context.Context, in github.Scope, name string) error {
	r, err := d.GitHub.Find(ctx, in, name)
	if err == nil {
		err = d.GitHub.Delete(ctx, in, r.ID)
	}
	if errors.Is(err, github.ErrNotFound) {
		return nil
	}
	return err
}

func judgeRegisters(in github.Scope, minted, deleted error) store.Finding {
	right := "Administration: write, in the repository"
	if in.Organization {
		right = "Self-hosted runners: write, in the organization"
	}
	switch {
	case errors.Is(minted, github.ErrForbidden):
		return failed(Registers, in.Name, minted.Error()+".", "Have the owner allow self-hosted runners of repositories, or let the account register in the organization.")
	case errors.Is(minted, github.ErrLimited):
		return skipped(Registers, in.Name, minted.Error()+".")
	case errors.Is(minted, github.ErrUnknown), errors.Is(minted, github.ErrNameTaken):
		return ghUnread(Registers, in.Name, minted)
	case minted != nil:
		return failed(Registers, in.Name, minted.Error()+".", "Give the App, or the token, the permission "+right+".")
	case errors.Is(deleted, github.ErrNotFound):
	case deleted != nil:
		return warn(Registers, in.Name, "A runner was registered, and could not be deleted: "+deleted.Error()+".", "Nothing: the reaper deletes it within two hours, and raises rogue_runner; where no runner was for a day, GitHub deletes it within a day. If that stays so, give the credential "+right+".")
	}
	return ok(Registers, in.Name, "A runner was registered, and deleted.")
}

// webhook looks at what GitHub has delivered lately: the newest page, which is one call.
func (d *Doctor) webhook(ctx context.Context, a store.Account) store.Finding {
	switch {
	case len(a.RunsOn) == 0:
		return skipped(Webhook, "", "The registration has no runs_on: nothing is to be delivered.")
	case a.App().AppID == 0:
		return skipped(Webhook, "", "The registration has no App, and what GitHub delivers for a repository's webhook is not read: its settings show that.")
	}
	all, _, err := d.GitHub.Deliveries(ctx, a.ID, "")
	return judgeWebhook(d.APIURL, all, err)
}

func judgeWebhook(url string, all []github.Delivery, err error) store.Finding {
	address := strings.TrimSuffix(url, "/") + "/github/webhook"
	switch {
	case errors.Is(err, github.ErrDenied):
		return failed(Webhook, address, err.Error()+".", "Check the App's private key in the credential's parameter, and app_id in the registration.")
	case err != nil:
		return ghUnread(Webhook, address, err)
	case len(all) == 0:
		return warn(Webhook, address, "GitHub has delivered nothing for the App in three days.", "If jobs ran: activate the App's webhook, with this address and the event Workflow job.")
	}
	lost := slices.DeleteFunc(slices.Clone(all), func(d github.Delivery) bool { return d.OK })
	if len(lost) > 0 {
		return warn(Webhook, address, fmt.Sprintf("%d of the last %d deliveries failed, the last at %s.", len(lost), len(all), clock(lost[0].At)),
			"Look at Advanced in the App's settings: 401 is another secret, 404 another address. Lost ones are made good within minutes.")
	}
	return ok(Webhook, address, fmt.Sprintf("The last %s arrived, the last at %s.", plural(len(all), "delivery"), clock(all[0].At)))
}

// versions returns the runner programs that machines of an account were seen with within a
// day, as its sweeps have them.
func (d *Doctor) versions(ctx context.Context, a store.Account) (map[string]store.ProgramVersion, error) {
	var refs []store.Ref
	for _, region := range slices.Sorted(maps.Keys(a.Regions)) {
		refs = append(refs, store.Ref{Kind: store.KindSweep, ID: store.SweepKey(a.ID, region)})
	}
	all := map[string]store.ProgramVersion{}
	if len(refs) == 0 {
		return all, nil
	}
	items, err := d.Records.Get(ctx, refs...)
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		if s, ok := i.(*store.Sweep); ok {
			maps.Copy(all, s.Versions)
		}
	}
	return all, nil
}

// endsSoon is how long before its end a version is warned of: as the alarm is.
const endsSoon = 7 * 24 * time.Hour

func judgeVersions(now time.Time, versions map[string]store.ProgramVersion, err error) store.Finding {
	if err != nil {
		return unread(RunnerVersion, "", err)
	}
	var names []string
	first, ends := "", time.Time{}
	for name, v := range versions {
		names = append(names, name)
		if !v.EndsAt.IsZero() && (ends.IsZero() || v.EndsAt.Before(ends)) {
			first, ends = name, v.EndsAt
		}
	}
	slices.Sort(names)
	const renew = "Build the image again with a newer runner program, or leave it out of the image: docs/images.md."
	switch {
	case len(names) == 0:
		return skipped(RunnerVersion, "", "No machine of the account was seen at GitHub within a day.")
	case ends.IsZero():
		return ok(RunnerVersion, strings.Join(names, ", "), "GitHub names no date at which it ends.")
	case !ends.After(now):
		return failed(RunnerVersion, first, "GitHub has refused it since "+ends.UTC().Format(time.DateOnly)+".", renew)
	case ends.Sub(now) < endsSoon:
		return warn(RunnerVersion, first, "GitHub refuses it from "+ends.UTC().Format(time.DateOnly)+" on.", renew)
	}
	return ok(RunnerVersion, first, "GitHub serves it until "+ends.UTC().Format(time.DateOnly)+".")
}

// ghUnread is unread, or that GitHub asked to wait.
func ghUnread(check, about string, err error) store.Finding {
	if errors.Is(err, github.ErrLimited) {
		return skipped(check, about, err.Error()+".")
	}
	return unread(check, about, err)
}

func clock(at time.Time) string { return at.UTC().Format(time.RFC3339) }
