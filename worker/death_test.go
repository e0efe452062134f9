package worker_test

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRequestWhoseSpotMachineDiedIsLaunchedOnDemand(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offer([]string{"m7g.large", "m7a.large"}, []string{"subnet-a"})
		r := w.request(func(r *store.Request) {
			r.Attempts = []store.Attempt{{Placement: store.Placement{Market: store.Spot, InstanceType: "m7g.large", Subnet: "subnet-a"}, Code: "Client.InternalError"}}
		})
		w.start(r)
		if run := w.runnerOf(r.ID); run.Placement().Market != store.OnDemand || run.Placement().InstanceType != "m7g.large" || len(w.fleet.calls) != 1 {
			t.Errorf("runner is at %s after %d calls, want the first type on demand at once", run.Placement(), len(w.fleet.calls))
		}
	})
}

// dead makes the machine of a launch, whose answer is lost, die of a reason of EC2's.
func (w *world) dead(code, words string) {
	w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
		if n == 1 {
			launch()
			m := w.fleet.byToken[l.ClientToken]
			m.State, m.ReasonCode, m.Reason = fleet.Terminated, code, words
			return errLost
		}
		return &fleet.Error{Kind: fleet.ErrGone, Code: "IdempotentInstanceTerminated", Text: "The request uses the same client token as a terminated instance."}
	}
}

func TestMachineThatWasDeadWhenItsTokenWasAskedForIsToldInEC2sWords(t *testing.T) {
	inWorld(t, func(w *world) {
		w.dead("Client.InvalidSnapshot.NotFound", "Client.InvalidSnapshot.NotFound: The specified snapshot was not found.")
		r := w.request()
		w.start(r)
		w.follow(2)
		w.failed(r, store.EndTerminated, "The specified snapshot was not found (Client.InvalidSnapshot.NotFound)", "build the image again")
	})
}
