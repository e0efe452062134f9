package promise

import (
	"cmp"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about where runners register.
const (
	Reaches Promise = "every call about a scope reaches the repository or the organization of that id"
	InScope Promise = "a runner registers where the account's registration said when it was asked for, and one of a workflow job when it was launched"
)

// registrationReads is how long ago a worker may have read the registration that it
// launches by: invocations end within half a minute, and those that stand still are
// killed late, by five minutes at most.
const registrationReads = 6 * time.Minute

// scopePromises are about where runners register.
type scopePromises struct{ *History }

// Called looks at a call about a registration: it is in the scope that is called.
func (p scopePromises) Called(in github.Scope, id int64) {
	for _, g := range p.GitHub.Minted() {
		if g.ID == id {
			p.mu.Lock()
			p.hold(Reaches, in.Organization == (g.OrganizationID != "") && in.ID == g.RepositoryID+g.OrganizationID, "a call about registration %s was made in %+v", g.Name, in)
			p.mu.Unlock()
		}
	}
}

// sawScopes looks at what is written of scopes: there are two, and a runner has that of
// the request that it is launched for.
func (p scopePromises) sawScopes(was, r store.Runner) {
	of, known := p.requests[r.Request]
	if was.Version != 0 || !known {
		return
	}
	if scope, since := p.Moved(); of.OfJob() && time.Since(since) > registrationReads {
		p.hold(InScope, r.Scope == scope, "runner %s of job %s registers in %+v, and the registration says %+v since %s", r.ID, of.Job.ID, r.Scope, scope, since)
	}
	p.hold(InScope, r.Scope == of.Scope && (of.Scope == store.Scope{} || of.Scope == setting.Organization), "runner %s of request %s in %+v registers in %+v", r.ID, of.ID, of.Scope, r.Scope)
}

// sawRegistration looks at where a registration was made: in the repository or in the
// organization's group that the record of its runner names, or in one of them when there is
// no record any more.
func (p scopePromises) sawRegistration(g simgithub.Registration) {
	repository := g.RepositoryID == setting.RepositoryID && g.OrganizationID == ""
	organization := g.RepositoryID == "" && g.OrganizationID == setting.Organization.ID && g.Group == setting.GroupID
	r := p.runners[setting.RunnerIn(g.Name)]
	means := r.Scope == setting.Organization
	p.hold(Reaches, repository && (r.Version == 0 || !means) || organization && (r.Version == 0 || means),
		"registration %s was made in repository %q, organization %q and group %d, and its runner registers in %+v", g.Name, g.RepositoryID, g.OrganizationID, g.Group, r.Scope)
}

// placeOf names where a runner registers as points do: its repository's id, or an
// organization's behind an @. All are at github.com.
func placeOf(r store.Runner) string {
	if r.Scope.Kind == store.OrganizationScope {
		return "@" + r.Scope.ID
	}
	return cmp.Or(r.Scope.ID, r.Repository.ID)
}
