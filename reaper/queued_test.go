package reaper_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
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

// room lets each repository have so many open requests, and returns what writes that jobs in
// repositories found no room now.
func (w *world) room(most int) (overflow func(repositories ...string)) {
	a := w.accounts[account]
	a.MaxOpenRequests = most
	w.accounts[account] = a
	return func(repositories ...string) {
		o := store.OverflowOf(account, time.Now())
		o.Repositories = repositories
		w.put(&o)
	}
}

// open files so many requests of a repository that wait, and returns what ends them.
func (w *world) open(repo string, n int) (end func()) {
	var all []store.Item
	for i := range n {
		q := &store.Request{ID: fmt.Sprint("open-", repo, "-", i), Account: account, State: store.Accepted, CreatedAt: time.Now(), GiveUpAt: time.Now().Add(24 * time.Hour),
			Repository: store.Repository{ID: repo, Name: "acme/r" + repo, OwnerID: "9"}}
		q.DueAt = q.GiveUpAt
		all = append(all, q)
	}
	w.put(all...)
	return func() {
		for _, q := range all {
			q.(*store.Request).State = store.Cancelled
		}
		w.put(all...)
	}
}

// The repositories of an account take turns, and one whose jobs found no room is looked at
// with the first sweep that finds room in it, however many others there are.
func TestJobsThatFoundNoRoomAreFoundWithTheFirstSweepThatHasRoom(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		a := w.accounts[account]
		a.GitHub = nil
		for i := range 200 {
			a.Repositories = append(a.Repositories, store.Named{ID: strconv.Itoa(1000 + i), Name: "acme/r" + strconv.Itoa(1000+i)})
		}
		w.accounts[account] = a
		overflow := w.room(3)
		end := w.open("42", 3)
		hooks.queue(42)
		w.run()
		overflow("42", "43")
		w.minutes(12)
		if got := w.heardOf(); len(got) != 0 || hooks.listed["42"] != 0 {
			t.Errorf("messages about jobs in %q, and %d lists of 42; want none while it has no room", got, hooks.listed["42"])
		}
		if n := hooks.listed["43"]; n != 1 {
			t.Errorf("43, which has room and no job, is listed %d times, want once", n)
		}
		end()
		w.minutes(5)
		if got := w.heardOf(); !slices.Equal(got, []string{"42"}) || hooks.listed["42"] != 1 {
			t.Errorf("messages about jobs in %q after %d lists, want one after one", got, hooks.listed["42"])
		}
		w.minutes(10)
		if n := hooks.listed["42"]; n != 1 || len(w.sweep().Overflows.Waiting) != 0 {
			t.Errorf("42 is listed %d times, and %q wait; want once, and none", n, w.sweep().Overflows.Waiting)
		}
		if lists := hooks.calls["runs"]; lists > 7*5*20 { // sweeps, lists of a repository, repositories
			t.Errorf("%d lists in seven sweeps, want no more than without overflows", lists)
		}
	})
}

// No more messages are sent than there is room for: what is left comes with later sweeps.
func TestAsManyJobsAreFoundAsThereIsRoomFor(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		a := w.accounts[account]
		a.GitHub = nil
		w.accounts[account] = a
		overflow := w.room(4)
		end := w.open("42", 3)
		for range 150 { // more runs than a sweep reads
			hooks.queue(42)
		}
		overflow("42")
		time.Sleep(3 * time.Minute)
		w.run()
		if got := w.heardOf(); len(got) != 1 || hooks.listed["42"] != 1 {
			t.Errorf("%d messages in %d lists, want the one that there is room for", len(got), hooks.listed["42"])
		}
		end()
		found := map[string]bool{}
		for range 25 {
			w.minutes(1)
			for _, s := range w.queue.take() {
				found[s.Seen.Job] = true
			}
		}
		if len(found) < 15 || len(found) > 5*4 { // others each time: what became of those before is not known here
			t.Errorf("messages about %d jobs in five sweeps, want four others for each", len(found))
		}
		if !slices.Equal(w.sweep().Overflows.Waiting, []string{"42"}) {
			t.Errorf("%q wait, want 42: it has jobs left", w.sweep().Overflows.Waiting)
		}
	})
}

// A job that no machine can be had for never has a request, and takes the only room from no
// other one.
func TestAJobThatHasNoRequestDoesNotHoldUpOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		a := w.accounts[account]
		a.GitHub = nil
		w.accounts[account] = a
		overflow := w.room(2)
		w.open("42", 1)
		for range 3 {
			hooks.queue(42)
		}
		overflow("42")
		found := map[string]bool{}
		for range 6 {
			time.Sleep(5 * time.Minute)
			w.run()
			got := w.queue.take()
			for _, s := range got {
				found[s.Seen.Job] = true
			}
			if len(got) > 1 {
				t.Errorf("%d messages in a sweep, want one: there is room for one", len(got))
			}
		}
		if len(found) != 3 {
			t.Errorf("messages about %d jobs in six sweeps, want all three", len(found))
		}
	})
}

// What could not be read or looked at is not forgotten.
func TestAnOverflowThatCouldNotBeLookedAtStays(t *testing.T) {
	inWorld(t, func(w *world) {
		hooks := w.serving()
		a := w.accounts[account]
		a.GitHub = nil
		w.accounts[account] = a
		overflow := w.room(4)
		hooks.queue(42)
		w.run()
		overflow("42")
		hooks.fails = func(string) error { return &github.Error{Kind: github.ErrUnknown, Op: "list"} }
		for range 10 {
			time.Sleep(time.Minute)
			_, _ = w.try()
		}
		if got := w.heardOf(); len(got) != 0 || !slices.Equal(w.sweep().Overflows.Waiting, []string{"42"}) {
			t.Fatalf("messages in %q, and %q wait; want none, and 42", got, w.sweep().Overflows.Waiting)
		}
		hooks.fails = func(string) error { return nil }
		w.minutes(5)
		if got := w.heardOf(); !slices.Equal(got, []string{"42"}) || len(w.sweep().Overflows.Waiting) != 0 {
			t.Errorf("messages in %q, and %q wait; want one in 42, and none", got, w.sweep().Overflows.Waiting)
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
