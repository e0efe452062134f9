package reaper_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBusyMachineWhoseTagsWereEditedLivesAndIsAlarmed(t *testing.T) {
	for name, c := range map[string]struct {
		value func(w *world) string // of the edited runner tag
	}{
		"Removed":             {func(*world) string { return "" }},
		"OfNoRunner":          {func(*world) string { return id("nobody") }},
		"OfAnEndedRunner":     {func(w *world) string { return w.ended(w.launch(w.begin(w.accept("old")))).ID }},
		"OfAnotherLiveRunner": {func(w *world) string { return w.online("other").ID }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.online("busy")
				w.hub.busy("42", w.runner(run.ID).Config.RunnerID, true)
				run = w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "1"})
				value := c.value(w)
				w.minutes(1)
				w.log.Reset()
				w.fleet.retag(here, run.InstanceID, fleet.TagRunner, value)
				for range 30 {
					w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
					time.Sleep(time.Minute)
					w.fleet.settle()
					w.run()
				}
				if state := w.fleet.instances[here][run.InstanceID].State; state != fleet.Running {
					t.Errorf("the machine is %s after half an hour, want running", state)
				}
				w.wantRunner(run.ID, store.RunnerBusy)
				w.wantAlarms(slices.Repeat([]store.Alarm{store.AlarmTags}, 6)...) // one a sweep
				if s := w.sweep(); !s.BrakeAt.IsZero() || len(s.Instances) != 0 {
					t.Errorf("the sweep remembers %v, brake at %s; want that nothing is without a record", s.Instances, s.BrakeAt)
				}
			})
		})
	}
}

func TestMachineWhoseTagsWereEditedEndsWithItsRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.draining("r")
		w.fleet.retag(here, run.InstanceID, fleet.TagRunner, id("nobody"))
		w.minutes(10)
		w.wantRunner(run.ID, store.RunnerEnded)
		if w.fleet.running() != 0 {
			t.Errorf("%d machines, want 0", w.fleet.running())
		}
	})
}

func TestNoMachineIsEndedWhileTheLiveRecordsCannotBeRead(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r")
		w.ghosts(1)
		alive := func(minutes int) {
			for range minutes {
				w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
				time.Sleep(time.Minute)
				_, err := w.try()
				if unread := w.config.Store != w.store; errors.Is(err, errUnreadable) != unread {
					t.Errorf("Run = %v, want %v: %v", err, errUnreadable, unread)
				}
			}
		}
		alive(9) // the machine without a record was seen twice, and is too young
		w.fleet.retag(here, run.InstanceID, fleet.TagRunner, id("nobody"))
		readable := w.config.Store
		w.config.Store = unreadable{w.store, store.Ref{Kind: store.KindRunner, ID: run.ID}}
		alive(10)
		if w.fleet.count("terminate") != 0 {
			t.Errorf("%d terminations, want none", w.fleet.count("terminate"))
		}
		w.config.Store = readable
		alive(6)
		if w.fleet.count("terminate") != 1 || w.fleet.instances[here][run.InstanceID].State != fleet.Running {
			t.Errorf("%d terminations once they can be read, want that of the machine without a record", w.fleet.count("terminate"))
		}
	})
}

func TestRecordOfAnotherPlaceClaimsNoMachine(t *testing.T) {
	inWorld(t, func(w *world) {
		elsewhere := w.begin(w.accept("r", func(q *store.Request) { q.Region = "us-east-1" }))
		w.apply(store.Case{Runner: elsewhere}.Adopt(time.Now(), w.ghosts(1)[0]))
		r := w.run()
		if got := lines(r, reaper.Observe); len(got) != 1 {
			t.Errorf("the sweep saw %v, want the machine without a record", got)
		}
	})
}
