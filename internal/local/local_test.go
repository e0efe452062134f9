package local_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const repository = "acme/shop" // which the built-in account serves

// patience bounds every wait for something that must come: far more than it
// takes, since other tests may have the processors.
const patience = 5 * time.Minute

// quick are limits under which machines end within seconds, and which are as
// patient as production with machines that this one is slow to run.
func quick() store.Limits {
	l, production := store.DefaultLimits().Divided(60), store.DefaultLimits()
	l.GiveUp, l.BootLimit, l.OnlineGrace = production.GiveUp, production.BootLimit, production.OnlineGrace
	l.Heartbeat, l.Silent, l.Lost, l.ShareMargin = production.Heartbeat, production.Silent, production.Lost, production.ShareMargin
	l.Hard, l.Timeout = production.Hard, production.Timeout
	return l
}

// unhurried are quick limits under which no runner gets idle while a slow machine
// still has requests to bring to it.
func unhurried() store.Limits {
	l := quick()
	l.Idle = store.DefaultLimits().Idle
	return l
}

// running is a System at work, and a client of its API.
type running struct {
	*local.System
	*client.Client
}

// run opens a system and has it work until the test ends.
func run(t testing.TB, cfg local.Config) running {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.URL = "http://test.localhost"
	if cfg.Limits.Heartbeat == 0 {
		cfg.Limits = quick()
	}
	s, err := local.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // t.Context ends before the cleanup begins
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return running{s, client.Must(client.New(client.Config{
		URL: cfg.URL, HTTP: s.Client(),
		Token: func(context.Context) (client.Token, error) { return s.Token, nil },
	}))}
}

// atOnce calls f for 0 to n-1, all at the same time, and returns what they return.
func atOnce[T any](t testing.TB, n int, f func(i int) (T, error)) []T {
	t.Helper()
	out, errs := make([]T, n), make([]error, n)
	var wg sync.WaitGroup
	gun := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-gun
			out[i], errs[i] = f(i)
		})
	}
	close(gun)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	return out
}

// ready waits until every one of the requests is final, which must be ready, and
// returns them.
func (s running) ready(t testing.TB, started []apitype.Started) []apitype.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := atOnce(t, len(started), func(i int) (apitype.Status, error) { return s.Wait(ctx, started[i].ID, nil) })
	for _, q := range all {
		if q.State != string(store.Ready) || q.Runner == nil {
			t.Fatalf("request %s is %s (%+v), want ready with a runner", q.ID, q.State, q.Error)
		}
	}
	return all
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// runners returns all runners that are recorded.
func (s running) runners(t testing.TB) (out []store.Runner) {
	t.Helper()
	for i, err := range s.Store.List(t.Context(), store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *i.(*store.Runner))
	}
	return out
}

// requests returns all requests that are recorded.
func (s running) requests(t testing.TB) (out []store.Request) {
	t.Helper()
	for i, err := range s.Store.List(t.Context(), store.Filter{Kind: store.KindRequest}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *i.(*store.Request))
	}
	return out
}

func (s running) live(t testing.TB) int {
	t.Helper()
	q, err := store.Read[store.Quota](t.Context(), s.Store, local.BuiltIn)
	if err != nil {
		t.Fatal(err)
	}
	return q.Live
}

func TestSameKeyFiftyTimesAtOnceIsOneRequestAndOneMachine(t *testing.T) {
	for _, mode := range []string{store.Shared, store.Ephemeral} {
		t.Run(mode, func(t *testing.T) {
			s := run(t, local.Config{BootTime: 50 * time.Millisecond})
			body := apitype.Start{Repo: repository, Mode: mode, IdempotencyKey: "the-same"}
			started := atOnce(t, 50, func(int) (apitype.Started, error) { return s.Start(t.Context(), body) })
			for _, q := range started {
				if q.ID != started[0].ID || !slices.Equal(q.RunsOn, started[0].RunsOn) {
					t.Fatalf("one call made request %s on %v, another %s on %v", started[0].ID, started[0].RunsOn, q.ID, q.RunsOn)
				}
			}
			s.ready(t, started[:1])
			again, err := s.Start(t.Context(), body)
			if err != nil || again.ID != started[0].ID || again.State != string(store.Ready) {
				t.Errorf("the key once more = request %s, %s, %v; want %s, ready", again.ID, again.State, err, started[0].ID)
			}
			body.Timeout = 77
			if q, err := s.Start(t.Context(), body); !errors.Is(err, client.ErrMismatch) {
				t.Errorf("the key with another body = %+v, %v; want %v", q, err, client.ErrMismatch)
			}
			if requests, runners, machines := len(s.requests(t)), len(s.runners(t)), len(s.Fleet.Instances()); requests != 1 || runners != 1 || machines != 1 {
				t.Errorf("there are %d requests, %d runners, %d machines; want 1 of each", requests, runners, machines)
			}
		})
	}
}

