package reaper_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// serving lets the account of the world serve the workflow jobs of the owner 9, through an
// App, and returns GitHub.
func (w *world) serving() *workflows {
	a := w.accounts[account]
	a.Owners = []store.Named{{ID: "9", Name: "acme"}}
	a.RunsOn = []store.Offer{{Labels: []string{"garo"}}}
	a.InstanceTypes, a.DefaultInstanceTypes = []string{"m7i.large"}, []string{"m7i.large"}
	a.GitHub = store.GitHubCredentials{{AppID: 7, InstallationID: 5}}
	w.accounts[account] = a
	hooks := newWorkflows()
	secrets := secret.New(strings.Repeat("k", keys.MinLen))
	ring, err := keys.NewRing(secrets, "k1", map[string]secret.Text{"k1": secrets})
	if err != nil {
		w.t.Fatal(err)
	}
	w.config.Workflows, w.config.Keys = hooks, func(context.Context) (*keys.Ring, error) { return ring, nil }
	return hooks
}

// heard returns the ids of the repositories of whose jobs messages were sent since the last
// call.
func (w *world) heardOf() []string {
	var out []string
	for _, s := range w.queue.take() {
		if s.Kind == queue.Job {
			out = append(out, s.Seen.Repository.ID)
		}
	}
	slices.Sort(out)
	return out
}

func TestARepositoryThatMissedAWebhookIsListedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		hooks.queue(42)
		hooks.missed(42, 2*time.Minute)
		hooks.missed(42, 3*time.Minute)
		hooks.delivered(github.Delivery{OK: true, Event: "workflow_job", Action: "queued", Repository: 43}, time.Minute)
		hooks.delivered(github.Delivery{Event: "workflow_job", Action: "completed", Repository: 43}, time.Minute)
		hooks.delivered(github.Delivery{Event: "workflow_job", Action: "queued", Repository: 43, Installation: 6}, time.Minute)
		w.run()
		if got := w.heardOf(); !slices.Equal(got, []string{"42"}) {
			t.Errorf("messages about jobs in %v, want one in 42", got)
		}
		if hooks.listed["43"] != 0 {
			t.Error("listed a repository that missed nothing of ours")
		}
		w.minutes(20)
		if n := hooks.listed["42"]; n != 1 {
			t.Errorf("listed %d times, want once", n)
		}
		if s := w.sweep(); s.Deliveries.Seen != 5 || s.Deliveries.Behind() {
			t.Errorf("the sweep remembers %+v, want all to be seen", s.Deliveries)
		}
	})
}

func TestAListOfRunsThatFailsIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		again bool
	}{
		"NoAnswer":         {&github.Error{Kind: github.ErrUnknown, Op: "list"}, true},
		"OurShareIsSpent":  {&github.Error{Kind: github.ErrLimited, Op: "list"}, true},
		"NotThereForUs":    {&github.Error{Kind: github.ErrNotFound, Op: "list", Status: 404}, false},
		"NoPermission":     {&github.Error{Kind: github.ErrDenied, Op: "list", Status: 403}, false},
		"JobsHaveNoAnswer": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				hooks := w.serving()
				hooks.queue(42)
				hooks.missed(42, 2*time.Minute)
				hooks.fails = func(what string) error {
					if what == "runs" {
						return c.err
					}
					if what == "jobs" && c.err == nil {
						return &github.Error{Kind: github.ErrUnknown, Op: what}
					}
					return nil
				}
				_, _ = w.try()
				hooks.fails = func(string) error { return nil }
				w.minutes(3)
				if got := len(w.heardOf()) > 0; got != c.again {
					t.Errorf("its job is found: %v, want %v", got, c.again)
				}
			})
		})
	}
}

// A page that GitHub knows no more, as after days, has the log read from its newest end.
func TestALostCursorBeginsAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		hooks.queue(42)
		hooks.missed(42, 2*time.Minute)
		w.run()
		s := w.sweep()
		s.Deliveries = store.DeliveryLog{App: 7, Cursor: "gone", Top: 3}
		w.put(&s)
		w.heardOf()
		hooks.fails = func(what string) error {
			if what == "deliveries" && hooks.calls[what] == 2 {
				return &github.Error{Kind: github.ErrRefused, Op: what, Status: 422}
			}
			return nil
		}
		w.minutes(10)
		if got := w.heardOf(); !slices.Equal(got, []string{"42"}) {
			t.Errorf("messages about jobs in %v, want one in 42", got)
		}
	})
}

func TestWithoutAnAppNoLogIsRead(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		a := w.accounts[account]
		a.GitHub = nil
		w.accounts[account] = a
		w.minutes(10)
		if n := hooks.calls["deliveries"]; n != 0 {
			t.Errorf("%d reads, want none", n)
		}
	})
}

// One repository with very many unfinished runs does not keep a sweep from others.
func TestBusyRepositoriesTakeTurnsWithOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		a := w.accounts[account]
		a.GitHub = nil
		a.Repositories = []store.Named{{ID: "41", Name: "acme/r41"}, {ID: "42", Name: "acme/r42"}}
		w.accounts[account] = a
		for range 100 {
			hooks.queue(41)
		}
		hooks.queue(42)
		w.run()
		got := w.heardOf()
		if n := len(got); n != 60 || got[59] != "42" {
			t.Errorf("%d messages, the last about %s; want 60, and one about 42", n, got[n-1])
		}
	})
}

// After a day in which no webhook came through, every job that is still queued has its
// message within 15 minutes, in as many repositories as the first line says.
func TestJobsOfManyRepositoriesAreFoundAfterADaysOutage(t *testing.T) {
	// A personal token, or the smallest installation of an App, has 5,000 calls an hour, and a
	// large installation 12,500. Listing may take them while more than half is left.
	for _, hourly := range []int{5000, 12_500} {
		found(t, hourly)
	}
}

// found plays it with so many calls an hour.
func found(t *testing.T, hourly int) {
	const each, deliveries = 5 + 1, 60_000 // five lists of runs, and the jobs of one
	inWorld(t, func(w *world) {
		hooks := w.serving()
		hooks.takes = 250 * time.Millisecond // what a list of GitHub's takes
		const repositories = 1200
		for i := range deliveries { // the oldest first
			hooks.missed(1000+i%repositories, time.Hour+time.Duration(deliveries-i)*time.Second)
		}
		for i := range repositories {
			hooks.queue(1000 + i)
		}
		hooks.half = hourly / 2
		found := map[string]bool{}
		began := time.Now()
		for time.Since(began) < 15*time.Minute {
			_, _ = w.try() // our share of the hour is spent in the end
			for _, id := range w.heardOf() {
				found[id] = true
			}
			time.Sleep(time.Minute - time.Since(began)%time.Minute)
		}
		t.Logf("N = %d repositories of %d calls an hour, with %d reads of the log and %d other calls", len(found), hourly, hooks.calls["deliveries"], hooks.spent)
		if len(found) < hourly/2/each {
			t.Errorf("%d repositories, want all that half of the calls of an hour suffice for: %d", len(found), hourly/2/each)
		}
		if n := hooks.calls["deliveries"]; n > deliveries/100+15 {
			t.Errorf("%d pages of the log were read, want each once, and the newest again every minute", n)
		}
	})
}
