package simgithub

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// Workflow is what GitHub tells of a workflow run beside its jobs. A field that is empty
// or zero has the default.
type Workflow struct {
	Event  string // push
	Actor  string // octocat
	Branch string // main
	// Head is the id of the repository that the code comes from: the run's own. "0" is one
	// that GitHub does not show, as a fork that was deleted.
	Head    string
	Attempt int // 1
	// Public is whether the run's repository is.
	Public bool
}

// actions is what a Server answers about workflow runs and jobs.
type actions struct{ *Server }

// SetWorkflow says what GitHub tells of the runs of a number.
func (s *Server) SetWorkflow(run string, w Workflow) {
	s.look(func(time.Time) { s.workflows[run] = w })
}

// Status returns how GitHub calls the state of a job, and its conclusion; empty: none yet.
// A job whose runner is gone fails: GitHub gives it to no other one.
func (j Job) Status() (status, conclusion string) {
	switch {
	case j.State == Running:
		return github.StatusInProgress, ""
	case j.State == Lost || j.Refused:
		return github.StatusCompleted, "failure"
	case j.State == Done:
		return github.StatusCompleted, "success"
	case j.State == Cancelled:
		return github.StatusCompleted, "cancelled"
	case j.Back:
		return cmp.Or(j.Held, github.StatusQueued), ""
	}
	return github.StatusQueued, ""
}

// at returns the job as it was at a time, for those who read behind.
func (j Job) at(now time.Time) Job {
	if j.EndedAt.After(now) {
		j.State, j.EndedAt, j.Refused = Running, time.Time{}, false
	}
	if j.StartedAt.After(now) || j.State == Running && j.StartedAt.IsZero() {
		j.State, j.StartedAt = Queued, time.Time{}
	}
	if j.ReleasedAt.After(now) {
		j.Back = true
	}
	return j
}

// runStatus returns the status of a run: that of its least advanced job, but that of one
// which runs while another one waits.
func runStatus(jobs []Job) (status string, conclusion any) {
	order := []string{github.StatusInProgress, github.StatusQueued, github.StatusWaiting, github.StatusPending, github.StatusRequested, github.StatusCompleted}
	at := len(order) - 1
	worst := "success"
	for _, j := range jobs {
		status, conclusion := j.Status()
		at = min(at, slices.Index(order, status))
		if conclusion != "" && conclusion != "success" {
			worst = conclusion
		}
	}
	if order[at] != github.StatusCompleted {
		return order[at], nil
	}
	return order[at], worst
}

// jobsOf returns all jobs of a repository, the oldest first.
func (s actions) jobsOf(repo github.Repository) []Job {
	all := slices.Clone(s.over)
	for _, j := range s.jobs {
		all = append(all, j.Job)
	}
	all = slices.DeleteFunc(all, func(j Job) bool { return j.RepositoryID != repo.ID })
	if s.cfg.ReadLag != nil {
		then := s.cfg.Now().Add(-s.cfg.ReadLag())
		for i := range all {
			all[i] = all[i].at(then)
		}
	}
	slices.SortFunc(all, func(a, b Job) int { return number(a.ID) - number(b.ID) })
	return all
}

// serve answers what is asked of a repository's workflow runs and jobs.
func (s actions) serve(now time.Time, repo github.Repository, t target, r *http.Request, h http.Header) answer {
	jobs := s.jobsOf(repo)
	if t.op == OpJob {
		for _, j := range jobs {
			if j.ID == strconv.FormatInt(t.id, 10) {
				return answer{http.StatusOK, s.showJob(r, j)}
			}
		}
		return refuse(http.StatusNotFound, "Not Found", nil)
	}
	if t.op == OpRuns {
		return s.listRuns(repo, jobs, r, h)
	}
	run := strconv.FormatInt(t.id, 10)
	mine := slices.DeleteFunc(slices.Clone(jobs), func(j Job) bool { return j.RunID != run })
	if len(mine) == 0 {
		return refuse(http.StatusNotFound, "Not Found", nil)
	}
	switch t.op {
	case OpRun:
		return answer{http.StatusOK, s.showRun(r, repo, run, mine)}
	case OpCancel:
		return s.cancelRun(now, mine)
	}
	p, wrong := parsePage(r, "filter")
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	shown := []map[string]any{}
	for _, j := range mine {
		shown = append(shown, s.showJob(r, j))
	}
	from, to := p.cut(len(shown), base(r)+"/repositories/"+repo.ID+"/actions/runs/"+run+"/jobs", h)
	return answer{http.StatusOK, map[string]any{"total_count": len(shown), "jobs": shown[from:to]}}
}

