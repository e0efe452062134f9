package sim

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Hurried is how long those take who are not to be behind a burst.
type Hurried struct {
	Share     time.Duration // of a live runner
	Next      time.Duration // config of a shared runner, after its job
	Neighbour time.Duration // machine of another account
}

// Burst is what became of many starts at once.
type Burst struct {
	Ready         int           // of them, before they were given up
	Last          time.Duration // until the last of these was ready
	Untold        int           // those that after a minute had no expected time
	Messages      int           // about them and their runners
	Launched      int           // machines of the account
	Wasted        int           // those of them that never had a config
	Quiet, Behind Hurried       // before the burst, and 5 s into it
}

// Burst asks for n machines at once, as fast as the API lets it, each to be given up after
// giveUp, and 5 s later for what must not be behind them. The world needs a Neighbour.
func (w *World) Burst(n int, giveUp time.Duration) (b Burst) {
	w.Helper()
	body := Shared("live")
	body.AccountID = setting.AccountID
	live := w.Start(body)
	w.Ready(live, 10*time.Minute)
	b.Quiet = w.hurry(live, "quiet")
	w.Until("the shared runner to be online again", time.Minute, func() bool { return w.RunnerOf(live.ID).State == store.RunnerOnline })
	before, began := len(w.Trace()), time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Microsecond) // so that they have one order
			w.startPatiently(fmt.Sprint("burst-", i), giveUp)
		})
	}
	time.Sleep(5 * time.Second)
	b.Behind = w.hurry(live, "behind")
	wg.Wait()
	time.Sleep(time.Minute - time.Since(began))
	for _, r := range w.All() {
		if r.State == store.Accepted && r.WaitsUntil().IsZero() {
			b.Untold++
		}
	}
	mine := map[string]bool{}
	for open := true; open; {
		time.Sleep(5 * time.Second)
		open = false
		for _, r := range w.All() {
			open = open || !r.State.Final()
			if r.Account == setting.AccountID && r.Mode == store.Ephemeral {
				mine[r.ID], mine[r.Runner] = true, true
				b.Last = max(b.Last, r.ReadyAt.Sub(began))
			}
		}
	}
	for _, r := range w.All() {
		if mine[r.ID] && r.State == store.Ready {
			b.Ready++
		}
	}
	for _, m := range w.Fleet.Instances() {
		if m.At.Account == setting.AccountID {
			b.Launched++
		}
		if m.At.Account == setting.AccountID && m.CredentialedAt.IsZero() {
			b.Wasted++
		}
	}
	for _, e := range w.Trace()[before:] {
		if e.Op == kernel.Send && mine[e.On] {
			b.Messages++
		}
	}
	return b
}

// hurry asks for a share of a live runner and for a runner of another account, and has
// the shared machine ask for its next config.
func (w *World) hurry(live apitype.Started, name string) (h Hurried) {
	w.Helper()
	ask := func(body apitype.Start, account string) (took func() time.Duration) {
		body.AccountID = account
		s := w.Start(body)
		return func() time.Duration {
			w.Until(name+" to be ready", 10*time.Minute, func() bool { return w.Request(s.ID).State == store.Ready })
			r := w.Request(s.ID)
			return r.EndedAt.Sub(r.CreatedAt)
		}
	}
	other := ask(Ephemeral("neighbour-"+name), setting.NeighbourID)
	h.Share = ask(Shared("share-"+name), setting.AccountID)()
	n := w.RunnerOf(live.ID).Config.N
	job := w.Job(live.RunsOn, time.Second) // when it ends, the machine wants its next config
	w.Until("the job to end", time.Minute, func() bool { return w.Done(job) })
	began := w.JobOf(job).EndedAt
	w.Until("the next config", 10*time.Minute, func() bool { return w.RunnerOf(live.ID).Config.N > n })
	h.Next = w.RunnerOf(live.ID).UpdatedAt.Sub(began)
	h.Neighbour = other()
	return h
}

// startPatiently asks for a machine until API Gateway lets it in, as a caller does who
// gets 429.
func (w *World) startPatiently(key string, giveUp time.Duration) {
	body := Ephemeral(key)
	body.AccountID, body.GiveUp = setting.AccountID, int(giveUp/time.Second)
	for {
		_, err := w.Client.Start(w.Context(), body)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "429") {
			w.Errorf("start %s: %v", key, err)
			return
		}
	}
}

// Crowded is a world for a Burst: two accounts, behind the throttles of a Terraform file,
// in which EC2 launches so many a second, and a GitHub that limits credentials as it
// documents.
func Crowded(terraform []byte, perSecond int) Config {
	rate := simfleet.Rate{Burst: max(simfleet.EC2Rate.Burst, perSecond), PerSecond: float64(perSecond)}
	return Config{
		Seed: 1, Neighbour: true, Window: time.Second, Throttles: gateway.Throttles(terraform),
		Account: func(a *store.Account) {
			a.MaxRunners = 5000
			a.Pacing = store.Pacing{Burst: rate.Burst, IntervalMS: 1000 / perSecond}
		},
		World:       func(c *simfleet.WorldConfig) { c.Launches = rate },
		GitHubLimit: simgithub.Limit{Calls: 5000, Points: 900, Scope: 1500},
	}
}
