package reaper_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// unreadable is a store whose reads fail when they name ref.
type unreadable struct {
	store.Store
	ref store.Ref
}

var errUnreadable = errors.New("read throttled")

func (u unreadable) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if slices.Contains(refs, u.ref) {
		return nil, errUnreadable
	}
	return u.Store.Get(ctx, refs...)
}

// ghosts starts machines of runners that no record knows.
func (w *world) ghosts(n int) []string {
	var ids []string
	for i := range n {
		run := store.Runner{ID: id(fmt.Sprintf("ghost%c%c", 'a'+i/20, 'a'+i%20)), Account: account, Region: region}
		ids = append(ids, w.machine(run, run.ClientToken()))
	}
	return ids
}

func TestMissingSweepsAreCreatedAndMadeEachFiveMinutes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.accounts["222222222222"] = store.Account{ID: "222222222222", Regions: map[string]store.Region{"us-east-1": {}, "us-east-2": {}}}
		r := w.run()
		want := []string{"sweep 111111111111/eu-west-2", "sweep 222222222222/us-east-1", "sweep 222222222222/us-east-2"}
		if got := lines(r, reaper.Swept); !slices.Equal(got, want) {
			t.Errorf("swept %v, want %v", got, want)
		}
		w.minutes(4)
		if n := w.fleet.count("list"); n != 3 {
			t.Errorf("%d lists in four minutes, want 3", n)
		}
		w.minutes(1)
		if n := w.fleet.count("list"); n != 6 {
			t.Errorf("%d lists in five minutes, want 6", n)
		}
	})
}

func TestMachineWithoutARecordIsEndedWhenOldAndSeenTwice(t *testing.T) {
	inWorld(t, func(w *world) {
		ghost := w.ghosts(1)[0]
		r := w.run()
		if got := lines(r, reaper.Observe); !slices.Equal(got, []string{"instance " + ghost}) {
			t.Errorf("sighted %v, want the machine", got)
		}
		w.minutes(9)
		if w.fleet.running() != 1 {
			t.Errorf("%d machines after nine minutes, want 1", w.fleet.running())
		}
		w.minutes(1)
		if w.fleet.running() != 0 {
			t.Errorf("%d machines after ten minutes, want 0", w.fleet.running())
		}
		w.minutes(10)
		if s := w.sweep(); len(s.Instances) != 0 {
			t.Errorf("the sweep still remembers %v", s.Instances)
		}
		if n := w.fleet.count("terminate"); n != 1 {
			t.Errorf("%d terminations, want 1", n)
		}
		told := w.sweep().History
		if len(told) != 1 || told[0].State != "terminated" || !strings.Contains(told[0].Reason, ghost) {
			t.Errorf("the sweep tells %v, want that %s was terminated", told, ghost)
		}
	})
}

func TestOldMachineIsNotEndedAtItsFirstSighting(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ghosts(1)
		time.Sleep(time.Hour)
		w.run()
		time.Sleep(59 * time.Second)
		s := w.sweep()
		s.DueAt = time.Now()
		w.put(&s)
		w.run()
		if w.fleet.running() != 1 {
			t.Errorf("%d machines 59 s after the first sighting, want 1", w.fleet.running())
		}
		w.minutes(5)
		if w.fleet.running() != 0 {
			t.Errorf("%d machines at the next sweep, want 0", w.fleet.running())
		}
	})
}

func TestOnlyMachinesOfOurControlPlaneAreLookedAt(t *testing.T) {
	inWorld(t, func(w *world) {
		ghost := w.ghosts(1)[0]
		in := w.fleet.instances[here][ghost]
		in.Tags = maps.Clone(in.Tags)
		in.Tags[fleet.TagControlPlane] = "other"
		w.fleet.add(here, in)
		w.config.Fleet = liar{w.fleet} // lists it all the same
		w.minutes(30)
		if w.fleet.running() != 1 {
			t.Errorf("%d machines, want the other control plane's to run", w.fleet.running())
		}
	})
}

