package reaper_test

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// workflows are GitHub's runs, of one queued job each unless they say otherwise, and an
// App's log of deliveries. Each call takes as long as GitHub takes.
type workflows struct {
	takes time.Duration

	lock   sync.Mutex
	runs   []github.Run
	log    []github.Delivery // the oldest first
	calls  map[string]int
	listed map[string]int // how often the runs of a repository were listed, by its id
	// spent is how many calls were made that count with the account's, and half is how many
	// of them leave half of the hour to others: no list of runs is made then. 0: no matter.
	spent, half int
	fails       func(what string) error
}

func newWorkflows() *workflows {
	return &workflows{calls: map[string]int{}, listed: map[string]int{}, fails: func(string) error { return nil }}
}

// queue adds a run with a queued job, in the repository of that id.
func (f *workflows) queue(repo int) {
	f.runs = append(f.runs, github.Run{ID: int64(100_000 + len(f.runs)), Status: github.StatusQueued, Repository: "acme/r" + strconv.Itoa(repo), OwnerID: 9, HeadRepository: int64(repo)})
}

// missed adds the delivery of a queued job, that failed a time ago.
func (f *workflows) missed(repo int, ago time.Duration) {
	f.delivered(github.Delivery{Event: "workflow_job", Action: github.StatusQueued, Repository: int64(repo), Installation: 5}, ago)
}

func (f *workflows) delivered(d github.Delivery, ago time.Duration) {
	d.ID, d.At = int64(len(f.log)+1), time.Now().Add(-ago)
	f.log = append(f.log, d)
}

func (f *workflows) call(ctx context.Context, what string) error {
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return &github.Error{Kind: github.ErrUnknown, Op: what}
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	f.calls[what]++
	switch {
	case what == "deliveries": // GitHub counts what the App asks as itself apart
	case what == "runs" && f.half > 0 && f.spent >= f.half:
		return &github.Error{Kind: github.ErrLimited, Op: what, RetryAt: time.Now().Add(time.Hour)}
	default:
		f.spent++
	}
	return f.fails(what)
}

func (f *workflows) Runs(ctx context.Context, repo github.Repository, status string) iter.Seq2[github.Run, error] {
	return func(yield func(github.Run, error) bool) {
		if err := f.call(ctx, "runs"); err != nil {
			yield(github.Run{}, err)
			return
		}
		if status == github.StatusInProgress {
			f.lock.Lock()
			f.listed[repo.ID]++
			f.lock.Unlock()
		}
		for _, r := range slices.Backward(f.runs) {
			if strconv.FormatInt(r.HeadRepository, 10) == repo.ID && r.Status == status && !yield(r, nil) {
				return
			}
		}
	}
}

func (f *workflows) RunJobs(ctx context.Context, _ github.Repository, run int64) ([]github.Job, error) {
	return []github.Job{{ID: run + 1_000_000, RunID: run, Status: github.StatusQueued, Labels: []string{"garo"}}}, f.call(ctx, "jobs")
}

func (f *workflows) Deliveries(ctx context.Context, _, cursor string) (page []github.Delivery, next string, err error) {
	if err := f.call(ctx, "deliveries"); err != nil {
		return nil, "", err
	}
	from, _ := strconv.ParseInt(cmp.Or(cursor, strconv.Itoa(len(f.log))), 10, 64)
	for _, d := range slices.Backward(f.log[:from]) { // ids count from 1
		if len(page) == 100 {
			return page, strconv.FormatInt(d.ID, 10), nil
		}
		page = append(page, d)
	}
	return page, "", nil
}
