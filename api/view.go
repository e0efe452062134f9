package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// statusOf returns what people and clients see of a request, and of its runner if
// that is known.
func statusOf(r store.Request, run store.Runner, lock store.Lock) apitype.Status {
	out := apitype.Status{
		ID: r.ID, State: string(r.State), Wait: r.Wait, WaitUntil: r.WaitsUntil(), Repository: r.Repository.Name, Account: r.Account,
		Region: r.Region, Type: r.Type, Mode: r.Mode, Labels: list(r.Labels), OwnLabel: r.OwnLabel, RunsOn: r.RunsOn(),
		RunURL: runURL(r.Repository, r.Origin.RunID), Caller: r.Caller, Trace: r.Trace, CreatedAt: r.CreatedAt, ReadyAt: r.ReadyAt, EndedAt: r.EndedAt, GiveUpAt: r.GiveUpAt,
		Tries: r.Tries, Attempts: attempts(r.Attempts), History: entries(r.History), Error: failure(r.Error),
	}
	if run.Version == 0 {
		out.Steps = stepsOf(r, run, out.Attempts)
		return out
	}
	seen := runnerOf(run, lock, store.Pulse{})
	out.Runner = &seen
	// A request that ended with its runner has the runner's attempts in its own
	// record, as far as they were known then.
	others := slices.DeleteFunc(out.Attempts, func(a apitype.Attempt) bool { return a.Runner == run.ID })
	out.Attempts = append(others, attempts(run.Attempts)...)
	out.Steps = stepsOf(r, run, out.Attempts)
	return out
}

// runnerOf returns what people and clients see of a runner, and of its lock and pulse as
// far as they are known.
func runnerOf(run store.Runner, lock store.Lock, pulse store.Pulse) apitype.Runner {
	out := apitype.Runner{
		ID: run.ID, Name: nameOf(run), Request: run.Request, Repository: run.Repository.Name, RunID: run.RunID, Account: run.Account,
		Region: run.Region, Mode: run.Mode, Labels: list(run.Labels), InstanceID: run.InstanceID, State: string(run.State), RunURL: runURL(run.Repository, run.RunID),
		CreatedAt: run.CreatedAt, LaunchedAt: run.LaunchedAt, BootedAt: run.Boot.At, OnlineAt: run.OnlineAt, EndedAt: run.EndedAt,
		SeenAt: pulse.SeenOf(run.ID), HardAt: run.Hard, Jobs: run.Jobs, Stolen: run.Stolen, End: failure(run.End), History: entries(run.History),
		Cost: costOf(run),
	}
	if run.State.Usable() && run.Wait != "" {
		out.Wait, out.WaitUntil = run.Wait, run.WaitUntil
	}
	if run.Index < len(run.Plan) {
		p := run.Placement()
		out.Market, out.InstanceType, out.Subnet, out.Options = p.Market, p.InstanceType, p.Subnet, run.Launch.Describe()
	}
	if lock.Names(run.ID) {
		out.ExpiresAt = lock.Exp
		if lock.Hard.Before(lock.Exp) {
			out.ExpiresAt = lock.Hard
		}
	}
	if run.Job != (store.Job{}) {
		out.Job = &apitype.Job{RunID: run.Job.RunID, StartedAt: run.Job.StartedAt, EndedAt: run.Job.EndedAt}
	}
	return out
}

// runURL returns where people see a workflow run. Empty: there is none.
func runURL(repo store.Repository, run string) string {
	if run == "" {
		return ""
	}
	return "https://" + cmp.Or(repo.Server, "github.com") + "/" + repo.Name + "/actions/runs/" + run
}

// stepsOf returns the steps of a request, and of its runner since the request was made:
// what a shared runner did before is not what the request waited for.
func stepsOf(r store.Request, run store.Runner, tried []apitype.Attempt) []apitype.Step {
	out := []apitype.Step{}
	add := func(step string, at time.Time, detail string) {
		if !at.IsZero() && !at.Before(r.CreatedAt) {
			out = append(out, apitype.Step{Step: step, At: at, AfterS: apitype.InSeconds(at.Sub(r.CreatedAt)), Detail: detail})
		}
	}
	add("accepted", r.CreatedAt, r.Caller)
	if len(r.History) > 1 { // what is written behind the first entry, a worker wrote, or who ended the request
		if e := r.History[1]; e.State != string(store.Cancelled) && e.State != string(store.Expired) {
			add("picked_up", e.At, e.Reason)
		}
	}
	for _, a := range tried {
		step, detail := "launched", a.Market+" "+a.InstanceType+" in "+a.Subnet
		if a.Code != "launched" {
			step, detail = "not_launched", detail+": "+a.Code
		}
		add(step, a.At, detail)
	}
	add("booted", run.Boot.At, "")
	add("online", run.OnlineAt, "")
	if r.State == store.Ready {
		add("ready", r.ReadyAt, "")
	} else if r.State.Final() && r.Error != nil {
		add(string(r.State), r.EndedAt, r.Error.Code)
	}
	add("job_begun", run.Job.StartedAt, run.Job.RunID)
	add("job_ended", run.Job.EndedAt, run.Job.RunID)
	if run.End != nil {
		add("runner_ended", run.EndedAt, run.End.Code)
	}
	slices.SortStableFunc(out, func(a, b apitype.Step) int { return a.At.Compare(b.At) })
	return out
}

// nameOf returns the name of r's current registration: as it was written ahead,
// or, when GitHub has it no more and the record dropped it, as it was made.
func nameOf(r store.Runner) string {
	if r.Config.N == 0 {
		return ""
	}
	for _, g := range r.Names {
		if g.N == r.Config.N {
			return g.Name
		}
	}
	return store.GitHubNameFor(r.Launch.Tags[fleet.TagControlPlane], r.ID, r.Config.N)
}

func attempts(in []store.Attempt) []apitype.Attempt {
	out := make([]apitype.Attempt, 0, len(in))
	for _, a := range in {
		out = append(out, apitype.Attempt{Runner: a.Runner, At: a.At, Market: a.Market, InstanceType: a.InstanceType, Subnet: a.Subnet, Code: a.Code})
	}
	return out
}

func entries(in store.History) []apitype.Entry {
	out := make([]apitype.Entry, 0, len(in))
	for _, e := range in {
		out = append(out, apitype.Entry{At: e.At, State: e.State, Reason: e.Reason})
	}
	return out
}

func failure(f *store.Failure) *apitype.Error {
	if f == nil {
		return nil
	}
	return &apitype.Error{Code: f.Code, Text: f.Text, Retryable: f.Retryable}
}

// list is s, and an empty list rather than null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
