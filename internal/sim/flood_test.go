package sim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// flooder is a machine whose job has root: it has the machine's session key, and says
// whatever it wants.
type flooder struct {
	w       *sim.World
	runner  string
	session string
	counter atomic.Int64
	calls   atomic.Int64
	refused atomic.Int64 // with 429
}

func newFlooder(w *sim.World, r store.Runner) *flooder {
	w.Helper()
	session, err := w.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash)
	if err != nil {
		w.Fatal(err)
	}
	w.Lies(r.ID)
	f := &flooder{w: w, runner: r.ID, session: session.Reveal()}
	f.counter.Store(1000)
	return f
}

// says reports an event, and returns the status and the order of the answer.
func (f *flooder) says(kind string) (int, string) {
	f.calls.Add(1)
	e := apitype.Event{Event: kind, Counter: f.counter.Add(3), Detail: fmt.Sprint(f.calls.Load()), RunID: "666"}
	b, err := json.Marshal(e)
	if err != nil {
		f.w.Error(err)
	}
	req, err := http.NewRequestWithContext(f.w.Context(), http.MethodPost, setting.URL+"/runners/"+f.runner+"/events", bytes.NewReader(b))
	if err != nil {
		f.w.Error(err)
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+f.session)
	res, err := f.w.Thief().Do(req)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusTooManyRequests {
		f.refused.Add(1)
	}
	var o apitype.Orders
	_ = json.NewDecoder(res.Body).Decode(&o) // of a problem there is none
	return res.StatusCode, o.Order
}

// until floods with so many hands, each as fast as it is answered, until a time.
func (f *flooder) until(end time.Time, hands int, kinds []string) {
	var wg sync.WaitGroup
	for i := range hands {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			for n := 0; time.Now().Before(end); n++ {
				f.says(kinds[n%len(kinds)])
			}
		})
	}
	wg.Wait()
}

func TestMachineThatFloodsEndsAtItsHardLimitAndHarmsNobody(t *testing.T) {
	t.Parallel()
	for name, kinds := range map[string][]string{
		"Notes":           {store.EventNote},
		"EverythingItCan": {store.EventNote, store.EventBooting, store.EventOnline, store.EventHeartbeat, store.EventIdle, store.EventJobStarted, store.EventJobDone},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sim.Config{APIs: 20, Account: func(a *store.Account) { a.HardS = 1800 }}
			sim.Run(t, cfg, func(w *sim.World) {
				quiet := w.Start(sim.Ephemeral("quiet"))
				w.Ready(quiet, 10*time.Minute)
				took := w.RunnerOf(quiet.ID).OnlineAt.Sub(w.Request(quiet.ID).CreatedAt)

				s := w.Start(sim.Shared("a"))
				w.Ready(s, 10*time.Minute)
				w.Job(s.RunsOn, 10*time.Hour) // so that nothing ends it but its limit
				other := w.Start(sim.Shared("b", "build"))
				w.Ready(other, 10*time.Minute)
				w.Job(other.RunsOn, 20*time.Minute)
				w.Until("the job to start", time.Minute, func() bool { return w.RunnerOf(s.ID).State == store.RunnerBusy })
				run := w.RunnerOf(s.ID)
				f := newFlooder(w, run)
				if err := w.Fleet.Root(run.InstanceID); err != nil {
					w.Fatal(err)
				}
				f.until(time.Now().Add(10*time.Second), 2, kinds)
				if n := w.Runner(run.ID).Version - run.Version; n > 12 { // four notes, its alarm, and what it says of its job
					w.Errorf("the runner was written %d times in ten seconds of the flood", n)
				}
				time.Sleep(time.Until(run.Hard.Add(-time.Minute)))
				before := w.Runner(run.ID).Version
				var wg sync.WaitGroup
				wg.Go(func() { f.until(run.Hard.Add(2*w.Limits.ReaperPeriod), 3, kinds) })

				during := w.Start(sim.Ephemeral("during"))
				w.Ready(during, 2*time.Minute)
				if got := w.RunnerOf(during.ID).OnlineAt.Sub(w.Request(during.ID).CreatedAt); got > 2*took {
					w.Errorf("another start took %s during the flood, and %s before", got, took)
				}
				time.Sleep(time.Until(run.Hard.Add(-time.Second)))
				if n := w.Runner(run.ID).Version - before; n > 6 { // it is past its exp, and asks for no config
					w.Errorf("the runner was written %d times in a minute of the flood", n)
				}
				for time.Now().Before(run.Hard.Add(2 * w.Limits.ReaperPeriod)) {
					time.Sleep(5 * time.Second)
					o := w.RunnerOf(other.ID)
					if p := w.Pulse(o.Lock); o.State.Usable() && time.Since(p.Seen) > w.Limits.Silent {
						w.Errorf("the other machine was last heard %s ago", time.Since(p.Seen))
					}
				}
				r := w.Runner(run.ID)
				if r.EndingAt.IsZero() || r.EndingAt.After(run.Hard.Add(2*w.Limits.ReaperPeriod)) {
					w.Errorf("the runner is %s two runs of the reaper after its hard limit, ending at %s", r.State, r.EndingAt)
				}
				if status, order := f.says(store.EventNote); status != http.StatusTooManyRequests && status != http.StatusGone && order != string(store.OrderStop) {
					w.Errorf("a note past the hard limit is answered %d %q, want stop, gone or 429", status, order)
				}
				wg.Wait()
				alarms := 0
				for _, a := range w.Alarms() {
					if a == store.AlarmFlood {
						alarms++
					}
				}
				if alarms != 1 || f.refused.Load() < f.calls.Load()/2 {
					w.Errorf("%d alarms, and %d of %d calls were refused unread; want one, and most", alarms, f.refused.Load(), f.calls.Load())
				}
				w.Quiet(3 * time.Hour)
				w.Check()
			})
		})
	}
}

func TestRepositoryThatFilesManyStartsHasFewOpen(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{APIs: 3, Account: func(a *store.Account) { a.MaxOpenRequests, a.MaxRunners = 20, 1 }}, func(w *sim.World) {
		var filed, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				time.Sleep(time.Duration(i)*150*time.Millisecond + time.Duration(i))
				body := sim.Ephemeral(fmt.Sprint("many", i))
				if _, err := w.Client.Start(w.Context(), body); err == nil {
					filed.Add(1)
				} else {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		if n := filed.Load(); n < 20 || n > 20+3+2 || refused.Load() != 60-n { // one more a process, and two that got a runner meanwhile
			w.Errorf("%d starts were filed and %d refused, want 20 and one more for each process at most", n, refused.Load())
		}
		if got, states := len(w.All()), w.States(); int64(got) != filed.Load() || states[store.Accepted]+states[store.Waiting] > 23 {
			w.Errorf("%d requests are recorded, in the states %v; want as many as were filed", got, states)
		}
		w.Quiet(2 * time.Hour)
		w.Check()
	})
}
