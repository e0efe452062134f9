// Package apitype has the JSON bodies of GARO's API, for client and server. Zero
// values mean "not said" in requests; docs/api.md and api/openapi.yaml describe
// the calls.
package apitype

import (
	"fmt"
	"log/slog"
	"time"
)

// Start is the body of POST /start. All fields are optional for a caller with a
// GitHub token whose account has defaults.
type Start struct {
	Repo           string   `json:"repo,omitempty"`           // owner/name; empty: the token's
	AccountID      string   `json:"account_id,omitempty"`     // empty: the only account that serves the repository
	Region         string   `json:"region,omitempty"`         // empty: the account's default
	Regions        []string `json:"regions,omitempty"`        // of an ephemeral request, in the order to try, in place of Region
	Type           string   `json:"type,omitempty"`           // "spot" or "ondemand"; empty: the account's default
	Labels         []string `json:"labels,omitempty"`         // what the runner is also registered with, in shared mode
	Mode           string   `json:"mode,omitempty"`           // "shared" or "ephemeral"; empty: the account's default
	InstanceTypes  []string `json:"instance_types,omitempty"` // tried in this order
	ImageID        string   `json:"image_id,omitempty"`       // an AMI id or an SSM path that the account allows
	Subnets        []string `json:"subnets,omitempty"`
	SecurityGroups []string `json:"security_groups,omitempty"`
	// RootVolumeGB is in GiB; 0: the account's choice. Tags have keys that the account allows.
	RootVolumeGB int               `json:"root_volume_gb,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	// What the instance type has to have, in place of InstanceTypes: so many vCPUs, GiB of
	// memory and GPUs at least, and that architecture, "x86_64" or "arm64". 0 and "": the
	// account's choice.
	CPU            int    `json:"cpu,omitempty"`
	Memory         int    `json:"memory,omitempty"`
	GPU            int    `json:"gpu,omitempty"`
	Arch           string `json:"arch,omitempty"`
	Timeout        int    `json:"timeout,omitempty"`         // seconds the runner is needed for; 0: 3600
	GiveUp         int    `json:"give_up,omitempty"`         // seconds to try for; 0: 900
	IdempotencyKey string `json:"idempotency_key,omitempty"` // empty: "" for a workflow, random for an operator
}

// Started answers POST /start, new or repeated.
type Started struct {
	ID          string   `json:"id"`
	State       string   `json:"state"`
	OwnLabel    string   `json:"own_label"`
	RunsOn      []string `json:"runs_on"` // for the workflow's runs-on
	Labels      []string `json:"labels"`
	StatusURL   string   `json:"status_url"`
	StatusToken Token    `json:"status_token"` // reads and stops this request for 24 hours
	RetryAfter  int      `json:"retry_after"`  // seconds until the first poll
}

// Token is a secret that is part of a body: it is on the wire as it is, and prints as ***
// in every other format.
type Token string

const shown = "***"

// Reveal returns the token itself: for the call that has to send it, only.
func (t Token) Reveal() string { return string(t) }

// String implements fmt.Stringer.
func (t Token) String() string { return shown }

// Format prints *** whatever the verb and flags are.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(shown)) }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(shown) }

// Status answers GET /status/{id}.
type Status struct {
	ID         string    `json:"id"`
	State      string    `json:"state"`               // accepted, waiting, ready, failed, expired, cancelled
	Wait       string    `json:"wait,omitempty"`      // what an accepted request waits for, and
	WaitUntil  time.Time `json:"wait_until,omitzero"` // when that is expected to be over
	Repository string    `json:"repository"`
	Account    string    `json:"account"`
	Region     string    `json:"region"`
	Type       string    `json:"type"`
	Mode       string    `json:"mode"`
	Labels     []string  `json:"labels"`
	OwnLabel   string    `json:"own_label"`
	RunsOn     []string  `json:"runs_on"`
	RunURL     string    `json:"run_url,omitempty"` // the workflow run that asked, for people
	Caller     string    `json:"caller"`
	Trace      string    `json:"trace"`
	CreatedAt  time.Time `json:"created_at"`
	ReadyAt    time.Time `json:"ready_at,omitzero"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
	GiveUpAt   time.Time `json:"give_up_at"`
	Tries      int       `json:"tries"`
	Runner     *Runner   `json:"runner,omitempty"`
	Attempts   []Attempt `json:"attempts"`
	Steps      []Step    `json:"steps"` // in the order of time; none in lists
	History    []Entry   `json:"history"`
	Error      *Error    `json:"error,omitempty"`
}

