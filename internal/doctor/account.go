package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// account examines what all regions of an account depend on.
func (d *Doctor) account(ctx context.Context, v Visit) []store.Finding {
	id := v.Account
	a, err := d.Accounts.Account(ctx, id)
	registered := judgeRegistration(a, err)
	if err != nil {
		return []store.Finding{registered}
	}
	err = d.Fleet.TakeOn(ctx, id)
	found := []store.Finding{registered, judgeRole(err)}
	if err != nil {
		found = append(found, skipped(ExternalID, "", roleless))
	} else {
		let, err := d.Fleet.Strangers(ctx, id)
		found = append(found, judgeStrangers(let, err))
	}
	runners, err := d.runners(ctx, id)
	found = append(found, judgeRecorded(attemptsOf(runners), err))
	return append(found, d.github(ctx, v, a, runners)...)
}

const roleless = "The account's role cannot be assumed."

func judgeRegistration(a store.Account, err error) store.Finding {
	switch {
	case errors.Is(err, store.ErrNoAccount):
		return failed(Registration, "", "The account is not registered.", "Register it: docs/deploy.md says how. garo doctor without an account examines those that are.")
	case errors.Is(err, store.ErrUnusable):
		return failed(Registration, "", "The registration has a fault: "+err.Error()+".", "Correct the registration.")
	case err != nil:
		return unread(Registration, "", err)
	case a.Closed:
		return warn(Registration, "", "The account is closed: nobody is served.", "If that is not meant, take closed out of the registration.")
	}
	return ok(Registration, "", fmt.Sprintf("%s, at most %d machines.", plural(len(a.Regions), "region"), a.MaxRunners))
}

func judgeRole(err error) store.Finding {
	if refused, ok := errors.AsType[*fleet.Error](err); ok && errors.Is(err, fleet.ErrRefused) {
		return failed(Role, "", said(refused), "Apply the Terraform module modules/account of this version in the account, with the registered external id and the control plane's roles.")
	}
	if err != nil {
		return unread(Role, "", err)
	}
	return ok(Role, "", "It can be assumed.")
}

func judgeStrangers(let []string, err error) store.Finding {
	switch {
	case len(let) > 0:
		return failed(ExternalID, "", "The role is given "+strings.Join(let, " and ")+".",
			"Have the role's trust policy ask for exactly the registered external id, as modules/account does: without it, another customer of the control plane could have this account used.")
	case err != nil:
		return unread(ExternalID, "", err)
	}
	return ok(ExternalID, "", "Without it, or with another one, the role is refused.")
}

const (
	// recordedFor is how far back refusals count: what was changed yesterday is over.
	recordedFor = 24 * time.Hour
	// recordedLook is how many records are read at most, which is one read of a page each.
	recordedLook = 200
)

// runners returns the runners of an account of the last day, the newest first.
func (d *Doctor) runners(ctx context.Context, account string) ([]store.Runner, error) {
	var all []store.Runner
	f := store.Filter{Kind: store.KindRunner, Account: account, Since: d.Now().Add(-recordedFor), Look: recordedLook}
	for i, err := range d.Records.List(ctx, f) {
		if _, more := errors.AsType[*store.MoreError](err); more {
			break
		}
		if err != nil {
			return nil, err
		}
		if r, ok := i.(*store.Runner); ok {
			all = append(all, *r)
		}
	}
	return all, nil
}

// attemptsOf returns what EC2 answered to the launches of runners.
func attemptsOf(runners []store.Runner) (all []store.Attempt) {
	for _, r := range runners {
		all = append(all, r.Attempts...)
	}
	return all
}

// passing are the codes of attempts that tell nothing about the account: a launch that
// succeeded, and zones that are full.
var passing = []string{"launched", "InsufficientInstanceCapacity", "InsufficientCapacity", "UnfulfillableCapacity"}

func judgeRecorded(attempts []store.Attempt, err error) store.Finding {
	if err != nil {
		return unread(Recorded, "", err)
	}
	count, last := map[string]int{}, store.Attempt{}
	for _, a := range attempts {
		if slices.Contains(passing, a.Code) {
			continue
		}
		count[a.Code]++
		if a.At.After(last.At) {
			last = a
		}
	}
	if len(count) == 0 {
		return ok(Recorded, "", fmt.Sprintf("EC2 refused none of %s in a day.", plural(len(attempts), "recorded launch")))
	}
	evidence := fmt.Sprintf("Last: %s at %s, for %s.", last.Code, last.At.UTC().Format(time.RFC3339), last.Placement)
	for _, code := range sortedKeys(count) {
		evidence = fmt.Sprintf("%s: %d in a day. ", code, count[code]) + evidence
	}
	return warn(Recorded, "", evidence, remedyFor(last.Code))
}