func TestEmptyTableWithAHundredMachinesEndsNone(t *testing.T) {
	inWorld(t, func(w *world) {
		for range 20 { // not all of one age: few are ripe at once
			w.ghosts(5)
			w.minutes(1)
		}
		w.minutes(3 * 60)
		if w.fleet.running() != 100 || w.fleet.count("terminate") != 0 {
			t.Errorf("%d machines run, %d terminations; want 100 and none", w.fleet.running(), w.fleet.count("terminate"))
		}
		s := w.sweep()
		if s.BrakeAt.IsZero() || len(s.History) != 1 || s.History[0].State != "braked" {
			t.Errorf("brake at %s, history %v; want it on, and told once", s.BrakeAt, s.History)
		}
		w.log.Reset()
		w.minutes(10)
		w.wantAlarms(store.AlarmBrake, store.AlarmBrake) // one a sweep

		s = w.sweep()
		w.apply(s.Release(time.Now(), "operator ann"))
		w.log.Reset()
		time.Sleep(time.Second)
		w.run()
		if w.fleet.running() != 0 {
			t.Errorf("%d machines after the release, want 0", w.fleet.running())
		}
		w.wantAlarms()
		if s := w.sweep(); !s.BrakeAt.IsZero() || s.History[0].State != "braked" || s.History[1].State != "released" || s.History[len(s.History)-1].State != "brake off" {
			t.Errorf("brake at %s, history %v; want it off, and told", s.BrakeAt, s.History)
		}
		w.minutes(5)
		w.ghosts(4)
		w.minutes(20)
		if w.fleet.running() != 4 {
			t.Errorf("%d machines, want 4: a release is for what it was given for", w.fleet.running())
		}
	})
}

func TestThreeMachinesWithoutARecordNeedNoBrake(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ghosts(store.BrakeAbove)
		w.minutes(20)
		if w.fleet.running() != 0 {
			t.Errorf("%d machines, want 0", w.fleet.running())
		}
		w.wantAlarms()
	})
}

func TestReleaseHoldsUntilAllAreEnded(t *testing.T) {
	inWorld(t, func(w *world) {
		ids := w.ghosts(8)
		w.minutes(15)
		stubborn := ids[4:]
		w.fleet.fail = func(op string, _ fleet.Place, id string) error {
			if op == "terminate" && slices.Contains(stubborn, id) {
				return &fleet.Error{Kind: fleet.ErrRefused, Code: "OperationNotPermitted", Text: "protected"}
			}
			return nil
		}
		s := w.sweep()
		w.apply(s.Release(time.Now(), "operator ann"))
		time.Sleep(time.Second)
		if _, err := w.try(); err == nil {
			t.Error("Run = nil, want that four machines cannot be ended")
		}
		if s := w.sweep(); s.BrakeAt.IsZero() {
			t.Error("the brake is off, want the release to hold for those that are left")
		}
		w.fleet.fail = func(string, fleet.Place, string) error { return nil }
		w.minutes(10)
		if w.fleet.running() != 0 || !w.sweep().BrakeAt.IsZero() {
			t.Errorf("%d machines, brake at %s; want none", w.fleet.running(), w.sweep().BrakeAt)
		}
	})
}

func TestPageThatFailedConcludesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ghosts(3)
		w.minutes(6)
		w.ghosts(3) // more than a page
		seen := w.sweep().Instances
		time.Sleep(time.Hour)
		broken := errors.New("page 2 failed")
		w.fleet.fail = func(op string, _ fleet.Place, id string) error {
			if op == "list" && id == "2" {
				return broken
			}
			return nil
		}
		for range 3 {
			time.Sleep(time.Minute)
			if _, err := w.try(); !errors.Is(err, broken) {
				t.Errorf("Run = %v, want %v", err, broken)
			}
		}
		s := w.sweep()
		if w.fleet.count("terminate") != 0 || !maps.EqualFunc(s.Instances, seen, time.Time.Equal) || s.DueAt.After(time.Now()) {
			t.Errorf("%d terminations, sightings %v, due at %s; want none, %v, and still due",
				w.fleet.count("terminate"), s.Instances, s.DueAt, seen)
		}
	})
}

func TestSweepConcludesNothingWhenTheTableCannotBeRead(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ghosts(1)
		w.minutes(6)
		time.Sleep(time.Hour)
		w.config.Store = unreadable{w.store, store.Ref{Kind: store.KindRunner, ID: id("ghostaa")}}
		if _, err := w.try(); !errors.Is(err, errUnreadable) {
			t.Errorf("Run = %v, want %v", err, errUnreadable)
		}
		if w.fleet.running() != 1 {
			t.Errorf("%d machines, want 1", w.fleet.running())
		}
	})
}

