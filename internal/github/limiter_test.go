package github_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// documented is what GitHub lets a credential spend in a minute.
const documented = 900

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

func TestTwoHundredRegistrationsAtOnceStayInsideThePointsAndNoneIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		processes int
		share     float64
		within    time.Duration // all are minted: of 1000 points, a third of a minute's at once, then two thirds a minute
		attempts  int32         // in all; were all told the same time, some 10,000
	}{
		"OneProcessWithAllPoints":     {1, 1, 75 * time.Second, 800},
		"TenWorkersWithATenthEach":    {10, github.DefaultShare, 75 * time.Second, 800},
		"OneProcessWithAFifth":        {1, fifth, 8 * time.Minute, 2500},
		"HalfOfThePointsForTwoOfFour": {2, 0.25, 175 * time.Second, 1200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, simgithub.Config{Rules: simgithub.Rules{Token: secret.New(token), Limit: simgithub.Limit{Points: documented}}})
				var clients []*github.Client
				for range c.processes {
					clients = append(clients, sharing(t, s.Handler(), c.share))
				}
				begin := time.Now()
				var asked atomic.Int32
				var wg sync.WaitGroup
				for i := range 200 {
					wg.Go(func() {
						for {
							asked.Add(1)
							_, err := clients[i%c.processes].Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"})
							if err == nil {
								return
							}
							e, ok := errors.AsType[*github.Error](err)
							if !ok || !errors.Is(err, github.ErrLimited) || e.Status != 0 || !e.RetryAt.After(time.Now()) {
								t.Errorf("Mint %d = %v, want success or our own limit, with a time ahead", i, err)
								return
							}
							time.Sleep(time.Until(e.RetryAt))
						}
					})
				}
				wg.Wait()
				if n := len(s.Registrations()); n != 200 {
					t.Errorf("%d registrations, want 200", n)
				}
				if n := s.Calls()[simgithub.OpMint]; n != 200 {
					t.Errorf("GitHub saw %d calls, want 200: none that it refused", n)
				}
				if took := time.Since(begin); took > c.within {
					t.Errorf("it took %v, want at most %v", took, c.within)
				}
				if n := asked.Load(); n > c.attempts {
					t.Errorf("%d attempts for 200 registrations, want at most %d", n, c.attempts)
				}
			})
		})
	}
}

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
		if _, err := c.Mint(t.Context(), repo, "r1", []string{"x"}); err != nil {
			t.Fatal(err)
		}
		_, err = c.Mint(t.Context(), repo, "r2", []string{"x"})
		e := failed(t, "Mint beyond the share", err, github.ErrLimited)
		if wait := time.Until(e.RetryAt); wait < 20*time.Second || wait > 21*time.Second {
			t.Errorf("RetryAt is %v ahead, want the 20s in which 4 more points gather", wait)
		}
		if len(s.Registrations()) != 1 || s.Calls()[simgithub.OpMint] != 1 || credentials != 1 {
			t.Errorf("calls = %v with %d credentials, want that of the first", s.Calls(), credentials)
		}
		// A call that reads still fits, another account has its own points.
		if _, err := c.Get(t.Context(), repo, 1); err != nil {
			t.Errorf("Get: %v", err)
		}
		elsewhere := repo
		elsewhere.Account = "999988887777"
		if _, err := c.Mint(t.Context(), elsewhere, "r3", []string{"x"}); err != nil {
			t.Errorf("Mint for another account: %v", err)
		}
		time.Sleep(time.Until(e.RetryAt) + 5*time.Second) // and a point for the Get
		if _, err := c.Mint(t.Context(), repo, "r2", []string{"x"}); err != nil {
			t.Errorf("Mint when there are points again: %v", err)
		}
	})
}

func TestThoseWhoAskTogetherAreToldDifferentTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sharing(t, open(t, simgithub.Config{}).Handler(), fifth)
		var told []time.Duration
		for i := range 60 {
			if _, err := c.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
				told = append(told, time.Until(failed(t, "Mint", err, github.ErrLimited).RetryAt))
			}
		}
		if len(told) != 48 {
			t.Fatalf("%d were told to wait, want 48: a third of the 36 a minute pass at once", len(told))
		}
		// One more registration each 2.5 s: 24 in the first minute have a time of their own.
		if first := told[:24]; !slices.IsSorted(first) || len(slices.Compact(slices.Clone(first))) != 24 {
			t.Errorf("the first were told %v, want one time after another", first)
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
				minted := 0
				for i := range 60 {
					if _, err := client.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err == nil {
						minted++
					}
				}
				if minted != 6 {
					t.Errorf("%d were minted at once, want half of 12: each needs two requests", minted)
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
