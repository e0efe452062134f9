package sim_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// beside is a thousand in make sim-crowd, which takes half a minute of a processor.
var beside = flag.Int("crowd", 300, "so many starts of one account at once, beside another of the same App")

// crowded is a world for a burst, in which EC2 launches so many a second.
func crowded(t *testing.T, perSecond int) sim.Config {
	t.Helper()
	text, err := os.ReadFile("../../terraform/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(gateway.Throttles(text)); n < 10 {
		t.Fatalf("http.tf throttles %d routes, want each of the API's", n)
	}
	return sim.Crowded(text, perSecond)
}

func TestNobodyIsBehindABurst(t *testing.T) {
	t.Parallel()
	for _, n := range []int{100, 300} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			sim.Run(t, crowded(t, 2), func(w *sim.World) {
				b := w.Burst(n, 15*time.Minute)
				t.Logf("%d starts: %+v", n, b)
				for _, c := range []struct {
					what          string
					quiet, behind time.Duration
				}{{"a share", b.Quiet.Share, b.Behind.Share}, {"a next config", b.Quiet.Next, b.Behind.Next}, {"another account's start", b.Quiet.Neighbour, b.Behind.Neighbour}} {
					if c.behind > 2*c.quiet {
						t.Errorf("%s took %s in the burst, and %s when it is quiet", c.what, c.behind, c.quiet)
					}
				}
				if most := n * 33 / 10; b.Messages > most { // one each for the start, its turn and its confirmation; a few come again
					t.Errorf("%d messages for %d starts, want at most %d", b.Messages, n, most)
				}
				if floor := time.Duration(n)*500*time.Millisecond + setting.BootTime + setting.Pending; b.Last > floor*11/10 {
					t.Errorf("the last one was ready after %s, want at most a tenth more than %s", b.Last, floor)
				}
				if s := w.States(); s[store.Ready] != n+5 {
					t.Errorf("requests are %v, want all ready", s)
				}
				w.Check()
			})
		})
	}
}

// One repository asks for many machines, and a hundred others for one each, one a second.
func TestNobodyIsBehindAnotherRepository(t *testing.T) {
	t.Parallel()
	const big, others = 600, 100
	world := crowded(t, 2)
	throttled := world.Account
	world.Account = func(a *store.Account) {
		throttled(a)
		for i := range others {
			a.Repositories = append(a.Repositories, store.Named{ID: fmt.Sprint(1000 + i), Name: fmt.Sprint("acme/other-", i)})
		}
	}
	sim.Run(t, world, func(w *sim.World) {
		ask := func(i int) apitype.Started {
			body := sim.Ephemeral(fmt.Sprint("other-", i))
			body.AccountID, body.Repo = setting.AccountID, fmt.Sprint("acme/other-", i)
			return w.Start(body)
		}
		took := func(s apitype.Started) time.Duration {
			w.Until("the runner", 10*time.Minute, func() bool { return w.Request(s.ID).State == store.Ready })
			r := w.Request(s.ID)
			return r.ReadyAt.Sub(r.CreatedAt)
		}
		quiet := took(ask(0))
		var wg sync.WaitGroup
		for i := range big {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				body := sim.Ephemeral(fmt.Sprint("big-", i))
				body.AccountID = setting.AccountID
				for {
					if _, err := w.Client.Start(w.Context(), body); err == nil || !strings.Contains(err.Error(), "429") {
						return
					}
				}
			})
		}
		var asked []apitype.Started
		for i := range others - 1 {
			time.Sleep(time.Second)
			asked = append(asked, ask(i+1))
		}
		wg.Wait()
		var all []time.Duration
		for _, s := range asked {
			all = append(all, took(s))
		}
		slices.Sort(all)
		t.Logf("quiet %s; the others: median %s, p99 %s", quiet, all[len(all)/2], all[len(all)*99/100])
		if p99 := all[len(all)*99/100]; p99 > 2*quiet {
			t.Errorf("of %d other repositories the slowest start but one took %s, and a start takes %s when it is quiet", others, p99, quiet)
		}
		if s := w.States(); s[store.Ready]+s[store.Accepted]+s[store.Waiting] != big+others {
			t.Errorf("requests are %v, want none failed", s)
		}
	})
}

