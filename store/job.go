package store

import (
	"strconv"
	"time"
)

// WorkflowJob is the job of a workflow run at GitHub that a request is for. Its zero
// value: the request is one of POST /start, for whatever names its own label.
type WorkflowJob struct {
	ID      string `json:"id,omitempty"`     // GitHub's number of the job: each attempt of a run has others
	RunID   string `json:"run_id,omitempty"` // GitHub's number of the run
	Attempt int    `json:"attempt,omitempty"`
	Name    string `json:"name,omitempty"`
	// Labels are what runs-on names, as GitHub has them.
	Labels     []string `json:"labels,omitempty"`
	Workflow   string   `json:"workflow,omitempty"`
	HeadBranch string   `json:"head_branch,omitempty"` // a fork can name it as it likes
	URL        string   `json:"url,omitempty"`         // for people
	// CreatedAt, StartedAt and CompletedAt are GitHub's times. Zero: not said, or not yet.
	CreatedAt   time.Time `json:"created_at,omitzero"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	Conclusion  string    `json:"conclusion,omitempty"` // in GitHub's word, such as success; empty: none yet
	// TakenBy is the name of the runner that it began on. Empty: it has not begun, as far
	// as is known, or GitHub does not say where.
	TakenBy string `json:"taken_by,omitempty"`
}

// JobStatus is where a workflow job stands, in GitHub's words.
type JobStatus string

// The statuses of a workflow job
// (https://docs.github.com/en/rest/actions/workflow-jobs#get-a-job-for-a-workflow-run).
const (
	JobQueued     JobStatus = "queued" // any runner with its labels may be given it
	JobWaiting    JobStatus = "waiting"
	JobPending    JobStatus = "pending"
	JobRequested  JobStatus = "requested"
	JobInProgress JobStatus = "in_progress"
	JobCompleted  JobStatus = "completed"
)

// Held reports whether the job waits for something at GitHub: no runner is given it yet.
func (s JobStatus) Held() bool { return s == JobWaiting || s == JobPending || s == JobRequested }

// Begun reports whether the job has begun, or will never begin.
func (s JobStatus) Begun() bool { return s == JobInProgress || s == JobCompleted }

// Sighting is what GitHub says of a workflow job at one time: in a webhook, or when it is
// asked.
type Sighting struct {
	Job    WorkflowJob
	Status JobStatus
	// Runner is the name of the runner that the job is on, or was, and Registration is
	// GitHub's number of it. Empty and 0: GitHub does not say.
	Runner       string
	Registration int64
	// Read: GitHub was asked. A webhook may be old, or come twice.
	Read bool
}

// WorkflowRun is what GitHub says of the run that a workflow job belongs to.
type WorkflowRun struct {
	ID       string
	Attempt  int
	Event    string // that began the run
	Actor    string
	Workflow string // the path of the workflow's file
	// HeadRepository is GitHub's number of the repository that the commit is in: another
	// than the run's own is a fork. Empty: that fork is gone.
	HeadRepository string
	Public         bool   // the run's own repository is
	HeadBranch     string // the run has no ref: a fork's branch can be named main
}

// Took is the workflow job that began on a runner. It is set once.
type Took struct {
	Job     string    `json:"job,omitempty"`     // GitHub's number of it
	Request string    `json:"request,omitempty"` // the request that is for it; empty: there is none
	At      time.Time `json:"at,omitzero"`       // when that was learnt
}

// OfJob reports whether r is for a workflow job, and not of POST /start.
func (r Request) OfJob() bool { return r.Job.ID != "" }

// OfJob reports whether r was launched for a workflow job.
func (r Runner) OfJob() bool { return r.For != "" }

// jobLife is for how long a workflow job can be of use to anybody: GitHub ends each run
// after 35 days (https://docs.github.com/en/actions/reference/limits). Its request is over
// when GitHub says so of the job, and for a GitHub that never answers a day later.
const jobLife = 36 * 24 * time.Hour

// jobLock returns the key of the lock of one launch for a workflow job.
func jobLock(request string, launch int) string { return request + "/" + strconv.Itoa(launch) }
