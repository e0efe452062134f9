package github

import (
	"context"
	"iter"
	"strconv"
	"strings"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// perPage is the most that GitHub gives at once.
	perPage = 100
	// maxPages ends a list that never ends: GitHub holds at most 10,000 runners
	// in a group (https://docs.github.com/en/actions/reference/limits).
	maxPages = 10_000 / perPage
	// runnerGroup is the group of every runner of a repository.
	runnerGroup = 1
	// workFolder is where jobs work, below the runner program's own directory.
	workFolder = "_work"
)

// Mint implements API.
func (c *Client) Mint(ctx context.Context, repo Repository, name string, labels []string) (Minted, error) {
	var jit *gogithub.JITRunnerConfig
	_, err := c.do(ctx, mint, name, repo, func(gh *gogithub.Client, owner, repo string) (resp *gogithub.Response, err error) {
		jit, resp, err = gh.Actions.GenerateRepoJITConfig(ctx, owner, repo, &gogithub.GenerateJITConfigRequest{
			Name: name, RunnerGroupID: runnerGroup, WorkFolder: new(workFolder), Labels: labels,
		})
		if err == nil && (jit.GetRunner().GetID() <= 0 || jit.GetRunner().GetName() != name || jit.GetEncodedJITConfig() == "") {
			err = errAnswer
		}
		return resp, err
	})
	if err != nil {
		return Minted{}, err
	}
	return Minted{RunnerID: jit.GetRunner().GetID(), Config: secret.New(jit.GetEncodedJITConfig())}, nil
}

// Get implements API.
func (c *Client) Get(ctx context.Context, repo Repository, id int64) (Runner, error) {
	if id <= 0 {
		return Runner{}, noID(get, id, repo)
	}
	var r *gogithub.Runner
	_, err := c.do(ctx, get, strconv.FormatInt(id, 10), repo, func(gh *gogithub.Client, owner, repo string) (resp *gogithub.Response, err error) {
		r, resp, err = gh.Actions.GetRunner(ctx, owner, repo, id)
		if err == nil && r.GetID() != id {
			err = errAnswer
		}
		return resp, err
	})
	if err != nil {
		return Runner{}, err
	}
	return toRunner(r), nil
}

// Delete implements API.
func (c *Client) Delete(ctx context.Context, repo Repository, id int64) error {
	if id <= 0 {
		return noID(remove, id, repo)
	}
	_, err := c.do(ctx, remove, strconv.FormatInt(id, 10), repo, func(gh *gogithub.Client, owner, repo string) (*gogithub.Response, error) {
		return gh.Actions.RemoveRunner(ctx, owner, repo, id)
	})
	return err
}

// noID refuses an id that was never one, rather than let GitHub say that it is
// not there: that would be taken for the end of a registration.
func noID(op op, id int64, repo Repository) error {
	return &Error{Kind: ErrRefused, Op: describe(op, strconv.FormatInt(id, 10), repo)}
}

// Find implements API. The status of its ErrNotFound tells an absent runner (200)
// from a repository that the credential may not see (404).
func (c *Client) Find(ctx context.Context, repo Repository, name string) (Runner, error) {
	var last *gogithub.Response
	for p, err := range c.pages(ctx, find, repo, name) {
		if err != nil {
			return Runner{}, err
		}
		for _, r := range p.runners {
			if r.Name == name {
				return r, nil
			}
		}
		last = p.resp
	}
	return Runner{}, &Error{Kind: ErrNotFound, Op: describe(find, name, repo), Status: last.StatusCode, RequestID: shortened(last.Header.Get(requestID))}
}

// List implements API. After an error it yields nothing more.
func (c *Client) List(ctx context.Context, repo Repository, prefix string) iter.Seq2[Runner, error] {
	return func(yield func(Runner, error) bool) {
		for p, err := range c.pages(ctx, list, repo, "") {
			if err != nil {
				yield(Runner{}, err)
				return
			}
			for _, r := range p.runners {
				if strings.HasPrefix(r.Name, prefix) && !yield(r, nil) {
					return
				}
			}
		}
	}
}

// page is one answer of a list.
type page struct {
	runners []Runner
	resp    *gogithub.Response
}

// pages yields the pages of a repository's list, at least one: of the runner of
// that name, or of all if it is empty.
func (c *Client) pages(ctx context.Context, op op, repo Repository, name string) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		opts := &gogithub.ListRunnersOptions{ListOptions: gogithub.ListOptions{PerPage: perPage}}
		if name != "" {
			opts.Name = &name
		}
		for n := 1; n != 0; {
			opts.Page = n
			var runners *gogithub.Runners
			resp, err := c.do(ctx, op, name, repo, func(gh *gogithub.Client, owner, repo string) (resp *gogithub.Response, err error) {
				runners, resp, err = gh.Actions.ListRunners(ctx, owner, repo, opts)
				if err == nil && !sound(runners, resp, n) {
					err = errAnswer
				}
				return resp, err
			})
			if err != nil {
				yield(page{}, err)
				return
			}
			p := page{resp: resp}
			for _, r := range runners.Runners {
				p.runners = append(p.runners, toRunner(r))
			}
			if !yield(p, nil) {
				return
			}
			n = resp.NextPage
		}
	}
}

// sound reports whether page n of a list is one: all its runners have an id, and
// what it says of a next page leads on, and to an end.
func sound(l *gogithub.Runners, resp *gogithub.Response, n int) bool {
	if l == nil || resp.NextPageToken != "" || resp.NextPage != 0 && (resp.NextPage <= n || n >= maxPages) {
		return false
	}
	for _, r := range l.Runners {
		if r.GetID() <= 0 {
			return false
		}
	}
	return true
}

func toRunner(r *gogithub.Runner) Runner {
	out := Runner{ID: r.GetID(), Name: r.GetName(), Online: r.GetStatus() == "online", Busy: r.GetBusy()}
	for _, l := range r.Labels {
		out.Labels = append(out.Labels, l.GetName())
	}
	return out
}
