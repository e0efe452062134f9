package reaper_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ended takes a runner to its end, with the names that it has.
func (w *world) ended(run store.Runner) store.Runner {
	w.t.Helper()
	w.fleet.set(here, run.InstanceID, fleet.Terminated)
	if run.State.Usable() {
		w.apply(w.caseOf(run.ID).Drain(time.Now(), store.NewEnd(store.EndAgent)))
	}
	w.run()
	return w.wantRunner(run.ID, store.RunnerEnded)
}

func nameOf(run store.Runner, n int) string { return store.GitHubNameFor(controlPlane, run.ID, n) }

func TestNamesAreDeletedAfterTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.configure(w.launch(w.begin(w.accept("r"))))
		run = writtenAhead(run) // minted, and the answer lost
		w.put(&run)
		w.hub.register("42", nameOf(run, 2))
		w.hub.register("42", nameOf(run, 22)) // not one of its names
		run = w.ended(run)
		if !run.DueAt.Equal(time.Now()) {
			t.Errorf("due at %s, want now", run.DueAt)
		}
		w.minutes(1)
		if got, want := w.hub.names("42"), []string{nameOf(run, 22)}; !slices.Equal(got, want) {
			t.Errorf("GitHub has %v, want %v", got, want)
		}
		if got := w.runner(run.ID); len(got.Names) != 0 || !got.DueAt.IsZero() {
			t.Errorf("names %v, due at %s; want none", got.Names, got.DueAt)
		}
	})
}

func TestNameThatMayStillBeOnItsWayIsNotForgotten(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.ended(w.launch(w.begin(w.accept("r")))) // its first name was written ahead
		time.Sleep(30 * time.Second)
		w.run()
		if got := w.runner(run.ID); len(got.Names) != 1 {
			t.Errorf("half a minute after the end: names %v, want the first", got.Names)
		}
		w.hub.register("42", nameOf(run, 1)) // a slow GitHub comes round to it
		w.minutes(1)
		if got := w.runner(run.ID); len(got.Names) != 0 || len(w.hub.names("42")) != 0 {
			t.Errorf("names %v, GitHub has %v; want none", got.Names, w.hub.names("42"))
		}
	})
}

func TestLeftOverNamesAreTriedHourlyForADay(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.configure(w.launch(w.begin(w.accept("r"))))
		w.ended(run)
		w.hub.busy("42", run.Config.RunnerID, true)
		w.minutes(10)
		if n := w.hub.count("delete"); n != 1 {
			t.Errorf("%d DELETEs in ten minutes, want 1", n)
		}
		w.minutes(24*60 - 10)
		if n := w.hub.count("delete"); n < 22 || n > 24 {
			t.Errorf("%d DELETEs in a day, want one an hour", n)
		}
		w.minutes(60)
		if got := w.runner(run.ID); !got.DueAt.IsZero() || len(got.Names) != 1 {
			t.Errorf("after a day: due at %s with names %v, want it out of the index and the name on record", got.DueAt, got.Names)
		}
	})
}

func TestLeftOverNamesOfMissedRunsLeaveTheIndex(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.ended(w.configure(w.launch(w.begin(w.accept("r")))))
		time.Sleep(25 * time.Hour)
		w.run()
		if got := w.runner(run.ID); !got.DueAt.IsZero() || w.hub.count("delete") != 0 {
			t.Errorf("due at %s after %d DELETEs, want never, after none", got.DueAt, w.hub.count("delete"))
		}
	})
}

func TestNamesBelowTheConfigAreDeletedWhileTheRunnerLives(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.launch(w.begin(w.accept("r", shared)))
		w.hub.register("42", nameOf(run, 1)) // minted, and the answer lost
		run = w.boot(w.configure(writtenAhead(run)))
		w.hear(run.ID, store.Event{Kind: store.EventOnline})
		w.confirmed(run.ID)
		next := writtenAhead(w.runner(run.ID))
		w.put(&next)
		w.hub.register("42", nameOf(run, 3)) // minted, and on its way into the record
		w.minutes(1)
		if got, want := w.hub.names("42"), []string{nameOf(run, 2), nameOf(run, 3)}; !slices.Equal(got, want) {
			t.Errorf("GitHub has %v, want %v", got, want)
		}
		got := w.wantRunner(run.ID, store.RunnerOnline)
		if len(got.Names) != 2 || got.Names[0].N != 2 || got.Names[1].N != 3 {
			t.Errorf("names = %v, want the second and the third", got.Names)
		}
	})
}

func TestNamesOfOneRunAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.configure(w.launch(w.begin(w.accept("r"))))
		for range 250 {
			run = writtenAhead(run)
		}
		for i, g := range run.Names[1:] {
			run.Names[i+1].RunnerID = w.hub.register("42", g.Name)
		}
		w.put(&run)
		w.ended(run)
		w.minutes(1)
		if n := w.hub.count("delete"); n != 200 {
			t.Errorf("%d DELETEs in a run, want 200", n)
		}
		w.minutes(1)
		if got := w.runner(run.ID); len(got.Names) != 0 || len(w.hub.names("42")) != 0 {
			t.Errorf("%d names, GitHub has %d; want none after the next run", len(got.Names), len(w.hub.names("42")))
		}
	})
}

func TestNamesAreNotForgottenByACredentialThatSeesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.ended(w.configure(w.launch(w.begin(w.accept("r")))))
		w.hub.fail = func(op string, _ github.Scope, _ int64) error { return refusal(github.ErrNotFound, 404) }
		time.Sleep(time.Minute)
		if r, err := w.try(); err == nil {
			t.Errorf("Run = nil, want that the credential sees nothing\n%s", r)
		}
		if got := w.runner(run.ID); len(got.Names) != 1 || time.Until(got.DueAt) != time.Hour {
			t.Errorf("names %v, due in %s; want the first, in an hour", got.Names, time.Until(got.DueAt))
		}
		w.wantAlarms(store.AlarmGitHub)
	})
}

func TestRegistrationsThatNoRecordNamesAreDeletedAfterAnHour(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("live")
		rogues := []string{
			nameOf(store.Runner{ID: id("gone")}, 1),            // of a runner that never was
			nameOf(run, 7),                                     // borrows the id of one that lives
			"garo-" + controlPlane + "-backdoor",               // in no form of ours
			"garo-" + controlPlane + "-" + run.ID + "-evil-1",  // nor this
			"garo-" + controlPlane + "-" + id("gone") + "-x-y", // nor this
		}
		others := []string{
			"garo-other-" + id("theirs") + "-1",                   // another control plane's
			"garo-" + controlPlane + "-eu-" + id("theirs") + "-1", // and one whose name begins like ours
			"build-box", // nobody's
		}
		for _, n := range slices.Concat(rogues, others) {
			w.hub.register("42", n)
		}
		table := &counted{Store: w.store}
		w.config.Store = table
		r := w.run()
		if got := lines(r, "observe"); len(got) != len(rogues) {
			t.Errorf("sighted %v, want %d\n%s", got, len(rogues), r)
		}
		if got := lines(r, "notice"); len(got) != 2 {
			t.Errorf("told of %v, want those of other control planes\n%s", got, r)
		}
		for range 60 {
			w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
			if got := w.hub.names("42"); len(got) != 1+len(rogues)+len(others) {
				t.Fatalf("within the hour GitHub has %v, want all", got)
			}
			w.minutes(1)
		}
		want := append(slices.Clone(others), nameOf(run, 1))
		slices.Sort(want)
		if got := w.hub.names("42"); !slices.Equal(got, want) {
			t.Errorf("after an hour GitHub has %v, want %v", got, want)
		}
		if n := w.hub.count("list"); n != 2 {
			t.Errorf("%d lists in an hour, want 2: at its begin and its end", n)
		}
		if n := table.lists.Load(); n != 2 {
			t.Errorf("%d lists of the table in an hour, want 2", n)
		}
		w.wantAlarms(slices.Repeat([]store.Alarm{store.AlarmRogue}, len(rogues))...)
	})
}

