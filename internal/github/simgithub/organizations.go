package simgithub

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// Organization is an organization. It owns the repositories whose names begin with its
// own, and its runners are in groups.
type Organization struct {
	ID, Name string
	// Groups are its runner groups beside the default one, which has the id 1 and admits
	// all repositories.
	Groups []Group
	// Public are the ids of its repositories that everybody may see.
	Public []string
}

// Group is a runner group of an organization.
type Group struct {
	ID   int64
	Name string
	// Repositories are the ids of those that it admits; nil: all of the organization.
	Repositories []string
	// Public: it admits public repositories too.
	Public bool
	// Inherited: it is the enterprise's, which alone registers runners in it.
	Inherited bool
}

// defaultGroup is the group of an organization's runners that are in no other, and of
// all runners of a repository.
const defaultGroup = 1

// groups returns all groups of an organization.
func (o Organization) groups() []Group {
	return append([]Group{{ID: defaultGroup, Name: "Default"}}, o.Groups...)
}

// group returns a group by its id; false: there is none.
func (o Organization) group(id int64) (Group, bool) {
	all := o.groups()
	i := slices.IndexFunc(all, func(g Group) bool { return g.ID == id })
	if i < 0 {
		return Group{}, false
	}
	return all[i], true
}

// SetOrganization makes an organization, or makes the one of its id what it says. Runners
// stay in the group of their id, also if there is none by now: no job comes to them then.
func (s *Server) SetOrganization(o Organization) {
	s.look(func(time.Time) {
		o.Groups = slices.Clone(o.Groups)
		s.orgs = append(slices.DeleteFunc(s.orgs, func(x Organization) bool { return x.ID == o.ID }), o)
	})
}

// AddGroup makes a runner group that admits all repositories of an organization, and the
// organization, unless there are such ones.
func (s *Server) AddGroup(id, name, group string) {
	s.look(func(time.Time) {
		i := slices.IndexFunc(s.orgs, func(o Organization) bool { return o.ID == id })
		if i < 0 {
			i, s.orgs = len(s.orgs), append(s.orgs, Organization{ID: id, Name: name})
		}
		o := &s.orgs[i]
		if !slices.ContainsFunc(o.Groups, func(g Group) bool { return g.Name == group }) {
			o.Groups = append(slices.Clip(o.Groups), Group{ID: defaultGroup + 1 + int64(len(o.Groups)), Name: group})
		}
	})
}

// scope is what runners belong to: a repository, or an organization if that has an id.
type scope struct {
	repo github.Repository
	org  Organization
}

// has reports whether a registration is in the scope.
func (s scope) has(r *registration) bool {
	return r.RepositoryID == s.repo.ID && r.OrganizationID == s.org.ID
}

// name is what runner programs and people see of the scope.
func (s scope) name() string { return cmp.Or(s.org.Name, s.repo.Name) }

// path is where GitHub's own links to the scope lead.
func (s scope) path() string {
	switch {
	case s.org.ID != "":
		return "/organizations/" + s.org.ID
	case s.repo.ID != "":
		return "/repositories/" + s.repo.ID
	}
	return "/repos/" + s.repo.Name
}

// scope returns what a request is about; false: it does not exist.
func (s *Server) scope(t target) (in scope, ok bool) {
	if t.org {
		in.org, ok = s.organization(t.repo, t.byID)
	} else {
		in.repo, ok = s.names.exists(t.repo, t.byID)
	}
	return in, ok
}

// organization returns what a path names: an organization by its login, or by its id.
func (s *Server) organization(path string, byID bool) (Organization, bool) {
	for _, o := range s.orgs {
		if byID && o.ID == path || !byID && strings.EqualFold(o.Name, path) {
			return o, true
		}
	}
	return Organization{}, false
}

// admits reports whether jobs of a repository may come to a runner: it is the
// repository's, or in a group of its organization that admits it. A group admits no public
// one unless that is allowed, also if it is selected (https://github.com/google/go-github/pull/1998,
// https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/manage-access).
func (s *Server) admits(r *registration, repository string) bool {
	if r.OrganizationID == "" {
		return r.RepositoryID == repository
	}
	org, ok := s.organization(r.OrganizationID, true)
	repo, _ := s.names.exists(repository, true)
	owner, _, _ := strings.Cut(repo.Name, "/")
	if !ok || !s.names.any && !strings.EqualFold(owner, org.Name) {
		return false
	}
	g, ok := org.group(r.Group)
	return ok && (g.Repositories == nil || slices.Contains(g.Repositories, repository)) &&
		(g.Public || !slices.Contains(org.Public, repository))
}

// runnerGroup is GitHub's JSON of a runner group.
type runnerGroup struct {
	ID           int64    `json:"id"`
	Name         string   `json:"name"`
	Visibility   string   `json:"visibility"`
	Default      bool     `json:"default"`
	Repositories string   `json:"selected_repositories_url,omitempty"`
	Runners      string   `json:"runners_url"`
	Inherited    bool     `json:"inherited"`
	Public       bool     `json:"allows_public_repositories"`
	Restricted   bool     `json:"restricted_to_workflows"`
	Workflows    []string `json:"selected_workflows"`
	ReadOnly     bool     `json:"workflow_restrictions_read_only"`
}

// listGroups answers with a page of the runner groups of an organization.
func (s registry) listGroups(org Organization, r *http.Request, h http.Header) answer {
	p, wrong := parsePage(r)
	if wrong != "" || p.name != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, cmp.Or(wrong, "query: groups have no filter by name"))
	}
	shown := []runnerGroup{}
	for _, g := range org.groups() {
		at := fmt.Sprintf("%s/orgs/%s/actions/runner-groups/%d", base(r), org.Name, g.ID)
		x := runnerGroup{ID: g.ID, Name: g.Name, Visibility: "all", Default: g.ID == defaultGroup,
			Runners: at + "/runners", Inherited: g.Inherited, Public: g.Public, Workflows: []string{}}
		if g.Repositories != nil {
			x.Visibility, x.Repositories = "selected", at+"/repositories"
		}
		shown = append(shown, x)
	}
	from, to := p.cut(len(shown), base(r)+"/organizations/"+org.ID+"/actions/runner-groups", h)
	return answer{http.StatusOK, map[string]any{"total_count": len(shown), "runner_groups": shown[from:to]}}
}

// listAdmitted answers with a page of the repositories that are selected for a group. Of a group
// that admits all, GitHub does not say what it lists: a client that asks is wrong.
func (s registry) listAdmitted(org Organization, id int64, r *http.Request, h http.Header) answer {
	p, wrong := parsePage(r)
	g, ok := org.group(id)
	switch {
	case !ok:
		return refuse(http.StatusNotFound, "Not Found", nil)
	case wrong != "" || p.name != "":
		return s.wrong(http.StatusUnprocessableEntity, r, cmp.Or(wrong, "query: repositories have no filter by name"))
	case g.Repositories == nil:
		return s.wrong(http.StatusUnprocessableEntity, r, "none are selected for the group")
	}
	shown := []map[string]any{}
	for _, id := range g.Repositories {
		if repo, ok := s.names.exists(id, true); ok {
			shown = append(shown, actions(s).showRepository(r, repo, !slices.Contains(org.Public, id)))
		}
	}
	from, to := p.cut(len(shown), fmt.Sprintf("%s/organizations/%s/actions/runner-groups/%d/repositories", base(r), org.ID, g.ID), h)
	return answer{http.StatusOK, map[string]any{"total_count": len(shown), "repositories": shown[from:to]}}
}
