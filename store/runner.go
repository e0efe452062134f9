package store

import (
	"fmt"
	"time"
)

// RunnerState is where a machine stands.
type RunnerState string

// The states of a runner, in the order of its life. Online and Busy alternate.
// RunnerFailed and RunnerEnded are final.
const (
	RunnerNew      RunnerState = "new"      // intended; RunInstances has not answered
	RunnerLaunched RunnerState = "launched" // EC2 gave an instance id
	RunnerBooting  RunnerState = "booting"  // the machine has its config
	RunnerOnline   RunnerState = "online"   // GitHub said that it can give it a job
	RunnerBusy     RunnerState = "busy"     // it runs a job
	RunnerDraining RunnerState = "draining" // nothing new is to happen on it
	RunnerEnding   RunnerState = "ending"   // it is being terminated
	RunnerEnded    RunnerState = "ended"
	RunnerFailed   RunnerState = "failed" // it never came to an instance
)

// RunnerStates lists every state.
var RunnerStates = []RunnerState{RunnerNew, RunnerLaunched, RunnerBooting, RunnerOnline, RunnerBusy,
	RunnerDraining, RunnerEnding, RunnerEnded, RunnerFailed}

// Final reports whether nothing ever follows s.
func (s RunnerState) Final() bool { return s == RunnerEnded || s == RunnerFailed }

// Usable reports whether s comes before draining: the runner has, or may come
// to have, a job.
func (s RunnerState) Usable() bool {
	switch s {
	case RunnerNew, RunnerLaunched, RunnerBooting, RunnerOnline, RunnerBusy:
		return true
	}
	return false
}

// Placement is one way to buy the machine.
type Placement struct {
	Market       string `json:"market"` // Spot or OnDemand
	InstanceType string `json:"instance_type"`
	Subnet       string `json:"subnet"`
}

func (p Placement) String() string { return p.Market + " " + p.InstanceType + " in " + p.Subnet }

// Launch is what is frozen at the intent, so that anyone who repeats the call
// repeats it to the byte, as a client token demands. User data is rendered from
// the runner's id, its index and these ingredients.
type Launch struct {
	Image           string            `json:"image"` // an AMI id
	SecurityGroups  []string          `json:"security_groups"`
	InstanceProfile string            `json:"instance_profile,omitempty"`
	Tags            map[string]string `json:"tags"`
	Script          int               `json:"script"`       // version of the user data script
	APIURL          string            `json:"api_url"`      // where the machine calls
	AgentSHA256     map[string]string `json:"agent_sha256"` // by architecture
	HardS           int               `json:"hard_s"`       // seconds until the machine's own timer
	KeyID           string            `json:"key_id"`       // the key that the machine's tokens come from
	// Vouched: a boot counts only with AWS's word that it comes from the launched
	// instance. A launch of a version before it was written has an agent that sends none.
	Vouched bool          `json:"vouched,omitempty"`
	Options LaunchOptions `json:"options,omitzero"`
	// BootLimitsS are the seconds that the instance types of the plan have to boot: see
	// Launch.BootLimit.
	BootLimitsS map[string]int `json:"boot_limits_s,omitempty"`
}

// Attempt is one RunInstances call that had an answer.
type Attempt struct {
	Placement
	Runner string    `json:"runner"`
	At     time.Time `json:"at"`
	Code   string    `json:"code"` // "launched", or EC2's error code
	// Text is why EC2 refuses this placement, whatever its capacity, in EC2's words.
	// Empty: it launched, it had no capacity, or a later attempt says more.
	Text string `json:"text,omitempty"`
}

// Launched reports whether the call gave a machine.
func (a Attempt) Launched() bool { return a.Code == "launched" }

// String tells which launch an attempt was, for logs.
func (a Attempt) String() string { return fmt.Sprintf("%s: %s", a.Placement, a.Code) }