func TestMachineIsHeldAgainstItsRecord(t *testing.T) {
	idle := func(w *world, run store.Runner) { time.Sleep(31 * time.Second) } // the claim lapses
	for name, c := range map[string]struct {
		machine func(w *world) (store.Runner, string) // the runner as recorded, and the instance
		after   func(w *world, run store.Runner)
		want    reaper.Action // "" for none
	}{
		"NamedByIt": {func(w *world) (store.Runner, string) {
			run := w.launch(w.begin(w.accept("r")))
			return run, run.InstanceID
		}, nil, ""},
		"AnotherIsNamedByIt": {func(w *world) (store.Runner, string) {
			run := w.launch(w.begin(w.accept("r")))
			return run, w.machine(run, run.ClientToken())
		}, nil, reaper.Terminate},
		"ItHasFailed": {func(w *world) (store.Runner, string) {
			run := w.begin(w.accept("r"))
			instance := w.machine(run, run.ClientToken())
			c := w.caseOf(run.ID)
			c.Request = store.Request{}
			return w.apply(c.Abandon(time.Now(), w.lim, "", store.Said{}, store.NewEnd(store.EndNoCapacity))).Runner, instance
		}, nil, reaper.Terminate},
		"ItHasEnded": {func(w *world) (store.Runner, string) {
			run := w.ended(w.launch(w.begin(w.accept("r"))))
			w.fleet.set(here, run.InstanceID, fleet.Running) // EC2 said terminated, and shows it alive
			s := w.sweep()
			s.DueAt = time.Now()
			w.put(&s)
			return run, run.InstanceID
		}, nil, reaper.Terminate},
		"AWorkerHasTheCallOpen": {func(w *world) (store.Runner, string) {
			run := w.begin(w.accept("r"))
			return run, w.machine(run, run.ClientToken())
		}, nil, ""},
		"TheWorkerDied": {func(w *world) (store.Runner, string) {
			run := w.begin(w.accept("r"))
			return run, w.machine(run, run.ClientToken())
		}, idle, reaper.Adopt},
		"LaunchedForAFormerPlacement": {func(w *world) (store.Runner, string) {
			run := w.begin(w.accept("r"))
			run.Index = 1
			w.put(&run)
			return run, w.machine(run, store.Runner{ID: run.ID, Index: 0}.ClientToken())
		}, nil, reaper.Terminate},
		"OfATokenThatIsNotOurs": {func(w *world) (store.Runner, string) {
			run := w.begin(w.accept("r"))
			return run, w.machine(run, "console")
		}, idle, ""},
		"InAnotherPlace": {func(w *world) (store.Runner, string) {
			run := w.begin(w.accept("r", func(q *store.Request) { q.Region = "us-east-1" }))
			there := run
			there.Region = region
			return run, w.machine(there, run.ClientToken())
		}, idle, ""},
		"AlreadyShuttingDown": {func(w *world) (store.Runner, string) {
			run := w.launch(w.begin(w.accept("r")))
			double := w.machine(run, run.ClientToken())
			w.fleet.set(here, double, fleet.ShuttingDown)
			return run, double
		}, nil, ""},
		"TerminatedWithoutOurDoing": {func(w *world) (store.Runner, string) {
			run := w.online("r")
			w.fleet.set(here, run.InstanceID, fleet.Terminated)
			return run, run.InstanceID
		}, nil, reaper.Ended},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run, instance := c.machine(w)
				before := w.runner(run.ID)
				if c.after != nil {
					c.after(w, run)
				}
				r := w.run()
				var got []reaper.Line
				for _, l := range r.Lines {
					if l.ID == instance || l.ID == run.ID {
						got = append(got, l)
					}
				}
				if c.want == "" {
					if len(got) != 0 || w.runner(run.ID).Version != before.Version || w.fleet.count("terminate") != 0 {
						t.Errorf("the sweep did %v, want nothing", got)
					}
					return
				}
				if len(got) != 1 || got[0].Action != c.want {
					t.Errorf("the sweep did %v, want %s", got, c.want)
				}
				after := w.runner(run.ID)
				ends := w.fleet.instances[here][instance].State == fleet.ShuttingDown
				if ends != (c.want == reaper.Terminate) {
					t.Errorf("the machine is %s", w.fleet.instances[here][instance].State)
				}
				if ends && after.Version != before.Version {
					t.Errorf("the record was written, want it left alone: %v", after.History)
				}
				if c.want == reaper.Adopt && (after.State != store.RunnerLaunched || after.InstanceID != instance) {
					t.Errorf("runner is %s with instance %q, want launched with %s", after.State, after.InstanceID, instance)
				}
				if c.want == reaper.Ended && (after.State != store.RunnerEnded || w.live() != 0) {
					t.Errorf("runner is %s, quota %d; want ended, 0", after.State, w.live())
				}
			})
		})
	}
}

