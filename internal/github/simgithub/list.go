package simgithub

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// list answers with a page of the runners of a repository.
func (s *Server) list(now time.Time, repo github.Repository, r *http.Request, h http.Header) answer {
	p, wrong := parsePage(r)
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	runners := []runner{}
	for _, x := range s.runners {
		switch {
		case x.RepositoryID != repo.ID:
		case p.name != "" && x.Name != p.name:
		case s.rules.OmitBusy && x.busy(now, s.rules.BusyLag):
		default:
			runners = append(runners, s.show(now, x))
		}
	}
	p.total, p.path = len(runners), base(r)+"/repos/"+repo.Name
	if repo.ID != "" {
		p.path = base(r) + "/repositories/" + repo.ID
	}
	if links := p.links(); links != "" {
		h.Set("Link", links)
	}
	from := min((p.number-1)*p.perPage, p.total)
	to := min(from+p.perPage, p.total)
	return answer{http.StatusOK, map[string]any{"total_count": p.total, "runners": runners[from:to]}}
}

// parsePage reads the query of a list. What it does not know is wrong.
func parsePage(r *http.Request) (p page, wrong string) {
	p = page{number: 1, perPage: 30}
	query := r.URL.Query()
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if len(query[key]) != 1 {
			return p, "query: " + key + " is there twice"
		}
		value := query.Get(key)
		n, err := strconv.Atoi(value)
		switch {
		case key == "name" && value != "":
			p.name = value
		case key == "per_page" && err == nil && n >= 1 && n <= 100:
			p.perPage = n
		case key == "page" && err == nil && n >= 1 && n <= 1_000_000:
			p.number = n
		default:
			return p, "query: " + key + "=" + value
		}
	}
	return p, ""
}

// base returns the URL of the API as the client knows it.
func base(r *http.Request) string {
	u := "http://" + r.Host
	if r.URL.Scheme == "https" || r.TLS != nil {
		u = "https://" + r.Host
	}
	if strings.HasPrefix(r.URL.Path, "/api/v3/") {
		u += "/api/v3"
	}
	return u
}

// page is a part of a list of runners.
type page struct {
	name    string // the filter; empty: all runners
	number  int    // from 1
	perPage int
	total   int    // runners on all pages
	path    string // URL of the repository, for links
}

// links returns the Link header of a page; empty: it is the only one.
func (p page) links() string {
	last := max(1, (p.total+p.perPage-1)/p.perPage)
	var out []string
	add := func(rel string, n int) {
		out = append(out, fmt.Sprintf("<%s/actions/runners?per_page=%d&page=%d>; rel=%q", p.path, p.perPage, n, rel))
	}
	if p.number > 1 {
		add("prev", p.number-1)
	}
	if p.number < last {
		add("next", p.number+1)
		add("last", last)
	}
	if p.number > 1 {
		add("first", 1)
	}
	return strings.Join(out, ", ")
}
