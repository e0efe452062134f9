package reaper

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
)

// Action is what a run did with something, or in a dry run would do.
type Action string

// The actions.
const (
	Resend     Action = "resend"     // sent a message again
	Settle     Action = "settle"     // a waiting request came to something
	Remind     Action = "remind"     // a waiting request waits on
	Expire     Action = "expire"     // gave a request up
	Confirm    Action = "confirm"    // GitHub shows a runner online, or does not
	Drain      Action = "drain"      // a runner is to take nothing new
	Deregister Action = "deregister" // GitHub no longer has the registration
	Wait       Action = "wait"       // the next step is not to be taken yet
	End        Action = "end"        // the machine may be terminated
	Terminate  Action = "terminate"  // EC2 was asked to end the instance
	Missing    Action = "missing"    // EC2 does not find the instance
	Ended      Action = "ended"      // the runner is over
	Forget     Action = "forget"     // GitHub no longer has a left-over name
	Adopt      Action = "adopt"      // recorded an instance that a launch had left unrecorded
	Observe    Action = "observe"    // saw for the first time what no record names
	Remove     Action = "remove"     // removed a registration that no record names
	Brake      Action = "brake"      // the brake is on
	Notice     Action = "notice"     // seen, and none of ours to touch
	Swept      Action = "swept"      // compared EC2 with the records
	Priced     Action = "priced"     // read prices from AWS
	Skip       Action = "skip"       // left to the next run
	Fail       Action = "fail"       // an error; the next run tries again
)

// Line is one decision of a run.
type Line struct {
	Kind   string `json:"kind"` // request, runner, sweep, instance, registration, repository, organization, account, version, prices, index, lane or phase
	ID     string `json:"id"`
	Action Action `json:"action"`
	Reason string `json:"reason"`
}

// Report is what a run looked at, what it did, what it skipped, and why. Lines
// are in the order of the decisions, which depends on the records alone.
type Report struct {
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	DryRun    bool      `json:"dry_run,omitempty"`
	Requests  int       `json:"requests"` // that were due
	Runners   int       `json:"runners"`  // that were due: all live ones, and ended ones with names left
	Sweeps    int       `json:"sweeps"`   // that were due
	// Late: time ran out, and what was left is left to the next run. Left counts that by
	// the phase that ran out of time: ends (runners), sweeps, confirm (runners), requests
	// and names (runners).
	Late   bool           `json:"late,omitempty"`
	Left   map[string]int `json:"left,omitempty"`
	Counts map[Action]int `json:"counts"`
	Lines  []Line         `json:"lines"`
	// What the run measured of its shard, whatever was due: the runners that are not over,
	// how long the oldest request in line has waited, in how many places machines are swept,
	// the machines without a record that the sweeps there saw last, which of the places have
	// the brake on, and the version of the runner program there that GitHub refuses first, with
	// that time; empty: none. Without time for sweeps, Places is zero.
	Live     int      `json:"live,omitempty"`
	OldestMS int64    `json:"oldest_ms,omitempty"`
	Places   int      `json:"places,omitempty"`
	Orphans  int      `json:"orphans,omitempty"`
	Braked   []string `json:"braked,omitempty"`

	Program       string    `json:"program,omitempty"`
	ProgramEndsAt time.Time `json:"program_ends_at,omitzero"`
}

func newReport() Report {
	return Report{Counts: map[Action]int{}, Left: map[string]int{}, Lines: []Line{}}
}

// join adds what a part of the run reports.
func (r *Report) join(part Report) {
	r.Requests, r.Runners, r.Sweeps = r.Requests+part.Requests, r.Runners+part.Runners, r.Sweeps+part.Sweeps
	r.Live, r.OldestMS = r.Live+part.Live, max(r.OldestMS, part.OldestMS)
	r.Lines = append(r.Lines, part.Lines...)
	for act, n := range part.Counts {
		r.Counts[act] += n
	}
	for phase, n := range part.Left {
		r.Left[phase] += n
	}
}

// Figures returns what the run measured, as metrics. What it could not measure is not in
// it; a runner that it had no time to look at counts as live, as the index has it.
func (r Report) Figures() metrics.Figures {
	if r.StartedAt.IsZero() {
		return metrics.Figures{} // there was no run
	}
	f := metrics.Figures{metrics.Live: {float64(r.Live + r.Left["ends"])}, metrics.OldestWait: {float64(r.OldestMS) / 1000}}
	if r.Places > 0 {
		f[metrics.Orphans], f[metrics.Brake] = []float64{float64(r.Orphans)}, []float64{float64(len(r.Braked))}
	}
	return f
}

// left tells what was left, phase by phase.
func (r Report) left() string {
	var all []string
	for _, phase := range slices.Sorted(maps.Keys(r.Left)) {
		all = append(all, fmt.Sprintf("%d of %s", r.Left[phase], phase))
	}
	return strings.Join(all, ", ")
}

// String returns the report for people, one line a decision.
func (r Report) String() string {
	var b strings.Builder
	what := "reaper run"
	if r.DryRun {
		what = "reaper dry run (nothing was changed; this is what a run would do)"
	}
	fmt.Fprintf(&b, "%s of %s, %s: %d requests, %d runners and %d sweeps were due",
		what, r.StartedAt.Format(time.RFC3339), r.EndedAt.Sub(r.StartedAt).Round(time.Millisecond), r.Requests, r.Runners, r.Sweeps)
	sep := "; "
	for _, act := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(&b, "%s%d %s", sep, r.Counts[act], act)
		sep = ", "
	}
	b.WriteByte('\n')
	if r.Late {
		fmt.Fprintf(&b, "time ran out: the rest is left to the next run: %s\n", r.left())
	}
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%-12s %-28s %-10s %s\n", l.Kind, l.ID, l.Action, l.Reason)
	}
	return b.String()
}