// Said is what EC2 answered last, at one index, that does not tell whether it
// launched.
type Said struct {
	Code  string `json:"code,omitempty"`  // EC2's error code; empty: nothing
	Text  string `json:"text,omitempty"`  // in EC2's words
	Times int    `json:"times,omitempty"` // how often in a row it had that code
}

// Config is the newest one-job configuration.
type Config struct {
	// N is its number. Zero: there is none yet. Numbers rise and may skip.
	N int `json:"n"`
	// Sealed is the config itself, encrypted for the control plane. Empty once the
	// runner drains: N and RunnerID stay, since its end needs them.
	Sealed string `json:"sealed,omitempty"`
	// RunnerID is GitHub's id of the registration.
	RunnerID int64 `json:"runner_id,omitempty"`
	// Used: its one job is done, or the machine asked for another config.
	Used bool `json:"used,omitempty"`
}

// Boot is what the machine's first calls bound.
type Boot struct {
	NonceHash  string `json:"nonce_hash,omitempty"`  // SHA-256, hex
	InstanceID string `json:"instance_id,omitempty"` // as the machine claims it
	// At is when the config was answered first. Zero: never, so that whatever
	// runs there has no credential.
	At time.Time `json:"at,omitzero"`
}

// Job is the last job seen on the machine.
type Job struct {
	RunID     string    `json:"run_id,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// Runner is one machine, from the intent to launch it to its end.
type Runner struct {
	Meta
	ID        string      `json:"id"`
	State     RunnerState `json:"state"`
	CreatedAt time.Time   `json:"created_at"`
	Lock      string      `json:"lock"`    // the key of the lock that names it, or did
	Request   string      `json:"request"` // the request that launched it
	// For is the request of a workflow job that the runner was launched for, or given to
	// since. Empty: it was launched for one of POST /start.
	For string `json:"for,omitempty"`
	// Took is the workflow job that began on it.
	Took Took `json:"took,omitzero"`
	// Admission is what its machine asked before its job began.
	Admission  Admission  `json:"admission,omitzero"`
	Trace      string     `json:"trace"`
	Repository Repository `json:"repository"`       // of the request that launched it
	Scope      Scope      `json:"scope,omitzero"`   // where it registers; see Where
	RunID      string     `json:"run_id,omitempty"` // the run that the launching request came from
	Account    string     `json:"account"`
	Region     string     `json:"region"`
	Mode       string     `json:"mode"`
	Labels     []string   `json:"labels"` // what it registers with: the own label first

	Plan   []Placement `json:"plan"`
	Index  int         `json:"index"` // the placement being tried, or launched
	Launch Launch      `json:"launch"`
	// CalledAt is the slot of the last RunInstances call.
	CalledAt time.Time `json:"called_at"`
	// Unclear: a call at this index had no answer that tells whether it launched.
	Unclear  bool      `json:"unclear,omitempty"`
	Said     Said      `json:"said,omitzero"`
	Attempts []Attempt `json:"attempts,omitempty"`
	Claim    Claim     `json:"claim,omitzero"`
	// Lease is what its next registration may be made by, once. Zero: none, or it is used.
	Lease Lease `json:"lease,omitzero"`
	// Wait and WaitUntil say what the next step waits for.
	Wait       string       `json:"wait,omitempty"`
	WaitUntil  time.Time    `json:"wait_until,omitzero"`
	InstanceID string       `json:"instance_id,omitempty"`
	Names      []GitHubName `json:"names"`
	Config     Config       `json:"config"`
	// Unminted is nil when there is a config, or none was tried for.
	Unminted *Unminted `json:"unminted,omitempty"`
	Wanted   int       `json:"wanted"` // the config number that the machine asks for
	// AskedAt is when a worker was last sent to register it because the machine asked again.
	AskedAt time.Time `json:"asked_at,omitzero"`
	Boot    Boot      `json:"boot,omitzero"`
	// Counter is the number of the last event that was taken.
	Counter int64 `json:"counter,omitempty"`
	// SpentUntil is when the budget of what the machine says is full again; a time that
	// has passed is a full one. LeftOut is how many of its notes are not in the history,
	// at least. FloodAt is when it first said more than the budget has room for.
	SpentUntil time.Time `json:"spent_until,omitzero"`
	LeftOut    int       `json:"left_out,omitempty"`
	FloodAt    time.Time `json:"flood_at,omitzero"`

	LaunchedAt time.Time `json:"launched_at,omitzero"`
	// ListeningAt is when the machine said that the runner program of the current
	// config listens for jobs. That is the machine's word alone: the program says so
	// before GitHub has answered it. Zero: it said nothing, or the config is used up.
	ListeningAt time.Time `json:"listening_at,omitzero"`
	// OnlineAt is when it was first known that jobs can come to the runner: GitHub
	// showed it online, or had given it a job.
	OnlineAt time.Time `json:"online_at,omitzero"`
	// MissedAt is when GitHub first did not show the current registration online.
	// Zero: it has not been missed since GitHub showed it last.
	MissedAt time.Time `json:"missed_at,omitzero"`
	Job      Job       `json:"job,omitzero"`
	Jobs     int       `json:"jobs"`             // how many jobs it finished
	Stolen   string    `json:"stolen,omitempty"` // the run id of a job that came from another run than the launching request's

	// Hard is when it must end, whatever runs on it. It never changes.
	Hard time.Time `json:"hard"`
	// End says why it drains, ended or failed.
	End        *Failure  `json:"end,omitempty"`
	DrainingAt time.Time `json:"draining_at,omitzero"`
	// DeletedAt is when GitHub was first asked to delete the registration;
	// DeregisteredAt is when it was gone.
	DeletedAt      time.Time `json:"deleted_at,omitzero"`
	DeregisteredAt time.Time `json:"deregistered_at,omitzero"`
	// Refusals is how often GitHub refused to delete it, for a job that runs, since
	// the machine last said that none does. DeleteAfter is when it is asked again.
	Refusals    int       `json:"refusals,omitempty"`
	DeleteAfter time.Time `json:"delete_after,omitzero"`
	// SuspectAt is when a person was alarmed that the end waits for too long.
	SuspectAt time.Time `json:"suspect_at,omitzero"`
	// IdleAt is when the machine said, while draining, that no job runs. It counts
	// once the registration is gone: before, GitHub may still hand one out.
	IdleAt       time.Time `json:"idle_at,omitzero"`
	EndingAt     time.Time `json:"ending_at,omitzero"`
	TerminatedAt time.Time `json:"terminated_at,omitzero"` // the last TerminateInstances call
	MissingAt    time.Time `json:"missing_at,omitzero"`    // when EC2 first did not find it
	EndedAt      time.Time `json:"ended_at,omitzero"`
	// Cost is what its machine cost, once it ended.
	Cost    Cost    `json:"cost,omitzero"`
	History History `json:"history"`
}

// Ref implements Item.
func (r *Runner) Ref() Ref { return Ref{KindRunner, r.ID} }

func (r *Runner) name(id string) { r.ID = id }

// Placement returns the placement being tried, or launched.
func (r Runner) Placement() Placement { return r.Plan[r.Index] }

// ClientToken is what makes RunInstances idempotent. It names the runner and the
// index and nothing that a successor would change: a resumed launch must carry
// the token of the one that it resumes, or it would launch twice.
func (r Runner) ClientToken() string { return fmt.Sprintf("garo-%s-%d", r.ID, r.Index) }

// enter moves r to another state.
func (r Runner) transition(now time.Time, state RunnerState, reason string) Runner {
	r.State = state
	r.History = r.History.with(now, string(state), reason)
	return r
}

// note adds to r's story without a change of state.
func (r Runner) note(now time.Time, reason string) Runner {
	r.History = r.History.with(now, string(r.State), reason)
	return r
}