// Step is one thing that a request waited for, and when it came.
type Step struct {
	// Step is accepted, picked_up, launched or not_launched (once for each placement that
	// was tried), booted, online, ready, job_begun, job_ended, runner_ended, or how the
	// request ended without a runner: failed, expired or cancelled.
	Step   string    `json:"step"`
	At     time.Time `json:"at"`
	AfterS Seconds   `json:"after_s"`          // seconds since the request was made
	Detail string    `json:"detail,omitempty"` // for people
}

// Runner is one machine.
type Runner struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`       // as GitHub shows it
	Request      string    `json:"request"`    // the request that it was launched for
	Repository   string    `json:"repository"` // owner/name
	RunID        string    `json:"run_id,omitempty"`
	RunURL       string    `json:"run_url,omitempty"` // for people
	Account      string    `json:"account"`
	Region       string    `json:"region"`
	Mode         string    `json:"mode"`
	Labels       []string  `json:"labels"` // what it is registered with
	InstanceID   string    `json:"instance_id,omitempty"`
	State        string    `json:"state"`
	Wait         string    `json:"wait,omitempty"`      // what it waits for before it is online, and
	WaitUntil    time.Time `json:"wait_until,omitzero"` // when that is expected to be over
	Market       string    `json:"market"`
	InstanceType string    `json:"instance_type"`
	Subnet       string    `json:"subnet"`
	// Options are what the account and the request set, by name, in words for people.
	Options    map[string]string `json:"options,omitempty"`
	CreatedAt  time.Time         `json:"created_at"`
	LaunchedAt time.Time         `json:"launched_at,omitzero"`
	BootedAt   time.Time         `json:"booted_at,omitzero"` // when its machine first got a config
	OnlineAt   time.Time         `json:"online_at,omitzero"` // when GitHub showed it online, or gave it a job
	EndedAt    time.Time         `json:"ended_at,omitzero"`
	SeenAt     time.Time         `json:"seen_at,omitzero"`        // its last heartbeat; none in lists
	ExpiresAt  time.Time         `json:"expires_at,omitzero"`     // when requests may count on it no more; at most the hard limit
	HardAt     time.Time         `json:"hard_at"`                 // when it ends, whatever runs on it
	Job        *Job              `json:"job,omitempty"`           // the last one
	Jobs       int               `json:"jobs"`                    // how many it finished
	Stolen     string            `json:"stolen_by_run,omitempty"` // the run of a job that took an ephemeral runner from its request
	End        *Error            `json:"end,omitempty"`
	Cost       *Cost             `json:"cost,omitempty"` // what its machine costs; absent: it has none, or runs at a price that is not known
	History    []Entry           `json:"history"`        // empty in lists
}

// Job is a job on a runner, as its machine told of it.
type Job struct {
	RunID     string    `json:"run_id,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// Attempt is one launch that was tried.
type Attempt struct {
	Runner       string    `json:"runner"`
	At           time.Time `json:"at"`
	Market       string    `json:"market"`
	InstanceType string    `json:"instance_type"`
	Subnet       string    `json:"subnet"`
	Code         string    `json:"code"` // "launched", or EC2's error code
}

