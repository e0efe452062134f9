package github

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"time"

	gogithub "github.com/google/go-github/v88/github"
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
	programFile = regexp.MustCompile(`^actions-runner-.*-([0-9]+\.[0-9]+\.[0-9]+)\.(?:tar\.gz|zip)$`)
	sha256Form  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Downloads returns the runner programs that fit a repository, in GitHub's order.
// An answer with one that it cannot read is ErrUnknown: half of it would be taken
// for the whole.
func (c *Client) Downloads(ctx context.Context, repo Repository) ([]Download, error) {
	var out []Download
	_, err := c.do(ctx, offers, "", repo, func(gh *gogithub.Client, owner, repo string) (*gogithub.Response, error) {
		all, resp, err := gh.Actions.ListRunnerApplicationDownloads(ctx, owner, repo)
		if err == nil && all == nil {
			err = errAnswer
		}
		if err != nil {
			return resp, err
		}
		out = nil
		for _, a := range all {
			version := programFile.FindStringSubmatch(a.GetFilename())
			d := Download{OS: a.GetOS(), Architecture: a.GetArchitecture(), URL: a.GetDownloadURL(), SHA256: strings.ToLower(a.GetSHA256Checksum())}
			from, err := url.Parse(d.URL)
			if version == nil || d.OS == "" || d.Architecture == "" || d.SHA256 != "" && !sha256Form.MatchString(d.SHA256) ||
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
func (c *Client) Rates(ctx context.Context, repo Repository) (Rates, error) {
	var out Rates
	_, err := c.do(ctx, rates, "", repo, func(gh *gogithub.Client, _, _ string) (*gogithub.Response, error) {
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