func TestAdoptedMachineIsGoneOnWith(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("r"))
		w.machine(run, run.ClientToken())
		time.Sleep(31 * time.Second)
		w.run()
		want := queue.Message{Kind: queue.Resume, ID: run.ID, Trace: run.Trace}
		if got := w.queue.take(); len(got) != 1 || got[0].Message != want {
			t.Errorf("sent %v, want %v", got, want)
		}
	})
}

func TestLateLaunchOfAnEndedRunnerIsSwept(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("r"))
		w.minutes(7) // nobody ever sees an instance
		w.wantRunner(run.ID, store.RunnerEnded)
		w.machine(run, run.ClientToken()) // the call takes effect after all
		w.minutes(5)
		if w.fleet.running() != 0 {
			t.Errorf("%d machines, want 0 within a sweep", w.fleet.running())
		}
	})
}

func TestPlaceThatIsNoLongerRegisteredIsSweptUntilNothingIsLeft(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ghosts(1)
		w.run()
		w.accounts[account] = store.Account{ID: account, Regions: map[string]store.Region{"eu-west-1": {}}}
		w.minutes(15)
		if w.fleet.running() != 0 || w.sweep().DueAt.IsZero() {
			t.Errorf("%d machines, due at %s; want none, and still in the index", w.fleet.running(), w.sweep().DueAt)
		}
		w.fleet.instances[here] = nil
		w.minutes(5)
		if due := w.sweep().DueAt; !due.IsZero() {
			t.Errorf("due at %s, want never", due)
		}
		w.accounts[account] = store.Account{ID: account, Regions: map[string]store.Region{region: {}}}
		w.minutes(1)
		if w.sweep().DueAt.IsZero() {
			t.Error("registered again, and not in the index")
		}
	})
}

func TestAccountOfWhichNothingLivesLeavesTheIndexWithoutAnAlarm(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run()
		delete(w.accounts, account)
		w.fleet.fail = func(string, fleet.Place, string) error { return store.ErrNoAccount }
		time.Sleep(w.lim.SweepPeriod)
		w.minutes(10)
		w.wantAlarms()
		if due := w.sweep().DueAt; !due.IsZero() {
			t.Errorf("due at %s, want never", due)
		}
	})
}

func TestUnreadableRegistrationStopsNoSweep(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ghosts(1)
		w.minutes(6)
		w.config.Accounts = outage{}
		for range 6 {
			time.Sleep(time.Minute)
			if _, err := w.try(); !errors.Is(err, errOutage) {
				t.Errorf("Run = %v, want %v", err, errOutage)
			}
		}
		if w.fleet.running() != 0 {
			t.Errorf("%d machines, want 0: the index knows the sweep", w.fleet.running())
		}
		w.wantAlarms() // each run fails, and three of five are an alarm
		w.fleet.instances[here] = nil
		time.Sleep(w.lim.SweepPeriod)
		_, _ = w.try()
		if w.sweep().DueAt.IsZero() {
			t.Error("the sweep left the index, want it to stay while nobody knows what is registered")
		}
	})
}

var errOutage = errors.New("parameters cannot be read")

// outage lists the account and cannot read it.
type outage struct{}

func (outage) List(context.Context) ([]string, error) { return []string{account}, nil }
func (outage) Account(context.Context, string) (store.Account, error) {
	return store.Account{}, errOutage
}