// Entry is one line of a record's story.
type Entry struct {
	At     time.Time `json:"at"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
}

// Error says why something failed.
type Error struct {
	Code      string `json:"code"`
	Text      string `json:"text"`
	Retryable bool   `json:"retryable"` // whether another POST /start, with a new key, may help
}

// Stopped answers POST /stop/{id}.
type Stopped struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Draining bool   `json:"draining"` // whether the runner has to end
}

// Page answers GET /requests. It may have few requests, or none, and not be the last:
// one call looks at a bounded number of records.
type Page struct {
	Requests []Status `json:"requests"`        // newest first
	After    string   `json:"after,omitempty"` // the cursor of the next page; empty: this is the last
}

// What became of a delivery of GitHub's.
const (
	DeliveryAccepted = "accepted" // the job has a record now, and gets a machine
	DeliveryKnown    = "known"    // it had one, and GitHub was asked about it just now
	DeliveryTold     = "told"     // a worker hears of it
	DeliveryIgnored  = "ignored"  // nothing follows
	DeliveryLater    = "later"    // its repository has as many open requests as it may: the job is found once there is room
)

// Delivered answers POST /github/webhook. People see it in the log of deliveries at GitHub.
type Delivered struct {
	Answer string `json:"answer"` // one of the Delivery words
	ID     string `json:"id,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Runners answers GET /runners. As a Page, it may have few and not be the last.
type Runners struct {
	Runners []Runner `json:"runners"` // newest first
	After   string   `json:"after,omitempty"`
}

// Cost is what a machine cost that has ended. Of one that runs it has the price of an hour.
type Cost struct {
	Zone    string   `json:"zone,omitempty"`     // the availability zone; absent: not known
	Seconds int64    `json:"seconds,omitempty"`  // from its launch to its end; absent: it runs
	HourUSD *float64 `json:"hour_usd,omitempty"` // the price of an hour, in US dollars; absent: not known
	USD     *float64 `json:"usd,omitempty"`      // for its seconds; absent: not known
}

// Usage answers GET /usage.
type Usage struct {
	From  string     `json:"from"` // the first day, such as 2026-03-01, in UTC
	To    string     `json:"to"`   // the last day
	By    []string   `json:"by"`   // what the sums are by
	Rows  []UsageRow `json:"rows"` // by day if they have one, and then the dearest first
	Total UsageRow   `json:"total"`
}

// UsageRow is what the machines that ended did and cost. Of the first fields it has those
// that the sums are by.
type UsageRow struct {
	Day          string `json:"day,omitempty"`
	Repository   string `json:"repository,omitempty"`
	Workflow     string `json:"workflow,omitempty"`
	Account      string `json:"account,omitempty"`
	InstanceType string `json:"type,omitempty"`
	Market       string `json:"market,omitempty"`

	Runners         int      `json:"runners"`
	Seconds         int64    `json:"seconds"`          // of their machines
	UnpricedSeconds int64    `json:"unpriced_seconds"` // those of them whose price is not known
	USD             *float64 `json:"usd,omitempty"`    // what the others cost, in US dollars; absent: no price is known
}

// Found answers GET /find.
type Found struct {
	What     string   `json:"what"`     // what the words name: request, runner, instance, run or job
	Requests []Status `json:"requests"` // newest first, at most 50
	Runners  []Runner `json:"runners"`  // newest first, at most 50
}

// Released answers POST /sweeps/{account}/{region}/release.
type Released struct {
	Account    string    `json:"account"`
	Region     string    `json:"region"`
	BrakeAt    time.Time `json:"brake_at,omitzero"` // when the brake was set; absent: it was never set
	ReleasedAt time.Time `json:"released_at"`
	ReleasedBy string    `json:"released_by"`
}

// Health answers GET /healthz.
type Health struct {
	Status string `json:"status"` // ok
}

// Problem is every error answer: RFC 9457, with a stable Code for programs.
type Problem struct {
	Type   string `json:"type"` // ProblemType and the code
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`            // one of Problems
	Detail string `json:"detail"`          // what is wrong and what to do
	Field  string `json:"field,omitempty"` // of the body, if one is to blame
	Trace  string `json:"trace,omitempty"` // for the operator's logs
}

// Seconds is a duration in seconds on the wire, with a fraction if it has one.
type Seconds float64

// Duration returns s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// InSeconds returns d as Seconds, to the millisecond, and never below zero.
func InSeconds(d time.Duration) Seconds {
	return Seconds(max(0, d.Round(time.Millisecond).Seconds()))
}
