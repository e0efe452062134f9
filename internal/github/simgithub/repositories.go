package simgithub

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// names are the repositories that exist, and the names that they had before.
type names struct {
	any    bool // whatever is asked for exists
	repos  []github.Repository
	former map[string]string // ids of repositories, by names in lower case that they had
}

func newNames(repos []github.Repository) names {
	return names{any: repos == nil, repos: slices.Clone(repos), former: map[string]string{}}
}

// Rename gives the repository of that id another name, of the form owner/name.
// Calls by the old one are redirected to the id, until another repository has it
// (https://docs.github.com/en/repositories/creating-and-managing-repositories/renaming-a-repository).
func (s *Server) Rename(id, name string) error {
	return s.step(func(time.Time) error {
		i := slices.IndexFunc(s.names.repos, func(r github.Repository) bool { return r.ID == id })
		if i < 0 {
			return fmt.Errorf("rename repository %s: there is none", id)
		}
		if err := s.names.free(name); err != nil {
			return fmt.Errorf("rename repository %s: %w", id, err)
		}
		s.names.former[strings.ToLower(s.names.repos[i].Name)] = id
		s.names.repos[i].Name = name
		return nil
	})
}

// Create makes another repository. It may have a name that one had before: calls
// by that name reach the new one from then on.
func (s *Server) Create(repo github.Repository) error {
	return s.step(func(time.Time) error {
		if slices.ContainsFunc(s.names.repos, func(r github.Repository) bool { return r.ID == repo.ID }) {
			return fmt.Errorf("create repository %s: there is one", repo.ID)
		}
		if err := s.names.free(repo.Name); err != nil {
			return fmt.Errorf("create repository %s: %w", repo.ID, err)
		}
		s.names.repos = append(s.names.repos, repo)
		return nil
	})
}

// Know makes a repository unless it is there. Where any exists that is asked for, it is so
// known by its name and its id.
func (s *Server) Know(repo github.Repository) error {
	if s.knows(repo.ID) {
		return nil
	}
	return s.Create(repo)
}

func (s *Server) knows(id string) (found bool) {
	_ = s.step(func(time.Time) error {
		found = slices.ContainsFunc(s.names.repos, func(r github.Repository) bool { return r.ID == id })
		return nil
	})
	return found
}

// free takes a name from the repository that had it before.
func (n *names) free(name string) error {
	if slices.ContainsFunc(n.repos, func(r github.Repository) bool { return strings.EqualFold(r.Name, name) }) {
		return fmt.Errorf("%s is taken", name)
	}
	delete(n.former, strings.ToLower(name))
	return nil
}

// exists returns a repository, or false if there is none. path is owner/name, or
// the id that GitHub's own links and redirects use.
func (n *names) exists(path string, byID bool) (github.Repository, bool) {
	for _, r := range n.repos {
		if byID && r.ID == path || !byID && strings.EqualFold(r.Name, path) {
			return r, true
		}
	}
	if n.any {
		return github.Repository{ID: path, Name: path}, true
	}
	return github.Repository{}, false
}

// named returns the repository that a test means by its name or its id.
func (n *names) named(repository string) (github.Repository, bool) {
	return n.exists(repository, !strings.Contains(repository, "/"))
}

// moved redirects a call by a name that a repository had before to its id: 301 of
// what reads, and 307 of what writes, so that it is repeated as it is
// (https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects).
func (n *names) moved(t target, r *http.Request, g *grant, h http.Header) (answer, bool) {
	id, ok := n.former[strings.ToLower(t.repo)]
	if t.org || t.byID || !ok || !g.opens(scope{repo: github.Repository{ID: id}}, t.op) {
		return answer{}, false
	}
	_, call, _ := strings.Cut(r.URL.Path, "/actions")
	to := base(r) + "/repositories/" + id + "/actions" + call
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	status, message := http.StatusTemporaryRedirect, "Temporary Redirect"
	if r.Method == http.MethodGet {
		status, message = http.StatusMovedPermanently, "Moved Permanently"
	}
	h.Set("Location", to)
	return answer{status, map[string]string{"message": message, "url": to, "documentation_url": docs}}, true
}
