package github

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// Download is a runner program that GitHub offers. An older version than it
// offers gets no jobs once GitHub gives up on it.
type Download struct {
	OS           string // linux, osx, win
	Architecture string // x64, arm64, arm
	URL          string
	Version      string // as 2.336.0
	// SHA256 is of the file at URL, in 64 lower-case hex digits; empty where
	// GitHub tells none.
	SHA256 string
}

var (
	// programFile is compiled when it is first asked for: once a day.
	programFile = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^actions-runner-.*-([0-9]+\.[0-9]+\.[0-9]+)\.(?:tar\.gz|zip)$`)
	})
	versionForm = form.Form{{Of: form.Digit, Min: 1, Max: 9}, {Text: ".", Of: form.Digit, Min: 1, Max: 9}, {Text: ".", Of: form.Digit, Min: 1, Max: 9}}
)

// Downloads returns the runner programs that fit a repository, in GitHub's order.
// An answer with one that it cannot read is ErrUnknown: half of it would be taken
// for the whole.
func (c *Client) Downloads(ctx context.Context, in Scope) ([]Download, error) {
	var out []Download
	_, err := c.do(ctx, in.errand(offers, ""), func(gh *gogithub.Client, runners string) (*gogithub.Response, error) {
		var all []*gogithub.RunnerApplicationDownload
		resp, err := call(ctx, gh, http.MethodGet, runners+"/downloads", nil, &all)
		if err == nil && all == nil {
			err = errAnswer
		}
		if err != nil {
			return resp, err
		}
		out = nil
		for _, a := range all {
			version := programFile().FindStringSubmatch(a.GetFilename())
			d := Download{OS: a.GetOS(), Architecture: a.GetArchitecture(), URL: a.GetDownloadURL(), SHA256: strings.ToLower(a.GetSHA256Checksum())}
			from, err := url.Parse(d.URL)
			if version == nil || d.OS == "" || d.Architecture == "" || d.SHA256 != "" && !form.SHA256.Fits(d.SHA256) ||
				err != nil || from.Scheme != "https" || from.Host == "" || from.User != nil {
				return resp, errAnswer
			}
			d.Version = version[1]
			out = append(out, d)
		}
		return resp, nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Rates are a credential's primary limits that GARO's calls count against.
type Rates struct {
	Core         Rate
	Registration Rate // of runners; zero where GitHub tells none
}

// Rate is how many calls are left until when.
type Rate struct {
	Limit, Remaining int
	Reset            time.Time
}

// Rates returns the limits of the credential for a repository. Asking counts
// against none of them. A server without limits answers ErrNotFound.
func (c *Client) Rates(ctx context.Context, in Scope) (Rates, error) {
	var out Rates
	_, err := c.do(ctx, in.errand(rates, ""), func(gh *gogithub.Client, _ string) (*gogithub.Response, error) {
		l, resp, err := gh.RateLimit.Get(ctx)
		if err != nil {
			return resp, err
		}
		if l == nil || l.Core == nil {
			return resp, errAnswer
		}
		out.Core = toRate(l.Core)
		if l.ActionsRunnerRegistration != nil {
			out.Registration = toRate(l.ActionsRunnerRegistration)
		}
		return resp, nil
	})
	if err != nil {
		return Rates{}, err
	}
	return out, nil
}

func toRate(r *gogithub.Rate) Rate {
	return Rate{Limit: r.Limit, Remaining: r.Remaining, Reset: r.Reset.Time}
}

// Deprecation is when GitHub stops to serve a version of the runner program. Zero:
// no date is set.
type Deprecation struct {
	Registration time.Time // after it, runners of the version cannot register
	Runtime      time.Time // after it, they get no jobs
}

// Deprecation implements API. An Enterprise Server does not have the call (@octokit/openapi 23.0.2,
// generated/ghec.json, x-github.githubCloudOnly).
func (c *Client) Deprecation(ctx context.Context, in Scope, version string) (Deprecation, error) {
	if !versionForm.Fits(version) {
		return Deprecation{}, fmt.Errorf("%w: %.20q is no version", &Error{Kind: ErrRefused, Op: describe(ends, "", in.Name)}, version)
	}
	var out Deprecation
	_, err := c.do(ctx, in.errand(ends, version), func(gh *gogithub.Client, runners string) (*gogithub.Response, error) {
		var d struct {
			Version      string     `json:"runner_version"`
			Registration *time.Time `json:"registration_deprecates_at"`
			Runtime      *time.Time `json:"runtime_deprecates_at"`
		}
		resp, err := call(ctx, gh, http.MethodGet, runners+"/deprecations/"+version, nil, &d)
		if err == nil && d.Version != version {
			err = errAnswer
		}
		if err != nil {
			return resp, err
		}
		out = Deprecation{}
		if d.Registration != nil {
			out.Registration = *d.Registration
		}
		if d.Runtime != nil {
			out.Runtime = *d.Runtime
		}
		return resp, nil
	})
	if err != nil {
		return Deprecation{}, err
	}
	return out, nil
}

// Ends returns the first of the dates, zero if there is none.
func (d Deprecation) Ends() time.Time {
	if d.Runtime.IsZero() || !d.Registration.IsZero() && d.Registration.Before(d.Runtime) {
		return d.Registration
	}
	return d.Runtime
}
