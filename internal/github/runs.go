package github

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	gogithub "github.com/google/go-github/v88/github"
)

var _ Jobs = (*Client)(nil)

// Run implements Jobs.
func (c *Client) Run(ctx context.Context, repo Repository, id int64) (Run, error) {
	object := strconv.FormatInt(id, 10)
	e := repo.errand(getRun, object, ReadJobs)
	if id <= 0 {
		return Run{}, &Error{Kind: ErrRefused, Op: e.what}
	}
	var out Run
	_, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
		var r runJSON
		resp, err := call(ctx, gh, http.MethodGet, root+"/runs/"+object+"?exclude_pull_requests=true", nil, &r)
		if err == nil && (!r.sound(repo) || r.ID != id) {
			err = errAnswer
		}
		out = r.run()
		return resp, err
	})
	if err != nil {
		return Run{}, err
	}
	return out, nil
}

// RunJobs implements Jobs.
func (c *Client) RunJobs(ctx context.Context, repo Repository, run int64) ([]Job, error) {
	object := strconv.FormatInt(run, 10)
	e := repo.errand(listJobs, object, ReadJobs)
	if run <= 0 {
		return nil, &Error{Kind: ErrRefused, Op: e.what}
	}
	var out []Job
	for n := 1; n != 0; {
		var l *struct {
			Jobs []jobJSON `json:"jobs"`
		}
		resp, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
			l = nil
			resp, err := call(ctx, gh, http.MethodGet, root+"/runs/"+object+"/jobs?"+paged(n, "filter", "latest"), nil, &l)
			alien := func(j jobJSON) bool { return !j.sound() || j.RunID != run }
			if err == nil && (l == nil || !leadsOn(resp, n) || slices.ContainsFunc(l.Jobs, alien)) {
				err = errAnswer
			}
			return resp, err
		})
		if err != nil {
			return nil, err
		}
		for _, j := range l.Jobs {
			out = append(out, j.job())
		}
		n = resp.NextPage
	}
	return out, nil
}

// Job implements Jobs.
func (c *Client) Job(ctx context.Context, repo Repository, id int64) (Job, error) {
	object := strconv.FormatInt(id, 10)
	e := repo.errand(getJob, object, ReadJobs)
	if id <= 0 {
		return Job{}, &Error{Kind: ErrRefused, Op: e.what}
	}
	var out Job
	_, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
		var j jobJSON
		resp, err := call(ctx, gh, http.MethodGet, root+"/jobs/"+object, nil, &j)
		if err == nil && (!j.sound() || j.ID != id) {
			err = errAnswer
		}
		out = j.job()
		return resp, err
	})
	if err != nil {
		return Job{}, err
	}
	return out, nil
}

// Runs implements Jobs. After an error it yields nothing more.
func (c *Client) Runs(ctx context.Context, repo Repository, status string) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		e := repo.errand(listRuns, status, ReadJobs)
		for n := 1; n != 0; {
			var l *struct {
				Runs []runJSON `json:"workflow_runs"`
			}
			resp, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
				l = nil
				resp, err := call(ctx, gh, http.MethodGet, root+"/runs?"+paged(n, "status", status, "exclude_pull_requests", "true"), nil, &l)
				alien := func(r runJSON) bool { return !r.sound(repo) }
				if err == nil && (l == nil || !leadsOn(resp, n) || slices.ContainsFunc(l.Runs, alien)) {
					err = errAnswer
				}
				return resp, err
			})
			if err != nil {
				yield(Run{}, err)
				return
			}
			for _, r := range l.Runs {
				if !yield(r.run(), nil) {
					return
				}
			}
			n = resp.NextPage
		}
	}
}

// Cancel implements Jobs.
func (c *Client) Cancel(ctx context.Context, repo Repository, run int64) error {
	object := strconv.FormatInt(run, 10)
	e := repo.errand(cancel, object, CancelRuns)
	if run <= 0 {
		return &Error{Kind: ErrRefused, Op: e.what}
	}
	_, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
		resp, err := call(ctx, gh, http.MethodPost, root+"/runs/"+object+"/cancel", nil, nil)
		if resp != nil && resp.Response != nil && resp.StatusCode == http.StatusAccepted {
			err = nil // which the library has for an answer that is still to come
		}
		return resp, err
	})
	return err
}

// Deliveries implements Jobs.
func (c *Client) Deliveries(ctx context.Context, account, cursor string) (page []Delivery, next string, err error) {
	e := errand{op: deliveries, what: describe(deliveries, "", account), root: "app/hook/deliveries", access: Access{Account: account, Name: account, Right: AsApp}}
	query := url.Values{"per_page": {strconv.Itoa(perPage)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	var l []deliveryJSON
	resp, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
		l = nil
		resp, err := call(ctx, gh, http.MethodGet, root+"?"+query.Encode(), nil, &l)
		if err == nil && (l == nil || resp.Cursor != "" && resp.Cursor == cursor) {
			err = errAnswer
		}
		return resp, err
	})
	if err != nil {
		return nil, "", err
	}
	for _, d := range l {
		page = append(page, d.delivery())
	}
	return page, resp.Cursor, nil
}

