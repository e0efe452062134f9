package api

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// maxSought bounds what is looked for: the longest URL of a job at GitHub has an owner of
// 39 and a name of 100 characters, and two numbers.
const maxSought = 512

// sought is what somebody looks for. One of the fields but job is set.
type sought struct {
	what     string // as apitype.Found has it; empty: an id of either kind
	id       string // of a request or a runner
	instance string
	run      string
	job      string // with run: the id of its job, which is a check run's
}

// readSought tells what the words mean. It is false for what can name nothing.
func readSought(q string) (sought, bool) {
	q = strings.TrimSpace(q)
	switch {
	case len(q) > maxSought:
		return sought{}, false
	case keys.ValidID(q):
		return sought{id: q}, true
	case instanceForm.Fits(q):
		return sought{what: "instance", instance: q}, true
	case form.GitHubID.Fits(q):
		return sought{what: "run", run: q}, true
	case strings.HasPrefix(q, store.Ours):
		// A registration's name ends with the runner's id and the config's number.
		parts := strings.Split(q, "-")
		if n := len(parts); n > 2 && keys.ValidID(parts[n-2]) && form.GitHubID.Fits(parts[n-1]) {
			return sought{what: "runner", id: parts[n-2]}, true
		}
		return sought{}, false
	}
	u, err := url.Parse(q)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return sought{}, false
	}
	// https://github.com/OWNER/NAME/actions/runs/RUN[/attempts/N][/job/JOB]
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 5 || parts[2] != "actions" || parts[3] != "runs" || !form.GitHubID.Fits(parts[4]) {
		return sought{}, false
	}
	out := sought{what: "run", run: parts[4]}
	if n := len(parts); n > 6 && strings.TrimSuffix(parts[n-2], "s") == "job" && form.GitHubID.Fits(parts[n-1]) {
		out.what, out.job = "job", parts[n-1]
	}
	return out, true
}

// find answers what somebody's words name.
func (s *server) find(ctx context.Context, c *call, _ none) (apitype.Found, error) {
	v, err := c.onlooker(ctx)
	if err != nil {
		return apitype.Found{}, err
	}
	q, ok := readSought(c.query.Get("q"))
	if !ok {
		return apitype.Found{}, invalid("q", "Want the id of a request or a runner, a runner's name at GitHub, an instance (i-…), the number of a workflow run, or the address of a run or a job at GitHub.")
	}
	out := apitype.Found{What: q.what, Requests: []apitype.Status{}, Runners: []apitype.Runner{}}
	switch {
	case q.id != "":
		err = c.findID(ctx, v, q, &out)
	case q.instance != "":
		err = c.findInstance(ctx, v, q.instance, &out)
	default:
		err = c.findRun(ctx, v, q, &out)
	}
	if err != nil {
		return apitype.Found{}, err
	}
	if len(out.Requests)+len(out.Runners) == 0 {
		return apitype.Found{}, &problem{code: apitype.CodeNotFound, detail: "Nothing is recorded under this, or this token may not see it. Records are kept for 30 days after their end."}
	}
	return out, nil
}

// findID looks for the request or the runner of an id.
func (c *call) findID(ctx context.Context, v sight, q sought, out *apitype.Found) error {
	items, err := c.get(ctx, store.Ref{Kind: store.KindRequest, ID: q.id}, store.Ref{Kind: store.KindRunner, ID: q.id})
	if err != nil {
		return err
	}
	r, run := *items[0].(*store.Request), *items[1].(*store.Runner)
	if run.Version > 0 && v.sees(run.Repository) {
		seen, err := c.whole(ctx, run)
		if err != nil {
			return err
		}
		out.What, out.Runners = "runner", append(out.Runners, seen)
	}
	if q.what == "" && r.Version > 0 && v.sees(r.Repository) {
		run, lock, err := c.runnerOf(ctx, r)
		if err != nil {
			return err
		}
		out.What, out.Requests = "request", append(out.Requests, statusOf(r, run, lock))
	}
	return nil
}

// findInstance looks for the runners of an EC2 instance: one, but for accounts' ids that
// are alike.
func (c *call) findInstance(ctx context.Context, v sight, instance string, out *apitype.Found) error {
	found, _, err := page[*store.Runner](ctx, c, v, store.Filter{Kind: store.KindRunner, Repository: v.repo.ID, FoundBy: instance})
	if err != nil {
		return err
	}
	for _, run := range found {
		seen, err := c.whole(ctx, *run)
		if err != nil {
			return err
		}
		out.Runners = append(out.Runners, seen)
	}
	return nil
}

// findRun looks for the requests of a workflow run, or of one of its jobs: where no
// request says that it came from that job, of the whole run.
func (c *call) findRun(ctx context.Context, v sight, q sought, out *apitype.Found) error {
	found, _, err := page[*store.Request](ctx, c, v, store.Filter{Kind: store.KindRequest, Repository: v.repo.ID, FoundBy: q.run})
	if err != nil {
		return err
	}
	ofJob := func(r *store.Request) bool { return r.Job.ID == q.job || r.Origin.CheckRunID == q.job }
	if q.job != "" && slices.ContainsFunc(found, ofJob) {
		found = slices.DeleteFunc(found, func(r *store.Request) bool { return !ofJob(r) })
	}
	out.Requests, err = c.rows(ctx, found)
	return err
}
