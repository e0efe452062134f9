package github_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// sharing returns a client that keeps to its share.
func sharing(t *testing.T, h http.Handler, share float64) *github.Client {
	t.Helper()
	c, err := github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(h), Share: share, Token: func(context.Context, github.Access) (secret.Text, error) {
		return secret.New(token), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fifth is the share of a process among five.
const fifth = 1.0 / 5

func TestEmptyShareMakesNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{})
		credentials := 0
		c, err := github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(s.Handler()), Share: 0.02, Token: func(context.Context, github.Access) (secret.Text, error) {
			credentials++
			return secret.New(token), nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		// 18 points a minute: 6 at once, then 12 a minute.
		failed(t, "Delete", c.Delete(t.Context(), repo, 1), github.ErrNotFound)
		e := failed(t, "Delete beyond the share", c.Delete(t.Context(), repo, 1), github.ErrLimited)
		if wait := time.Until(e.RetryAt); wait < 20*time.Second || wait > 21*time.Second {
			t.Errorf("RetryAt is %v ahead, want the 20s in which 4 more points gather", wait)
		}
		if s.Calls()[simgithub.OpDelete] != 1 || credentials != 1 {
			t.Errorf("calls = %v with %d credentials, want that of the first", s.Calls(), credentials)
		}
		// A call that reads still fits, a registration is leased, and another account has its own points.
		_, err = c.Get(t.Context(), repo, 1)
		failed(t, "Get", err, github.ErrNotFound)
		if _, err := c.Mint(t.Context(), repo, "r1", []string{"x"}); err != nil {
			t.Errorf("Mint: %v", err)
		}
		elsewhere := repo
		elsewhere.Account = "999988887777"
		failed(t, "Delete for another account", c.Delete(t.Context(), elsewhere, 9), github.ErrNotFound)
		time.Sleep(time.Until(e.RetryAt) + 5*time.Second) // and a point for the Get
		failed(t, "Delete when there are points again", c.Delete(t.Context(), repo, 9), github.ErrNotFound)
	})
}

func TestThoseWhoAskTogetherAreToldDifferentTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sharing(t, open(t, simgithub.Config{}).Handler(), fifth)
		var told []time.Duration
		for i := range 60 {
			if err := c.Delete(t.Context(), repo, int64(i+1)); errors.Is(err, github.ErrLimited) {
				told = append(told, time.Until(failed(t, "Delete", err, github.ErrLimited).RetryAt))
			}
		}
		if len(told) != 48 {
			t.Fatalf("%d had to wait, want 48: a third of the 36 a minute pass at once", len(told))
		}
		// One more each 2.5 s: 24 in the first minute have a time of their own.
		if first := told[:24]; !slices.IsSorted(first) || len(slices.Compact(slices.Clone(first))) != 24 {
			t.Errorf("the first have to wait until %v, want one time after another", first)
		}
		for _, d := range told {
			if d < 2*time.Second || d > 63*time.Second {
				t.Errorf("told to come back in %v, want within about a minute", d)
			}
		}
	})
}

func TestGitHubsLimitHoldsForTheAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := true
		s := open(t, simgithub.Config{Fault: func(string, *http.Request) (f simgithub.Fault) {
			if limited {
				f.Instead = status(403, "Retry-After", "1200")
			}
			return f
		}})
		c := sharing(t, s.Handler(), github.DefaultShare)
		_, err := c.Mint(t.Context(), repo, "r", []string{"x"})
		failed(t, "Mint", err, github.ErrLimited)
		limited = false
		for range 3 {
			_, err = c.Get(t.Context(), other, 1)
			if e := failed(t, "Get for the same account", err, github.ErrLimited); e.Status != 0 || time.Until(e.RetryAt) != 20*time.Minute {
				t.Errorf("Get = %v until %v ahead, want no call for 20m", e, time.Until(e.RetryAt))
			}
		}
		elsewhere := repo
		elsewhere.Account = "999988887777"
		if _, err := c.Mint(t.Context(), elsewhere, "r", []string{"x"}); err != nil {
			t.Errorf("Mint for another account: %v", err)
		}
		time.Sleep(20 * time.Minute)
		if _, err := c.Mint(t.Context(), repo, "r2", []string{"x"}); err != nil {
			t.Errorf("Mint after the limit: %v", err)
		}
		if n := len(s.Calls()); n != 1 {
			t.Errorf("calls = %v, want no Get", s.Calls())
		}
	})
}

func TestCallAtTheToldTimePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{})
		for share := 0.017; share < 1; share *= 1.13 {
			c := sharing(t, s.Handler(), share)
			refused := 0
			for range 100 {
				_, err := c.Find(t.Context(), repo, "r")
				if errors.Is(err, github.ErrNotFound) {
					continue
				}
				refused++
				e := failed(t, "Find", err, github.ErrLimited)
				time.Sleep(time.Until(e.RetryAt))
				_, err = c.Find(t.Context(), repo, "r")
				failed(t, fmt.Sprintf("Find at the told time, with a share of %v", share), err, github.ErrNotFound)
			}
			if refused == 0 && share < 0.3 {
				t.Errorf("a share of %v was never used up", share)
			}
		}
	})
}

func TestRedirectsAndSecondCallsCostPointsToo(t *testing.T) {
	right := secret.New(token)
	for name, c := range map[string]struct {
		fault func(string, *http.Request) simgithub.Fault
		first secret.Text
	}{
		"Redirects":   {detour(301, 307), right},
		"SecondCalls": {nil, secret.New("old")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, simgithub.Config{Fault: c.fault})
				client, err := github.New(github.Config{
					BaseURL: "https://github.test", HTTP: memhttp.Client(s.Handler()), Share: fifth,
					Token: func(context.Context, github.Access) (secret.Text, error) { return c.first, nil },
					Renew: func(context.Context, github.Access, secret.Text) (secret.Text, error) { return right, nil },
				})
				if err != nil {
					t.Fatal(err)
				}
				asked := 0
				for i := range 60 {
					if err := client.Delete(t.Context(), repo, int64(i+1)); errors.Is(err, github.ErrNotFound) {
						asked++
					}
				}
				if asked != 6 {
					t.Errorf("%d were asked for at once, want half of 12: each needs two requests", asked)
				}
			})
		})
	}
}

func TestNewRefusesAShareThatIsNone(t *testing.T) {
	source := func(context.Context, github.Access) (secret.Text, error) { return secret.Text{}, nil }
	for _, share := range []float64{-1, 0.001, 1.01, math.Inf(1), math.NaN()} {
		if _, err := github.New(github.Config{BaseURL: "https://api.github.com", Token: source, Share: share}); err == nil {
			t.Errorf("New with a share of %v: no error", share)
		}
	}
	for _, share := range []float64{0, 0.02, github.DefaultShare, 1} {
		if _, err := github.New(github.Config{BaseURL: "https://api.github.com", Token: source, Share: share}); err != nil {
			t.Errorf("New with a share of %v: %v", share, err)
		}
	}
}
