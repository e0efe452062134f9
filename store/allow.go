package store

import (
	"slices"
	"strings"
)

// Allow names callers that are refused unless the account opts in.
type Allow struct {
	PublicRepositories bool `json:"public_repositories,omitempty"`
	PullRequestTarget  bool `json:"pull_request_target,omitempty"`
	WorkflowRun        bool `json:"workflow_run,omitempty"`
	IssueComment       bool `json:"issue_comment,omitempty"`
	SelfHostedCallers  bool `json:"self_hosted_callers,omitempty"`
	// Forks are workflow jobs whose run is of another repository's code, such as a pull
	// request's from a fork. POST /start does not need it: such a run has no ID token.
	Forks bool `json:"forks,omitempty"`
	// Events are further events whose runs may ask, each by its name at GitHub.
	Events []string `json:"events,omitempty"`
}

// Conditions narrow which workflows may ask for runners. Each list that is not
// empty must hold the claim's value: a string equals itself, and one that ends in
// a slash everything that begins with it. There are no other patterns, since those
// match more than they seem to.
type Conditions struct {
	Refs            []string `json:"refs,omitempty"`              // such as refs/heads/main, or refs/tags/
	Environments    []string `json:"environments,omitempty"`      // a job without one has the empty name
	JobWorkflowRefs []string `json:"job_workflow_refs,omitempty"` // such as acme/ci/.github/workflows/build.yml@refs/heads/main, or acme/ci/
	// Properties are the repository's custom properties that the token must carry.
	Properties map[string]string `json:"properties,omitempty"`
}

// Admits reports whether value fulfils one list of Conditions.
func Admits(list []string, value string) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(want string) bool {
		return value == want || want != "/" && strings.HasSuffix(want, "/") && strings.HasPrefix(value, want)
	})
}
