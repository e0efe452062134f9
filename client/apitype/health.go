package apitype

import "time"

// ReaperHealth answers GET /health: the last run of each of the reaper's shards.
type ReaperHealth struct {
	// Runs are by shard. None: no run is recorded yet, as by a reaper of an earlier version.
	Runs []ReaperRun `json:"runs"`
	// Shards is how many there are. A shard that is not among the runs has not recorded one
	// yet. Zero: none has.
	Shards int `json:"shards"`
}

// ReaperRun is the last run of the reaper that was recorded, or of one of its shards.
type ReaperRun struct {
	Shard     int       `json:"shard"` // from 0
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	LateS     Seconds   `json:"late_s"` // how much more than its period after the run before it began
	// Left counts what the run had no time for, by phase. Empty: it did all.
	Left        map[string]int `json:"left"`
	Failures    int            `json:"failures"`      // steps that failed; the reaper's log has them
	OldestWaitS Seconds        `json:"oldest_wait_s"` // how long the oldest request in line has waited
	// GitHubLeft is how many hundredths of its calls of the hour the credential has left that
	// has least. Nil: nobody knows.
	GitHubLeft *int `json:"github_left,omitempty"`
	// LookedAt is when the sweeps were read that the brakes and the version are of. Zero: never.
	LookedAt time.Time `json:"looked_at,omitzero"`
	// Brakes are where a sweep's brake is on, each as <account>/<region>.
	Brakes []string `json:"brakes"`
	// RunnerVersion is the version of the runner program in use that GitHub refuses first, from
	// RunnerVersionEndsAt on. Empty: GitHub has set no date for any.
	RunnerVersion       string    `json:"runner_version,omitempty"`
	RunnerVersionEndsAt time.Time `json:"runner_version_ends_at,omitzero"`
	// Alarms are those that runs of the reaper raised within a day, the newest first, each
	// code once. Those of the API and the worker are not among them.
	Alarms []RaisedAlarm `json:"alarms"`
}

// RaisedAlarm is an alarm that was raised, once or several times.
type RaisedAlarm struct {
	Code  string    `json:"code"` // docs/operate.md says what to do
	Count int       `json:"count"`
	Since time.Time `json:"since"` // the first of these times
	At    time.Time `json:"at"`    // the last one
	Text  string    `json:"text"`  // of the last one
}
