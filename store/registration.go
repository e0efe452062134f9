package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// ParseAccount reads a registration strictly: an unknown field, a wrong form or
// a contradiction is an error that names the field, and nothing is half used.
func ParseAccount(id string, b []byte) (Account, error) {
	var a Account
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return Account{}, fmt.Errorf("registration of account %s: %w", id, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Account{}, fmt.Errorf("registration of account %s: more than one JSON value", id)
	}
	if err := a.check(id); err != nil {
		return Account{}, fmt.Errorf("registration of account %s: %w", id, err)
	}
	return a, nil
}

// ValidAccountID reports whether s has the form of an AWS account's id.
func ValidAccountID(s string) bool { return form.AWSAccount.Fits(s) }

// maxOpenRequests bounds what counting them reads: 25,000 index entries of a hundred
// bytes are some three pages of a query.
const maxOpenRequests = 25_000

// minWebhookSecret is the least length of a webhook's secret: 32 characters of base64 are
// 192 bits, more than anybody guesses from a delivery and its signature.
const minWebhookSecret = 32

var (
	hostForm = form.Form{{Of: form.Lower + form.Digit + "..--", Min: 1, Max: 253}}
	portForm = form.Form{{Of: form.Digit, Min: 1, Max: 5}}
)

// isHost reports whether s is a host, with or without a port.
func isHost(s string) bool {
	host, port, ok := strings.Cut(s, ":")
	return hostForm.Fits(host) && (!ok || portForm.Fits(port))
}

// CheckWebhookSecrets returns what is wrong with the secrets of a webhook. None is not.
func CheckWebhookSecrets(secrets []secret.Text) error {
	if len(secrets) > 2 {
		return errors.New("want one, or two while one replaces the other")
	}
	if slices.ContainsFunc(secrets, func(s secret.Text) bool { return len(s.Reveal()) < minWebhookSecret }) {
		return fmt.Errorf("want at least %d random characters in each", minWebhookSecret)
	}
	return nil
}

// check returns every fault of a registration at once.
func (a Account) check(id string) error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(ValidAccountID(a.ID) && a.ID == id, "id %q: want the account's twelve digits, %s", a.ID, id)
	want(a.RoleARN == "" || strings.HasPrefix(a.RoleARN, "arn:"), "role_arn %q: want an ARN", a.RoleARN)
	want(!a.ExternalID.Empty(), "external_id: want the one that the role's trust policy asks for")
	want(len(a.Repositories)+len(a.Owners) > 0, "repositories, owners: name at least one")
	for _, n := range slices.Concat(a.Repositories, a.Owners) {
		want(form.GitHubID.Fits(n.ID) && n.Name != "", "repositories, owners: %q (%q): want GitHub's numeric id and the name", n.ID, n.Name)
	}
	want(a.Server == "" || isHost(a.Server), "server %q: want the host in the issuer of the server's ID tokens, or nothing for github.com", a.Server)
	a.checkScope(want)
	want(len(a.Regions) > 0, "regions: want at least one")
	for _, name := range slices.Sorted(maps.Keys(a.Regions)) {
		r := a.Regions[name]
		want(len(r.Subnets) > 0, "regions.%s.subnets: want at least one", name)
		want(len(r.Images) > 0, "regions.%s.images: want an AMI id or the path of an SSM parameter", name)
	}
	_, ok := a.Regions[a.DefaultRegion]
	want(ok || a.DefaultRegion == "", "default_region %q: not one of the regions", a.DefaultRegion)
	want(len(a.DefaultInstanceTypes) > 0 || a.InstanceRequirements != nil, "default_instance_types: want at least one, or instance_requirements")
	for _, t := range a.DefaultInstanceTypes {
		want(slices.Contains(a.InstanceTypes, t), "default_instance_types: %q is not in instance_types", t)
	}
	want(len(a.Markets) > 0, "markets: want %s, %s or both", Spot, OnDemand)
	for _, m := range a.Markets {
		want(m == Spot || m == OnDemand, "markets: %q: want %s or %s", m, Spot, OnDemand)
	}
	want(len(a.Modes) > 0, "modes: want %s, %s or both", Shared, Ephemeral)
	for _, m := range a.Modes {
		want(m == Shared || m == Ephemeral, "modes: %q: want %s or %s", m, Shared, Ephemeral)
	}
	want(a.MaxRunners > 0, "max_runners: want at least 1")
	want(a.DailyBudget == (DailyBudget{}) || a.DailyBudget.amount() > 0, "daily_budget.usd %q: want dollars above zero as a string, such as \"50\" or \"12.50\"", a.DailyBudget.USD)
	want(a.MaxOpenRequests >= 0 && a.MaxOpenRequests <= maxOpenRequests, "max_open_requests: want at most %d, or nothing for %d", maxOpenRequests, DefaultOpenRequests)
	want(a.HardS >= 0 && a.HardS <= 24*3600, "hard: want at most 86400 seconds")
	want(a.MaxTimeoutS >= 0, "max_timeout: want seconds")
	want(a.Pacing.Burst >= 0 && a.Pacing.IntervalMS >= 0, "pacing: want no negative number")
	a.GitHub.check(want)
	want(a.OnForbidden == "" || a.OnForbidden == LeaveRun || a.OnForbidden == CancelRun, "on_forbidden: %q: want %s or %s", a.OnForbidden, LeaveRun, CancelRun)
	want(a.OnFailure == "" || a.OnFailure == LeaveRun || a.OnFailure == CancelRun, "on_failure: %q: want %s or %s", a.OnFailure, LeaveRun, CancelRun)
	checkEvents(a.Allow.Events, want)
	if err := CheckWebhookSecrets(a.WebhookSecrets); err != nil {
		errs = append(errs, fmt.Errorf("webhook_secrets: %w", err))
	}
	errs = append(errs, a.checkOffers()...)
	errs = append(errs, checkEnvironment(a.Environment)...)
	errs = append(errs, a.checkOptions()...)
	errs = append(errs, checkOutfit(a)...)
	return errors.Join(errs...)
}
