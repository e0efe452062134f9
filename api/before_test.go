package api_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// An agent of the version before says once that its runner program listens, and
// nothing of later configs. A deploy happens while it runs.
func TestMachineThatSaysNothingOfLaterConfigsGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.online(w.start(workflowToken, apitype.Start{}).ID)
		for n := 2; n <= 4; n++ {
			for _, kind := range []string{store.EventJobStarted, store.EventJobDone} {
				if order := m.says(kind); order != "go" {
					t.Fatalf("config %d: order after %s = %s, want go", n-1, kind, order)
				}
			}
			m.post("next", apitype.Next{N: n})
			w.configured(m.id)
			var next apitype.NextConfig
			if a := m.post("next", apitype.Next{N: n}); a.status != http.StatusOK || json.Unmarshal(a.body, &next) != nil || next.N != n {
				t.Fatalf("next = %d %s, want config %d", a.status, a.body, n)
			}
			time.Sleep(time.Minute)
			if order := m.says(store.EventHeartbeat); order != "go" {
				t.Errorf("config %d: order = %s, want go", n, order)
			}
			run, lock := w.runner(m.id), w.lock(m.booted.Lock)
			if lock.Confirmed(time.Now(), w.limits) {
				t.Errorf("config %d is confirmed, and nobody asked GitHub", n)
			}
			d, verdict := store.Case{Runner: run, Lock: lock}.Confirm(time.Now(), w.limits, store.Registration{Online: true})
			if verdict != store.Confirmed || !d.Lock.Confirmed(time.Now(), w.limits) {
				t.Errorf("config %d: GitHub's word makes it %s, want confirmed though the machine said nothing", n, verdict)
			}
		}
		if run := w.runner(m.id); run.Jobs != 3 || run.State != store.RunnerOnline {
			t.Errorf("runner is %s after %d jobs, want online after 3", run.State, run.Jobs)
		}
	})
}
