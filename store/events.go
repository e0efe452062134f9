package store

import "slices"

// usualEvents are those whose runs may ask for runners without a word in the
// registration: people who may write to the repository cause them, or GitHub does at a
// time or in a queue that such people set up. A token shows the event of the workflow
// that began the run, also in a workflow that it calls by workflow_call.
//
// A run of pull_request from a fork has no ID token, unless the settings of a private
// repository send write tokens to workflows from pull requests; the token does not tell
// forks apart
// (https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows#pull_request,
// https://docs.github.com/en/actions/reference/security/oidc).
var usualEvents = []string{
	"deployment", "merge_group", "pull_request", "push", "release", "repository_dispatch", "schedule", "workflow_dispatch",
}

// otherEvents are the other events that begin a run
// (https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows).
// Strangers cause some of them, such as issues, fork and watch, in any public repository.
// GitHub's own workflows, such as Dependabot's and CodeQL's default setup, have the event
// dynamic (https://github.com/github/codeql-action/pull/1238).
var otherEvents = []string{
	"branch_protection_rule", "check_run", "check_suite", "create", "delete", "deployment_status", "discussion",
	"discussion_comment", "dynamic", "fork", "gollum", "image_version", "issue_comment", "issues", "label", "milestone", "page_build",
	"public", "pull_request_review", "pull_request_review_comment", "pull_request_target",
	"registry_package", "status", "watch", "workflow_run",
}

// Event reports whether runs that an event began may ask for runners, and if not, which
// field of a registration opts in. An event that is not known is none of them.
func (a Allow) Event(name string) (ok bool, field string) {
	ok, field = slices.Contains(usualEvents, name) || slices.Contains(a.Events, name), "allow.events"
	switch name {
	case "pull_request_target":
		return ok || a.PullRequestTarget, "allow.pull_request_target"
	case "workflow_run":
		return ok || a.WorkflowRun, "allow.workflow_run"
	case "issue_comment":
		return ok || a.IssueComment, "allow.issue_comment"
	}
	return ok, field
}

// checkEvents returns what is wrong with the events that a registration opts in to.
func checkEvents(events []string, want func(ok bool, format string, args ...any)) {
	for i, e := range events {
		want(!slices.Contains(usualEvents, e), "allow.events: %q is allowed anyway: leave it out", e)
		want(slices.Contains(usualEvents, e) || slices.Contains(otherEvents, e), "allow.events: %q: want an event that triggers workflows, as GitHub names it", e)
		want(!slices.Contains(events[:i], e), "allow.events: %q is there twice", e)
	}
}
