package intake

import (
	"fmt"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Run is what GitHub tells of the workflow run that a plain job is of. An ID token tells
// more: it has the ref, and the environment. So what only those could allow is refused.
type Run struct {
	Event string // its name at GitHub
	// Repository is the run's own, HeadRepository the id of the one whose code it runs.
	// Empty: GitHub shows none, as for a fork that was deleted.
	Repository     store.Repository
	HeadRepository string
	Public         bool // the repository is
}

// RunAllowed returns why a plain job of a run may not run on a machine of an offer of
// account a, or nil. r is the request that stands for the job. It is pure, and asks the
// same as for an ID token: beside that, what the offer is narrowed to.
func RunAllowed(lim store.Limits, a store.Account, o store.Offer, r store.Request, run Run) *Refusal {
	if !run.Repository.Same(r.Repository) {
		return &Refusal{Reason: "run of another repository", Text: "GitHub says that the job's run is of another repository."}
	}
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
		return notOptedIn("code of a fork", "plain jobs that run a fork's code", "forks")
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
			Text: fmt.Sprintf("Account %s admits only some refs, environments, workflows or properties, and GitHub tells none of them of a plain job.", a.ID)}
	}
	return nil
}

func notOptedIn(reason, what, field string) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf("The account does not allow %s. Its registration can opt in (allow.%s).", what, field)}
}
