package reaper_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// An agent of the version before says once that its runner program listens, and
// nothing of later configs. A deploy happens while it runs.
func TestMachineThatSaysNothingOfLaterConfigsIsConfirmedAndServedPastItsExp(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		serve := func(minutes int) { // a job, and the next config, of which the machine says nothing
			t.Helper()
			w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
			w.livingMinutes(minutes, run)
			w.wantRunner(run.ID, store.RunnerBusy)
			w.hear(run.ID, store.Event{Kind: store.EventJobDone})
			w.hub.forget("42", w.runner(run.ID).Config.RunnerID)
			w.next(run.ID)
			next := w.configure(w.runner(run.ID))
			w.hub.online("42", next.Config.RunnerID, true)
		}
		serve(1)
		if lock := w.lock(run.Lock); lock.Confirmed(time.Now(), w.lim) {
			t.Error("the new config is confirmed, and nobody asked GitHub")
		}
		w.livingMinutes(2, run)
		if lock := w.lock(run.Lock); !lock.Confirmed(time.Now(), w.lim) {
			t.Errorf("confirmed at %v, want the reaper to have asked", lock.ConfirmedAt)
		}
		serve(80) // past its exp, which is 65 minutes after the start
		done := w.runner(run.ID).Job.EndedAt
		w.livingMinutes(1, run)
		w.wantRunner(run.ID, store.RunnerOnline)
		w.livingMinutes(1, run)
		if got := w.wantRunner(run.ID, store.RunnerDraining); got.End.Code != store.EndExpired || got.DrainingAt.Sub(done) < w.lim.OnlineGrace {
			t.Errorf("end %v, %v after its last job; want expired, and time for a job that is queued", got.End, got.DrainingAt.Sub(done))
		}
	})
}
