package githubtest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// Rename gives the repository of that id another name, of the form owner/name.
// Calls by the old one are redirected to the id, until another repository has it
// (https://docs.github.com/en/repositories/creating-and-managing-repositories/renaming-a-repository).
func (s *Server) Rename(id, name string) error {
	return s.step(func(time.Time) error {
		i := slices.IndexFunc(s.repos, func(r github.Repository) bool { return r.ID == id })
		if i < 0 {
			return fmt.Errorf("rename repository %s: there is none", id)
		}
		if err := s.free(name); err != nil {
			return fmt.Errorf("rename repository %s: %w", id, err)
		}
		s.former[strings.ToLower(s.repos[i].Name)] = id
		s.repos[i].Name = name
		return nil
	})
}

// Create makes another repository. It may have a name that one had before: calls
// by that name reach the new one from then on.
func (s *Server) Create(repo github.Repository) error {
	return s.step(func(time.Time) error {
		if slices.ContainsFunc(s.repos, func(r github.Repository) bool { return r.ID == repo.ID }) {
			return fmt.Errorf("create repository %s: there is one", repo.ID)
		}
		if err := s.free(repo.Name); err != nil {
			return fmt.Errorf("create repository %s: %w", repo.ID, err)
		}
		s.repos = append(s.repos, repo)
		return nil
	})
}

// free takes a name from the repository that had it before.
func (s *Server) free(name string) error {
	if slices.ContainsFunc(s.repos, func(r github.Repository) bool { return strings.EqualFold(r.Name, name) }) {
		return fmt.Errorf("%s is taken", name)
	}
	delete(s.former, strings.ToLower(name))
	return nil
}

// exists returns a repository, or false if there is none. path is owner/name, or
// the id that GitHub's own links and redirects use.
func (s *Server) exists(path string, byID bool) (github.Repository, bool) {
	if s.cfg.Repositories == nil {
		return github.Repository{ID: path, Name: path}, true
	}
	for _, r := range s.repos {
		if byID && r.ID == path || !byID && strings.EqualFold(r.Name, path) {
			return r, true
		}
	}
	return github.Repository{}, false
}

// named returns the repository that a test means by its name or its id.
func (s *Server) named(repository string) (github.Repository, bool) {
	return s.exists(repository, !strings.Contains(repository, "/"))
}

// moved redirects a call by a name that a repository had before to its id: 301 of
// what reads, and 307 of what writes, so that it is repeated as it is
// (https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects).
func (s *Server) moved(t target, r *http.Request, g *grant, h http.Header) (answer, bool) {
	id, ok := s.former[strings.ToLower(t.repo)]
	if t.byID || !ok || !g.opens(github.Repository{ID: id}) {
		return answer{}, false
	}
	_, call, _ := strings.Cut(r.URL.Path, "/actions/runners")
	to := base(r) + "/repositories/" + id + "/actions/runners" + call
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
