package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// pageSize is how many records a page has: a screen or two, and with all their
	// stories still far below the 6 MB that a Lambda function may answer.
	pageSize = 50
	// looked is how many records a page is found among at most, so that a state that is
	// rare costs a caller more calls and nobody a long one: 5,000 entries of an index are
	// below the 1 MB that one Query of DynamoDB reads
	// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Query.html).
	looked = 5000
	// read is the same where each of the records has to be read: five reads of a hundred.
	// SECURITY.md has what that costs at most.
	read = 500
)

// sight is which records a caller may see: all of them, or those of one repository.
type sight struct {
	all  bool
	repo store.Repository
}

func (v sight) sees(r store.Repository) bool { return v.all || v.repo.Same(r) }

// sightOf returns what a caller may see.
func sightOf(who Caller) sight {
	return sight{all: who.Kind == Operator, repo: who.Claims.repository()}
}

// onlooker authenticates a caller of a list: an operator, or a job for its repository. The
// page asks again every two seconds, so the answer has an ETag.
func (c *call) onlooker(ctx context.Context) (sight, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return sight{}, err
	}
	c.tagged = true
	v := sightOf(who)
	if v.all {
		c.allow("operator")
	} else {
		c.allow("its repository")
	}
	return v, nil
}

// requests answers a page of requests, the newest first.
func (s *server) requests(ctx context.Context, c *call, _ none) (apitype.Page, error) {
	v, err := c.onlooker(ctx)
	if err != nil {
		return apitype.Page{}, err
	}
	f, err := s.filter(ctx, c, v, store.KindRequest)
	if err != nil {
		return apitype.Page{}, err
	}
	found, after, err := page[*store.Request](ctx, c, v, f)
	if err != nil {
		return apitype.Page{}, err
	}
	rows, err := c.rows(ctx, found)
	return apitype.Page{Requests: rows, After: after}, err
}

// runners answers a page of runners, the newest first.
func (s *server) runners(ctx context.Context, c *call, _ none) (apitype.Runners, error) {
	v, err := c.onlooker(ctx)
	if err != nil {
		return apitype.Runners{}, err
	}
	f, err := s.filter(ctx, c, v, store.KindRunner)
	if err != nil {
		return apitype.Runners{}, err
	}
	found, after, err := page[*store.Runner](ctx, c, v, f)
	out := apitype.Runners{Runners: make([]apitype.Runner, 0, len(found)), After: after}
	runs := make([]store.Runner, 0, len(found))
	for _, run := range found {
		runs, out.Runners = append(runs, *run), append(out.Runners, row(*run))
	}
	if err == nil {
		err = c.pricing(ctx, runs, out.Runners)
	}
	return out, err
}

// oneRunner answers one runner.
func (s *server) oneRunner(ctx context.Context, c *call, _ none) (apitype.Runner, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return apitype.Runner{}, err
	}
	id := c.PathValue("id")
	absent := &problem{code: apitype.CodeNotFound, detail: "There is no such runner, or this token may not see it. GET /runners lists those that it sees."}
	if !keys.ValidID(id) {
		c.deny("no runner can have this id")
		return apitype.Runner{}, absent
	}
	c.about("runner", id)
	items, err := c.get(ctx, store.Ref{Kind: store.KindRunner, ID: id})
	if err != nil {
		return apitype.Runner{}, err
	}
	run := *items[0].(*store.Runner)
	switch {
	case run.Version == 0:
		c.deny("absent")
		return apitype.Runner{}, absent
	case !sightOf(who).sees(run.Repository):
		c.deny("of another repository")
		return apitype.Runner{}, absent
	}
	c.allow(who.String())
	c.tagged = true
	return c.whole(ctx, run)
}

// whole returns all that is seen of a runner.
func (c *call) whole(ctx context.Context, run store.Runner) (apitype.Runner, error) {
	items, err := c.get(ctx, store.Ref{Kind: store.KindLock, ID: run.Lock}, store.Ref{Kind: store.KindPulse, ID: run.Lock})
	if err != nil {
		return apitype.Runner{}, err
	}
	seen := []apitype.Runner{runnerOf(run, *items[0].(*store.Lock), *items[1].(*store.Pulse))}
	err = c.pricing(ctx, []store.Runner{run}, seen)
	return seen[0], err
}

// row returns what a list shows of a runner.
func row(run store.Runner) apitype.Runner {
	out := runnerOf(run, store.Lock{}, store.Pulse{})
	out.History = []apitype.Entry{}
	return out
}

// rows returns what a list shows of requests: with their runners, which one read gets.
func (c *call) rows(ctx context.Context, found []*store.Request) ([]apitype.Status, error) {
	var refs []store.Ref
	for _, r := range found {
		if ref := (store.Ref{Kind: store.KindRunner, ID: r.Runner}); r.Runner != "" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	runners := map[string]store.Runner{}
	if len(refs) > 0 {
		items, err := c.get(ctx, refs...)
		if err != nil {
			return nil, err
		}
		for _, i := range items {
			runners[i.Ref().ID] = *i.(*store.Runner)
		}
	}
	out := make([]apitype.Status, 0, len(found))
	for _, r := range found {
		status := statusOf(*r, runners[r.Runner], store.Lock{})
		status.Steps = []apitype.Step{}
		if status.Runner != nil {
			status.Runner.History = []apitype.Entry{}
		}
		out = append(out, status)
	}
	return out, nil
}

// page returns the records of a page, and the cursor of the next one if there may be one.
func page[T store.Item](ctx context.Context, c *call, v sight, f store.Filter) (found []T, after string, err error) {
	f.Limit = pageSize + 1 // one more tells whether there is another page
	n := 0
	var last store.Item
	for i, err := range c.store.List(ctx, f) {
		if more, ok := errors.AsType[*store.MoreError](err); ok {
			return found, more.After, nil
		}
		if err != nil {
			return nil, "", outage(err)
		}
		record, ok := i.(T)
		if !ok {
			return nil, "", fmt.Errorf("list of %ss yields %s", f.Kind, i.Ref())
		}
		if n == pageSize {
			return found, store.Cursor(last), nil
		}
		n, last = n+1, i
		if v.sees(repositoryOf(i)) { // a repository's id may be that of another server's, too
			found = append(found, record)
		}
	}
	return found, "", nil
}

func repositoryOf(i store.Item) store.Repository {
	switch i := i.(type) {
	case *store.Request:
		return i.Repository
	case *store.Runner:
		return i.Repository
	}
	return store.Repository{}
}
