package sim_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// dying has EC2 end machines of a market as soon as they would run; of any, if that
// is empty.
func dying(market, reason string) func(*simfleet.WorldConfig) {
	return func(c *simfleet.WorldConfig) {
		c.Dies = func(_ int, l fleet.Launch) string {
			if market != "" && l.Market != market {
				return ""
			}
			return reason
		}
	}
}

func onDemandAlone(a *store.Account) { a.Markets, a.SpotFallback = []string{store.OnDemand}, false }

func TestMachineThatEC2EndsAtOnceFailsItsRequestWithEC2sReason(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{World: dying("", "Client.InternalError: Client error on launch"), Account: onDemandAlone}, func(w *sim.World) {
		time.Sleep(90 * time.Second) // the first sweep is over, and would see it too
		began := time.Now()
		body := sim.Ephemeral("a")
		body.Type = store.OnDemand
		r := w.Final(w.Start(body), 20*time.Minute)
		if r.State != store.Failed || r.Error.Code != store.EndTerminated || !strings.Contains(r.Error.Text, "Client error on launch (Client.InternalError)") || !strings.Contains(r.Error.Text, "KMS key") {
			w.Errorf("request is %s with %v, want failed with EC2's reason and advice", r.State, r.Error)
		}
		if took := time.Since(began); took > 2*time.Minute {
			w.Errorf("it failed after %s, want within two minutes", took)
		}
		machines(w, 1)
		w.Quiet(2 * time.Hour)
		w.Check()
	})
}

func TestSpotMachineThatDiesAtOnceIsReplacedOnDemand(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{World: dying(store.Spot, "Client.InternalError: Client error on launch")}, func(w *sim.World) {
		time.Sleep(90 * time.Second) // the first sweep is over, and would see it too
		began := time.Now()
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 10*time.Minute)
		if took := time.Since(began); took > 4*time.Minute {
			w.Errorf("it was ready after %s, want a minute for the death, half a one of pause, and a boot", took)
		}
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 2)
		if second := w.Fleet.Instances()[1]; second.Market != store.OnDemand {
			w.Errorf("the second machine is %s, want it on demand", second.Market)
		}
	})
}

func TestImageOfAnotherArchitectureFindsItsType(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{
		World: func(c *simfleet.WorldConfig) { c.Architecture = func(string) string { return "arm64" } },
		Account: func(a *store.Account) {
			a.InstanceTypes = []string{"t3a.micro", "m7a.large", "m7g.large"}
			a.DefaultInstanceTypes = a.InstanceTypes
		},
	}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 5*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestRequestsWithOtherNeedsShareNoMachine(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		var all []apitype.Started
		needs := []apitype.Start{{}, {CPU: 4}, {CPU: 8}, {Arch: store.ARM64}, {CPU: 4, GPU: 1}}
		for i, of := range needs {
			body := sim.Shared(fmt.Sprint(i))
			body.CPU, body.Arch, body.GPU = of.CPU, of.Arch, of.GPU
			again := body
			again.IdempotencyKey += "-again"
			all = append(all, w.Start(body), w.Start(again))
		}
		for _, s := range all {
			w.Ready(s, 10*time.Minute)
		}
		machines(w, len(needs))
	})
}

func TestImageThatIsReplacedUnderItsParameterIsFound(t *testing.T) {
	t.Parallel()
	var image atomic.Value
	image.Store("ami-00000000000000001")
	first := true
	sim.Run(t, sim.Config{World: func(c *simfleet.WorldConfig) {
		c.Image = func(fleet.Place, string) (string, error) {
			if now := image.Load().(string); !first {
				return now, nil
			}
			first = false
			return "ami-00000000000000000", nil // as read a moment before it was replaced
		}
	}}, func(w *sim.World) {
		w.Fleet.Deregister("ami-00000000000000000")
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 5*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestBusyMachineWhoseTagsAreEditedKeepsItsJob(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 5*time.Minute)
		job := w.Job(s.RunsOn, 40*time.Minute)
		time.Sleep(time.Minute)
		i := w.Fleet.Instances()[0]
		if err := w.Fleet.Retag(i.ID, map[string]string{fleet.TagControlPlane: i.Tags[fleet.TagControlPlane], fleet.TagRunner: "somebody"}); err != nil {
			w.Fatal(err)
		}
		good(w, s, job)
		machines(w, 1)
		for _, a := range w.Alarms() {
			if a != store.AlarmTags {
				w.Errorf("alarm %s, want %s alone", a, store.AlarmTags)
			}
		}
		if len(w.Alarms()) == 0 {
			w.Error("no alarm, want tags_edited")
		}
	})
}
