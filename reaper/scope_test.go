package reaper_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// inOrganization makes it a request of an account whose runners register in a group. The
// organization has the number of the repository of the other requests: both are GitHub's
// own, and of different kinds.
func inOrganization(q *store.Request) {
	q.Scope = store.Scope{Kind: store.OrganizationScope, ID: "42", Name: "octo", Group: "garo"}
}

// wantIn asserts that every call was in one scope, which GitHub calls so.
func (w *world) wantIn(scope string, op string, n int) {
	w.t.Helper()
	for _, c := range w.hub.calls {
		if verb, object, _ := strings.Cut(c, " "); !strings.HasPrefix(object, scope+"/") || strings.Count(object, "/") != 1+strings.Count(scope, "/") {
			w.t.Errorf("call %s %s, want it in %s", verb, object, scope)
		}
	}
	if got := w.hub.count(op); got != n {
		w.t.Errorf("%d calls to %s in %v, want %d", got, op, w.hub.calls, n)
	}
}

func TestRegistrationIsDeletedInItsScope(t *testing.T) {
	for name, c := range map[string]struct {
		edit        func(*store.Request)
		key, called string
	}{
		"Repository":   {func(*store.Request) {}, "42", "octo/app"},
		"Organization": {inOrganization, "@42", "octo"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.configure(w.launch(w.begin(w.accept("r", c.edit))))
				if got := w.hub.names(c.key); len(got) != 1 {
					t.Fatalf("GitHub has %v in %s, want the runner", got, c.key)
				}
				w.cancel(run.Request)
				w.minutes(20) // it never boots
				if got := w.hub.names(c.key); len(got) != 0 {
					t.Errorf("GitHub has %v, want nothing", got)
				}
				w.wantIn(c.called, "delete", 1)
			})
		})
	}
}

func TestRoguesOfAnOrganizationAreFoundThere(t *testing.T) {
	inWorld(t, func(w *world) {
		inRepository := w.configure(w.launch(w.begin(w.accept("a"))))
		inGroup := w.configure(w.launch(w.begin(w.accept("b", inOrganization))))
		rogue := nameOf(store.Runner{ID: id("gone")}, 1)
		for _, key := range []string{"42", "@42"} {
			w.hub.register(key, rogue)
		}
		w.run()
		if s := w.sweep(); len(s.Checked) != 2 || s.Checked["42"].IsZero() || s.Checked["@42"].IsZero() || len(s.Runners) != 2 {
			t.Errorf("the sweep looked at %v and saw %v, want both scopes and the rogue of each", s.Checked, s.Runners)
		}
		for range 61 {
			for _, r := range []store.Runner{inRepository, inGroup} {
				w.hear(r.ID, store.Event{Kind: store.EventHeartbeat})
			}
			w.minutes(1)
		}
		for _, key := range []string{"42", "@42"} {
			if slices.Contains(w.hub.names(key), rogue) {
				t.Errorf("GitHub has the rogue in %s after an hour", key)
			}
		}
		w.wantAlarms(store.AlarmRogue, store.AlarmRogue)
	})
}

func TestOneListConfirmsTheRunnersOfAnOrganization(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"a", "b"} {
			run := w.listening(name, inOrganization, func(q *store.Request) { q.Repository.ID, q.Repository.Name = name, "octo/"+name })
			w.hub.online("@42", run.Config.RunnerID, true)
		}
		time.Sleep(w.lim.Heartbeat)
		w.hub.calls = nil
		w.run()
		w.wantIn("octo", "list", 1+1) // one confirms, and one looks for rogues
		for _, name := range []string{"a", "b"} {
			w.wantRunner(id(name), store.RunnerOnline)
		}
	})
}