func TestEachEphemeralRequestHasAMachineOfItsOwnThatEnds(t *testing.T) {
	const n = 200
	s := run(t, local.Config{BootTime: 100 * time.Millisecond, Jobs: 200 * time.Millisecond})
	started := atOnce(t, n, func(i int) (apitype.Started, error) {
		return s.Start(t.Context(), apitype.Start{Repo: repository, Mode: store.Ephemeral, IdempotencyKey: fmt.Sprint(i)})
	})
	byRunner := map[string]bool{}
	for _, q := range s.ready(t, started) {
		byRunner[q.Runner.ID] = true
	}
	if len(byRunner) != n {
		t.Errorf("%d requests have %d runners, want one each", n, len(byRunner))
	}
	until(t, "every runner to end", func() bool { return s.live(t) == 0 })
	machines := s.Fleet.Instances()
	if len(machines) != n {
		t.Errorf("there were %d machines, want %d", len(machines), n)
	}
	for _, m := range machines {
		if !byRunner[m.Tags[fleet.TagRunner]] || m.CredentialedAt.IsZero() || m.EndedAt.IsZero() {
			t.Errorf("machine %s of runner %q: credential %v, ended %v; want one of a request's runners, with a credential, and over",
				m.ID, m.Tags[fleet.TagRunner], m.CredentialedAt, m.EndedAt)
		}
		delete(byRunner, m.Tags[fleet.TagRunner]) // so that no other machine may be its
	}
	for _, r := range s.runners(t) {
		if r.State != store.RunnerEnded || r.End == nil || r.End.Code != store.EndDone || r.Jobs != 1 {
			t.Errorf("runner %s is %s (%+v) after %d jobs, want ended, %s, after 1", r.ID, r.State, r.End, r.Jobs, store.EndDone)
		}
	}
	for _, j := range s.GitHub.Jobs() {
		if j.State != simgithub.Done {
			t.Errorf("job %s is %s, want done", j.ID, j.State)
		}
	}
	if left := s.GitHub.Registrations(); len(left) > 0 {
		t.Errorf("GitHub has %d registrations left, want none", len(left))
	}
}

func TestEqualSharedRequestsHaveOneRunner(t *testing.T) {
	const n = 200
	s := run(t, local.Config{BootTime: 100 * time.Millisecond, Limits: unhurried()})
	started := atOnce(t, n, func(i int) (apitype.Started, error) {
		return s.Start(t.Context(), apitype.Start{Repo: repository, Mode: store.Shared, Labels: []string{"one"}, IdempotencyKey: fmt.Sprint(i)})
	})
	all := s.ready(t, started)
	for _, q := range all {
		if q.Runner.ID != all[0].Runner.ID || q.OwnLabel != all[0].OwnLabel {
			t.Fatalf("request %s is ready on %s (%s), and %s on %s (%s)", all[0].ID, all[0].Runner.ID, all[0].OwnLabel, q.ID, q.Runner.ID, q.OwnLabel)
		}
	}
	if requests, runners, machines := len(s.requests(t)), len(s.runners(t)), len(s.Fleet.Instances()); requests != n || runners != 1 || machines != 1 {
		t.Errorf("there are %d requests, %d runners, %d machines; want %d, 1, 1", requests, runners, machines, n)
	}
	if got := s.live(t); got != 1 {
		t.Errorf("the quota counts %d, want 1", got)
	}
}

func TestEachKeyOfAMixedLoadHasOneRunner(t *testing.T) {
	const keys, each = 40, 25
	s := run(t, local.Config{BootTime: 100 * time.Millisecond, Limits: unhurried()})
	started := atOnce(t, keys*each, func(i int) (apitype.Started, error) {
		return s.Start(t.Context(), apitype.Start{
			Repo: repository, Mode: store.Shared, Labels: []string{fmt.Sprintf("key-%d", i%keys)}, IdempotencyKey: fmt.Sprint(i),
		})
	})
	byLabel, on := map[string]string{}, map[string]int{}
	for _, q := range s.ready(t, started) {
		if was, ok := byLabel[q.OwnLabel]; ok && was != q.Runner.ID {
			t.Errorf("label %s is of runner %s and of %s", q.OwnLabel, was, q.Runner.ID)
		}
		byLabel[q.OwnLabel] = q.Runner.ID
		on[q.Runner.ID]++
	}
	for id, n := range on {
		if n != each {
			t.Errorf("%d requests are on runner %s, want %d", n, id, each)
		}
	}
	if runners, machines := len(s.runners(t)), len(s.Fleet.Instances()); len(on) != keys || runners != keys || machines != keys {
		t.Errorf("the requests are on %d runners, of %d, with %d machines; want %d of each", len(on), runners, machines, keys)
	}
	if got := s.live(t); got != keys {
		t.Errorf("the quota counts %d, want %d", got, keys)
	}
}

func TestSharedRunnerGetsOnePretendedJob(t *testing.T) {
	s := run(t, local.Config{Jobs: 50 * time.Millisecond})
	started, err := s.Start(t.Context(), apitype.Start{Repo: repository, Mode: store.Shared})
	if err != nil {
		t.Fatal(err)
	}
	s.ready(t, []apitype.Started{started})
	until(t, "the runner to be online for a second job", func() bool {
		all := s.runners(t)
		return len(all) == 1 && all[0].Jobs == 1 && slices.ContainsFunc(s.GitHub.Registrations(), func(r simgithub.Registration) bool {
			return r.Online && r.Name == store.GitHubNameFor(local.ControlPlane, all[0].ID, 2)
		})
	})
	// Whether a runner gets a job is decided when it goes online.
	if jobs := s.GitHub.Jobs(); len(jobs) != 1 || jobs[0].State != simgithub.Done || !slices.Equal(jobs[0].Labels, started.RunsOn) {
		t.Errorf("jobs = %+v, want one for %v, done", jobs, started.RunsOn)
	}
}