func TestBusyRogueIsAlarmedAndKept(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ended(w.launch(w.begin(w.accept("r"))))
		name := nameOf(store.Runner{ID: id("gone")}, 1)
		w.hub.busy("42", w.hub.register("42", name), true)
		w.minutes(126) // seen at the second check, judged at the third
		if got := w.hub.names("42"); !slices.Equal(got, []string{name}) {
			t.Errorf("GitHub has %v, want the busy one", got)
		}
		w.wantAlarms(store.AlarmRogue)
	})
}

func TestRegistrationsOfLeftOverNamesAreRoguesAfterADay(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.ended(w.configure(w.launch(w.begin(w.accept("r")))))
		w.hub.busy("42", run.Config.RunnerID, true)
		w.minutes(23 * 60)
		w.wantAlarms()
		w.launch(w.begin(w.accept("next"))) // keeps the repository in use
		w.hub.busy("42", run.Config.RunnerID, false)
		next := w.runner(run.ID)
		next.DueAt = time.Time{} // as after a day of failures
		w.put(&next)
		for range 4 {
			w.minutes(60)
		}
		if got := w.hub.names("42"); slices.Contains(got, nameOf(run, 1)) {
			t.Errorf("GitHub has %v, want the left-over name deleted", got)
		}
	})
}

func TestRepositoryThatNobodyUsesIsLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.ended(w.configure(w.launch(w.begin(w.accept("r")))))
		w.minutes(2)
		w.minutes(24 * 60)
		lists := w.hub.count("list")
		w.hub.register("42", nameOf(run, 9))
		w.minutes(3 * 60)
		if n := w.hub.count("list") - lists; n != 0 {
			t.Errorf("%d lists a day after the last runner, want none", n)
		}
		if s := w.sweep(); len(s.Checked) != 0 || len(s.Runners) != 0 {
			t.Errorf("the sweep remembers %v and %v, want nothing", s.Checked, s.Runners)
		}
	})
}

func TestRepositoriesAreCheckedByTheFirstRegionAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.accounts[account] = store.Account{ID: account, Regions: map[string]store.Region{region: {}, "eu-west-1": {}}}
		w.online("r")
		w.run()
		if n := w.hub.count("list"); n != 1 {
			t.Errorf("%d lists, want 1", n)
		}
		if s := get[store.Sweep](w, store.SweepKey(account, "eu-west-1")); len(s.Checked) != 1 {
			t.Errorf("the first region's sweep has checked %v, want the repository", s.Checked)
		}
		if s := w.sweep(); len(s.Checked) != 0 || s.DueAt.IsZero() {
			t.Errorf("the second region's sweep has checked %v and is due at %s, want nothing, soon", s.Checked, s.DueAt)
		}
	})
}

func TestUnlistableRepositoryIsAlarmedHourly(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r")
		w.hub.fail = func(op string, _ github.Scope, _ int64) error { return refusal(github.ErrNotFound, 404) }
		for i := range 61 {
			w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
			if _, err := w.try(); (err != nil) != (i == 0 || i == 60) {
				t.Errorf("minute %d: Run = %v", i, err)
			}
			time.Sleep(time.Minute)
		}
		w.wantAlarms(store.AlarmGitHub, store.AlarmGitHub)
	})
}

func TestRoguesAreKeptWhenTheTableCannotBeRead(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ended(w.launch(w.begin(w.accept("r"))))
		for i := range 3 {
			w.hub.register("42", nameOf(store.Runner{ID: id(fmt.Sprintf("gone%c", 'a'+i))}, 1))
		}
		w.minutes(60) // they are sighted
		time.Sleep(time.Hour)
		s := w.sweep()
		s.DueAt, s.Checked = time.Now(), nil
		w.put(&s)
		w.config.Store = unreadable{w.store, store.Ref{Kind: store.KindRunner, ID: id("gonea")}}
		if _, err := w.try(); err == nil {
			t.Error("Run = nil, want the store's failure")
		}
		if got := w.hub.names("42"); len(got) != 3 {
			t.Errorf("GitHub has %v, want all three", got)
		}
	})
}
