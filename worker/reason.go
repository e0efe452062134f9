package worker

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// unregisteredText says in a sentence why GitHub did not register r, in its own
// words, and what to do; and with which code the runner ends if that stays so.
func unregisteredText(r store.Runner, e *github.Error) (code, text string) {
	where := r.Where().Name
	says := ""
	if e.Said != "" {
		says = fmt.Sprintf(" GitHub says: \"%s\".", strings.TrimRight(e.Said, "."))
	}
	switch {
	case e.Kind == github.ErrFull:
		return store.EndMintDenied, fmt.Sprintf("There is no room for another runner in %s (status %d).%s Remove runners that are offline from its list, or wait: GitHub removes them itself, those for one job after a day.", where, e.Status, says)
	case errors.Is(e.Kind, github.ErrLimited):
		return store.EndGitHubLimit, "The last limit ends at " + e.RetryAt.UTC().Format(time.RFC3339) + "." + says
	case errors.Is(e.Kind, github.ErrUnknown) && e.Status == 0:
		return store.EndGitHubDown, "The last call had no answer."
	case errors.Is(e.Kind, github.ErrUnknown):
		return store.EndGitHubDown, fmt.Sprintf("The last answer had status %d.%s", e.Status, says)
	}
	return store.EndMintDenied, deniedText(r, e, says)
}

// rights are the permissions that register runners, by the kind of scope.
var rights = map[string]github.Right{store.RepositoryScope: github.RepositoryRunners, store.OrganizationScope: github.OrganizationRunners}

// deniedText is unregisteredText of a refusal that only people can change.
func deniedText(r store.Runner, e *github.Error, says string) string {
	at, account := r.Where(), r.Account
	where, right := at.Name, rights[at.Kind]
	switch {
	case errors.Is(e.Kind, github.ErrNoGroup):
		return fmt.Sprintf("The organization %s has no runner group %q of its own that is not the default one. Create it and choose its repositories, or name another one in the registration of account %s.", where, at.Group, account)
	case errors.Is(e.Kind, github.ErrForbidden):
		return fmt.Sprintf("GitHub lets %s have no runners of its own (status %d).%s Allow self-hosted runners of repositories in the Actions settings of its organization or enterprise.", where, e.Status, says)
	case errors.Is(e.Kind, github.ErrNameTaken):
		return fmt.Sprintf("GitHub knows a runner by each of the names that were tried in %s (status %d).%s Find out who else registers runners for this control plane.", where, e.Status, says)
	case errors.Is(e.Kind, github.ErrConflict):
		return fmt.Sprintf("GitHub does not register a runner in %s now (status %d).%s Look at the Actions settings of the %s.", where, e.Status, says, at.Kind)
	case e.Status == http.StatusUnauthorized:
		return fmt.Sprintf("GitHub refuses the credential of account %s for %s (status %d).%s Renew it.", account, where, e.Status, says)
	case e.Status == http.StatusForbidden && e.Said != "" && !strings.HasPrefix(e.Said, "Resource not accessible"):
		return fmt.Sprintf("GitHub refuses the credential of account %s in %s (status %d).%s Do as it says; if that names no cause, give the credential the permission %s.", account, where, e.Status, says, right)
	case e.Status == http.StatusForbidden:
		return fmt.Sprintf("The credential of account %s may not register runners in %s (status %d).%s Give it the permission %s.", account, where, e.Status, says, right)
	case e.Status == http.StatusNotFound:
		return fmt.Sprintf("GitHub shows %s %s (id %s) to nobody with the credential of account %s (status %d).%s If the %s is there, perhaps under another name, give the credential access to it and the permission %s.", at.Kind, where, at.ID, account, e.Status, says, at.Kind, right)
	case e.Status == http.StatusUnprocessableEntity:
		return fmt.Sprintf("GitHub refuses the labels or the name of the runner for %s (status %d).%s Ask for other labels.", where, e.Status, says)
	case e.Status == 0:
		return fmt.Sprintf("GARO cannot use the GitHub credential of account %s for %s. Look at the parameter that the account's registration names.", account, where)
	}
	return fmt.Sprintf("GitHub refuses to register a runner for %s (status %d).%s Check the credential of account %s.", where, e.Status, says, account)
}
