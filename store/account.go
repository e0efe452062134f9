package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// Account is an AWS account that GARO may launch into, as its registration
// says. It is no item: it lives in SSM, or in local mode in a file, and is read
// through Accounts. A caller can only choose among what it allows.
type Account struct {
	// ID is the twelve digits of the AWS account.
	ID string `json:"id"`
	// RoleARN is the role that worker and reaper assume. Empty: the role
	// GitHubRunnerAssumeRole of the account.
	RoleARN string `json:"role_arn,omitempty"`
	// ExternalID is what the role's trust policy asks for. GARO makes it.
	ExternalID secret.Text `json:"external_id"`
	// Repositories and Owners (of all their repositories) may ask for runners.
	Repositories []Named `json:"repositories,omitempty"`
	Owners       []Named `json:"owners,omitempty"`
	// Server is the host of the GitHub server that the ids above are of, as the
	// issuer of its ID tokens has it. Empty: github.com.
	Server string `json:"server,omitempty"`
	// Scope is where runners register. The zero value: each in the repository that it is for.
	Scope Scope `json:"scope,omitzero"`
	// Regions are where runners may be launched. DefaultRegion is used when a
	// request names none; it may be empty when there is one region only.
	Regions       map[string]Region `json:"regions"`
	DefaultRegion string            `json:"default_region,omitempty"`
	// InstanceTypes are allowed; DefaultInstanceTypes are tried, in order, when
	// a request names none.
	InstanceTypes        []string `json:"instance_types"`
	DefaultInstanceTypes []string `json:"default_instance_types"`
	// Markets are allowed, of Spot and OnDemand; the first is the default.
	Markets []string `json:"markets"`
	// SpotFallback appends on-demand placements to every spot plan.
	SpotFallback bool `json:"spot_fallback,omitempty"`
	// Modes are allowed, of Shared and Ephemeral; the first is the default.
	Modes []string `json:"modes"`
	// MaxTimeoutS bounds a request's timeout, HardS a machine's life, both in
	// seconds. Zero: half of the machine's life, and Limits.Hard.
	MaxTimeoutS int `json:"max_timeout,omitempty"`
	HardS       int `json:"hard,omitempty"`
	// MaxRunners is how many machines may live at once.
	MaxRunners int `json:"max_runners"`
	// Closed: the account is about to be removed. Nobody is served, and nothing is
	// launched or registered; what lives ends as ever.
	Closed bool `json:"closed,omitempty"`
	// MaxOpenRequests is how many requests of one repository may wait for a runner at
	// once. Zero: DefaultOpenRequests.
	MaxOpenRequests int `json:"max_open_requests,omitempty"`
	// DailyBudget is what the machines may cost on a day.
	DailyBudget DailyBudget `json:"daily_budget,omitzero"`
	// Pacing spaces RunInstances calls in each region.
	Pacing Pacing `json:"pacing,omitzero"`
	// GitHub says where the credentials are that register runners.
	GitHub GitHubCredentials `json:"github"`
	// Allow opts in to callers that are refused by default.
	Allow Allow `json:"allow,omitzero"`
	// Only narrows the callers that are left. Operators are not narrowed.
	Only Conditions `json:"only,omitzero"`
	// RunsOn says which workflow jobs get a machine, without asking by POST /start. Empty: none.
	RunsOn []Offer `json:"runs_on,omitempty"`
	// WebhookSecrets sign the webhooks of the account's repositories that no GitHub App
	// sends. Two serve at once while one replaces the other.
	WebhookSecrets []secret.Text `json:"webhook_secrets,omitempty"`
	// OnForbidden is what happens to the run of a workflow job that may have no machine:
	// nothing, so that its job stays queued, or CancelRun. Empty: nothing.
	OnForbidden string `json:"on_forbidden,omitempty"`
	// OnFailure is the same for a job whose machine cannot be had until people change
	// something: nothing, so that it is tried again after pauses, or CancelRun.
	OnFailure string `json:"on_failure,omitempty"`
	// Environment has variables for the jobs, over those of the image. Every job can
	// read them: they are no secrets.
	Environment map[string]string `json:"environment,omitempty"`
	MachineOptions
	Outfit
}

// CancelRun is the OnForbidden or OnFailure that has the run cancelled. LeaveRun is to say
// that it is not.
const (
	LeaveRun  = "leave"
	CancelRun = "cancel_run"
)

// ErrNoAccount is what Accounts answers for an account that is not registered.
var ErrNoAccount = errors.New("account is not registered")

// ErrUnusable is what Accounts answers for a registration that is there, and has a
// fault that a person has to fix.
var ErrUnusable = errors.New("registration cannot be used")

// Accounts reads registrations. Any error but ErrNoAccount and ErrUnusable is an
// outage. It is safe for concurrent use.
type Accounts interface {
	// Account returns the registration of one account.
	Account(ctx context.Context, id string) (Account, error)
	// List returns the ids of all registered accounts, sorted.
	List(ctx context.Context) ([]string, error)
}

// Named is a repository or an owner: GitHub's numeric id decides, the name is
// for people (names can be taken over, ids cannot).
type Named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Pacing is a bucket: Burst launches at once, then one each Interval. The zero
// value is EC2's default for RunInstances: 5, then 2 a second
// (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
type Pacing struct {
	Burst      int `json:"burst,omitempty"`
	IntervalMS int `json:"interval_ms,omitempty"`

	// register is the time between two registrations at GitHub, and lead how long before
	// its own a launch may be: see Account.Pace. Zero: GitHub registers at any pace.
	register, lead time.Duration
	inHand         time.Duration // as Limits.InHand; zero: its default
}

