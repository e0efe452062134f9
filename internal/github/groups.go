package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	gogithub "github.com/google/go-github/v88/github"
)

// Group is a runner group of an organization.
type Group struct {
	ID   int64
	Name string
	// Selected: it admits the repositories that were selected. Otherwise it admits all of
	// the organization, or all that are private.
	Selected bool
	Public   bool // public repositories may be among them
}

// groupFor is how long the id of a runner group is kept in mind: one call an hour for each
// group and process. A refused registration ends it sooner.
const groupFor = time.Hour

// Group returns the runner group that a scope of an organization names, exactly; ErrNoGroup
// if there is none, or it is the default one, which also has runners that GARO does not
// account for, or an enterprise's, where an organization registers none. Asking takes one call, or two of an organization with over 100 groups.
func (c *Client) Group(ctx context.Context, in Scope) (Group, error) {
	e := in.errand(groups, in.Group)
	if !in.Organization || in.Group == "" {
		return Group{}, fmt.Errorf("%w: the scope has none", &Error{Kind: ErrNoGroup, Op: e.what})
	}
	e.root = "organizations/" + in.ID + "/actions/runner-groups"
	query := url.Values{"per_page": {strconv.Itoa(perPage)}}
	for n := 1; n != 0; {
		query.Set("page", strconv.Itoa(n))
		var l *groupsJSON
		resp, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
			l = nil
			resp, err := call(ctx, gh, http.MethodGet, root+"?"+query.Encode(), nil, &l)
			if err == nil && (l == nil || !leadsOn(resp, n)) {
				err = errAnswer
			}
			return resp, err
		})
		if err != nil {
			return Group{}, err
		}
		for _, g := range l.Groups {
			switch {
			case g.Name != in.Group:
			case g.ID <= 0 || g.Default || g.Inherited:
				return Group{}, &Error{Kind: ErrNoGroup, Op: e.what}
			default:
				return Group{ID: g.ID, Name: g.Name, Selected: g.Visibility == "selected", Public: g.Public}, nil
			}
		}
		n = resp.NextPage
	}
	return Group{}, &Error{Kind: ErrNoGroup, Op: e.what}
}

// groupsJSON is GitHub's JSON of a page of groups, as far as it is read.
type groupsJSON struct {
	Groups []struct {
		ID         int64  `json:"id"`
		Name       string `json:"name"`
		Visibility string `json:"visibility"` // all, selected or private
		Default    bool   `json:"default"`
		Inherited  bool   `json:"inherited"` // from the enterprise
		Public     bool   `json:"allows_public_repositories"`
	} `json:"runner_groups"`
}

// Admitted is a repository that a runner group admits.
type Admitted struct {
	ID     string // GitHub's number
	Public bool
}

// admittedPages is how many pages of the repositories of a group are read: few people select
// more than 200 one by one, and a check has other calls to make.
const admittedPages = 2

// Admits returns the repositories that were selected for a runner group of an organization, the
// first 200, and whether these are all: there may be more, or GitHub counts more than it shows
// to the credential. It takes one call, or two for over 100
// (https://docs.github.com/en/rest/actions/self-hosted-runner-groups#list-repository-access-to-a-self-hosted-runner-group-in-an-organization).
func (c *Client) Admits(ctx context.Context, in Scope, g Group) (all []Admitted, whole bool, err error) {
	e := in.errand(admits, g.Name)
	if g.ID <= 0 {
		return nil, false, &Error{Kind: ErrRefused, Op: e.what}
	}
	e.root = "organizations/" + in.ID + "/actions/runner-groups/" + strconv.FormatInt(g.ID, 10) + "/repositories"
	n, total := 1, 0
	for n != 0 && n <= admittedPages {
		var l *struct {
			Total        int        `json:"total_count"`
			Repositories []repoJSON `json:"repositories"`
		}
		resp, err := c.do(ctx, e, func(gh *gogithub.Client, root string) (*gogithub.Response, error) {
			l = nil
			resp, err := call(ctx, gh, http.MethodGet, root+"?"+paged(n), nil, &l)
			if err == nil && (l == nil || !leadsOn(resp, n) || slices.ContainsFunc(l.Repositories, func(r repoJSON) bool { return r.ID <= 0 })) {
				err = errAnswer
			}
			return resp, err
		})
		if err != nil {
			return nil, false, err
		}
		for _, r := range l.Repositories {
			all = append(all, Admitted{ID: strconv.FormatInt(r.ID, 10), Public: r.public()})
		}
		total, n = l.Total, resp.NextPage
	}
	return all, n == 0 && total <= len(all), nil
}

// groupID returns the id of the group that a runner of the scope is registered in.
func (c *Client) groupID(ctx context.Context, in Scope) (int64, error) {
	if !in.Organization {
		return runnerGroup, nil
	}
	if id, ok := c.groups.get(in, c.now()); ok {
		return id, nil
	}
	g, err := c.Group(ctx, in)
	if err == nil {
		c.groups.put(in, g.ID, c.now().Add(groupFor))
	}
	return g.ID, err
}

// forgetGroup has the next registration ask for the id of the scope's group again, if err
// may say that the group is another by now.
func (c *Client) forgetGroup(in Scope, err error) {
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrNotFound) {
		c.groups.put(in, 0, time.Time{})
	}
}

// groupIDs keeps ids of runner groups in mind. It is safe for concurrent use.
type groupIDs struct {
	mu sync.Mutex
	of map[Scope]groupID
}

type groupID struct {
	id    int64
	until time.Time
}

func (g *groupIDs) get(in Scope, now time.Time) (id int64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.of[in]
	return known.id, now.Before(known.until)
}

func (g *groupIDs) put(in Scope, id int64, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of[in] = groupID{id, until}
}
