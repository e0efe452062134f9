package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// Query says which requests or runners to list. Empty fields do not restrict it.
type Query struct {
	Repository string // owner/name, or the numeric id
	State      string
	Failed     bool // of requests: those that ended without a runner
	Live       bool // of runners: those that are not over
	Account    string
	Region     string
	Since      time.Time
	After      string // the After of the page before
}

// path returns where the list of that name is asked for.
func (q Query) path(name string) string {
	values := url.Values{}
	for name, v := range map[string]string{"repository": q.Repository, "state": q.State, "account": q.Account, "region": q.Region, "after": q.After} {
		if v != "" {
			values.Set(name, v)
		}
	}
	if q.Failed {
		values.Set("failed", "true")
	}
	if q.Live {
		values.Set("live", "true")
	}
	if !q.Since.IsZero() {
		values.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if len(values) == 0 {
		return name
	}
	return name + "?" + values.Encode()
}

// Requests returns a page of requests: for an operator of all, for a job of its
// repository's. AllRequests follows the pages.
func (c *Client) Requests(ctx context.Context, q Query) (apitype.Page, error) {
	var out apitype.Page
	_, err := c.call(ctx, http.MethodGet, q.path("/requests"), nil, &out)
	return out, wrap("list requests", err)
}

// Runners returns a page of runners, as Requests does of requests.
func (c *Client) Runners(ctx context.Context, q Query) (apitype.Runners, error) {
	var out apitype.Runners
	_, err := c.call(ctx, http.MethodGet, q.path("/runners"), nil, &out)
	return out, wrap("list runners", err)
}

// AllRequests yields the requests of all pages, newest first. An error ends it.
func (c *Client) AllRequests(ctx context.Context, q Query) iter.Seq2[apitype.Status, error] {
	return follow(q, func(q Query) ([]apitype.Status, string, error) {
		page, err := c.Requests(ctx, q)
		return page.Requests, page.After, err
	})
}

// AllRunners yields the runners of all pages, newest first. An error ends it.
func (c *Client) AllRunners(ctx context.Context, q Query) iter.Seq2[apitype.Runner, error] {
	return follow(q, func(q Query) ([]apitype.Runner, string, error) {
		page, err := c.Runners(ctx, q)
		return page.Runners, page.After, err
	})
}

// follow asks for the pages of a list as they are needed. A page may be empty and not be
// the last.
func follow[T any](q Query, ask func(Query) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := q // the iteration may begin again
		for {
			rows, after, err := ask(q)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if q.After = after; after == "" {
				return
			}
		}
	}
}

// UsageQuery says which usage to add up. Empty fields do not restrict it.
type UsageQuery struct {
	From, To   time.Time // the days that these are on, in UTC; zero: the last seven
	By         []string  // of day, repository, workflow, account, type and market; none: repository
	Repository string    // owner/name, or the numeric id
}

// Usage returns what machines did and cost that have ended: for an operator of all, for a job
// of its repository's.
func (c *Client) Usage(ctx context.Context, q UsageQuery) (apitype.Usage, error) {
	values := url.Values{}
	for name, day := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !day.IsZero() {
			values.Set(name, day.UTC().Format(time.DateOnly))
		}
	}
	if len(q.By) > 0 {
		values.Set("by", strings.Join(q.By, ","))
	}
	if q.Repository != "" {
		values.Set("repository", q.Repository)
	}
	path := "/usage"
	if len(values) > 0 {
		path += "?" + values.Encode()
	}
	var out apitype.Usage
	_, err := c.call(ctx, http.MethodGet, path, nil, &out)
	return out, wrap("usage", err)
}

// Runner returns one runner with its story.
func (c *Client) Runner(ctx context.Context, id string) (apitype.Runner, error) {
	var out apitype.Runner
	_, err := c.call(ctx, http.MethodGet, "/runners/"+url.PathEscape(id), nil, &out)
	return out, wrap("runner "+id, err)
}

// Find returns what words name: the id of a request or a runner, a runner's name at
// GitHub, an EC2 instance, the number of a workflow run, or the address of a run or a job
// at GitHub. What nobody knows is ErrNotFound.
func (c *Client) Find(ctx context.Context, words string) (apitype.Found, error) {
	var out apitype.Found
	_, err := c.call(ctx, http.MethodGet, "/find?q="+url.QueryEscape(words), nil, &out)
	return out, wrap("find "+words, err)
}
