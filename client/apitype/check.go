package apitype

import "time"

// CheckStart is the body of POST /checks. All fields are optional.
type CheckStart struct {
	AccountID string `json:"account_id,omitempty"` // empty: all registered accounts
	Region    string `json:"region,omitempty"`     // of that account; empty: all its regions
	// RunnerID is the runner whose machine's console is to be read, in place of all else.
	RunnerID string `json:"runner_id,omitempty"`
}

// Check answers POST /checks and GET /checks/{id}.
type Check struct {
	ID        string    `json:"id"`
	State     string    `json:"state"`
	Result    string    `json:"result"` // the worst of the findings so far
	AccountID string    `json:"account_id,omitempty"`
	Region    string    `json:"region,omitempty"`
	RunnerID  string    `json:"runner_id,omitempty"`
	Console   string    `json:"console,omitempty"` // what the machine printed: plain text, at most 64 KiB
	Caller    string    `json:"caller"`
	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	GiveUpAt  time.Time `json:"give_up_at"`
	Findings  []Finding `json:"findings"`
}

// The states of a check. The last two are final.
const (
	CheckQueued  = "queued"
	CheckRunning = "running"
	CheckDone    = "done"
	CheckUnknown = "unknown" // it was not done in time: what it found is not all
)

// Finding is what a check found of one thing.
type Finding struct {
	Check     string `json:"check"` // which check: docs/operate.md has a table of them
	AccountID string `json:"account_id,omitempty"`
	Region    string `json:"region,omitempty"`
	About     string `json:"about,omitempty"`
	Result    string `json:"result"`
	Evidence  string `json:"evidence"`
	Remedy    string `json:"remedy,omitempty"`
}

// The results of a finding, from the best to the worst.
const (
	ResultOK      = "ok"
	ResultSkipped = "skipped" // it was not looked at, and Finding.Evidence says why
	ResultWarn    = "warn"
	ResultFailed  = "failed"
)
