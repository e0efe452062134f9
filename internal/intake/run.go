package intake

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// OfJob returns the wish that stands for a workflow job in an account whose offers make m
// of its labels. The zero Match leaves everything to the account.
func OfJob(m store.Match, job store.WorkflowJob, trace string) Wish {
	w := Wish{
		Caller: "github webhook", Mode: store.Ephemeral, Job: job, Trace: trace, Labels: m.Labels,
		Origin: store.Origin{RunID: job.RunID, Workflow: job.Workflow},
	}
	if job.Attempt > 0 {
		w.Origin.RunAttempt = strconv.Itoa(job.Attempt)
	}
	if o := m.Offer; o != nil {
		w.Region, w.Type, w.Machine, w.TimeoutS = o.Region, o.Type, o.Machine, o.TimeoutS
	}
	return w
}

// RunAllowed returns why a workflow job may not run on a machine of an offer of account a,
// or nil. r is the request that stands for the job, and run is what GitHub tells of its
// run. It is pure, and asks the same as for an ID token, and what the offer is narrowed to.
// A token tells more, such as the ref: what only that could allow is refused.
func RunAllowed(lim store.Limits, a store.Account, o store.Offer, r store.Request, run store.WorkflowRun) *Refusal {
	if no := Allowed(lim, a, r); no != nil {
		return no
	}
	switch {
	case run.Public && !a.Allow.PublicRepositories:
		return notOptedIn("public repository", "public repositories", "public_repositories")
	case run.Public && o.Pin == "":
		return &Refusal{Reason: "public repository, plain label", Field: "runs_on",
			Text: "A public repository gets machines by pin only: a stranger's job could name a plain label, and take a machine that was meant for another."}
	case run.HeadRepository != r.Repository.ID && !a.Allow.Forks:
		return notOptedIn("code of a fork", "workflow jobs that run a fork's code", "forks")
	}
	if no := EventAllowed(a, run.Event); no != nil {
		return no
	}
	if len(o.Only.Events) > 0 && !slices.Contains(o.Only.Events, run.Event) {
		return &Refusal{Reason: "event not of the offer", Field: "runs_on", Text: fmt.Sprintf("runs_on %s is not for runs of the event %s (only.events).", o.Key(), run.Event)}
	}
	if !o.Serves(r.Repository) {
		return &Refusal{Reason: "repository not of the offer", Field: "runs_on", Text: fmt.Sprintf("runs_on %s is not for this repository (only.repositories).", o.Key())}
	}
	if c := a.Only; len(c.Refs)+len(c.Environments)+len(c.JobWorkflowRefs)+len(c.Properties) > 0 {
		return &Refusal{Reason: "conditions that nothing proves", Field: "only",
			Text: fmt.Sprintf("Account %s admits only some refs, environments, workflows or properties, and GitHub tells none of them of a workflow job.", a.ID)}
	}
	return nil
}

func notOptedIn(reason, what, field string) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf("The account does not allow %s. Its registration can opt in (allow.%s).", what, field)}
}