// TestAccountsOfOneAppAreNotBehindEachOther has two accounts name one App, so that GitHub
// counts their registrations together. One launches faster than GitHub registers, and has
// leased all that it may when the other asks for one machine.
func TestAccountsOfOneAppAreNotBehindEachOther(t *testing.T) {
	t.Parallel()
	world := crowded(t, 5)
	throttled := world.Account
	world.Account = func(a *store.Account) {
		throttled(a)
		a.GitHub = store.GitHubCredentials{{Parameter: "/app/key", AppID: 7, InstallationID: 8}}
	}
	sim.Run(t, world, func(w *sim.World) {
		ask := func(key string) (took func() time.Duration) {
			body := sim.Ephemeral(key)
			body.AccountID = setting.NeighbourID
			s := w.Start(body)
			return func() time.Duration {
				w.Until("the runner", 10*time.Minute, func() bool { return w.Request(s.ID).State == store.Ready })
				r := w.Request(s.ID)
				return r.ReadyAt.Sub(r.CreatedAt)
			}
		}
		quiet := ask("quiet")()
		var wg sync.WaitGroup
		for i := range *beside {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				body := sim.Ephemeral(fmt.Sprint("big-", i))
				body.AccountID = setting.AccountID
				for {
					if _, err := w.Client.Start(w.Context(), body); err == nil || !strings.Contains(err.Error(), "429") {
						return
					}
				}
			})
		}
		for _, after := range []time.Duration{5 * time.Second, 20 * time.Second} {
			time.Sleep(after)
			behind := ask(after.String())
			points := w.Points()
			if ahead := time.Until(points.Next); ahead < 5*time.Second {
				t.Errorf("%s later registrations are leased for %s, want the account to be in front", after, ahead)
			}
			got := behind()
			t.Logf("%s into %d starts: %s, and %s when it is quiet", after, *beside, got, quiet)
			if got > 2*quiet {
				t.Errorf("%s into the burst a start of the other account took %s, and %s when it is quiet", after, got, quiet)
			}
		}
		wg.Wait()
		w.Until("all to be ready", 10*time.Minute, func() bool { return w.States()[store.Ready] == *beside+3 })
		w.Check()
	})
}

// TestWhoComesTooLateInABurstLearnsWhen has an account that launches one machine a
// minute: who would be launched after its give_up_at learns that, and when it would be,
// at once; and it expires for that reason.
func TestWhoComesTooLateInABurstLearnsWhen(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Account: func(a *store.Account) { a.Pacing = store.Pacing{Burst: 1, IntervalMS: 60_000} }}, func(w *sim.World) {
		var ids []string
		for i := range 6 {
			body := sim.Ephemeral(fmt.Sprint(i))
			body.GiveUp = 210
			ids = append(ids, w.Start(body).ID)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		status, err := w.Client.Status(w.Context(), ids[5])
		if err != nil {
			t.Fatal(err)
		}
		if in := status.WaitUntil.Sub(status.CreatedAt).Round(time.Second); status.Wait != store.WaitPaced || in < 4*time.Minute || in > 5*time.Minute {
			t.Errorf("after a minute, the sixth waits for %q until %s after its start; want its turn, in four to five minutes", status.Wait, in)
		}
		w.Until("all to be final", 5*time.Minute, func() bool { return w.States()[store.Accepted]+w.States()[store.Waiting] == 0 })
		last := w.Request(ids[5])
		if last.State != store.Expired || !strings.Contains(last.Error.Text, "pacing") || !strings.Contains(last.Error.Text, last.Slot.UTC().Format(time.RFC3339)) {
			t.Errorf("the sixth is %s: %+v; want it expired for the pacing, and when its turn was", last.State, last.Error)
		}
		if n := w.States()[store.Ready]; n != 4 {
			t.Errorf("%d are ready, want the four whose turns came in time", n)
		}
		w.Check()
	})
}
