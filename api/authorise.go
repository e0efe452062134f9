package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Verdict is whether a caller may have what it asks for. The zero value is no.
type Verdict struct {
	Allowed bool
	Reason  string // a few words for the audit
	Field   string // of POST /start, if one is to blame
	Text    string // a sentence for the caller that says what to do
}

func deny(reason, field, format string, args ...any) Verdict {
	return Verdict{Reason: reason, Field: field, Text: fmt.Sprintf(format, args...)}
}

func forbidden(field, text string) error {
	return &problem{code: apitype.CodeForbidden, field: field, detail: text}
}

// Authorize decides whether c may have r from account a. It is pure, and denies
// whatever no rule allows: a caller that is neither operator nor GitHub, a
// claim that is missing or of an unknown value, a repository that a is not
// registered for by id, and a wish that a does not allow.
//
// A GitHub caller in whose run strangers can have a hand is denied unless a opts
// in. A public repository gets ephemeral runners alone even then: what a job
// leaves on a machine must not meet the next one.
func Authorize(lim store.Limits, c Caller, a store.Account, r store.Request) Verdict {
	switch c.Kind {
	case Operator:
		if c.Name == "" {
			return deny("operator without a name", "", "This token names nobody: put it into the operators under a name.")
		}
	case GitHub:
		if v := authorizeClaims(c.Claims, a, r); !v.Allowed {
			return v
		}
	default:
		return deny("unknown kind of caller", "", "This token may not start runners: use an operator's, or the ID token of a job.")
	}
	if !form.GitHubID.Fits(r.Repository.ID) {
		return refusedBy(intake.NotServed())
	}
	if no := intake.Allowed(lim, a, r); no != nil {
		return refusedBy(no)
	}
	return Verdict{Allowed: true, Reason: "registered"}
}

func refusedBy(r *intake.Refusal) Verdict {
	return Verdict{Reason: r.Reason, Field: r.Field, Text: r.Text}
}

func authorizeClaims(cl Claims, a store.Account, r store.Request) Verdict {
	if v := wellFormed(cl); !v.Allowed {
		return v
	}
	if !r.Repository.Same(cl.repository()) || r.Repository.OwnerID != cl.OwnerID {
		return deny("another repository", "repo", "A workflow gets runners for its own repository only. Leave repo out.")
	}
	if !a.Serves(cl.repository()) {
		return refusedBy(intake.NotServed())
	}
	if v := optedIn(cl, a.Allow); !v.Allowed {
		return v
	}
	if no := intake.EventAllowed(a, cl.Event); no != nil {
		return refusedBy(no)
	}
	if cl.Visibility == "public" && r.Mode != store.Ephemeral {
		return deny("public repository, shared", "mode", "A public repository gets ephemeral runners only: say mode ephemeral.")
	}
	return authorizeConditions(cl, a.Only)
}

// wellFormed decides whether the token has the claims that are needed, each of its form.
func wellFormed(cl Claims) Verdict {
	for _, claim := range []struct {
		name, value string
		form        form.Form
	}{
		{"repository_id", cl.RepositoryID, form.GitHubID},
		{"repository_owner_id", cl.OwnerID, form.GitHubID},
		{"repository", cl.Repository, repoForm},
		{"repository_owner", cl.Owner, ownerForm},
		{"run_id", cl.RunID, form.GitHubID},
		{"run_attempt", cl.RunAttempt, form.GitHubID},
		{"event_name", cl.Event, eventForm},
	} {
		if !claim.form.Fits(claim.value) {
			return deny("claim "+claim.name, "", "The token's claim %s is missing or not of its form.", claim.name)
		}
	}
	if cl.CheckRunID != "" && !form.GitHubID.Fits(cl.CheckRunID) {
		return deny("claim check_run_id", "", "The token's claim check_run_id is not of its form.")
	}
	if cl.Actor == "" {
		return deny("claim actor", "", "The token's claim actor is missing.")
	}
	return Verdict{Allowed: true}
}

// optedIn decides whether the account lets in a run in which strangers can have a hand.
// A value that is not known is refused.
func optedIn(cl Claims, allow store.Allow) Verdict {
	switch cl.RunnerEnvironment {
	case "github-hosted":
	case "self-hosted":
		if !allow.SelfHostedCallers {
			return optIn("self-hosted caller", "calls from self-hosted runners", "self_hosted_callers")
		}
	default:
		return deny("claim runner_environment", "", "The token's claim runner_environment is missing or not known.")
	}
	switch cl.Visibility {
	case "private", "internal":
	case "public":
		if !allow.PublicRepositories {
			return optIn("public repository", "public repositories", "public_repositories")
		}
	default:
		return deny("claim repository_visibility", "", "The token's claim repository_visibility is missing or not known.")
	}
	return Verdict{Allowed: true}
}

// authorizeConditions decides over what the account narrows its callers by.
func authorizeConditions(cl Claims, only store.Conditions) Verdict {
	for _, c := range []struct {
		claim, value string
		want         []string
	}{
		{"ref", cl.Ref, only.Refs},
		{"environment", cl.Environment, only.Environments},
		{"job_workflow_ref", cl.JobWorkflowRef, only.JobWorkflowRefs},
	} {
		if !store.Admits(c.want, c.value) {
			return deny("claim "+c.claim+" not admitted", "", "The account admits only some values of the token's claim %s. Its registration says which (only).", c.claim)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(only.Properties)) {
		if value, ok := cl.Properties[name]; !ok || value != only.Properties[name] {
			return deny("repository property "+name+" not admitted", "", "The account admits only repositories with a certain value of the custom property %s.", name)
		}
	}
	return Verdict{Allowed: true}
}

func optIn(reason, what, field string) Verdict {
	return deny(strings.ReplaceAll(reason, "_", " "), "", "The account does not allow %s. Its registration can opt in (allow.%s).", what, field)
}
