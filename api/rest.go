package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// pageSize is how many requests a page has: a screen or two, and with all their
// stories still far below the 6 MB that a Lambda function may answer.
const pageSize = 50

// looked is how many records a page is found among at most, so that a state that is
// rare costs a caller more calls and nobody a long one: 5,000 entries of an index are
// below the 1 MB that one Query of DynamoDB reads
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Query.html).
const looked = 5000

// requests answers a page of records, the newest first.
func (s *server) requests(ctx context.Context, c *call, _ none) (apitype.Page, error) {
	if _, err := c.operator(ctx); err != nil {
		return apitype.Page{}, err
	}
	f := store.Filter{Kind: store.KindRequest, Limit: pageSize + 1, Look: looked} // one more tells whether there is another page
	if c.query.Has("repository") {
		if f.Repository = c.query.Get("repository"); !form.GitHubID.Fits(f.Repository) {
			return apitype.Page{}, invalid("repository", "Want the repository's numeric id.")
		}
	}
	if c.query.Has("state") {
		if f.State = c.query.Get("state"); !slices.Contains(store.RequestStates, store.RequestState(f.State)) {
			return apitype.Page{}, invalid("state", "Want one of %v.", store.RequestStates)
		}
	}
	if c.query.Has("after") {
		if f.After = c.query.Get("after"); !cursorForm.Fits(f.After) {
			return apitype.Page{}, invalid("after", "Want the after of another page.")
		}
	}
	page := apitype.Page{Requests: []apitype.Status{}}
	var last store.Item
	for i, err := range c.store.List(ctx, f) {
		if more, ok := errors.AsType[*store.MoreError](err); ok {
			page.After = more.After
			break
		}
		if err != nil {
			return apitype.Page{}, outage(err)
		}
		r, ok := i.(*store.Request)
		if !ok {
			return apitype.Page{}, fmt.Errorf("list of requests yields %s", i.Ref())
		}
		if len(page.Requests) == pageSize {
			page.After = store.Cursor(last)
			break
		}
		page.Requests, last = append(page.Requests, statusOf(*r, store.Runner{}, store.Lock{})), r
	}
	return page, nil
}

// release lets the next sweep of an account's region end what the brake spares.
func (s *server) release(ctx context.Context, c *call, _ none) (apitype.Released, error) {
	who, err := c.operator(ctx)
	if err != nil {
		return apitype.Released{}, err
	}
	account, region := c.PathValue("account"), c.PathValue("region")
	absent := &problem{code: apitype.CodeNotFound, detail: "There is no sweep of this account and region yet."}
	if !form.AWSAccount.Fits(account) || !isRegion(region) {
		return apitype.Released{}, absent
	}
	c.about("sweep", store.SweepKey(account, region))
	c.status = http.StatusAccepted
	return decide(func() (apitype.Released, error) {
		items, err := c.get(ctx, store.Ref{Kind: store.KindSweep, ID: store.SweepKey(account, region)})
		if err != nil {
			return apitype.Released{}, err
		}
		sweep := *items[0].(*store.Sweep)
		if sweep.Version == 0 {
			return apitype.Released{}, absent
		}
		if err := c.apply(ctx, sweep.Release(s.Now(), who.String())); err != nil {
			return apitype.Released{}, err
		}
		return apitype.Released{Account: account, Region: region, BrakeAt: sweep.BrakeAt, ReleasedAt: sweep.ReleasedAt, ReleasedBy: sweep.ReleasedBy}, nil
	})
}

// agent answers the agent's program. Its name is its hash, so it never changes.
func (s *server) agent(_ context.Context, c *call, _ none) (file, error) {
	arch, sum := c.PathValue("arch"), c.PathValue("sha256")
	absent := &problem{code: apitype.CodeNotFound, detail: "There is no such agent: another version of the API is deployed. Power off."}
	if s.Agents == nil || !archForm.Fits(arch) || !form.SHA256.Fits(sum) {
		return file{}, absent
	}
	body, err := fs.ReadFile(s.Agents, arch+"/"+sum+".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, absent
	}
	if err != nil {
		return file{}, fmt.Errorf("agent %s/%s: %w", arch, sum, err)
	}
	return file{media: "application/gzip", cache: "public, max-age=31536000, immutable", body: body}, nil
}

// health tells that calls arrive. It asks nobody: an outage of the store is no
// reason to replace the API.
func (s *server) health(context.Context, *call, none) (apitype.Health, error) {
	return apitype.Health{Status: "ok"}, nil
}

func (s *server) openapi(context.Context, *call, none) (file, error) {
	return file{media: "application/yaml", body: OpenAPI}, nil
}