// paged returns the query of page n of a list, with keys and values beside.
func paged(n int, more ...string) string {
	query := url.Values{"per_page": {strconv.Itoa(perPage)}, "page": {strconv.Itoa(n)}}
	for i := 0; i < len(more); i += 2 {
		query.Set(more[i], more[i+1])
	}
	return query.Encode()
}

// runJSON, jobJSON and deliveryJSON are GitHub's JSON, as far as it is read. What is null
// there is zero here.
type runJSON struct {
	ID         int64     `json:"id"`
	Attempt    int       `json:"run_attempt"`
	Status     string    `json:"status"`
	Conclusion string    `json:"conclusion"`
	Event      string    `json:"event"`
	Actor      userJSON  `json:"actor"`
	Triggered  userJSON  `json:"triggering_actor"`
	Head       repoJSON  `json:"head_repository"`
	Repository repoJSON  `json:"repository"`
	HeadBranch string    `json:"head_branch"`
	Path       string    `json:"path"`
	URL        string    `json:"html_url"`
	CreatedAt  time.Time `json:"created_at"`
}

type userJSON struct {
	Login string `json:"login"`
}

type repoJSON struct {
	ID      int64  `json:"id"`
	Name    string `json:"full_name"`
	Private *bool  `json:"private"`
	Owner   struct {
		ID int64 `json:"id"`
	} `json:"owner"`
}

// public reports whether GitHub says that everybody may see the repository.
func (r *repoJSON) public() bool { return r.Private != nil && !*r.Private }

// sound reports whether it is a run of the repository.
func (r *runJSON) sound(repo Repository) bool {
	return r.ID > 0 && r.Attempt >= 0 && r.Event != "" && r.Status != "" && strconv.FormatInt(r.Repository.ID, 10) == repo.ID && r.Repository.Name != "" && r.Repository.Owner.ID > 0
}

func (r *runJSON) run() Run {
	return Run{
		ID: r.ID, Attempt: max(1, r.Attempt), Status: r.Status, Conclusion: r.Conclusion, Event: r.Event,
		Actor: r.Actor.Login, Triggered: r.Triggered.Login, HeadRepository: r.Head.ID, HeadBranch: r.HeadBranch,
		Public: r.Repository.public(), Path: r.Path, URL: r.URL, CreatedAt: r.CreatedAt,
		Repository: r.Repository.Name, OwnerID: r.Repository.Owner.ID,
	}
}

type jobJSON struct {
	ID          int64     `json:"id"`
	RunID       int64     `json:"run_id"`
	Attempt     int       `json:"run_attempt"`
	Name        string    `json:"name"`
	Status      string    `json:"status"`
	Conclusion  string    `json:"conclusion"`
	Labels      []string  `json:"labels"`
	RunnerID    int64     `json:"runner_id"`
	RunnerName  string    `json:"runner_name"`
	Workflow    string    `json:"workflow_name"`
	HeadBranch  string    `json:"head_branch"`
	URL         string    `json:"html_url"`
	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at"`
	CompletedAt time.Time `json:"completed_at"`
}

func (j *jobJSON) sound() bool { return j.ID > 0 && j.RunID > 0 && j.Attempt >= 0 && j.Status != "" }

func (j *jobJSON) job() Job {
	return Job{
		ID: j.ID, RunID: j.RunID, Attempt: max(1, j.Attempt), Name: j.Name, Status: j.Status, Conclusion: j.Conclusion, Labels: j.Labels,
		RunnerID: j.RunnerID, RunnerName: j.RunnerName, Workflow: j.Workflow, HeadBranch: j.HeadBranch, URL: j.URL,
		CreatedAt: j.CreatedAt, StartedAt: j.StartedAt, CompletedAt: j.CompletedAt,
	}
}

type deliveryJSON struct {
	ID           int64     `json:"id"`
	GUID         string    `json:"guid"`
	At           time.Time `json:"delivered_at"`
	Code         int       `json:"status_code"`
	Event        string    `json:"event"`
	Action       string    `json:"action"`
	Repository   int64     `json:"repository_id"`
	Installation int64     `json:"installation_id"`
}

func (d deliveryJSON) delivery() Delivery {
	return Delivery{ID: d.ID, GUID: d.GUID, At: d.At, OK: d.Code >= 200 && d.Code < 300, Event: d.Event, Action: d.Action, Repository: d.Repository, Installation: d.Installation}
}
