package github

import (
	"context"
	"iter"
	"time"
)

// Run is a workflow run as GitHub shows it: of its latest attempt.
type Run struct {
	ID         int64
	Attempt    int    // from 1
	Status     string // see the statuses below; queued while any of its jobs is
	Conclusion string // empty until Status is completed
	Event      string // such as push
	Actor      string // the login of who caused the first attempt
	Triggered  string // of who caused this one
	// HeadRepository is the id of the repository that the code comes from: another than
	// the run's is a fork. 0: GitHub shows none, as of a fork that was deleted.
	HeadRepository int64
	Public         bool // the run's own repository is
	// HeadBranch is the branch of the code, without the rest of a ref. A fork can give
	// its own any name: it proves nothing.
	HeadBranch string
	Path       string // of the workflow's file
	URL        string // for people
	CreatedAt  time.Time
	// Repository is whose run it is, by its name of now, and OwnerID GitHub's number of its
	// owner.
	Repository string
	OwnerID    int64
}

// Job is a job of a workflow run as GitHub shows it.
type Job struct {
	ID, RunID  int64
	Attempt    int // of its run, from 1
	Name       string
	Status     string
	Conclusion string // empty until Status is completed
	Labels     []string
	// RunnerID and RunnerName are of the runner that took it; 0 and empty: none did, or
	// GitHub does not tell.
	RunnerID   int64
	RunnerName string
	Workflow   string // its name
	HeadBranch string // as in Run
	URL        string // for people
	// StartedAt is when it began, and while it is queued when it was queued.
	CreatedAt, StartedAt, CompletedAt time.Time
}

// The statuses of jobs and, but for the last two, of runs that GARO acts on. GitHub may
// show others.
const (
	StatusQueued     = "queued"
	StatusInProgress = "in_progress"
	StatusCompleted  = "completed"
	StatusWaiting    = "waiting"   // for the rules of an environment
	StatusPending    = "pending"   // for its concurrency group
	StatusRequested  = "requested" // not looked at yet
)

// Delivery is one try of GitHub's to deliver a webhook of the App.
type Delivery struct {
	ID            int64 // of the try; later ones have larger ids
	GUID          string
	At            time.Time
	OK            bool // a 2xx answered it
	Event, Action string
	Repository    int64 // 0: none
	Installation  int64 // 0: none
}

// Jobs is what GARO asks of GitHub about workflow runs and their jobs. It is as API in
// all else.
type Jobs interface {
	// Run returns a workflow run.
	Run(ctx context.Context, repo Repository, id int64) (Run, error)
	// RunJobs returns all jobs of the latest attempt of a run. ErrNotFound may also say
	// that the credential may not see the repository.
	RunJobs(ctx context.Context, repo Repository, run int64) ([]Job, error)
	// Job returns one job.
	Job(ctx context.Context, repo Repository, id int64) (Job, error)
	// Runs yields the runs of a status, the newest first. GitHub shows 1,000 at most,
	// and says nothing of the others.
	Runs(ctx context.Context, repo Repository, status string) iter.Seq2[Run, error]
	// Cancel asks GitHub to cancel a run, which takes its time. ErrConflict: it cannot be
	// cancelled, as when it is over.
	Cancel(ctx context.Context, repo Repository, run int64) error
	// Deliveries returns a page of the deliveries of the App that the registration of an
	// AWS account names, the newest first, and the cursor of the page behind it; empty:
	// there is none. An empty cursor is for the newest page. GitHub keeps them for three
	// days, and an Enterprise Server for seven. ErrDenied if the registration names no App.
	Deliveries(ctx context.Context, account, cursor string) (page []Delivery, next string, err error)
}
