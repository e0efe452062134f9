package simgithub

import (
	"fmt"
	"net/http"
)

// Refusal is an answer by which GitHub refuses to register a runner, or whatever a
// credential asks for.
type Refusal struct {
	Status  int
	Message string
	// Errors is nil, a text or a list of texts: GitHub sends either.
	Errors any
}

// The refusals in GitHub's own words. A runner name that exists and a full group
// are refused without a rule.
var (
	// RunnersForbidden: the owner allows no runners of repositories. GitHub says why
	// in a text where its description has a list, so that common clients show
	// nothing (https://github.com/runs-on/runs-on/issues/417).
	RunnersForbidden = Refusal{http.StatusForbidden, "Forbidden", "Repository level self-hosted runners are disabled on this repository"}
	// BadCredentials: the token is revoked, or has expired
	// (https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api#failed-login-limit).
	BadCredentials = Refusal{http.StatusUnauthorized, "Bad credentials", nil}
	// Suspended: an owner suspended the App's installation
	// (https://docs.github.com/en/apps/maintaining-github-apps/suspending-a-github-app-installation).
	Suspended = Refusal{http.StatusForbidden, "This installation has been suspended", nil}
	// NoPermission: the token may see the repository, and not administer it
	// (https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#resource-not-accessible).
	NoPermission = Refusal{http.StatusForbidden, "Resource not accessible by personal access token", nil}
	// NoAccess: the repository is not there, or the token may not see it
	// (https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#404-not-found-for-an-existing-resource).
	NoAccess = Refusal{http.StatusNotFound, "Not Found", nil}
	// ActionsDisabled: a 409 that no other name helps against.
	ActionsDisabled = Refusal{http.StatusConflict, "Conflict", "GitHub Actions is disabled on this repository"}
	// LabelRefused: as of the description's validation-error-simple, which names no case.
	LabelRefused = Refusal{http.StatusUnprocessableEntity, "Validation Failed", []string{"labels: garo-gpu is not allowed"}}
)

func (f Refusal) answer() answer { return refuse(f.Status, f.Message, f.Errors) }

// ServeHTTP gives the answer, for a Fault's Instead.
func (f Refusal) ServeHTTP(w http.ResponseWriter, _ *http.Request) { f.answer().write(w) }

// NameExists and GroupFull are what GitHub says of a name that a runner has and of
// a group that is full, as users report it
// (https://github.com/ubicloud/ubicloud/pull/692, https://github.com/ggml-org/llama.cpp/issues/7893).
func NameExists(name string) Refusal {
	return Refusal{http.StatusConflict, "Already exists - A runner with the name " + name + " already exists.", nil}
}

// GroupFull is with the group's id and the limit that is reached.
func GroupFull(group int64, limit int) Refusal {
	return Refusal{http.StatusUnprocessableEntity, fmt.Sprintf("Invalid Argument - Runner group %d has reached max limit of %d runners.", group, limit), nil}
}
