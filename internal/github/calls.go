package github

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"slices"
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
func (c *Client) Mint(ctx context.Context, in Scope, name string, labels []string) (Minted, error) {
	group, err := c.groupID(ctx, in)
	if err != nil {
		return Minted{}, err
	}
	var out Minted
	_, err = c.do(ctx, in.errand(mint, name), func(gh *gogithub.Client, runners string) (*gogithub.Response, error) {
		var jit gogithub.JITRunnerConfig
		resp, err := call(ctx, gh, http.MethodPost, runners+"/generate-jitconfig", &gogithub.GenerateJITConfigRequest{
			Name: name, RunnerGroupID: group, WorkFolder: new(workFolder), Labels: labels,
		}, &jit)
		if err == nil && (jit.GetRunner().GetID() <= 0 || jit.GetRunner().GetName() != name || jit.GetEncodedJITConfig() == "") {
			err = errAnswer
		}
		out = Minted{RunnerID: jit.GetRunner().GetID(), Config: secret.New(jit.GetEncodedJITConfig())}
		return resp, err
	})
	if err != nil {
		c.forgetGroup(in, err)
		return Minted{}, err
	}
	return out, nil
}

// Get implements API.
func (c *Client) Get(ctx context.Context, in Scope, id int64) (Runner, error) {
	if id <= 0 {
		return Runner{}, noID(get, id, in)
	}
	var out Runner
	_, err := c.do(ctx, in.errand(get, strconv.FormatInt(id, 10)), func(gh *gogithub.Client, runners string) (*gogithub.Response, error) {
		var r runnerJSON
		resp, err := call(ctx, gh, http.MethodGet, runners+"/"+strconv.FormatInt(id, 10), nil, &r)
		if err == nil && r.ID != id {
			err = errAnswer
		}
		out = r.runner()
		return resp, err
	})
	if err != nil {
		return Runner{}, err
	}
	return out, nil
}

// Delete implements API.
func (c *Client) Delete(ctx context.Context, in Scope, id int64) error {
	if id <= 0 {
		return noID(remove, id, in)
	}
	_, err := c.do(ctx, in.errand(remove, strconv.FormatInt(id, 10)), func(gh *gogithub.Client, runners string) (*gogithub.Response, error) {
		return call(ctx, gh, http.MethodDelete, runners+"/"+strconv.FormatInt(id, 10), nil, nil)
	})
	return err
}

// noID refuses an id that was never one, rather than let GitHub say that it is
// not there: that would be taken for the end of a registration.
func noID(op op, id int64, in Scope) error {
	return &Error{Kind: ErrRefused, Op: describe(op, strconv.FormatInt(id, 10), in.Name)}
}

// Find implements API. The status of its ErrNotFound tells an absent runner (200)
// from a scope that the credential may not see (404).
func (c *Client) Find(ctx context.Context, in Scope, name string) (Runner, error) {
	var last *gogithub.Response
	for p, err := range c.pages(ctx, find, in, name) {
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
	return Runner{}, &Error{Kind: ErrNotFound, Op: describe(find, name, in.Name), Status: last.StatusCode, RequestID: shortened(last.Header.Get(requestID))}
}

// List implements API. After an error it yields nothing more.
func (c *Client) List(ctx context.Context, in Scope, prefix string) iter.Seq2[Runner, error] {
	return func(yield func(Runner, error) bool) {
		for p, err := range c.pages(ctx, list, in, "") {
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

// pages yields the pages of a scope's list, at least one: of the runner of
// that name, or of all if it is empty.
func (c *Client) pages(ctx context.Context, op op, in Scope, name string) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		query := url.Values{"per_page": {strconv.Itoa(perPage)}}
		if name != "" {
			query.Set("name", name)
		}
		for n := 1; n != 0; {
			query.Set("page", strconv.Itoa(n))
			var l *listJSON
			resp, err := c.do(ctx, in.errand(op, name), func(gh *gogithub.Client, runners string) (*gogithub.Response, error) {
				l = nil
				resp, err := call(ctx, gh, http.MethodGet, runners+"?"+query.Encode(), nil, &l)
				if err == nil && !l.sound(resp, n) {
					err = errAnswer
				}
				return resp, err
			})
			if err != nil {
				yield(page{}, err)
				return
			}
			p := page{resp: resp}
			for _, r := range l.Runners {
				p.runners = append(p.runners, r.runner())
			}
			if !yield(p, nil) {
				return
			}
			n = resp.NextPage
		}
	}
}

// listJSON and runnerJSON are GitHub's JSON, as far as it is read: the library's
// types have no version.
type listJSON struct {
	Runners []*runnerJSON `json:"runners"`
}

type runnerJSON struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"`
	Status  string `json:"status"`
	Busy    bool   `json:"busy"`
	Version string `json:"version"` // null until it has connected
	Labels  []struct {
		Name string `json:"name"`
	} `json:"labels"`
}

// leadsOn reports whether what page n of a list says of a next one leads on, and to an end.
func leadsOn(resp *gogithub.Response, n int) bool {
	return resp.NextPageToken == "" && (resp.NextPage == 0 || resp.NextPage > n && n < maxPages)
}

// sound reports whether page n of a list is one: all its runners have an id, and it
// leads on.
func (l *listJSON) sound(resp *gogithub.Response, n int) bool {
	return l != nil && leadsOn(resp, n) && !slices.ContainsFunc(l.Runners, func(r *runnerJSON) bool { return r == nil || r.ID <= 0 })
}

func (r *runnerJSON) runner() Runner {
	out := Runner{ID: r.ID, Name: r.Name, Online: r.Status == "online", Busy: r.Busy}
	if versionForm.Fits(r.Version) {
		out.Version = r.Version
	}
	for _, l := range r.Labels {
		out.Labels = append(out.Labels, l.Name)
	}
	return out
}