// mostRuns is how many runs GitHub shows of those that a filter leaves, at most
// (https://docs.github.com/en/rest/actions/workflow-runs#list-workflow-runs-for-a-repository).
const mostRuns = 1000

// listRuns answers with a page of the runs of a status, the newest first.
func (s actions) listRuns(repo github.Repository, jobs []Job, r *http.Request, h http.Header) answer {
	p, wrong := parsePage(r, "status", "exclude_pull_requests")
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	of := map[string][]Job{}
	for _, j := range jobs {
		of[j.RunID] = append(of[j.RunID], j)
	}
	shown := []map[string]any{}
	for _, run := range slices.SortedFunc(maps.Keys(of), func(a, b string) int { return number(of[b][0].ID) - number(of[a][0].ID) }) {
		if status, _ := runStatus(of[run]); status == cmp.Or(r.URL.Query().Get("status"), status) {
			shown = append(shown, s.showRun(r, repo, run, of[run]))
		}
	}
	shown = shown[:min(len(shown), mostRuns)]
	from, to := p.cut(len(shown), base(r)+"/repositories/"+repo.ID+"/actions/runs", h)
	return answer{http.StatusOK, map[string]any{"total_count": len(shown), "workflow_runs": shown[from:to]}}
}

// cancelRun ends the jobs of a run that no runner has begun. Those that run end by
// themselves: what cancels them at GitHub reaches the runner program, which is not here.
func (s actions) cancelRun(now time.Time, jobs []Job) answer {
	if status, _ := runStatus(jobs); status == github.StatusCompleted {
		return refuse(http.StatusConflict, "Cannot cancel a workflow run that is completed.", nil)
	}
	for _, j := range slices.Clone(s.jobs) {
		if j.State == Running || !slices.ContainsFunc(jobs, func(x Job) bool { return x.ID == j.ID }) {
			continue
		}
		if j.by != nil {
			s.requeue(j)
		}
		s.end(now, j, Cancelled)
	}
	return answer{http.StatusAccepted, map[string]any{}}
}

// stamp is a time as GitHub writes it; nil: there is none.
func stamp(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UTC().Format(time.RFC3339)
}

