package simgithub

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// list answers with a page of the runners of a scope.
func (s registry) list(now time.Time, in scope, r *http.Request, h http.Header) answer {
	p, wrong := parsePage(r)
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	runners := []runner{}
	for _, x := range s.runners {
		switch {
		case !in.has(x):
		case p.name != "" && x.Name != p.name:
		case s.rules.OmitBusy && x.busy(now, s.rules.BusyLag):
		default:
			runners = append(runners, s.show(now, x))
		}
	}
	from, to := p.cut(len(runners), base(r)+in.path()+"/actions/runners", h)
	return answer{http.StatusOK, map[string]any{"total_count": len(runners), "runners": runners[from:to]}}
}

// parsePage reads the query of a list. What it does not know is wrong, but for the
// filters that the list has.
func parsePage(r *http.Request, filters ...string) (p page, wrong string) {
	p = page{number: 1, perPage: 30}
	query := r.URL.Query()
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if len(query[key]) != 1 {
			return p, "query: " + key + " is there twice"
		}
		value := query.Get(key)
		n, err := strconv.Atoi(value)
		switch {
		case slices.Contains(filters, key):
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

// page is a part of a list.
type page struct {
	name    string // the filter; empty: all runners
	number  int    // from 1
	perPage int
	total   int    // on all pages
	path    string // URL of the list, for links
}

// cut returns which of so many things are on the page, and links from it to the others.
func (p page) cut(total int, path string, h http.Header) (from, to int) {
	p.total, p.path = total, path
	if links := p.links(); links != "" {
		h.Set("Link", links)
	}
	from = min((p.number-1)*p.perPage, total)
	return from, min(from+p.perPage, total)
}

// links returns the Link header of a page; empty: it is the only one.
func (p page) links() string {
	last := max(1, (p.total+p.perPage-1)/p.perPage)
	var out []string
	add := func(rel string, n int) {
		out = append(out, fmt.Sprintf("<%s?per_page=%d&page=%d>; rel=%q", p.path, p.perPage, n, rel))
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
