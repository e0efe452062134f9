package store

import (
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// The kinds of scope.
const (
	RepositoryScope   = "repository"
	OrganizationScope = "organization"
)

// Scope is where runners register at GitHub: in a repository, for the jobs of that one,
// or in a runner group of an organization, for the jobs of every repository that the
// group admits. The ids decide; names are for people, but for that of the group, which
// is how GitHub's settings call it.
//
// In a record, the zero value is the scope of its repository: that is what records of
// versions before scopes have. Where returns it in full.
type Scope struct {
	// Server is as in Repository.
	Server string `json:"server,omitempty"`
	Kind   string `json:"kind,omitempty"` // RepositoryScope or OrganizationScope; empty: the former
	ID     string `json:"id,omitempty"`   // GitHub's, of the repository or of the organization
	Name   string `json:"name,omitempty"` // owner/name, or the organization's login
	// Group is the runner group, by its name. A repository has none.
	Group string `json:"runner_group,omitempty"`
}

// Key names the scope among those of all GitHub servers. That of a repository is the
// repository's own key; an organization's begins, behind the server, with an @, which
// no repository's has. Groups of one organization share its key: their runners are in
// one list at GitHub, and have different names there.
func (s Scope) Key() string {
	id := s.ID
	if s.Kind == OrganizationScope {
		id = "@" + id
	}
	return strings.TrimPrefix(s.Server+":"+id, ":")
}

// Same reports whether runners of two scopes serve the same jobs: they are in one
// repository, or in one group of one organization, whatever the names of those are by
// now.
func (s Scope) Same(other Scope) bool {
	return s.ID != "" && s.Key() == other.Key() && s.Group == other.Group
}

// scope returns the scope of the repository itself.
func (r Repository) scope() Scope {
	return Scope{Server: r.Server, Kind: RepositoryScope, ID: r.ID, Name: r.Name}
}

// Where returns the scope in which a runner for r registers.
func (r Request) Where() Scope { return r.Scope.or(r.Repository) }

// Where returns the scope in which r registers.
func (r Runner) Where() Scope { return r.Scope.or(r.Repository) }

func (s Scope) or(r Repository) Scope {
	if s == (Scope{}) {
		return r.scope()
	}
	return s
}

// Registers returns where runners of the account register, as the record of a request
// has it: the zero value for each in its own repository.
func (a Account) Registers() Scope {
	if a.Scope.Kind != OrganizationScope {
		return Scope{}
	}
	s := a.Scope
	s.Server = a.Server
	return s
}

// Following returns the request of a workflow job as it is to be launched now: its runner
// registers where the account's registration says by now, since nothing but the job's
// labels binds the two. One of POST /start stays where it was accepted.
func (r Request) Following(a Account) Request {
	if r.OfJob() {
		r.Scope = a.Registers()
	}
	return r
}

// defaultGroup is what GitHub calls the group that every organization has, and that
// runners without another one are in
// (https://docs.github.com/en/actions/concepts/runners/runner-groups).
const defaultGroup = "Default"

// checkScope tells want of every fault of the account's scope.
//
// Runners of an organization are ephemeral: what one job leaves on a machine, a job of
// another repository must not find. They are in a group of their own: the default one
// admits all repositories unless a person narrows it, and holds everybody's runners.
func (a Account) checkScope(want func(ok bool, format string, args ...any)) {
	s := a.Scope
	switch s.Kind {
	case "", RepositoryScope:
		want(s == Scope{Kind: s.Kind}, "scope: id, name and runner_group are for the kind %s alone", OrganizationScope)
		return
	case OrganizationScope:
	default:
		want(false, "scope.kind %q: want %s or %s; enterprises are not supported", s.Kind, RepositoryScope, OrganizationScope)
		return
	}
	want(s.Server == "", "scope.server: leave it out; it is the server of the registration")
	want(form.GitHubID.Fits(s.ID), "scope.id %q: want GitHub's numeric id of the organization", s.ID)
	want(s.Name != "" && !strings.Contains(s.Name, "/"), "scope.name %q: want the organization's login", s.Name)
	want(strings.TrimSpace(s.Group) == s.Group && s.Group != "", "scope.runner_group %q: want the name of a runner group of the organization, without spaces around it", s.Group)
	want(!strings.EqualFold(s.Group, defaultGroup), "scope.runner_group %q: want a group of GARO's own; the default one has everybody's runners", s.Group)
	for _, m := range a.Modes {
		want(m == Ephemeral, "modes: %q: runners of an organization are %s, since jobs of several repositories come to them", m, Ephemeral)
	}
	for _, o := range a.Owners {
		want(o.ID == s.ID, "owners: %q (%q): runners of the organization %s serve its own repositories alone", o.ID, o.Name, s.ID)
	}
	for _, r := range a.Repositories {
		want(strings.HasPrefix(r.Name, s.Name+"/"), "repositories: %q (%q): runners of the organization %s serve its own repositories alone", r.ID, r.Name, s.Name)
	}
}
