package local_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A hundred take three seconds of a processor, ten times that with the race detector; a
// thousand, which make burst has, take 35.
var burstJobs = flag.Int("burst", 100, "how many jobs are queued in the ten seconds of a burst")

// doorLog counts how webhooks are answered, by the status and the reason. It is a
// slog.Handler, safe for concurrent use.
type doorLog struct {
	mu      sync.Mutex
	answers map[string]int
}

func (*doorLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (d *doorLog) WithAttrs([]slog.Attr) slog.Handler         { return d }
func (d *doorLog) WithGroup(string) slog.Handler              { return d }

func (d *doorLog) Handle(_ context.Context, r slog.Record) error {
	said := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		said[a.Key] = a.Value.String()
		return true
	})
	if said["call"] == "POST /github/webhook" {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.answers[said["status"]+" "+said["reason"]]++
	}
	return nil
}

// mostAtOnce returns how many of some machines, all of which have ended, there were at most
// at one time.
func mostAtOnce(all []simfleet.Fact) (most int) {
	by := map[time.Time]int{}
	for _, m := range all {
		by[m.LaunchedAt]++
		by[m.EndedAt]--
	}
	n := 0
	for _, at := range slices.SortedFunc(maps.Keys(by), time.Time.Compare) {
		n += by[at]
		most = max(most, n)
	}
	return most
}

// Jobs that are queued in ten seconds, half of them told of twice, have one machine each and
// run on it: nobody else knows their labels. The account may have three machines for ten of
// them at a time, so that most wait for those before them to end. The time is virtual, and
// the limits are those of production.
func TestEachJobOfABurstHasOneMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := *burstJobs
		quota, dir, door := jobs*3/10, t.TempDir(), &doorLog{answers: map[string]int{}}
		write(t, dir, local.BuiltIn+".json", strings.NewReplacer(
			"123456789012", local.BuiltIn, "2002", "1001", "octo/cat", repository,
			`"max_runners": 3`, fmt.Sprintf(`"max_runners": %d, "runs_on": [{"pin": "g-linux-"}], "pacing": {"burst": 100, "interval_ms": 10}`, quota),
		).Replace(second))
		s := run(t, local.Config{Dir: dir, Limits: store.DefaultLimits(), BootTime: 30 * time.Second, Log: slog.New(door)})
		time.Sleep(time.Second) // the reaper's first run looks for jobs, and finds them before their webhooks come
		began, requests := time.Now(), map[string]bool{}
		for n := range jobs {
			queued, err := s.QueueJob(t.Context(), local.Job{Repository: repository, RunsOn: []string{fmt.Sprint("g-linux-", n)}, Length: time.Minute, Twice: n%2 == 0})
			if err != nil {
				t.Fatal(err)
			}
			requests[queued.Request] = true
			time.Sleep(10 * time.Second / time.Duration(jobs))
		}
		time.Sleep(time.Second) // GitHub tells within that
		if n, err := s.Store.CountOpen(t.Context(), store.Repository{ID: "1001"}, 2*jobs); err != nil || n != jobs || len(requests) != jobs {
			t.Errorf("after %s, %d of %d requests are open for %d jobs, %v", time.Since(began), n, len(requests), jobs, err)
		}
		over := func() bool {
			all := s.Fleet.Instances()
			return len(all) >= jobs && !slices.ContainsFunc(all, func(m simfleet.Fact) bool { return m.EndedAt.IsZero() })
		}
		for !over() {
			if time.Sleep(10 * time.Second); time.Since(began) > time.Hour {
				t.Fatalf("%d machines in an hour, and not all of them have ended", len(s.Fleet.Instances()))
			}
		}
		took := time.Since(began)
		time.Sleep(time.Minute) // and after one more run of the reaper

		most := mostAtOnce(s.Fleet.Instances())
		t.Logf("%d jobs took %s, on %d machines of which at most %d were there at once; the door answered %v", jobs, took, len(s.Fleet.Instances()), most, door.answers)
		if most != quota {
			t.Errorf("there were up to %d machines at once, want the quota of %d used and kept", most, quota)
		}
		// GitHub tells that a job is queued, in progress and completed; of every second one twice.
		if got, want := door.answers, (map[string]int{"202 accepted": jobs, "202 known": (jobs + 1) / 2, "202 told": 2*jobs + 2*((jobs+1)/2)}); !maps.Equal(got, want) {
			t.Errorf("the door answered %v, want %v", got, want)
		}
		served, machines := map[string]string{}, map[string]bool{}
		for _, r := range s.runners(t) {
			machines[r.InstanceID] = true
			if served[r.Took.Job] != "" || r.Took.Request != r.For || r.State != store.RunnerEnded {
				t.Errorf("runner %s is %s and took job %q for %s, want one of its own, and the end", r.ID, r.State, r.Took.Job, r.For)
			}
			served[r.Took.Job] = r.ID
		}
		for _, r := range s.requests(t) {
			if !requests[r.ID] || r.State != store.Ready || r.Runner != served[r.Job.ID] || r.Launches != 1 {
				t.Errorf("request %s of job %s is %s on %s after %d launches, want ready on %s after one", r.ID, r.Job.ID, r.State, r.Runner, r.Launches, served[r.Job.ID])
			}
		}
		for _, j := range s.GitHub.Jobs() {
			if j.State != simgithub.Done || j.Refused || j.Requeued != 0 || served[j.ID] == "" {
				t.Errorf("job %s is %s, refused: %t, and was queued again %d times; want it begun once, and done", j.ID, j.State, j.Refused, j.Requeued)
			}
		}
		if all := s.Fleet.Instances(); len(all) != jobs || len(machines) != jobs || len(served) != jobs || len(s.requests(t)) != jobs {
			t.Errorf("%d jobs have %d requests, %d runners and %d machines, want one each", jobs, len(s.requests(t)), len(machines), len(all))
		}
	})
}
