package store

import "strings"

// Repository is the GitHub repository that a request is for. The ids decide;
// the names are for people and for GitHub's API.
type Repository struct {
	// Server is the host of the GitHub server whose ids these are, as the issuer of
	// its ID tokens has it. Empty: github.com.
	Server  string `json:"server,omitempty"`
	ID      string `json:"id"`
	Name    string `json:"name"` // owner/name
	OwnerID string `json:"owner_id"`
	Owner   string `json:"owner"`
}

// Same reports whether two are one repository, whatever their names are by now.
func (r Repository) Same(other Repository) bool {
	return r.ID != "" && r.ID == other.ID && r.Server == other.Server
}

// Key names the repository among those of all GitHub servers.
func (r Repository) Key() string { return strings.TrimPrefix(r.Server+":"+r.ID, ":") }

// Origin is the workflow run that a request comes from, for the audit. It is
// empty for an operator's request.
type Origin struct {
	RunID       string `json:"run_id,omitempty"`
	RunAttempt  string `json:"run_attempt,omitempty"`
	CheckRunID  string `json:"check_run_id,omitempty"`
	Actor       string `json:"actor,omitempty"`
	Event       string `json:"event,omitempty"`
	Ref         string `json:"ref,omitempty"`
	Workflow    string `json:"workflow,omitempty"`
	Environment string `json:"environment,omitempty"`
}