func (p Pacing) orDefault() Pacing {
	if p.Burst <= 0 {
		p.Burst = 5
	}
	if p.IntervalMS <= 0 {
		p.IntervalMS = 500
	}
	return p
}

// Rate returns how many launches are made at once, and a second.
func (p Pacing) Rate() (burst int, perSecond float64) {
	return p.orDefault().Burst, float64(time.Second) / float64(p.interval())
}

// DefaultOpenRequests is what EC2 launches in the quarter of an hour that a request is
// tried for when it does not say: two a second are 1,800, and five at once. What is
// filed beyond that would only wait to expire.
const DefaultOpenRequests = 2000

// OpenRequests returns how many requests of one repository may be open at once.
func (a Account) OpenRequests() int { return cmp.Or(a.MaxOpenRequests, DefaultOpenRequests) }

func (p Pacing) interval() time.Duration {
	return time.Duration(p.orDefault().IntervalMS) * time.Millisecond
}

// spare is what Line leaves in the bucket, in time.
func (p Pacing) spare() time.Duration {
	return time.Duration(min(spare, p.orDefault().Burst-1)) * p.interval()
}

// OwnRegion returns the region of a request that names none. Empty: it has to name one.
func (a Account) OwnRegion() string {
	if a.DefaultRegion == "" && len(a.Regions) == 1 {
		for name := range a.Regions {
			return name
		}
	}
	return a.DefaultRegion
}

// Hard returns how long a machine of the account may live.
func (a Account) Hard(lim Limits) time.Duration {
	if a.HardS == 0 {
		return lim.Hard
	}
	return min(time.Duration(a.HardS)*time.Second, lim.HardMax)
}

// MaxTimeout returns the longest timeout that a request to the account may have:
// never more than half of a machine's life, since a shared runner is replaced
// when what is left of its life is too short for the next request, and must not
// be replaced by every one.
func (a Account) MaxTimeout(lim Limits) time.Duration {
	half := a.Hard(lim) / 2
	if a.MaxTimeoutS == 0 {
		return half
	}
	return min(time.Duration(a.MaxTimeoutS)*time.Second, half)
}

// Plan returns the placements to try for r, in order: its instance types (or
// the account's) before its subnets, spot before on-demand. spread rotates the
// subnets, so that runners do not all crowd into the first one. What the caller
// names must be allowed, which is checked here again since a registration can
// change after the request was accepted. chosen are the instance types that the account
// chooses for r, as Choose returns them; nil: they are named.
func (a Account) Plan(r Request, spread uint, chosen []string) ([]Placement, error) {
	region, ok := a.Regions[r.Region]
	if !ok {
		return nil, fmt.Errorf("account %s no longer offers region %s", a.ID, r.Region)
	}
	types := r.Machine.InstanceTypes
	if len(types) == 0 && chosen == nil {
		types = a.DefaultInstanceTypes
	}
	subnets := r.Machine.Subnets
	if len(subnets) == 0 {
		subnets = region.Subnets
	}
	if field, what, ok := a.permits(r, types, subnets, region); !ok {
		return nil, fmt.Errorf("account %s no longer allows %s %s", a.ID, field, what)
	}
	markets := []string{r.Type}
	if r.Type == Spot && a.SpotFallback && slices.Contains(a.Markets, OnDemand) {
		markets = append(markets, OnDemand)
	}
	types = slices.Concat(types, chosen)
	var plan []Placement
	for i, m := range markets {
		room := (MaxPlacements - len(plan)) / (len(markets) - i) // a long list leaves the fallback its half
		for _, t := range types {
			for j := range subnets {
				if room--; room >= 0 {
					plan = append(plan, Placement{Market: m, InstanceType: t, Subnet: subnets[(uint(j)+spread)%uint(len(subnets))]})
				}
			}
		}
	}
	if len(plan) == 0 {
		return nil, fmt.Errorf("account %s has no instance type or no subnet in %s: complete its registration", a.ID, r.Region)
	}
	return plan, nil
}

func (a Account) permits(r Request, types, subnets []string, region Region) (field, what string, ok bool) {
	for _, c := range []struct {
		field     string
		named, in []string
	}{
		{"type", []string{r.Type}, a.Markets},
		{"mode", []string{r.Mode}, a.Modes},
		{"instance_types", types, a.InstanceTypes},
		{"subnets", subnets, region.Subnets},
		{"security_groups", r.Machine.SecurityGroups, region.SecurityGroups},
		{"image_id", nonEmpty(r.Machine.Image), region.Images},
	} {
		for _, n := range c.named {
			if !slices.Contains(c.in, n) {
				return c.field, n, false
			}
		}
	}
	return a.permitsOptions(r.Machine)
}

// Permits reports the first field of r, by its name in the API, and the value
// in it, that the account does not allow. r.Region must be one of the account's.
func (a Account) Permits(r Request) (field, value string, ok bool) {
	if len(r.Regions) > 0 {
		return a.permitsEach(r)
	}
	region, found := a.Regions[r.Region]
	if !found {
		return "region", r.Region, false
	}
	return a.permits(r, r.Machine.InstanceTypes, r.Machine.Subnets, region)
}

// Serves reports whether the account is registered for the repository, by id and by its
// server. Runners of an organization serve its own repositories alone.
func (a Account) Serves(repo Repository) bool {
	has := func(in []Named, id string) bool {
		return id != "" && slices.ContainsFunc(in, func(n Named) bool { return n.ID == id })
	}
	return repo.Server == a.Server && (has(a.Repositories, repo.ID) || has(a.Owners, repo.OwnerID)) &&
		(a.Scope.Kind != OrganizationScope || repo.OwnerID == a.Scope.ID)
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
