package api

import (
	"slices"

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
		Caller: r.Caller, Trace: r.Trace, CreatedAt: r.CreatedAt, ReadyAt: r.ReadyAt, EndedAt: r.EndedAt, GiveUpAt: r.GiveUpAt,
		Tries: r.Tries, Attempts: attempts(r.Attempts), History: entries(r.History), Error: failure(r.Error),
	}
	if run.Version == 0 {
		return out
	}
	seen := &apitype.Runner{
		ID: run.ID, Name: nameOf(run), InstanceID: run.InstanceID, State: string(run.State),
		Jobs: run.Jobs, Stolen: run.Stolen, End: failure(run.End), History: entries(run.History),
	}
	if run.Index < len(run.Plan) {
		p := run.Placement()
		seen.Market, seen.InstanceType, seen.Subnet, seen.Options = p.Market, p.InstanceType, p.Subnet, run.Launch.Describe()
	}
	if lock.Names(run.ID) {
		seen.ExpiresAt = lock.Exp
		if lock.Hard.Before(lock.Exp) {
			seen.ExpiresAt = lock.Hard
		}
	}
	out.Runner = seen
	// A request that ended with its runner has the runner's attempts in its own
	// record, as far as they were known then.
	others := slices.DeleteFunc(out.Attempts, func(a apitype.Attempt) bool { return a.Runner == run.ID })
	out.Attempts = append(others, attempts(run.Attempts)...)
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