// orNil is v, or nil if it is zero.
func orNil[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// showJob is GitHub's JSON of a job.
func (s actions) showJob(r *http.Request, j Job) map[string]any {
	w := s.workflows[j.RunID]
	status, conclusion := j.Status()
	at := base(r) + "/repos/" + j.Repository + "/actions/"
	run, _ := strconv.ParseInt(j.RunID, 10, 64)
	out := map[string]any{
		"id": number(j.ID), "node_id": "J" + j.ID, "run_id": run, "run_url": at + "runs/" + j.RunID, "run_attempt": cmp.Or(w.Attempt, 1),
		"head_sha": strings.Repeat("0", 40), "workflow_name": "ci", "head_branch": cmp.Or(w.Branch, "main"), "name": "job " + j.ID,
		"url": at + "jobs/" + j.ID, "html_url": "https://github.com/" + j.Repository + "/actions/runs/" + j.RunID + "/job/" + j.ID,
		"check_run_url": base(r) + "/repos/" + j.Repository + "/check-runs/" + j.ID, "labels": j.Labels, "steps": []any{},
		"status": status, "conclusion": orNil(conclusion), "created_at": stamp(j.QueuedAt), "started_at": stamp(j.QueuedAt), "completed_at": stamp(j.EndedAt),
		"runner_id": nil, "runner_name": nil, "runner_group_id": nil, "runner_group_name": nil,
	}
	if !j.StartedAt.IsZero() { // before, GitHub tells of no runner
		out["started_at"], out["runner_id"], out["runner_name"] = stamp(j.StartedAt), orNil(j.RunnerID), orNil(j.RunnerName)
		out["runner_group_id"], out["runner_group_name"] = defaultGroup, "Default"
	}
	return out
}

// showRun is GitHub's JSON of a run with these jobs.
func (s actions) showRun(r *http.Request, repo github.Repository, run string, jobs []Job) map[string]any {
	w := s.workflows[run]
	status, conclusion := runStatus(jobs)
	at := base(r) + "/repos/" + repo.Name + "/actions/runs/" + run
	id, _ := strconv.ParseInt(run, 10, 64)
	out := map[string]any{
		"id": id, "node_id": "R" + run, "name": "ci", "head_branch": cmp.Or(w.Branch, "main"), "run_number": 1, "run_attempt": cmp.Or(w.Attempt, 1),
		"display_title": "a change", "event": cmp.Or(w.Event, "push"), "status": status, "conclusion": conclusion, "head_sha": strings.Repeat("0", 40),
		"path": ".github/workflows/ci.yml", "workflow_id": 1, "url": at, "html_url": "https://github.com/" + repo.Name + "/actions/runs/" + run,
		"created_at": stamp(jobs[0].QueuedAt), "updated_at": stamp(jobs[0].QueuedAt), "run_started_at": stamp(jobs[0].QueuedAt),
		"head_commit": nil, "pull_requests": []any{}, "check_suite_url": base(r) + "/repos/" + repo.Name + "/check-suites/1", "workflow_url": at + "/workflow",
		"actor": s.showUser(r, cmp.Or(w.Actor, "octocat")), "triggering_actor": s.showUser(r, cmp.Or(w.Actor, "octocat")),
		"repository": s.showRepository(r, repo, !w.Public), "head_repository": s.showRepository(r, repo, !w.Public),
	}
	for _, name := range []string{"jobs", "logs", "cancel", "rerun", "artifacts"} {
		out[name+"_url"] = at + "/" + name
	}
	switch head, ok := s.names.exists(w.Head, true); {
	case w.Head == "0":
		out["head_repository"] = nil
	case w.Head != "" && ok:
		out["head_repository"] = s.showRepository(r, head, !w.Public)
	}
	return out
}

// showUser and showRepository are GitHub's JSON of those, with each address that it has.
func (s actions) showUser(r *http.Request, login string) map[string]any {
	id := int64(1)
	for _, o := range s.orgs {
		if strings.EqualFold(o.Name, login) {
			id, _ = strconv.ParseInt(o.ID, 10, 64) // it is a number
		}
	}
	out := map[string]any{"id": id, "node_id": "U1", "login": login, "gravatar_id": "", "site_admin": false, "type": "User"}
	addresses(out, base(r)+"/users/"+login, "avatar events followers following gists html organizations received_events repos starred subscriptions")
	return out
}

func (s actions) showRepository(r *http.Request, repo github.Repository, private bool) map[string]any {
	id, _ := strconv.ParseInt(repo.ID, 10, 64)
	owner, name, _ := strings.Cut(repo.Name, "/")
	out := map[string]any{"id": id, "node_id": "P" + repo.ID, "name": name, "full_name": repo.Name, "owner": s.showUser(r, owner),
		"private": private, "description": nil, "fork": false}
	addresses(out, base(r)+"/repos/"+repo.Name, "archive assignees blobs branches collaborators comments commits compare contents contributors "+
		"deployments downloads events forks git_commits git_refs git_tags hooks html issue_comment issue_events issues keys labels languages merges milestones "+
		"notifications pulls releases stargazers statuses subscribers subscription tags teams trees")
	return out
}

// addresses puts the addresses of an object and of what it has into its JSON.
func addresses(out map[string]any, at, names string) {
	out["url"] = at
	for name := range strings.FieldsSeq(names) {
		out[name+"_url"] = at + "/" + name
	}
}
